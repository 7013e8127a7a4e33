/* Several data sets taken in turns: how many rows an epoch takes from each, and which row stands where in it. Sets follow
 * their shares as closely as whole rows can at every place of an epoch, not only on average.
 * Must not know: what a row is, steps, slots, files. */
#ifndef WORKER_DATA_MIXTURE_H
#define WORKER_DATA_MIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

/* concat: all rows of all sets once, shares do not count. interleave_under: an epoch ends with the last row of the set that
 * is used up first at its share. interleave_over: it ends with the last row of the set that lasts longest; the others begin
 * again meanwhile. */
enum mix_strategy { MIX_CONCAT, MIX_INTERLEAVE_UNDER, MIX_INTERLEAVE_OVER };
/* "concat", "interleave_under", "interleave_over" -> the value; false if unknown. */
bool mix_strategy_parse(const char *name, enum mix_strategy *out);

struct mix_set {
    uint32_t first, rows; /* its rows are [first, first + rows); a set without rows takes no part */
    double share;         /* relative to the others', > 0 */
    uint32_t count;       /* rows that an epoch takes from it; set by mixture_count */
    uint32_t taken;       /* used by mixture_epoch */
};

/* Fills in the counts for an interleaving strategy; their sum, the rows of an epoch, to *rows. STATUS_DATA when that is more
 * than can be numbered. Row k of a set stands at the time (k + 1/2) / share, so counts are the rows up to the end's time. */
enum status mixture_count(enum mix_strategy strategy, struct mix_set *sets, int n_sets, int64_t *rows, struct error *err);

/* Rows of an epoch in their order, to out[sum of counts]. Every set is in an order of its own, drawn anew for every epoch
 * and every time it begins again; shuffle false: in file order. scratch: room for the rows of all sets. */
void mixture_epoch(struct mix_set *sets, int n_sets, uint64_t seed, int64_t epoch, bool shuffle, uint32_t *scratch, uint32_t *out);

#endif
