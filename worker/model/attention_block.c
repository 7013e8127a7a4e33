/* The attention block: norm, projections, RoPE, attention, output projection. */
#include <string.h>

#include "worker/model/blocks.h"
#include "worker/model/keys.h"
#include "worker/model/lora.h"
#include "worker/model/routed.h"
#include "worker/ops/bias.h"
#include "worker/ops/gemm.h"
#include "worker/ops/norm.h"
#include "worker/ops/rope.h"

enum status attention_block_list(const struct model_config *c, int layer, bool bias, struct params *table,
                                 struct error *err)
{
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    TRY(list_vector(table, "model.layers.%d.input_layernorm.weight", layer, c->width, INIT_ONES, err));
    TRY(list_matrix(c, table, "model.layers.%d.self_attn.q_proj.weight", layer, q, c->width, err));
    if (bias)
        TRY(list_vector(table, "model.layers.%d.self_attn.q_proj.bias", layer, q, INIT_ZEROS, err));
    TRY(list_matrix(c, table, "model.layers.%d.self_attn.k_proj.weight", layer, kv, c->width, err));
    if (bias)
        TRY(list_vector(table, "model.layers.%d.self_attn.k_proj.bias", layer, kv, INIT_ZEROS, err));
    TRY(list_matrix(c, table, "model.layers.%d.self_attn.v_proj.weight", layer, kv, c->width, err));
    if (bias)
        TRY(list_vector(table, "model.layers.%d.self_attn.v_proj.bias", layer, kv, INIT_ZEROS, err));
    TRY(list_matrix(c, table, "model.layers.%d.self_attn.o_proj.weight", layer, c->width, q, err));
    const struct loar_shape shape = model_shape(c);
    return c->loar && c->loar->layers[layer].routed ? loar_list(&c->loar->config, &shape, layer, table, err) : STATUS_OK;
}

/* q: NULL where it has been turned. */
static void turn(const struct pass *p, int direction, float *q, float *k)
{
    const struct model_config *c = p->config;
    if (q)
        rope_apply(p->pool, p->n, c->heads, (int)c->head_dim, p->positions, p->cosine, p->sine, direction, q);
    rope_apply(p->pool, p->n, c->kv_heads, (int)c->head_dim, p->positions, p->cosine, p->sine, direction, k);
}

/* Behind the keys or values [capacity][G][C] that are cached. */
static void append(const struct pass *p, const struct cached_layer *to, const float *rows, float *cache)
{
    size_t c = (size_t)p->config->head_dim;
    for (int64_t i = 0; i < p->n; i++)
        for (int g = 0; g < p->config->kv_heads; g++, rows += c)
            memcpy(cache + (g * to->capacity + to->at + i) * (int64_t)c, rows, c * sizeof *cache);
}

/* flops: of a pair of query and key, per value of a head. */
static void count_attention(const struct pass *p, const struct attention *a, int flops)
{
    if (!p->counters)
        return;
    struct attention dense = *a;
    dense.layout = NULL;
    dense.window = dense.sinks = 0;
    double each = (double)flops * a->head_dim;
    p->counters->items[COUNTERS_FLOPS] += (int64_t)(attention_pairs(a) * each);
    p->counters->items[COUNTERS_DENSE_FLOPS] += (int64_t)(attention_pairs(&dense) * each);
}

void attention_block_forward(const struct pass *p, const struct layer_places *at, struct activations *s, float *x,
                             const float *before)
{
    const struct model_config *c = p->config;
    int64_t d = c->width, wide = c->heads * c->head_dim;
    norm_forward(p->pool, p->n, d, before ? before : x, before ? x : NULL, p->values + at->norm1, c->norm_eps, x,
                 s->rstd1, s->normed1);
    counters_lap(p->counters, MODEL_PART_REST);
    struct layer_routing *chosen = routed_choose(p, at, s->normed1), *rows = chosen && !chosen->all ? chosen : NULL;
    counters_lap(p->counters, MODEL_PART_ROUTER);
    struct attention attention = routed_attention(p, at);
    struct beside queries = {.count = 0};
    if (rows) {
        attention.layout = rows->layout;
        routed_queries(p, at, rows, s->normed1, s->q);
    } else {
        queries.jobs[queries.count++] =
            (struct gemm){GEMM_NT, p->n, wide, d, s->normed1, d, p->values + at->q, d, s->q, wide, 0.0f};
    }
    keys_forward(p, at, rows, s->normed1, &queries, s->k, s->v);
    if (!rows && at->q_bias >= 0)
        bias_forward(p->pool, p->n, wide, p->values + at->q_bias, s->q);
    if (!rows)
        lora_forward(p, at, LORA_Q, p->n, NULL, s->normed1, s->q);
    lora_forward(p, at, LORA_K, p->n, NULL, s->normed1, s->k);
    lora_forward(p, at, LORA_V, p->n, NULL, s->normed1, s->v);
    turn(p, 1, rows ? NULL : s->q, s->k);
    counters_lap(p->counters, MODEL_PART_PROJECTIONS);
    const float *k = s->k, *v = s->v;
    if (p->cached) {
        const struct cached_layer *cached = &p->cached[at->layer];
        append(p, cached, k, cached->keys);
        append(p, cached, v, cached->values);
        k = cached->keys;
        v = cached->values;
    }
    attention_forward(p->pool, &attention, s->q, k, v, s->attended, s->lse);
    count_attention(p, &attention, 4);
    counters_lap(p->counters, MODEL_PART_ATTENTION);
    if (rows) {
        routed_output(p, at, rows, s->attended, s->middle);
    } else {
        gemm_run(p->pool,
                 &(struct gemm){GEMM_NT, p->n, d, wide, s->attended, wide, p->values + at->o, wide, s->middle, d, 0.0f}, 1);
        lora_forward(p, at, LORA_O, p->n, NULL, s->attended, s->middle);
    }
    counters_lap(p->counters, MODEL_PART_PROJECTIONS);
}

void attention_block_backward(const struct pass *p, const struct layer_places *at, struct activations *s,
                              const float *x, float *dx)
{
    const struct model_config *c = p->config;
    const struct workspace *w = p->workspace;
    int64_t n = p->n, d = c->width, wide = c->heads * c->head_dim;
    struct layer_routing *chosen = routed_chosen(p, at), *rows = chosen && !chosen->all ? chosen : NULL;
    struct attention attention = routed_attention(p, at);
    if (rows) {
        attention.layout = rows->layout;
        routed_output_backward(p, at, rows, &attention, s->attended, dx, w->dattended, w->delta);
    } else {
        float *dout = gradient_of(p, at->o);
        struct gemm output[] = {
            {GEMM_NN, n, wide, d, dx, d, p->values + at->o, wide, w->dattended, wide, 0.0f},
            {GEMM_TN, d, wide, n, dx, d, s->attended, wide, dout, wide, 0.0f},
        };
        gemm_run(p->pool, output, dout ? 2 : 1);
        lora_backward_weights(p, at, LORA_O, n, NULL, s->attended, dx);
        lora_backward_input(p, at, LORA_O, n, NULL, dx, w->dattended);
        attention_delta(p->pool, &attention, s->attended, w->dattended, w->delta);
    }
    counters_lap(p->counters, MODEL_PART_PROJECTIONS);
    if (chosen)
        routed_router_backward(p, at, chosen, s->attended, w->delta, dx);
    counters_lap(p->counters, MODEL_PART_ROUTER);
    if (at->is_end)
        return;
    attention_backward(p->pool, &attention, s->q, s->k, s->v, s->lse, w->dattended, w->delta, w->dq, w->dk, w->dv);
    count_attention(p, &attention, 10);
    counters_lap(p->counters, MODEL_PART_ATTENTION);
    turn(p, -1, rows ? NULL : w->dq, w->dk);

    struct beside queries = {.count = 0};
    if (rows) {
        routed_queries_backward(p, at, rows, s->normed1, w->dq, w->dnormed);
    } else {
        float *dweight = gradient_of(p, at->q), *dbias = gradient_of(p, at->q_bias);
        queries.jobs[queries.count++] = (struct gemm){GEMM_NN, n, d, wide, w->dq, wide, p->values + at->q, d, w->dnormed, d, 0.0f};
        if (dweight)
            queries.jobs[queries.count++] = (struct gemm){GEMM_TN, wide, d, n, w->dq, wide, s->normed1, d, dweight, d, 0.0f};
        if (dbias)
            bias_backward(p->pool, n, wide, w->dq, dbias);
    }
    keys_backward(p, at, rows, s->normed1, &queries, w->dk, w->dv, w->dnormed);
    const float *const dout[] = {w->dq, w->dk, w->dv};
    for (int m = rows ? LORA_K : LORA_Q; m <= LORA_V; m++) {
        lora_backward_weights(p, at, (enum lora_module)m, n, NULL, s->normed1, dout[m]);
        lora_backward_input(p, at, (enum lora_module)m, n, NULL, dout[m], w->dnormed);
    }
    counters_lap(p->counters, MODEL_PART_PROJECTIONS);
    norm_backward(p->pool, n, d, x, s->rstd1, p->values + at->norm1, w->dnormed, dx, gradient_of(p, at->norm1), false);
}
