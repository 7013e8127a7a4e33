#include "worker/ops/swiglu.h"

#include "common/compiler.h"
#include "worker/ops/vector.h"

enum { TASK_VALUES = 16384 };

struct swiglu {
    int64_t count;
    const float *gate, *up;
    float *act;
    float *dgate, *dup;
};

MULTIVERSION static void forward_values(int64_t n, const float *restrict gate, const float *restrict up,
                                        float *restrict act)
{
    for (int64_t i = 0; i < n; i++)
        act[i] = gate[i] / (1.0f + exp_fast(-gate[i])) * up[i];
}

MULTIVERSION static void backward_values(int64_t n, float *restrict gate, float *restrict up, float *restrict dact)
{
    for (int64_t i = 0; i < n; i++) {
        float g = gate[i], u = up[i], d = dact[i];
        float below = 1.0f + exp_fast(-g);
        float sigmoid = 1.0f / below, silu = g / below; /* silu as forward computes it, to the bit */
        gate[i] = d * u * (sigmoid * (1.0f + g * (1.0f - sigmoid)));
        up[i] = d * silu;
        dact[i] = silu * u;
    }
}

static void forward_task(void *context, int task, int thread)
{
    (void)thread;
    const struct swiglu *a = context;
    int64_t first = task * (int64_t)TASK_VALUES;
    int64_t n = a->count - first < TASK_VALUES ? a->count - first : TASK_VALUES;
    forward_values(n, a->gate + first, a->up + first, a->act + first);
}

static void backward_task(void *context, int task, int thread)
{
    (void)thread;
    const struct swiglu *a = context;
    int64_t first = task * (int64_t)TASK_VALUES;
    int64_t n = a->count - first < TASK_VALUES ? a->count - first : TASK_VALUES;
    backward_values(n, a->dgate + first, a->dup + first, a->act + first);
}

void swiglu_forward(struct threads *pool, int64_t count, const float *gate, const float *up, float *act)
{
    struct swiglu a = {.count = count, .gate = gate, .up = up, .act = act};
    threads_run(pool, (int)((count + TASK_VALUES - 1) / TASK_VALUES), forward_task, &a);
}

void swiglu_backward(struct threads *pool, int64_t count, float *gate, float *up, float *dact)
{
    struct swiglu a = {.count = count, .act = dact, .dgate = gate, .dup = up};
    threads_run(pool, (int)((count + TASK_VALUES - 1) / TASK_VALUES), backward_task, &a);
}
