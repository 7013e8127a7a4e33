/* The check of a file that was just written: all its bytes are read back from the disk, once. Must not know: HDF5. */
#ifndef PS_SNAPSHOT_VERIFY_H
#define PS_SNAPSHOT_VERIFY_H

#include "ps/snapshot_index.h"

/* Compares every tensor of the file, which has no index yet, with the checksum that the index has for it. *body: CRC32C of the
 * bytes behind the seal. STATUS_IO names the tensor that reads back differently. */
enum status verify_content(const char *path, const struct snapshot_index *index, uint32_t *body, struct error *err);

#endif
