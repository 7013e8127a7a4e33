#include "worker/loar/policy.h"

#include <math.h>
#include <string.h>

#include "common/rng.h"
#include "worker/loar/level.h"
#include "worker/loar/rank.h"

enum { TASK_DECISIONS = 32 };

static const struct policy_ops known[] = {
#define SOFTMAX &gate_softmax
#define SIGMOID &gate_sigmoid
#define POLICY(name, family, keeps, budget) {#name, family, KEEPS_##keeps, policy_##name},
#include "worker/loar/policies.def"
#undef POLICY
};

const struct policy_ops *policy_of(enum loar_policy policy)
{
    return &known[policy];
}

struct policies {
    const struct policy_setting *settings; /* [T] */
    const struct decisions *decisions;
    const struct loar_memory *memories;
    const float *z, *dgate, *importance, *levels;
    uint8_t *on;
    const uint8_t *on_before;
    float *gate, *dz;
};

static void run(struct threads *pool, struct policies *a, const struct policy_setting *settings,
                const struct decisions *decisions, threads_task_fn *fn)
{
    a->settings = settings;
    a->decisions = decisions;
    threads_run(pool, (decisions->count + TASK_DECISIONS - 1) / TASK_DECISIONS, fn, a);
}

static const struct policy_ops *ops_of(const struct policy_setting *s, const struct decision *d)
{
    return policy_of(loar_task_policy(s->config, d->task));
}

static int end_of(const struct policies *a, int task)
{
    int end = (task + 1) * TASK_DECISIONS;
    return end < a->decisions->count ? end : a->decisions->count;
}

static int count_on(int heads, const uint8_t *on)
{
    int count = 0;
    for (int h = 0; h < heads; h++)
        count += on[h];
    return count;
}

/* What holds for every rule: fallback, then always-on heads. */
static void complete(const struct loar_config *c, const struct policy_input *in, uint8_t *on)
{
    if (c->fallback == LOAR_FALLBACK_ALL && !count_on(in->heads, on))
        memset(on, 1, (size_t)in->heads);
    for (int i = 0; i < c->n_always_on; i++)
        on[c->always_on[i]] = 1;
    int missing = c->fallback == LOAR_FALLBACK_MIN_HEADS ? c->min_heads - count_on(in->heads, on) : 0;
    if (missing <= 0)
        return;
    int order[LOAR_MAX_HEADS];
    rank_order(in->heads, in->key, order);
    for (int i = 0; missing > 0; i++) {
        missing -= !on[order[i]];
        on[order[i]] = 1;
    }
}

/* Now and then one of the skipped heads runs, so that its gradient is seen. */
static void explore(const struct policy_setting *s, int decision, uint8_t *on)
{
    int skipped = s->heads - count_on(s->heads, on);
    uint64_t counter = (uint64_t)decision;
    if (!skipped || !(rng_uniform(s->explore_seed, s->explore_stream, counter) < s->config->explore))
        return;
    int pick = (int)rng_below(s->explore_seed, rng_substream(s->explore_stream, 1), counter, (uint64_t)skipped);
    int h = 0;
    while (on[h] || pick-- > 0)
        h++;
    on[h] = 1;
}

static void choose_one(const struct policy_setting *s, const struct policy_ops *ops, int decision, const float *z, uint8_t *on,
                       float *gate)
{
    float p[LOAR_MAX_HEADS], key[LOAR_MAX_HEADS];
    memcpy(key, z, (size_t)s->heads * sizeof *key);
    for (int i = 0; i < s->config->n_always_on; i++)
        key[s->config->always_on[i]] = INFINITY;
    ops->gate->values(s->heads, z, s->threshold, p);
    struct policy_input in = {s->heads, s->budget, s->config->c, z, p, s->threshold, key};
    ops->rule(&in, on);
    complete(s->config, &in, on);
    if (s->exploring)
        explore(s, decision, on);
    float scale = ops->gate->scale(s->heads);
    for (int h = 0; h < s->heads; h++)
        gate[h] = !on[h] ? 0 : s->config->gate == LOAR_SOFT ? scale * p[h] : 1;
}

static void choose_decisions(void *context, int task, int thread)
{
    (void)thread;
    const struct policies *a = context;
    int heads = a->settings->heads;
    for (int m = task * TASK_DECISIONS; m < end_of(a, task); m++) {
        const struct decision *d = &a->decisions->items[m];
        const float *z = a->z + m * (int64_t)heads;
        uint8_t *on = a->on + m * (int64_t)heads;
        float *gate = a->gate + m * (int64_t)heads;
        if (d->source == DECISION_KEPT) {
            memcpy(on, a->memories[d->sequence].on, (size_t)heads);
            memcpy(gate, a->memories[d->sequence].gate, (size_t)heads * sizeof *gate);
        } else if (d->source == DECISION_FREE || a->settings[d->task].budget >= 1) {
            for (int h = 0; h < heads; h++)
                on[h] = 1, gate[h] = 1;
        } else {
            const struct policy_setting *s = &a->settings[d->task];
            choose_one(s, ops_of(s, d), m, z, on, gate);
        }
    }
}

static enum status check(int heads, const struct decisions *decisions, const float *z,
                         const struct loar_memory *memories, struct error *err)
{
    for (int m = 0; m < decisions->count; m++) {
        const struct decision *d = &decisions->items[m];
        if (d->source == DECISION_KEPT && !memories)
            FAIL(err, STATUS_INTERNAL, "routing decision %d continues an earlier one, but there is no memory of it", m);
        for (int h = 0; d->source == DECISION_ROUTED && h < heads; h++)
            if (!isfinite(z[m * (int64_t)heads + h]))
                FAIL(err, STATUS_NUMERIC, "the router's score of head %d is %g in decision %d (sequence %d, tokens %d to %d)",
                     h, (double)z[m * (int64_t)heads + h], m, d->sequence, d->first, d->end - 1);
    }
    return STATUS_OK;
}

enum status policy_choose(struct threads *pool, const struct policy_setting *settings, const struct decisions *decisions,
                          const float *z, struct loar_memory *memories, uint8_t *on, float *gate, struct error *err)
{
    TRY(check(settings->heads, decisions, z, memories, err));
    struct policies a = {.memories = memories, .z = z, .on = on, .gate = gate};
    run(pool, &a, settings, decisions, choose_decisions);
    size_t heads = (size_t)settings->heads;
    for (int b = 0; memories && b < decisions->n_sequences; b++) {
        int64_t last = decisions->of_sequence[b + 1] - 1;
        if (last < decisions->of_sequence[b])
            continue;
        memcpy(memories[b].on, on + (size_t)last * heads, heads);
        memcpy(memories[b].gate, gate + (size_t)last * heads, heads * sizeof *gate);
    }
    return STATUS_OK;
}

static void backward_decisions(void *context, int task, int thread)
{
    (void)thread;
    const struct policies *a = context;
    const struct loar_config *c = a->settings->config;
    bool soft = c->gate == LOAR_SOFT, mute = c->stand_in == LOAR_NONE;
    float p[LOAR_MAX_HEADS], dp[LOAR_MAX_HEADS];
    for (int m = task * TASK_DECISIONS; m < end_of(a, task); m++) {
        const struct decision *d = &a->decisions->items[m];
        const struct policy_setting *s = &a->settings[d->task];
        const struct gate_ops *gates = ops_of(s, d)->gate;
        int64_t at = m * (int64_t)s->heads;
        if (d->source != DECISION_ROUTED || s->budget >= 1) {
            memset(a->dz + at, 0, (size_t)s->heads * sizeof *a->dz);
            continue;
        }
        float price = s->price * (float)(d->end - d->first) / (float)s->heads, scale = gates->scale(s->heads);
        gates->values(s->heads, a->z + at, s->threshold, p);
        for (int h = 0; h < s->heads; h++)
            dp[h] = price + (soft && !a->on_before[at + h] ? 0 : scale * a->dgate[at + h]);
        gates->backward(s->heads, p, dp, a->dz + at);
        for (int h = 0; mute && h < s->heads; h++)
            if (!a->on_before[at + h])
                a->dz[at + h] = 0;
    }
}

void policy_backward(struct threads *pool, const struct policy_setting *settings, const struct decisions *decisions,
                     const float *z, const uint8_t *on, const float *dgate, float *dz)
{
    struct policies a = {.z = z, .on_before = on, .dgate = dgate, .dz = dz};
    run(pool, &a, settings, decisions, backward_decisions);
}

/* What heads are worth to a policy of the softmax family: their part of each decision's importance. Returns false where nothing is
 * known of them. */
static bool wanted_shares(int heads, const float *importance, float *wanted)
{
    float sum = 0;
    for (int h = 0; h < heads; h++)
        sum += importance[h];
    for (int h = 0; h < heads && sum > 0; h++)
        wanted[h] = importance[h] / sum;
    return sum > 0;
}

/* The importance above which heads should run, [H]: decisions of a task share its budget, so that one where much hangs on attention
 * may have more heads than another. NaN where nothing is known: the loss reads no row of the task. */
static void fit_levels(const struct policy_setting *s, const struct decisions *decisions, int task, const float *importance,
                       float *room, float *level)
{
    float largest = 0;
    for (int m = 0; m < decisions->count; m++)
        for (int h = 0; level_counts(&decisions->items[m], task) && h < s->heads; h++)
            largest = fmaxf(largest, importance[m * (int64_t)s->heads + h]);
    bool per_head = s->config->per_head;
    for (int h = 0; h < s->heads; h++)
        level[h] = largest == 0        ? NAN
                   : h > 0 && !per_head ? level[0]
                                        : level_of(s->config, decisions, task, s->heads, per_head ? h : -1, s->target, importance, room);
}

static void fit_decisions(void *context, int task, int thread)
{
    (void)thread;
    const struct policies *a = context;
    static const float no_threshold[LOAR_MAX_HEADS]; /* thresholds follow the scores, which must not follow them back */
    float p[LOAR_MAX_HEADS], wanted[LOAR_MAX_HEADS];
    for (int m = task * TASK_DECISIONS; m < end_of(a, task); m++) {
        const struct decision *d = &a->decisions->items[m];
        const struct policy_setting *s = &a->settings[d->task];
        const struct gate_ops *gates = ops_of(s, d)->gate;
        const float *level = a->levels + d->task * (int64_t)s->heads;
        int64_t at = m * (int64_t)s->heads;
        bool told = d->source == DECISION_ROUTED;
        if (told && gates == &gate_softmax)
            told = wanted_shares(s->heads, a->importance + at, wanted);
        else if (told)
            told = !isnan(level[0]);
        memset(a->dz + at, 0, (size_t)s->heads * sizeof *a->dz);
        if (!told)
            continue;
        for (int h = 0; gates == &gate_sigmoid && h < s->heads; h++)
            wanted[h] = a->importance[at + h] > level[h];
        gates->values(s->heads, a->z + at, no_threshold, p);
        gates->fit(s->heads, p, wanted, a->dz + at);
        for (int h = 0; h < s->heads; h++)
            a->dz[at + h] *= (float)(d->end - d->first);
    }
}

void policy_fit(struct threads *pool, const struct policy_setting *settings, const struct decisions *decisions,
                const float *z, const float *importance, float *room, float *levels, float *dz)
{
    struct policies a = {.z = z, .importance = importance, .levels = levels, .dz = dz};
    const struct loar_config *c = settings->config;
    for (int t = 0; t < c->n_tasks; t++)
        if (policy_of(loar_task_policy(c, t))->gate == &gate_sigmoid)
            fit_levels(&settings[t], decisions, t, importance, room, levels + t * (int64_t)settings->heads);
    run(pool, &a, settings, decisions, fit_decisions);
}
