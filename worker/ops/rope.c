#include "worker/ops/rope.h"

#include <math.h>

#include "common/compiler.h"

enum { TASK_ROWS = 32 };

void rope_table(int half, const float *frequencies, int64_t first, int64_t count, float *cosine, float *sine)
{
    for (int64_t p = 0; p < count; p++)
        for (int i = 0; i < half; i++) {
            float angle = (float)(first + p) * frequencies[i];
            cosine[p * half + i] = cosf(angle);
            sine[p * half + i] = sinf(angle);
        }
}

struct rope {
    int64_t n;
    int heads, head_dim;
    const int32_t *positions;
    const float *cosine, *sine;
    float direction;
    float *x;
};

MULTIVERSION static void turn(int half, const float *cosine, const float *sine, float direction, float *low, float *high)
{
    for (int i = 0; i < half; i++) {
        float a = low[i], b = high[i], s = sine[i] * direction;
        low[i] = a * cosine[i] - b * s;
        high[i] = b * cosine[i] + a * s;
    }
}

static void rows(void *context, int task, int thread)
{
    (void)thread;
    const struct rope *a = context;
    int half = a->head_dim / 2;
    int64_t end = (task + 1) * (int64_t)TASK_ROWS < a->n ? (task + 1) * (int64_t)TASK_ROWS : a->n;
    for (int64_t row = task * (int64_t)TASK_ROWS; row < end; row++) {
        int64_t at = a->positions[row] * (int64_t)half;
        for (int head = 0; head < a->heads; head++) {
            float *x = a->x + (row * a->heads + head) * a->head_dim;
            turn(half, a->cosine + at, a->sine + at, a->direction, x, x + half);
        }
    }
}

void rope_apply(struct threads *pool, int64_t n, int heads, int head_dim, const int32_t *positions,
                const float *cosine, const float *sine, int direction, float *x)
{
    struct rope a = {n, heads, head_dim, positions, cosine, sine, (float)direction, x};
    threads_run(pool, (int)((n + TASK_ROWS - 1) / TASK_ROWS), rows, &a);
}
