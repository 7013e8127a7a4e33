/* What the router looks at: means of a document's first tokens. All five features are one running sum, faded by a fixed
 * factor per token (1: plain mean, 0: the last token alone), read at the place each decision names.
 * Sums run in token order in double precision, so pieces and threads never change a bit.
 * Must not know: the router, heads. */
#ifndef WORKER_LOAR_FEATURES_H
#define WORKER_LOAR_FEATURES_H

#include "common/threads.h"
#include "worker/loar/decisions.h"
#include "worker/loar/memory.h"

/* f[M][D] from the normed input x[N][D] of a layer; rows of decisions that are not routed are zero.
 * memories: [B], advanced to the end of the batch; NULL where no document goes on (training). */
void features_forward(struct threads *pool, const struct loar_config *config, const struct decisions *decisions,
                      int64_t width, const float *x, struct loar_memory *memories, float *f);

#endif
