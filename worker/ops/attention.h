/* Causal softmax attention over a packed batch, in tiles: scores of one tile of queries and one of keys exist at a
 * time, never T x T (online softmax, Milakov and Gimelshein 2018; recomputing backward, Dao et al. 2022).
 * H query heads, G KV heads (query head h reads KV head h / (H / G)), C head size; rows are tokens.
 * Each task computes whole query tiles of one head, so heads that compute only some rows need another list of tiles
 * and nothing else. Must not know: layers, caches, where rows come from. */
#ifndef WORKER_OPS_ATTENTION_H
#define WORKER_OPS_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "common/threads.h"

/* One sequence: `queries` rows from row query_first of q, `keys` rows from row key_first of k and v. The last query
 * stands at the last key: query i sees keys 0 .. keys - queries + i. Training: queries = keys. Decoding: keys are
 * the cache. */
struct attention_segment {
    int64_t query_first, key_first;
    int queries, keys;
};

struct attention {
    int heads, kv_heads, head_dim;
    int n_segments;
    const struct attention_segment *segments;
    float *scratch; /* attention_scratch_values(threads) values */
};

size_t attention_scratch_values(int threads);

/* q, out: [rows][H][C]; k, v: [rows][G][C]; lse[rows][H]: log of the sum of exponentials, for backward. Scores are
 * scaled by C^-1/2. */
void attention_forward(struct threads *pool, const struct attention *a, const float *q, const float *k, const float *v,
                       float *out, float *lse);

/* delta[rows][H] is scratch. dq, dk, dv are overwritten. */
void attention_backward(struct threads *pool, const struct attention *a, const float *q, const float *k,
                        const float *v, const float *out, const float *lse, const float *dout, float *delta, float *dq,
                        float *dk, float *dv);

#endif
