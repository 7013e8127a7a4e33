#include "worker/ops/bias.h"

enum { TASK_ROWS = 64, TASK_COLUMNS = 64, SUM_ROWS = 64 };

struct bias {
    int64_t n, width;
    const float *in;
    float *out;
};

static void forward_rows(void *context, int task, int thread)
{
    (void)thread;
    const struct bias *a = context;
    int64_t end = (task + 1) * (int64_t)TASK_ROWS < a->n ? (task + 1) * (int64_t)TASK_ROWS : a->n;
    for (int64_t row = task * (int64_t)TASK_ROWS; row < end; row++)
        for (int64_t i = 0; i < a->width; i++)
            a->out[row * a->width + i] += a->in[i];
}

void bias_forward(struct threads *pool, int64_t n, int64_t width, const float *bias, float *y)
{
    struct bias a = {n, width, bias, y};
    threads_run(pool, (int)((n + TASK_ROWS - 1) / TASK_ROWS), forward_rows, &a);
}

static void backward_columns(void *context, int task, int thread)
{
    (void)thread;
    const struct bias *a = context;
    int64_t first = task * (int64_t)TASK_COLUMNS;
    int64_t count = a->width - first < TASK_COLUMNS ? a->width - first : TASK_COLUMNS;
    float total[TASK_COLUMNS] = {0};
    for (int64_t block = 0; block < a->n; block += SUM_ROWS) { /* in blocks: less rounding */
        float sum[TASK_COLUMNS] = {0};
        int64_t end = block + SUM_ROWS < a->n ? block + SUM_ROWS : a->n;
        for (int64_t row = block; row < end; row++)
            for (int64_t i = 0; i < count; i++)
                sum[i] += a->in[row * a->width + first + i];
        for (int64_t i = 0; i < count; i++)
            total[i] += sum[i];
    }
    for (int64_t i = 0; i < count; i++)
        a->out[first + i] = total[i];
}

void bias_backward(struct threads *pool, int64_t n, int64_t width, const float *dy, float *dbias)
{
    struct bias a = {n, width, dy, dbias};
    threads_run(pool, (int)((width + TASK_COLUMNS - 1) / TASK_COLUMNS), backward_columns, &a);
}
