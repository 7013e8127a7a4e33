/* How stale a pull may be (stale synchronous parallel: Ho et al., NIPS 2013). A worker's clock counts the steps it
 * has pushed whole. A pull for step s must see every update up to step s - 1 - staleness.
 * staleness 0 = synchronous; negative = no bound.
 * Must not know: messages, time of day. */
#ifndef PS_CLOCK_H
#define PS_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

struct clock {
    int workers;
    int64_t staleness;
    int64_t *done; /* [workers] steps pushed whole */
};

/* All clocks start at `first_step`. */
enum status clock_init(struct clock *clock, int workers, int64_t staleness, int64_t first_step, struct error *err);
void clock_free(struct clock *clock);
/* The worker has pushed everything of its current step. */
void clock_advance(struct clock *clock, int worker);
/* Steps that `worker` has pushed whole. */
int64_t clock_of(const struct clock *clock, int worker);
/* Steps that all workers have pushed whole. */
int64_t clock_min(const struct clock *clock);
/* May `worker` receive parameters to compute step `step`? It may not run ahead of its own clock either. */
bool clock_may_pull(const struct clock *clock, int worker, int64_t step);
/* The worker with the lowest clock, the first of several. */
int clock_slowest(const struct clock *clock);

#endif
