/* Which heads run, given the router's scores: the rules (one file each in policies/, listed in policies.def), what all of
 * them share (full budget, always-on heads, fallback, exploration, gates), and the gradient of the scores.
 * M decisions, H heads. Must not know: how scores come about, attention. */
#ifndef WORKER_LOAR_POLICY_H
#define WORKER_LOAR_POLICY_H

#include "common/threads.h"
#include "worker/loar/decisions.h"
#include "worker/loar/gate.h"
#include "worker/loar/memory.h"

/* One decision as a rule sees it. */
struct policy_input {
    int heads;
    double budget;          /* below 1 */
    double c;               /* softmax_rel */
    const float *z, *p;     /* [H] scores, gate values before scaling */
    const float *threshold; /* [H] */
    const float *key;       /* [H] z, but infinite for heads that are always on: ranked, they come first */
};

/* A rule sets on[h] to 0 or 1. It may leave all heads off, and leave always-on heads off. */
typedef void policy_rule(const struct policy_input *in, uint8_t *on);
#define POLICY(name, family, keeps, budget) policy_rule policy_##name;
#include "worker/loar/policies.def"
#undef POLICY

enum policy_keeps { KEEPS_NOTHING, KEEPS_THRESHOLD, KEEPS_MULTIPLIER };

struct policy_ops {
    const char *name;
    const struct gate_ops *gate;
    enum policy_keeps keeps;
    policy_rule *rule;
};
const struct policy_ops *policy_of(enum loar_policy policy);

/* One layer in one pass, for the rows of one task. Whoever takes several takes one per task: [T]. */
struct policy_setting {
    const struct loar_config *config;
    int heads;
    double budget;           /* now; from 1 on all heads run, to the bit, and the router has no gradient */
    double target;           /* what the budget will come down to */
    const float *threshold;  /* [H] zeros where the policy keeps none */
    float price;             /* of a row's share of heads, in units of the loss */
    bool exploring;          /* training with stand_in explore */
    uint64_t explore_seed, explore_stream; /* fresh for every layer and slot */
};

/* on[M][H]: 1 where the head runs; gate[M][H]: what its output is multiplied by. memories: [B], where kept decisions
 * come from and the last ones go; NULL in training.
 * STATUS_NUMERIC names the first decision and head whose score is not finite. */
enum status policy_choose(struct threads *pool, const struct policy_setting *settings, const struct decisions *decisions,
                          const float *z, struct loar_memory *memories, uint8_t *on, float *gate, struct error *err);

/* dz[M][H] from dgate[M][H]. Hard gates: straight through, as if the output had been multiplied by the scaled gate value
 * of every head. Soft gates: exact for the heads that run, with the choice held fixed. */
void policy_backward(struct threads *pool, const struct policy_setting *settings, const struct decisions *decisions,
                     const float *z, const uint8_t *on, const float *dgate, float *dz);

/* While all heads still run: dz[M][H] that fits the router to the importance[M][H] of heads, for the target budget. Weighs
 * decisions by their rows. Softmax: towards each decision's shares of importance; decisions where it sums to 0 are left out.
 * Sigmoid, whose budget decisions share: towards running the heads that are among the budget's share of the most important ones of
 * the pass, whatever decisions they belong to; a task is left out where all its importance is 0.
 * room: [M * H], levels: [T][H], scratch. */
void policy_fit(struct threads *pool, const struct policy_setting *settings, const struct decisions *decisions,
                const float *z, const float *importance, float *room, float *levels, float *dz);

#endif
