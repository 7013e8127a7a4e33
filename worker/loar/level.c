#include "worker/loar/level.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The value that `above` of the n values lie above: half-way between two of them, or beyond the last one. */
static float level(float *values, int64_t n, double above)
{
    int64_t k = llround(above);
    qsort(values, (size_t)n, sizeof *values, descending);
    if (k <= 0)
        return values[0];
    return k >= n ? values[n - 1] - 1 : 0.5f * (values[k - 1] + values[k]);
}

/* Heads of each decision that run whatever the level is, beside those that are always on. */
static int forced(const struct loar_config *c)
{
    int missing = c->min_heads - c->n_always_on;
    return c->fallback == LOAR_FALLBACK_MIN_HEADS && missing > 0 ? missing : 0;
}

float level_of(const struct loar_config *c, const struct decisions *decisions, int task, int heads, int head, double budget,
               const float *values, float *room)
{
    bool skipped[LOAR_MAX_HEADS] = {0};
    int best = head < 0 ? forced(c) : 0;
    for (int i = 0; head < 0 && i < c->n_always_on; i++)
        skipped[c->always_on[i]] = true;
    int64_t n = 0, count = 0;
    for (int m = 0; m < decisions->count; m++) {
        if (!level_counts(&decisions->items[m], task))
            continue;
        float *own = room + count;
        int64_t few = 0;
        n++;
        for (int h = head < 0 ? 0 : head; h < (head < 0 ? heads : head + 1); h++)
            if (!skipped[h])
                own[few++] = values[m * (int64_t)heads + h];
        if (best) {
            qsort(own, (size_t)few, sizeof *own, descending);
            few = few > best ? few - best : 0;
            memmove(own, own + best, (size_t)few * sizeof *own);
        }
        count += few;
    }
    double above = head < 0 ? (budget * heads - c->n_always_on - best) * (double)n : budget * (double)n;
    return count ? level(room, count, above) : NAN;
}
