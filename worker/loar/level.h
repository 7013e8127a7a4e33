/* The value that a task's share of its heads lies above, over all decisions of a pass: where thresholds belong among scores, and
 * which heads a budget that decisions share would run by their importance.
 * M decisions, H heads. Must not know: what the values are, policies. */
#ifndef WORKER_LOAR_LEVEL_H
#define WORKER_LOAR_LEVEL_H

#include "worker/loar/decisions.h"
#include "worker/loar/loar.h"

/* True where the router decides for rows of the task. */
static inline bool level_counts(const struct decision *d, int task)
{
    return d->source == DECISION_ROUTED && d->task == task;
}

/* Of values[M][H], those of head `head`, or with -1 those of all heads but the ones that run anyway: always-on heads, and the best
 * of each decision where some must run (fallback min_heads). These take their part of the budget. NaN where no value counts.
 * room: [M * H]. */
float level_of(const struct loar_config *config, const struct decisions *decisions, int task, int heads, int head, double budget,
               const float *values, float *room);

#endif
