/* The MLP block: norm, gate and up projections, SwiGLU, down projection. */
#include <string.h>

#include "worker/model/blocks.h"
#include "worker/model/lora.h"
#include "worker/ops/gemm.h"
#include "worker/ops/norm.h"
#include "worker/ops/rows.h"
#include "worker/ops/swiglu.h"

enum status mlp_block_list(const struct model_config *c, int layer, struct params *table, struct error *err)
{
    TRY(list_vector(table, "model.layers.%d.post_attention_layernorm.weight", layer, c->width, INIT_ONES, err));
    TRY(list_matrix(c, table, "model.layers.%d.mlp.gate_proj.weight", layer, c->hidden, c->width, err));
    TRY(list_matrix(c, table, "model.layers.%d.mlp.up_proj.weight", layer, c->hidden, c->width, err));
    return list_matrix(c, table, "model.layers.%d.mlp.down_proj.weight", layer, c->width, c->hidden, err);
}

/* Rows that the layer computes: in the last one only those that the loss reads, else all, which is NULL. */
static const int32_t *rows_of(const struct pass *p, const struct layer_places *at, int64_t *n)
{
    bool picks = p->n_picked > 0 && at->layer == p->config->layers - 1;
    *n = picks ? p->n_picked : p->n;
    return picks ? p->workspace->rows : NULL;
}

/* x [N][D], or its rows in `room`. */
static const float *pick(const struct pass *p, const int32_t *rows, int64_t n, const float *x, float *room)
{
    if (!rows)
        return x;
    rows_gather_sum(p->pool, n, p->config->width, rows, x, NULL, room);
    return room;
}

/* Back to [N][D]; rows that were not computed are zero. */
static void put_back(const struct pass *p, const int32_t *rows, int64_t n, const float *picked, float *out)
{
    memset(out, 0, (size_t)(p->n * p->config->width) * sizeof *out);
    rows_scatter(p->pool, n, p->config->width, rows, picked, out);
}

void mlp_block_forward(const struct pass *p, const struct layer_places *at, struct activations *s, const float *x,
                       float *out)
{
    const struct model_config *c = p->config;
    const struct workspace *w = p->workspace;
    int64_t n, d = c->width, f = c->hidden;
    const int32_t *rows = rows_of(p, at, &n);
    norm_forward(p->pool, p->n, d, x, s->middle, p->values + at->norm2, c->norm_eps, s->middle, s->rstd2, s->normed2);
    const float *normed = pick(p, rows, n, s->normed2, w->picked[0]);
    struct gemm jobs[] = {
        {GEMM_NT, n, f, d, normed, d, p->values + at->gate, d, s->gate, f, 0.0f},
        {GEMM_NT, n, f, d, normed, d, p->values + at->up, d, s->up, f, 0.0f},
    };
    gemm_run(p->pool, jobs, 2);
    lora_forward(p, at, LORA_GATE, n, rows, normed, s->gate);
    lora_forward(p, at, LORA_UP, n, rows, normed, s->up);
    if (out) {
        swiglu_forward(p->pool, n * f, s->gate, s->up, w->act);
        float *y = rows ? w->picked[0] : out;
        gemm_run(p->pool, &(struct gemm){GEMM_NT, n, d, f, w->act, f, p->values + at->down, f, y, d, 0.0f}, 1);
        lora_forward(p, at, LORA_DOWN, n, rows, w->act, y);
        if (rows)
            put_back(p, rows, n, y, out);
    }
    counters_lap(p->counters, MODEL_PART_MLP);
}

void mlp_block_backward(const struct pass *p, const struct layer_places *at, struct activations *s, float *dx)
{
    const struct model_config *c = p->config;
    const struct workspace *w = p->workspace;
    int64_t n, d = c->width, f = c->hidden;
    const int32_t *rows = rows_of(p, at, &n);
    const float *normed = pick(p, rows, n, s->normed2, w->picked[0]), *dy = pick(p, rows, n, dx, w->picked[1]);
    float *dnormed = rows ? w->picked[2] : w->dnormed;
    gemm_run(p->pool, &(struct gemm){GEMM_NN, n, f, d, dy, d, p->values + at->down, f, w->act, f, 0.0f}, 1);
    lora_backward_input(p, at, LORA_DOWN, n, rows, dy, w->act);
    swiglu_backward(p->pool, n * f, s->gate, s->up, w->act); /* gate, up: now gradients; act: the activation */
    float *ddown = gradient_of(p, at->down), *dgate = gradient_of(p, at->gate), *dup = gradient_of(p, at->up);
    struct gemm jobs[4], last = {GEMM_NN, n, d, f, s->up, f, p->values + at->up, d, dnormed, d, 1.0f};
    int n_jobs = 0;
    if (ddown)
        jobs[n_jobs++] = (struct gemm){GEMM_TN, d, f, n, dy, d, w->act, f, ddown, f, 0.0f};
    if (dgate)
        jobs[n_jobs++] = (struct gemm){GEMM_TN, f, d, n, s->gate, f, normed, d, dgate, d, 0.0f};
    if (dup)
        jobs[n_jobs++] = (struct gemm){GEMM_TN, f, d, n, s->up, f, normed, d, dup, d, 0.0f};
    jobs[n_jobs++] = (struct gemm){GEMM_NN, n, d, f, s->gate, f, p->values + at->gate, d, dnormed, d, 0.0f};
    gemm_run(p->pool, jobs, n_jobs);
    gemm_run(p->pool, &last, 1); /* adds to the rows of the one before */
    lora_backward_weights(p, at, LORA_DOWN, n, rows, w->act, dy);
    lora_backward_weights(p, at, LORA_GATE, n, rows, normed, s->gate);
    lora_backward_weights(p, at, LORA_UP, n, rows, normed, s->up);
    lora_backward_input(p, at, LORA_GATE, n, rows, s->gate, dnormed);
    lora_backward_input(p, at, LORA_UP, n, rows, s->up, dnormed);
    if (rows)
        put_back(p, rows, n, dnormed, w->dnormed);
    norm_backward(p->pool, p->n, d, s->middle, s->rstd2, p->values + at->norm2, w->dnormed, dx, gradient_of(p, at->norm2), false);
    counters_lap(p->counters, MODEL_PART_MLP);
}
