#include "common/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/h5_internal.h"
#include "common/memory.h"

/* ---- The file driver ----------------------------------------------------------------------------------------- */

/* The property list of the file carries a pointer to the struct that the caller of H5Fopen made. */
static H5FD_t *driver_open(const char *name, unsigned flags, hid_t fapl, haddr_t maxaddr)
{
    (void)name, (void)flags, (void)maxaddr;
    struct h5 *const *info = H5Pget_driver_info(fapl);
    return info ? &(*info)->driver : NULL;
}

static herr_t driver_close(H5FD_t *driver)
{
    (void)driver; /* the struct and its descriptor belong to h5_close */
    return 0;
}

static herr_t driver_query(const H5FD_t *driver, unsigned long *flags)
{
    (void)driver;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA;
    return 0;
}

static haddr_t driver_get_eoa(const H5FD_t *driver, H5FD_mem_t type)
{
    (void)type;
    return ((const struct h5 *)driver)->eoa;
}

static herr_t driver_set_eoa(H5FD_t *driver, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    ((struct h5 *)driver)->eoa = address;
    return 0;
}

static haddr_t driver_get_eof(const H5FD_t *driver, H5FD_mem_t type)
{
    (void)type;
    return ((const struct h5 *)driver)->eof;
}

static void refuse(struct h5 *file, const char *call, int reason)
{
    if (!file->refused) {
        file->refused = reason ? reason : EIO;
        file->refused_call = call;
    }
}

static herr_t driver_read(H5FD_t *driver, H5FD_mem_t type, hid_t dxpl, haddr_t address, size_t size, void *buffer)
{
    (void)type, (void)dxpl;
    struct h5 *file = (struct h5 *)driver;
    if (address > file->eoa || size > file->eoa - address)
        return -1;
    size_t there = address >= file->eof ? 0 : file->eof - address < size ? file->eof - address : size;
    memset((char *)buffer + there, 0, size - there); /* as every driver does beyond the end of the file */
    if (file->image) {
        memcpy(buffer, file->image + address, there);
        return 0;
    }
    for (size_t done = 0; done < there;) {
        ssize_t got = pread(file->fd, (char *)buffer + done, there - done, (off_t)(address + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            refuse(file, "read", errno);
            return -1;
        }
        done += (size_t)got;
    }
    return 0;
}

/* Writes of this many bytes and more pass the page cache. */
enum { LARGE_WRITE = 1 << 20 };

static void put(struct h5 *file, haddr_t address, size_t size, const char *bytes)
{
    for (size_t done = 0; done < size && !file->refused;) {
        ssize_t wrote = pwrite(file->fd, bytes + done, size - done, (off_t)(address + done));
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            refuse(file, "write", errno);
        else
            done += (size_t)wrote;
    }
}

/* Never fails towards the library: a library that cannot flush cannot close either and keeps the file for ever. */
static herr_t driver_write(H5FD_t *driver, H5FD_mem_t type, hid_t dxpl, haddr_t address, size_t size,
                           const void *buffer)
{
    (void)type, (void)dxpl;
    struct h5 *file = (struct h5 *)driver;
    if (file->image)
        return -1;
    const char *bytes = buffer;
    size_t done = 0;
    if (size >= LARGE_WRITE && !file->refused) {
        int reason = 0;
        done = -address & (DIRECT_BLOCK - 1);
        put(file, address, done, bytes);
        if (!file->refused)
            done += direct_write(&file->direct, bytes + done, (size - done) / DIRECT_BLOCK * DIRECT_BLOCK, address + done, &reason);
        if (reason)
            refuse(file, "write", reason);
    }
    put(file, address + done, size - done, bytes + done);
    /* Where all went into the cache, the disk may begin while the next piece is checked and copied; advice only. */
    if (size - done >= LARGE_WRITE && !file->refused)
        sync_file_range(file->fd, (off64_t)address, (off64_t)size, SYNC_FILE_RANGE_WRITE);
    if (address + size > file->eof)
        file->eof = address + size;
    return 0;
}

static herr_t driver_truncate(H5FD_t *driver, hid_t dxpl, hbool_t closing)
{
    (void)dxpl, (void)closing;
    struct h5 *file = (struct h5 *)driver;
    if (file->image || file->eof == file->eoa)
        return 0;
    if (!file->refused && ftruncate(file->fd, (off_t)file->eoa))
        refuse(file, "truncate", errno);
    file->eof = file->eoa;
    return 0;
}

static const H5FD_class_t driver_class = {
    .name = "plain",
    .maxaddr = INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(struct h5 *),
    .open = driver_open,
    .close = driver_close,
    .query = driver_query,
    .get_eoa = driver_get_eoa,
    .set_eoa = driver_set_eoa,
    .get_eof = driver_get_eof,
    .read = driver_read,
    .write = driver_write,
    .truncate = driver_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

static hid_t driver_id = H5I_INVALID_HID;

static void driver_register(void)
{
    driver_id = H5FDregister(&driver_class);
}

void h5_quiet(void)
{
    static _Thread_local bool done;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (done)
        return;
    done = true;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    pthread_once(&once, driver_register);
}

/* ---- Messages ------------------------------------------------------------------------------------------------ */

static herr_t innermost(unsigned n, const H5E_error2_t *entry, void *context)
{
    if (n == 0)
        snprintf(context, 256, " (HDF5: %s: %s)", entry->func_name ? entry->func_name : "?",
                 entry->desc ? entry->desc : "no description");
    return 0;
}

enum status h5_complain(struct h5 *file, struct error *err, const char *what, const char *path)
{
    char detail[256] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, detail);
    H5Eclear2(H5E_DEFAULT);
    if (file->refused)
        FAIL(err, STATUS_IO, "cannot %s '%s': %s", file->refused_call, file->name, strerror(file->refused));
    FAIL(err, file->image ? STATUS_DATA : STATUS_IO, "'%s': cannot %s '%s'%s", file->name, what, path, detail);
}

/* ---- Opening and closing ------------------------------------------------------------------------------------- */

static enum status file_new(const char *name, struct h5 **out, struct error *err)
{
    h5_quiet();
    struct h5 *file = mem_alloc(1, sizeof *file);
    if (file) {
        *file = (struct h5){.fd = -1, .direct = {-1, NULL}, .file = H5I_INVALID_HID, .name = mem_strdup(name)};
        *out = file;
        if (file->name)
            return STATUS_OK;
    }
    mem_free(file);
    *out = NULL;
    FAIL(err, STATUS_NOMEM, "no memory to open '%s'", name);
}

static void file_free(struct h5 *file)
{
    if (file->fd >= 0)
        close(file->fd);
    direct_close(&file->direct);
    mem_free(file->name);
    mem_free(file);
}

static hid_t access_list(struct h5 *file)
{
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    if (list >= 0 && (H5Pset_driver(list, driver_id, &file) < 0 || H5Pset_fclose_degree(list, H5F_CLOSE_STRONG) < 0)) {
        H5Pclose(list);
        list = H5I_INVALID_HID;
    }
    return list;
}

enum status h5_create(const char *path, struct h5 **out, struct error *err)
{
    TRY(file_new(path, out, err));
    struct h5 *file = *out;
    *out = NULL;
    file->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file->fd < 0) {
        enum status st = error_set(err, STATUS_IO, "cannot create '%s': %s", path, strerror(errno));
        file_free(file);
        return st;
    }
    direct_open(path, &file->direct);
    hid_t access = access_list(file);
    hid_t creation = H5Pcreate(H5P_FILE_CREATE);
    if (access >= 0 && creation >= 0 && H5Pset_userblock(creation, H5_USER_BLOCK) >= 0)
        file->file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
    enum status st = file->file < 0 ? h5_complain(file, err, "create", "/") : STATUS_OK;
    H5Pclose(creation);
    H5Pclose(access);
    if (st != STATUS_OK)
        file_free(file);
    else
        *out = file;
    return st;
}

enum status h5_open_image(const char *name, const void *image, size_t size, struct h5 **out, struct error *err)
{
    TRY(file_new(name, out, err));
    struct h5 *file = *out;
    file->image = image;
    file->eof = size;
    hid_t access = access_list(file);
    if (access >= 0)
        file->file = H5Fopen(name, H5F_ACC_RDONLY, access);
    enum status st = file->file < 0 ? h5_complain(file, err, "open", "/") : STATUS_OK;
    H5Pclose(access);
    if (st != STATUS_OK) {
        file_free(file);
        *out = NULL;
    }
    return st;
}

enum status h5_close(struct h5 *file, struct error *err)
{
    if (!file)
        return STATUS_OK;
    h5_quiet();
    bool writing = !file->image;
    enum status st = STATUS_OK;
    if (writing && H5Fflush(file->file, H5F_SCOPE_GLOBAL) < 0)
        st = h5_complain(file, err, "flush", "/");
    if (H5Fclose(file->file) < 0)
        /* The library still refers to the struct and will at exit: it stays. */
        return st == STATUS_OK ? h5_complain(file, err, "close", "/") : st;
    if (writing && close(file->fd))
        refuse(file, "close", errno);
    file->fd = -1;
    if (writing && st == STATUS_OK && file->refused)
        st = h5_complain(file, err, "write", "/");
    file_free(file);
    return st;
}

void h5_version(char out[64])
{
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(out, 64, "%u.%u.%u", major, minor, release);
}
