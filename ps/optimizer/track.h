/* The rule for tensors that follow what is observed instead of being trained (common/params.h, `rate`). A row holds W
 * values and a count. Its sums hold, over n observations x, x - v for each value v and n itself in the last place:
 * v += rate * sum / n where n > 0, and the count grows by n until a float cannot grow any more.
 * Must not know: learning rates, clipping, states, threads. */
#ifndef PS_OPTIMIZER_TRACK_H
#define PS_OPTIMIZER_TRACK_H

#include <stdint.h>

#include "common/params.h"

/* Moves flat positions [begin, end), which belong to `tensor` and to one chunk. sums[c] is the sum for chunk c: of a row
 * that is cut, n is read from a later chunk; nothing but [begin, end) is written, so chunks may be moved in any order and
 * by several threads at once. Returns the flat position of the first value that is NaN or infinite, or -1. */
int64_t track_update(const struct param *tensor, const struct chunks *chunks, const float *const *sums, int64_t begin,
                     int64_t end, float *parameters);

#endif
