/* Snapshots behind the run's back: a shadow of the flat arrays, copied chunk by chunk just before each chunk's next
 * update, and one thread that writes it, the only user of HDF5 while a run trains.
 * Must not know: the server's loop, why a snapshot was asked for. */
#ifndef PS_WRITER_H
#define PS_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/params.h"
#include "common/status.h"
#include "ps/retention.h"
#include "ps/snapshot.h"

/* Flat copies of parameters and states, allocated once. */
struct shadow;

enum status shadow_create(const struct chunks *chunks, int n_states, struct shadow **out, struct error *err);
void shadow_free(struct shadow *shadow);
/* Starts a round at a step boundary: from now on the copies are owed. values, states[i]: [chunks->values], borrowed
 * until the round is complete. The writer must be idle. */
void shadow_begin(struct shadow *shadow, const float *values, const float *const *states);
/* Copies a chunk unless this round did so already; returns when its copy is there. Any thread; call it before
 * chunk `chunk` changes. */
void shadow_copy_chunk(struct shadow *shadow, int chunk);
/* Copies one chunk that is still owed (for idle moments); false when none is left to begin. Any thread. */
bool shadow_copy_next(struct shadow *shadow);
/* Copies all that is owed. */
void shadow_copy_rest(struct shadow *shadow);
/* True when all chunks of the round are copied. */
bool shadow_complete(const struct shadow *shadow);
const float *shadow_values(const struct shadow *shadow);
const float *shadow_state(const struct shadow *shadow, int state);

/* The writer thread. */
struct writer;

struct writer_result {
    bool any;    /* a write has ended since the writer was made */
    int64_t number; /* how many have ended */
    enum status status;
    struct snapshot_written written; /* on STATUS_OK; on failure only the step */
    int removed;                     /* old snapshots pruned */
    char text[ERROR_TEXT_SIZE];      /* why it failed, or a warning (pruning failed); else empty */
};

/* Writes to `dir` and prunes it by `retention` after each success. */
enum status writer_create(const char *dir, const struct retention *retention, struct writer **out, struct error *err);
/* Waits for a write under way and frees. */
void writer_free(struct writer *writer);
/* Starts a write and returns at once. Copied now: meta, texts, files, shards, all names. Borrowed until the write has
 * ended: table and the float arrays (a complete shadow's, or live ones that nobody changes). STATUS_INTERNAL while
 * busy. The write itself reports through writer_poll. */
enum status writer_submit(struct writer *writer, const struct snapshot_view *view, struct error *err);
bool writer_busy(const struct writer *writer);
/* Copies the result of the newest write that has ended; true the first time it is seen. */
bool writer_poll(struct writer *writer, struct writer_result *out);
/* Returns when nothing is under way. */
void writer_wait(struct writer *writer);

#endif
