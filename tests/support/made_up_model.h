/* What a made-up model answers to all of the training loop but losses and gradients: counters of its own thread, and nothing to
 * schedule. Defines functions of worker/model/model.h, so include it in one file of a program. */
#ifndef TESTS_SUPPORT_MADE_UP_MODEL_H
#define TESTS_SUPPORT_MADE_UP_MODEL_H

#include "worker/model/counters.h"
#include "worker/model/model.h"

static _Thread_local int64_t the_counts[COUNTERS_ROUTING];
static _Thread_local struct counters the_counters;

struct counters *model_counters(struct model *model)
{
    (void)model;
    the_counters = (struct counters){.count = COUNTERS_ROUTING, .items = the_counts};
    return &the_counters;
}

void model_set_schedule(struct model *model, const struct loar_schedule *schedule, int64_t step, uint64_t draw)
{
    (void)model, (void)schedule, (void)step, (void)draw;
}

#endif
