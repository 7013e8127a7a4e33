/* What `loar search` prints: tables of single layers, milliseconds, lists, and the end.
 * Must not know: how any of it was found. */
#ifndef LAUNCH_SEARCH_REPORT_H
#define LAUNCH_SEARCH_REPORT_H

#include "launch/search_trials.h"

void search_report_costs(const struct search_space *space, const double *cost, const char *origin);
void search_report_single(const struct search_space *space, const struct search_problem *problem, double dense);
/* dense: loss of the dense model on each split. */
void search_report_trials(const struct search_space *space, const struct search_problem *problem, const struct search_trials *trials,
                          double budget, const double dense[SEARCH_SPLITS]);
/* The winner beside the dense model and the best of each kind, on rows that had no say. */
void search_report_end(const struct search_space *space, const struct search_problem *problem, const struct search_trials *trials,
                       const double dense[SEARCH_SPLITS]);

#endif
