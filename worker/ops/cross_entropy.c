#include "worker/ops/cross_entropy.h"

#include <math.h>
#include <string.h>

#include "common/compiler.h"
#include "worker/ops/vector.h"

enum { TASK_VALUES = 32768, SUM_VALUES = 1024 };

struct work {
    const struct cross_entropy *job;
    int64_t task_rows;
};

typedef int32_t lane_masks __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4), may_alias));

MULTIVERSION static float largest_of(int64_t n, const float *x)
{
    float top = -INFINITY, lane[LANES];
    int64_t i = 0;
    if (n >= LANES) {
        lanes best = *(const lanes *)x;
        for (i = LANES; i + LANES <= n; i += LANES) {
            lanes y = *(const lanes *)(x + i);
            lane_masks larger = y > best;
            best = (lanes)(((lane_masks)y & larger) | ((lane_masks)best & ~larger));
        }
        memcpy(lane, &best, sizeof lane);
        for (int l = 0; l < LANES; l++)
            top = lane[l] > top ? lane[l] : top;
    }
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

/* x = exp(x - top); returns the sum. */
MULTIVERSION static float exponentiate(int64_t n, float top, float *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = exp_fast(x[i] - top);
    lanes sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum += *(const lanes *)(x + i);
    float lane[LANES];
    memcpy(lane, &sum, sizeof lane);
    for (; i < n; i++)
        lane[i % LANES] += x[i];
    return lanes_sum(lane);
}

MULTIVERSION static void scale(int64_t n, float factor, float *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

static bool is_first(const float *x, int64_t index, float top)
{
    if (x[index] != top)
        return false;
    for (int64_t i = 0; i < index; i++)
        if (x[i] == top)
            return false;
    return true;
}

/* Mean of x - top. */
static double mean_below(int64_t n, float top, const float *x)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] - top;
    return sum / (double)n;
}

static void subtract(int64_t n, float value, float *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] -= value;
}

static void one_row(const struct cross_entropy *a, int64_t row)
{
    const struct column_range range = a->ranges ? a->ranges[row] : (struct column_range){0, (int32_t)a->columns};
    float *all = a->logits + row * a->columns, *x = all + range.first;
    int64_t target = a->targets[row], n = range.count;
    float top = largest_of(n, x), aim = x[target], weight = a->weights[row];
    double mean = a->smoothing > 0 ? mean_below(n, top, x) : 0;
    a->correct[row] = is_first(x, target, top);
    double sum = 0;
    for (int64_t i = 0; i < n; i += SUM_VALUES)
        sum += exponentiate(n - i < SUM_VALUES ? n - i : SUM_VALUES, top, x + i);
    if (a->smoothing > 0)
        a->loss[row] = (float)(log(sum) + (1 - (double)a->smoothing) * ((double)top - aim) - (double)a->smoothing * mean);
    else
        a->loss[row] = (float)(log(sum) + ((double)top - aim));
    if (!a->gradient)
        return;
    scale(n, (float)(weight / sum), x);
    if (a->smoothing > 0)
        subtract(n, (float)((double)weight * a->smoothing / (double)n), x);
    x[target] -= a->smoothing > 0 ? (float)(weight * (1 - (double)a->smoothing)) : weight;
    memset(all, 0, (size_t)range.first * sizeof *all);
    memset(x + n, 0, (size_t)(a->columns - range.first - n) * sizeof *x);
}

static void rows(void *context, int task, int thread)
{
    (void)thread;
    const struct work *w = context;
    int64_t end = (task + 1) * w->task_rows < w->job->n ? (task + 1) * w->task_rows : w->job->n;
    for (int64_t row = task * w->task_rows; row < end; row++)
        one_row(w->job, row);
}

void cross_entropy(struct threads *pool, const struct cross_entropy *job)
{
    struct work w = {job, job->columns < TASK_VALUES ? TASK_VALUES / job->columns : 1};
    threads_run(pool, (int)((job->n + w.task_rows - 1) / w.task_rows), rows, &w);
}
