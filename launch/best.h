/* Which evaluation was the best of its stage, and whether it is time to end the stage. All state lies in the snapshot's meta
 * data, so that a resumed run decides as the uninterrupted one would have.
 * Must not know: how an evaluation is made, files. */
#ifndef LAUNCH_BEST_H
#define LAUNCH_BEST_H

#include "common/options.h"
#include "launch/metrics.h"
#include "ps/snapshot.h"

struct best_rule {
    char metric[192]; /* with eval_ */
    bool greater;     /* is better */
    double threshold; /* how much better counts as a gain */
    int64_t patience; /* evaluations without a gain; 0: any number */
};

/* `expected`: what an evaluation is going to give. STATUS_USAGE when the metric is not among it. */
enum status best_rule_make(const struct options *options, const struct metrics *expected, struct best_rule *out, struct error *err);

/* Forgets the best, for a new stage. */
void best_reset(struct snapshot_meta *meta);
/* Takes the evaluation of step meta->step in; true when it is the best so far. Of equal ones the earlier stays the best
 * (Hugging Face's Trainer decides likewise); a value that is not a number is never the best. */
bool best_take(const struct best_rule *rule, const struct metrics *found, struct snapshot_meta *meta);
/* Whether patience has come to its end. */
bool best_is_over(const struct best_rule *rule, const struct snapshot_meta *meta);

#endif
