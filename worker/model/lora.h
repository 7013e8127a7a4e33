/* Adapters beside the linear maps of a layer: what they add to outputs and gradients. Every function does nothing where the
 * layer's map has none. The input's dropped values and its product with A are computed anew in backward: they are cheap and
 * need no memory between the passes.
 * N rows, R rank, D width, H heads, C head size. Private to worker/model. Must not know: which block calls. */
#ifndef WORKER_MODEL_LORA_H
#define WORKER_MODEL_LORA_H

#include "worker/model/state.h"
#include "worker/ops/heads.h"

/* Where a layer's adapters lie; -1: none. */
enum status lora_find(const struct model_config *config, const struct params *table, int layer, struct lora_places out[LORA_MODULES],
                      struct error *err);

/* y[N][out] += scale B A dropout(x[N][in]). rows: which tokens of the batch they are, or NULL: all. */
void lora_forward(const struct pass *pass, const struct layer_places *places, enum lora_module module, int64_t n, const int32_t *rows,
                  const float *x, float *y);
/* Gradients of A and B, from the input x and dy[N][out]. */
void lora_backward_weights(const struct pass *pass, const struct layer_places *places, enum lora_module module, int64_t n,
                           const int32_t *rows, const float *x, const float *dy);
/* dx[N][in] += the gradient of the input. */
void lora_backward_input(const struct pass *pass, const struct layer_places *places, enum lora_module module, int64_t n,
                         const int32_t *rows, const float *dy, float *dx);

/* The same for queries and the output projection where heads compute some rows only, packed as `heads` says. */
void lora_queries_forward(const struct pass *pass, const struct layer_places *places, const struct heads *heads, const float *x, float *q);
void lora_queries_backward(const struct pass *pass, const struct layer_places *places, const struct heads *heads, const float *x,
                           const float *dq, float *dx);
void lora_output_forward(const struct pass *pass, const struct layer_places *places, const struct heads *heads, const float *attended,
                         float *y);
void lora_output_backward(const struct pass *pass, const struct layer_places *places, const struct heads *heads, const float *attended,
                          const float *dy, float *dattended);
/* vectors[H][D] of stand_in_vectors (worker/loar/gate_gradient.h) += the adapter's part. */
void lora_stand_in(const struct pass *pass, const struct layer_places *places, const float *average, float *vectors);

#endif
