/* What attention forward and backward share: tile sizes and scratch. */
#ifndef WORKER_OPS_ATTENTION_TILE_H
#define WORKER_OPS_ATTENTION_TILE_H

#include "worker/ops/attention.h"

/* Queries and keys of a tile: large enough for BLAS, small enough that the score tiles stay in the second cache. */
enum { TILE_QUERIES = 128, TILE_KEYS = 128, TILE_VALUES = TILE_QUERIES * TILE_KEYS };

/* Per thread: scores and their gradient, then the running maximum and sum of each query. */
enum { SCRATCH_VALUES = 2 * TILE_VALUES + 2 * TILE_QUERIES };

static inline int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* Keys that query `row` of a segment sees. */
static inline int keys_seen(const struct attention_segment *s, int row)
{
    return s->keys - s->queries + row + 1;
}

#endif
