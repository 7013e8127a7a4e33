/* Rotary position embedding in the half-split layout: (x[i], x[i + C/2]) turns by position * frequency[i]
 * (Su et al. 2021, as in the public Llama and Qwen2 code). N tokens, C head size. */
#ifndef WORKER_OPS_ROPE_H
#define WORKER_OPS_ROPE_H

#include <stdint.h>

#include "common/threads.h"

/* cosine, sine: [count][C/2] for positions first .. first + count - 1. Angles are single precision, as there. */
void rope_table(int half, const float *frequencies, int64_t first, int64_t count, float *cosine, float *sine);

/* Turns x[N][heads][C] in place; direction 1, or -1 for the gradient (and the inverse). */
void rope_apply(struct threads *pool, int64_t n, int heads, int head_dim, const int32_t *positions,
                const float *cosine, const float *sine, int direction, float *x);

#endif
