#include "worker/loar/loar.h"

#include <math.h>
#include <string.h>

#define WORD(name, text) text,
const char *const loar_feature_names[] = {LOAR_FEATURES(WORD)};
const char *const loar_granularity_names[] = {LOAR_GRANULARITIES(WORD)};
const char *const loar_gate_names[] = {LOAR_GATES(WORD)};
const char *const loar_fallback_names[] = {LOAR_FALLBACKS(WORD)};
const char *const loar_stand_in_names[] = {LOAR_STAND_INS(WORD)};
const char *const loar_router_names[] = {LOAR_ROUTERS(WORD)};
const char *const loar_policy_names[] = {
#define POLICY(name, family, keeps, budget) #name,
#include "worker/loar/policies.def"
#undef POLICY
};

/* What a policy's budget is a share of. */
enum { IGNORED, HEADS, WEIGHT };
static const uint8_t budget_of[] = {
#define POLICY(name, family, keeps, budget) budget,
#include "worker/loar/policies.def"
#undef POLICY
};

int loar_choice(const char *const *names, int count, const char *word)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(names[i], word))
            return i;
    return -1;
}

enum loar_policy loar_task_policy(const struct loar_config *config, int task)
{
    return config->tasks[task].has_policy ? config->tasks[task].policy : config->policy;
}

double loar_task_budget(const struct loar_config *config, int task, double budget)
{
    double scaled = budget * (config->tasks[task].scale > 0 ? config->tasks[task].scale : 1);
    return scaled < 1 ? scaled : 1;
}

bool loar_any_routed(const struct loar_layer *layers, int n_layers)
{
    for (int i = 0; i < n_layers; i++)
        if (layers[i].routed)
            return true;
    return false;
}

bool loar_is_leaky(const struct loar_config *config)
{
    return config->feature == LOAR_SEQ_MEAN;
}

int loar_heads_of(double budget, int heads)
{
    int count = (int)ceil(budget * heads - 1e-6); /* 0.28 * 25 is a little above 7 in doubles */
    return count < 1 ? 1 : count > heads ? heads : count;
}

static enum status check_feature(const struct loar_config *c, struct error *err)
{
    bool whole = c->feature == LOAR_PROMPT_MEAN || c->feature == LOAR_SEQ_MEAN;
    if (c->granularity == LOAR_BY_SEQUENCE && !whole)
        FAIL(err, STATUS_USAGE, "features %s with granularity sequence would decide before there is text to look at; "
             "choose granularity block or token, or features prompt_mean", loar_feature_names[c->feature]);
    if (c->granularity == LOAR_BY_BLOCK && c->block != 64 && c->block != 128)
        FAIL(err, STATUS_USAGE, "block is %d tokens; allowed are 64 and 128", c->block);
    if (c->feature == LOAR_EMA && !(c->ema_decay > 0 && c->ema_decay < 1))
        FAIL(err, STATUS_USAGE, "ema_decay is %g; it must lie between 0 and 1 (0.99 remembers about 100 tokens)",
             c->ema_decay);
    if (c->router_dim < 1 || c->router_dim > 65536)
        FAIL(err, STATUS_USAGE, "router_dim is %d; allowed are 1 to 65536 (64 is usual)", c->router_dim);
    if (c->n_tasks < 1 || c->n_tasks > LOAR_MAX_TASKS)
        FAIL(err, STATUS_USAGE, "there are %d tasks; routing needs at least one and handles at most %d", c->n_tasks,
             LOAR_MAX_TASKS);
    return STATUS_OK;
}

static enum status check_heads(const struct loar_config *c, int heads, struct error *err)
{
    if (heads < 1 || heads > LOAR_MAX_HEADS)
        FAIL(err, STATUS_USAGE, "the model has %d attention heads; routing handles 1 to %d", heads, LOAR_MAX_HEADS);
    if (c->n_always_on < 0 || c->n_always_on > heads)
        FAIL(err, STATUS_USAGE, "always_on lists %d heads, but the model has only %d in a layer; shorten the list",
             c->n_always_on, heads);
    for (int i = 0; i < c->n_always_on; i++) {
        if (c->always_on[i] < 0 || c->always_on[i] >= heads)
            FAIL(err, STATUS_USAGE, "always_on names head %d; this model's heads are 0 to %d", c->always_on[i], heads - 1);
        for (int j = 0; j < i; j++)
            if (c->always_on[j] == c->always_on[i])
                FAIL(err, STATUS_USAGE, "always_on names head %d twice; remove one", c->always_on[i]);
    }
    if (c->fallback == LOAR_FALLBACK_MIN_HEADS && (c->min_heads < 1 || c->min_heads > heads))
        FAIL(err, STATUS_USAGE, "min_heads is %d; allowed are 1 to %d, the model's heads in a layer", c->min_heads, heads);
    return STATUS_OK;
}

static enum status check_policy(const struct loar_config *c, int heads, struct error *err)
{
    bool softmax_rel = false;
    for (int t = 0; t < c->n_tasks; t++)
        softmax_rel = softmax_rel || loar_task_policy(c, t) == LOAR_POLICY_softmax_rel;
    if (softmax_rel && !(c->c > 0 && c->c <= heads))
        FAIL(err, STATUS_USAGE, "c is %g; it must be above 0 and at most %d, the number of heads (0.5 to 1 is usual)", c->c,
             heads);
    if (c->stand_in == LOAR_EXPLORE && !(c->explore > 0 && c->explore <= 1))
        FAIL(err, STATUS_USAGE, "explore is %g; with stand_in explore it must be above 0 and at most 1 (0.02 is usual)",
             c->explore);
    return STATUS_OK;
}

static enum status check_task(const struct loar_config *c, int heads, const struct loar_layer *layer, int index, int task,
                              struct error *err)
{
    enum loar_policy policy = loar_task_policy(c, task);
    double budget = loar_task_budget(c, task, layer->budget);
    int paid = loar_heads_of(budget, heads);
    if (budget == 1 && budget_of[policy] == IGNORED)
        FAIL(err, STATUS_USAGE, "layer %d: budget 1 keeps every head on, so policy %s would never route; give any smaller "
             "budget (its rule alone decides how many heads run) or leave the layer unrouted", index,
             loar_policy_names[policy]);
    if (budget_of[policy] == HEADS && c->n_always_on > paid)
        FAIL(err, STATUS_USAGE, "layer %d: %d heads are always on, but budget %g pays for %d of %d; raise the budget or "
             "shorten always_on", index, c->n_always_on, budget, paid, heads);
    return STATUS_OK;
}

static enum status check_layer(const struct loar_config *c, int heads, const struct loar_layer *layer, int index,
                               struct error *err)
{
    if (layer->window < 0 || layer->sinks < 0)
        FAIL(err, STATUS_USAGE, "layer %d: window %d and sinks %d must not be negative; window 0 means full attention",
             index, layer->window, layer->sinks);
    if (layer->window && c->granularity == LOAR_BY_BLOCK && layer->window < c->block)
        FAIL(err, STATUS_USAGE, "layer %d: window %d is shorter than a block of %d tokens; lengthen the window or choose "
             "granularity token", index, layer->window, c->block);
    if (layer->sinks && !layer->window)
        FAIL(err, STATUS_USAGE, "layer %d: %d sinks without a window have no effect; give the layer a window or drop them",
             index, layer->sinks);
    if (!layer->routed)
        return STATUS_OK;
    if (!(layer->budget > 0 && layer->budget <= 1))
        FAIL(err, STATUS_USAGE, "layer %d: budget is %g; it is a share of the heads, above 0 and at most 1", index,
             layer->budget);
    for (int t = 0; t < c->n_tasks; t++)
        TRY(check_task(c, heads, layer, index, t, err));
    return STATUS_OK;
}

enum status loar_check(const struct loar_config *config, const struct loar_shape *shape, const struct loar_layer *layers,
                       int n_layers, struct error *err)
{
    TRY(check_feature(config, err));
    TRY(check_heads(config, shape->heads, err));
    TRY(check_policy(config, shape->heads, err));
    for (int i = 0; i < n_layers; i++)
        TRY(check_layer(config, shape->heads, &layers[i], i, err));
    return STATUS_OK;
}
