#include "worker/ops/dropout.h"

#include "common/rng.h"

enum { TASK_ROWS = 32, BLOCK = 4 }; /* values that one counter decides */

/* out[count] of row `row` from column `first` on. */
static void drop(const struct dropout *d, int64_t row, int64_t first, int64_t count, const float *x, bool add, float *out)
{
    const uint64_t blocks = (uint64_t)((d->width + BLOCK - 1) / BLOCK), limit = (uint64_t)(d->p * 0x1p32);
    const float scale = (float)(1 / (1 - d->p));
    uint32_t bits[BLOCK];
    for (int64_t i = 0; i < count; i++) {
        int64_t column = first + i;
        if (i == 0 || column % BLOCK == 0)
            rng_block(d->seed, d->stream, (uint64_t)row * blocks + (uint64_t)(column / BLOCK), bits);
        float kept = bits[column % BLOCK] >= limit ? x[i] * scale : 0.0f;
        out[i] = add ? out[i] + kept : kept;
    }
}

struct job {
    const struct dropout *d;
    int64_t n;
    int head_dim, n_segments;
    const int32_t *rows;
    const struct attention_head *layout;
    const float *x;
    bool add;
    float *out;
};

static void rows_task(void *context, int task, int thread)
{
    (void)thread;
    const struct job *j = context;
    int64_t first = task * (int64_t)TASK_ROWS, end = first + TASK_ROWS < j->n ? first + TASK_ROWS : j->n, width = j->d->width;
    for (int64_t i = first; i < end; i++)
        drop(j->d, j->rows ? j->rows[i] : i, 0, width, j->x + i * width, j->add, j->out + i * width);
}

void dropout_rows(struct threads *pool, const struct dropout *d, int64_t n, const int32_t *rows, const float *x, bool add, float *out)
{
    struct job job = {.d = d, .n = n, .rows = rows, .x = x, .add = add, .out = out};
    threads_run(pool, (int)((n + TASK_ROWS - 1) / TASK_ROWS), rows_task, &job);
}

static void head_task(void *context, int head, int thread)
{
    (void)thread;
    const struct job *j = context;
    const struct attention_head *l = &j->layout[head];
    int64_t count = l->rows ? l->bounds[j->n_segments] : j->n;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = l->offset + i * l->stride;
        drop(j->d, l->rows ? l->rows[i] : i, (int64_t)head * j->head_dim, j->head_dim, j->x + at, j->add, j->out + at);
    }
}

void dropout_heads(struct threads *pool, const struct dropout *d, int heads, int head_dim, int64_t n, int n_segments,
                   const struct attention_head *layout, const float *x, bool add, float *out)
{
    struct job job = {.d = d, .n = n, .head_dim = head_dim, .n_segments = n_segments, .layout = layout, .x = x, .add = add, .out = out};
    threads_run(pool, heads, head_task, &job);
}
