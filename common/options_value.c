#include "common/options_value.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "common/scalar.h"

static bool is_number(enum option_kind kind)
{
    return kind == OPTION_KIND_INT || kind == OPTION_KIND_REAL || kind == OPTION_KIND_REALS;
}

static bool within(const struct option_limits *l, double value)
{
    return (l->low_open ? value > l->low : value >= l->low) && (l->high_open ? value < l->high : value <= l->high);
}

static void put_limits(const struct option_row *row, struct text *out)
{
    const struct option_limits *l = &row->limits;
    double fallback;
    if (isfinite(l->low) && l->low == l->high) {
        text_puts(out, ", only ");
        scalar_put_real(out, l->low);
    } else if (isfinite(l->low)) {
        text_puts(out, l->low_open ? ", above " : ", ");
        scalar_put_real(out, l->low);
        if (!isfinite(l->high))
            text_puts(out, l->low_open ? "" : " or more");
        else {
            text_puts(out, l->high_open ? " or more and below " : l->low_open ? " and at most " : " to ");
            scalar_put_real(out, l->high);
        }
    }
    if (scalar_to_real(row->fallback, &fallback) && !within(l, fallback))
        text_printf(out, ", or %s", row->fallback);
}

void option_put_wanted(const struct option_row *row, struct text *out)
{
    static const char *const kinds[] = {
        [OPTION_KIND_INT] = "a whole number", [OPTION_KIND_REAL] = "a number",
        [OPTION_KIND_BOOL] = "true or false", [OPTION_KIND_STRING] = "a text",
        [OPTION_KIND_CHOICE] = "one of",      [OPTION_KIND_STRINGS] = "a list of texts",
        [OPTION_KIND_REALS] = "a list of numbers",
    };
    const struct option_entries *entries = option_entries(row->kind);
    if (entries)
        text_printf(out, "a list of %s", entries->noun);
    else
        text_puts(out, kinds[row->kind]);
    if (*row->unit)
        text_printf(out, " of %s", row->unit);
    if (is_number(row->kind))
        put_limits(row, out);
    for (const char *const *word = row->limits.words; word && *word; word++)
        text_printf(out, "%s%s", word == row->limits.words ? " " : ", ", *word);
}

static enum status no_memory(const struct option_row *row, struct error *err)
{
    FAIL(err, STATUS_NOMEM, "no memory for the option %s", row->name);
}

static enum status refuse(const struct option_row *row, const char *text, const char *advice, struct error *err)
{
    struct text wanted = {0};
    option_put_wanted(row, &wanted);
    bool failed = wanted.failed;
    error_set(err, STATUS_USAGE, "found '%.80s', wanted %s%s", text, failed ? "" : wanted.data, advice);
    text_free(&wanted);
    return failed ? no_memory(row, err) : STATUS_USAGE;
}

static enum status parse_number(const struct option_row *row, const char *text, int64_t *integer, double *real,
                                struct error *err)
{
    bool whole = row->kind == OPTION_KIND_INT;
    if (whole ? !scalar_to_int(text, integer) : !scalar_to_real(text, real))
        return refuse(row, text, "", err);
    double value = whole ? (double)*integer : *real, fallback;
    bool special = scalar_to_real(row->fallback, &fallback) && value == fallback;
    return within(&row->limits, value) || special ? STATUS_OK : refuse(row, text, "", err);
}

static enum status parse_choice(const struct option_row *row, const char *text, const char **out, struct error *err)
{
    const char *other = option_value_alias(row->name, text);
    size_t count = 0;
    for (const char *const *word = row->limits.words; *word; word++, count++)
        if (!strcmp(*word, other ? other : text)) {
            *out = *word;
            return STATUS_OK;
        }
    const char *near = nearest_name(text, row->limits.words, count);
    char advice[128] = "";
    if (near)
        snprintf(advice, sizeof advice, "; did you mean '%s'?", near);
    return refuse(row, text, advice, err);
}

static enum status add_string(const struct option_row *row, struct string_list *list, const char *text, struct error *err)
{
    char **grown = mem_realloc(list->items, list->count + 1, sizeof *grown);
    if (!grown)
        return no_memory(row, err);
    list->items = grown;
    if (!(grown[list->count] = mem_strdup(text)))
        return no_memory(row, err);
    list->count++;
    return STATUS_OK;
}

static enum status add_real(const struct option_row *row, struct real_list *list, const char *text, struct error *err)
{
    double value;
    TRY(parse_number(row, text, NULL, &value, err));
    double *grown = mem_realloc(list->items, list->count + 1, sizeof *grown);
    if (!grown)
        return no_memory(row, err);
    list->items = grown;
    grown[list->count++] = value;
    return STATUS_OK;
}

static enum status set_string(const struct option_row *row, char **field, const char *text, struct error *err)
{
    if (!*text && *row->fallback)
        return refuse(row, text, "", err);
    char *copy = *text ? mem_strdup(text) : NULL; /* nothing and "not given" are one */
    if (*text && !copy)
        return no_memory(row, err);
    mem_free(*field);
    *field = copy;
    return STATUS_OK;
}

static enum status set_scalar(const struct option_row *row, void *field, const char *text, struct error *err)
{
    double real;
    switch (row->kind) {
    case OPTION_KIND_INT: {
        int64_t integer;
        TRY(parse_number(row, text, &integer, &real, err));
        *(int64_t *)field = integer;
        return STATUS_OK;
    }
    case OPTION_KIND_REAL:
        TRY(parse_number(row, text, NULL, &real, err));
        *(double *)field = real;
        return STATUS_OK;
    case OPTION_KIND_BOOL: return scalar_to_bool(text, field) ? STATUS_OK : refuse(row, text, "", err);
    case OPTION_KIND_CHOICE: return parse_choice(row, text, field, err);
    default: return set_string(row, field, text, err);
    }
}

static enum status check_text(const struct option_row *row, const char *text, bool quoted, struct error *err)
{
    if (!scalar_is_utf8(text))
        FAIL(err, STATUS_USAGE, "the text is not UTF-8");
    if (quoted && (is_number(row->kind) || row->kind == OPTION_KIND_BOOL))
        return refuse(row, text, "; leave the quotes out", err);
    return STATUS_OK;
}

/* A single word for a list of one entry. */
static enum status set_shorthand(const struct option_row *row, void *field, const char *text, bool quoted, struct error *err)
{
    const struct option_entries *entries = option_entries(row->kind);
    if (!entries->shorthand)
        return refuse(row, text, "", err);
    struct entry_list list = {0};
    const struct option_row *key = option_entry_find(entries, entries->shorthand);
    char *entry = option_entry_add(entries, &list);
    enum status st = entry ? option_value_set(key, entry + key->offset, text, quoted, err) : no_memory(row, err);
    void *loser = st == STATUS_OK ? field : &list;
    option_value_clear(row, loser);
    if (st == STATUS_OK)
        memcpy(field, &list, sizeof list);
    return st;
}

enum status option_value_set(const struct option_row *row, void *field, const char *text, bool quoted, struct error *err)
{
    TRY(check_text(row, text, quoted, err));
    if (!quoted && scalar_is_null(text))
        return option_value_default(row, field, err);
    if (option_entries(row->kind))
        return set_shorthand(row, field, text, quoted, err);
    if (row->kind == OPTION_KIND_STRINGS) {
        struct string_list list = {0};
        TRY(option_value_add(row, &list, text, quoted, err));
        option_value_clear(row, field);
        *(struct string_list *)field = list;
        return STATUS_OK;
    }
    if (row->kind == OPTION_KIND_REALS) {
        struct real_list list = {0};
        TRY(option_value_add(row, &list, text, quoted, err));
        option_value_clear(row, field);
        *(struct real_list *)field = list;
        return STATUS_OK;
    }
    return set_scalar(row, field, text, err);
}

enum status option_value_add(const struct option_row *row, void *field, const char *text, bool quoted, struct error *err)
{
    TRY(check_text(row, text, quoted, err));
    if (row->kind == OPTION_KIND_REALS)
        return add_real(row, field, text, err);
    if (!*text)
        FAIL(err, STATUS_USAGE, "found an empty text in the list");
    struct string_list *list = field;
    bool fresh = !list->items;
    enum status st = add_string(row, list, text, err);
    if (st != STATUS_OK && fresh)
        option_value_clear(row, field);
    return st;
}

enum status option_value_default(const struct option_row *row, void *field, struct error *err)
{
    if (row->kind == OPTION_KIND_STRINGS || row->kind == OPTION_KIND_REALS || option_entries(row->kind)) {
        option_value_clear(row, field);
        return STATUS_OK;
    }
    return set_scalar(row, field, row->fallback, err);
}

struct entry_list option_entry_list(const void *field)
{
    struct entry_list list;
    memcpy(&list, field, sizeof list);
    return list;
}

static void clear_entries(const struct option_entries *entries, void *field)
{
    struct entry_list list = option_entry_list(field);
    for (size_t i = 0; i < list.count; i++)
        for (size_t k = 0; k < entries->count; k++)
            option_value_clear(&entries->rows[k], list.items + i * entries->size + entries->rows[k].offset);
    mem_free(list.items);
    memset(field, 0, sizeof list);
}

void option_value_clear(const struct option_row *row, void *field)
{
    if (row->kind == OPTION_KIND_STRING) {
        mem_free(*(char **)field);
        *(char **)field = NULL;
    } else if (row->kind == OPTION_KIND_STRINGS) {
        struct string_list *list = field;
        for (size_t i = 0; i < list->count; i++)
            mem_free(list->items[i]);
        mem_free(list->items);
        *list = (struct string_list){0};
    } else if (row->kind == OPTION_KIND_REALS) {
        mem_free(((struct real_list *)field)->items);
        *(struct real_list *)field = (struct real_list){0};
    } else if (option_entries(row->kind)) {
        clear_entries(option_entries(row->kind), field);
    }
}

void *option_entry_add(const struct option_entries *entries, void *field)
{
    struct entry_list list = option_entry_list(field);
    char *grown = mem_realloc(list.items, list.count + 1, entries->size);
    if (!grown)
        return NULL;
    list.items = grown;
    memcpy(field, &list, sizeof list);
    char *entry = grown + list.count * entries->size;
    memset(entry, 0, entries->size);
    for (size_t k = 0; k < entries->count; k++)
        if (option_value_default(&entries->rows[k], entry + entries->rows[k].offset, NULL) != STATUS_OK) {
            for (size_t j = 0; j < k; j++)
                option_value_clear(&entries->rows[j], entry + entries->rows[j].offset);
            return NULL;
        }
    list.count++;
    memcpy(field, &list, sizeof list);
    return entry;
}

static void put_entry(const struct option_entries *entries, const char *entry, struct text *out)
{
    const char *separator = "{";
    for (size_t k = 0; k < entries->count; k++) {
        const struct option_row *row = &entries->rows[k];
        const void *field = entry + row->offset;
        if (row->kind == OPTION_KIND_STRING && !*(char *const *)field)
            continue;
        text_printf(out, "%s%s: ", separator, row->name);
        option_value_put(row, field, out);
        separator = ", ";
    }
    text_puts(out, "}");
}

void option_value_put(const struct option_row *row, const void *field, struct text *out)
{
    switch (row->kind) {
    case OPTION_KIND_INT: text_printf(out, "%lld", (long long)*(const int64_t *)field); return;
    case OPTION_KIND_REAL: scalar_put_real(out, *(const double *)field); return;
    case OPTION_KIND_BOOL: text_puts(out, *(const bool *)field ? "true" : "false"); return;
    case OPTION_KIND_CHOICE: text_puts(out, *(const char *const *)field); return;
    case OPTION_KIND_STRING:
        if (*(char *const *)field)
            scalar_put_string(out, *(char *const *)field);
        return;
    default: break;
    }
    const struct string_list *strings = field;
    const struct real_list *reals = field;
    const struct entry_list list = option_entry_list(field);
    const struct option_entries *entries = option_entries(row->kind);
    size_t count = row->kind == OPTION_KIND_STRINGS ? strings->count
                   : row->kind == OPTION_KIND_REALS ? reals->count
                                                    : list.count;
    text_puts(out, "[");
    for (size_t i = 0; i < count; i++) {
        text_puts(out, i ? ", " : "");
        if (row->kind == OPTION_KIND_STRINGS)
            scalar_put_string(out, strings->items[i]);
        else if (row->kind == OPTION_KIND_REALS)
            scalar_put_real(out, reals->items[i]);
        else
            put_entry(entries, list.items + i * entries->size, out);
    }
    text_puts(out, "]");
}

bool option_value_is_default(const struct option_row *row, const void *field)
{
    double real;
    bool truth;
    switch (row->kind) {
    case OPTION_KIND_INT: return scalar_to_real(row->fallback, &real) && (double)*(const int64_t *)field == real;
    case OPTION_KIND_REAL: return scalar_to_real(row->fallback, &real) && *(const double *)field == real;
    case OPTION_KIND_BOOL: return scalar_to_bool(row->fallback, &truth) && *(const bool *)field == truth;
    case OPTION_KIND_CHOICE: return !strcmp(*(const char *const *)field, row->fallback);
    case OPTION_KIND_STRING: {
        const char *text = *(char *const *)field;
        return !strcmp(text ? text : "", row->fallback);
    }
    case OPTION_KIND_STRINGS: return !((const struct string_list *)field)->count;
    case OPTION_KIND_REALS: return !((const struct real_list *)field)->count;
    default: return !option_entry_list(field).count;
    }
}
