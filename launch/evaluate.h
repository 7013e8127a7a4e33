/* One evaluation: losses of every evaluation set and, where wanted, answers to its rows; printed, written down, and handed back
 * as metrics.
 * Must not know: what follows from the numbers. */
#ifndef LAUNCH_EVALUATE_H
#define LAUNCH_EVALUATE_H

#include "launch/metrics.h"
#include "launch/report.h"
#include "launch/run.h"
#include "launch/tally.h"
#include "ps/server.h"

struct evaluation {
    const struct run *run; /* the stage */
    struct server *server;
    struct report *report;
    struct tally *tally; /* cleared, then filled with what all sets counted */
    int64_t step;
    double epoch;
    struct metrics *metrics; /* cleared, then filled */
};

/* Runs it; `sums`: losses of all sets together; `extra`: what else is to be told of them. */
enum status evaluate_sets(const struct evaluation *evaluation, struct slot_report *sums, struct report_extra *extra, struct error *err);
/* Prints what all sets together came to; `best`: it is the best so far. */
void evaluate_report(const struct evaluation *evaluation, const struct slot_report *sums, double seconds, bool best,
                     struct report_extra *extra);

#endif
