#include "worker/data/rows.h"

#include <string.h>

#include "common/scalar.h"
#include "common/text.h"
#include "worker/data/reading.h"

/* What run files call the columns: NAME_column. */
static const char *const role_names[ROW_ROLES] = {
    [ROW_QUESTION] = "question", [ROW_INPUT] = "input",     [ROW_THOUGHT] = "thought",
    [ROW_ANSWER] = "answer",     [ROW_SYSTEM] = "system",   [ROW_HISTORY] = "history",
    [ROW_MESSAGES] = "messages", [ROW_TEXT] = "text",       [ROW_LABEL] = "label",
    [ROW_WEIGHT] = "weight",
};

enum { MAX_COLUMNS = 5, MAX_NAMES = 7 };
enum need { NEEDED = 1, OPTIONAL };

struct column {
    enum need need; /* 0 behind the last column */
    enum row_role role;
    const char *names[MAX_NAMES + 1]; /* the format's own name, then others that count where it is missing */
};

struct row_format {
    const char *name;
    struct column columns[MAX_COLUMNS + 1];
    enum status (*read)(struct reading *r, struct conversation *out);
    bool by_own_names; /* recognised only by them: columns that a user names say nothing about what is in them */
};

#define SYSTEM {OPTIONAL, ROW_SYSTEM, {"system", "system_prompt"}}
#define HISTORY {OPTIONAL, ROW_HISTORY, {"history"}}

#define QUESTIONS "query", "input", "instruction", "problem"
#define ANSWERS "response", "output", "solution"

/* Detection takes the first that fits by its own names, then the first that fits by others; so formats with more columns
 * stand before those with a part of them. But a row whose thought has a column under whatever name is one with a thought,
 * where only one column each can be its question and its answer. */
static const struct row_format formats[] = {
    {"messages", {{NEEDED, ROW_MESSAGES, {"messages"}}, SYSTEM}, reading_messages, false},
    {"sharegpt", {{NEEDED, ROW_MESSAGES, {"conversations", "conversation"}}, SYSTEM}, reading_messages, false},
    {"qa-cot",
     {{NEEDED, ROW_QUESTION, {"question", "prompt", QUESTIONS}},
      {NEEDED, ROW_THOUGHT, {"thought", "reasoning", "rationale", "cot", "reasoning_content", "chain_of_thought"}},
      {NEEDED, ROW_ANSWER, {"answer", "completion", ANSWERS}}},
     reading_question_thought_answer, false},
    {"medical-o1",
     {{NEEDED, ROW_QUESTION, {"Question"}}, {NEEDED, ROW_THOUGHT, {"Complex_CoT"}}, {NEEDED, ROW_ANSWER, {"Response"}}},
     reading_question_thought_answer, false},
    {"gsm8k", {{NEEDED, ROW_QUESTION, {"question"}}, {NEEDED, ROW_ANSWER, {"answer"}}}, reading_gsm8k, true},
    {"prompt-completion",
     {{NEEDED, ROW_QUESTION, {"prompt", "question", QUESTIONS}}, {NEEDED, ROW_ANSWER, {"completion", "answer", ANSWERS}}, SYSTEM, HISTORY},
     reading_prompt_completion, false},
    {"alpaca",
     {{NEEDED, ROW_QUESTION, {"instruction"}}, {OPTIONAL, ROW_INPUT, {"input"}}, {NEEDED, ROW_ANSWER, {"output"}}, SYSTEM,
      HISTORY},
     reading_alpaca, false},
    {"classification", {{NEEDED, ROW_TEXT, {"text", "sentence"}}, {NEEDED, ROW_LABEL, {"label"}}}, reading_classification, false},
    {"text", {{NEEDED, ROW_TEXT, {"text"}}}, reading_plain_text, false},
};
enum { FORMATS = sizeof formats / sizeof *formats };

static bool has_role(const struct row_format *format, enum row_role role)
{
    for (const struct column *c = format->columns; c->need; c++)
        if (c->role == role)
            return true;
    return role == ROW_WEIGHT;
}

const char *row_format_name(const struct row_format *format)
{
    return format->name;
}

bool row_format_has_label(const struct row_format *format)
{
    return has_role(format, ROW_LABEL);
}

enum status row_format_find(const char *name, const struct row_format **out, struct error *err)
{
    struct text known = {0};
    for (int i = 0; i < FORMATS; i++) {
        if (!strcmp(formats[i].name, name)) {
            *out = &formats[i];
            text_free(&known);
            return STATUS_OK;
        }
        text_printf(&known, ", %s", formats[i].name);
    }
    error_set(err, STATUS_USAGE, "unknown row format '%s'; known are auto%s", name, known.data ? known.data : "");
    text_free(&known);
    return STATUS_USAGE;
}

/* The name a user gave to the column, or NULL. */
static const char *given_name(const struct row_columns *columns, enum row_role role)
{
    const char *name = columns->names[role];
    return name && *name ? name : NULL;
}

/* The column by the name that counts for it: the user's, the format's own, or the only other one that is there. Several
 * others: *rival is a second one. */
static struct cell find_cell(const struct column *column, const struct row_columns *columns, const struct json *row,
                             bool others, const char **rival)
{
    const char *given = given_name(columns, column->role);
    struct cell cell = {NULL, given ? given : column->names[0]};
    cell.value = json_member(row, cell.name);
    for (int i = 1; !given && others && column->names[i]; i++) {
        const struct json *value = json_member(row, column->names[i]);
        if (value && cell.value && cell.name != column->names[0])
            *rival = column->names[i];
        else if (value && !cell.value)
            cell = (struct cell){value, column->names[i]};
    }
    return cell;
}

bool row_columns_set(struct row_columns *columns, const char *key, const char *name)
{
    for (int role = 0; role < ROW_ROLES; role++) {
        size_t size = strlen(role_names[role]);
        if (!strncmp(key, role_names[role], size) && !strcmp(key + size, "_column")) {
            columns->names[role] = name;
            return true;
        }
    }
    return false;
}

static bool has_columns(const struct row_format *format, const struct row_columns *columns, const struct json *row, bool others)
{
    const char *rival;
    for (const struct column *c = format->columns; c->need; c++)
        if (c->need == NEEDED && !find_cell(c, columns, row, others, &rival).value)
            return false;
    return true;
}

/* May the format be meant, as far as the columns go that the user named? */
static bool suits(const struct row_format *format, const struct row_columns *columns)
{
    for (int role = 0; role < ROW_ROLES; role++)
        if (given_name(columns, role) && (!has_role(format, role) || (format->by_own_names && role != ROW_WEIGHT)))
            return false;
    bool text_alone = given_name(columns, ROW_TEXT) && !given_name(columns, ROW_LABEL); /* a label beside it is not asked for */
    return !(text_alone && has_role(format, ROW_LABEL));
}

enum status row_format_check(const struct row_format *format, const struct row_columns *columns, struct error *err)
{
    for (int role = 0; role < ROW_ROLES; role++)
        if (given_name(columns, role) && !has_role(format, role))
            FAIL(err, STATUS_USAGE, "format %s has no use for the column '%s', which %s_column names; leave it out, or name another "
                 "format", format->name, columns->names[role], role_names[role]);
    return STATUS_OK;
}

static void list_columns(const struct row_format *format, const struct row_columns *columns, struct text *out)
{
    const char *comma = "";
    for (const struct column *c = format->columns; c->need; c++)
        if (c->need == NEEDED) {
            const char *given = given_name(columns, c->role);
            text_printf(out, "%s%s", comma, given ? given : c->names[0]);
            comma = ", ";
        }
}

static void list_found(const struct json *row, struct text *out)
{
    int shown = 0;
    text_puts(out, "; found ");
    for (const void *it = json_first(row); it && shown < 12; it = json_next(row, it), shown++)
        text_printf(out, "%s%.40s", shown ? ", " : "", json_it_key(it, NULL));
    text_puts(out, !shown ? "none" : json_count(row) > 12 ? ", ..." : "");
}

static enum status bad_and_free(struct reading *r, struct text *text)
{
    enum status st = text->failed ? reading_no_memory(r) : reading_bad(r, "%s", text->data);
    text_free(text);
    return st;
}

/* "...; found the columns a, b; format x would match" or, where none does, the columns each one wants. */
static enum status wrong_columns(struct reading *r, const struct json *row, const struct row_format *wanted)
{
    const struct row_columns *columns = &r->options->columns;
    struct text text = {0};
    if (wanted) {
        text_printf(&text, "format %s needs the columns ", wanted->name);
        list_columns(wanted, columns, &text);
    } else {
        text_puts(&text, "no known format has these columns");
    }
    list_found(row, &text);
    bool any = false;
    for (int i = 0; i < FORMATS; i++)
        if (suits(&formats[i], columns) && has_columns(&formats[i], columns, row, true)) {
            text_printf(&text, "%s%s", any ? ", " : "; set format: ", formats[i].name);
            any = true;
        }
    for (int i = 0; !any && i < FORMATS; i++) {
        text_printf(&text, "%s%s (", i ? ", " : "; rename them, or name them in the run file (question_column ...), to suit ",
                    formats[i].name);
        list_columns(&formats[i], &(struct row_columns){0}, &text);
        text_puts(&text, ")");
    }
    return bad_and_free(r, &text);
}

static enum status check_row(struct reading *r, const struct json *row)
{
    const struct row_columns *columns = &r->options->columns;
    if (json_kind(row) != JSON_KIND_OBJECT)
        return reading_bad(r, "a row must be a JSON object with named columns, found %s", json_kind_name(json_kind(row)));
    for (int role = 0; role < ROW_ROLES; role++) {
        const char *given = given_name(columns, role);
        struct text text = {0};
        if (!given || json_member(row, given))
            continue;
        text_printf(&text, "the row has no column '%.60s', which %s_column names", given, role_names[role]);
        list_found(row, &text);
        return bad_and_free(r, &text);
    }
    return STATUS_OK;
}

/* The format that also takes a thought from a column of the row, where `found` would leave it out; NULL: none. */
static const struct row_format *with_thought(const struct row_format *found, const struct row_columns *columns, const struct json *row)
{
    if (has_role(found, ROW_THOUGHT) || has_role(found, ROW_MESSAGES))
        return NULL;
    for (int i = 0; i < FORMATS; i++) {
        const char *rival = NULL;
        if (!has_role(&formats[i], ROW_THOUGHT) || !suits(&formats[i], columns))
            continue;
        const struct column *c = formats[i].columns;
        for (; c->need && find_cell(c, columns, row, true, &rival).value && !rival; c++)
            ;
        if (!c->need)
            return &formats[i];
    }
    return NULL;
}

enum status row_format_detect(const struct json *row, const char *path, int64_t line, const struct row_options *options,
                              const struct row_format **out, struct error *err)
{
    struct reading r = {.path = path, .line = line, .options = options, .err = err};
    TRY(check_row(&r, row));
    for (int others = 0; others < 2; others++)
        for (int i = 0; i < FORMATS; i++)
            if (suits(&formats[i], &options->columns) && has_columns(&formats[i], &options->columns, row, others)) {
                const struct row_format *whole = with_thought(&formats[i], &options->columns, row);
                *out = whole ? whole : &formats[i];
                return STATUS_OK;
            }
    return wrong_columns(&r, row, NULL);
}

/* A number, or the text of one, for files whose columns are all text. */
static enum status row_weight(struct reading *r, const struct json *row, float *out)
{
    const char *given = given_name(&r->options->columns, ROW_WEIGHT), *name = given ? given : role_names[ROW_WEIGHT];
    const struct json *value = json_member(row, name);
    enum json_kind kind = json_kind(value);
    const char *text = json_to_string(value, NULL);
    *out = 1;
    if (kind == JSON_KIND_NULL)
        return STATUS_OK;
    double weight = json_to_real(value);
    bool number = kind == JSON_KIND_INT || kind == JSON_KIND_REAL || (text && scalar_to_real(text, &weight));
    if (!number || !(weight > 0 && weight <= 1e6))
        return reading_bad(r, "'%.60s' must be a number above 0 and at most 1e6, found %s", name, json_kind_name(kind));
    *out = (float)weight;
    return STATUS_OK;
}

static void silence_earlier_turns(struct conversation *c)
{
    for (int i = 0; i + 1 < c->count; i++)
        c->messages[i].supervised = false;
}

/* One factor for all turns is the row's. */
static void settle_factors(struct conversation *c)
{
    float common = 0;
    for (int i = 0; i < c->count; i++) {
        struct message *m = &c->messages[i];
        if (!m->supervised)
            continue;
        m->factor = m->factor > 0 ? m->factor : 1;
        if (common > 0 && m->factor != common)
            return;
        common = m->factor;
    }
    for (int i = 0; common > 0 && i < c->count; i++)
        c->messages[i].factor = 0;
    c->weight *= common > 0 ? common : 1;
}

enum status row_read(const struct row_format *format, const struct json *row, const char *path, int64_t line,
                     const struct row_options *options, struct arena *arena, struct conversation *out,
                     struct error *err)
{
    struct reading r = {.path = path, .line = line, .options = options, .arena = arena, .err = err};
    *out = (struct conversation){0};
    TRY(check_row(&r, row));
    for (const struct column *c = format->columns; c->need; c++) {
        const char *rival = NULL;
        struct cell cell = find_cell(c, &options->columns, row, true, &rival);
        if (!cell.value && c->need == NEEDED)
            return wrong_columns(&r, row, format);
        if (rival)
            return reading_bad(&r, "the columns '%s' and '%s' could both hold the %s; say which with %s_column", cell.name, rival,
                               role_names[c->role], role_names[c->role]);
        r.cells[c->role] = cell;
    }
    TRY(row_weight(&r, row, &out->weight));
    TRY(format->read(&r, out));
    if (options->last_turn_only)
        silence_earlier_turns(out);
    settle_factors(out);
    return STATUS_OK;
}

static enum status join(struct arena *arena, const char *first, size_t first_size, const char *second, size_t second_size,
                        const char **out, size_t *size, struct error *err)
{
    char *joined = arena_alloc(arena, first_size + second_size + 1, 1);
    if (!joined)
        FAIL(err, STATUS_NOMEM, "no memory for a row of text");
    memcpy(joined, first, first_size);
    memcpy(joined + first_size, second, second_size);
    *out = joined;
    *size = first_size + second_size;
    return STATUS_OK;
}

enum status conversation_dress(struct conversation *conversation, const char *cot_prompt, const char *answer_prefix,
                               struct arena *arena, struct error *err)
{
    struct message *question = NULL;
    if (conversation->plain)
        return STATUS_OK;
    for (int i = 0; i < conversation->count; i++) {
        struct message *m = &conversation->messages[i];
        if (m->role == ROLE_USER)
            question = m;
        if (m->supervised && answer_prefix && *answer_prefix)
            TRY(join(arena, answer_prefix, strlen(answer_prefix), m->content, m->content_size, &m->content, &m->content_size,
                     err));
    }
    if (!question || !cot_prompt || !*cot_prompt)
        return STATUS_OK;
    const char *with_break = NULL;
    size_t size = 0;
    TRY(join(arena, question->content, question->content_size, "\n", 1, &with_break, &size, err));
    return join(arena, with_break, size, cot_prompt, strlen(cot_prompt), &question->content, &question->content_size, err);
}
