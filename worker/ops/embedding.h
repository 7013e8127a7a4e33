/* Rows of a table by token id, and the sum of gradients back into them.
 * N tokens, D width, V vocabulary. Ids are in range: the caller checked. */
#ifndef WORKER_OPS_EMBEDDING_H
#define WORKER_OPS_EMBEDDING_H

#include <stdint.h>

#include "common/threads.h"

/* out[N][D] = table[tokens[i]] */
void embedding_forward(struct threads *pool, int64_t n, int64_t width, const int32_t *tokens, const float *table,
                       float *out);
/* dtable[tokens[i]] += dout[N][D], tokens in order whatever the threads. */
void embedding_backward(struct threads *pool, int64_t n, int64_t width, const int32_t *tokens, const float *dout,
                        float *dtable);

/* NEFTune (Jain et al. 2023): adds uniform noise in [-bound, bound) to the rows first .. first + n - 1 of x[N][D]. The noise of
 * a value depends on `key` and its place in x alone. */
void embedding_noise(struct threads *pool, int64_t first, int64_t n, int64_t width, float bound, uint64_t key, float *x);

#endif
