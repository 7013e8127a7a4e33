/* The numbers of one evaluation by the names that people know: eval_loss, eval_<set>_exact_match, ..., and which of them there
 * will be, so that a metric that never comes is refused before the first step.
 * Must not know: how numbers come about. */
#ifndef LAUNCH_METRICS_H
#define LAUNCH_METRICS_H

#include <stdbool.h>

#include "common/status.h"
#include "common/text.h"

struct metric {
    char name[192]; /* with eval_ */
    double value;
};

struct metrics {
    struct metric *items;
    int count;
};

void metrics_free(struct metrics *metrics);
void metrics_clear(struct metrics *metrics);
/* "eval_<what>", or with a set "eval_<set>_<what>". */
enum status metrics_add(struct metrics *metrics, const char *set, const char *what, double value, struct error *err);
/* The value of a metric, named with or without eval_; NULL: there is none. */
const double *metrics_find(const struct metrics *metrics, const char *name);
/* All names, separated by ", ". */
void metrics_put_names(const struct metrics *metrics, struct text *out);

/* What the evaluation of one set, or of all sets, gives. */
enum metrics_kind {
    METRICS_LOSSES = 1,  /* loss, thought_loss, answer_loss, accuracy */
    METRICS_ANSWERS = 2, /* exact_match, exact_match_flexible, ... of answers that were generated */
    METRICS_CLASSES = 4, /* f1 */
};
/* Adds all names of these kinds with value 0: what an evaluation is going to give. */
enum status metrics_expect(struct metrics *metrics, const char *set, int kinds, struct error *err);

#endif
