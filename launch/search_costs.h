/* The table of what options cost as a file, for users who measured on another machine:
 * `costs: [{window: 0, budget: 1, ms: 12.5}, ...]`.
 * Must not know: how costs are measured. */
#ifndef LAUNCH_SEARCH_COSTS_H
#define LAUNCH_SEARCH_COSTS_H

#include "common/status.h"
#include "common/text.h"
#include "worker/loar/search.h"

void search_costs_put(const struct search_space *space, const double *cost, struct text *out);
/* cost[O] from a file, which may hold further options. STATUS_USAGE names the place of what is wrong, or the option that is
 * missing. */
enum status search_costs_read(const char *path, const struct search_space *space, double *cost, struct error *err);

#endif
