/* RMSNorm with the residual addition in front of it: y = x * rsqrt(mean(x^2) + eps) * weight (Zhang and Sennrich
 * 2019). N tokens, D width. Must not know: layers. */
#ifndef WORKER_OPS_NORM_H
#define WORKER_OPS_NORM_H

#include <stdbool.h>
#include <stdint.h>

#include "common/threads.h"

/* sum[N][D] = x + delta (delta NULL: sum is not written and x itself is normalised), out[N][D] the normalised rows,
 * rstd[N] the factor of each row. sum may be x or delta. */
void norm_forward(struct threads *pool, int64_t n, int64_t width, const float *x, const float *delta,
                  const float *weight, float eps, float *sum, float *rstd, float *out);

/* x: what was normalised. dx[N][D] += gradient of x; dweight[D] = (add: +=) gradient of weight, NULL: not wanted. */
void norm_backward(struct threads *pool, int64_t n, int64_t width, const float *x, const float *rstd,
                   const float *weight, const float *dy, float *dx, float *dweight, bool add);

#endif
