#include "worker/data/table.h"

#include <string.h>
#include <strings.h>

#include "common/memory.h"
#include "common/text.h"
#include "worker/data/bytes.h"

enum status table_rules_set(struct table_rules *rules, const char *key, const char *value, bool *known, struct error *err)
{
    static const char *const names[] = {"double", "none", "backslash"};
    bool is_header = !strcmp(key, "header");
    *known = is_header || !strcmp(key, "quoting");
    if (is_header)
        rules->header = value;
    if (is_header || !*known)
        return STATUS_OK;
    for (int i = 0; i < 3; i++)
        if (!strcmp(names[i], value)) {
            rules->quoting = (enum quoting)i;
            return STATUS_OK;
        }
    FAIL(err, STATUS_USAGE, "quoting must be double, none or backslash, found '%s'", value);
}

char table_delimiter(const char *path)
{
    static const struct {
        const char *ending;
        char delimiter;
    } kinds[] = {{".csv", ','}, {".tsv", '\t'}};
    size_t size = strlen(path);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (size > 4 && !strcasecmp(path + size - 4, kinds[i].ending))
            return kinds[i].delimiter;
    return 0;
}

struct field {
    const char *begin, *end; /* between the quotes, if it has them */
    const char *next;        /* the delimiter, line end or end of the bytes behind it */
    const char *behind;      /* first byte of text behind a closing quote, or NULL */
    bool doubled, closed;    /* has quotes twice; its quote, if it begins with one, is closed */
};

static const char *find_end(const char *at, const char *limit, char delimiter)
{
    while (at < limit && *at != delimiter && *at != '\n')
        at++;
    return at;
}

static struct field read_field(const char *at, const char *limit, char delimiter, enum quoting quoting)
{
    struct field f = {.begin = at, .closed = true};
    if (quoting != QUOTING_DOUBLE || at == limit || *at != '"') {
        f.next = f.end = find_end(at, limit, delimiter);
        return f;
    }
    f.begin = at + 1;
    const char *quote = memchr(f.begin, '"', (size_t)(limit - f.begin));
    for (; quote && quote + 1 < limit && quote[1] == '"'; f.doubled = true)
        quote = memchr(quote + 2, '"', (size_t)(limit - quote - 2));
    f.closed = quote;
    f.end = quote ? quote : limit;
    f.next = quote ? find_end(quote + 1, limit, delimiter) : limit;
    f.behind = quote && f.next > quote + 1 ? quote + 1 : NULL;
    return f;
}

/* The bytes that a field means. */
static void decode_field(const struct field *f, enum quoting quoting, struct text *out)
{
    static const char codes[] = "ntr\\", meanings[] = "\n\t\r\\";
    char escape = quoting == QUOTING_BACKSLASH ? '\\' : f->doubled ? '"' : '\0';
    text_clear(out);
    for (const char *at = f->begin; at < f->end;) {
        const char *mark = escape ? memchr(at, escape, (size_t)(f->end - at)) : NULL;
        const char *code = mark && quoting == QUOTING_BACKSLASH && mark + 1 < f->end ? strchr(codes, mark[1]) : NULL;
        const char *stop = mark ? mark : f->end;
        text_append(out, at, (size_t)(stop - at));
        if (mark)
            text_append(out, code ? meanings + (code - codes) : mark, 1);
        at = !mark ? stop : code || quoting == QUOTING_DOUBLE ? mark + 2 : mark + 1; /* another backslash is itself */
    }
}

/* A message about the byte at `at` of a record. */
static enum status bad_at(const struct table *t, const struct jsonl_record *record, const char *at, const char *what,
                          struct error *err)
{
    int64_t line = record->line;
    const char *start = record->text;
    for (const char *end; (end = memchr(start, '\n', (size_t)(at - start))); line++)
        start = end + 1;
    return error_set(err, STATUS_DATA, "%s:%lld:%zu: %s", t->path, (long long)line, (size_t)(at - start) + 1, what);
}

static enum status check_field(const struct table *t, const struct jsonl_record *record, const struct field *f, struct error *err)
{
    if (!f->behind)
        return STATUS_OK;
    return bad_at(t, record, f->behind, "text behind the quote that closes the field; write a quote inside a field twice (\"\"), or, "
                  "where quotes are plain characters, set quoting: none or backslash", err);
}

enum status table_next(struct table *t, struct jsonl_record *out, bool *found, struct error *err)
{
    const char *limit = t->text + t->size;
    for (*found = false; t->at < t->size && !*found;) {
        struct field f;
        *out = (struct jsonl_record){t->text + t->at, 0, t->line};
        for (const char *at = out->text;; at = f.next + 1) {
            f = read_field(at, limit, t->delimiter, t->quoting);
            out->size = (size_t)(f.next - out->text);
            if (!f.closed)
                return bad_at(t, out, at, "the quote that begins this field never closes; close it, or, where quotes are plain "
                              "characters, set quoting: none or backslash; the file may be cut off", err);
            if (f.next == limit || *f.next == '\n')
                break;
        }
        t->at = out->size + (size_t)(out->text - t->text) + (f.next < limit);
        for (size_t i = 0; i < out->size; i++)
            t->line += out->text[i] == '\n';
        t->line++;
        if (out->size && out->text[out->size - 1] == '\r')
            out->size--;
        *found = out->size;
    }
    return STATUS_OK;
}

static enum status count_is_wrong(const struct table *t, const struct jsonl_record *record, const char *at, size_t fields,
                                  struct error *err)
{
    struct text what = {0};
    text_printf(&what, "the row has %zu field%s, the header names %zu; put fields that hold a %s or a line end into quotes", fields,
                fields == 1 ? "" : "s", t->n_names, t->delimiter == ',' ? "comma" : "tab");
    enum status st = what.failed ? error_set(err, STATUS_NOMEM, "%s: no memory for a row", t->path)
                                 : bad_at(t, record, at, what.data, err);
    text_free(&what);
    return st;
}

/* Calls for every field of the record, in order, with its number and what it means. */
static enum status each_field(const struct table *t, const struct jsonl_record *record, char delimiter, enum quoting quoting,
                              enum status (*take)(void *context, size_t index, const struct text *text, struct error *err),
                              void *context, size_t *count, struct error *err)
{
    const char *limit = record->text + record->size;
    struct text text = {0};
    enum status st = STATUS_OK;
    struct field f;
    *count = 0;
    for (const char *at = record->text; st == STATUS_OK; at = f.next + 1) {
        f = read_field(at, limit, delimiter, quoting);
        st = check_field(t, record, &f, err);
        decode_field(&f, quoting, &text);
        if (st == STATUS_OK && text.failed)
            st = error_set(err, STATUS_NOMEM, "%s:%lld: no memory for the row", t->path, (long long)record->line);
        if (st == STATUS_OK)
            st = take(context, (*count)++, &text, err);
        if (f.next == limit)
            break;
    }
    text_free(&text);
    return st;
}

struct row_under_way {
    const struct table *table;
    const struct jsonl_record *record;
    struct json *object;
};

static enum status take_field(void *context, size_t index, const struct text *text, struct error *err)
{
    const struct row_under_way *row = context;
    const struct table *t = row->table;
    if (index >= t->n_names || !*t->names[index])
        return STATUS_OK;
    if (!json_set_string(row->object, t->names[index], text->data ? text->data : "", text->size))
        FAIL(err, STATUS_NOMEM, "%s:%lld: no memory for the row", t->path, (long long)row->record->line);
    return STATUS_OK;
}

enum status table_parse(const struct table *t, const struct jsonl_record *record, struct json **out, struct error *err)
{
    struct row_under_way row = {.table = t, .record = record};
    size_t fields = 0;
    *out = NULL;
    TRY(bytes_check(t->path, record->text, record->size, record->line, (size_t)(record->text - t->text) + t->skipped, err));
    row.object = json_new_object();
    if (!row.object)
        FAIL(err, STATUS_NOMEM, "%s:%lld: no memory for the row", t->path, (long long)record->line);
    enum status st = each_field(t, record, t->delimiter, t->quoting, take_field, &row, &fields, err);
    if (st == STATUS_OK && fields != t->n_names)
        st = count_is_wrong(t, record, record->text + record->size, fields, err);
    if (st != STATUS_OK) {
        json_free(row.object);
        return st;
    }
    *out = row.object;
    return STATUS_OK;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* A name without white space round it. */
static enum status take_name(void *context, size_t index, const struct text *text, struct error *err)
{
    struct table *t = context;
    const char *begin = text->data ? text->data : "", *end = begin + text->size;
    while (begin < end && is_space(*begin))
        begin++;
    while (end > begin && is_space(end[-1]))
        end--;
    char **names = mem_realloc(t->names, index + 1, sizeof *names);
    if (names)
        t->names = names;
    char *name = names ? mem_strndup(begin, (size_t)(end - begin)) : NULL;
    if (!name)
        FAIL(err, STATUS_NOMEM, "%s: no memory for the names of columns", t->path);
    t->names[t->n_names++] = name;
    for (size_t i = 0; *name && i < index; i++)
        if (!strcmp(t->names[i], name))
            FAIL(err, STATUS_DATA, "%s: columns %zu and %zu are both named '%.60s'; give one another name", t->path, i + 1, index + 1,
                 name);
    return STATUS_OK;
}

static enum status read_header(struct table *t, const struct table_rules *rules, struct error *err)
{
    size_t count;
    struct jsonl_record line = {rules->header, rules->header ? strlen(rules->header) : 0, 1};
    if (line.size) {
        const char *path = t->path;
        t->path = "header"; /* where its errors are */
        enum status st = bytes_check(t->path, line.text, line.size, 1, 0, err);
        if (st == STATUS_OK)
            st = each_field(t, &line, ',', QUOTING_DOUBLE, take_name, t, &count, err);
        t->path = path;
        return st == STATUS_OK ? st : error_prefix(err, "%s", path);
    }
    bool found;
    TRY(table_next(t, &line, &found, err));
    if (!found)
        return STATUS_OK;
    TRY(bytes_check(t->path, line.text, line.size, line.line, (size_t)(line.text - t->text) + t->skipped, err));
    return each_field(t, &line, t->delimiter, t->quoting, take_name, t, &count, err);
}

enum status table_over(const char *path, char delimiter, const char *bytes, size_t size, const struct table_rules *rules,
                       struct table *out, struct error *err)
{
    *out = (struct table){.path = path, .text = bytes, .size = size, .line = 1, .delimiter = delimiter, .quoting = rules->quoting};
    if (size >= 3 && !memcmp(bytes, "\xEF\xBB\xBF", 3)) {
        out->skipped = 3;
        out->text += 3;
        out->size -= 3;
    }
    return read_header(out, rules, err);
}

enum status table_open(const char *path, const struct table_rules *rules, struct table *out, struct error *err)
{
    struct file_map map;
    *out = (struct table){0};
    TRY(file_map_open(path, &map, err));
    enum status st = table_over(path, table_delimiter(path), map.size ? (const char *)map.data : "", map.size, rules, out, err);
    out->map = map;
    return st;
}

void table_close(struct table *t)
{
    for (size_t i = 0; i < t->n_names; i++)
        mem_free(t->names[i]);
    mem_free(t->names);
    file_map_close(&t->map);
    *t = (struct table){0};
}
