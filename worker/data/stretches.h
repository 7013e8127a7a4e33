/* Stretches of uneven loss weight of those rows that have any: nearly all rows of nearly all data sets have none, and
 * then nothing is kept.
 * Must not know: what the factors stand for. */
#ifndef WORKER_DATA_STRETCHES_H
#define WORKER_DATA_STRETCHES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/data/batch.h"

struct stretch_place {
    int64_t row, first; /* first: in items */
    int count;
};

/* Start with {0}. */
struct stretch_table {
    struct stretch *items;
    struct stretch_place *places; /* by rising row */
    int64_t n_items, n_places, item_capacity, place_capacity;
};

/* Rows must come in rising order; one without stretches adds nothing. */
enum status stretch_table_add(struct stretch_table *table, int64_t row, const struct stretch *stretches, int count,
                              struct error *err);
/* Points the row at its stretches, which stay the table's. */
void stretch_table_find(const struct stretch_table *table, int64_t row, struct row *out);
/* Forgets the rows that are marked in out[], and counts the others anew from 0. */
void stretch_table_drop(struct stretch_table *table, const bool *out);
/* Forgets the rows from `rows` on. */
void stretch_table_cut(struct stretch_table *table, int64_t rows);
void stretch_table_free(struct stretch_table *table);

#endif
