#include "worker/ops/rows.h"

#include <string.h>

enum { TASK_ROWS = 64 };

struct rows {
    int64_t n, width;
    const int32_t *rows;
    const float *x, *delta;
    float *out;
};

static int tasks_of(int64_t n)
{
    return (int)((n + TASK_ROWS - 1) / TASK_ROWS);
}

static int64_t end_of(int task, int64_t n)
{
    int64_t end = (task + 1) * (int64_t)TASK_ROWS;
    return end < n ? end : n;
}

static void gather_task(void *context, int task, int thread)
{
    (void)thread;
    const struct rows *a = context;
    for (int64_t row = task * (int64_t)TASK_ROWS; row < end_of(task, a->n); row++) {
        const float *x = a->x + a->rows[row] * a->width;
        float *out = a->out + row * a->width;
        memcpy(out, x, (size_t)a->width * sizeof *out);
        for (int64_t i = 0; a->delta && i < a->width; i++)
            out[i] += a->delta[a->rows[row] * a->width + i];
    }
}

void rows_gather_sum(struct threads *pool, int64_t n, int64_t width, const int32_t *rows, const float *x,
                     const float *delta, float *out)
{
    struct rows a = {n, width, rows, x, delta, out};
    threads_run(pool, tasks_of(n), gather_task, &a);
}

static void scatter_task(void *context, int task, int thread)
{
    (void)thread;
    const struct rows *a = context;
    for (int64_t row = task * (int64_t)TASK_ROWS; row < end_of(task, a->n); row++)
        memcpy(a->out + a->rows[row] * a->width, a->x + row * a->width, (size_t)a->width * sizeof *a->out);
}

void rows_scatter(struct threads *pool, int64_t n, int64_t width, const int32_t *rows, const float *in, float *out)
{
    struct rows a = {.n = n, .width = width, .rows = rows, .x = in, .out = out};
    threads_run(pool, tasks_of(n), scatter_task, &a);
}
