/* The scores of an evaluation set with classes, as people and programs read them.
 * Must not know: how rows were scored, where texts go. */
#ifndef LAUNCH_SCORES_H
#define LAUNCH_SCORES_H

#include "launch/class_scores.h"
#include "launch/report.h"
#include "worker/data/dataset.h"
#include "worker/model/counters.h"

/* For one evaluation set: f1 as JSON and as words. counts: those of the set alone, laid out as `shape`. Nothing for a set
 * without classes, or where nothing was counted. Appends. */
struct class_scores class_scores_put(const struct counters *shape, const struct dataset_part *set, const int64_t *counts, size_t count,
                      struct report_extra *out);

#endif
