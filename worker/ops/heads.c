#include "worker/ops/heads.h"

#include <string.h>

#include "common/compiler.h"
#include "worker/ops/microkernel.h"
#include "worker/ops/vector.h"

enum {
    GATHER_ROWS = 64,   /* rows of a task of heads_gather */
    TOKEN_BLOCK = 64,   /* tokens of a task of heads_scatter */
    GRADIENT_WIDTH = 256, /* columns of x of a task of heads_weight_gradient */
    GRADIENT_ROWS = 64, /* packed at a time there */
    FEW_ROWS = 8,       /* a batch of fewer reads weights where they lie: packing them would cost more */
    FEW_WIDTH = 64,     /* columns of out of a task there */
};

/* Rows of head `i`: their number, and which tokens; NULL: all. */
static int64_t count_of(const struct heads *h, int i)
{
    return h->layout[i].rows ? h->layout[i].bounds[h->n_segments] : h->rows;
}

static int64_t weight_panels(const struct heads *h)
{
    int64_t in = panel_values(h->head_dim, h->width), out = panel_values(h->width, h->head_dim);
    return in > out ? in : out;
}

static int64_t per_thread(const struct heads *h)
{
    int64_t rows = panel_values(GRADIENT_WIDTH, GRADIENT_ROWS), product = (int64_t)h->head_dim * GRADIENT_WIDTH;
    return rows + product;
}

size_t heads_scratch_values(const struct heads *h, int threads)
{
    return (size_t)(h->heads * weight_panels(h) + threads * per_thread(h));
}

struct job {
    const struct heads *h;
    enum heads_weight form;
    const float *weight, *bias, *x, *in;
    bool transposed, add;
    float *out;
};

/* W_h as the right operand: transposed [D][C] for gather, as it is [C][D] for scatter. */
static void pack_task(void *context, int task, int thread)
{
    (void)thread;
    const struct job *job = context;
    const struct heads *h = job->h;
    int c = h->head_dim, d = (int)h->width;
    float *out = h->scratch + task * weight_panels(h);
    int64_t wide = (int64_t)h->heads * c;
    if (job->form == HEADS_ROWS) {
        const float *w = job->weight + (int64_t)task * c * d;
        job->transposed ? panel_pack_transposed(c, d, w, d, out) : panel_pack(c, d, w, d, NULL, out);
    } else {
        const float *w = job->weight + (int64_t)task * c;
        job->transposed ? panel_pack(d, c, w, wide, NULL, out) : panel_pack_transposed(d, c, w, wide, out);
    }
}

static void gather_task(void *context, int task, int thread)
{
    (void)thread;
    const struct job *job = context;
    const struct heads *h = job->h;
    int head = task % h->heads, c = h->head_dim;
    int64_t first = task / h->heads * (int64_t)GATHER_ROWS, left = count_of(h, head) - first;
    if (left <= 0)
        return;
    const struct attention_head *l = &h->layout[head];
    int m = left < GATHER_ROWS ? (int)left : GATHER_ROWS;
    float *out = job->out + l->offset + first * l->stride;
    product_run(&(struct product){.m = m, .n = c, .k = (int)h->width, .a = l->rows ? job->x : job->x + first * h->width,
                                  .a_row = h->width, .a_step = 1, .a_rows = l->rows ? l->rows + first : NULL,
                                  .b = h->scratch + head * weight_panels(h), .b_step = PANEL, .b_panel = h->width * PANEL,
                                  .c = out, .c_row = l->stride, .add = job->add});
    for (int j = 0; job->bias && j < m; j++)
        for (int i = 0; i < c; i++)
            out[j * l->stride + i] += job->bias[head * c + i];
}

/* y[i] (+)= x . w[i] for i < n; rows of w are `row` apart. */
MULTIVERSION static void dot_rows(int n, int k, const float *x, const float *w, int64_t row, bool add, float *y)
{
    for (int i = 0; i < n; i++) {
        float sum = lanes_dot(k, x, w + i * row);
        y[i] = add ? y[i] + sum : sum;
    }
}

static int64_t row_of(const struct attention_head *l, int64_t j)
{
    return l->rows ? l->rows[j] : j;
}

static void gather_few_task(void *context, int head, int thread)
{
    (void)thread;
    const struct job *job = context;
    const struct heads *h = job->h;
    const struct attention_head *l = &h->layout[head];
    int c = h->head_dim;
    const float *weight = job->weight + (int64_t)head * c * h->width;
    for (int64_t j = 0; j < count_of(h, head); j++) {
        float *out = job->out + l->offset + j * l->stride;
        dot_rows(c, (int)h->width, job->x + row_of(l, j) * h->width, weight, h->width, job->add, out);
        for (int i = 0; job->bias && i < c; i++)
            out[i] += job->bias[head * c + i];
    }
}

static void scatter_few_task(void *context, int task, int thread)
{
    (void)thread;
    const struct job *job = context;
    const struct heads *h = job->h;
    int64_t first = task * (int64_t)FEW_WIDTH, wide = (int64_t)h->heads * h->head_dim;
    int n = h->width - first < FEW_WIDTH ? (int)(h->width - first) : FEW_WIDTH;
    for (int64_t token = 0; !job->add && token < h->rows; token++)
        memset(job->out + token * h->width + first, 0, (size_t)n * sizeof *job->out);
    for (int head = 0; head < h->heads; head++) {
        const struct attention_head *l = &h->layout[head];
        const float *weight = job->weight + first * wide + (int64_t)head * h->head_dim;
        for (int64_t j = 0; j < count_of(h, head); j++)
            dot_rows(n, h->head_dim, job->in + l->offset + j * l->stride, weight, wide, true,
                     job->out + row_of(l, j) * h->width + first);
    }
}

void heads_gather(struct threads *pool, const struct heads *h, enum heads_weight form, const float *weight, const float *bias,
                  const float *x, bool add, float *out)
{
    struct job job = {.h = h, .form = form, .weight = weight, .bias = bias, .x = x, .transposed = true, .add = add, .out = out};
    if (h->rows < FEW_ROWS && form == HEADS_ROWS) {
        threads_run(pool, h->heads, gather_few_task, &job);
        return;
    }
    threads_run(pool, h->heads, pack_task, &job);
    int64_t most = 0;
    for (int i = 0; i < h->heads; i++)
        most = count_of(h, i) > most ? count_of(h, i) : most;
    threads_run(pool, (int)((most + GATHER_ROWS - 1) / GATHER_ROWS) * h->heads, gather_task, &job);
}

/* First of the head's rows at token `token` or behind it. */
static int64_t find(const struct heads *h, int head, int64_t token)
{
    const int32_t *rows = h->layout[head].rows;
    int64_t begin = 0, end = count_of(h, head);
    if (!rows)
        return token < end ? token : end;
    while (begin < end) {
        int64_t middle = (begin + end) / 2;
        if (rows[middle] < token)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

static void scatter_task(void *context, int task, int thread)
{
    (void)thread;
    const struct job *job = context;
    const struct heads *h = job->h;
    int64_t token = task * (int64_t)TOKEN_BLOCK, end = token + TOKEN_BLOCK < h->rows ? token + TOKEN_BLOCK : h->rows;
    if (!job->add)
        memset(job->out + token * h->width, 0, (size_t)((end - token) * h->width) * sizeof *job->out);
    for (int head = 0; head < h->heads; head++) {
        const struct attention_head *l = &h->layout[head];
        int64_t first = find(h, head, token), last = find(h, head, end);
        product_run(&(struct product){.m = (int)(last - first), .n = (int)h->width, .k = h->head_dim,
                                      .a = job->in + l->offset + first * l->stride, .a_row = l->stride, .a_step = 1,
                                      .b = h->scratch + head * weight_panels(h), .b_step = PANEL,
                                      .b_panel = (int64_t)h->head_dim * PANEL,
                                      .c = l->rows ? job->out : job->out + first * h->width, .c_row = h->width,
                                      .c_rows = l->rows ? l->rows + first : NULL, .add = true});
    }
}

void heads_scatter(struct threads *pool, const struct heads *h, enum heads_weight form, const float *weight, const float *in,
                   bool add, float *out)
{
    struct job job = {.h = h, .form = form, .weight = weight, .in = in, .add = add, .out = out};
    if (h->rows < FEW_ROWS && form == HEADS_COLUMNS) {
        threads_run(pool, (int)((h->width + FEW_WIDTH - 1) / FEW_WIDTH), scatter_few_task, &job);
        return;
    }
    threads_run(pool, h->heads, pack_task, &job);
    threads_run(pool, (int)((h->rows + TOKEN_BLOCK - 1) / TOKEN_BLOCK), scatter_task, &job);
}

static void gradient_task(void *context, int task, int thread)
{
    const struct job *job = context;
    const struct heads *h = job->h;
    int head = task % h->heads, c = h->head_dim, first = task / h->heads * GRADIENT_WIDTH;
    int n = h->width - first < GRADIENT_WIDTH ? (int)h->width - first : GRADIENT_WIDTH;
    const struct attention_head *l = &h->layout[head];
    float *packed = h->scratch + h->heads * weight_panels(h) + thread * per_thread(h);
    float *sum = packed + panel_values(GRADIENT_WIDTH, GRADIENT_ROWS);
    bool rows = job->form == HEADS_ROWS;
    float *out = rows ? job->out + (int64_t)head * c * h->width + first : sum;
    int64_t out_row = rows ? h->width : n, count = count_of(h, head);
    for (int i = 0; i < c; i++)
        memset(out + i * out_row, 0, (size_t)n * sizeof *out);
    for (int64_t j = 0; j < count; j += GRADIENT_ROWS) {
        int k = count - j < GRADIENT_ROWS ? (int)(count - j) : GRADIENT_ROWS;
        panel_pack(k, n, (l->rows ? job->x : job->x + j * h->width) + first, h->width, l->rows ? l->rows + j : NULL, packed);
        product_run(&(struct product){.m = c, .n = n, .k = k, .a = job->in + l->offset + j * l->stride, .a_row = 1,
                                      .a_step = l->stride, .b = packed, .b_step = PANEL, .b_panel = (int64_t)k * PANEL,
                                      .c = out, .c_row = out_row, .add = true});
    }
    for (int64_t i = 0; !rows && i < n; i++)
        for (int64_t j = 0; j < c; j++)
            job->out[(first + i) * h->heads * c + head * c + j] = sum[j * n + i];
}

void heads_weight_gradient(struct threads *pool, const struct heads *h, enum heads_weight form, const float *in, const float *x,
                           float *gradient)
{
    struct job job = {.h = h, .form = form, .in = in, .x = x, .out = gradient};
    int blocks = (int)((h->width + GRADIENT_WIDTH - 1) / GRADIENT_WIDTH);
    threads_run(pool, h->heads * blocks, gradient_task, &job);
}

void heads_bias_gradient(const struct heads *h, const float *in, float *gradient)
{
    int c = h->head_dim;
    memset(gradient, 0, (size_t)(h->heads * c) * sizeof *gradient);
    for (int head = 0; head < h->heads; head++) {
        const struct attention_head *l = &h->layout[head];
        for (int64_t j = 0; j < count_of(h, head); j++)
            for (int i = 0; i < c; i++)
                gradient[head * c + i] += in[l->offset + j * l->stride + i];
    }
}
