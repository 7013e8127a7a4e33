/* Which rows each head computes: ascending lists that kernels walk, with bounds per sequence.
 * H heads, B sequences, N tokens. Must not know: why a head runs, what is computed on the rows. */
#ifndef WORKER_LOAR_ROW_LISTS_H
#define WORKER_LOAR_ROW_LISTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/threads.h"
#include "worker/loar/decisions.h"

struct row_lists {
    int heads;       /* H */
    int n_sequences; /* B */
    int n_tokens;    /* N */
    int32_t *rows;   /* [H][N]: head h's list begins at h * N */
    int64_t *bounds; /* [H][B + 1] where each sequence's part of its head's list begins, and where the last ends */
    uint8_t *all;    /* [H] the head computes every row */
    size_t rows_capacity, bounds_capacity, heads_capacity;
};

/* on: [M][H], NULL: every head runs. wanted: [N], rows where it is 0 are left out; NULL: none. Memory is reused. */
enum status row_lists_make(struct threads *pool, const struct decisions *decisions, int heads, const uint8_t *on,
                           const uint8_t *wanted, struct row_lists *out, struct error *err);
void row_lists_free(struct row_lists *lists);

static inline const int32_t *row_lists_of(const struct row_lists *lists, int head)
{
    return lists->rows + (int64_t)head * lists->n_tokens;
}

static inline int64_t row_lists_count(const struct row_lists *lists, int head)
{
    return lists->bounds[head * (int64_t)(lists->n_sequences + 1) + lists->n_sequences];
}

#endif
