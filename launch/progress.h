/* One line at the foot of a terminal that says how far a run is and how long it will take, drawn anew in place.
 * Must not know: where the numbers come from; whether there is a terminal (who draws it knows). */
#ifndef LAUNCH_PROGRESS_H
#define LAUNCH_PROGRESS_H

#include <stdint.h>

#include "common/text.h"

struct progress_facts {
    int64_t step, total; /* steps done, of */
    double loss;         /* of the newest step; NaN: none */
    double tokens_per_second;
    double left_s; /* NaN: not known yet */
};

/* Appends the line, without its end and narrower than `columns`: what matters least is left out first. */
void progress_put(struct text *out, const struct progress_facts *facts, int columns);

#endif
