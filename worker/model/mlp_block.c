/* The MLP block: norm, gate and up projections, SwiGLU, down projection. */
#include "worker/model/blocks.h"
#include "worker/ops/gemm.h"
#include "worker/ops/norm.h"
#include "worker/ops/swiglu.h"

enum status mlp_block_list(const struct model_config *c, int layer, struct params *table, struct error *err)
{
    TRY(list_vector(table, "model.layers.%d.post_attention_layernorm.weight", layer, c->width, INIT_ONES, err));
    TRY(list_matrix(c, table, "model.layers.%d.mlp.gate_proj.weight", layer, c->hidden, c->width, err));
    TRY(list_matrix(c, table, "model.layers.%d.mlp.up_proj.weight", layer, c->hidden, c->width, err));
    return list_matrix(c, table, "model.layers.%d.mlp.down_proj.weight", layer, c->width, c->hidden, err);
}

void mlp_block_forward(const struct pass *p, const struct layer_places *at, struct activations *s, const float *x,
                       float *out)
{
    const struct model_config *c = p->config;
    const struct workspace *w = p->workspace;
    int64_t n = p->n, d = c->width, f = c->hidden;
    norm_forward(p->pool, n, d, x, s->middle, p->values + at->norm2, c->norm_eps, s->middle, s->rstd2, s->normed2);
    struct gemm jobs[] = {
        {GEMM_NT, n, f, d, s->normed2, d, p->values + at->gate, d, s->gate, f, 0.0f},
        {GEMM_NT, n, f, d, s->normed2, d, p->values + at->up, d, s->up, f, 0.0f},
    };
    gemm_run(p->pool, jobs, 2);
    if (out) {
        swiglu_forward(p->pool, n * f, s->gate, s->up, w->act);
        gemm_run(p->pool, &(struct gemm){GEMM_NT, n, d, f, w->act, f, p->values + at->down, f, out, d, 0.0f}, 1);
    }
    counters_lap(p->counters, MODEL_PART_MLP);
}

void mlp_block_backward(const struct pass *p, const struct layer_places *at, struct activations *s, float *dx)
{
    const struct model_config *c = p->config;
    const struct workspace *w = p->workspace;
    int64_t n = p->n, d = c->width, f = c->hidden;
    gemm_run(p->pool, &(struct gemm){GEMM_NN, n, f, d, dx, d, p->values + at->down, f, w->act, f, 0.0f}, 1);
    swiglu_backward(p->pool, n * f, s->gate, s->up, w->act); /* gate, up: now gradients; act: the activation */
    struct gemm jobs[] = {
        {GEMM_TN, d, f, n, dx, d, w->act, f, p->gradients + at->down, f, 0.0f},
        {GEMM_TN, f, d, n, s->gate, f, s->normed2, d, p->gradients + at->gate, d, 0.0f},
        {GEMM_TN, f, d, n, s->up, f, s->normed2, d, p->gradients + at->up, d, 0.0f},
        {GEMM_NN, n, d, f, s->gate, f, p->values + at->gate, d, w->dnormed, d, 0.0f},
        {GEMM_NN, n, d, f, s->up, f, p->values + at->up, d, w->dnormed, d, 1.0f},
    };
    gemm_run(p->pool, jobs, 4);
    gemm_run(p->pool, &jobs[4], 1); /* adds to the rows of the one before */
    norm_backward(p->pool, n, d, s->middle, s->rstd2, p->values + at->norm2, w->dnormed, dx, p->gradients + at->norm2,
                  false);
    counters_lap(p->counters, MODEL_PART_MLP);
}
