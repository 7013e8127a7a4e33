/* Gradients of gates from what the attention backward computes anyway: delta[N][H], the row sum of dO * O of each token
 * and head, is the gradient of a factor on that head's output (of a hard gate; divide by the gate for a soft one).
 * For heads that did not run there is no delta; a head's average output can stand in for what it would have added.
 * M decisions, N tokens, H heads, C head size, D width. Must not know: policies, attention. */
#ifndef WORKER_LOAR_GATE_GRADIENT_H
#define WORKER_LOAR_GATE_GRADIENT_H

#include "common/threads.h"
#include "worker/loar/decisions.h"

/* importance[M][H] = mean of |delta| over the decision's rows (Michel et al. 2019); all heads ran. */
void gate_importance(struct threads *pool, const struct decisions *decisions, int heads, const float *delta,
                     float *importance);

/* dgate[M][H] = sum of delta over the decision's rows where on[M][H]; elsewhere stand_in[M][H], or 0 where that is NULL.
 * delta of heads that did not run is not read. */
void gate_gradient(struct threads *pool, const struct decisions *decisions, int heads, const float *delta,
                   const uint8_t *on, const float *stand_in, float *dgate);

/* vectors[H][D] = W_O,h times the head's average output. o_weight: [D][H*C]; average: [H][C + 1] as track.h keeps it. */
void stand_in_vectors(struct threads *pool, int64_t width, int heads, int head_dim, const float *o_weight,
                      const float *average, float *vectors);
/* stand_in[M][H] = <sum of dy[N][D] over the decision's rows, vectors[h]>, dy: gradient of the attention block's output.
 * sums[M][D] is scratch. */
void stand_in_gradient(struct threads *pool, const struct decisions *decisions, int64_t width, int heads,
                       const float *dy, const float *vectors, float *sums, float *stand_in);

#endif
