/* Stages: which keys a stage may give a value of its own, reading them, and the options as they hold in one.
 * Must not know: what a stage does. */
#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "common/options_read.h"
#include "common/options_value.h"
#include "common/yaml.h"

/* Of groups whose other keys may change. */
static const enum option_id of_the_run[] = {
    OPTION_chat_template,    OPTION_chat_template_text,     OPTION_thought_open,         OPTION_thought_close,
    OPTION_default_system,   OPTION_enable_thinking,        OPTION_prompt_opens_thought, OPTION_label_smoothing_factor,
    OPTION_neftune_noise_alpha, OPTION_optim,               OPTION_momentum,             OPTION_nesterov,
    OPTION_gradient_checkpointing, OPTION_save_total_limit, OPTION_resume_from_checkpoint,
};

/* What the run, its model or its snapshots are made of stays the same in all stages. */
static bool may_change(enum option_id id)
{
    switch (option_rows[id].group) {
    case OPTION_GROUP_MODEL:
    case OPTION_GROUP_STAGES:
    case OPTION_GROUP_LOG:
    case OPTION_GROUP_MACHINE: return false;
    case OPTION_GROUP_LOAR:
        return id == OPTION_loar_dense_steps || id == OPTION_loar_fit_learning_rate || id == OPTION_loar_anneal_share ||
               id == OPTION_loar_frozen_share;
    default: break;
    }
    for (size_t i = 0; i < sizeof of_the_run / sizeof *of_the_run; i++)
        if (id == of_the_run[i])
            return false;
    return true;
}

/* The value as on a command line: text, or YAML that fits on a line. */
static enum status put_value(struct option_reader *reader, const struct yaml *node, struct text *out, struct error *err)
{
    if (yaml_kind(node) != YAML_KIND_SCALAR)
        return yaml_to_json(node, reader->name, out, err);
    text_puts(out, yaml_text(node));
    return STATUS_OK;
}

/* Checks the value as if it stood at the top of the file. */
static enum status try_value(struct option_reader *reader, const char *key, const char *value, const struct option_source *source,
                             struct error *err)
{
    struct options scratch;
    TRY(options_defaults(&scratch, err));
    struct option_reader inner = {.options = &scratch, .name = reader->name, .notes = reader->notes};
    enum status st = option_apply(&inner, key, value, source, err);
    if (inner.problems.size)
        text_append(&reader->problems, inner.problems.data, inner.problems.size);
    reader->problems.failed |= inner.problems.failed;
    reader->n_problems += inner.n_problems;
    text_free(&inner.problems);
    options_free(&scratch);
    return st;
}

static enum status add_key(struct option_reader *reader, const char *key, const struct yaml *node, const struct option_source *source,
                           struct string_list *set, struct error *err)
{
    enum option_id id = options_id(key);
    if (id == OPTION_COUNT) {
        option_unknown_key(reader, source, key);
        return STATUS_OK;
    }
    if (!may_change(id)) {
        option_problem(reader, source, key, "is the same in all stages of a run; give it at the top of the file");
        return STATUS_OK;
    }
    struct text value = {0}, pair = {0};
    text_puts(&value, "");
    enum status st = put_value(reader, node, &value, err);
    if (st == STATUS_DATA) {
        option_problem(reader, source, key, "%s", err->text);
        st = STATUS_OK;
    } else if (st == STATUS_OK && !value.failed) {
        text_printf(&pair, "%s=%s", key, value.data);
        st = try_value(reader, key, value.data, source, err);
        const struct option_row set_row = {.name = key, .kind = OPTION_KIND_STRINGS, .fallback = ""};
        if (st == STATUS_OK && !pair.failed)
            st = option_value_add(&set_row, set, pair.data, true, err);
    }
    if (value.failed || pair.failed)
        st = error_set(err, STATUS_NOMEM, "no memory for the option %s of a stage", key);
    text_free(&value);
    text_free(&pair);
    return st;
}

enum status option_read_stage_key(struct option_reader *reader, const char *key, const struct yaml *node,
                                  const struct option_source *source, struct string_list *set, struct error *err)
{
    if (!option_is_section(key))
        return add_key(reader, key, node, source, set, err);
    if (yaml_kind(node) != YAML_KIND_MAP) {
        option_problem(reader, source, key, "found a %s, wanted a mapping of its keys", yaml_kind_name(yaml_kind(node)));
        return STATUS_OK;
    }
    for (const struct yaml *e = yaml_first(node); e; e = yaml_next(e)) {
        char nested[256];
        struct option_source at = *source;
        if (source->origin == ORIGIN_FILE) {
            at.line = yaml_line(yaml_key(e));
            at.column = yaml_column(yaml_key(e));
        }
        snprintf(nested, sizeof nested, "%.100s.%.100s", key, yaml_text(yaml_key(e)));
        TRY(add_key(reader, nested, e, &at, set, err));
    }
    return STATUS_OK;
}

enum status option_apply_in_stage(struct option_reader *reader, const char *key, const char *value, const struct option_source *source,
                                  bool *meant, struct error *err)
{
    unsigned long stage;
    int used = 0;
    *meant = sscanf(key, "stages.%lu.%n", &stage, &used) == 1 && used && stage < reader->options->stages.count &&
             options_id(key + used) != OPTION_COUNT && may_change(options_id(key + used));
    if (!*meant)
        return STATUS_OK;
    const struct option_row set_row = {.name = key, .kind = OPTION_KIND_STRINGS, .fallback = ""};
    struct text pair = {0};
    text_printf(&pair, "%s=%s", key + used, value);
    enum status st = pair.failed ? error_set(err, STATUS_NOMEM, "no memory for the option %s", key)
                                 : try_value(reader, key + used, value, source, err);
    if (st == STATUS_OK) /* behind the file's own, which it wins over */
        st = option_value_add(&set_row, &reader->options->stages.items[stage].set, pair.data, true, err);
    text_free(&pair);
    return st;
}

size_t options_stages(const struct options *options)
{
    return options->stages.count ? options->stages.count : 1;
}

/* All keys but the stages themselves. */
static enum status copy_base(const struct options *from, struct options *out, struct error *err)
{
    struct text lines = {0};
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (i == OPTION_stages)
            continue;
        text_printf(&lines, "%s: ", option_rows[i].name);
        option_value_put(&option_rows[i], (const char *)from + option_rows[i].offset, &lines);
        text_puts(&lines, "\n");
    }
    enum status st = lines.failed ? error_set(err, STATUS_NOMEM, "no memory for the options of a stage")
                                  : option_read_saved(lines.data, lines.size, from->file ? from->file : "options", out, err);
    text_free(&lines);
    if (st == STATUS_OK)
        memcpy(out->sources, from->sources, sizeof out->sources);
    return st;
}

/* `reader` collects what is wrong with values. */
static enum status apply_stage(struct option_reader *reader, const struct options *all, size_t index, struct error *err)
{
    const struct stage_options *stage = &all->stages.items[index];
    const struct option_source *source = &all->sources[OPTION_stages];
    if (index) { /* routing is let in once: a later stage goes on with what it found, unless its own entry says otherwise */
        reader->options->loar.dense_steps = 0;
        reader->options->loar.anneal_share = -1;
    }
    for (size_t i = 0; i < stage->set.count; i++) {
        const char *pair = stage->set.items[i], *equals = strchr(pair, '=');
        char key[128];
        snprintf(key, sizeof key, "%.*s", equals ? (int)(equals - pair) : 100, pair);
        if (!equals || (options_id(key) != OPTION_COUNT && !may_change(options_id(key))))
            option_problem(reader, source, "stages", "'%.80s' in the stage '%.40s' %s", pair, stage->name,
                           equals ? "is the same in all stages of a run" : "is no key=value");
        else
            TRY(option_apply(reader, key, equals + 1, source, err));
    }
    struct dataset_list *sets = &reader->options->datasets;
    for (size_t i = 0; stage->max_samples > 0 && i < sets->count; i++)
        if (sets->items[i].max_samples < 0 || sets->items[i].max_samples > stage->max_samples)
            sets->items[i].max_samples = stage->max_samples;
    return STATUS_OK;
}

enum status options_of_stage(const struct options *options, size_t stage, struct options *out, struct error *err)
{
    TRY(copy_base(options, out, err));
    if (!options->stages.count)
        return STATUS_OK;
    struct option_reader reader = {.options = out, .name = options->file ? options->file : "options"};
    enum status st = apply_stage(&reader, options, stage, err);
    if (st == STATUS_OK)
        st = option_complete(out, err);
    if (st == STATUS_OK)
        st = option_verdict(&reader, err);
    text_free(&reader.problems);
    if (st != STATUS_OK)
        options_free(out);
    return st;
}

/* A stage's problems carry its name; what was said of an earlier stage is not said again. */
static void join_problems(struct option_reader *reader, const struct option_reader *inner, const char *stage)
{
    reader->problems.failed |= inner->problems.failed;
    for (const char *line = inner->problems.size ? inner->problems.data : ""; *line;) {
        size_t size = strcspn(line, "\n");
        char text[1400];
        snprintf(text, sizeof text, "%.*s", (int)size, line);
        if (!reader->problems.data || !strstr(reader->problems.data, text)) {
            reader->n_problems++;
            text_printf(&reader->problems, "%s (stage '%.40s')\n", text, stage);
        }
        line += size + 1;
    }
}

static enum status check_stage(struct option_reader *reader, size_t stage, struct error *err)
{
    struct options *o = reader->options, held;
    struct option_reader inner = {.options = &held, .name = reader->name, .notes = stage ? NULL : reader->notes, .checked = true};
    TRY(copy_base(o, &held, err));
    memcpy(inner.bad, reader->bad, sizeof inner.bad);
    enum status st = STATUS_OK;
    if (o->stages.count)
        st = apply_stage(&inner, o, stage, err);
    if (st == STATUS_OK)
        st = option_complete(&held, err);
    if (st == STATUS_OK && stage + 1 < o->stages.count && !strcmp(o->stages.items[stage + 1].start_from, "best") &&
        !strcmp(held.eval_strategy, "no"))
        option_problem(&inner, &o->sources[OPTION_stages], "stages", "'%.40s' starts from the best of this stage, which is never evaluated; give it "
                       "an eval_strategy", o->stages.items[stage + 1].name);
    if (st == STATUS_OK) {
        option_rules(&inner, stage + 1 == options_stages(o));
        join_problems(reader, &inner, o->stages.items[stage].name);
    }
    text_free(&inner.problems);
    options_free(&held);
    return st;
}

enum status option_check_stages(struct option_reader *reader, struct error *err)
{
    const struct stage_list *list = &reader->options->stages;
    if (!list->count) {
        option_rules(reader, true);
        return STATUS_OK;
    }
    for (size_t i = 0; i < list->count; i++)
        for (size_t k = 0; k < i; k++)
            if (!strcmp(list->items[i].name, list->items[k].name))
                option_problem(reader, &reader->options->sources[OPTION_stages], "stages", "entries %zu and %zu are both named '%.60s'", k, i,
                               list->items[i].name);
    if (!strcmp(list->items[0].start_from, "best"))
        option_problem(reader, &reader->options->sources[OPTION_stages], "stages", "'%.60s' is the first stage: there is nothing before it to start "
                       "from", list->items[0].name);
    for (size_t i = 0; i < list->count && !reader->bad[OPTION_stages]; i++)
        TRY(check_stage(reader, i, err));
    return STATUS_OK;
}
