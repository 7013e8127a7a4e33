/* The first 512 bytes of a snapshot: what the file is, how long it is, and a checksum of all that follows, so that a
 * cut or damaged file is refused before libhdf5 parses any of it.
 *   0 text for people, zero-padded   64 u32 layout version   68 u32 CRC32C of bytes 512..size   72 u64 size of the file
 *   508 u32 CRC32C of bytes 0..507   (little-endian; the rest is zero)
 * Must not know: HDF5. */
#ifndef PS_SNAPSHOT_SEAL_H
#define PS_SNAPSHOT_SEAL_H

#include <stddef.h>

#include "common/status.h"

enum { SEAL_SIZE = 512 };

/* The seal of a whole file whose first 512 bytes are still open. */
void seal_make(const unsigned char *image, size_t size, unsigned char seal[SEAL_SIZE]);
/* Writes the seal of the file at `path` into it. */
enum status seal_write(const char *path, struct error *err);
/* STATUS_DATA saying what is wrong with the file. */
enum status seal_check(const char *path, const unsigned char *image, size_t size, struct error *err);

#endif
