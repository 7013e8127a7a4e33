#include "common/direct_io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"

enum { BUFFER_BYTES = 2 << 20 }; /* what the second cache of a core holds, and long enough for a disk */

static char *buffer_make(void)
{
    return mem_alloc(BUFFER_BYTES + DIRECT_BLOCK, 1);
}

static char *buffer_of(char *memory)
{
    return memory + (-(uintptr_t)memory & (DIRECT_BLOCK - 1));
}

void direct_open(const char *path, struct direct_io *out)
{
    *out = (struct direct_io){open(path, O_WRONLY | O_DIRECT | O_CLOEXEC), NULL};
}

void direct_close(struct direct_io *io)
{
    if (io->fd >= 0)
        close(io->fd);
    mem_free(io->memory);
    *io = (struct direct_io){-1, NULL};
}

size_t direct_write(struct direct_io *io, const void *data, size_t size, uint64_t offset, int *refused)
{
    size_t done = 0;
    *refused = 0;
    if (io->fd >= 0 && !io->memory)
        io->memory = buffer_make();
    while (io->memory && io->fd >= 0 && done < size) {
        char *buffer = buffer_of(io->memory);
        size_t part = size - done < BUFFER_BYTES ? size - done : BUFFER_BYTES;
        memcpy(buffer, (const char *)data + done, part);
        ssize_t put = pwrite(io->fd, buffer, part, (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && errno != EINVAL) {
            *refused = errno;
            return done;
        }
        if (put <= 0 || put % DIRECT_BLOCK) /* other blocks than ours: the ordinary way from here on */
            direct_close(io);
        done += put > 0 ? (size_t)put : 0;
    }
    return done;
}

enum status direct_read(const char *path, direct_take_fn *take, void *context, struct error *err)
{
    struct stat info;
    int plain = open(path, O_RDONLY | O_CLOEXEC), direct = -1;
    char *memory = buffer_make();
    enum status st = STATUS_OK;
    if (plain < 0 || fstat(plain, &info))
        st = error_set(err, STATUS_IO, "cannot open '%s' to read it back: %s", path, strerror(errno));
    else if (!memory)
        st = error_set(err, STATUS_NOMEM, "no memory to read '%s' back", path);
    else
        direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    for (off_t at = 0; st == STATUS_OK && at < info.st_size;) {
        bool past = direct >= 0 && at % DIRECT_BLOCK == 0;
        ssize_t got = pread(past ? direct : plain, buffer_of(memory), BUFFER_BYTES, at);
        if (got > 0) {
            take(context, (const unsigned char *)buffer_of(memory), (size_t)got);
            at += got;
        } else if (got < 0 && errno == EINVAL && past) {
            close(direct);
            direct = -1;
        } else if (got == 0 || errno != EINTR)
            st = error_set(err, STATUS_IO, "cannot read '%s' back: %s", path, got ? strerror(errno) : "it ends early");
    }
    if (direct >= 0)
        close(direct);
    if (plain >= 0)
        close(plain);
    mem_free(memory);
    return st;
}
