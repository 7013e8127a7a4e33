#include "worker/model/keys.h"

#include <string.h>

#include "worker/ops/bias.h"

enum { TOGETHER = 64 }; /* products that are run side by side */

struct projection {
    int64_t weight, bias;
};

static struct projection projection_of(const struct layer_places *at, int which)
{
    return which ? (struct projection){at->v, at->v_bias} : (struct projection){at->k, at->k_bias};
}

/* Rows of a sequence from its first one that are read from a head: up to the last one that computes the head. */
static int64_t rows_read(const struct layer_routing *r, int head, int sequence, int64_t start)
{
    const int64_t *bounds = r->lists.bounds + head * (int64_t)(r->lists.n_sequences + 1);
    int64_t end = bounds[sequence + 1];
    return end > bounds[sequence] ? row_lists_of(&r->lists, head)[end - 1] + 1 - start : 0;
}

/* Worth it, and possible: a key head of several query heads, or of a cache, may be read by others. */
static bool leaves_out(const struct pass *p, const struct layer_routing *r)
{
    const struct model_config *c = p->config;
    if (!r || p->cached || c->heads != c->kv_heads)
        return false;
    int64_t read = 0;
    for (int s = 0; s < p->attention.n_segments; s++)
        for (int h = 0; h < c->heads; h++)
            read += rows_read(r, h, s, p->attention.segments[s].key_first);
    return read * 10 <= p->n * c->heads * 9;
}

/* Neighbouring heads of a sequence with equally many rows that are read. */
struct group {
    int64_t start, rows; /* first row of the batch, and how many */
    int first, heads;
};

/* The next group behind `g` (which begins as zeros with heads 0); false when the sequence has no more. */
static bool next_group(const struct pass *p, const struct layer_routing *r, int sequence, struct group *g)
{
    g->start = p->attention.segments[sequence].key_first;
    g->first += g->heads;
    if (g->first >= p->config->heads)
        return false;
    g->rows = rows_read(r, g->first, sequence, g->start);
    for (g->heads = 1; g->first + g->heads < p->config->heads; g->heads++)
        if (rows_read(r, g->first + g->heads, sequence, g->start) != g->rows)
            break;
    return true;
}

static void forward_some(const struct pass *p, const struct layer_places *at, const struct layer_routing *r, const float *normed,
                         float *out[2])
{
    const struct model_config *c = p->config;
    int64_t d = c->width, size = c->head_dim, wide = c->heads * size;
    struct gemm jobs[TOGETHER];
    int n_jobs = 0;
    for (int s = 0; s < p->attention.n_segments; s++)
        for (struct group g = {0}; next_group(p, r, s, &g);)
            for (int i = 0; i < 2 && g.rows; i++) {
                jobs[n_jobs++] = (struct gemm){GEMM_NT, g.rows, g.heads * size, d, normed + g.start * d, d,
                                               p->values + projection_of(at, i).weight + g.first * size * d, d,
                                               out[i] + g.start * wide + g.first * size, wide, 0.0f};
                if (n_jobs < TOGETHER)
                    continue;
                gemm_run(p->pool, jobs, n_jobs);
                n_jobs = 0;
            }
    gemm_run(p->pool, jobs, n_jobs);
}

static int begin_jobs(const struct beside *beside, struct gemm *jobs)
{
    memcpy(jobs, beside->jobs, (size_t)beside->count * sizeof *jobs);
    return beside->count;
}

void keys_forward(const struct pass *p, const struct layer_places *at, const struct layer_routing *r, const float *normed,
                  const struct beside *beside, float *k, float *v)
{
    int64_t d = p->config->width, kv = p->config->kv_heads * p->config->head_dim;
    float *out[2] = {k, v};
    struct gemm jobs[KEYS_BESIDE + 2];
    int n_jobs = begin_jobs(beside, jobs);
    bool some = leaves_out(p, r);
    for (int i = 0; i < 2 && !some; i++)
        jobs[n_jobs++] = (struct gemm){GEMM_NT, p->n, kv, d, normed, d, p->values + projection_of(at, i).weight, d, out[i], kv, 0.0f};
    gemm_run(p->pool, jobs, n_jobs);
    if (some)
        forward_some(p, at, r, normed, out);
    for (int i = 0; i < 2; i++)
        if (projection_of(at, i).bias >= 0)
            bias_forward(p->pool, p->n, kv, p->values + projection_of(at, i).bias, out[i]);
}

/* Of one projection: the weight's gradient, and what is added to dnormed. */
static void backward_some(const struct pass *p, const struct layer_routing *r, int64_t weight, const float *normed, const float *dout,
                          float *dnormed)
{
    const struct model_config *c = p->config;
    int64_t d = c->width, size = c->head_dim, wide = c->heads * size;
    float *dweight = gradient_of(p, weight);
    if (dweight)
        memset(dweight, 0, (size_t)(wide * d) * sizeof *dweight);
    for (int s = 0; s < p->attention.n_segments; s++)
        for (struct group g = {0}; next_group(p, r, s, &g);) {
            if (!g.rows)
                continue;
            const float *dy = dout + g.start * wide + g.first * size;
            struct gemm jobs[2] = {
                {GEMM_NN, g.rows, d, g.heads * size, dy, wide, p->values + weight + g.first * size * d, d, dnormed + g.start * d, d, 1.0f},
                {GEMM_TN, g.heads * size, d, g.rows, dy, wide, normed + g.start * d, d, dweight ? dweight + g.first * size * d : NULL, d,
                 1.0f},
            };
            gemm_run(p->pool, jobs, dweight ? 2 : 1);
        }
}

void keys_backward(const struct pass *p, const struct layer_places *at, const struct layer_routing *r, const float *normed,
                   const struct beside *beside, const float *dk, const float *dv, float *dnormed)
{
    int64_t n = p->n, d = p->config->width, kv = p->config->kv_heads * p->config->head_dim;
    const float *dout[2] = {dk, dv};
    bool some = leaves_out(p, r);
    struct gemm jobs[KEYS_BESIDE + 2], inputs[2];
    int n_jobs = begin_jobs(beside, jobs);
    for (int i = 0; i < 2; i++) {
        struct projection to = projection_of(at, i);
        float *dweight = gradient_of(p, to.weight), *dbias = gradient_of(p, to.bias);
        if (dbias)
            bias_backward(p->pool, n, kv, dout[i], dbias);
        if (dweight && !some)
            jobs[n_jobs++] = (struct gemm){GEMM_TN, kv, d, n, dout[i], kv, normed, d, dweight, d, 0.0f};
        inputs[i] = (struct gemm){GEMM_NN, n, d, kv, dout[i], kv, p->values + to.weight, d, dnormed, d, 1.0f};
    }
    gemm_run(p->pool, jobs, n_jobs);
    if (some) {
        backward_some(p, r, at->k, normed, dk, dnormed);
        backward_some(p, r, at->v, normed, dv, dnormed);
        return;
    }
    gemm_run(p->pool, &inputs[0], 1); /* one after the other: they add to the same rows */
    gemm_run(p->pool, &inputs[1], 1);
}
