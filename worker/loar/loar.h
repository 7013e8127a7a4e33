/* What a user chooses about attention routing, and whether the choices fit each other and the model.
 *
 * A router in each routed layer looks at a feature of the text so far and decides, for a token, a block of tokens or
 * a whole sequence, which attention heads run. Everything under worker/loar works on plain arrays.
 * Glossary: B sequences in N packed tokens, M decisions, H heads, C head size, D model width, R router width, T tasks.
 * Must not know: models, options, messages, files. */
#ifndef WORKER_LOAR_LOAR_H
#define WORKER_LOAR_LOAR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

enum { LOAR_MAX_HEADS = 1024, LOAR_MAX_TASKS = 64 };

/* What the router looks at, all taken from the layer's normed input.
 * prefix_mean: mean of the document before the decision's first token    ema: the same, older tokens fade
 * token: the decision's first token                prompt_mean: mean of the prompt, decides for all that follows it
 * seq_mean: mean of the whole sequence, later tokens included: leaks labels into training (kept for comparison) */
#define LOAR_FEATURES(X) X(PREFIX_MEAN, "prefix_mean") X(TOKEN, "token") X(PROMPT_MEAN, "prompt_mean") X(EMA, "ema") \
    X(SEQ_MEAN, "seq_mean")
/* prompt_mean and seq_mean decide once per sequence whatever the granularity. */
#define LOAR_GRANULARITIES(X) X(BY_TOKEN, "token") X(BY_BLOCK, "block") X(BY_SEQUENCE, "sequence")
/* hard: a head's output counts or not; soft: it is multiplied by the gate value. */
#define LOAR_GATES(X) X(HARD, "hard") X(SOFT, "soft")
/* all: no head passes -> all run; min_heads: the best run until there are min_heads of them. */
#define LOAR_FALLBACKS(X) X(FALLBACK_ALL, "all") X(FALLBACK_MIN_HEADS, "min_heads")
/* Where the gate gradient of a skipped head comes from.
 * normaliser: from the softmax denominator alone    average: from the head's average output
 * explore: now and then a skipped head runs          none: nowhere */
#define LOAR_STAND_INS(X) X(NORMALISER, "normaliser") X(AVERAGE, "average") X(EXPLORE, "explore") X(NONE, "none")

/* What a router may learn. static: one choice of heads for all text of a task, by their importance in the dense steps;
 * random: nothing, it stays as it was drawn. Both are for comparison. */
#define LOAR_ROUTERS(X) X(LEARNED, "learned") X(STATIC, "static") X(RANDOM, "random")

#define LOAR_ENUM(name, text) LOAR_##name,
#define LOAR_COUNT(name, text) +1
enum loar_feature { LOAR_FEATURES(LOAR_ENUM) LOAR_N_FEATURES };
enum loar_granularity { LOAR_GRANULARITIES(LOAR_ENUM) LOAR_N_GRANULARITIES };
enum loar_gate { LOAR_GATES(LOAR_ENUM) LOAR_N_GATES };
enum loar_fallback { LOAR_FALLBACKS(LOAR_ENUM) LOAR_N_FALLBACKS };
enum loar_stand_in { LOAR_STAND_INS(LOAR_ENUM) LOAR_N_STAND_INS };
enum loar_router_kind { LOAR_ROUTERS(LOAR_ENUM) LOAR_N_ROUTERS };
enum loar_policy {
#define POLICY(name, family, keeps, budget) LOAR_POLICY_##name,
#include "worker/loar/policies.def"
#undef POLICY
    LOAR_N_POLICIES
};
#undef LOAR_ENUM
#undef LOAR_COUNT

/* The words of each choice, in the order of its enum. */
extern const char *const loar_feature_names[LOAR_N_FEATURES], *const loar_granularity_names[LOAR_N_GRANULARITIES],
    *const loar_gate_names[LOAR_N_GATES], *const loar_fallback_names[LOAR_N_FALLBACKS],
    *const loar_stand_in_names[LOAR_N_STAND_INS], *const loar_router_names[LOAR_N_ROUTERS],
    *const loar_policy_names[LOAR_N_POLICIES];
/* Index of a word, or -1. */
int loar_choice(const char *const *names, int count, const char *word);

/* Where a task differs from the rest; all zero: nowhere. */
struct loar_task {
    bool has_policy;
    enum loar_policy policy;
    double scale; /* of every layer's budget, which stays at most 1; 0: 1 */
};

struct loar_config {
    enum loar_feature feature;
    enum loar_granularity granularity;
    int block;      /* tokens: 64 or 128 */
    int router_dim; /* R */
    enum loar_router_kind router;
    enum loar_policy policy;
    double c;       /* softmax_rel: a head runs when its softmax exceeds c / H */
    bool per_head;  /* quantile: a threshold for each head instead of one for the layer */
    enum loar_gate gate;
    int n_always_on, always_on[LOAR_MAX_HEADS];
    enum loar_fallback fallback;
    int min_heads;
    double ema_decay; /* weight of a token relative to the one after it */
    enum loar_stand_in stand_in;
    double explore; /* share of decisions in which one skipped head runs */
    int n_tasks;    /* T */
    struct loar_task tasks[LOAR_MAX_TASKS];
};
#define LOAR_CONFIG_DEFAULT                                                                                          \
    ((struct loar_config){.feature = LOAR_PREFIX_MEAN, .granularity = LOAR_BY_BLOCK, .block = 64, .router_dim = 64,    \
                          .policy = LOAR_POLICY_quantile, .c = 0.75, .gate = LOAR_HARD,                                \
                          .fallback = LOAR_FALLBACK_MIN_HEADS, .min_heads = 1, .ema_decay = 0.99,                      \
                          .stand_in = LOAR_AVERAGE, .explore = 0.02, .n_tasks = 1})

struct loar_layer {
    bool routed;
    int window;    /* keys behind a query, itself included; 0: all */
    int sinks;     /* first tokens that stay visible outside the window */
    double budget; /* share of heads that run; topp: share of the softmax that the heads that run hold */
};

/* The model the choices are for. */
struct loar_shape {
    int64_t width; /* D */
    int heads;     /* H */
    int head_dim;  /* C */
};

/* STATUS_USAGE with what is wrong and what to do. Layers are counted from 0 in messages. */
enum status loar_check(const struct loar_config *config, const struct loar_shape *shape, const struct loar_layer *layers,
                       int n_layers, struct error *err);
enum loar_policy loar_task_policy(const struct loar_config *config, int task);
/* Share of heads for the task in a layer of this budget. */
double loar_task_budget(const struct loar_config *config, int task, double budget);
/* Whether any of the layers has a router. */
bool loar_any_routed(const struct loar_layer *layers, int n_layers);
/* True when decisions depend on tokens that come after them. */
bool loar_is_leaky(const struct loar_config *config);
/* Heads that the budget buys: ceil(budget * heads), at least one. */
int loar_heads_of(double budget, int heads);

#endif
