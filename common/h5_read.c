/* Reading through libhdf5 from an image in memory: every object is checked for type, extent and place before its bytes
 * are handed out. Must not know: what the datasets mean. */
#include <string.h>

#include "common/h5_internal.h"

/* True when every component of the path is there over a hard link: soft and external links lead out of the file. */
static bool reachable(struct h5 *file, const char *path)
{
    char part[1024];
    size_t size = strlen(path);
    if (path[0] != '/' || size >= sizeof part)
        return false;
    for (size_t i = 1; i <= size && size > 1; i++) {
        if (path[i] && path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        H5L_info_t link;
        if (H5Lexists(file->file, part, H5P_DEFAULT) <= 0 || H5Lget_info(file->file, part, &link, H5P_DEFAULT) < 0 ||
            link.type != H5L_TYPE_HARD)
            return false;
    }
    return true;
}

bool h5_has(struct h5 *file, const char *path)
{
    h5_quiet();
    bool there = reachable(file, path);
    H5Eclear2(H5E_DEFAULT);
    return there;
}

/* An attribute with one value of class `class`, or an invalid id. */
static hid_t open_attribute(struct h5 *file, const char *path, const char *name, H5T_class_t class, hid_t *type)
{
    h5_quiet();
    *type = H5I_INVALID_HID;
    if (!reachable(file, path) || H5Aexists_by_name(file->file, path, name, H5P_DEFAULT) <= 0)
        return H5I_INVALID_HID;
    hid_t attribute = H5Aopen_by_name(file->file, path, name, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Aget_space(attribute);
    *type = H5Aget_type(attribute);
    bool good = H5Sget_simple_extent_type(space) == H5S_SCALAR && H5Tget_class(*type) == class;
    H5Sclose(space);
    if (good)
        return attribute;
    H5Tclose(*type);
    H5Aclose(attribute);
    *type = H5I_INVALID_HID;
    return H5I_INVALID_HID;
}

static enum status attribute_error(struct h5 *file, struct error *err, const char *path, const char *name,
                                   const char *wanted)
{
    H5Eclear2(H5E_DEFAULT);
    FAIL(err, STATUS_DATA, "'%s': attribute '%s' of '%s' is missing or is not %s", file->name, name, path, wanted);
}

bool h5_has_attribute(struct h5 *file, const char *path, const char *name)
{
    h5_quiet();
    bool there = reachable(file, path) && H5Aexists_by_name(file->file, path, name, H5P_DEFAULT) > 0;
    H5Eclear2(H5E_DEFAULT);
    return there;
}

static bool get_number(struct h5 *file, const char *path, const char *name, H5T_class_t class, hid_t memory_type,
                       void *out)
{
    hid_t type, attribute = open_attribute(file, path, name, class, &type);
    bool good = attribute >= 0 && H5Tget_size(type) == 8 && H5Aread(attribute, memory_type, out) >= 0;
    if (attribute >= 0) {
        H5Tclose(type);
        H5Aclose(attribute);
    }
    return good;
}

enum status h5_get_int(struct h5 *file, const char *path, const char *name, int64_t *out, struct error *err)
{
    h5_quiet();
    return get_number(file, path, name, H5T_INTEGER, H5T_NATIVE_INT64, out)
               ? STATUS_OK
               : attribute_error(file, err, path, name, "a 64-bit integer");
}

enum status h5_get_real(struct h5 *file, const char *path, const char *name, double *out, struct error *err)
{
    h5_quiet();
    return get_number(file, path, name, H5T_FLOAT, H5T_NATIVE_DOUBLE, out)
               ? STATUS_OK
               : attribute_error(file, err, path, name, "a 64-bit real number");
}

enum status h5_get_string(struct h5 *file, const char *path, const char *name, char *out, size_t size,
                          struct error *err)
{
    hid_t type, attribute = open_attribute(file, path, name, H5T_STRING, &type);
    size_t stored = attribute >= 0 ? H5Tget_size(type) : 0;
    bool good = attribute >= 0 && H5Tis_variable_str(type) == 0 && stored > 0 && stored < size;
    if (good) {
        memset(out, 0, size);
        good = H5Aread(attribute, type, out) >= 0;
    }
    if (attribute >= 0) {
        H5Tclose(type);
        H5Aclose(attribute);
    }
    return good ? STATUS_OK : attribute_error(file, err, path, name, "a short string");
}

/* A dataset whose bytes lie in one piece inside the image: no chunks, filters, external or virtual parts. */
struct place {
    hid_t dataset, type, space, layout;
    int n_dims;
    hsize_t extents[H5S_MAX_RANK];
    hsize_t elements;
};

static void place_close(struct place *place)
{
    H5Pclose(place->layout);
    H5Sclose(place->space);
    H5Tclose(place->type);
    H5Dclose(place->dataset);
    H5Eclear2(H5E_DEFAULT);
}

static enum status place_open(struct h5 *file, const char *path, struct place *out, struct error *err)
{
    h5_quiet();
    *out = (struct place){H5I_INVALID_HID, H5I_INVALID_HID, H5I_INVALID_HID, H5I_INVALID_HID, 0, {0}, 1};
    if (!reachable(file, path)) {
        H5Eclear2(H5E_DEFAULT);
        FAIL(err, STATUS_DATA, "'%s': '%s' is not there", file->name, path);
    }
    H5O_info_t info;
    if (H5Oget_info_by_name2(file->file, path, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0 ||
        info.type != H5O_TYPE_DATASET)
        return h5_complain(file, err, "find the dataset", path);
    out->dataset = H5Dopen2(file->file, path, H5P_DEFAULT);
    out->type = H5Dget_type(out->dataset);
    out->space = H5Dget_space(out->dataset);
    out->layout = H5Dget_create_plist(out->dataset);
    bool good = out->dataset >= 0 && out->type >= 0 && out->space >= 0 && out->layout >= 0 &&
                H5Pget_layout(out->layout) == H5D_CONTIGUOUS && H5Pget_external_count(out->layout) == 0 &&
                H5Pget_nfilters(out->layout) == 0 && H5Sis_simple(out->space) > 0;
    if (good) {
        out->n_dims = H5Sget_simple_extent_dims(out->space, out->extents, NULL);
        good = out->n_dims >= 0 && out->n_dims <= H5_MAX_DIMS;
    }
    for (int i = 0; good && i < out->n_dims; i++)
        good = !__builtin_mul_overflow(out->elements, out->extents[i], &out->elements);
    if (good)
        return STATUS_OK;
    enum status st = h5_complain(file, err, "use the dataset", path);
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

enum status h5_read_table(struct h5 *file, const char *path, int columns, const char *const *names, int64_t *rows,
                          const unsigned char **bytes, struct error *err)
{
    struct place place;
    TRY(place_open(file, path, &place, err));
    hid_t wanted = h5_table_type(columns, names);
    enum status st = place.n_dims == 1 && H5Tequal(place.type, wanted) > 0
                         ? place_bytes(file, path, &place, (size_t)columns * 8, bytes, err)
                         : error_set(err, STATUS_DATA, "'%s': '%s' is not a table of the expected columns", file->name, path);
    *rows = (int64_t)place.elements;
    H5Tclose(wanted);
    place_close(&place);
    return st;
}

struct listing {
    h5_name_fn *each;
    void *context;
    struct error *err;
    enum status status;
};

static herr_t list_one(hid_t group, const char *name, const H5L_info_t *link, void *context)
{
    (void)group, (void)link;
    struct listing *listing = context;
    listing->status = listing->each(listing->context, name, listing->err);
    return listing->status == STATUS_OK ? 0 : 1;
}

enum status h5_each_name(struct h5 *file, const char *group, h5_name_fn *each, void *context, struct error *err)
{
    h5_quiet();
    struct listing listing = {each, context, err, STATUS_OK};
    hsize_t at = 0;
    H5O_info_t info;
    if (!reachable(file, group) || H5Oget_info_by_name2(file->file, group, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0 ||
        info.type != H5O_TYPE_GROUP ||
        H5Literate_by_name(file->file, group, H5_INDEX_NAME, H5_ITER_INC, &at, list_one, &listing, H5P_DEFAULT) < 0)
        return h5_complain(file, err, "list the group", group);
    return listing.status;
}
