/* The router: z = W2 ReLU(W1 f + b1) + b2 + e[task]. One routine for training, evaluation and decoding, in single
 * precision with its own fixed order of sums (no BLAS), so that a decision comes out the same to the bit whatever other
 * decisions are computed with it. Features are taken as constants.
 * M decisions, D width, R router width, H heads, T tasks. Must not know: policies, where features come from. */
#ifndef WORKER_LOAR_ROUTER_H
#define WORKER_LOAR_ROUTER_H

#include "common/threads.h"
#include "worker/loar/decisions.h"

struct router {
    int64_t width; /* D */
    int dim;       /* R */
    int heads;     /* H */
    int tasks;     /* T */
    /* Tensors, or NULL for those without use in a call. */
    const float *fc1_weight, *fc1_bias; /* [R][D], [R] */
    const float *fc2_weight, *fc2_bias; /* [H][R], [H] */
    const float *task_bias;             /* [T][H] */
};

struct router_gradient {
    float *fc1_weight, *fc1_bias, *fc2_weight, *fc2_bias, *task_bias;
};

/* z[M][H] from f[M][D]; hidden[M][R] is kept for backward. Rows of decisions that are not routed become zero. */
void router_forward(struct threads *pool, const struct router *router, const struct decisions *decisions, const float *f,
                    float *hidden, float *z);

/* Gradients are overwritten. dz rows of decisions that are not routed are zero. hidden becomes its own gradient. */
void router_backward(struct threads *pool, const struct router *router, const struct decisions *decisions,
                     const float *f, float *hidden, const float *dz, struct router_gradient *gradient);

#endif
