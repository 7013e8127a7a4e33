/* The first 512 bytes of a snapshot: what the file is, how long it is, where its index lies, and a checksum of all that
 * follows, so that a cut or damaged file is refused before any of it is parsed.
 *   0 text for people, zero-padded   64 u32 layout version   68 u32 CRC32C of bytes 512..size   72 u64 size of the file
 *   80 u64 offset of the index, which reaches to the end of the file   508 u32 CRC32C of bytes 0..507
 * (little-endian; the rest is zero). Must not know: HDF5. */
#ifndef PS_SNAPSHOT_SEAL_H
#define PS_SNAPSHOT_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum { SEAL_SIZE = 512 };

/* Appends the index to the HDF5 file at `path`, whose bytes behind the seal have checksum `body`, and writes the seal over its
 * first bytes. *size: what the file has then. */
enum status seal_write(const char *path, uint32_t body, const char *index, size_t index_size, size_t *size, struct error *err);
/* STATUS_DATA saying what is wrong with the file. Without `checksums` only places are checked. */
enum status seal_check(const char *path, const unsigned char *image, size_t size, bool checksums, size_t *index_offset,
                       struct error *err);

#endif
