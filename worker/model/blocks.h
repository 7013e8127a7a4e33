/* The blocks that architectures are composed of: tensors, forward, backward. A layer's input x and output are [N][D].
 * The residual addition after a block is left to the norm that follows, which fuses it: a block's output comes in two
 * parts, the stream before it and what it adds.
 * Must not know: which architecture uses them. */
#ifndef WORKER_MODEL_BLOCKS_H
#define WORKER_MODEL_BLOCKS_H

#include "worker/model/state.h"

/* One architecture: its tensors in forward order, and one layer. */
struct architecture {
    enum status (*list)(const struct model_config *config, struct params *table, struct error *err);
    /* x: the layer's input. before != NULL: x holds only what the layer before added to `before`; x becomes the sum.
     * out: what the second block adds to s->middle; may be x; NULL leaves it out (recomputing for backward). */
    void (*forward)(const struct pass *pass, const struct layer_places *places, struct activations *s, float *x,
                    const float *before, float *out);
    /* dx: gradient of the layer's output, becomes that of its input x. */
    void (*backward)(const struct pass *pass, const struct layer_places *places, struct activations *s, const float *x,
                     float *dx);
};

extern const struct architecture architecture_llama, architecture_qwen2;
const struct architecture *architecture_of(enum model_type type);

/* Appends a tensor; `name` is a format for `layer`, which is ignored where it is negative. Matrices decay. */
enum status list_matrix(const struct model_config *config, struct params *table, const char *name, int layer,
                        int64_t rows, int64_t columns, struct error *err);
enum status list_vector(struct params *table, const char *name, int layer, int64_t size, enum param_init init,
                        struct error *err);
enum status list_embedding(const struct model_config *config, struct params *table, struct error *err);
/* Final norm and, unless tied, the head. */
enum status list_head(const struct model_config *config, struct params *table, struct error *err);

/* norm, q/k/v projections with or without bias, RoPE, attention, output projection. */
enum status attention_block_list(const struct model_config *config, int layer, bool bias, struct params *table,
                                 struct error *err);
void attention_block_forward(const struct pass *pass, const struct layer_places *places, struct activations *s,
                             float *x, const float *before);
void attention_block_backward(const struct pass *pass, const struct layer_places *places, struct activations *s,
                              const float *x, float *dx);

/* norm, SwiGLU MLP. `x` is the layer's input, to which s->middle is added. */
enum status mlp_block_list(const struct model_config *config, int layer, struct params *table, struct error *err);
void mlp_block_forward(const struct pass *pass, const struct layer_places *places, struct activations *s,
                       const float *x, float *out);
void mlp_block_backward(const struct pass *pass, const struct layer_places *places, struct activations *s, float *dx);

#endif
