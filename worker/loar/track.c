#include "worker/loar/track.h"

#include <math.h>
#include <string.h>

#include "common/compiler.h"
#include "worker/loar/level.h"
#include "worker/loar/policy.h"

int track_threshold_width(const struct loar_config *c, int heads)
{
    return c->per_head ? heads : 1;
}

void track_read_thresholds(const struct loar_config *c, int heads, const float *rows, float *threshold)
{
    int width = track_threshold_width(c, heads);
    for (int t = 0; t < c->n_tasks; t++)
        for (int h = 0; h < heads; h++)
            threshold[t * heads + h] = rows[t * (width + 1) + (c->per_head ? h : 0)];
}

void track_read_multipliers(int tasks, const float *rows, float *multiplier)
{
    for (int t = 0; t < tasks; t++)
        multiplier[t] = rows[2 * t] > 0 ? rows[2 * t] : 0;
}

static bool keeps(const struct loar_config *c, int task, enum policy_keeps what)
{
    return policy_of(loar_task_policy(c, task))->keeps == what;
}

/* One observation for each decision of the task, all alike: the level in this pass. */
static void track_task_threshold(const struct loar_config *c, const struct decisions *decisions, int task, int heads,
                                 double budget, const float *z, const float *threshold, float *room, float *row)
{
    int width = track_threshold_width(c, heads);
    int64_t n = 0;
    for (int m = 0; m < decisions->count; m++)
        n += level_counts(&decisions->items[m], task);
    for (int i = 0; i < width; i++) {
        float level = level_of(c, decisions, task, heads, c->per_head ? i : -1, budget, z, room);
        row[i] = isnan(level) ? 0 : (float)n * (level - threshold[c->per_head ? i : 0]);
    }
    row[width] = (float)n;
}

void track_threshold(const struct loar_config *c, const struct decisions *decisions, int heads, const double *budget,
                     const float *z, const float *threshold, float *room, float *rows)
{
    int width = track_threshold_width(c, heads);
    memset(rows, 0, (size_t)(c->n_tasks * (width + 1)) * sizeof *rows);
    for (int t = 0; t < c->n_tasks; t++)
        if (keeps(c, t, KEEPS_THRESHOLD))
            track_task_threshold(c, decisions, t, heads, budget[t], z, threshold + t * heads, room, rows + t * (width + 1));
}

void track_multiplier(const struct loar_config *c, const struct decisions *decisions, int heads, const double *budget,
                      const uint8_t *on, const float *values, float *rows)
{
    memset(rows, 0, (size_t)c->n_tasks * 2 * sizeof *rows);
    for (int t = 0; t < c->n_tasks; t++) {
        int64_t running = 0, n = 0;
        if (!keeps(c, t, KEEPS_MULTIPLIER))
            continue;
        for (int m = 0; m < decisions->count; m++) {
            if (!level_counts(&decisions->items[m], t))
                continue;
            n++;
            for (int h = 0; h < heads; h++)
                running += on[m * (int64_t)heads + h];
        }
        double debt = values[2 * t] < 0 ? -(double)values[2 * t] : 0;
        rows[2 * t] = (float)((double)running / heads + (debt - budget[t]) * (double)n);
        rows[2 * t + 1] = (float)n;
    }
}

struct averages {
    const struct row_lists *lists;
    int head_dim;
    const float *attended, *values;
    const int64_t *offsets;
    int64_t stride;
    float *rows;
};

enum { TASK_COLUMNS = 64 };

MULTIVERSION static void sum_rows(int64_t count, int64_t stride, int columns, const float *in, double *sum)
{
    for (int64_t i = 0; i < count; i++)
        for (int c = 0; c < columns; c++)
            sum[c] += (double)in[i * stride + c];
}

static void average_head(void *context, int h, int thread)
{
    (void)thread;
    const struct averages *a = context;
    int dim = a->head_dim;
    int64_t count = row_lists_count(a->lists, h);
    const float *in = a->attended + a->offsets[h], *value = a->values + h * (int64_t)(dim + 1);
    float *out = a->rows + h * (int64_t)(dim + 1);
    for (int first = 0; first < dim; first += TASK_COLUMNS) {
        double sum[TASK_COLUMNS] = {0};
        int columns = dim - first < TASK_COLUMNS ? dim - first : TASK_COLUMNS;
        sum_rows(count, a->stride, columns, in + first, sum);
        for (int i = 0; i < columns; i++)
            out[first + i] = (float)(sum[i] - (double)count * (double)value[first + i]);
    }
    out[dim] = (float)count;
}

void track_average(struct threads *pool, const struct row_lists *lists, int head_dim, const float *attended,
                   const int64_t *offsets, int64_t stride, const float *values, float *rows)
{
    struct averages a = {lists, head_dim, attended, values, offsets, stride, rows};
    threads_run(pool, lists->heads, average_head, &a);
}
