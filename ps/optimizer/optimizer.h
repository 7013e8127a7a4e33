/* Optimizers behind one interface: a rule updates any range of the flat space, so threads and servers take chunks as
 * they like and no bit depends on the cut. Also the norm of the gradient, by groups of tensors, and the clip factor.
 * Tensors with a rate (common/params.h) are moved by track.h instead; their states stay zero.
 * Gradients are sums over tokens; they are divided by the token weight once, inside the update (its `scale`).
 * Must not know: where a gradient came from, messages, files. */
#ifndef PS_OPTIMIZER_OPTIMIZER_H
#define PS_OPTIMIZER_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/params.h"
#include "common/status.h"
#include "common/threads.h"
#include "ps/shard.h"

struct optimizer_options {
    double beta1, beta2, epsilon; /* adam_beta1, adam_beta2, adam_epsilon */
    double weight_decay;
    double momentum; /* sgd */
    bool nesterov;   /* sgd */
};
#define OPTIMIZER_OPTIONS_DEFAULT ((struct optimizer_options){.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8})

/* What changes from step to step. */
struct optimizer_pace {
    double learning_rate;
    double scale; /* gradients are multiplied by it: clip factor / token weight */
};
struct optimizer_scalars {
    struct optimizer_pace pace[PARAM_GROUPS];
    int64_t step; /* number of this update since the states were zero, from 1 (Adam's bias correction) */
};

/* One run of values with one weight decay and one pace, as a rule sees it: all pointers at its first value. */
struct optimizer_span {
    float *parameters;
    float *states[SHARD_MAX_STATES];
    const float *gradient;
    int64_t count;
    double weight_decay;
    struct optimizer_pace pace;
};

struct optimizer_ops {
    const char *name; /* as in the snapshot: "adamw", "sgd" */
    /* Names of the states under these options; returns how many. */
    int (*states)(const struct optimizer_options *options, const char *names[SHARD_MAX_STATES]);
    enum status (*check)(const struct optimizer_options *options, struct error *err);
    /* Updates the span; false when a parameter became NaN or infinite. */
    bool (*update)(const struct optimizer_options *options, int64_t step, const struct optimizer_span *span);
};

extern const struct optimizer_ops optimizer_adamw, optimizer_sgd;

struct optimizer; /* ops, options, the trained tensors' ranges, scratch per chunk */

/* `name` as in the key optim: "adamw", "adamw_torch", "sgd". The table is borrowed.
 * STATUS_USAGE: unknown name, option out of bounds. */
enum status optimizer_create(const char *name, const struct optimizer_options *options, const struct params *table,
                             const struct chunks *chunks, struct optimizer **out, struct error *err);
void optimizer_free(struct optimizer *optimizer);
/* Other settings from the next update on; momentum and Nesterov's must be as they were, for states depend on them. */
enum status optimizer_set_options(struct optimizer *optimizer, const struct optimizer_options *options, struct error *err);
const char *optimizer_name(const struct optimizer *optimizer);
/* States to be kept beside the parameters: their number, and names [n_states] with static lifetime. */
int optimizer_n_states(const struct optimizer *optimizer);
const char *const *optimizer_state_names(const struct optimizer *optimizer);

/* Updates flat positions [begin, end). `parameters` and `states` are whole flat arrays, `gradient` points at the value
 * of position `begin`. Padding and tensors with a rate are left alone. Returns the flat position of the first parameter
 * that became NaN or infinite, or -1. Several threads may call it on ranges that do not overlap. */
int64_t optimizer_update(const struct optimizer *optimizer, const struct optimizer_scalars *scalars, int64_t begin,
                         int64_t end, float *parameters, float *const *states, const float *gradient);

/* Called right before a chunk changes, on the thread that changes it. */
typedef void optimizer_chunk_fn(void *context, int chunk);

/* One update of all chunks, tensors with a rate included; gradients[c] is the sum for chunk c [chunk_size(c)]. `before`
 * may be NULL.
 * STATUS_NUMERIC: a parameter became NaN or infinite; tensor and element are named. */
enum status optimizer_step(struct optimizer *optimizer, struct threads *pool, const struct optimizer_scalars *scalars,
                           struct shard *shard, const float *const *gradients, optimizer_chunk_fn *before,
                           void *context, struct error *err);

/* Sum of squares in double, in fixed blocks; not finite exactly when a value is not. */
double gradient_squares(const float *gradient, int64_t count);
/* Index of the first NaN or infinity, or -1. */
int64_t first_non_finite(const float *values, int64_t count);
/* Factor that brings `norm` down to `max_norm`: max_norm / (norm + 1e-6), at most 1 (torch.nn.utils.clip_grad_norm_);
 * 1 when max_norm is 0. */
double gradient_clip(double norm, double max_norm);

struct gradient_norm {
    double norm[PARAM_GROUPS]; /* Euclidean, of gradient / weight, over all chunks in chunk order; tensors with a rate left out */
    int64_t non_finite; /* flat position of the first NaN or infinite value in any tensor, or -1 */
};

/* weight: token weight by which the sums are to be divided, > 0. The same bits for any number of threads. */
struct gradient_norm gradient_norm(struct optimizer *optimizer, struct threads *pool, const float *const *gradients,
                                   double weight);

/* Writes "tensor 'name' [3, 17]" for a flat position ("padding after tensor ..." between tensors). */
void optimizer_locate(const struct optimizer *optimizer, int64_t position, char *text, size_t size);

#endif
