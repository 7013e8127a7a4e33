/* The sum of one chunk over all slots, along the fixed tree of common/slots.h. Node sums arrive in slot order from
 * whichever worker owns them; complete siblings are added left + right, so the result has the same bits for any
 * spread of the slots over workers. Payloads are received straight into pool buffers and never copied.
 * Must not know: messages, workers, what is summed. */
#ifndef PS_REDUCE_H
#define PS_REDUCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/slots.h"
#include "common/status.h"

/* Reusable aligned buffers, `limit` at most. Any thread may take and give back. */
struct buffer_pool;

/* Every buffer holds `values` floats, 64-byte aligned, and `headroom` free bytes right before them (for a message
 * header; 0 = none). Buffers are allocated when first needed. */
enum status buffer_pool_create(int64_t values, size_t headroom, int limit, struct buffer_pool **out,
                               struct error *err);
/* All buffers must have come back. */
void buffer_pool_free(struct buffer_pool *pool);
/* *buffer = a buffer with undefined content, or NULL (and STATUS_OK) when all `limit` are in use. */
enum status buffer_pool_take(struct buffer_pool *pool, float **buffer, struct error *err);
void buffer_pool_give(struct buffer_pool *pool, float *buffer); /* NULL is allowed */
int buffer_pool_in_use(const struct buffer_pool *pool);
int buffer_pool_peak(const struct buffer_pool *pool); /* most that were in use at once */
/* True when the next take cannot fail for want of a buffer. */
bool buffer_pool_has_room(const struct buffer_pool *pool);

enum { REDUCE_MAX_DEPTH = 33 };

/* Plain data, one per chunk; zero it or call reduce_begin before use. */
struct reduce {
    struct buffer_pool *pool;
    int64_t values; /* length of this chunk */
    int slots, next;
    int depth;
    struct slot_node nodes[REDUCE_MAX_DEPTH]; /* stack of partial sums, widest first */
    float *sums[REDUCE_MAX_DEPTH];
};

/* Starts a sum of `values` floats over `slots` slots. Partial sums left from an earlier round go back to the pool. */
void reduce_begin(struct reduce *r, struct buffer_pool *pool, int64_t values, int slots);
/* First slot of the node sum that must come next; `slots` when the sum is complete. */
int reduce_expects(const struct reduce *r);
/* Adds the sum of `node`, which must start at slot reduce_expects(). Takes `buffer` over in every case, also on
 * failure. Never needs a further buffer: at most slot_root_level(slots) + 1 are held at once, this one included.
 * STATUS_PEER: not a node of the tree, or not the one that is due. */
enum status reduce_push(struct reduce *r, struct slot_node node, float *buffer, struct error *err);
bool reduce_complete(const struct reduce *r);
/* The root sum [values], once: the caller owns the buffer and gives it back to the pool. NULL before it is complete. */
float *reduce_take(struct reduce *r);
/* Gives every held buffer back. */
void reduce_drop(struct reduce *r);

/* left[i] = left[i] + right[i]. */
void reduce_add(float *restrict left, const float *restrict right, int64_t count);

#endif
