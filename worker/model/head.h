/* Final norm, head and loss, over the tokens that take part only, in tiles: N x V logits never exist.
 * Private to worker/model. */
#ifndef WORKER_MODEL_HEAD_H
#define WORKER_MODEL_HEAD_H

#include "worker/model/state.h"

/* Residual stream after the last layer, in two parts: x[N][D] + added[N][D]. */
struct stream {
    const float *x, *added;
};

/* Lists the tokens of a batch that take a loss in workspace->rows, targets and weights (which hold enough): those with a
 * target, then the last ones of rows with a class, whose labels are listed in workspace->ranges. */
void head_choose(const struct batch *batch, const struct workspace *w);

/* Adds the losses of the chosen tokens to sums. With p->gradients: writes the gradients of both heads and of the norm and, to
 * workspace->dx, of the stream (zero for tokens not chosen). */
void head_loss(const struct pass *p, const struct plan *plan, struct stream stream, int64_t targets, int64_t classes,
               const struct batch *batch, struct loss_sums *sums);

/* logits[n][V] of rows first .. first + n - 1. */
void head_logits(const struct pass *p, const struct plan *plan, struct stream stream, int64_t first, int64_t n,
                 float *logits);
/* scores[B][K] of the last token of each sequence. */
void head_scores(const struct pass *p, const struct plan *plan, struct stream stream, const struct batch *batch, float *scores);

#endif
