#include "worker/model/lora.h"

#include <string.h>

#include "common/rng.h"
#include "worker/ops/dropout.h"
#include "worker/ops/gemm.h"

enum status lora_find(const struct model_config *config, const struct params *table, int layer, struct lora_places out[LORA_MODULES],
                      struct error *err)
{
    for (int m = 0; m < LORA_MODULES; m++) {
        char a[128], b[128];
        lora_tensor_name(a, layer, (enum lora_module)m, 'A');
        lora_tensor_name(b, layer, (enum lora_module)m, 'B');
        int i = params_find(table, a), j = params_find(table, b);
        out[m] = (struct lora_places){.a = -1, .b = -1};
        if (config->training.kind != TRAIN_ADAPTERS || (i < 0 && j < 0))
            continue;
        if (i < 0 || j < 0)
            FAIL(err, STATUS_INTERNAL, "the parameter table lacks tensor '%s'", i < 0 ? a : b);
        out[m] = (struct lora_places){params_place(table, i), params_place(table, j), table->items[i].shape[1], table->items[j].shape[0]};
    }
    return STATUS_OK;
}

/* One adapter in one pass. */
struct adapter {
    const struct lora_places *at;
    int64_t rank;
    const float *a, *b;
    float *da, *db; /* NULL in a forward pass */
    float *u, *du;  /* [N][R]: the input times A; the gradient of that */
    float scale;
    bool drops;
    struct dropout dropout;
};

static bool adapter_of(const struct pass *p, const struct layer_places *layer, enum lora_module module, struct adapter *out)
{
    const struct lora_places *at = &layer->lora[module];
    const struct lora *lora = &p->config->training.lora;
    if (at->a < 0)
        return false;
    *out = (struct adapter){
        .at = at,
        .rank = lora->rank,
        .a = p->values + at->a,
        .b = p->values + at->b,
        .da = gradient_of(p, at->a),
        .db = gradient_of(p, at->b),
        .u = p->workspace->lora_u,
        .du = p->workspace->lora_du,
        .scale = (float)lora_scale(lora),
        .drops = p->gradients && lora->dropout > 0,
        .dropout = {p->routing->draw, rng_substream(rng_substream(RNG_DROPOUT, (uint64_t)layer->layer), module), lora->dropout, at->in},
    };
    return true;
}

static void scale(const struct adapter *l, int64_t n, float *x)
{
    for (int64_t i = 0; i < n * l->rank; i++)
        x[i] *= l->scale;
}

/* The input as the adapter sees it. */
static const float *drop(const struct pass *p, const struct adapter *l, int64_t n, const int32_t *rows, const float *x)
{
    if (!l->drops)
        return x;
    dropout_rows(p->pool, &l->dropout, n, rows, x, false, p->workspace->lora_x);
    return p->workspace->lora_x;
}

/* u = scale A x */
static void shrink(const struct pass *p, const struct adapter *l, int64_t n, const float *x)
{
    int64_t in = l->at->in, r = l->rank;
    gemm_run(p->pool, &(struct gemm){GEMM_NT, n, r, in, x, in, l->a, in, l->u, r, 0.0f}, 1);
    scale(l, n, l->u);
}

/* y += B u */
static void widen(const struct pass *p, const struct adapter *l, int64_t n, float *y)
{
    int64_t out = l->at->out, r = l->rank;
    gemm_run(p->pool, &(struct gemm){GEMM_NT, n, out, r, l->u, r, l->b, r, y, out, 1.0f}, 1);
}

void lora_forward(const struct pass *p, const struct layer_places *at, enum lora_module module, int64_t n, const int32_t *rows,
                  const float *x, float *y)
{
    struct adapter l;
    if (!adapter_of(p, at, module, &l))
        return;
    shrink(p, &l, n, drop(p, &l, n, rows, x));
    widen(p, &l, n, y);
}

/* du = scale dy B */
static struct gemm gradient_of_u(const struct adapter *l, int64_t n, const float *dy)
{
    int64_t out = l->at->out, r = l->rank;
    return (struct gemm){GEMM_NN, n, r, out, dy, out, l->b, r, l->du, r, 0.0f};
}

/* dB = dy^T u */
static struct gemm gradient_of_b(const struct adapter *l, int64_t n, const float *dy)
{
    int64_t out = l->at->out, r = l->rank;
    return (struct gemm){GEMM_TN, out, r, n, dy, out, l->u, r, l->db, r, 0.0f};
}

/* dA = du^T x */
static void finish_a(const struct pass *p, const struct adapter *l, int64_t n, const float *x)
{
    int64_t in = l->at->in, r = l->rank;
    gemm_run(p->pool, &(struct gemm){GEMM_TN, r, in, n, l->du, r, x, in, l->da, in, 0.0f}, 1);
}

/* dx += what du sends back through A */
static void send_back(const struct pass *p, const struct adapter *l, int64_t n, const int32_t *rows, float *dx)
{
    int64_t in = l->at->in, r = l->rank;
    float *out = l->drops ? p->workspace->lora_x : dx;
    gemm_run(p->pool, &(struct gemm){GEMM_NN, n, in, r, l->du, r, l->a, in, out, in, l->drops ? 0.0f : 1.0f}, 1);
    if (l->drops)
        dropout_rows(p->pool, &l->dropout, n, rows, out, true, dx);
}

void lora_backward_weights(const struct pass *p, const struct layer_places *at, enum lora_module module, int64_t n,
                           const int32_t *rows, const float *x, const float *dy)
{
    struct adapter l;
    if (!adapter_of(p, at, module, &l))
        return;
    const float *seen = drop(p, &l, n, rows, x);
    shrink(p, &l, n, seen);
    const struct gemm jobs[] = {gradient_of_b(&l, n, dy), gradient_of_u(&l, n, dy)};
    gemm_run(p->pool, jobs, 2);
    scale(&l, n, l.du);
    finish_a(p, &l, n, seen);
}

void lora_backward_input(const struct pass *p, const struct layer_places *at, enum lora_module module, int64_t n, const int32_t *rows,
                         const float *dy, float *dx)
{
    struct adapter l;
    if (!adapter_of(p, at, module, &l))
        return;
    const struct gemm job = gradient_of_u(&l, n, dy);
    gemm_run(p->pool, &job, 1);
    scale(&l, n, l.du);
    send_back(p, &l, n, rows, dx);
}

/* ---- packed rows of heads: B of queries and A of the output are maps of single heads, of width R ---- */

static struct heads narrow(const struct adapter *l, const struct heads *heads)
{
    struct heads low = *heads;
    low.width = l->rank;
    return low;
}

void lora_queries_forward(const struct pass *p, const struct layer_places *at, const struct heads *heads, const float *x, float *q)
{
    struct adapter l;
    if (!adapter_of(p, at, LORA_Q, &l))
        return;
    struct heads low = narrow(&l, heads);
    shrink(p, &l, p->n, drop(p, &l, p->n, NULL, x));
    heads_gather(p->pool, &low, HEADS_ROWS, l.b, NULL, l.u, true, q);
}

void lora_queries_backward(const struct pass *p, const struct layer_places *at, const struct heads *heads, const float *x,
                           const float *dq, float *dx)
{
    struct adapter l;
    if (!adapter_of(p, at, LORA_Q, &l))
        return;
    struct heads low = narrow(&l, heads);
    const float *seen = drop(p, &l, p->n, NULL, x);
    shrink(p, &l, p->n, seen);
    heads_weight_gradient(p->pool, &low, HEADS_ROWS, dq, l.u, l.db);
    heads_scatter(p->pool, &low, HEADS_ROWS, l.b, dq, false, l.du);
    scale(&l, p->n, l.du);
    finish_a(p, &l, p->n, seen);
    send_back(p, &l, p->n, NULL, dx);
}

static void drop_heads(const struct pass *p, const struct adapter *l, const struct heads *h, const float *x, bool add, float *out)
{
    dropout_heads(p->pool, &l->dropout, h->heads, h->head_dim, h->rows, h->n_segments, h->layout, x, add, out);
}

/* u from packed rows; returns them as the adapter sees them. */
static const float *shrink_heads(const struct pass *p, const struct adapter *l, const struct heads *low, const float *attended)
{
    const float *seen = l->drops ? p->workspace->lora_x : attended;
    if (l->drops)
        drop_heads(p, l, low, attended, false, p->workspace->lora_x);
    heads_scatter(p->pool, low, HEADS_COLUMNS, l->a, seen, false, l->u);
    scale(l, p->n, l->u);
    return seen;
}

void lora_output_forward(const struct pass *p, const struct layer_places *at, const struct heads *heads, const float *attended, float *y)
{
    struct adapter l;
    if (!adapter_of(p, at, LORA_O, &l))
        return;
    struct heads low = narrow(&l, heads);
    shrink_heads(p, &l, &low, attended);
    widen(p, &l, p->n, y);
}

void lora_output_backward(const struct pass *p, const struct layer_places *at, const struct heads *heads, const float *attended,
                          const float *dy, float *dattended)
{
    struct adapter l;
    if (!adapter_of(p, at, LORA_O, &l))
        return;
    struct heads low = narrow(&l, heads);
    const float *seen = shrink_heads(p, &l, &low, attended);
    const struct gemm jobs[] = {gradient_of_b(&l, p->n, dy), gradient_of_u(&l, p->n, dy)};
    gemm_run(p->pool, jobs, 2);
    scale(&l, p->n, l.du);
    heads_weight_gradient(p->pool, &low, HEADS_COLUMNS, seen, l.du, l.da);
    float *out = l.drops ? p->workspace->lora_x : dattended;
    heads_gather(p->pool, &low, HEADS_COLUMNS, l.a, NULL, l.du, !l.drops, out);
    if (l.drops)
        drop_heads(p, &l, &low, out, true, dattended);
}

void lora_stand_in(const struct pass *p, const struct layer_places *at, const float *average, float *vectors)
{
    struct adapter l;
    if (!adapter_of(p, at, LORA_O, &l))
        return;
    int64_t c = p->config->head_dim, wide = l.at->in, d = l.at->out;
    for (int h = 0; h < p->config->heads; h++) { /* a row of average: C values and a count */
        const float *mean = average + h * (c + 1);
        for (int64_t r = 0; r < l.rank; r++) {
            float sum = 0;
            for (int64_t i = 0; i < c; i++)
                sum += l.a[r * wide + h * c + i] * mean[i];
            for (int64_t j = 0; j < d; j++)
                vectors[h * d + j] += l.scale * sum * l.b[j * l.rank + r];
        }
    }
}

enum status model_merge_adapters(const struct model_config *config, const struct params *table, float *values, struct error *err)
{
    TRY(gemm_init(err));
    for (int layer = 0; layer < config->layers; layer++) {
        struct lora_places at[LORA_MODULES];
        TRY(lora_find(config, table, layer, at, err));
        for (int m = 0; m < LORA_MODULES; m++) {
            char name[128];
            if (at[m].a < 0)
                continue;
            lora_tensor_name(name, layer, (enum lora_module)m, 'A');
            memcpy(strstr(name, ".lora_"), ".weight", sizeof ".weight");
            int weight = params_find(table, name);
            if (weight < 0)
                FAIL(err, STATUS_INTERNAL, "the parameter table lacks tensor '%s'", name);
            int64_t r = config->training.lora.rank;
            gemm_one(&(struct gemm){GEMM_NN, at[m].out, at[m].in, r, values + at[m].b, r, values + at[m].a, at[m].in,
                                    values + params_place(table, weight), at[m].in, 1.0f}, (float)lora_scale(&config->training.lora));
        }
    }
    return STATUS_OK;
}
