/* What the workers counted, summed over steps or over the batches of an evaluation, as people and programs read it: the share
 * of heads that ran per layer, head and task, the work of attention, and where time went.
 * Must not know: how it was counted, where texts go. */
#ifndef LAUNCH_TALLY_H
#define LAUNCH_TALLY_H

#include "common/status.h"
#include "launch/report.h"
#include "worker/model/counters.h"
#include "worker/model/model.h"

struct tally {
    const struct model_config *config; /* borrowed, as the names */
    const char *const *tasks;          /* [n_tasks] as routing numbers them */
    int n_tasks;
    struct counters sums;
    int64_t steps;    /* added so far */
    double imbalance; /* sum over steps */
};

/* Without counters until the first tally_add. */
enum status tally_create(const struct model_config *config, const char *const *tasks, int n_tasks, struct tally *out,
                         struct error *err);
void tally_free(struct tally *tally);
void tally_clear(struct tally *tally);
/* Adds one step or evaluation; counters of another shape are left out. imbalance: 0 where it is not known. */
void tally_add(struct tally *tally, const int64_t *counts, size_t count, double imbalance);

/* Share of heads that ran in the layer, over all tasks; 1 in a layer that is not routed, NaN where it had no rows. */
double tally_active(const struct tally *tally, int layer);
/* For the line of a step (`train`) or of an evaluation. Appends; a text that fails is left out by who prints it. */
void tally_put(const struct tally *tally, const char *kind, int64_t step, struct report_extra *out);

#endif
