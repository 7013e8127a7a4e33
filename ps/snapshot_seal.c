#include "ps/snapshot_seal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/checksum.h"

static const char seal_text[64] = "LoAR snapshot (HDF5 after 512 bytes; try h5dump -H)\n";
enum { AT_VERSION = 64, AT_CHECKSUM = 68, AT_SIZE = 72, AT_INDEX = 80, AT_OWN_CHECKSUM = SEAL_SIZE - 4, LAYOUT_VERSION = 1 };

static void put(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

static uint64_t get(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << 8 * i;
    return value;
}

static void make_seal(uint32_t checksum, size_t size, size_t index_offset, unsigned char seal[SEAL_SIZE])
{
    memset(seal, 0, SEAL_SIZE);
    memcpy(seal, seal_text, sizeof seal_text);
    put(seal + AT_VERSION, LAYOUT_VERSION, 4);
    put(seal + AT_CHECKSUM, checksum, 4);
    put(seal + AT_SIZE, size, 8);
    put(seal + AT_INDEX, index_offset, 8);
    put(seal + AT_OWN_CHECKSUM, crc32c(seal, AT_OWN_CHECKSUM), 4);
}

static enum status write_at(int fd, const char *path, const void *data, size_t size, size_t offset, struct error *err)
{
    for (size_t done = 0; done < size;) {
        ssize_t put_bytes = pwrite(fd, (const char *)data + done, size - done, (off_t)(offset + done));
        if (put_bytes < 0 && errno != EINTR)
            FAIL(err, STATUS_IO, "cannot write '%s': %s", path, strerror(errno));
        done += put_bytes > 0 ? (size_t)put_bytes : 0;
    }
    return STATUS_OK;
}

static enum status append_and_seal(int fd, const char *path, uint32_t body, const char *index, size_t index_size, size_t *size,
                                   struct error *err)
{
    struct stat info;
    unsigned char seal[SEAL_SIZE];
    if (fstat(fd, &info) || info.st_size <= SEAL_SIZE)
        FAIL(err, STATUS_IO, "'%s' came out too short to be a snapshot", path);
    *size = (size_t)info.st_size + index_size;
    TRY(write_at(fd, path, index, index_size, (size_t)info.st_size, err));
    make_seal(crc32c_more(body, index, index_size), *size, (size_t)info.st_size, seal);
    return write_at(fd, path, seal, SEAL_SIZE, 0, err);
}

enum status seal_write(const char *path, uint32_t body, const char *index, size_t index_size, size_t *size, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        FAIL(err, STATUS_IO, "cannot open '%s' to seal it: %s", path, strerror(errno));
    enum status st = append_and_seal(fd, path, body, index, index_size, size, err);
    if (close(fd) && st == STATUS_OK)
        st = error_set(err, STATUS_IO, "cannot close '%s': %s", path, strerror(errno));
    return st;
}

enum status seal_check(const char *path, const unsigned char *image, size_t size, bool checksums, size_t *index_offset,
                       struct error *err)
{
    if (size <= SEAL_SIZE)
        FAIL(err, STATUS_DATA, "'%s' is cut short or not a snapshot: it has %zu bytes", path, size);
    if (memcmp(image, seal_text, sizeof seal_text))
        FAIL(err, STATUS_DATA, "'%s' is not a whole snapshot of this program: its first bytes are others", path);
    if (checksums && get(image + AT_OWN_CHECKSUM, 4) != crc32c(image, AT_OWN_CHECKSUM))
        FAIL(err, STATUS_DATA, "'%s' is damaged: checksum of its first 512 bytes", path);
    uint64_t version = get(image + AT_VERSION, 4), whole = get(image + AT_SIZE, 8), index = get(image + AT_INDEX, 8);
    if (version != LAYOUT_VERSION)
        FAIL(err, STATUS_DATA, "'%s' has snapshot layout %" PRIu64 "; this program reads %d: use the version that wrote it",
             path, version, LAYOUT_VERSION);
    if (checksums && whole != size)
        FAIL(err, STATUS_DATA, "'%s' is cut short or was appended to: %" PRIu64 " bytes were written, found %zu", path,
             whole, size);
    if (index < SEAL_SIZE || index >= size)
        FAIL(err, STATUS_DATA, "'%s': its index does not lie inside the file", path);
    if (checksums && get(image + AT_CHECKSUM, 4) != crc32c(image + SEAL_SIZE, size - SEAL_SIZE))
        FAIL(err, STATUS_DATA, "'%s' is damaged: the checksum of its %zu bytes does not match", path, size);
    *index_offset = (size_t)index;
    return STATUS_OK;
}
