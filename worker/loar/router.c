#include "worker/loar/router.h"

#include <string.h>

#include "common/compiler.h"
#include "worker/loar/products.h"
#include "worker/ops/bias.h"

enum { TASK_DECISIONS = 32, TASK_HEADS = 64, SUM_DECISIONS = 64 };

struct routing {
    const struct router *router;
    const struct decisions *decisions;
    const float *f;
    float *hidden, *z;
    const float *dz;
    float *dtask_bias;
};

static int tasks_of(int count, int size)
{
    return (count + size - 1) / size;
}

static int end_of(const struct routing *a, int task)
{
    int end = (task + 1) * TASK_DECISIONS;
    return end < a->decisions->count ? end : a->decisions->count;
}

MULTIVERSION static void activate(int n, const float *bias, float *hidden)
{
    for (int i = 0; i < n; i++) {
        float sum = hidden[i] + bias[i];
        hidden[i] = sum < 0 ? 0 : sum; /* keeps NaN, which is reported with the scores */
    }
}

static void forward_decisions(void *context, int task, int thread)
{
    (void)thread;
    const struct routing *a = context;
    const struct router *r = a->router;
    const float *f[TASK_DECISIONS] = {0}, *hidden_in[TASK_DECISIONS] = {0}, *task_bias[TASK_DECISIONS];
    float *hidden[TASK_DECISIONS] = {0}, *z[TASK_DECISIONS] = {0};
    int count = 0;
    for (int m = task * TASK_DECISIONS; m < end_of(a, task); m++) {
        float *hidden_row = a->hidden + m * (int64_t)r->dim, *z_row = a->z + m * (int64_t)r->heads;
        if (a->decisions->items[m].source != DECISION_ROUTED) {
            memset(hidden_row, 0, (size_t)r->dim * sizeof *hidden_row);
            memset(z_row, 0, (size_t)r->heads * sizeof *z_row);
            continue;
        }
        f[count] = a->f + m * r->width;
        hidden_in[count] = hidden[count] = hidden_row;
        task_bias[count] = r->task_bias + a->decisions->items[m].task * (int64_t)r->heads;
        z[count++] = z_row;
    }
    products_rows(count, f, r->dim, r->width, r->fc1_weight, hidden);
    for (int i = 0; i < count; i++)
        activate(r->dim, r->fc1_bias, hidden[i]);
    products_rows(count, hidden_in, r->heads, r->dim, r->fc2_weight, z);
    for (int i = 0; i < count; i++)
        for (int h = 0; h < r->heads; h++)
            z[i][h] = z[i][h] + r->fc2_bias[h] + task_bias[i][h];
}

void router_forward(struct threads *pool, const struct router *router, const struct decisions *decisions, const float *f,
                    float *hidden, float *z)
{
    struct routing a = {.router = router, .decisions = decisions, .f = f, .hidden = hidden, .z = z};
    threads_run(pool, tasks_of(decisions->count, TASK_DECISIONS), forward_decisions, &a);
}

MULTIVERSION static void add_scaled(int n, float factor, const float *x, float *sum)
{
    for (int i = 0; i < n; i++)
        sum[i] += factor * x[i];
}

/* In place: the gradient passes where the unit was active. */
static void hidden_gradient(void *context, int task, int thread)
{
    (void)thread;
    const struct routing *a = context;
    const struct router *r = a->router;
    for (int m = task * TASK_DECISIONS; m < end_of(a, task); m++) {
        float *hidden = a->hidden + m * (int64_t)r->dim;
        for (int first = 0; first < r->dim; first += TASK_HEADS) {
            int count = r->dim - first < TASK_HEADS ? r->dim - first : TASK_HEADS;
            float sum[TASK_HEADS] = {0};
            for (int h = 0; h < r->heads; h++)
                add_scaled(count, a->dz[m * (int64_t)r->heads + h], r->fc2_weight + h * (int64_t)r->dim + first, sum);
            for (int i = 0; i < count; i++)
                hidden[first + i] = hidden[first + i] > 0 ? sum[i] : 0;
        }
    }
}

/* One task's bias, summed in blocks of decisions. */
static void task_bias_gradient(void *context, int task, int thread)
{
    (void)thread;
    const struct routing *a = context;
    int heads = a->router->heads;
    float *out = a->dtask_bias + task * (int64_t)heads;
    memset(out, 0, (size_t)heads * sizeof *out);
    for (int first = 0; first < heads; first += TASK_HEADS) {
        int count = heads - first < TASK_HEADS ? heads - first : TASK_HEADS;
        for (int block = 0; block < a->decisions->count; block += SUM_DECISIONS) {
            float sum[TASK_HEADS] = {0};
            for (int m = block; m < block + SUM_DECISIONS && m < a->decisions->count; m++)
                if (a->decisions->items[m].task == task)
                    add_scaled(count, 1, a->dz + m * (int64_t)heads + first, sum);
            add_scaled(count, 1, sum, out + first);
        }
    }
}

void router_backward(struct threads *pool, const struct router *router, const struct decisions *decisions,
                     const float *f, float *hidden, const float *dz, struct router_gradient *gradient)
{
    struct routing a = {.router = router, .decisions = decisions, .hidden = hidden, .dz = dz,
                        .dtask_bias = gradient->task_bias};
    int64_t m = decisions->count;
    products_outer(pool, m, router->heads, router->dim, dz, hidden, gradient->fc2_weight);
    threads_run(pool, router->tasks, task_bias_gradient, &a);
    bias_backward(pool, m, router->heads, dz, gradient->fc2_bias);
    threads_run(pool, tasks_of(decisions->count, TASK_DECISIONS), hidden_gradient, &a);
    products_outer(pool, m, router->dim, router->width, hidden, f, gradient->fc1_weight);
    bias_backward(pool, m, router->dim, hidden, gradient->fc1_bias);
}
