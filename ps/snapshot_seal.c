#include "ps/snapshot_seal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/files.h"

static const char seal_text[64] = "LoAR snapshot (HDF5 after 512 bytes; try h5dump -H)\n";
enum { AT_VERSION = 64, AT_CHECKSUM = 68, AT_SIZE = 72, AT_OWN_CHECKSUM = SEAL_SIZE - 4, LAYOUT_VERSION = 1 };

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

void seal_make(const unsigned char *image, size_t size, unsigned char seal[SEAL_SIZE])
{
    memset(seal, 0, SEAL_SIZE);
    memcpy(seal, seal_text, sizeof seal_text);
    put(seal + AT_VERSION, LAYOUT_VERSION, 4);
    put(seal + AT_CHECKSUM, crc32c(image + SEAL_SIZE, size - SEAL_SIZE), 4);
    put(seal + AT_SIZE, size, 8);
    put(seal + AT_OWN_CHECKSUM, crc32c(seal, AT_OWN_CHECKSUM), 4);
}

enum status seal_write(const char *path, struct error *err)
{
    struct file_map map;
    unsigned char seal[SEAL_SIZE];
    TRY(file_map_open(path, &map, err));
    bool long_enough = map.size > SEAL_SIZE;
    if (long_enough)
        seal_make(map.data, map.size, seal);
    file_map_close(&map);
    if (!long_enough)
        FAIL(err, STATUS_IO, "'%s' came out too short to be a snapshot", path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        FAIL(err, STATUS_IO, "cannot open '%s' to seal it: %s", path, strerror(errno));
    int reason = 0;
    for (size_t done = 0; done < SEAL_SIZE && !reason;) {
        ssize_t got = pwrite(fd, seal + done, SEAL_SIZE - done, (off_t)done);
        if (got >= 0)
            done += (size_t)got;
        else if (errno != EINTR)
            reason = errno;
    }
    if (close(fd) && !reason)
        reason = errno;
    if (reason)
        FAIL(err, STATUS_IO, "cannot write the first bytes of '%s': %s", path, strerror(reason));
    return STATUS_OK;
}

enum status seal_check(const char *path, const unsigned char *image, size_t size, struct error *err)
{
    if (size <= SEAL_SIZE)
        FAIL(err, STATUS_DATA, "'%s' is cut short or not a snapshot: it has %zu bytes", path, size);
    if (memcmp(image, seal_text, sizeof seal_text))
        FAIL(err, STATUS_DATA, "'%s' is not a snapshot of this program: its first bytes are others", path);
    if (get(image + AT_OWN_CHECKSUM, 4) != crc32c(image, AT_OWN_CHECKSUM))
        FAIL(err, STATUS_DATA, "'%s' is damaged: checksum of its first 512 bytes", path);
    uint64_t version = get(image + AT_VERSION, 4), whole = get(image + AT_SIZE, 8);
    if (version != LAYOUT_VERSION)
        FAIL(err, STATUS_DATA, "'%s' has snapshot layout %" PRIu64 "; this program reads %d: use the version that wrote it",
             path, version, LAYOUT_VERSION);
    if (whole != size)
        FAIL(err, STATUS_DATA, "'%s' is cut short or was appended to: %" PRIu64 " bytes were written, found %zu", path,
             whole, size);
    if (get(image + AT_CHECKSUM, 4) != crc32c(image + SEAL_SIZE, size - SEAL_SIZE))
        FAIL(err, STATUS_DATA, "'%s' is damaged: the checksum of its %zu bytes does not match", path, size);
    return STATUS_OK;
}
