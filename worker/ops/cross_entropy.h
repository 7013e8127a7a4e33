/* Softmax cross-entropy of a tile of logits, turned into its own gradient in place.
 * n rows of the tile, V vocabulary. Must not know: where logits come from, how many tiles there are. */
#ifndef WORKER_OPS_CROSS_ENTROPY_H
#define WORKER_OPS_CROSS_ENTROPY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/threads.h"

/* loss[n] = log(sum(exp(logits))) - logits[target], unweighted; correct[n]: the target is the first largest logit.
 * With `gradient`, logits[n][V] become weights[row] * (softmax - one-hot(target)); without, they are spoiled. */
void cross_entropy(struct threads *pool, int64_t n, int64_t vocab, float *logits, const int32_t *targets,
                   const float *weights, bool gradient, float *loss, uint8_t *correct);

#endif
