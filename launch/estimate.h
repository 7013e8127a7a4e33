/* What a run will need, from what is known before its first step.
 * Must not know: how it is shown. */
#ifndef LAUNCH_ESTIMATE_H
#define LAUNCH_ESTIMATE_H

#include "launch/report.h"
#include "launch/start.h"

/* What a rank holds at most, as a sum of its large parts. A worker: parameters, gradient of the micro-batch and of the
 * slot sums, and the activations of the longest micro-batch: per token and layer two norms, the residual, q, k, v and the
 * attention's result (width each, keys and values fewer), and three hidden rows; with recomputation one layer of these
 * and the residual of each. The server: parameters, optimizer states, their shadow for snapshots, and one gradient sum. */
struct plan_memory estimate_memory(const struct start *start);
/* Of one worker, all parts. */
int64_t estimate_worker_bytes(const struct plan_memory *memory);
/* Memory of this node; 0 if unknown. */
int64_t estimate_machine_bytes(void);
/* The step of the first epoch in which the micro-batch with most tokens comes, and that many tokens. */
enum status estimate_longest_batch(struct run *run, int64_t *step, int64_t *tokens, struct error *err);

#endif
