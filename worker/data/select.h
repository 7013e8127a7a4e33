/* Taking rows out of a data set after it was read, for good or into another one.
 * Must not know: why. */
#ifndef WORKER_DATA_SELECT_H
#define WORKER_DATA_SELECT_H

#include "worker/data/dataset.h"

/* Leaves out the rows for which `out` is true and counts them in stats.repeated of their parts. */
void select_drop_repeated(struct dataset *dataset, const bool *out);
/* Moves the rows for which `out` is true behind those of `to`, at most `limit` of each part (< 0: all; the others are left
 * out), and counts all of them in stats.held_out. Every part that gives rows becomes a part of `to` with its name. The tasks
 * of `to` must begin with those of `dataset` (dataset_name_tasks). On failure both are as before. */
enum status select_hold_out(struct dataset *dataset, const bool *out, int64_t limit, struct dataset *to, struct error *err);

#endif
