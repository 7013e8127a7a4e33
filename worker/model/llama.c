/* Llama: attention without biases, SwiGLU MLP. Also DeepSeek-LLM, DeepSeek-Coder and R1-Distill-Llama. */
#include "worker/model/blocks.h"

static enum status list(const struct model_config *config, struct params *table, struct error *err)
{
    TRY(list_embedding(config, table, err));
    for (int i = 0; i < config->layers; i++) {
        TRY(attention_block_list(config, i, false, table, err));
        TRY(mlp_block_list(config, i, table, err));
    }
    return list_head(config, table, err);
}

static void forward(const struct pass *pass, const struct layer_places *places, struct activations *s, float *x,
                    const float *before, float *out)
{
    attention_block_forward(pass, places, s, x, before);
    mlp_block_forward(pass, places, s, x, out);
}

static void backward(const struct pass *pass, const struct layer_places *places, struct activations *s, const float *x,
                     float *dx)
{
    mlp_block_backward(pass, places, s, dx);
    if (!places->is_mlp_end)
        attention_block_backward(pass, places, s, x, dx);
}

const struct architecture architecture_llama = {list, forward, backward};
