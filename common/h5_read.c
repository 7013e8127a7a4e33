/* Reading files of our own back through libhdf5 from an image in memory: the bytes of a dataset are handed out where
 * they lie, after type, extent and place were checked. Must not know: what the datasets mean. */
#include "common/h5_internal.h"

enum status h5_get_int(struct h5 *file, const char *path, const char *name, int64_t *out, struct error *err)
{
    h5_quiet();
    hid_t attribute = H5Aopen_by_name(file->file, path, name, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Aget_space(attribute), type = H5Aget_type(attribute);
    bool good = H5Sget_simple_extent_type(space) == H5S_SCALAR && H5Tequal(type, H5T_STD_I64LE) > 0 &&
                H5Aread(attribute, H5T_NATIVE_INT64, out) >= 0;
    enum status st = good ? STATUS_OK : h5_complain(file, err, "read an integer attribute of", path);
    H5Tclose(type);
    H5Sclose(space);
    H5Aclose(attribute);
    H5Eclear2(H5E_DEFAULT);
    return st;
}

/* A dataset whose bytes lie in one piece. */
struct place {
    hid_t dataset, type, space;
    int n_dims;
    hsize_t extents[H5S_MAX_RANK];
    hsize_t elements;
};

static void place_close(struct place *place)
{
    H5Sclose(place->space);
    H5Tclose(place->type);
    H5Dclose(place->dataset);
    H5Eclear2(H5E_DEFAULT);
}

static enum status place_open(struct h5 *file, const char *path, struct place *out, struct error *err)
{
    h5_quiet();
    *out = (struct place){.dataset = H5Dopen2(file->file, path, H5P_DEFAULT), .elements = 1};
    out->type = H5Dget_type(out->dataset);
    out->space = H5Dget_space(out->dataset);
    out->n_dims = H5Sget_simple_extent_dims(out->space, out->extents, NULL);
    bool good = out->type >= 0 && out->n_dims >= 0 && out->n_dims <= H5_MAX_DIMS;
    for (int i = 0; good && i < out->n_dims; i++)
        good = !__builtin_mul_overflow(out->elements, out->extents[i], &out->elements);
    if (good)
        return STATUS_OK;
    enum status st = h5_complain(file, err, "open the dataset", path);
    place_close(out);
    return st;
}

/* Bytes of the dataset in the image, `size` each element. */
static enum status place_bytes(struct h5 *file, const char *path, const struct place *place, size_t size,
                               const unsigned char **bytes, struct error *err)
{
    hsize_t wanted;
    if (__builtin_mul_overflow(place->elements, (hsize_t)size, &wanted) || wanted > file->eof)
        FAIL(err, STATUS_DATA, "'%s': '%s' claims more bytes than the file has", file->name, path);
    *bytes = file->image;
    if (!wanted)
        return STATUS_OK;
    haddr_t offset = H5Dget_offset(place->dataset);
    if (offset == HADDR_UNDEF || H5Dget_storage_size(place->dataset) != wanted || offset > file->eof - wanted)
        FAIL(err, STATUS_DATA, "'%s': the bytes of '%s' do not lie inside the file", file->name, path);
    *bytes = file->image + offset;
    return STATUS_OK;
}

enum status h5_read_floats(struct h5 *file, const char *path, int *n_dims, int64_t shape[H5_MAX_DIMS],
                           const unsigned char **bytes, struct error *err)
{
    struct place place;
    TRY(place_open(file, path, &place, err));
    enum status st = H5Tequal(place.type, H5T_IEEE_F32LE) > 0
                         ? place_bytes(file, path, &place, sizeof(float), bytes, err)
                         : error_set(err, STATUS_DATA, "'%s': '%s' is not float32", file->name, path);
    *n_dims = place.n_dims;
    for (int i = 0; i < place.n_dims; i++)
        shape[i] = (int64_t)place.extents[i];
    place_close(&place);
    return st;
}

enum status h5_read_text(struct h5 *file, const char *path, const char **text, size_t *size, struct error *err)
{
    struct place place;
    int64_t length;
    TRY(place_open(file, path, &place, err));
    size_t stored = H5Tget_size(place.type);
    const unsigned char *bytes = NULL;
    enum status st = H5Tget_class(place.type) == H5T_STRING && H5Tis_variable_str(place.type) == 0 &&
                             place.elements == 1
                         ? place_bytes(file, path, &place, stored, &bytes, err)
                         : error_set(err, STATUS_DATA, "'%s': '%s' is not a text", file->name, path);
    place_close(&place);
    TRY(st);
    TRY(h5_get_int(file, path, "bytes", &length, err));
    if (length < 0 || (size_t)length > stored)
        FAIL(err, STATUS_DATA, "'%s': '%s' claims %lld bytes, found %zu", file->name, path, (long long)length, stored);
    *text = (const char *)bytes;
    *size = (size_t)length;
    return STATUS_OK;
}
