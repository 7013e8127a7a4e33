/* A run's own first steps, taken to see what they cost: server and one worker as two threads of this process, the messages,
 * the optimizer, everything but files. Nothing is written.
 * Must not know: how it is shown. */
#ifndef LAUNCH_PROBE_H
#define LAUNCH_PROBE_H

#include "launch/start.h"

enum { PROBE_STEPS = 3 };

struct probe {
    int64_t first_step;               /* from 0; the micro-batch with most tokens is in one of these steps */
    int64_t tokens[PROBE_STEPS];      /* in the step */
    double seconds[PROBE_STEPS], loss[PROBE_STEPS]; /* loss: mean over the step's tokens */
    int64_t eval_tokens;              /* of the first batch of each evaluation set */
    double eval_seconds;
    int64_t peak_bytes; /* memory of the process at most so far: rows twice, server and worker */
};

/* Takes the steps; `start` has been trained a little then and is of no further use. */
enum status probe_run(struct start *start, struct probe *out, struct error *err);

/* Seconds of the whole run with so many workers, each on a machine of its own like this one, without what exchange adds;
 * evaluations are counted in, snapshots are not. */
double probe_estimate(const struct probe *probe, const struct start *start, int workers);

#endif
