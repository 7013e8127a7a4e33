/* Which rows slot k of step s holds: a pure function of (seed, step, slot), so that any worker can compute its
 * share alone and a resumed run goes on at the exact next row.
 * Glossary: R rows, S slots of a global batch, B rows per slot; a step uses S * B rows.
 * Must not know: what a row is, workers, files. */
#ifndef WORKER_DATA_ORDER_H
#define WORKER_DATA_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/data/mixture.h"

struct order {
    uint64_t seed;
    uint32_t rows;  /* R, of an epoch */
    int slots;      /* S */
    int slot_rows;  /* B */
    bool shuffle;   /* false: file order in every epoch */
    uint32_t *epoch_rows; /* [R] in the order of epoch `cached`; NULL where that is file order */
    int64_t cached;       /* -1: none yet */
    struct mix_set *sets; /* [n_sets] of data sets taken in turns; NULL for one after the other */
    int n_sets;
    uint32_t *scratch; /* for mixture_epoch */
};

/* STATUS_DATA when there are fewer rows than slots (some slots would never hold a row); both numbers are named.
 * Not for use by several threads at once: it caches the order of the current epoch. */
enum status order_create(uint64_t seed, int64_t rows, int slots, int slot_rows, bool shuffle, struct order *out,
                         struct error *err);
/* The same for several data sets, whose rows follow on each other. concat: an epoch is a permutation of all rows, exactly
 * as above with all of them; else as mixture.h says, and an epoch holds as many rows as that takes. */
enum status order_create_mixed(uint64_t seed, enum mix_strategy strategy, const struct mix_set *sets, int n_sets, int slots,
                               int slot_rows, bool shuffle, struct order *out, struct error *err);
void order_free(struct order *order);

/* ceil(R / (S * B)). */
int64_t order_steps_per_epoch(const struct order *order);
/* Rows of the data set that slot `slot` of step `step` holds (step counts from 0 over the whole run), written to
 * rows[slot_rows]. Epoch e is a list of R rows (a permutation of
 * all, or a mixture); step t of it uses rows [t*S*B, (t+1)*S*B), slot k of the
 * step B consecutive ones of these. In the last step of an epoch later slots hold fewer rows, possibly none.
 * Returns how many were written. */
int order_slot(struct order *order, int64_t step, int slot, uint32_t *rows);

#endif
