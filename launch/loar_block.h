/* From the `loar` block of the options to the routing of a model: what each layer does, which tasks there are, how routing
 * is let in.
 * Must not know: rows, ranks, parameters. */
#ifndef LAUNCH_LOAR_BLOCK_H
#define LAUNCH_LOAR_BLOCK_H

#include "common/options.h"
#include "common/status.h"
#include "worker/loar/schedule.h"
#include "worker/model/model.h"

/* Where the options ask for routing, checks them against the model and sets config->loar, which loar_block_free releases;
 * else the model is dense. Tasks are those of the training data sets, in their order. */
enum status loar_block_plan(const struct options *options, struct model_config *config, struct error *err);
void loar_block_free(struct model_config *config);

/* Number of a task among those of the training data sets, or -1. */
int loar_block_task(const struct options *options, const char *name);
/* The one for requests and evaluation rows of other tasks. */
int loar_block_default_task(const struct options *options);

/* STATUS_USAGE when the parts of the schedule do not fit into the steps. */
enum status loar_block_schedule(const struct options *options, int64_t total_steps, struct loar_schedule *out,
                                struct error *err);

#endif
