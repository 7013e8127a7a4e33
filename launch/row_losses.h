/* Losses of the rows of a data set in a model that was opened, on all threads; the same for any number of them.
 * Must not know: where the rows come from. */
#ifndef LAUNCH_ROW_LOSSES_H
#define LAUNCH_ROW_LOSSES_H

#include "common/status.h"
#include "launch/source.h"
#include "worker/data/dataset.h"

struct row_means {
    double loss, thought, answer, accuracy;
};

/* Means over all thoughts, answers and end tokens, each of weight 1 times its row's; NaN where there are none. */
enum status row_losses(const struct source *source, const struct dataset *dataset, int batch_rows, int threads,
                       struct row_means *out, struct error *err);

#endif
