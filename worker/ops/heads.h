/* Linear maps of single attention heads over the rows that compute them: query and output projections, their inputs' and
 * their weights' gradients. What a head skips is neither read nor computed nor written.
 * N tokens, D width, H heads, C head size; a head's rows lie packed, as `layout` says (stride C).
 * Must not know: why rows were chosen, what the maps are for. */
#ifndef WORKER_OPS_HEADS_H
#define WORKER_OPS_HEADS_H

#include "worker/ops/attention.h"

struct heads {
    int heads, head_dim;
    int64_t width;                       /* D */
    int64_t rows;                        /* N */
    int n_segments;                      /* what attention_head.bounds has places for */
    const struct attention_head *layout; /* [H] */
    float *scratch;                      /* heads_scratch_values() values, aligned to a cache line */
};
size_t heads_scratch_values(const struct heads *h, int threads);

/* How a head's [C][D] part lies in its weight: row c of head h at (h * C + c) * D, as in a query projection [H C][D]; or
 * column h * C + c of [D][H C], as in an output projection. */
enum heads_weight { HEADS_ROWS, HEADS_COLUMNS };

/* out of head h, its row j: x[row j] W_h^T, + bias[h C ..]; x [N][D], bias [H C] or NULL; + out where `add`. */
void heads_gather(struct threads *pool, const struct heads *h, enum heads_weight form, const float *weight, const float *bias,
                  const float *x, bool add, float *out);
/* out[N][D] = the sum over heads that computed the row of in W_h, in ascending order of heads; + out where `add`. */
void heads_scatter(struct threads *pool, const struct heads *h, enum heads_weight form, const float *weight, const float *in,
                   bool add, float *out);
/* Gradient of the weight: of W_h the sum over the head's rows of in^T x[row]; all of it is overwritten. */
void heads_weight_gradient(struct threads *pool, const struct heads *h, enum heads_weight form, const float *in, const float *x,
                           float *gradient);
/* Gradient of the bias [H C]: sums of `in` over the head's rows. */
void heads_bias_gradient(const struct heads *h, const float *in, float *gradient);

#endif
