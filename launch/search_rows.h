/* Rows for a search of layers: splits of the training rows that share none, as batches.
 * Must not know: models, what a split is for. */
#ifndef LAUNCH_SEARCH_ROWS_H
#define LAUNCH_SEARCH_ROWS_H

#include "common/status.h"
#include "worker/data/dataset.h"

struct search_rows {
    struct batch *batches;
    int count;
    int64_t rows;
    int shortest, longest; /* tokens of a row */
};

/* Draws `n_splits` times `rows` rows of the data set, none with the tokens of another, and puts `batch_rows` of them in a
 * batch. STATUS_USAGE where there are not so many. On failure nothing is left. */
enum status search_rows_draw(const struct dataset *dataset, const float span_weights[SPAN_COUNT], uint64_t seed, int64_t rows,
                             int64_t batch_rows, int n_splits, struct search_rows *out, struct error *err);
void search_rows_free(struct search_rows *splits, int n_splits);

#endif
