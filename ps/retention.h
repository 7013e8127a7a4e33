/* Which snapshots may go: never the best one, never the last two, otherwise the oldest beyond the limit.
 * Must not know: HDF5, what is in a snapshot. */
#ifndef PS_RETENTION_H
#define PS_RETENTION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

struct retention {
    int save_total_limit; /* snapshots to keep, the best one included; 0: all. Less than 2 counts as 2 */
};

enum { RETENTION_ALWAYS_KEPT = 2 };

/* Marks in remove[count] which of the ascending steps go, now that `latest_step` is the newest of the run. Later steps
 * belong to a run that was given up (someone resumed before them): they neither count nor go. best_step < 0: none. */
void retention_choose(const struct retention *retention, const int64_t *steps, int count, int64_t latest_step,
                      int64_t best_step, bool *remove);
/* Removes snapshots of `dir` accordingly and what killed writers left behind (temporary files). The number of snapshots
 * removed goes to `removed` (may be NULL). */
enum status retention_prune(const struct retention *retention, const char *dir, int64_t latest_step, int64_t best_step,
                            int *removed, struct error *err);

#endif
