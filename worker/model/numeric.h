/* Finding out where a NaN or infinity came from, after it was seen. Private to worker/model. */
#ifndef WORKER_MODEL_NUMERIC_H
#define WORKER_MODEL_NUMERIC_H

#include "worker/model/state.h"

/* STATUS_NUMERIC with a message that names the first tensor, else the first layer, that holds a value that is not finite.
 * inputs_kept: the workspace still holds the input of every layer. */
enum status numeric_explain(const struct model *model, const float *values, int64_t n, double loss, bool inputs_kept,
                            struct error *err);
/* STATUS_NUMERIC where what a backward pass of n tokens handed down to the embedding is not finite; the message names the first
 * tensor, in the order of that pass, whose gradient is not. */
enum status numeric_check_gradient(const struct model *model, const float *gradients, int64_t n, double loss, struct error *err);

#endif
