/* Key and value projections of a layer. Where a head runs in no row from some place of a sequence on, nobody reads what it
 * would put there: with one key head per query head those rows are left out, in both passes.
 * Private to worker/model. Must not know: why heads do not run. */
#ifndef WORKER_MODEL_KEYS_H
#define WORKER_MODEL_KEYS_H

#include "worker/model/state.h"
#include "worker/ops/gemm.h"

/* Products that run side by side with the first ones here, so that few tiles still fill all threads; at most KEYS_BESIDE. */
enum { KEYS_BESIDE = 2 };
struct beside {
    struct gemm jobs[KEYS_BESIDE];
    int count;
};

/* k, v [N][G][C] from the normed input, biases included. rows: what the heads compute; NULL: all. Rows that nobody reads keep
 * what was there. */
void keys_forward(const struct pass *pass, const struct layer_places *places, const struct layer_routing *rows, const float *normed,
                  const struct beside *beside, float *k, float *v);
/* Gradients of weights and biases, and dnormed[N][D] += that of the input, after what runs beside has written there; dk, dv are
 * zero in rows that nobody read. */
void keys_backward(const struct pass *pass, const struct layer_places *places, const struct layer_routing *rows, const float *normed,
                   const struct beside *beside, const float *dk, const float *dv, float *dnormed);

#endif
