/* Options back to text: lines for the snapshot, where values came from, and what a resumed run may not change. */
#include <string.h>

#include "common/options_read.h"
#include "common/options_value.h"

void options_source_text(const struct options *options, enum option_id id, struct text *out)
{
    const struct option_source *source = &options->sources[id];
    if (source->origin == ORIGIN_FILE)
        text_printf(out, "%s:%d", options->file ? options->file : "file", source->line);
    else
        text_puts(out, source->origin == ORIGIN_COMMAND_LINE ? "command line" : "default");
}

static bool wanted(const struct option_row *row, const void *field, enum options_lines which)
{
    if (which == OPTIONS_FINGERPRINT)
        return row->fixed;
    return which == OPTIONS_ALL || !option_value_is_default(row, field);
}

void options_format(const struct options *options, enum options_lines which, struct text *out)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const void *field = (const char *)options + option_rows[i].offset;
        if (!wanted(&option_rows[i], field, which))
            continue;
        text_printf(out, "%s: ", option_rows[i].name);
        option_value_put(&option_rows[i], field, out);
        text_puts(out, "\n");
    }
}

/* Groups and keys without a say in how a row becomes tokens. The model's and the tokenizer's folders are names; what is
 * in them has to be looked at where it counts. */
static bool shapes_rows(const struct option_row *row)
{
    static const enum option_group others[] = {OPTION_GROUP_OPTIM, OPTION_GROUP_EVAL, OPTION_GROUP_LOG,      OPTION_GROUP_LOAR,
                                               OPTION_GROUP_LAYER, OPTION_GROUP_TASK, OPTION_GROUP_GENERATE, OPTION_GROUP_MACHINE};
    static const char *const keys[] = {"model_name_or_path", "model_config", "tokenizer_name_or_path", "finetuning_type", "output_dir",
                                       "overwrite_output_dir", "run_name", "seed", "data_seed", "datasets", "eval_datasets",
                                       "shuffle_dataset", "mix_strategy", "dataset_exact_deduplication", "val_size",
                                       "dataset_cache_dir", "overwrite_cache", "name", "task", "weight", NULL};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (row->group == others[i])
            return false;
    for (size_t i = 0; keys[i]; i++)
        if (!strcmp(row->name, keys[i]))
            return false;
    return true;
}

static void put_shaping(const struct option_row *rows, size_t count, const void *of, struct text *out)
{
    for (size_t i = 0; i < count; i++) {
        if (!shapes_rows(&rows[i]))
            continue;
        text_printf(out, "%s: ", rows[i].name);
        option_value_put(&rows[i], (const char *)of + rows[i].offset, out);
        text_puts(out, "\n");
    }
}

void options_format_rows(const struct options *options, const struct dataset_options *set, struct text *out)
{
    const struct option_entries *entries = option_entries(OPTION_KIND_DATASETS);
    put_shaping(option_rows, OPTION_COUNT, options, out);
    put_shaping(entries->rows, entries->count, set, out);
}

/* What is compared between the parts of a run. */
struct comparison {
    struct option_reader reader; /* collects keys that may not change */
    struct text before, now;
    bool failed;
};

static void compare_value(struct comparison *c, const struct option_row *row, const char *key, enum option_id id,
                          const void *before, const void *now)
{
    text_clear(&c->before);
    text_clear(&c->now);
    text_puts(&c->before, "");
    text_puts(&c->now, "");
    option_value_put(row, before, &c->before);
    option_value_put(row, now, &c->now);
    if (c->before.failed || c->now.failed) {
        c->failed = true;
        return;
    }
    if (!strcmp(c->before.data, c->now.data))
        return;
    const struct option_source *source = &c->reader.options->sources[id];
    const char *was = c->before.size ? c->before.data : "nothing", *is = c->now.size ? c->now.data : "nothing";
    if (row->fixed)
        option_problem(&c->reader, source, key, "the run began with %.200s, now found %.200s; a resumed run must keep it", was, is);
    else
        option_note(&c->reader, source, key, "%.200s until now, %.200s from here on", was, is);
}

/* Entry by entry, so that a file may lie elsewhere but rows may not mean something else. */
static void compare_entries(struct comparison *c, const struct option_row *row, enum option_id id, struct entry_list before,
                            struct entry_list now)
{
    const struct option_entries *entries = option_entries(row->kind);
    if (before.count != now.count) {
        if (row->fixed)
            option_problem(&c->reader, &c->reader.options->sources[id], row->name,
                           "the run began with %zu entries, now found %zu; a resumed run must keep them", before.count, now.count);
        return;
    }
    for (size_t i = 0; i < now.count; i++)
        for (size_t k = 0; k < entries->count; k++) {
            struct option_row entry = entries->rows[k];
            struct text key = {0};
            entry.fixed = entry.fixed && row->fixed;
            text_printf(&key, "%s.%zu.%s", row->name, i, entry.name);
            if (key.failed)
                c->failed = true;
            else
                compare_value(c, &entry, key.data, id, before.items + i * entries->size + entry.offset,
                              now.items + i * entries->size + entry.offset);
            text_free(&key);
        }
}

static void compare_values(struct comparison *c, const struct options *before, const struct options *now)
{
    c->reader.options = (struct options *)now;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        const void *was = (const char *)before + row->offset, *is = (const char *)now + row->offset;
        if (i == OPTION_resume_from_checkpoint)
            continue; /* it is what makes this a resumed run */
        if (option_entries(row->kind))
            compare_entries(c, row, (enum option_id)i, option_entry_list(was), option_entry_list(is));
        else
            compare_value(c, row, row->name, (enum option_id)i, was, is);
    }
}

/* Stages are compared by what holds in them, so that it does not matter where a key was given. */
static enum status compare_stage(struct comparison *c, const struct options *before, const struct options *now, size_t stage,
                                 struct error *err)
{
    struct options was, is;
    TRY(options_of_stage(before, stage, &was, err));
    enum status st = options_of_stage(now, stage, &is, err);
    if (st == STATUS_OK) {
        compare_values(c, &was, &is);
        options_free(&is);
    }
    options_free(&was);
    return st;
}

enum status options_check_resume(const struct options *options, const char *saved, size_t saved_size, struct text *notes,
                                 struct error *err)
{
    struct options before;
    enum status st = option_read_saved(saved, saved_size, "options in the snapshot", &before, err);
    if (st != STATUS_OK)
        return st;
    struct comparison c = {.reader = {.name = options->file ? options->file : "options", .notes = notes}};
    if (before.stages.count != options->stages.count)
        compare_values(&c, &before, options);
    for (size_t stage = 0; st == STATUS_OK && before.stages.count == options->stages.count && stage < options_stages(options); stage++)
        st = compare_stage(&c, &before, options, stage, err);
    if (st == STATUS_OK)
        st = c.failed ? error_set(err, STATUS_NOMEM, "no memory to compare the options with the snapshot's") : option_verdict(&c.reader, err);
    text_free(&c.reader.problems);
    text_free(&c.before);
    text_free(&c.now);
    options_free(&before);
    return st;
}
