/* From a tree or a command line to values: finding the key, reading scalars, lists and lists of mappings. */
#include "common/options_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "common/options_value.h"
#include "common/scalar.h"
#include "common/yaml.h"

static void *field_of(struct options *options, const struct option_row *row)
{
    return (char *)options + row->offset;
}

/* "datasets.0.path": an entry of a list, or the one just behind its end when `grow` is set. */
static enum status find_in_list(struct options *options, const char *key, bool grow, struct option_target *out, struct error *err)
{
    const char *dot = strchr(key, '.');
    char list_name[32], *end;
    while (dot && (dot[1] < '0' || dot[1] > '9'))
        dot = strchr(dot + 1, '.');
    if (!dot || (size_t)(dot - key) >= sizeof list_name)
        return STATUS_USAGE;
    snprintf(list_name, sizeof list_name, "%.*s", (int)(dot - key), key);
    const struct option_row *row = option_find(list_name, NULL);
    unsigned long index = strtoul(dot + 1, &end, 10);
    const struct option_entries *entries = row ? option_entries(row->kind) : NULL;
    if (!entries || *end != '.')
        return STATUS_USAGE;
    const struct option_row *entry_row = option_entry_find(entries, end + 1);
    void *field = field_of(options, row);
    size_t count = option_entry_list(field).count;
    if (!entry_row || index > count || (index == count && !grow))
        return STATUS_USAGE;
    if (index == count && !option_entry_add(entries, field))
        FAIL(err, STATUS_NOMEM, "no memory for the option %s", key);
    char *entry = option_entry_list(field).items + index * entries->size;
    *out = (struct option_target){entry_row, entry + entry_row->offset, (enum option_id)(row - option_rows), NULL};
    return STATUS_OK;
}

/* STATUS_USAGE without a message when there is no such key. */
enum status option_find_target(struct options *options, const char *key, bool grow, struct option_target *out, struct error *err)
{
    const struct option_row *row = option_find(key, &out->alias);
    if (!row)
        return find_in_list(options, key, grow, out, err);
    out->row = row;
    out->field = field_of(options, row);
    out->id = (enum option_id)(row - option_rows);
    return STATUS_OK;
}

/* train_on_inputs: true means completion_only_loss: false. */
static const char *inverted(const struct option_target *target, const char *text)
{
    bool value;
    if (!target->alias || !target->alias->inverse || !scalar_to_bool(text, &value))
        return text;
    return value ? "false" : "true";
}

/* ---- values as trees: lists, mappings ---- */

static struct option_source place(const struct option_source *base, const struct yaml *node)
{
    struct option_source at = *base;
    if (base->origin == ORIGIN_FILE) {
        at.line = yaml_line(node);
        at.column = yaml_column(node);
    }
    return at;
}

/* Status of a set or add: STATUS_USAGE becomes a collected problem, anything else is passed on. */
static enum status collected(struct option_reader *reader, enum status st, const struct option_source *source, const char *key,
                             const struct error *err)
{
    if (st != STATUS_USAGE)
        return st;
    option_problem(reader, source, key, "%s", err->text);
    return STATUS_OK;
}

/* The elements of a list of texts or numbers; `key` is what messages call it. */
static enum status read_elements(struct option_reader *reader, const struct option_row *row, const char *key, void *field,
                                 const struct yaml *node, const struct option_source *source, struct error *err)
{
    for (const struct yaml *e = yaml_first(node); e; e = yaml_next(e)) {
        struct option_source at = place(source, e);
        if (yaml_kind(e) != YAML_KIND_SCALAR) {
            option_problem(reader, &at, key, "found a %s inside the list", yaml_kind_name(yaml_kind(e)));
            continue;
        }
        enum status st = option_value_add(row, field, yaml_text(e), !yaml_plain(e), err);
        TRY(collected(reader, st, &at, key, err));
    }
    return STATUS_OK;
}

static bool takes_list(enum option_kind kind)
{
    return kind == OPTION_KIND_STRINGS || kind == OPTION_KIND_REALS;
}

static void unknown_key(struct option_reader *reader, const struct option_source *source, const char *key, const char *near)
{
    int in_stage = 0; /* an entry of a stage may hold most keys of the file */
    (void)sscanf(key, "stages.%*u.%n", &in_stage);
    if (!near)
        near = option_nearest(key + in_stage);
    option_problem(reader, source, key, near ? "unknown key; did you mean '%s'?" : "unknown key; worker --help lists all", near);
}

void option_unknown_key(struct option_reader *reader, const struct option_source *source, const char *key)
{
    unknown_key(reader, source, key, NULL);
}

/* `entry_name`: "datasets.0."; `section`: what stands before the names of the map's keys, "" or "columns.". */
static enum status read_entry(struct option_reader *reader, const struct option_entries *entries, char *entry, const char *entry_name,
                              const char *section, const struct yaml *map, const struct option_source *source, struct error *err)
{
    for (const struct yaml *e = yaml_first(map); e; e = yaml_next(e)) {
        char name[96], key[160], inner[128];
        snprintf(name, sizeof name, "%.20s%.60s", section, yaml_text(yaml_key(e)));
        snprintf(key, sizeof key, "%.60s%s", entry_name, name);
        if (!*section && yaml_kind(e) == YAML_KIND_MAP && option_entry_is_section(entries, name)) {
            snprintf(inner, sizeof inner, "%s.", name);
            TRY(read_entry(reader, entries, entry, entry_name, inner, e, source, err));
            continue;
        }
        const struct option_row *row = option_entry_find(entries, name);
        struct option_source at = place(source, row ? e : yaml_key(e));
        if (!row && entries->others && (option_find(name, NULL) || option_is_section(name))) {
            const struct option_row *others = option_entry_find(entries, entries->others);
            TRY(option_read_stage_key(reader, name, e, &at, (struct string_list *)(void *)(entry + others->offset), err));
        } else if (row && *section && *(char **)(entry + row->offset)) { /* all keys of sections are texts */
            option_problem(reader, &at, key, "given twice, also as %s; keep one", row->name);
        } else if (!row) {
            unknown_key(reader, &at, key, option_entry_nearest(entries, name));
        } else if (takes_list(row->kind) && yaml_kind(e) == YAML_KIND_LIST) {
            TRY(read_elements(reader, row, key, entry + row->offset, e, &at, err));
        } else if (yaml_kind(e) != YAML_KIND_SCALAR) {
            option_problem(reader, &at, key, "found a %s, wanted a single value", yaml_kind_name(yaml_kind(e)));
        } else {
            enum status st = option_value_set(row, entry + row->offset, yaml_text(e), !yaml_plain(e), err);
            TRY(collected(reader, st, &at, key, err));
        }
    }
    return STATUS_OK;
}

static enum status read_entries(struct option_reader *reader, const struct option_row *row, void *field, const struct yaml *node,
                                const struct option_source *source, struct error *err)
{
    const struct option_entries *entries = option_entries(row->kind);
    bool single = yaml_kind(node) == YAML_KIND_MAP;
    for (const struct yaml *e = single ? node : yaml_first(node); e; e = single ? NULL : yaml_next(e)) {
        struct option_source at = place(source, e);
        if (yaml_kind(e) != YAML_KIND_MAP) {
            option_problem(reader, &at, row->name, "found a %s, wanted a mapping such as %s", yaml_kind_name(yaml_kind(e)),
                           entries->example);
            continue;
        }
        size_t index = option_entry_list(field).count;
        char *entry = option_entry_add(entries, field);
        if (!entry)
            FAIL(err, STATUS_NOMEM, "no memory for the option %s", row->name);
        char name[64];
        snprintf(name, sizeof name, "%.40s.%zu.", row->name, index);
        TRY(read_entry(reader, entries, entry, name, "", e, source, err));
    }
    return STATUS_OK;
}

static enum status read_list(struct option_reader *reader, const struct option_row *row, void *field, const struct yaml *node,
                             const struct option_source *source, struct error *err)
{
    if (option_entries(row->kind))
        return read_entries(reader, row, field, node, source, err);
    return read_elements(reader, row, row->name, field, node, source, err);
}

static bool takes_tree(enum option_kind kind, const struct yaml *node)
{
    bool list = yaml_kind(node) == YAML_KIND_LIST;
    return option_entries(kind) || (list && takes_list(kind));
}

static enum status read_value(struct option_reader *reader, const struct option_target *target, const struct yaml *node,
                              const struct option_source *source, struct error *err)
{
    const struct option_row *row = target->row;
    if (yaml_kind(node) == YAML_KIND_SCALAR) {
        enum status st = option_value_set(row, target->field, inverted(target, yaml_text(node)), !yaml_plain(node), err);
        return collected(reader, st, source, row->name, err);
    }
    if (!takes_tree(row->kind, node)) {
        struct text wanted = {0};
        option_put_wanted(row, &wanted);
        option_problem(reader, source, row->name, "found a %s, wanted %s", yaml_kind_name(yaml_kind(node)),
                       wanted.failed ? "a single value" : wanted.data);
        text_free(&wanted);
        return STATUS_OK;
    }
    union {
        struct string_list strings;
        struct real_list reals;
        struct entry_list entries;
    } fresh = {.strings = {0}};
    enum status st = read_list(reader, row, &fresh, node, source, err);
    size_t size = row->kind == OPTION_KIND_STRINGS ? sizeof fresh.strings
                  : row->kind == OPTION_KIND_REALS ? sizeof fresh.reals
                                                   : sizeof fresh.entries;
    void *loser = st == STATUS_OK ? target->field : &fresh;
    option_value_clear(row, loser);
    if (st == STATUS_OK)
        memcpy(target->field, &fresh, size);
    return st;
}

/* ---- the file ---- */

/* Remembers where a key came from and says so when it had another name. */
static void record(struct option_reader *reader, const struct option_target *target, const struct option_source *source)
{
    struct option_source *kept = &reader->options->sources[target->id];
    *kept = *source;
    kept->alias = target->alias ? target->alias->other : NULL;
    if (target->alias)
        option_note(reader, source, target->alias->other, target->alias->inverse ? "read as the inverse of %s" : "read as %s",
                    target->row->name);
}

static enum status read_map(struct option_reader *reader, const struct yaml *map, const char *prefix, struct error *err)
{
    for (const struct yaml *e = yaml_first(map); e; e = yaml_next(e)) {
        const struct yaml *word = yaml_key(e);
        struct option_source at = {.origin = ORIGIN_FILE, .line = yaml_line(word), .column = yaml_column(word)};
        char key[256];
        if ((size_t)snprintf(key, sizeof key, "%s%s", prefix, yaml_text(word)) >= sizeof key) {
            option_problem(reader, &at, key, "unknown key");
            continue;
        }
        if (!*prefix && option_is_section(key) && yaml_kind(e) == YAML_KIND_MAP) {
            char nested[256];
            snprintf(nested, sizeof nested, "%.200s.", key);
            TRY(read_map(reader, e, nested, err));
            continue;
        }
        if (!*prefix && option_is_section(key)) {
            if (yaml_kind(e) != YAML_KIND_SCALAR || !yaml_plain(e) || *yaml_text(e))
                option_problem(reader, &at, key, "found a %s, wanted a mapping of its keys", yaml_kind_name(yaml_kind(e)));
            continue;
        }
        struct option_target target;
        enum status st = option_find_target(reader->options, key, false, &target, err);
        if (st != STATUS_OK && st != STATUS_USAGE)
            return st;
        if (st == STATUS_USAGE) {
            option_unknown_key(reader, &at, key);
            continue;
        }
        const struct option_source *earlier = &reader->options->sources[target.id];
        if (earlier->origin == ORIGIN_FILE) {
            option_problem(reader, &at, key, "given twice, first in line %d as %s; keep one", earlier->line,
                           earlier->alias ? earlier->alias : target.row->name);
            continue;
        }
        record(reader, &target, &at);
        int before = reader->n_problems;
        TRY(read_value(reader, &target, e, &at, err));
        reader->bad[target.id] |= reader->n_problems > before;
    }
    return STATUS_OK;
}

enum status option_read_file(struct option_reader *reader, const char *text, size_t size, struct error *err)
{
    struct yaml_document *document;
    enum status st = yaml_parse(text, size, reader->name, &document, err);
    if (st != STATUS_OK)
        return st == STATUS_DATA ? STATUS_USAGE : st;
    const struct yaml *root = yaml_root(document);
    bool empty = !root || (yaml_kind(root) == YAML_KIND_SCALAR && yaml_plain(root) && !*yaml_text(root));
    if (!empty && yaml_kind(root) != YAML_KIND_MAP)
        st = error_set(err, STATUS_USAGE, "%s: found a %s, wanted `key: value` lines", reader->name, yaml_kind_name(yaml_kind(root)));
    else if (!empty)
        st = read_map(reader, root, "", err);
    yaml_close(document);
    return st;
}

/* ---- the command line ---- */

struct override {
    char *key;         /* own copy, dashes made underscores after "--" */
    const char *value; /* NULL: a bool's name alone */
};

static enum status set_from_text(struct option_reader *reader, const struct option_target *target, const char *value,
                                 const struct option_source *source, struct error *err)
{
    bool entries = option_entries(target->row->kind);
    bool listy = target->row->kind == OPTION_KIND_STRINGS || target->row->kind == OPTION_KIND_REALS || entries;
    if (!listy || (value[0] != '[' && !(value[0] == '{' && entries))) {
        enum status st = option_value_set(target->row, target->field, inverted(target, value), false, err);
        return collected(reader, st, source, target->row->name, err);
    }
    struct yaml_document *document;
    enum status st = yaml_parse(value, strlen(value), target->row->name, &document, err);
    if (st == STATUS_DATA) {
        option_problem(reader, source, target->row->name, "not a YAML list: %s", err->text);
        return STATUS_OK;
    }
    TRY(st);
    st = read_value(reader, target, yaml_root(document), source, err);
    yaml_close(document);
    return st;
}

/* Splits args[*i] (and, for `--key value`, the next one). */
static enum status next_override(struct option_reader *reader, int count, char *const *args, int *i, struct override *out,
                                 struct error *err)
{
    const char *arg = args[*i];
    bool dashes = !strncmp(arg, "--", 2);
    const char *word = dashes ? arg + 2 : arg, *equals = strchr(word, '=');
    *out = (struct override){.key = mem_strndup(word, equals ? (size_t)(equals - word) : strlen(word)), .value = equals ? equals + 1 : NULL};
    if (!out->key)
        FAIL(err, STATUS_NOMEM, "no memory for the argument '%.80s'", arg);
    for (char *c = out->key; dashes && *c; c++)
        if (*c == '-')
            *c = '_';
    struct option_source at = {.origin = ORIGIN_COMMAND_LINE, .line = *i + 1};
    const struct option_row *row = option_find(out->key, NULL);
    bool truth = row && row->kind == OPTION_KIND_BOOL, ignored;
    if (dashes && !equals && *i + 1 < count && (!truth || scalar_to_bool(args[*i + 1], &ignored)))
        out->value = args[++*i];
    if (!out->value && !(dashes && truth)) {
        option_problem(reader, &at, out->key, dashes ? "no value; wanted --key value or key=value" : "neither key=value nor --key value");
        mem_free(out->key);
        out->key = NULL;
    }
    return STATUS_OK;
}

enum status option_apply(struct option_reader *reader, const char *key, const char *value, const struct option_source *source,
                         struct error *err)
{
    struct option_target target;
    enum status st = option_find_target(reader->options, key, true, &target, err);
    if (st == STATUS_USAGE) {
        bool meant;
        TRY(option_apply_in_stage(reader, key, value, source, &meant, err));
        if (!meant)
            option_unknown_key(reader, source, key);
        return STATUS_OK;
    }
    TRY(st);
    record(reader, &target, source);
    int before = reader->n_problems;
    TRY(set_from_text(reader, &target, value, source, err));
    reader->bad[target.id] |= reader->n_problems > before;
    return STATUS_OK;
}

enum status option_read_overrides(struct option_reader *reader, int count, char *const *args, struct error *err)
{
    for (int i = 0; i < count; i++) {
        struct option_source at = {.origin = ORIGIN_COMMAND_LINE, .line = i + 1};
        struct override o;
        TRY(next_override(reader, count, args, &i, &o, err));
        if (!o.key)
            continue;
        enum status st = option_apply(reader, o.key, o.value ? o.value : "true", &at, err);
        mem_free(o.key);
        TRY(st);
    }
    return STATUS_OK;
}

