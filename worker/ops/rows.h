/* Chosen rows of a matrix, out and back. N chosen rows, D width. Must not know: why they were chosen. */
#ifndef WORKER_OPS_ROWS_H
#define WORKER_OPS_ROWS_H

#include <stdint.h>

#include "common/threads.h"

/* out[N][D] = x[rows[i]] + delta[rows[i]]; delta NULL: x alone */
void rows_gather_sum(struct threads *pool, int64_t n, int64_t width, const int32_t *rows, const float *x,
                     const float *delta, float *out);
/* out[rows[i]] = in[N][D]; rows differ from each other. */
void rows_scatter(struct threads *pool, int64_t n, int64_t width, const int32_t *rows, const float *in, float *out);

#endif
