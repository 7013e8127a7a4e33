/* Memory of which one part is a process's own and the other is held once for all processes of a node that ask for the same:
 * the first one fills it, the others read it. It lives as long as somebody maps it and leaves nothing behind, however the
 * processes end. Where the system does not play along, each process has a part of its own to fill.
 * Must not know: what is held. */
#ifndef COMMON_NODE_MEMORY_H
#define COMMON_NODE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum { NODE_NOTE_SIZE = 64 };

struct node_memory;

/* key: what the shared part is, the same for those who share it and no one else; NULL: share with nobody. Both parts begin as
 * zeros; own_bytes is a multiple of 64. */
enum status node_memory_open(const char *key, size_t own_bytes, size_t shared_bytes, struct node_memory **out, struct error *err);
void node_memory_close(struct node_memory *memory);
/* own_bytes, then shared_bytes; aligned to 64 bytes. Writing to the shared part is allowed only to who fills it. */
void *node_memory_base(const struct node_memory *memory);

/* Returns at once where it is this process's turn to fill the shared part: *filled = false; then it must publish it. Else waits
 * until it is filled, and *note is what was published with it. When who fills it gives up, dies or takes too long, the part
 * becomes this process's own: *filled = false, again. */
void node_memory_wait(struct node_memory *memory, int64_t timeout_ms, bool *filled, char note[NODE_NOTE_SIZE]);
/* note: of at most NODE_NOTE_SIZE - 1 bytes; NULL: it could not be filled. */
void node_memory_publish(struct node_memory *memory, const char *note);
/* Whether others may read, or are read from: for tests and reports. */
bool node_memory_is_shared(const struct node_memory *memory);

#endif
