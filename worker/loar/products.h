/* Small matrix products whose every value is summed in one fixed order, whatever is computed beside it: what a BLAS does
 * not promise and routing needs. Must not know: what the matrices mean. */
#ifndef WORKER_LOAR_PRODUCTS_H
#define WORKER_LOAR_PRODUCTS_H

#include <stdint.h>

#include "common/threads.h"

/* out[i][j] = sum over k of a[i][k] * b[j][k], for `rows` rows that pointers name and n rows of b. One thread. */
void products_rows(int rows, const float *const *a, int64_t n, int64_t k, const float *b, float *const *out);

/* out[i][j] = sum over m of a[m][i] * b[m][j]: [p][q] from a[n][p] and b[n][q]. */
void products_outer(struct threads *pool, int64_t n, int64_t p, int64_t q, const float *a, const float *b, float *out);

#endif
