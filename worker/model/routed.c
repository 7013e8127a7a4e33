#include "worker/model/routed.h"

#include <string.h>

#include "common/memory.h"
#include "worker/loar/features.h"
#include "worker/loar/gate_gradient.h"
#include "worker/loar/policy.h"
#include "worker/loar/track.h"
#include "worker/model/lora.h"
#include "worker/ops/heads.h"
#include "worker/ops/rope.h"

enum status routing_create(const struct model_config *c, struct routing **out, struct error *err)
{
    const struct loar_plan *plan = c->loar;
    const struct loar_shape shape = model_shape(c);
    if (plan)
        TRY(loar_check(&plan->config, &shape, plan->layers, c->layers, err));
    struct routing *r = mem_alloc(1, sizeof *r);
    if (!r)
        FAIL(err, STATUS_NOMEM, "no memory for the routing of %d layers", c->layers);
    r->plan = plan;
    r->layers = mem_alloc((size_t)c->layers, sizeof *r->layers);
    size_t tasks = plan ? (size_t)plan->config.n_tasks : 1;
    r->threshold = mem_alloc(tasks * (size_t)c->heads, sizeof *r->threshold);
    r->levels = mem_alloc(tasks * (size_t)c->heads, sizeof *r->levels);
    r->offsets = mem_alloc((size_t)c->heads, sizeof *r->offsets);
    r->multiplier = mem_alloc(tasks, sizeof *r->multiplier);
    r->settings = mem_alloc(tasks, sizeof *r->settings);
    r->budgets = mem_alloc(tasks, sizeof *r->budgets);
    r->vectors = mem_alloc((size_t)(c->heads * c->width), sizeof *r->vectors);
    bool complete = r->layers && r->threshold && r->levels && r->offsets && r->multiplier && r->settings && r->budgets && r->vectors;
    for (int i = 0; complete && i < c->layers; i++)
        complete = (r->layers[i].layout = mem_alloc((size_t)c->heads, sizeof *r->layers[i].layout)) != NULL;
    if (!complete) {
        routing_free(r, c->layers);
        FAIL(err, STATUS_NOMEM, "no memory for the routing of %d layers", c->layers);
    }
    *out = r;
    return STATUS_OK;
}

static void layer_free(struct layer_routing *r)
{
    mem_free(r->f);
    mem_free(r->hidden);
    mem_free(r->z);
    mem_free(r->gate);
    mem_free(r->on);
    row_lists_free(&r->lists);
}

void routing_free(struct routing *r, int layers)
{
    if (!r)
        return;
    for (int i = 0; r->layers && i < layers; i++) {
        layer_free(&r->layers[i]);
        mem_free(r->layers[i].layout);
    }
    decisions_free(&r->decisions);
    void *const blocks[] = {r->layers, r->wanted, r->positions, r->delta, r->dgate, r->dz, r->stand_in, r->vectors, r->sums,
                            r->threshold, r->levels, r->multiplier, r->settings, r->budgets, r->offsets};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        mem_free(blocks[i]);
    mem_free(r);
}

static enum status renew(void *array, size_t count, size_t size, struct error *err)
{
    void *block;
    memcpy(&block, array, sizeof block);
    mem_free(block);
    block = mem_alloc(count, size);
    memcpy(array, &block, sizeof block);
    if (!block)
        FAIL(err, STATUS_NOMEM, "no memory for routing %zu values", count);
    return STATUS_OK;
}

/* Room for the decisions of the batch, in all layers. */
static enum status reserve(struct routing *r, const struct model_config *c, struct error *err)
{
    size_t m = (size_t)r->decisions.count, n = (size_t)r->decisions.n_tokens, h = (size_t)c->heads, d = (size_t)c->width;
    if (n > r->tokens) {
        r->tokens = 0;
        TRY(renew(&r->positions, n * h, sizeof *r->positions, err));
        TRY(renew(&r->wanted, n, sizeof *r->wanted, err));
        TRY(renew(&r->delta, n * h, sizeof *r->delta, err));
        r->tokens = n;
    }
    if (m <= r->count || !r->plan)
        return STATUS_OK;
    r->count = 0;
    TRY(renew(&r->dgate, m * h, sizeof *r->dgate, err));
    TRY(renew(&r->dz, m * h, sizeof *r->dz, err));
    TRY(renew(&r->stand_in, m * h, sizeof *r->stand_in, err));
    TRY(renew(&r->sums, m * d, sizeof *r->sums, err));
    for (int i = 0; i < c->layers; i++) {
        struct layer_routing *l = &r->layers[i];
        if (!r->plan->layers[i].routed)
            continue;
        TRY(renew(&l->f, m * d, sizeof *l->f, err));
        TRY(renew(&l->hidden, m * (size_t)r->plan->config.router_dim, sizeof *l->hidden, err));
        TRY(renew(&l->z, m * h, sizeof *l->z, err));
        TRY(renew(&l->gate, m * h, sizeof *l->gate, err));
        TRY(renew(&l->on, m * h, sizeof *l->on, err));
    }
    r->count = m;
    return STATUS_OK;
}

enum status routing_begin(struct routing *r, const struct model_config *config, int n_sequences, const int32_t *starts,
                          const int32_t *earlier, const int32_t *prompts, const int32_t *tasks, struct error *err)
{
    r->status = STATUS_OK;
    r->picks = false;
    if (!r->plan)
        return STATUS_OK;
    TRY(decisions_make(&r->plan->config, n_sequences, starts, earlier, prompts, tasks, &r->decisions, err));
    return reserve(r, config, err);
}

/* One decision per sequence, for the lists of a model that routes nothing. */
static enum status decide_nothing(struct routing *r, int n_sequences, const int32_t *starts, struct error *err)
{
    static const struct loar_config config = {.feature = LOAR_PROMPT_MEAN, .granularity = LOAR_BY_SEQUENCE, .n_tasks = 1};
    int32_t *zeros = mem_alloc((size_t)n_sequences, sizeof *zeros);
    if (!zeros)
        FAIL(err, STATUS_NOMEM, "no memory for the rows of %d sequences", n_sequences);
    enum status st = decisions_make(&config, n_sequences, starts, NULL, zeros, zeros, &r->decisions, err);
    mem_free(zeros);
    return st;
}

enum status routing_pick(struct routing *r, const struct model_config *c, int n_sequences, const int32_t *starts,
                         const int32_t *rows, int64_t count, int64_t *picked, struct error *err)
{
    int64_t n = starts[n_sequences];
    *picked = 0;
    if (!routing_picks(count, n))
        return STATUS_OK;
    if (!r->plan) {
        TRY(decide_nothing(r, n_sequences, starts, err));
        TRY(reserve(r, c, err));
    }
    memset(r->wanted, 0, (size_t)n);
    for (int64_t i = 0; i < count; i++)
        r->wanted[rows[i]] = 1;
    r->picks = true;
    *picked = count;
    return STATUS_OK;
}

enum status routing_end(const struct routing *r, struct error *err)
{
    if (r->status != STATUS_OK)
        *err = r->err;
    return r->status;
}

static const struct loar_layer *shape_of(const struct pass *p, const struct layer_places *at)
{
    return p->routing->plan ? &p->routing->plan->layers[at->layer] : NULL;
}

static bool is_routed(const struct pass *p, const struct layer_places *at)
{
    const struct loar_layer *shape = shape_of(p, at);
    return shape && shape->routed && p->routing->status == STATUS_OK;
}

/* The rows that the layer computes, or NULL for all. */
static const uint8_t *wanted_of(const struct pass *p, const struct layer_places *at)
{
    return p->routing->picks && at->layer == p->config->layers - 1 ? p->routing->wanted : NULL;
}

struct attention routed_attention(const struct pass *p, const struct layer_places *at)
{
    struct attention a = p->attention;
    const struct loar_layer *shape = shape_of(p, at);
    if (p->cached) {
        const struct cached_layer *cached = &p->cached[at->layer];
        a.segments = &cached->segment;
        a.kv_row = p->config->head_dim;
        a.kv_head = cached->capacity * p->config->head_dim;
    }
    if (shape) {
        a.window = shape->window;
        a.sinks = shape->sinks;
    }
    return a;
}

static struct loar_moment moment_of(const struct routing *r, int layer, int task)
{
    double target = loar_task_budget(&r->plan->config, task, r->plan->layers[layer].budget);
    return r->scheduled ? loar_schedule_at(&r->schedule, r->step, target) : (struct loar_moment){LOAR_STAGE_FROZEN, target};
}

static enum loar_stage stage_of(const struct routing *r, int layer)
{
    return moment_of(r, layer, 0).stage;
}

/* Reads what the layer keeps into r->threshold and r->multiplier; r->settings for its tasks. */
static void set_tasks(const struct pass *p, const struct layer_places *at)
{
    struct routing *r = p->routing;
    const struct loar_config *c = &r->plan->config;
    const struct loar_places *places = &at->router;
    int heads = p->config->heads;
    memset(r->threshold, 0, (size_t)(c->n_tasks * heads) * sizeof *r->threshold);
    memset(r->multiplier, 0, (size_t)c->n_tasks * sizeof *r->multiplier);
    if (places->threshold >= 0)
        track_read_thresholds(c, heads, p->values + places->threshold, r->threshold);
    if (places->multiplier >= 0)
        track_read_multipliers(c->n_tasks, p->values + places->multiplier, r->multiplier);
    for (int t = 0; t < c->n_tasks; t++) {
        struct loar_moment now = moment_of(r, at->layer, t);
        r->budgets[t] = now.budget;
        r->settings[t] = (struct policy_setting){
            .config = c, .heads = heads, .budget = now.budget,
            .target = loar_task_budget(c, t, r->plan->layers[at->layer].budget),
            .threshold = r->threshold + t * heads, .price = r->multiplier[t],
            .exploring = p->gradients && c->stand_in == LOAR_EXPLORE && now.stage != LOAR_STAGE_FROZEN,
            .explore_seed = r->draw, .explore_stream = (uint64_t)at->layer,
        };
    }
}

static bool is_soft(const struct pass *p)
{
    return p->routing->plan && p->routing->plan->config.gate == LOAR_SOFT;
}

/* The compact rows of all heads behind each other. Soft gates below the full budget are factors even where all run. */
static void lay_out(const struct pass *p, bool routed, struct layer_routing *l)
{
    const struct model_config *c = p->config;
    int64_t at = 0;
    l->all = true;
    l->gated = routed && is_soft(p);
    for (int t = 0; l->gated && t < p->routing->plan->config.n_tasks; t++)
        l->all = l->all && p->routing->budgets[t] >= 1;
    for (int h = 0; h < c->heads; h++) {
        l->layout[h] = (struct attention_head){at, c->head_dim, l->lists.all[h] ? NULL : row_lists_of(&l->lists, h),
                                               l->lists.bounds + h * (int64_t)(l->lists.n_sequences + 1)};
        at += row_lists_count(&l->lists, h) * c->head_dim;
        l->all = l->all && l->lists.all[h];
    }
}

/* Heads of the routed layer: on, gate. */
static enum status choose_heads(const struct pass *p, const struct layer_places *at, const float *normed, struct layer_routing *l)
{
    struct routing *r = p->routing;
    const struct loar_shape model = model_shape(p->config);
    struct router router = loar_router(&r->plan->config, &model, &at->router, p->values);
    struct loar_memory *memory = p->memories ? &p->memories[at->layer] : NULL;
    set_tasks(p, at);
    features_forward(p->pool, &r->plan->config, &r->decisions, p->config->width, normed, memory, l->f);
    router_forward(p->pool, &router, &r->decisions, l->f, l->hidden, l->z);
    return policy_choose(p->pool, r->settings, &r->decisions, l->z, memory, l->on, l->gate, &r->err);
}

struct layer_routing *routed_choose(const struct pass *p, const struct layer_places *at, const float *normed)
{
    struct routing *r = p->routing;
    const uint8_t *wanted = wanted_of(p, at);
    struct layer_routing *l = &r->layers[at->layer];
    bool routed = is_routed(p, at);
    if ((!routed && !wanted) || r->status != STATUS_OK)
        return NULL;
    if (routed && r->keeps)
        return l;
    if (routed)
        r->status = choose_heads(p, at, normed, l);
    if (r->status == STATUS_OK)
        r->status = row_lists_make(p->pool, &r->decisions, p->config->heads, routed ? l->on : NULL, wanted, &l->lists, &r->err);
    if (r->status != STATUS_OK)
        return NULL;
    lay_out(p, routed, l);
    if (p->counters && routed) {
        struct routing_counts counts = counters_routing(p->counters);
        routing_counts_add(&counts, at->layer, &r->decisions, l->on);
    }
    return l;
}

struct layer_routing *routed_chosen(const struct pass *p, const struct layer_places *at)
{
    bool chose = is_routed(p, at) || (wanted_of(p, at) && p->routing->status == STATUS_OK);
    return chose ? &p->routing->layers[at->layer] : NULL;
}

static struct heads heads_of(const struct pass *p, const struct layer_routing *r)
{
    return (struct heads){p->config->heads, (int)p->config->head_dim, p->config->width, p->n, r->lists.n_sequences, r->layout,
                          p->attention.scratch};
}

/* Turns the compact rows x by RoPE. */
static void turn(const struct pass *p, const struct layer_routing *r, int direction, float *x)
{
    int32_t *positions = p->routing->positions;
    int64_t n = 0;
    for (int h = 0; h < p->config->heads; h++)
        for (int64_t j = 0; j < row_lists_count(&r->lists, h); j++)
            positions[n++] = p->positions[row_lists_of(&r->lists, h)[j]];
    rope_apply(p->pool, n, 1, (int)p->config->head_dim, positions, p->cosine, p->sine, direction, x);
}

void routed_queries(const struct pass *p, const struct layer_places *at, struct layer_routing *r, const float *normed, float *q)
{
    struct heads heads = heads_of(p, r);
    heads_gather(p->pool, &heads, HEADS_ROWS, p->values + at->q, at->q_bias >= 0 ? p->values + at->q_bias : NULL, normed, false,
                 q);
    lora_queries_forward(p, at, &heads, normed, q);
    turn(p, r, 1, q);
}

/* Multiplies the rows of each head by the gate of their decision. */
static void apply_gates(const struct pass *p, const struct layer_routing *r, float *x)
{
    int64_t heads = p->config->heads, c = p->config->head_dim;
    for (int64_t h = 0; h < heads; h++) {
        const int32_t *rows = row_lists_of(&r->lists, (int)h);
        for (int64_t j = 0; j < row_lists_count(&r->lists, (int)h); j++) {
            float gate = r->gate[p->routing->decisions.of_token[rows[j]] * heads + h];
            for (int64_t i = 0; i < c; i++)
                x[r->layout[h].offset + j * c + i] *= gate;
        }
    }
}

void routed_output(const struct pass *p, const struct layer_places *at, struct layer_routing *r, float *attended, float *out)
{
    struct heads heads = heads_of(p, r);
    if (r->gated)
        apply_gates(p, r, attended);
    heads_scatter(p->pool, &heads, HEADS_COLUMNS, p->values + at->o, attended, false, out);
    lora_output_forward(p, at, &heads, attended, out);
}

void routed_output_backward(const struct pass *p, const struct layer_places *at, struct layer_routing *r,
                            const struct attention *attention, const float *attended, const float *dy, float *dattended,
                            float *delta)
{
    struct heads heads = heads_of(p, r);
    heads_gather(p->pool, &heads, HEADS_COLUMNS, p->values + at->o, NULL, dy, false, dattended);
    float *dout = gradient_of(p, at->o);
    if (dout)
        heads_weight_gradient(p->pool, &heads, HEADS_COLUMNS, attended, dy, dout);
    lora_output_backward(p, at, &heads, attended, dy, dattended);
    attention_delta(p->pool, attention, attended, dattended, delta); /* of gated outputs: the same number */
    if (r->gated)
        apply_gates(p, r, dattended);
}

void routed_queries_backward(const struct pass *p, const struct layer_places *at, struct layer_routing *r, const float *normed,
                             float *dq, float *dnormed)
{
    struct heads heads = heads_of(p, r);
    turn(p, r, -1, dq);
    float *dweight = gradient_of(p, at->q), *dbias = gradient_of(p, at->q_bias);
    if (dbias)
        heads_bias_gradient(&heads, dq, dbias);
    if (dweight)
        heads_weight_gradient(p->pool, &heads, HEADS_ROWS, dq, normed, dweight);
    heads_scatter(p->pool, &heads, HEADS_ROWS, p->values + at->q, dq, false, dnormed);
    lora_queries_backward(p, at, &heads, normed, dq, dnormed);
}

/* delta [N][H] from where the layer placed it; zero in rows that were not computed. */
static const float *spread(const struct pass *p, const struct layer_routing *r, const float *delta)
{
    if (r->all)
        return delta;
    float *out = p->routing->delta;
    int64_t heads = p->config->heads;
    memset(out, 0, (size_t)(p->n * heads) * sizeof *out);
    for (int64_t h = 0; h < heads; h++) {
        const int32_t *rows = row_lists_of(&r->lists, (int)h);
        const float *from = delta + r->layout[h].offset / p->config->head_dim;
        for (int64_t j = 0; j < row_lists_count(&r->lists, (int)h); j++)
            out[rows[j] * heads + h] = from[j];
    }
    return out;
}

/* What a layer keeps, as sums of what this pass saw; nothing once it is frozen. */
static void track(const struct pass *p, const struct layer_places *at, const struct layer_routing *l,
                  enum loar_stage stage, const float *attended)
{
    struct routing *r = p->routing;
    const struct loar_config *c = &r->plan->config;
    const struct loar_places *to = &at->router;
    int64_t heads = p->config->heads, dim = p->config->head_dim;
    size_t threshold = (size_t)(c->n_tasks * (track_threshold_width(c, (int)heads) + 1)), average = (size_t)(heads * (dim + 1));
    bool frozen = stage == LOAR_STAGE_FROZEN;
    if (to->threshold >= 0 && frozen)
        memset(p->gradients + to->threshold, 0, threshold * sizeof(float));
    else if (to->threshold >= 0)
        track_threshold(c, &r->decisions, (int)heads, r->budgets, l->z, r->threshold, r->dgate,
                        p->gradients + to->threshold);
    if (to->multiplier >= 0 && frozen)
        memset(p->gradients + to->multiplier, 0, (size_t)c->n_tasks * 2 * sizeof(float));
    else if (to->multiplier >= 0)
        track_multiplier(c, &r->decisions, (int)heads, r->budgets, l->on, p->values + to->multiplier,
                         p->gradients + to->multiplier);
    /* Soft gates have scaled what was attended, so it no longer tells the average. */
    if (to->average >= 0 && (frozen || is_soft(p))) {
        memset(p->gradients + to->average, 0, average * sizeof(float));
    } else if (to->average >= 0) {
        for (int64_t h = 0; h < heads; h++)
            r->offsets[h] = l->all ? h * dim : l->layout[h].offset;
        track_average(p->pool, &l->lists, (int)dim, attended, r->offsets, l->all ? heads * dim : dim, p->values + to->average,
                      p->gradients + to->average);
    }
}

void routed_router_backward(const struct pass *p, const struct layer_places *at, const struct layer_routing *l,
                            const float *attended, const float *delta, const float *dy)
{
    if (!is_routed(p, at))
        return;
    struct routing *r = p->routing;
    const struct model_config *c = p->config;
    const struct loar_shape shape = model_shape(c);
    const struct decisions *d = &r->decisions;
    enum loar_stage stage = stage_of(r, at->layer);
    enum loar_router_kind kind = r->plan->config.router;
    set_tasks(p, at);
    const float *all_delta = spread(p, l, delta);
    if (kind == LOAR_RANDOM || (kind == LOAR_STATIC && stage != LOAR_STAGE_DENSE)) {
        memset(r->dz, 0, (size_t)(d->count * c->heads) * sizeof *r->dz);
    } else if (stage == LOAR_STAGE_DENSE) {
        gate_importance(p->pool, d, c->heads, all_delta, r->dgate);
        policy_fit(p->pool, r->settings, d, l->z, r->dgate, r->stand_in, r->levels, r->dz);
    } else {
        bool stands_in = at->router.average >= 0 && !is_soft(p);
        if (stands_in) {
            stand_in_vectors(p->pool, c->width, c->heads, (int)c->head_dim, p->values + at->o, p->values + at->router.average,
                             r->vectors);
            lora_stand_in(p, at, p->values + at->router.average, r->vectors);
            stand_in_gradient(p->pool, d, c->width, c->heads, dy, r->vectors, r->sums, r->stand_in);
        }
        gate_gradient(p->pool, d, c->heads, all_delta, l->on, stands_in ? r->stand_in : NULL, r->dgate);
        for (int64_t i = 0; is_soft(p) && i < (int64_t)d->count * c->heads; i++)
            if (l->on[i] && l->gate[i] != 0)
                r->dgate[i] /= l->gate[i];
        policy_backward(p->pool, r->settings, d, l->z, l->on, r->dgate, r->dz);
    }
    track(p, at, l, stage, attended);
    struct router router = loar_router(&r->plan->config, &shape, &at->router, p->values);
    struct router_gradient gradient = loar_router_gradient(&at->router, p->gradients);
    router_backward(p->pool, &router, d, l->f, l->hidden, r->dz, &gradient);
    if (kind == LOAR_STATIC) /* only the biases learn, so that no text changes the choice */
        memset(gradient.fc2_weight, 0, (size_t)(c->heads * r->plan->config.router_dim) * sizeof *gradient.fc2_weight);
}
