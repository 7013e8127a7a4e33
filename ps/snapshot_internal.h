/* What writing and reading of snapshots share. Must not be included from elsewhere. */
#ifndef PS_SNAPSHOT_INTERNAL_H
#define PS_SNAPSHOT_INTERNAL_H

#include "ps/snapshot.h"

enum { SNAPSHOT_PATH_SIZE = 1024 }; /* of objects inside the file */

/* "/model/<tensor>", or "/optimizer/<optimizer>/<state>/<tensor>" when state is not NULL. STATUS_DATA when the
 * name is empty, too long or holds a '/'. */
enum status snapshot_object(char path[SNAPSHOT_PATH_SIZE], const char *optimizer, const char *state,
                            const char *tensor, struct error *err);

enum { SNAPSHOT_SHARD_COLUMNS = 5 };
_Static_assert(sizeof(struct snapshot_shard) == SNAPSHOT_SHARD_COLUMNS * sizeof(int64_t), "a row is its columns");

/* The digest's strokes: a section ("model" or a state's name), then its tensors. */
void snapshot_digest_section(struct digest *digest, const char *section);
void snapshot_digest_tensor(struct digest *digest, const struct param *param, const void *bytes);

/* snapshot_open of an image in memory; `image` must stay. Without `sealed` the checksums of the seal are not looked at
 * (tests only: they reach the checks behind it). */
enum status snapshot_open_image(const char *name, const unsigned char *image, size_t size, bool sealed,
                                struct snapshot **out, struct error *err);

#endif
