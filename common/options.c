#include "common/options.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/options_read.h"
#include "common/options_value.h"
#include "common/scalar.h"

enum { SHOWN_PROBLEMS = 20 };

static void put_place(struct text *out, const struct option_reader *reader, const struct option_source *source)
{
    if (source->origin == ORIGIN_COMMAND_LINE)
        text_puts(out, "command line: ");
    else if (source->origin == ORIGIN_FILE)
        text_printf(out, "%s:%d:%d: ", reader->name, source->line, source->column);
    else
        text_printf(out, "%s: ", reader->name);
}

/* Control characters of a user's text must not reach the terminal, nor break the list of lines. */
static void printable(char *text)
{
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

static void put_line(struct text *out, const struct option_reader *reader, const struct option_source *source, const char *key,
                     const char *format, va_list args)
{
    char line[1280];
    int used = snprintf(line, sizeof line, "%.100s%s", key, *key ? ": " : "");
    vsnprintf(line + used, sizeof line - (size_t)used, format, args);
    printable(line);
    put_place(out, reader, source);
    text_printf(out, "%s\n", line);
}

void option_problem(struct option_reader *reader, const struct option_source *source, const char *key, const char *format, ...)
{
    reader->n_problems++;
    if (reader->n_problems > SHOWN_PROBLEMS)
        return;
    va_list args;
    va_start(args, format);
    put_line(&reader->problems, reader, source, key, format, args);
    va_end(args);
}

void option_note(struct option_reader *reader, const struct option_source *source, const char *key, const char *format, ...)
{
    if (!reader->notes)
        return;
    va_list args;
    va_start(args, format);
    put_line(reader->notes, reader, source, key, format, args);
    va_end(args);
}

static void *field_of(struct options *options, const struct option_row *row)
{
    return (char *)options + row->offset;
}

enum status options_defaults(struct options *out, struct error *err)
{
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        enum status st = option_value_default(&option_rows[i], field_of(out, &option_rows[i]), err);
        if (st != STATUS_OK) {
            options_free(out);
            return st;
        }
    }
    return STATUS_OK;
}

void options_free(struct options *options)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        option_value_clear(&option_rows[i], field_of(options, &option_rows[i]));
    mem_free(options->file);
    mem_free(options->text);
    memset(options, 0, sizeof *options);
}

/* Fills in what an entry leaves out: its name from its file's name, its task from its name. */
static enum status complete_datasets(struct dataset_list *list, struct error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        struct dataset_options *entry = &list->items[i];
        if (!entry->path)
            continue;
        const char *slash = strrchr(entry->path, '/'), *base = slash && slash[1] ? slash + 1 : entry->path;
        const char *dot = strrchr(base, '.');
        if (!entry->name)
            entry->name = mem_strndup(base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
        if (entry->name && !entry->task)
            entry->task = mem_strdup(entry->name);
        if (!entry->task)
            FAIL(err, STATUS_NOMEM, "no memory for the names of data sets");
    }
    return STATUS_OK;
}

/* True, yes and on are one word for those who read the key. */
static enum status complete_resume(struct options *o, struct error *err)
{
    bool value;
    char *word;
    if (!scalar_to_bool(o->resume_from_checkpoint, &value))
        return STATUS_OK;
    if (!(word = mem_strdup(value ? "true" : "false")))
        FAIL(err, STATUS_NOMEM, "no memory for the option resume_from_checkpoint");
    mem_free(o->resume_from_checkpoint);
    o->resume_from_checkpoint = word;
    return STATUS_OK;
}

static enum status complete_stages(struct options *o, struct error *err)
{
    for (size_t i = 0; i < o->stages.count; i++) {
        char name[32];
        snprintf(name, sizeof name, "stage-%zu", i + 1);
        if (!o->stages.items[i].name && !(o->stages.items[i].name = mem_strdup(name)))
            FAIL(err, STATUS_NOMEM, "no memory for the names of stages");
    }
    return STATUS_OK;
}

enum status option_complete(struct options *o, struct error *err)
{
    TRY(complete_datasets(&o->datasets, err));
    TRY(complete_datasets(&o->eval_datasets, err));
    TRY(complete_stages(o, err));
    return complete_resume(o, err);
}

/* ---- all together ---- */

enum status option_verdict(const struct option_reader *reader, struct error *err)
{
    if (reader->problems.failed || (reader->notes && reader->notes->failed))
        FAIL(err, STATUS_NOMEM, "no memory to read the options");
    if (!reader->n_problems)
        return STATUS_OK;
    char message[ERROR_TEXT_SIZE];
    size_t used = 0;
    int shown = 0;
    if (reader->n_problems > 1)
        used = (size_t)snprintf(message, sizeof message, "%d problems with the options", reader->n_problems);
    for (const char *line = reader->problems.data; *line; shown++) {
        size_t size = strcspn(line, "\n");
        if (used + size + 80 > sizeof message)
            break;
        used += (size_t)snprintf(message + used, sizeof message - used, "%s%.*s", used ? "\n  " : "", (int)size, line);
        line += size + 1;
    }
    if (shown < reader->n_problems)
        snprintf(message + used, sizeof message - used, "\n  ... and %d more", reader->n_problems - shown);
    FAIL(err, STATUS_USAGE, "%s", message);
}

static enum status read_all(struct option_reader *reader, int n_overrides, char *const *overrides, struct error *err)
{
    struct options *o = reader->options;
    TRY(option_read_file(reader, o->text, o->text_size, err));
    TRY(option_read_overrides(reader, n_overrides, overrides, err));
    TRY(option_complete(o, err));
    if (reader->checked) {
        TRY(option_read_layers_file(reader, err));
        TRY(option_read_template(reader, err));
        TRY(option_check_stages(reader, err));
    }
    return option_verdict(reader, err);
}

/* Takes the text over, also on failure. */
static enum status parse_owned(char *text, size_t size, const char *name, bool checked, int n_overrides, char *const *overrides,
                               struct options *out, struct text *notes, struct error *err)
{
    struct error local;
    enum status st = options_defaults(out, err);
    if (st != STATUS_OK) {
        mem_free(text);
        return st;
    }
    out->text = text;
    out->text_size = size;
    out->file = mem_strdup(name);
    struct option_reader reader = {.options = out, .name = name, .notes = notes, .checked = checked};
    st = out->file ? read_all(&reader, n_overrides, overrides, err ? err : &local)
                   : error_set(err, STATUS_NOMEM, "no memory for the name '%s'", name);
    text_free(&reader.problems);
    if (st != STATUS_OK)
        options_free(out);
    return st;
}

static enum status copy_text(const char *text, size_t size, const char *name, char **out, struct error *err)
{
    if (!(*out = mem_alloc(size + 1, 1)))
        FAIL(err, STATUS_NOMEM, "no memory for the %zu bytes of %s", size, name);
    if (size)
        memcpy(*out, text, size);
    return STATUS_OK;
}

enum status options_parse_text(const char *text, size_t size, const char *name, int n_overrides, char *const *overrides,
                               struct options *out, struct text *notes, struct error *err)
{
    char *copy;
    TRY(copy_text(text, size, name, &copy, err));
    return parse_owned(copy, size, name, true, n_overrides, overrides, out, notes, err);
}

enum status option_read_saved(const char *text, size_t size, const char *name, struct options *out, struct error *err)
{
    char *copy;
    TRY(copy_text(text, size, name, &copy, err));
    return parse_owned(copy, size, name, false, 0, NULL, out, NULL, err);
}

enum status options_load(const char *path, int n_overrides, char *const *overrides, struct options *out, struct text *notes,
                         struct error *err)
{
    char *text;
    size_t size;
    enum status st = file_read(path, &text, &size, err);
    if (st != STATUS_OK)
        return st == STATUS_DATA ? STATUS_USAGE : st; /* a wrong name on the command line */
    return parse_owned(text, size, path, true, n_overrides, overrides, out, notes, err);
}

enum status options_set(struct options *options, const char *key, const char *value, struct error *err)
{
    struct error local;
    err = err ? err : &local;
    struct option_reader reader = {.options = options, .name = "options"};
    struct option_source at = {.origin = ORIGIN_COMMAND_LINE, .line = 1};
    enum status st = option_apply(&reader, key, value, &at, err);
    if (st == STATUS_OK)
        st = option_complete(options, err);
    if (st == STATUS_OK)
        st = option_verdict(&reader, err);
    text_free(&reader.problems);
    return st;
}

bool options_get(const struct options *options, const char *key, struct text *out)
{
    struct option_target target;
    if (option_find_target((struct options *)options, key, false, &target, NULL) != STATUS_OK)
        return false;
    const char *string = target.row->kind == OPTION_KIND_STRING ? *(char **)target.field : NULL;
    if (string)
        text_puts(out, string); /* as on a command line, without quotes */
    else
        option_value_put(target.row, target.field, out);
    return true;
}

struct option_source options_get_source(const struct options *options, const char *key)
{
    struct option_target target = {.id = 0};
    (void)option_find_target((struct options *)options, key, false, &target, NULL);
    return options->sources[target.id];
}
