/* What writing and reading of snapshots share. Must not be included from elsewhere. */
#ifndef PS_SNAPSHOT_INTERNAL_H
#define PS_SNAPSHOT_INTERNAL_H

#include "common/h5.h"
#include "ps/snapshot.h"

enum { SNAPSHOT_PATH_SIZE = 1024 }; /* of objects inside the file */

/* "/model/<tensor>", or "/optimizer/<optimizer>/<state>/<tensor>" when state is not NULL. STATUS_DATA when the
 * name is empty, too long or holds a '/'. */
enum status snapshot_object(char path[SNAPSHOT_PATH_SIZE], const char *optimizer, const char *state,
                            const char *tensor, struct error *err);

extern const char *const snapshot_shard_columns[];
enum { SNAPSHOT_SHARD_COLUMNS = 5 };
_Static_assert(sizeof(struct snapshot_shard) == SNAPSHOT_SHARD_COLUMNS * sizeof(int64_t), "a row is its columns");

/* The digest's three strokes: a section ("model" or a state's name), then its tensors. */
void snapshot_digest_section(struct digest *digest, const char *section);
void snapshot_digest_tensor(struct digest *digest, const struct param *param, const void *bytes);

/* snapshot_open; `sealed` false skips the checksum of the whole file (it was computed a moment ago). */
enum status snapshot_open_checked(const char *path, bool sealed, struct snapshot **out, struct error *err);
/* snapshot_open of an image in memory whose seal is not looked at; `image` must stay. */
enum status snapshot_open_image(const char *name, const unsigned char *image, size_t size, struct snapshot **out,
                                struct error *err);
/* Checks every tensor's checksum against the bytes in the file. */
enum status snapshot_verify(const struct snapshot *snapshot, struct error *err);

#endif
