#include "worker/ops/embedding.h"

#include <string.h>

#include "common/rng.h"

enum { TASK_ROWS = 64, TASK_COLUMNS = 64 };

struct embedding {
    int64_t n, width;
    const int32_t *tokens;
    const float *in;
    float *out;
};

static void forward_rows(void *context, int task, int thread)
{
    (void)thread;
    const struct embedding *a = context;
    int64_t end = (task + 1) * (int64_t)TASK_ROWS < a->n ? (task + 1) * (int64_t)TASK_ROWS : a->n;
    for (int64_t row = task * (int64_t)TASK_ROWS; row < end; row++)
        memcpy(a->out + row * a->width, a->in + a->tokens[row] * a->width, (size_t)a->width * sizeof *a->out);
}

void embedding_forward(struct threads *pool, int64_t n, int64_t width, const int32_t *tokens, const float *table,
                       float *out)
{
    struct embedding a = {n, width, tokens, table, out};
    threads_run(pool, (int)((n + TASK_ROWS - 1) / TASK_ROWS), forward_rows, &a);
}

/* Threads share out columns, not tokens: each adds all tokens in order, so equal tokens never meet. */
static void backward_columns(void *context, int task, int thread)
{
    (void)thread;
    const struct embedding *a = context;
    int64_t first = task * (int64_t)TASK_COLUMNS;
    int64_t count = a->width - first < TASK_COLUMNS ? a->width - first : TASK_COLUMNS;
    for (int64_t row = 0; row < a->n; row++) {
        const float *in = a->in + row * a->width + first;
        float *out = a->out + a->tokens[row] * a->width + first;
        for (int64_t i = 0; i < count; i++)
            out[i] += in[i];
    }
}

void embedding_backward(struct threads *pool, int64_t n, int64_t width, const int32_t *tokens, const float *dout,
                        float *dtable)
{
    struct embedding a = {n, width, tokens, dout, dtable};
    threads_run(pool, (int)((width + TASK_COLUMNS - 1) / TASK_COLUMNS), backward_columns, &a);
}

struct noise {
    int64_t first, end, width;
    float bound;
    uint64_t key;
    float *x;
};

static void noise_rows(void *context, int task, int thread)
{
    (void)thread;
    const struct noise *a = context;
    int64_t begin = a->first + task * (int64_t)TASK_ROWS, end = begin + TASK_ROWS < a->end ? begin + TASK_ROWS : a->end;
    for (int64_t i = begin * a->width; i < end * a->width; i++) /* 24 bits are what a float between 1 and 2 holds */
        a->x[i] += a->bound * ((float)(rng_u64(a->key, RNG_NOISE, (uint64_t)i) >> 40) * 0x1p-23f - 1.0f);
}

void embedding_noise(struct threads *pool, int64_t first, int64_t n, int64_t width, float bound, uint64_t key, float *x)
{
    struct noise a = {first, first + n, width, bound, key, x};
    threads_run(pool, (int)((n + TASK_ROWS - 1) / TASK_ROWS), noise_rows, &a);
}
