#include "worker/ops/norm.h"

#include <math.h>

#include "common/compiler.h"
#include "worker/ops/vector.h"

enum { TASK_ROWS = 32, TASK_COLUMNS = 64, SUM_ROWS = 64 };

struct norm {
    int64_t n, width;
    const float *x, *delta, *weight, *dy;
    const float *rstd_in;
    float eps;
    float *sum, *rstd, *out, *dx, *dweight;
    bool add;
};

MULTIVERSION static void add_rows(int64_t n, const float *x, const float *y, float *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] + y[i];
}

MULTIVERSION static float sum_of_squares(int64_t n, const float *x)
{
    lanes sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes v = *(const lanes *)(x + i);
        sum += v * v;
    }
    float lane[LANES];
    memcpy(lane, &sum, sizeof lane);
    for (; i < n; i++)
        lane[i % LANES] += x[i] * x[i];
    return lanes_sum(lane);
}

MULTIVERSION static float dot_of_three(int64_t n, const float *x, const float *y, const float *z)
{
    lanes sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum += *(const lanes *)(x + i) * *(const lanes *)(y + i) * *(const lanes *)(z + i);
    float lane[LANES];
    memcpy(lane, &sum, sizeof lane);
    for (; i < n; i++)
        lane[i % LANES] += x[i] * y[i] * z[i];
    return lanes_sum(lane);
}

MULTIVERSION static void scale_row(int64_t n, const float *x, float factor, const float *weight, float *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] * factor * weight[i];
}

MULTIVERSION static void row_backward(int64_t n, const float *x, const float *weight, const float *dy, float factor,
                                      float pull, float *dx)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] += factor * (dy[i] * weight[i] - pull * x[i]);
}

static void forward_rows(void *context, int task, int thread)
{
    (void)thread;
    const struct norm *a = context;
    int64_t end = (task + 1) * (int64_t)TASK_ROWS < a->n ? (task + 1) * (int64_t)TASK_ROWS : a->n;
    for (int64_t row = task * (int64_t)TASK_ROWS; row < end; row++) {
        const float *x = a->x + row * a->width;
        if (a->delta) {
            add_rows(a->width, x, a->delta + row * a->width, a->sum + row * a->width);
            x = a->sum + row * a->width;
        }
        float factor = 1.0f / sqrtf(sum_of_squares(a->width, x) / (float)a->width + a->eps);
        a->rstd[row] = factor;
        scale_row(a->width, x, factor, a->weight, a->out + row * a->width);
    }
}

void norm_forward(struct threads *pool, int64_t n, int64_t width, const float *x, const float *delta,
                  const float *weight, float eps, float *sum, float *rstd, float *out)
{
    struct norm a = {.n = n, .width = width, .x = x, .delta = delta, .weight = weight, .eps = eps,
                     .sum = sum, .rstd = rstd, .out = out};
    threads_run(pool, (int)((n + TASK_ROWS - 1) / TASK_ROWS), forward_rows, &a);
}

static void backward_rows(void *context, int task, int thread)
{
    (void)thread;
    const struct norm *a = context;
    int64_t end = (task + 1) * (int64_t)TASK_ROWS < a->n ? (task + 1) * (int64_t)TASK_ROWS : a->n;
    for (int64_t row = task * (int64_t)TASK_ROWS; row < end; row++) {
        const float *x = a->x + row * a->width, *dy = a->dy + row * a->width;
        float factor = a->rstd_in[row];
        float pull = dot_of_three(a->width, x, dy, a->weight) * factor * factor / (float)a->width;
        row_backward(a->width, x, a->weight, dy, factor, pull, a->dx + row * a->width);
    }
}

/* One block of columns over all rows. Rows are summed in blocks first, which keeps rounding small for long batches. */
MULTIVERSION static void weight_columns(const struct norm *a, int64_t first, int64_t count)
{
    float total[TASK_COLUMNS] = {0};
    for (int64_t block = 0; block < a->n; block += SUM_ROWS) {
        float sum[TASK_COLUMNS] = {0};
        int64_t end = block + SUM_ROWS < a->n ? block + SUM_ROWS : a->n;
        for (int64_t row = block; row < end; row++) {
            const float *x = a->x + row * a->width + first, *dy = a->dy + row * a->width + first;
            float factor = a->rstd_in[row];
            for (int64_t i = 0; i < count; i++)
                sum[i] += dy[i] * (x[i] * factor);
        }
        for (int64_t i = 0; i < count; i++)
            total[i] += sum[i];
    }
    for (int64_t i = 0; i < count; i++)
        a->dweight[first + i] = (a->add ? a->dweight[first + i] : 0.0f) + total[i];
}

static void backward_columns(void *context, int task, int thread)
{
    (void)thread;
    const struct norm *a = context;
    int64_t first = task * (int64_t)TASK_COLUMNS;
    weight_columns(a, first, a->width - first < TASK_COLUMNS ? a->width - first : TASK_COLUMNS);
}

void norm_backward(struct threads *pool, int64_t n, int64_t width, const float *x, const float *rstd,
                   const float *weight, const float *dy, float *dx, float *dweight, bool add)
{
    struct norm a = {.n = n, .width = width, .x = x, .weight = weight, .dy = dy, .rstd_in = rstd, .dx = dx,
                     .dweight = dweight, .add = add};
    threads_run(pool, (int)((n + TASK_ROWS - 1) / TASK_ROWS), backward_rows, &a);
    if (dweight)
        threads_run(pool, (int)((width + TASK_COLUMNS - 1) / TASK_COLUMNS), backward_columns, &a);
}
