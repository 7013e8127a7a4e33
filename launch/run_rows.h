/* The rows of one stage of a run: the files that its options name, read by its rules.
 * Must not know: models, ranks, other stages. */
#ifndef LAUNCH_RUN_ROWS_H
#define LAUNCH_RUN_ROWS_H

#include "launch/failures.h"
#include "launch/run.h"
#include "worker/data/labels.h"

/* Training rows, and how spans of them count. Labels that options give are added to `given`. Bad sets are collected in
 * `failures`; STATUS_USAGE and the like are returned at once. */
enum status run_rows_load_training(struct run *stage, struct labels *given, struct failures *failures, struct error *err);
/* Evaluation rows, which may have no labels but those of the training rows. */
enum status run_rows_load_evaluation(struct run *stage, const struct labels *given, struct failures *failures, struct error *err);
/* With all rows there and labels settled: leaves out, holds out, and numbers tasks. */
enum status run_rows_settle(struct run *stage, struct error *err);

#endif
