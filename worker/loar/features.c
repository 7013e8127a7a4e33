#include "worker/loar/features.h"

#include <math.h>
#include <string.h>

#include "common/compiler.h"

enum { TASK_COLUMNS = 64 };

struct features {
    const struct decisions *decisions;
    int64_t width;
    int panels; /* tasks per sequence */
    double fade;
    const float *x;
    struct loar_memory *memories;
    float *f;
};

static double fade_of(const struct loar_config *c)
{
    return c->feature == LOAR_TOKEN ? 0 : c->feature == LOAR_EMA ? c->ema_decay : 1;
}

/* Sum of the weights of the first `count` tokens. A function of their number alone, so nothing has to be kept. */
static double weight_of(double fade, int64_t count)
{
    return fade == 1 ? (double)count : (1 - pow(fade, (double)count)) / (1 - fade);
}

MULTIVERSION static void add_rows(int64_t rows, int64_t width, int columns, double fade, const float *x, double *sum)
{
    for (int64_t row = 0; row < rows; row++)
        for (int i = 0; i < columns; i++)
            sum[i] = fade * sum[i] + (double)x[row * width + i];
}

MULTIVERSION static void read_mean(int columns, double weight, const double *sum, float *out)
{
    for (int i = 0; i < columns; i++)
        out[i] = (float)(sum[i] / weight);
}

/* One range of columns of one sequence. */
static void sequence_columns(void *context, int task, int thread)
{
    (void)thread;
    const struct features *a = context;
    const struct decisions *d = a->decisions;
    int b = task / a->panels;
    int64_t first = task % a->panels * (int64_t)TASK_COLUMNS;
    int columns = a->width - first < TASK_COLUMNS ? (int)(a->width - first) : TASK_COLUMNS;
    double sum[TASK_COLUMNS] = {0};
    if (a->memories)
        memcpy(sum, a->memories[b].sum + first, (size_t)columns * sizeof *sum);
    int64_t row = d->starts[b];
    for (int m = d->of_sequence[b]; m < d->of_sequence[b + 1]; m++) {
        float *out = a->f + m * a->width + first;
        if (d->items[m].source != DECISION_ROUTED) {
            memset(out, 0, (size_t)columns * sizeof *out);
            continue;
        }
        int64_t until = d->starts[b] + (int64_t)d->items[m].reads - d->earlier[b];
        add_rows(until - row, a->width, columns, a->fade, a->x + row * a->width + first, sum);
        row = until;
        read_mean(columns, weight_of(a->fade, d->items[m].reads), sum, out);
    }
    if (!a->memories)
        return;
    add_rows(d->starts[b + 1] - row, a->width, columns, a->fade, a->x + row * a->width + first, sum);
    memcpy(a->memories[b].sum + first, sum, (size_t)columns * sizeof *sum);
}

void features_forward(struct threads *pool, const struct loar_config *config, const struct decisions *decisions,
                      int64_t width, const float *x, struct loar_memory *memories, float *f)
{
    struct features a = {decisions, width, (int)((width + TASK_COLUMNS - 1) / TASK_COLUMNS), fade_of(config), x, memories,
                         f};
    threads_run(pool, a.panels * decisions->n_sequences, sequence_columns, &a);
}
