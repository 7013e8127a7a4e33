/* Accuracy and F1 of classification from what was counted: whole numbers, so exact for any ranks.
 * Must not know: how rows were scored, where the numbers go. */
#ifndef LAUNCH_CLASS_SCORES_H
#define LAUNCH_CLASS_SCORES_H

#include "worker/model/counters.h"

struct class_scores {
    int64_t rows;
    double accuracy; /* share of rows whose label had the best score; NaN without rows */
    double macro_f1; /* mean over labels of 2 right / (rows + chosen); labels that no row has and none got are left out, as
                      * public metrics do */
};

struct class_scores class_scores_of(const struct class_count *counts, int labels);

#endif
