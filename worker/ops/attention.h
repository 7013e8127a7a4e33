/* Causal softmax attention over a packed batch, in tiles: scores of one tile of queries and one of keys exist at a
 * time, never T x T (online softmax, Milakov and Gimelshein 2018; recomputing backward, Dao et al. 2022). Masks are
 * ranges of key tiles; only the tiles at their edges are masked value by value.
 * H query heads, G KV heads (query head h reads KV head h / (H / G)), C head size; rows are tokens.
 * A head may compute only some rows: the others cost nothing, in neither pass.
 * Must not know: layers, caches, why rows were chosen. */
#ifndef WORKER_OPS_ATTENTION_H
#define WORKER_OPS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/threads.h"

/* One sequence: `queries` rows from row query_first of q, `keys` rows from row key_first of k and v. The last query
 * stands at the last key: query i sees keys 0 .. keys - queries + i. Training: queries = keys. Decoding: keys are
 * the cache. Segments follow each other without overlap. */
struct attention_segment {
    int64_t query_first, key_first;
    int queries, keys;
};

/* Where the rows of one query head lie in q, out and their gradients: value c of the j-th row at offset + j * stride + c;
 * its log-sum-exp at (offset + j * stride) / C. */
struct attention_head {
    int64_t offset, stride;
    const int32_t *rows;   /* ascending rows of the batch that compute this head; NULL: all, and the j-th row is row j */
    const int64_t *bounds; /* [segments + 1]: rows[bounds[s]] .. rows[bounds[s + 1] - 1] lie in segment s; not read for all */
};

struct attention {
    int heads, kv_heads, head_dim;
    int n_segments;
    const struct attention_segment *segments;
    const struct attention_head *layout; /* [H]; NULL: all rows, [rows][H][C] */
    int window; /* a query sees so many keys, its own included; 0: all before it */
    int sinks;  /* and, with a window, the first keys of its sequence */
    int64_t kv_row, kv_head; /* forward: distance of keys, and of KV heads, in k and v; 0: [rows][G][C] */
    float *scratch; /* attention_scratch_values() values, aligned to a cache line */
};

/* Scratch for either pass with so many threads. The segments must be in place. */
size_t attention_scratch_values(const struct attention *a, int threads, bool backward);

/* q, out: as `layout` says, or [rows][H][C]; k, v: [rows][G][C], or as kv_row and kv_head say; lse: log2 of the sum of
 * exponentials, for backward, one per row and head. Scores are scaled by C^-1/2. */
void attention_forward(struct threads *pool, const struct attention *a, const float *q, const float *k, const float *v,
                       float *out, float *lse);

/* delta (placed as lse): row sums of dout * out, which backward needs. They are also the gradient of a factor on the head's
 * output. */
void attention_delta(struct threads *pool, const struct attention *a, const float *out, const float *dout, float *delta);
/* dq of computed rows, dk and dv of all keys are overwritten. */
void attention_backward(struct threads *pool, const struct attention *a, const float *q, const float *k,
                        const float *v, const float *lse, const float *dout, const float *delta, float *dq, float *dk,
                        float *dv);

/* Pairs of a query and a key that the mask lets through, over the rows that are computed, of all heads: forward takes 4 C
 * FLOPs each, backward 10 C. */
double attention_pairs(const struct attention *a);

#endif
