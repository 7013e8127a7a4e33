/* The gated activation of the MLP: act = silu(gate) * up, silu(x) = x / (1 + exp(-x)) (Shazeer 2020).
 * Must not know: shapes; arrays are flat. */
#ifndef WORKER_OPS_SWIGLU_H
#define WORKER_OPS_SWIGLU_H

#include <stdint.h>

#include "common/threads.h"

void swiglu_forward(struct threads *pool, int64_t count, const float *gate, const float *up, float *act);
/* In place, to spare three arrays: gate and up become their gradients; dact becomes the activation itself, which
 * the gradient of the next weight needs. */
void swiglu_backward(struct threads *pool, int64_t count, float *gate, float *up, float *dact);

#endif
