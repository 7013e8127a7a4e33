#include "worker/model/head.h"

#include <string.h>

#include "worker/ops/cross_entropy.h"
#include "worker/ops/gemm.h"
#include "worker/ops/norm.h"
#include "worker/ops/rows.h"

int64_t head_choose(const struct batch *batch, const struct workspace *w)
{
    int64_t n = 0;
    for (int i = 0; i < batch->n_tokens; i++) {
        if (batch->targets[i] < 0)
            continue;
        w->rows[n] = i;
        w->targets[n] = batch->targets[i];
        w->weights[n++] = batch->weights[i];
    }
    return n;
}

/* Normed rows of one tile, in workspace->tile_normed. */
static void norm_tile(const struct pass *p, const struct plan *plan, struct stream stream, const int32_t *rows, int64_t n)
{
    const struct workspace *w = p->workspace;
    int64_t d = p->config->width;
    rows_gather_sum(p->pool, n, d, rows, stream.x, stream.added, w->tile_x);
    norm_forward(p->pool, n, d, w->tile_x, NULL, p->values + plan->norm, p->config->norm_eps, NULL, w->tile_rstd,
                 w->tile_normed);
}

static struct gemm logits_of(const struct pass *p, const struct plan *plan, int64_t n, float *out)
{
    int64_t d = p->config->width, v = p->config->vocab;
    return (struct gemm){GEMM_NT, n, v, d, p->workspace->tile_normed, d, p->values + plan->head, d, out, v, 0.0f};
}

static void count_places(const struct pass *p, const struct batch *batch, int64_t first, int64_t n)
{
    const struct workspace *w = p->workspace;
    int s = 0;
    for (int64_t i = 0; p->counters && i < n; i++) {
        int32_t row = w->rows[first + i];
        while (row >= batch->starts[s + 1])
            s++;
        counters_add_loss(p->counters, row - batch->starts[s], batch->starts[s + 1] - batch->starts[s], w->tile_loss[i]);
    }
}

static void count_tile(const struct pass *p, const struct batch *batch, int64_t first, int64_t n, struct loss_sums *sums)
{
    const struct workspace *w = p->workspace;
    for (int64_t i = 0; i < n; i++) {
        enum span span = batch->target_spans[w->rows[first + i]];
        sums->loss += (double)w->weights[first + i] * w->tile_loss[i];
        sums->weight += w->weights[first + i];
        sums->span_loss[span] += w->tile_loss[i];
        sums->span_count[span]++;
        sums->correct += w->tile_correct[i];
    }
}

static void tile_backward(const struct pass *p, const struct plan *plan, int64_t first, int64_t n)
{
    const struct workspace *w = p->workspace;
    int64_t d = p->config->width, v = p->config->vocab;
    float *dhead = gradient_of(p, plan->head);
    struct gemm jobs[] = {
        {GEMM_NN, n, d, v, w->tile_logits, v, p->values + plan->head, d, w->tile_dnormed, d, 0.0f},
        {GEMM_TN, v, d, n, w->tile_logits, v, w->tile_normed, d, dhead, d, first > 0 ? 1.0f : 0.0f},
    };
    gemm_run(p->pool, jobs, dhead ? 2 : 1);
    memset(w->tile_dx, 0, (size_t)(n * d) * sizeof *w->tile_dx);
    norm_backward(p->pool, n, d, w->tile_x, w->tile_rstd, p->values + plan->norm, w->tile_dnormed, w->tile_dx,
                  gradient_of(p, plan->norm), first > 0);
    rows_scatter(p->pool, n, d, w->rows + first, w->tile_dx, w->dx);
}

void head_loss(const struct pass *p, const struct plan *plan, struct stream stream, int64_t chosen,
               const struct batch *batch, struct loss_sums *sums)
{
    const struct workspace *w = p->workspace;
    if (p->gradients)
        memset(w->dx, 0, (size_t)(p->n * p->config->width) * sizeof *w->dx);
    for (int64_t first = 0; first < chosen; first += w->tile_rows) {
        int64_t n = chosen - first < w->tile_rows ? chosen - first : w->tile_rows;
        norm_tile(p, plan, stream, w->rows + first, n);
        struct gemm job = logits_of(p, plan, n, w->tile_logits);
        gemm_run(p->pool, &job, 1);
        cross_entropy(p->pool, n, p->config->vocab, w->tile_logits, w->targets + first, w->weights + first,
                      p->gradients != NULL, w->tile_loss, w->tile_correct);
        count_tile(p, batch, first, n, sums);
        count_places(p, batch, first, n);
        if (p->gradients)
            tile_backward(p, plan, first, n);
    }
    counters_lap(p->counters, MODEL_PART_HEAD);
}

void head_logits(const struct pass *p, const struct plan *plan, struct stream stream, int64_t first, int64_t n,
                 float *logits)
{
    const struct workspace *w = p->workspace;
    for (int64_t i = 0; i < n; i++)
        w->rows[i] = (int32_t)(first + i);
    for (int64_t at = 0; at < n; at += w->tile_rows) {
        int64_t count = n - at < w->tile_rows ? n - at : w->tile_rows;
        norm_tile(p, plan, stream, w->rows + at, count);
        struct gemm job = logits_of(p, plan, count, logits + at * p->config->vocab);
        gemm_run(p->pool, &job, 1);
    }
}
