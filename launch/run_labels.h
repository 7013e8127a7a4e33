/* The labels of a run's classification tasks: from the options, the model's folder and the training rows into the model's
 * configuration, and where a model keeps those of an earlier run.
 * Must not know: how rows are read, what is done with labels. */
#ifndef LAUNCH_RUN_LABELS_H
#define LAUNCH_RUN_LABELS_H

#include "common/options.h"
#include "common/status.h"
#include "common/text.h"
#include "worker/data/labels.h"

struct run;
struct snapshot;

/* Whether rows of an entry have a class (task_type seq_cls) instead of an answer to be written. */
bool run_classifies(const struct options *options, const struct dataset_options *entry);

/* Labels that are known before any row is read: `labels` or num_labels of the entries, else those that the model's folder has
 * for the task, else num_labels of the run. STATUS_USAGE where two entries of a task differ. */
enum status run_labels_given(const struct run *run, struct labels *given, struct error *err);

/* With the training rows of all stages loaded: the labels of each task, given or collected from its rows, become the run's and the rows
 * learn their places. Sets labels, scores_anew, config and config_json of the run. */
enum status run_labels_settle(struct run *run, const struct labels *given, struct error *err);

/* With the evaluation rows loaded: the same for them. */
enum status run_labels_evaluation(struct run *run, struct error *err);

/* "labels of mood: neg, neu, pos", one line each. */
void run_labels_notes(const struct run *run, struct text *notes);

/* STATUS_USAGE when the snapshot tells other labels apart than the run. */
enum status run_labels_check(const struct run *run, const struct snapshot *snapshot, struct error *err);

#endif
