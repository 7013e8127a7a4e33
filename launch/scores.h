/* Accuracy and F1 of classification from what the workers counted: whole numbers, so exact for any ranks.
 * Must not know: how rows were scored, where texts go. */
#ifndef LAUNCH_SCORES_H
#define LAUNCH_SCORES_H

#include "launch/report.h"
#include "worker/data/dataset.h"
#include "worker/model/counters.h"

struct class_scores {
    int64_t rows;
    double accuracy; /* share of rows whose label had the best score; NaN without rows */
    double macro_f1; /* mean over labels of 2 right / (rows + chosen); labels that no row has and none got are left out, as
                      * public metrics do */
};

struct class_scores class_scores_of(const struct class_count *counts, int labels);

/* For one evaluation set: f1 as JSON and as words. counts: those of the set alone, laid out as `shape`. Nothing for a set
 * without classes, or where nothing was counted. Appends. */
struct class_scores class_scores_put(const struct counters *shape, const struct dataset_part *set, const int64_t *counts, size_t count,
                      struct report_extra *out);

#endif
