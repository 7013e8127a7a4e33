/* Writing through libhdf5: groups, datasets, attributes. Must not know: what they mean. */
#include <string.h>

#include "common/h5_internal.h"

/* Creates the dataset and writes it; closes `space` and `type`, which may be invalid. */
static enum status write_dataset(struct h5 *file, const char *path, hid_t space, hid_t type, hid_t memory_type,
                                 const void *data, struct error *err)
{
    hid_t links = H5Pcreate(H5P_LINK_CREATE), layout = H5Pcreate(H5P_DATASET_CREATE), dataset = H5I_INVALID_HID;
    bool good = space >= 0 && type >= 0 && H5Pset_create_intermediate_group(links, 1) >= 0 &&
                H5Pset_layout(layout, H5D_CONTIGUOUS) >= 0 && H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER) >= 0 &&
                H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY) >= 0;
    if (good) {
        dataset = H5Dcreate2(file->file, path, type, space, links, layout, H5P_DEFAULT);
        good = dataset >= 0 && H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    }
    enum status st = good && !file->refused ? STATUS_OK : h5_complain(file, err, "write", path);
    H5Dclose(dataset);
    H5Pclose(layout);
    H5Pclose(links);
    H5Sclose(space);
    H5Tclose(type);
    return st;
}

enum status h5_write_group(struct h5 *file, const char *path, struct error *err)
{
    h5_quiet();
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    hid_t group = H5Gcreate2(file->file, path, links, H5P_DEFAULT, H5P_DEFAULT);
    enum status st = group >= 0 && !file->refused ? STATUS_OK : h5_complain(file, err, "make the group", path);
    H5Gclose(group);
    H5Pclose(links);
    return st;
}

enum status h5_write_floats(struct h5 *file, const char *path, int n_dims, const int64_t *shape, const float *values,
                            struct error *err)
{
    h5_quiet();
    hsize_t extents[H5_MAX_DIMS];
    for (int i = 0; i < n_dims && i < H5_MAX_DIMS; i++)
        extents[i] = (hsize_t)shape[i];
    hid_t space = n_dims > H5_MAX_DIMS ? H5I_INVALID_HID
                  : n_dims             ? H5Screate_simple(n_dims, extents, NULL)
                                       : H5Screate(H5S_SCALAR);
    return write_dataset(file, path, space, H5Tcopy(H5T_IEEE_F32LE), H5T_NATIVE_FLOAT, values, err);
}

/* A string of fixed length; the library knows none of length 0. */
static hid_t string_type(size_t size)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (H5Tset_size(type, size ? size : 1) < 0 || H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 ||
        H5Tset_cset(type, H5T_CSET_UTF8) < 0) {
        H5Tclose(type);
        return H5I_INVALID_HID;
    }
    return type;
}

enum status h5_write_text(struct h5 *file, const char *path, const char *text, size_t size, struct error *err)
{
    h5_quiet();
    hid_t type = string_type(size), memory_type = string_type(size);
    enum status st = write_dataset(file, path, H5Screate(H5S_SCALAR), type, memory_type, size ? text : "", err);
    H5Tclose(memory_type);
    if (st == STATUS_OK)
        st = h5_set_int(file, path, "bytes", (int64_t)size, err);
    return st;
}

static hid_t table_type(int columns, const char *const *names)
{
    hid_t type = H5Tcreate(H5T_COMPOUND, (size_t)columns * 8);
    for (int i = 0; type >= 0 && i < columns; i++)
        if (H5Tinsert(type, names[i], (size_t)i * 8, H5T_STD_I64LE) < 0) {
            H5Tclose(type);
            type = H5I_INVALID_HID;
        }
    return type;
}

enum status h5_write_table(struct h5 *file, const char *path, int columns, const char *const *names, int64_t rows,
                           const int64_t *values, struct error *err)
{
    h5_quiet();
    hsize_t extent = (hsize_t)rows;
    hid_t type = table_type(columns, names), memory_type = table_type(columns, names);
    enum status st = write_dataset(file, path, H5Screate_simple(1, &extent, NULL), type, memory_type, values, err);
    H5Tclose(memory_type);
    return st;
}

static enum status set_attribute(struct h5 *file, const char *path, const char *name, hid_t type, hid_t memory_type,
                                 const void *value, struct error *err)
{
    h5_quiet();
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate_by_name(file->file, path, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, memory_type, value) >= 0;
    enum status st = good && !file->refused ? STATUS_OK : h5_complain(file, err, "write an attribute of", path);
    H5Aclose(attribute);
    H5Sclose(space);
    return st;
}

enum status h5_set_int(struct h5 *file, const char *path, const char *name, int64_t value, struct error *err)
{
    return set_attribute(file, path, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value, err);
}

enum status h5_set_real(struct h5 *file, const char *path, const char *name, double value, struct error *err)
{
    return set_attribute(file, path, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value, err);
}

enum status h5_set_string(struct h5 *file, const char *path, const char *name, const char *value, struct error *err)
{
    h5_quiet();
    hid_t type = string_type(strlen(value));
    enum status st = set_attribute(file, path, name, type, type, value, err);
    H5Tclose(type);
    return st;
}
