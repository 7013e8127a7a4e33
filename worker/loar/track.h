/* What routing keeps beside weights: thresholds, prices of the budget, average outputs of heads. They lie in the
 * parameter table as rows of W values and a count. What a pass sends for a row is the sum over its observations of
 * (x - v), and in the last place their number n; whoever owns the table moves v by rate * sum / n where n > 0 and adds
 * n to the count. Sums and counts add up over slots like gradients, so no bit depends on who saw what.
 * H heads, C head size, T tasks. Must not know: rates, the table, messages. */
#ifndef WORKER_LOAR_TRACK_H
#define WORKER_LOAR_TRACK_H

#include "common/threads.h"
#include "worker/loar/decisions.h"
#include "worker/loar/row_lists.h"

/* Values of a row of thresholds, W: one for the layer, or one per head. There is a row for each task. */
int track_threshold_width(const struct loar_config *config, int heads);
/* threshold[T][H] from its rows [T][W + 1]. */
void track_read_thresholds(const struct loar_config *config, int heads, const float *rows, float *threshold);
/* multiplier[T] from its rows [T][2]; never negative. */
void track_read_multipliers(int tasks, const float *rows, float *multiplier);

/* rows[T][W + 1]: thresholds follow the score above which the share budget[T] of the task's scores z lies. Heads that are
 * always on count against a layer's share. Only tasks whose policy keeps thresholds observe any. room: [M * H]. */
void track_threshold(const struct loar_config *config, const struct decisions *decisions, int heads, const double *budget,
                     const float *z, const float *threshold, float *room, float *rows);
/* rows[T][2]: a price rises while a larger share of heads than the task's budget[T] runs. Below zero it is drawn back, so
 * that it does not sink without end while the budget is kept. values: the rows as they are. */
void track_multiplier(const struct loar_config *config, const struct decisions *decisions, int heads, const double *budget,
                      const uint8_t *on, const float *values, float *rows);
/* rows[H][C + 1]: the mean of what heads attended, before gates, over the rows in which they ran. Value c of the j-th row of
 * head h's list lies at attended[offsets[h] + j * stride + c]. */
void track_average(struct threads *pool, const struct row_lists *lists, int head_dim, const float *attended,
                   const int64_t *offsets, int64_t stride, const float *values, float *rows);

#endif
