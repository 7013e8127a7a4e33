#include "launch/loar_folder.h"

#include <float.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/options.h"
#include "worker/model/config.h"
#include "worker/model/export.h"

enum { FORMAT = 1 };

/* ---- the keys, named and ordered as in a run file ---- */

static const struct word {
    const char *key;
    const char *const *names;
    int count;
    size_t place; /* of an enum in struct loar_config */
} words[] = {
#define PLACE(member) offsetof(struct loar_config, member)
    {"policy", loar_policy_names, LOAR_N_POLICIES, PLACE(policy)},
    {"features", loar_feature_names, LOAR_N_FEATURES, PLACE(feature)},
    {"granularity", loar_granularity_names, LOAR_N_GRANULARITIES, PLACE(granularity)},
    {"router", loar_router_names, LOAR_N_ROUTERS, PLACE(router)},
    {"gate", loar_gate_names, LOAR_N_GATES, PLACE(gate)},
    {"fallback", loar_fallback_names, LOAR_N_FALLBACKS, PLACE(fallback)},
    {"stand_in", loar_stand_in_names, LOAR_N_STAND_INS, PLACE(stand_in)},
};

/* Whole numbers; what they may be beyond what an int can hold is for loar_check to say. */
static const struct whole {
    const char *key;
    size_t place; /* of an int */
    int least, most;
} wholes[] = {
    {"block", PLACE(block), 1, INT32_MAX},
    {"router_dim", PLACE(router_dim), 1, 65536},
    {"min_heads", PLACE(min_heads), 1, LOAR_MAX_HEADS + 1},
};

static const struct real {
    const char *key;
    size_t place; /* of a double */
    double most;
} reals[] = {
    {"c", PLACE(c), DBL_MAX},
    {"ema_decay", PLACE(ema_decay), 1},
    {"explore", PLACE(explore), 1},
};
#undef PLACE

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const top_keys[] = {"format_version", "policy",    "features", "granularity", "router", "gate",
                                       "fallback",       "stand_in",  "block",    "router_dim",  "min_heads", "c",
                                       "ema_decay",      "explore",   "per_head", "always_on",   "layers", "tasks",
                                       "default_task"};
static const char *const layer_keys[] = {"routed", "window", "sinks", "budget"};
static const char *const task_keys[] = {"task", "scale", "policy"};

static unsigned *word_of(const struct loar_config *c, const struct word *word)
{
    return (unsigned *)(void *)((char *)(uintptr_t)c + word->place);
}

static int *whole_of(const struct loar_config *c, const struct whole *whole)
{
    return (int *)(void *)((char *)(uintptr_t)c + whole->place);
}

static double *real_of(const struct loar_config *c, const struct real *real)
{
    return (double *)(void *)((char *)(uintptr_t)c + real->place);
}

/* ---- writing ---- */

static void put_real(struct text *out, const char *before, double value, const char *behind)
{
    text_puts(out, before);
    model_config_real(out, value, false);
    text_puts(out, behind);
}

static void put_layers(const struct loar_setup *s, struct text *out)
{
    text_puts(out, "  \"layers\": [");
    for (int i = 0; i < s->n_layers; i++) {
        const struct loar_layer *l = &s->layers[i];
        text_printf(out, "%s\n    {\"routed\": %s, \"window\": %d, \"sinks\": %d", i ? "," : "", l->routed ? "true" : "false", l->window,
                    l->sinks);
        put_real(out, ", \"budget\": ", l->budget, "}");
    }
    text_puts(out, "\n  ],\n");
}

static void put_tasks(const struct loar_setup *s, struct text *out)
{
    text_puts(out, "  \"tasks\": [");
    for (int i = 0; i < s->plan.config.n_tasks; i++) {
        const struct loar_task *task = &s->plan.config.tasks[i];
        text_printf(out, "%s\n    {\"task\": ", i ? "," : "");
        text_json_string(out, s->tasks[i], strlen(s->tasks[i]));
        put_real(out, ", \"scale\": ", task->scale > 0 ? task->scale : 1, "");
        text_printf(out, ", \"policy\": \"%s\"}", task->has_policy ? loar_policy_names[task->policy] : "default");
    }
    text_puts(out, "\n  ],\n  \"default_task\": ");
    text_json_string(out, s->tasks[s->default_task], strlen(s->tasks[s->default_task]));
}

void loar_folder_write(const struct loar_setup *s, struct text *out)
{
    const struct loar_config *c = &s->plan.config;
    text_printf(out, "{\n  \"format_version\": %d,\n", FORMAT);
    for (size_t i = 0; i < COUNT(words); i++)
        text_printf(out, "  \"%s\": \"%s\",\n", words[i].key, words[i].names[*word_of(c, &words[i])]);
    for (size_t i = 0; i < COUNT(wholes); i++)
        text_printf(out, "  \"%s\": %d,\n", wholes[i].key, *whole_of(c, &wholes[i]));
    for (size_t i = 0; i < COUNT(reals); i++) {
        text_printf(out, "  \"%s\"", reals[i].key);
        put_real(out, ": ", *real_of(c, &reals[i]), ",\n");
    }
    text_printf(out, "  \"per_head\": %s,\n  \"always_on\": [", c->per_head ? "true" : "false");
    for (int i = 0; i < c->n_always_on; i++)
        text_printf(out, "%s%d", i ? ", " : "", c->always_on[i]);
    text_puts(out, "],\n");
    put_layers(s, out);
    put_tasks(s, out);
    text_puts(out, "\n}\n");
}

/* ---- reading ---- */

/* An object with these keys and no others. */
static enum status check_keys(const struct json *object, const char *where, const char *const *keys, size_t count,
                              struct error *err)
{
    if (json_kind(object) != JSON_KIND_OBJECT)
        FAIL(err, STATUS_DATA, "%s: must be an object, found %s", where, json_kind_name(json_kind(object)));
    for (const void *it = json_first(object); it; it = json_next(object, it)) {
        const char *key = json_it_key(it, NULL);
        bool known = false;
        for (size_t i = 0; i < count && !known; i++)
            known = !strcmp(key, keys[i]);
        const char *near = known ? NULL : nearest_name(key, keys, count);
        if (!known)
            FAIL(err, STATUS_DATA, "%s: unknown key '%.60s'%s%s%s; the file may come from a newer version", where, key,
                 near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    for (size_t i = 0; i < count; i++)
        if (json_kind(json_member(object, keys[i])) == JSON_KIND_NULL)
            FAIL(err, STATUS_DATA, "%s: the key '%s' is missing; export the model again", where, keys[i]);
    return STATUS_OK;
}

static enum status read_word(const struct json *object, const char *where, const char *key, const char *const *names, int count,
                             const char *also, int *out, struct error *err)
{
    const char *word = NULL;
    TRY(json_get_string(object, key, where, &word, err));
    *out = loar_choice(names, count, word);
    if (*out >= 0 || (also && !strcmp(word, also)))
        return STATUS_OK;
    struct text known = {0};
    for (int i = 0; i < count; i++)
        text_printf(&known, "%s%s", i ? ", " : "", names[i]);
    error_set(err, STATUS_DATA, "%s: '%s' is '%.60s'; known are %s%s%s", where, key, word, known.failed ? "" : known.data,
              also ? " and " : "", also ? also : "");
    text_free(&known);
    return STATUS_DATA;
}

static enum status read_whole(const struct json *object, const char *where, const char *key, int least, int most, int *out,
                              struct error *err)
{
    int64_t value = 0;
    TRY(json_get_int(object, key, where, &value, err));
    if (value < least || value > most)
        FAIL(err, STATUS_DATA, "%s: '%s' is %lld; allowed are %d to %d", where, key, (long long)value, least, most);
    *out = (int)value;
    return STATUS_OK;
}

/* Above 0 unless `zero`. */
static enum status read_real(const struct json *object, const char *where, const char *key, bool zero, double most, double *out,
                             struct error *err)
{
    TRY(json_get_real(object, key, where, out, err));
    if (!(*out >= 0 && *out <= most) || (!zero && *out == 0))
        FAIL(err, STATUS_DATA, "%s: '%s' is %g; it must be %s 0 and at most %g", where, key, *out, zero ? "at least" : "above", most);
    return STATUS_OK;
}

static enum status read_list(const struct json *object, const char *where, const char *key, const struct json **out,
                             struct error *err)
{
    *out = json_member(object, key);
    if (json_kind(*out) != JSON_KIND_ARRAY)
        FAIL(err, STATUS_DATA, "%s: '%s' must be a list, found %s", where, key, json_kind_name(json_kind(*out)));
    return STATUS_OK;
}

static enum status read_always_on(const struct json *root, const char *where, struct loar_config *c, struct error *err)
{
    const struct json *list;
    TRY(read_list(root, where, "always_on", &list, err));
    if (json_count(list) > LOAR_MAX_HEADS)
        FAIL(err, STATUS_DATA, "%s: 'always_on' lists %zu heads; no layer has more than %d", where, json_count(list), LOAR_MAX_HEADS);
    c->n_always_on = (int)json_count(list);
    for (int i = 0; i < c->n_always_on; i++) {
        const struct json *head = json_at(list, (size_t)i);
        if (json_kind(head) != JSON_KIND_INT || json_to_int(head) < 0 || json_to_int(head) >= LOAR_MAX_HEADS)
            FAIL(err, STATUS_DATA, "%s: entry %d of 'always_on' is no head; heads are whole numbers from 0", where, i);
        c->always_on[i] = (int)json_to_int(head);
    }
    return STATUS_OK;
}

static enum status read_layers(const struct json *root, const char *file, struct loar_setup *s, struct error *err)
{
    const struct json *list;
    TRY(read_list(root, file, "layers", &list, err));
    if (json_count(list) != (size_t)s->n_layers)
        FAIL(err, STATUS_DATA, "%s: lists %zu layers, the model has %d (num_hidden_layers of config.json): the two files do not belong "
             "together", file, json_count(list), s->n_layers);
    for (int i = 0; i < s->n_layers; i++) {
        const struct json *entry = json_at(list, (size_t)i);
        struct loar_layer *layer = &s->layers[i];
        char where[1024];
        snprintf(where, sizeof where, "%.900s: layer %d", file, i);
        TRY(check_keys(entry, where, layer_keys, COUNT(layer_keys), err));
        TRY(json_get_bool(entry, "routed", where, &layer->routed, err));
        TRY(read_whole(entry, where, "window", 0, INT32_MAX, &layer->window, err));
        TRY(read_whole(entry, where, "sinks", 0, INT32_MAX, &layer->sinks, err));
        TRY(read_real(entry, where, "budget", false, 1, &layer->budget, err));
    }
    return STATUS_OK;
}

static enum status read_tasks(const struct json *root, const char *file, struct loar_setup *s, struct error *err)
{
    const struct json *list;
    const char *name = NULL;
    TRY(read_list(root, file, "tasks", &list, err));
    if (json_count(list) < 1 || json_count(list) > LOAR_MAX_TASKS)
        FAIL(err, STATUS_DATA, "%s: lists %zu tasks; allowed are 1 to %d", file, json_count(list), LOAR_MAX_TASKS);
    for (size_t i = 0; i < json_count(list); i++) {
        const struct json *entry = json_at(list, i);
        struct loar_task *task = &s->plan.config.tasks[i];
        char where[1024];
        int policy;
        snprintf(where, sizeof where, "%.900s: task %zu", file, i);
        TRY(check_keys(entry, where, task_keys, COUNT(task_keys), err));
        TRY(json_get_string(entry, "task", where, &name, err));
        if (!*name || loar_setup_task(s, name) >= 0)
            FAIL(err, STATUS_DATA, "%s: is named '%.60s'; names must not be empty, nor the same twice", where, name);
        TRY(read_real(entry, where, "scale", false, DBL_MAX, &task->scale, err));
        TRY(read_word(entry, where, "policy", loar_policy_names, LOAR_N_POLICIES, "default", &policy, err));
        task->has_policy = policy >= 0;
        if (task->has_policy)
            task->policy = (enum loar_policy)policy;
        TRY(loar_setup_add_task(s, name, err));
    }
    TRY(json_get_string(root, "default_task", file, &name, err));
    if ((s->default_task = loar_setup_task(s, name)) >= 0)
        return STATUS_OK;
    s->default_task = 0;
    FAIL(err, STATUS_DATA, "%s: 'default_task' is '%.60s', which is none of its tasks", file, name);
}

static enum status read_root(const struct json *root, const char *where, const struct model_config *model, struct loar_setup *s,
                             struct error *err)
{
    struct loar_config *c = &s->plan.config;
    const struct loar_shape shape = model_shape(model);
    int64_t format = FORMAT;
    if (json_kind(root) == JSON_KIND_OBJECT)
        TRY(json_get_int(root, "format_version", where, &format, err));
    if (format != FORMAT)
        FAIL(err, STATUS_DATA, "%s: has format %lld; this program reads %d: use a newer version", where, (long long)format, FORMAT);
    TRY(check_keys(root, where, top_keys, COUNT(top_keys), err));
    for (size_t i = 0; i < COUNT(words); i++) {
        int word;
        TRY(read_word(root, where, words[i].key, words[i].names, words[i].count, NULL, &word, err));
        *word_of(c, &words[i]) = (unsigned)word;
    }
    for (size_t i = 0; i < COUNT(wholes); i++)
        TRY(read_whole(root, where, wholes[i].key, wholes[i].least, wholes[i].most, whole_of(c, &wholes[i]), err));
    for (size_t i = 0; i < COUNT(reals); i++)
        TRY(read_real(root, where, reals[i].key, true, reals[i].most, real_of(c, &reals[i]), err));
    TRY(json_get_bool(root, "per_head", where, &c->per_head, err));
    TRY(read_always_on(root, where, c, err));
    TRY(read_layers(root, where, s, err));
    TRY(read_tasks(root, where, s, err));
    enum status st = loar_check(c, &shape, s->layers, s->n_layers, err);
    if (st != STATUS_USAGE)
        return st;
    error_prefix(err, "%s", where); /* it is the file's fault here */
    return err->code = STATUS_DATA;
}

enum status loar_folder_parse(const char *text, size_t size, const char *where, const struct model_config *config,
                              struct loar_setup **out, struct error *err)
{
    struct json *root;
    struct loar_setup *s = NULL;
    *out = NULL;
    TRY(json_parse(text, size, where, &root, err));
    enum status st = loar_setup_create(config->layers, &s, err);
    if (st == STATUS_OK)
        st = read_root(root, where, config, s, err);
    json_free(root);
    if (st == STATUS_OK)
        *out = s;
    else
        loar_setup_free(s);
    return st;
}

enum status loar_folder_read(const char *dir, const struct model_config *config, struct loar_setup **out, struct error *err)
{
    char *path = path_join(dir, MODEL_ROUTING_FILE), *text = NULL;
    size_t size;
    *out = NULL;
    if (!path)
        FAIL(err, STATUS_NOMEM, "no memory for the path of '%s/" MODEL_ROUTING_FILE "'", dir);
    enum status st = STATUS_OK;
    if (file_exists(path)) {
        st = file_read(path, &text, &size, err);
        if (st == STATUS_OK)
            st = loar_folder_parse(text, size, path, config, out, err);
        mem_free(text);
    }
    mem_free(path);
    return st;
}
