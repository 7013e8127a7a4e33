#include "worker/model/forward.h"

#include <math.h>

#include "worker/model/blocks.h"
#include "worker/ops/embedding.h"

struct stream forward_layers(const struct pass *pass, const struct model *model, const int32_t *tokens)
{
    const struct workspace *w = pass->workspace;
    const struct architecture *a = architecture_of(model->config.type);
    embedding_forward(pass->pool, pass->n, model->config.width, tokens, pass->values + model->plan.embedding, w->inputs);
    for (int s = 0; pass->noise_alpha > 0 && s < pass->attention.n_segments; s++) {
        const struct attention_segment *at = &w->segments[s];
        float bound = pass->noise_alpha / sqrtf((float)(at->queries * model->config.width));
        embedding_noise(pass->pool, at->query_first, at->queries, model->config.width, bound, model->routing->draw, w->inputs);
    }
    const float *before = NULL;
    float *x = w->inputs;
    for (int i = 0; i < model->config.layers; i++) {
        float *out = w->inputs + (i + 1) * w->input_stride;
        a->forward(pass, &model->plan.layers[i], &w->layers[i], x, before, out);
        before = w->layers[i].middle;
        x = out;
    }
    return (struct stream){before, x};
}

enum status forward_check_ids(const struct model_config *config, const int32_t *ids, int64_t count, int32_t least,
                              const char *what, struct error *err)
{
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < least || ids[i] >= config->vocab)
            FAIL(err, STATUS_DATA,
                 "%s %d at position %lld does not fit the model's vocabulary of %lld; model and tokenizer differ", what,
                 ids[i], (long long)i, (long long)config->vocab);
    return STATUS_OK;
}
