#include "worker/loar/gate_gradient.h"

#include <math.h>
#include <string.h>

#include "common/compiler.h"
#include "worker/loar/products.h"

enum { TASK_DECISIONS = 32, TASK_COLUMNS = 128, TASK_OUTPUTS = 64 };

struct gate_sums {
    const struct decisions *decisions;
    int64_t width; /* of a row: H, or D */
    int panels;
    bool mean_magnitude; /* of the rows, instead of their sum */
    const float *in;
    const uint8_t *on;
    const float *stand_in;
    float *out;
    int heads;
    const float *vectors;
};

static int tasks_of(int64_t count, int size)
{
    return (int)((count + size - 1) / size);
}

static int end_of(const struct gate_sums *a, int task)
{
    int end = (task + 1) * TASK_DECISIONS;
    return end < a->decisions->count ? end : a->decisions->count;
}

MULTIVERSION static void sum_magnitudes(int64_t rows, int64_t width, int columns, const float *in, double *sum)
{
    for (int64_t row = 0; row < rows; row++)
        for (int i = 0; i < columns; i++)
            sum[i] += fabs((double)in[row * width + i]);
}

MULTIVERSION static void sum_rows(int64_t rows, int64_t width, int columns, const float *in, double *sum)
{
    for (int64_t row = 0; row < rows; row++)
        for (int i = 0; i < columns; i++)
            sum[i] += (double)in[row * width + i];
}

/* One range of columns of some decisions. Rows of heads that did not run may hold anything: their sum is formed and thrown
 * away. */
static void sum_task(void *context, int task, int thread)
{
    (void)thread;
    const struct gate_sums *a = context;
    int begin = task / a->panels * TASK_DECISIONS, end = end_of(a, task / a->panels);
    int64_t first = task % a->panels * (int64_t)TASK_COLUMNS;
    int columns = a->width - first < TASK_COLUMNS ? (int)(a->width - first) : TASK_COLUMNS;
    for (int m = begin; m < end; m++) {
        const struct decision *d = &a->decisions->items[m];
        double sum[TASK_COLUMNS] = {0}, divisor = a->mean_magnitude ? d->end - d->first : 1;
        const float *in = a->in + d->first * a->width + first;
        (a->mean_magnitude ? sum_magnitudes : sum_rows)(d->end - d->first, a->width, columns, in, sum);
        for (int i = 0; i < columns; i++) {
            int64_t at = m * a->width + first + i;
            bool ran = !a->on || a->on[at];
            a->out[at] = ran ? (float)(sum[i] / divisor) : a->stand_in ? a->stand_in[at] : 0;
        }
    }
}

static void run(struct threads *pool, struct gate_sums *a)
{
    a->panels = tasks_of(a->width, TASK_COLUMNS);
    threads_run(pool, a->panels * tasks_of(a->decisions->count, TASK_DECISIONS), sum_task, a);
}

void gate_importance(struct threads *pool, const struct decisions *decisions, int heads, const float *delta,
                     float *importance)
{
    struct gate_sums a = {.decisions = decisions, .width = heads, .mean_magnitude = true, .in = delta, .out = importance};
    run(pool, &a);
}

void gate_gradient(struct threads *pool, const struct decisions *decisions, int heads, const float *delta,
                   const uint8_t *on, const float *stand_in, float *dgate)
{
    struct gate_sums a = {.decisions = decisions, .width = heads, .in = delta, .on = on, .stand_in = stand_in, .out = dgate};
    run(pool, &a);
}

struct vectors {
    int64_t width;
    int heads, head_dim, panels;
    const float *o_weight, *average;
    float *out;
};

static void vector_task(void *context, int task, int thread)
{
    (void)thread;
    const struct vectors *a = context;
    int h = task / a->panels;
    int64_t wide = (int64_t)a->heads * a->head_dim, first = task % a->panels * (int64_t)TASK_OUTPUTS;
    int rows = a->width - first < TASK_OUTPUTS ? (int)(a->width - first) : TASK_OUTPUTS;
    const float *weight[TASK_OUTPUTS] = {0};
    float *out[TASK_OUTPUTS] = {0};
    for (int i = 0; i < rows; i++) {
        weight[i] = a->o_weight + (first + i) * wide + h * (int64_t)a->head_dim;
        out[i] = a->out + h * a->width + first + i;
    }
    products_rows(rows, weight, 1, a->head_dim, a->average + h * (int64_t)(a->head_dim + 1), out);
}

void stand_in_vectors(struct threads *pool, int64_t width, int heads, int head_dim, const float *o_weight,
                      const float *average, float *vectors)
{
    struct vectors a = {width, heads, head_dim, tasks_of(width, TASK_OUTPUTS), o_weight, average, vectors};
    threads_run(pool, heads * a.panels, vector_task, &a);
}

static void stand_in_task(void *context, int task, int thread)
{
    (void)thread;
    const struct gate_sums *a = context;
    const float *in[TASK_DECISIONS] = {0};
    float *out[TASK_DECISIONS] = {0};
    int begin = task * TASK_DECISIONS, rows = end_of(a, task) - begin;
    for (int i = 0; i < rows; i++) {
        in[i] = a->in + (begin + i) * a->width;
        out[i] = a->out + (begin + i) * (int64_t)a->heads;
    }
    products_rows(rows, in, a->heads, a->width, a->vectors, out);
}

void stand_in_gradient(struct threads *pool, const struct decisions *decisions, int64_t width, int heads,
                       const float *dy, const float *vectors, float *sums, float *stand_in)
{
    struct gate_sums rows = {.decisions = decisions, .width = width, .in = dy, .out = sums};
    run(pool, &rows);
    struct gate_sums a = {.decisions = decisions, .width = width, .heads = heads, .in = sums, .vectors = vectors,
                          .out = stand_in};
    threads_run(pool, tasks_of(decisions->count, TASK_DECISIONS), stand_in_task, &a);
}
