/* Rows that are the same token for token, found by hash and then compared: within a data set, and between training and
 * evaluation.
 * Must not know: what is done about them. */
#ifndef WORKER_DATA_DUPLICATES_H
#define WORKER_DATA_DUPLICATES_H

#include "common/text.h"
#include "worker/data/dataset.h"

struct duplicates {
    int64_t rows;            /* how many rows have a like */
    int64_t row, like;       /* the first one and its like; -1 where there is none */
};

/* Hash of the tokens of a row. */
uint64_t row_hash(const struct row *row);

/* Rows that are the same as an earlier one of the data set. repeats (may be NULL): [rows], true for these. */
enum status duplicates_within(const struct dataset *dataset, bool *repeats, struct duplicates *out, struct error *err);
/* Rows of `other` that `dataset` has too; out->row is in `other`, out->like in `dataset`. */
enum status duplicates_between(const struct dataset *dataset, const struct dataset *other, struct duplicates *out,
                               struct error *err);

/* "file:line" of a row. */
void duplicates_put_place(const struct dataset *dataset, int64_t row, struct text *out);

#endif
