/* Dropout with counter-based random numbers: whether a value is kept is a pure function of (seed, stream, row, column), so
 * that recomputation, ranks and threads all see the same ones.
 * Must not know: whose input is dropped. */
#ifndef WORKER_OPS_DROPOUT_H
#define WORKER_OPS_DROPOUT_H

#include "worker/ops/attention.h"

struct dropout {
    uint64_t seed, stream;
    double p;      /* share that is dropped, [0, 1); what is kept is multiplied by 1 / (1 - p) */
    int64_t width; /* columns of a row */
};

/* out[N][width] = x[N][width] with values dropped; + out where `add`. rows: number of each row, or NULL: its index. */
void dropout_rows(struct threads *pool, const struct dropout *d, int64_t n, const int32_t *rows, const float *x, bool add, float *out);
/* The same for the packed rows of heads (worker/ops/heads.h): values of head h are columns h * head_dim and on, and rows have
 * the numbers of their tokens. n: tokens, for heads whose rows are all of them. */
void dropout_heads(struct threads *pool, const struct dropout *d, int heads, int head_dim, int64_t n, int n_segments,
                   const struct attention_head *layout, const float *x, bool add, float *out);

#endif
