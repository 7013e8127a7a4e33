/* Softmax cross-entropy of a tile of logits, turned into its own gradient in place.
 * n rows of the tile, V columns: the vocabulary, or labels. Must not know: where logits come from, how many tiles there
 * are. */
#ifndef WORKER_OPS_CROSS_ENTROPY_H
#define WORKER_OPS_CROSS_ENTROPY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/threads.h"

/* Columns that a row chooses among; its target counts from the first of them. */
struct column_range {
    int32_t first, count;
};

struct cross_entropy {
    int64_t n, columns;                /* V */
    float *logits;                     /* [n][V] */
    const int32_t *targets;            /* [n] */
    const float *weights;              /* [n] */
    const struct column_range *ranges; /* [n]; NULL: every row chooses among all columns */
    float smoothing;                   /* e below */
    bool gradient;
    float *loss;      /* [n] */
    uint8_t *correct; /* [n] */
};

/* With p = softmax over the C columns of a row's range: loss[n] = (1 - e) * -log p[target] + e * mean of -log p over the range,
 * unweighted (label smoothing of Szegedy et al. 2016, section 7, as public trainers count it); correct[n]: the target is the
 * first largest logit. With `gradient`, logits become weights[row] * (p - (1 - e) * one-hot(target) - e / C), and 0 outside
 * the range; without, they are spoiled. */
void cross_entropy(struct threads *pool, const struct cross_entropy *job);

#endif
