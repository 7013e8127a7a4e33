/* Which tensors a model has and where they lie in the flat space. */
#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "worker/model/blocks.h"
#include "worker/model/lora.h"

static const char *named(char *room, size_t size, const char *format, int layer)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(room, size, format, layer);
#pragma GCC diagnostic pop
    return room;
}

enum status list_matrix(const struct model_config *c, struct params *table, const char *name, int layer, int64_t rows,
                        int64_t columns, struct error *err)
{
    char room[128];
    struct param p = {.name = (char *)(uintptr_t)named(room, sizeof room, name, layer), .n_dims = 2,
                      .shape = {rows, columns}, .decay = true, .init = INIT_NORMAL, .init_std = c->init_std};
    return params_add(table, &p, NULL, err);
}

enum status list_vector(struct params *table, const char *name, int layer, int64_t size, enum param_init init,
                        struct error *err)
{
    char room[128];
    struct param p = {.name = (char *)(uintptr_t)named(room, sizeof room, name, layer), .n_dims = 1, .shape = {size},
                      .init = init};
    return params_add(table, &p, NULL, err);
}

enum status list_embedding(const struct model_config *c, struct params *table, struct error *err)
{
    return list_matrix(c, table, "model.embed_tokens.weight", -1, c->vocab, c->width, err);
}

enum status list_head(const struct model_config *c, struct params *table, struct error *err)
{
    TRY(list_vector(table, "model.norm.weight", -1, c->width, INIT_ONES, err));
    if (!c->tied && !c->classifies_only)
        TRY(list_matrix(c, table, "lm_head.weight", -1, c->vocab, c->width, err));
    return c->labels ? list_matrix(c, table, MODEL_SCORE_TENSOR, -1, c->labels, c->width, err) : STATUS_OK;
}

const struct architecture *architecture_of(enum model_type type)
{
    static const struct architecture *const all[] = {
        [MODEL_LLAMA] = &architecture_llama, [MODEL_QWEN2] = &architecture_qwen2};
    return (unsigned)type < sizeof all / sizeof *all ? all[type] : NULL;
}

/* What the operators take for granted. */
static enum status check_shape(const struct model_config *c, struct error *err)
{
    if (!architecture_of(c->type))
        FAIL(err, STATUS_INTERNAL, "model type %d is not built", c->type);
    if (c->layers < 1 || c->width < 1 || c->hidden < 1 || c->vocab < 1 || c->heads < 1 || c->kv_heads < 1)
        FAIL(err, STATUS_DATA, "a model needs at least one layer, head, token and value per row");
    if (c->heads % c->kv_heads)
        FAIL(err, STATUS_DATA, "%d attention heads cannot share %d key-value heads: not a multiple", c->heads, c->kv_heads);
    if (c->labels < 0 || (c->classifies_only && !c->labels))
        FAIL(err, STATUS_DATA, "a model that only classifies needs labels, found %d", c->labels);
    if (c->head_dim < 2 || c->head_dim % 2)
        FAIL(err, STATUS_DATA, "head size %lld must be even", (long long)c->head_dim);
    int64_t limit = INT32_MAX, wide;
    if (c->width > limit || c->hidden > limit || c->vocab > limit || c->head_dim > limit ||
        __builtin_mul_overflow(c->heads, c->head_dim, &wide) || wide > limit)
        FAIL(err, STATUS_DATA, "a side of the model's matrices exceeds %lld", (long long)limit);
    return STATUS_OK;
}

enum status model_params(const struct model_config *config, struct params *table, struct error *err)
{
    TRY(check_shape(config, err));
    const struct architecture *architecture = architecture_of(config->type);
    if (config->training.kind == TRAIN_ALL)
        return architecture->list(config, table, err);
    struct params listed = {0};
    enum status st = architecture->list(config, &listed, err);
    if (st == STATUS_OK)
        st = training_list(&config->training, config->layers, config->width, &listed, table, err);
    params_free(&listed);
    return st;
}

struct place {
    const char *name;
    int64_t *out;
    bool optional;
};

static enum status find(const struct params *table, const struct place *places, int count, int layer, struct error *err)
{
    for (int i = 0; i < count; i++) {
        char room[128];
        int found = params_find(table, named(room, sizeof room, places[i].name, layer));
        if (found < 0 && !places[i].optional)
            FAIL(err, STATUS_INTERNAL, "the parameter table lacks tensor '%s'", room);
        *places[i].out = found >= 0 ? params_place(table, found) : -1;
    }
    return STATUS_OK;
}

static enum status find_layer(const struct model_config *config, const struct params *table, struct layer_places *at, int layer,
                              struct error *err)
{
    const struct place places[] = {
        {"model.layers.%d.input_layernorm.weight", &at->norm1, false},
        {"model.layers.%d.self_attn.q_proj.weight", &at->q, false},
        {"model.layers.%d.self_attn.q_proj.bias", &at->q_bias, true},
        {"model.layers.%d.self_attn.k_proj.weight", &at->k, false},
        {"model.layers.%d.self_attn.k_proj.bias", &at->k_bias, true},
        {"model.layers.%d.self_attn.v_proj.weight", &at->v, false},
        {"model.layers.%d.self_attn.v_proj.bias", &at->v_bias, true},
        {"model.layers.%d.self_attn.o_proj.weight", &at->o, false},
        {"model.layers.%d.post_attention_layernorm.weight", &at->norm2, false},
        {"model.layers.%d.mlp.gate_proj.weight", &at->gate, false},
        {"model.layers.%d.mlp.up_proj.weight", &at->up, false},
        {"model.layers.%d.mlp.down_proj.weight", &at->down, false},
    };
    at->layer = layer;
    TRY(lora_find(config, table, layer, at->lora, err));
    return find(table, places, (int)(sizeof places / sizeof *places), layer, err);
}

/* Place of the first trained tensor from this one on, in table order: where gradients begin that come before its own. */
static int64_t first_trained(const struct params *table, const char *name, int layer)
{
    char room[128];
    for (int i = params_find(table, named(room, sizeof room, name, layer)); i >= 0 && i < table->count; i++)
        if (table->items[i].role == PARAM_TRAINED)
            return table->items[i].offset;
    return table->values;
}

static bool is_trained(const struct params *table, int64_t place)
{
    return place >= 0 && place < table->values;
}

/* How far down the backward pass must go. */
static void find_end(const struct model_config *config, const struct params *table, struct plan *plan)
{
    plan->first = first_trained(table, "model.norm.weight", -1);
    for (int i = 0; i < config->layers; i++)
        plan->layers[i].first = first_trained(table, "model.layers.%d.input_layernorm.weight", i);
    plan->lowest = 0;
    if (plan->embedding < table->values)
        return;
    while (plan->lowest < config->layers &&
           plan->layers[plan->lowest].first == (plan->lowest + 1 < config->layers ? plan->layers[plan->lowest + 1].first : plan->first))
        plan->lowest++;
    if (plan->lowest == config->layers)
        return;
    struct layer_places *end = &plan->layers[plan->lowest];
    const int64_t before[] = {end->norm1, end->q, end->q_bias, end->k, end->k_bias, end->v, end->v_bias,
                              end->lora[LORA_Q].a, end->lora[LORA_K].a, end->lora[LORA_V].a};
    end->is_end = true;
    for (size_t i = 0; i < sizeof before / sizeof *before; i++)
        end->is_end = end->is_end && !is_trained(table, before[i]);
    bool routed = config->loar && config->loar->layers[plan->lowest].routed;
    end->is_mlp_end = end->is_end && !routed && !is_trained(table, end->o) && !is_trained(table, end->lora[LORA_O].a);
}

enum status plan_make(const struct model_config *config, const struct params *table, struct plan *out,
                      struct error *err)
{
    TRY(check_shape(config, err));
    const struct place places[] = {
        {"model.embed_tokens.weight", &out->embedding, false},
        {"model.norm.weight", &out->norm, false},
        {config->tied && !config->classifies_only ? "model.embed_tokens.weight" : "lm_head.weight", &out->head, config->classifies_only},
        {MODEL_SCORE_TENSOR, &out->score, !config->labels},
    };
    TRY(find(table, places, (int)(sizeof places / sizeof *places), -1, err));
    out->layers = mem_alloc((size_t)config->layers, sizeof *out->layers);
    if (!out->layers)
        FAIL(err, STATUS_NOMEM, "no memory for the plan of %d layers", config->layers);
    const struct loar_shape shape = model_shape(config);
    for (int i = 0; i < config->layers; i++) { /* the caller frees the plan */
        TRY(find_layer(config, table, &out->layers[i], i, err));
        if (config->loar && config->loar->layers[i].routed)
            TRY(loar_find(&config->loar->config, &shape, i, table, &out->layers[i].router, err));
    }
    find_end(config, table, out);
    return STATUS_OK;
}

void plan_free(struct plan *plan)
{
    mem_free(plan->layers);
    *plan = (struct plan){0};
}
