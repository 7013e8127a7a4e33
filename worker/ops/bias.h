/* The bias of a linear layer. N tokens, W outputs. */
#ifndef WORKER_OPS_BIAS_H
#define WORKER_OPS_BIAS_H

#include <stdint.h>

#include "common/threads.h"

/* y[N][W] += bias[W] */
void bias_forward(struct threads *pool, int64_t n, int64_t width, const float *bias, float *y);
/* dbias[W] = sum of dy[N][W] over tokens */
void bias_backward(struct threads *pool, int64_t n, int64_t width, const float *dy, float *dbias);

#endif
