/* Sums the gradients of a worker's slots along the fixed binary tree (common/slots.h), chunk by chunk while the
 * last backward of a node is still running, so that finished chunks can leave at once.
 * Buffers: one gradient per open level of the tree; they are reused.
 * Must not know: models, messages. */
#ifndef WORKER_TRAIN_ACCUMULATE_H
#define WORKER_TRAIN_ACCUMULATE_H

#include "common/params.h"
#include "common/slots.h"
#include "common/status.h"
#include "common/threads.h"

struct accumulator;

enum status accumulator_create(const struct chunks *chunks, struct threads *pool, struct accumulator **out,
                               struct error *err);
void accumulator_free(struct accumulator *acc);

/* Begins slot number `slot` (0-based inside its node of `count` slots) and returns the buffer [chunks.values]
 * its gradient is to be written to. */
enum status accumulator_begin(struct accumulator *acc, int slot, int count, float **gradients, struct error *err);

/* Gradients from flat position `first` on are final: adds the pending partial sums of the chunks that lie wholly
 * behind `first`. Returns the lowest chunk that now holds the sum over everything up to this slot. */
int accumulator_advance(struct accumulator *acc, int64_t first);

/* Ends the slot; after the node's last slot `*sum` is the node's gradient, else NULL. The caller owns it until
 * it calls accumulator_release. */
void accumulator_end(struct accumulator *acc, float **sum);
void accumulator_release(struct accumulator *acc, float *sum);

/* Forgets a node that was given up half-way. */
void accumulator_reset(struct accumulator *acc);

#endif
