#include "worker/data/join.h"

#include <string.h>

#include "common/rng.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"

/* A row on its way into a document. What a turn comes to does not depend on the turns before it, but for whether there
 * are any: an end token is a border that no other token crosses. So lengths of rows add up to that of their document. */
struct entry {
    size_t at, size;  /* its messages in joining.written */
    int tokens[2][2]; /* [behind other rows][as the last row] */
    int64_t next;     /* the next row of its document, -1: none */
};

struct document {
    int64_t first, last; /* entries */
    int open_tokens;     /* while further rows may come */
    int tokens;          /* as it is */
};

/* What all rows must have in common. */
struct alike {
    const char *path; /* of the first row; NULL: no row came yet */
    int64_t line;
    char *system; /* NULL: none */
    size_t system_size;
    float weight;
};

struct joining {
    const struct join_request *request;
    const struct tokenizer *tokenizer;
    const struct row_format *messages; /* the format of documents */
    struct alike alike;
    int stub_tokens;     /* of a document of one short turn */
    struct arena arena;  /* for one row */
    struct text written; /* the messages of all rows as JSON, each row's with commas between them */
    struct entry *entries;
    int64_t count, capacity;
    struct document *documents;
    int64_t n_documents;
};

/* The row being read. */
struct place {
    const char *path;
    int64_t line;
};

static bool has_system(const struct conversation *c)
{
    return c->count && c->messages[0].role == ROLE_SYSTEM;
}

/* ---- messages as JSON ---- */

static bool thinks(const struct message *m)
{
    for (size_t i = 0; m->thought && i < m->thought_size; i++)
        if (!strchr(" \t\r\n", m->thought[i]))
            return true;
    return false;
}

static void put_message(const struct message *m, struct text *out)
{
    text_printf(out, "{\"role\": \"%s\"", role_name(m->role));
    if (thinks(m)) {
        text_puts(out, ", \"reasoning_content\": ");
        text_json_string(out, m->thought, m->thought_size);
    }
    text_puts(out, ", \"content\": ");
    text_json_string(out, m->content, m->content_size);
    if (m->supervised && m->factor > 0)
        text_printf(out, ", \"weight\": %.9g", (double)m->factor);
    text_puts(out, m->role == ROLE_ASSISTANT && !m->supervised ? ", \"loss\": false}" : "}");
}

static bool same_text(const char *a, size_t a_size, const char *b, size_t b_size)
{
    return a_size == b_size && !memcmp(a, b, a_size);
}

/* Whether the messages reader finds what was written; thoughts lose white space at their ends, nothing else changes. */
static bool same_turns(const struct conversation *written, const struct conversation *found)
{
    const struct message *w = written->messages + has_system(written);
    if (found->count != written->count - has_system(written))
        return false;
    for (int i = 0; i < found->count; i++, w++) {
        const struct message *f = &found->messages[i];
        if (f->role != w->role || f->supervised != w->supervised || f->factor != w->factor || thinks(f) != thinks(w) ||
            !same_text(f->content, f->content_size, w->content, w->content_size))
            return false;
    }
    return true;
}

/* Writes the row's turns behind those of other rows and reads them again, as training will: `out` is counted. */
static enum status write_turns(struct joining *j, const struct place *at, const struct conversation *c, struct json **json,
                               struct conversation *out, struct error *err)
{
    static const struct row_options options;
    struct text alone = {0};
    struct error why;
    size_t from = j->written.size;
    for (int i = has_system(c); i < c->count; i++) {
        if (j->written.size > from)
            text_puts(&j->written, ", ");
        put_message(&c->messages[i], &j->written);
    }
    text_puts(&alone, "{\"messages\": [");
    text_append(&alone, j->written.data + from, j->written.size - from);
    text_puts(&alone, "]}");
    enum status st = STATUS_NOMEM;
    if (!alone.failed && !j->written.failed)
        st = json_parse_piece(alone.data, alone.size, at->path, at->line, json, &why);
    text_free(&alone);
    if (st == STATUS_OK)
        st = row_read(j->messages, *json, at->path, at->line, &options, &j->arena, out, &why);
    if (st == STATUS_NOMEM)
        FAIL(err, STATUS_NOMEM, "%s:%lld: no memory to join the row", at->path, (long long)at->line);
    if (st != STATUS_OK || !same_turns(c, out))
        FAIL(err, STATUS_DATA, "%s:%lld: the row cannot become messages, for an answer of it holds <think> or </think>, which "
             "would be read as the border of a thought; remove the tags or the row", at->path, (long long)at->line);
    return STATUS_OK;
}

/* ---- lengths ---- */

static enum status encoded_length(struct joining *j, const struct conversation *c, int *out, struct error *err)
{
    struct row row;
    TRY(template_encode(j->request->template, j->tokenizer, c, &row, err));
    *out = row.n_tokens;
    row_free(&row);
    return STATUS_OK;
}

/* Tokens of a document that holds a short turn (with `stub`) and the row's turns. */
static enum status count_document(struct joining *j, bool stub, const struct conversation *turns, int *out, struct error *err)
{
    const struct message system = {.role = ROLE_SYSTEM, .content = j->alike.system, .content_size = j->alike.system_size};
    const struct message question = {.role = ROLE_USER, .content = "?", .content_size = 1};
    const struct message answer = {.role = ROLE_ASSISTANT, .content = "!", .content_size = 1, .supervised = true};
    struct conversation c = {.weight = 1};
    c.messages = arena_alloc(&j->arena, (size_t)turns->count + 3, sizeof *c.messages);
    if (!c.messages)
        FAIL(err, STATUS_NOMEM, "no memory to count the tokens of a row");
    if (j->alike.system)
        c.messages[c.count++] = system;
    if (stub) {
        c.messages[c.count++] = question;
        c.messages[c.count++] = answer;
    }
    for (int i = 0; i < turns->count; i++)
        c.messages[c.count++] = turns->messages[i];
    return encoded_length(j, &c, out, err);
}

/* All four lengths of the row. Only the last question of a document gets the text that asks for steps. */
static enum status count_tokens(struct joining *j, const struct conversation *turns, struct entry *out, struct error *err)
{
    const struct join_request *r = j->request;
    bool asks = r->cot_prompt && *r->cot_prompt;
    for (int last = 0; last < 2; last++) {
        if (last && !asks) { /* the same texts */
            out->tokens[0][1] = out->tokens[0][0];
            out->tokens[1][1] = out->tokens[1][0];
            return STATUS_OK;
        }
        struct conversation dressed = *turns;
        dressed.messages = arena_alloc(&j->arena, (size_t)turns->count, sizeof *dressed.messages);
        if (!dressed.messages)
            FAIL(err, STATUS_NOMEM, "no memory to count the tokens of a row");
        memcpy(dressed.messages, turns->messages, (size_t)turns->count * sizeof *dressed.messages);
        TRY(conversation_dress(&dressed, last ? r->cot_prompt : NULL, r->answer_prefix, &j->arena, err));
        TRY(count_document(j, false, &dressed, &out->tokens[0][last], err));
        TRY(count_document(j, true, &dressed, &out->tokens[1][last], err));
        out->tokens[1][last] -= j->stub_tokens;
    }
    return STATUS_OK;
}

/* ---- reading ---- */

/* The first row says what system message and weight documents have. */
static enum status agree(struct joining *j, const struct place *at, const struct conversation *c, struct error *err)
{
    struct alike *alike = &j->alike;
    const struct message *system = has_system(c) ? c->messages : NULL;
    if (!alike->path) {
        alike->system = system ? mem_strndup(system->content, system->content_size) : NULL;
        if (system && !alike->system)
            FAIL(err, STATUS_NOMEM, "no memory for a system message");
        alike->system_size = system ? system->content_size : 0;
        alike->weight = c->weight;
        alike->path = at->path;
        alike->line = at->line;
        return count_document(j, true, &(struct conversation){0}, &j->stub_tokens, err);
    }
    bool same_system = !system == !alike->system &&
                       (!system || same_text(system->content, system->content_size, alike->system, alike->system_size));
    if (same_system && c->weight == alike->weight)
        return STATUS_OK;
    FAIL(err, STATUS_DATA, "%s:%lld: the row has another %s than the one in %s:%lld, and a document can have only one; join such "
         "rows apart", at->path, (long long)at->line, same_system ? "weight" : "system message", alike->path,
         (long long)alike->line);
}

static enum status reserve_entry(struct joining *j, struct error *err)
{
    if (j->count < j->capacity)
        return STATUS_OK;
    int64_t capacity = j->capacity ? j->capacity * 2 : 256;
    struct entry *grown = mem_realloc(j->entries, (size_t)capacity, sizeof *grown);
    if (!grown || j->count == UINT32_MAX)
        FAIL(err, STATUS_NOMEM, "no memory for a list of %lld rows", (long long)capacity);
    j->entries = grown;
    j->capacity = capacity;
    return STATUS_OK;
}

static enum status name_long_row(const struct joining *j, const struct place *at, const struct entry *entry,
                                 struct join_report *report, struct error *err)
{
    struct text line = {0};
    text_printf(&line, "%s:%lld: %d tokens, more than %d", at->path, (long long)at->line, entry->tokens[0][1],
                j->request->tokens);
    enum status st = line.failed ? error_set(err, STATUS_NOMEM, "no memory to list the rows that are too long")
                                 : problems_add(&report->problems, line.data, err);
    text_free(&line);
    report->too_long++;
    return st;
}

static enum status take_row(struct joining *j, const struct row_format *format, const struct place *at, const struct json *row,
                            struct join_report *report, struct error *err)
{
    struct row_options options = {.keep_calculator_marks = j->request->keep_calculator_marks, .columns = j->request->columns};
    struct conversation c, turns;
    struct entry entry = {.at = j->written.size, .next = -1};
    struct json *json = NULL;
    TRY(row_read(format, row, at->path, at->line, &options, &j->arena, &c, err));
    if (c.plain)
        FAIL(err, STATUS_DATA, "%s:%lld: a row of plain text is no turn of a conversation; join rows with a question and an answer",
             at->path, (long long)at->line);
    TRY(agree(j, at, &c, err));
    TRY(reserve_entry(j, err));
    enum status st = write_turns(j, at, &c, &json, &turns, err);
    if (st == STATUS_OK && (st = count_tokens(j, &turns, &entry, err)) == STATUS_DATA)
        error_prefix(err, "%s:%lld", at->path, (long long)at->line);
    json_free(json);
    TRY(st);
    if (entry.tokens[0][1] > j->request->tokens) {
        j->written.size = entry.at;
        return name_long_row(j, at, &entry, report, err);
    }
    entry.size = j->written.size - entry.at;
    j->entries[j->count++] = entry;
    return STATUS_OK;
}

static enum status read_rows(struct joining *j, struct records *reader, struct join_report *report, struct error *err)
{
    const char *name = j->request->format;
    const struct row_format *format = NULL;
    const struct row_options options = {.columns = j->request->columns};
    struct jsonl_record record;
    bool found;
    if (name && *name && strcmp(name, "auto")) {
        TRY(row_format_find(name, &format, err));
        TRY(row_format_check(format, &options.columns, err));
    }
    for (int64_t rows = 0;; rows++) {
        TRY(records_next(reader, &record, &found, err));
        if (!found && !rows)
            FAIL(err, STATUS_DATA, "'%s' holds no rows; %s", reader->path, records_wanted(reader));
        if (!found)
            return STATUS_OK;
        struct json *row;
        struct place at = {reader->path, record.line};
        TRY(records_parse(reader, &record, &row, err));
        enum status st = format ? STATUS_OK : row_format_detect(row, at.path, at.line, &options, &format, err);
        if (st == STATUS_OK)
            st = take_row(j, format, &at, row, report, err);
        json_free(row);
        arena_reset(&j->arena);
        TRY(st);
        report->rows++;
    }
}

static enum status read_files(struct joining *j, struct join_report *report, struct error *err)
{
    for (int i = 0; i < j->request->n_paths; i++) {
        struct records reader;
        TRY(records_open(j->request->paths[i], &j->request->table, &reader, err));
        enum status st = read_rows(j, &reader, report, err);
        records_close(&reader);
        TRY(st);
    }
    if (!j->count)
        FAIL(err, STATUS_DATA, "no row of %lld fits into a document of %d tokens; the first: %s; give documents more tokens",
             (long long)report->rows, j->request->tokens, report->problems.lines[0]);
    return STATUS_OK;
}

/* ---- documents ---- */

static bool has_room(const struct joining *j, const struct document *d, const struct entry *e)
{
    return d->open_tokens <= j->request->tokens - e->tokens[1][1];
}

static void append(struct joining *j, struct document *d, int64_t index)
{
    const struct entry *e = &j->entries[index];
    bool behind = d->first >= 0;
    if (behind)
        j->entries[d->last].next = index;
    else
        d->first = index;
    d->last = index;
    d->tokens = d->open_tokens + e->tokens[behind][1];
    d->open_tokens += e->tokens[behind][0];
}

static enum status fill_documents(struct joining *j, struct error *err)
{
    uint32_t *order = mem_alloc((size_t)j->count, sizeof *order);
    j->documents = mem_alloc((size_t)j->count, sizeof *j->documents);
    if (!order || !j->documents) {
        mem_free(order);
        FAIL(err, STATUS_NOMEM, "no memory to put %lld rows into documents", (long long)j->count);
    }
    rng_permutation(j->request->seed, RNG_SHUFFLE, (uint32_t)j->count, order);
    for (int64_t i = 0; i < j->count; i++) {
        int64_t d = j->n_documents > JOIN_OPEN ? j->n_documents - JOIN_OPEN : 0;
        while (d < j->n_documents && !has_room(j, &j->documents[d], &j->entries[order[i]]))
            d++;
        if (d == j->n_documents)
            j->documents[j->n_documents++] = (struct document){.first = -1};
        append(j, &j->documents[d], order[i]);
    }
    mem_free(order);
    return STATUS_OK;
}

static void put_document(const struct joining *j, const struct document *d, struct text *lines)
{
    const struct alike *alike = &j->alike;
    text_puts(lines, "{\"messages\": [");
    if (alike->system) {
        struct message system = {.role = ROLE_SYSTEM, .content = alike->system, .content_size = alike->system_size};
        put_message(&system, lines);
        text_puts(lines, ", ");
    }
    for (int64_t i = d->first; i >= 0; i = j->entries[i].next) {
        if (i != d->first)
            text_puts(lines, ", ");
        text_append(lines, j->written.data + j->entries[i].at, j->entries[i].size);
    }
    text_puts(lines, "]");
    if (alike->weight != 1)
        text_printf(lines, ", \"weight\": %.9g", (double)alike->weight);
    text_puts(lines, "}\n");
}

static enum status put_documents(const struct joining *j, struct text *lines, struct join_report *report, struct error *err)
{
    for (int64_t i = 0; i < j->n_documents; i++) {
        const struct document *d = &j->documents[i];
        put_document(j, d, lines);
        report->tokens += d->tokens;
        report->longest = d->tokens > report->longest ? d->tokens : report->longest;
    }
    report->joined = j->count;
    report->documents = j->n_documents;
    if (lines->failed)
        FAIL(err, STATUS_NOMEM, "no memory for %lld documents", (long long)j->n_documents);
    return STATUS_OK;
}

enum status join_documents(const struct join_request *request, const struct tokenizer *tokenizer, struct text *lines,
                           struct join_report *report, struct error *err)
{
    struct joining j = {.request = request, .tokenizer = tokenizer};
    j.arena.block_bytes = 1 << 14;
    *report = (struct join_report){0};
    enum status st;
    TRY_OR(done, st, row_format_find("messages", &j.messages, err));
    TRY_OR(done, st, template_check(request->template, tokenizer, err));
    TRY_OR(done, st, read_files(&j, report, err));
    TRY_OR(done, st, fill_documents(&j, err));
    st = put_documents(&j, lines, report, err);
done:
    mem_free(j.alike.system);
    mem_free(j.entries);
    mem_free(j.documents);
    text_free(&j.written);
    arena_free(&j.arena);
    return st;
}
