#include "worker/ops/cross_entropy.h"

#include <math.h>

#include "common/compiler.h"
#include "worker/ops/vector.h"

enum { TASK_VALUES = 32768, SUM_VALUES = 1024 };

struct cross_entropy {
    int64_t n, vocab, task_rows;
    float *logits;
    const int32_t *targets;
    const float *weights;
    bool gradient;
    float *loss;
    uint8_t *correct;
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

static void one_row(const struct cross_entropy *a, int64_t row)
{
    float *x = a->logits + row * a->vocab;
    int64_t target = a->targets[row];
    float top = largest_of(a->vocab, x), aim = x[target];
    a->correct[row] = is_first(x, target, top);
    double sum = 0;
    for (int64_t i = 0; i < a->vocab; i += SUM_VALUES)
        sum += exponentiate(a->vocab - i < SUM_VALUES ? a->vocab - i : SUM_VALUES, top, x + i);
    a->loss[row] = (float)(log(sum) + ((double)top - aim));
    if (!a->gradient)
        return;
    scale(a->vocab, (float)(a->weights[row] / sum), x);
    x[target] -= a->weights[row];
}

static void rows(void *context, int task, int thread)
{
    (void)thread;
    const struct cross_entropy *a = context;
    int64_t end = (task + 1) * a->task_rows < a->n ? (task + 1) * a->task_rows : a->n;
    for (int64_t row = task * a->task_rows; row < end; row++)
        one_row(a, row);
}

void cross_entropy(struct threads *pool, int64_t n, int64_t vocab, float *logits, const int32_t *targets,
                   const float *weights, bool gradient, float *loss, uint8_t *correct)
{
    int64_t task_rows = vocab < TASK_VALUES ? TASK_VALUES / vocab : 1;
    struct cross_entropy a = {n, vocab, task_rows, logits, targets, weights, gradient, loss, correct};
    threads_run(pool, (int)((n + task_rows - 1) / task_rows), rows, &a);
}
