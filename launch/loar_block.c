#include "launch/loar_block.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- tasks: those of the training data sets of all stages, in their order ---- */

static enum status name_stage_tasks(const struct options *o, struct loar_setup *setup, struct error *err)
{
    for (size_t i = 0; i < o->datasets.count; i++)
        if (loar_setup_task(setup, o->datasets.items[i].task) < 0)
            TRY(loar_setup_add_task(setup, o->datasets.items[i].task, err));
    return STATUS_OK;
}

static enum status name_tasks(const struct options *o, struct loar_setup *setup, struct error *err)
{
    for (size_t stage = 0; stage < options_stages(o); stage++) {
        struct options of_stage;
        TRY(options_of_stage(o, stage, &of_stage, err));
        enum status st = name_stage_tasks(&of_stage, setup, err);
        options_free(&of_stage);
        TRY(st);
    }
    return STATUS_OK;
}

static enum status find_task(const struct loar_setup *setup, const char *key, const char *name, int *out, struct error *err)
{
    *out = loar_setup_task(setup, name);
    if (*out >= 0)
        return STATUS_OK;
    struct text known = {0};
    loar_setup_put_tasks(setup, &known);
    error_set(err, STATUS_USAGE, "loar.%s: no data set trains the task '%.60s'; there are: %.300s", key, name,
              known.failed || !known.data ? "" : known.data);
    text_free(&known);
    return STATUS_USAGE;
}

static enum status read_tasks(const struct options *o, struct loar_setup *setup, struct error *err)
{
    TRY(name_tasks(o, setup, err));
    if (o->loar.default_task)
        TRY(find_task(setup, "default_task", o->loar.default_task, &setup->default_task, err));
    for (size_t i = 0; i < o->loar.tasks.count; i++) {
        const struct task_options *entry = &o->loar.tasks.items[i];
        int index;
        TRY(find_task(setup, "tasks", entry->task, &index, err));
        struct loar_task *task = &setup->plan.config.tasks[index];
        if (entry->budget > 0)
            task->scale = entry->budget / o->loar.budget;
        task->has_policy = strcmp(entry->policy, "default");
        if (task->has_policy)
            task->policy = (enum loar_policy)loar_choice(loar_policy_names, LOAR_N_POLICIES, entry->policy);
    }
    return STATUS_OK;
}

/* ---- layers ---- */

/* "3", "0-5", "-1", "all" -> first and last layer. */
static enum status read_range(const char *text, int layers, int *first, int *last, struct error *err)
{
    char *end;
    *first = 0;
    *last = layers - 1;
    if (!strcmp(text, "all"))
        return STATUS_OK;
    long from = strtol(text, &end, 10), to = from;
    bool good = end != text;
    if (good && *end == '-') {
        const char *rest = end + 1;
        to = strtol(rest, &end, 10);
        good = end != rest && to >= from && from >= 0;
    } else if (good && from < 0) {
        from = to = from + layers; /* from the end */
    }
    if (!good || *end)
        FAIL(err, STATUS_USAGE, "range '%.40s' is none; wanted a layer such as 3, a range such as 0-5, -1 for the last, or all", text);
    if (from < 0 || to >= layers)
        FAIL(err, STATUS_USAGE, "range '%.40s' leaves the model, whose layers are 0 to %d", text, layers - 1);
    *first = (int)from;
    *last = (int)to;
    return STATUS_OK;
}

/* Of `article` the upper third, of `interleave` every fourth. */
bool loar_block_stays_dense(const char *preset, int layer, int layers)
{
    if (!strcmp(preset, "article"))
        return 3 * layer >= 2 * layers;
    return strcmp(preset, "interleave") || layer % 4 == 3;
}

static void apply_preset(const struct options *o, const char *preset, int layer, int layers, struct loar_layer *out)
{
    if (loar_block_stays_dense(preset, layer, layers)) {
        *out = (struct loar_layer){.budget = 1};
        return;
    }
    *out = (struct loar_layer){.routed = true, .window = (int)o->loar.window, .budget = o->loar.budget};
    out->sinks = out->window ? (int)o->loar.sinks : 0;
}

static void apply_entry(const struct options *o, const struct layer_options *entry, int layer, int layers,
                        struct loar_layer *out)
{
    if (strcmp(entry->preset, "none"))
        apply_preset(o, entry->preset, layer, layers, out);
    if (entry->budget > 0) {
        out->budget = entry->budget;
        out->routed = true;
    }
    if (strcmp(entry->routed, "keep")) {
        bool routed = !strcmp(entry->routed, "true");
        if (routed && !out->routed && entry->budget < 0)
            out->budget = o->loar.budget;
        out->routed = routed;
    }
    if (entry->window >= 0) {
        out->window = (int)entry->window;
        out->sinks = out->window ? out->sinks : 0;
    }
    if (entry->sinks >= 0)
        out->sinks = (int)entry->sinks;
}

static enum status read_layers(const struct options *o, int layers, struct loar_layer *out, struct error *err)
{
    for (size_t k = 0; k < o->loar.layers.count; k++) {
        const struct layer_options *entry = &o->loar.layers.items[k];
        int first, last;
        if (entry->window > INT32_MAX || entry->sinks > INT32_MAX)
            FAIL(err, STATUS_USAGE, "loar.layers.%zu: window and sinks are tokens, at most %d", k, INT32_MAX);
        if (read_range(entry->range, layers, &first, &last, err) != STATUS_OK) {
            error_prefix(err, "loar.layers.%zu", k);
            return STATUS_USAGE;
        }
        for (int i = first; i <= last; i++)
            apply_entry(o, entry, i, layers, &out[i]);
    }
    return STATUS_OK;
}

/* ---- together ---- */

static enum status read_config(const struct options *o, struct loar_config *c, struct error *err)
{
#define WORD(names, word) loar_choice(names, (int)(sizeof names / sizeof *names), word)
    c->feature = (enum loar_feature)WORD(loar_feature_names, o->loar.features);
    c->granularity = (enum loar_granularity)WORD(loar_granularity_names, o->loar.granularity);
    c->policy = (enum loar_policy)WORD(loar_policy_names, o->loar.policy);
    c->router = (enum loar_router_kind)WORD(loar_router_names, o->loar.router);
    c->gate = (enum loar_gate)WORD(loar_gate_names, o->loar.gate);
    c->fallback = (enum loar_fallback)WORD(loar_fallback_names, o->loar.fallback);
    c->stand_in = (enum loar_stand_in)WORD(loar_stand_in_names, o->loar.stand_in);
#undef WORD
    c->block = (int)o->loar.block;
    c->router_dim = (int)o->loar.router_dim;
    c->c = o->loar.c;
    c->per_head = o->loar.per_head;
    c->min_heads = o->loar.min_heads > LOAR_MAX_HEADS ? LOAR_MAX_HEADS + 1 : (int)o->loar.min_heads;
    c->ema_decay = o->loar.ema_decay;
    c->explore = o->loar.explore;
    if (o->loar.always_on.count > LOAR_MAX_HEADS)
        FAIL(err, STATUS_USAGE, "always_on lists %zu heads; no layer has more than %d", o->loar.always_on.count, LOAR_MAX_HEADS);
    c->n_always_on = (int)o->loar.always_on.count;
    for (int i = 0; i < c->n_always_on; i++) {
        double head = o->loar.always_on.items[i];
        if (head != floor(head) || head >= LOAR_MAX_HEADS)
            FAIL(err, STATUS_USAGE, "always_on names head %g; heads are whole numbers from 0", head);
        c->always_on[i] = (int)head;
    }
    return STATUS_OK;
}

static enum status fill(const struct options *o, const struct model_config *model, struct loar_setup *setup, struct error *err)
{
    const struct loar_shape shape = model_shape(model);
    TRY(read_config(o, &setup->plan.config, err));
    TRY(read_tasks(o, setup, err));
    TRY(read_layers(o, model->layers, setup->layers, err));
    return loar_check(&setup->plan.config, &shape, setup->layers, model->layers, err);
}

enum status loar_block_read(const struct options *o, const struct model_config *config, struct loar_setup **out, struct error *err)
{
    *out = NULL;
    if (!o->loar.layers.count)
        return STATUS_OK;
    struct loar_setup *setup;
    TRY(loar_setup_create(config->layers, &setup, err));
    enum status st = fill(o, config, setup, err);
    if (st == STATUS_OK) {
        *out = setup;
        return STATUS_OK;
    }
    if (st == STATUS_USAGE)
        error_prefix(err, "loar");
    loar_setup_free(setup);
    return st;
}

enum status loar_block_schedule(const struct options *o, bool taken_over, int64_t total_steps, struct loar_schedule *out,
                                struct error *err)
{
    double anneal_share = o->loar.anneal_share >= 0 ? o->loar.anneal_share : taken_over ? 0 : 0.25;
    *out = (struct loar_schedule){total_steps, o->loar.dense_steps, anneal_share, o->loar.frozen_share, taken_over};
    if (!o->loar.layers.count && !taken_over)
        return STATUS_OK;
    enum status st = loar_schedule_check(out, err);
    if (st != STATUS_OK)
        error_prefix(err, "loar");
    return st;
}
