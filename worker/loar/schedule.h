/* How far routing has been let in at a step: all heads run while the router is fitted, then the budget falls from 1 to
 * its target, at the end everything the router keeps is frozen. A pure function of the step.
 * Must not know: what a step is. */
#ifndef WORKER_LOAR_SCHEDULE_H
#define WORKER_LOAR_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

struct loar_schedule {
    int64_t total_steps;
    int64_t dense_steps;  /* all heads run, the router is fitted to their importance */
    double anneal_share;  /* of total_steps: the budget falls in a straight line */
    double frozen_share;  /* of total_steps, the last ones */
    bool let_in;          /* it was, before the first step, which else is dense whatever the rest says */
};

enum loar_stage { LOAR_STAGE_DENSE, LOAR_STAGE_ANNEAL, LOAR_STAGE_ROUTED, LOAR_STAGE_FROZEN };

struct loar_moment {
    enum loar_stage stage;
    double budget; /* 1 at step 0, unless routing was let in before */
};

/* STATUS_USAGE when the parts do not fit into the steps. */
enum status loar_schedule_check(const struct loar_schedule *schedule, struct error *err);
/* step: 0 .. total_steps - 1. target: the layer's budget. */
struct loar_moment loar_schedule_at(const struct loar_schedule *schedule, int64_t step, double target);

#endif
