/* Which rows are held out of training for evaluation: those with the lowest hashes, so that the choice depends on the rows
 * alone, not on their order, the seed or the run, and a row that is added hardly moves it.
 * Must not know: what becomes of the rows. */
#ifndef WORKER_DATA_HOLDOUT_H
#define WORKER_DATA_HOLDOUT_H

#include "worker/data/dataset.h"

/* size below 1: a share of all rows (at least one row); else a number of rows. chosen: [rows]. Rows that are the same go to
 * the same side, so that a few more than asked for may be chosen. STATUS_DATA when none would be left to train on. */
enum status holdout_choose(const struct dataset *dataset, double size, bool *chosen, struct error *err);

#endif
