#include "worker/model/head.h"

#include <string.h>

#include "worker/ops/cross_entropy.h"
#include "worker/ops/gemm.h"
#include "worker/ops/norm.h"
#include "worker/ops/rows.h"

/* One matrix over normed rows: that of the vocabulary, or that of labels. */
struct scorer {
    int64_t place, columns;
    int64_t first, count;               /* its rows among the chosen ones */
    const struct column_range *ranges;  /* [count]; NULL: all columns */
};

void head_choose(const struct batch *batch, const struct workspace *w)
{
    int64_t n = 0, classes = 0;
    for (int i = 0; i < batch->n_tokens; i++) {
        if (batch->targets[i] < 0)
            continue;
        w->rows[n] = i;
        w->targets[n] = batch->targets[i];
        w->weights[n++] = batch->weights[i];
    }
    for (int s = 0; s < batch->n_sequences; s++) {
        struct row_class class = batch_class(batch, s);
        int last = batch->starts[s + 1] - 1;
        if (!class.count)
            continue;
        w->ranges[classes++] = (struct column_range){class.first, class.count};
        w->rows[n] = last;
        w->targets[n] = class.label;
        w->weights[n++] = batch->weights[last];
    }
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

static void score_tile(const struct pass *p, int64_t place, int64_t columns, int64_t n, float *out)
{
    int64_t d = p->config->width;
    gemm_run(p->pool, &(struct gemm){GEMM_NT, n, columns, d, p->workspace->tile_normed, d, p->values + place, d, out, columns, 0.0f}, 1);
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

/* What the scores of labels amount to, before they are spoiled. */
static void count_classes(const struct pass *p, const struct scorer *scorer, int64_t first, int64_t n)
{
    const struct workspace *w = p->workspace;
    for (int64_t i = 0; p->counters && i < n; i++) {
        const struct column_range *range = &scorer->ranges[first - scorer->first + i];
        const float *x = w->tile_logits + i * scorer->columns + range->first;
        int best = 0;
        for (int j = 1; j < range->count; j++)
            best = x[j] > x[best] ? j : best;
        counters_add_class(p->counters, range->first + w->targets[first + i], range->first + best);
    }
}

static void tile_backward(const struct pass *p, const struct plan *plan, const struct scorer *scorer, int64_t first, int64_t n)
{
    const struct workspace *w = p->workspace;
    int64_t d = p->config->width, v = scorer->columns;
    float *dhead = gradient_of(p, scorer->place);
    struct gemm jobs[] = {
        {GEMM_NN, n, d, v, w->tile_logits, v, p->values + scorer->place, d, w->tile_dnormed, d, 0.0f},
        {GEMM_TN, v, d, n, w->tile_logits, v, w->tile_normed, d, dhead, d, first > scorer->first ? 1.0f : 0.0f},
    };
    gemm_run(p->pool, jobs, dhead ? 2 : 1);
    memset(w->tile_dx, 0, (size_t)(n * d) * sizeof *w->tile_dx);
    norm_backward(p->pool, n, d, w->tile_x, w->tile_rstd, p->values + plan->norm, w->tile_dnormed, w->tile_dx,
                  gradient_of(p, plan->norm), first > 0);
    rows_scatter(p->pool, n, d, w->rows + first, w->tile_dx, w->dx);
}

static void scorer_loss(const struct pass *p, const struct plan *plan, struct stream stream, const struct scorer *scorer,
                        const struct batch *batch, struct loss_sums *sums)
{
    const struct workspace *w = p->workspace;
    float *gradient = p->gradients ? gradient_of(p, scorer->place) : NULL;
    if (gradient && !scorer->count)
        memset(gradient, 0, (size_t)(scorer->columns * p->config->width) * sizeof *gradient);
    for (int64_t first = scorer->first, end = first + scorer->count; first < end; first += w->tile_rows) {
        int64_t n = end - first < w->tile_rows ? end - first : w->tile_rows;
        norm_tile(p, plan, stream, w->rows + first, n);
        score_tile(p, scorer->place, scorer->columns, n, w->tile_logits);
        if (scorer->ranges)
            count_classes(p, scorer, first, n);
        struct cross_entropy job = {
            .n = n, .columns = scorer->columns, .logits = w->tile_logits, .targets = w->targets + first, .weights = w->weights + first,
            .ranges = scorer->ranges ? scorer->ranges + (first - scorer->first) : NULL, .smoothing = p->label_smoothing,
            .gradient = p->gradients != NULL, .loss = w->tile_loss, .correct = w->tile_correct,
        };
        cross_entropy(p->pool, &job);
        count_tile(p, batch, first, n, sums);
        if (!scorer->ranges)
            count_places(p, batch, first, n);
        if (p->gradients)
            tile_backward(p, plan, scorer, first, n);
    }
}

void head_loss(const struct pass *p, const struct plan *plan, struct stream stream, int64_t targets, int64_t classes,
               const struct batch *batch, struct loss_sums *sums)
{
    const struct workspace *w = p->workspace;
    struct scorer words = {plan->head, p->config->vocab, 0, targets, NULL};
    struct scorer labels = {plan->score, p->config->labels, targets, classes, w->ranges};
    if (p->gradients)
        memset(w->dx, 0, (size_t)(p->n * p->config->width) * sizeof *w->dx);
    if (words.place >= 0)
        scorer_loss(p, plan, stream, &words, batch, sums);
    if (labels.place >= 0)
        scorer_loss(p, plan, stream, &labels, batch, sums);
    counters_lap(p->counters, MODEL_PART_HEAD);
}

/* Of the n rows in workspace->rows. */
static void score_rows(const struct pass *p, const struct plan *plan, struct stream stream, int64_t place, int64_t columns,
                       int64_t n, float *out)
{
    const struct workspace *w = p->workspace;
    for (int64_t at = 0; at < n; at += w->tile_rows) {
        int64_t count = n - at < w->tile_rows ? n - at : w->tile_rows;
        norm_tile(p, plan, stream, w->rows + at, count);
        score_tile(p, place, columns, count, out + at * columns);
    }
}

void head_logits(const struct pass *p, const struct plan *plan, struct stream stream, int64_t first, int64_t n,
                 float *logits)
{
    for (int64_t i = 0; i < n; i++)
        p->workspace->rows[i] = (int32_t)(first + i);
    score_rows(p, plan, stream, plan->head, p->config->vocab, n, logits);
}

void head_scores(const struct pass *p, const struct plan *plan, struct stream stream, const struct batch *batch, float *scores)
{
    for (int s = 0; s < batch->n_sequences; s++)
        p->workspace->rows[s] = batch->starts[s + 1] - 1;
    score_rows(p, plan, stream, plan->score, p->config->labels, batch->n_sequences, scores);
}
