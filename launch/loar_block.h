/* From the `loar` block of the options to the routing of a model: what each layer does, which tasks there are, how routing
 * is let in.
 * Must not know: rows, ranks, parameters. */
#ifndef LAUNCH_LOAR_BLOCK_H
#define LAUNCH_LOAR_BLOCK_H

#include "common/options.h"
#include "common/status.h"
#include "launch/loar_setup.h"
#include "worker/loar/schedule.h"

/* Where the options ask for routing, checks them against the model; else NULL. Tasks are those of the training data sets,
 * in their order. */
enum status loar_block_read(const struct options *options, const struct model_config *config, struct loar_setup **out,
                            struct error *err);

/* Whether a layer does everything under the preset `article` or `interleave` (any other: always). */
bool loar_block_stays_dense(const char *preset, int layer, int layers);

/* How routing is let in over the steps. taken_over: it was learnt before and came with the model's folder.
 * STATUS_USAGE when the parts of the schedule do not fit into the steps. */
enum status loar_block_schedule(const struct options *options, bool taken_over, int64_t total_steps, struct loar_schedule *out,
                                struct error *err);

#endif
