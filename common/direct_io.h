/* Large transfers past the system's page cache (O_DIRECT), through one aligned buffer: gigabytes that nobody reads again soon would
 * cost a copy in the kernel and push out the pages of the model. Where a file system has no such thing, ordinary transfers
 * do the same work. Must not know: what the bytes mean. */
#ifndef COMMON_DIRECT_IO_H
#define COMMON_DIRECT_IO_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

/* Offsets and sizes that may pass the cache are multiples of this, a page and a multiple of every disk's block. */
enum { DIRECT_BLOCK = 4096 };

struct direct_io {
    int fd;       /* -1: there is no way past the cache */
    char *memory; /* made by the first write */
};

/* A second way to a file that is open for writing already. Cannot fail. */
void direct_open(const char *path, struct direct_io *out);
void direct_close(struct direct_io *io);
/* Writes blocks past the cache; offset and size are multiples of DIRECT_BLOCK, `data` lies anywhere. Returns bytes written: fewer
 * where the system refused, with the reason in *refused, or where there is no way past the cache, with 0 there. */
size_t direct_write(struct direct_io *io, const void *data, size_t size, uint64_t offset, int *refused);

/* Hands out all bytes of a file in order, a piece at a time. What was just written elsewhere is seen. */
typedef void direct_take_fn(void *context, const unsigned char *bytes, size_t size);
enum status direct_read(const char *path, direct_take_fn *take, void *context, struct error *err);

#endif
