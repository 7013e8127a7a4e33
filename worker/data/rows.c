#include "worker/data/rows.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/text.h"

/* What a format's reader needs to know about the row it reads. */
struct reading {
    const char *path;
    int64_t line;
    const struct row_options *options;
    struct arena *arena;
    struct error *err;
};

struct span_of_text {
    const char *bytes;
    size_t size;
};

enum { FORMAT_MAX_KEYS = 3 };
static const char thought_open[] = "<think>", thought_close[] = "</think>", result_mark[] = "#### ";

static enum status bad(struct reading *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static enum status bad(struct reading *r, const char *format, ...)
{
    char what[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return error_set(r->err, STATUS_DATA, "%s:%lld: %s", r->path, (long long)r->line, what);
}

static enum status no_memory(struct reading *r)
{
    return error_set(r->err, STATUS_NOMEM, "%s:%lld: no memory for the row", r->path, (long long)r->line);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct span_of_text trim(struct span_of_text text)
{
    while (text.size && is_space(*text.bytes)) {
        text.bytes++;
        text.size--;
    }
    while (text.size && is_space(text.bytes[text.size - 1]))
        text.size--;
    return text;
}

static const char *find(struct span_of_text text, const char *what)
{
    return memmem(text.bytes, text.size, what, strlen(what));
}

static struct span_of_text from_to(const char *begin, const char *end)
{
    return (struct span_of_text){begin, (size_t)(end - begin)};
}

static const char *end_of(struct span_of_text text)
{
    return text.bytes + text.size;
}

/* A string that says something. `name` is how the message calls it. */
static enum status text_of(struct reading *r, const struct json *value, const char *name, struct span_of_text *out)
{
    if (json_kind(value) != JSON_KIND_STRING)
        return bad(r, "%s must be a string, found %s", name, json_kind_name(json_kind(value)));
    out->bytes = json_to_string(value, &out->size);
    if (memchr(out->bytes, '\0', out->size))
        return bad(r, "%s holds a NUL character (\\u0000); remove it", name);
    if (!trim(*out).size)
        return bad(r, "%s is empty; fill it or remove the row", name);
    return STATUS_OK;
}

static enum status column(struct reading *r, const struct json *row, const char *key, struct span_of_text *out)
{
    char name[64];
    snprintf(name, sizeof name, "'%s'", key);
    return text_of(r, json_member(row, key), name, out);
}

/* Parts "<think>thought</think>answer"; a missing opening tag is accepted, because many templates put it into the
 * prompt. White space round the tags belongs to the template. */
static enum status split_thought(struct reading *r, struct span_of_text text, const char *name, struct message *out)
{
    struct span_of_text rest = trim(text);
    const char *open = find(rest, thought_open);
    const char *close = find(rest, thought_close);
    *out = (struct message){.role = ROLE_ASSISTANT, .content = text.bytes, .content_size = text.size, .supervised = true};
    if (!open && !close)
        return STATUS_OK;
    if (open && !close)
        return bad(r, "%s opens %s and never closes it; the row may be cut off", name, thought_open);
    if (open && open < close && open != rest.bytes)
        return bad(r, "%s has text in front of %s; move it into the thought or the answer", name, thought_open);
    const char *begin = open && open < close ? open + strlen(thought_open) : rest.bytes;
    struct span_of_text thought = trim(from_to(begin, close));
    struct span_of_text answer = trim(from_to(close + strlen(thought_close), end_of(rest)));
    if (!answer.size)
        return bad(r, "%s has no answer behind %s; fill it or remove the row", name, thought_close);
    out->content = answer.bytes;
    out->content_size = answer.size;
    out->thought = thought.size ? thought.bytes : NULL;
    out->thought_size = thought.size;
    return STATUS_OK;
}

/* One question and one answer. */
static enum status pair(struct reading *r, struct span_of_text question, struct span_of_text thought,
                        struct span_of_text answer, struct conversation *out)
{
    out->messages = arena_alloc(r->arena, 2, sizeof *out->messages);
    if (!out->messages)
        return no_memory(r);
    out->count = 2;
    out->messages[0] = (struct message){.role = ROLE_USER, .content = question.bytes, .content_size = question.size};
    out->messages[1] = (struct message){.role = ROLE_ASSISTANT, .content = answer.bytes, .content_size = answer.size,
                                        .thought = thought.size ? thought.bytes : NULL, .thought_size = thought.size,
                                        .supervised = true};
    return STATUS_OK;
}

static enum status read_qa_cot(struct reading *r, const struct json *row, struct conversation *out)
{
    struct span_of_text question, thought, answer;
    TRY(column(r, row, "question", &question));
    TRY(column(r, row, "thought", &thought));
    TRY(column(r, row, "answer", &answer));
    return pair(r, question, thought, answer, out);
}

/* The thought without its <<expression=value>> marks. An opening without a close in the same line is no mark. */
static enum status without_marks(struct reading *r, struct span_of_text text, struct span_of_text *out)
{
    char *copy = arena_alloc(r->arena, text.size + 1, 1);
    if (!copy)
        return no_memory(r);
    size_t n = 0;
    for (const char *at = text.bytes; at < end_of(text);) {
        const char *close = end_of(text) - at >= 2 && at[0] == '<' && at[1] == '<' ? find(from_to(at, end_of(text)), ">>") : NULL;
        if (close && !memchr(at, '\n', (size_t)(close - at)))
            at = close + 2;
        else
            copy[n++] = *at++;
    }
    *out = (struct span_of_text){copy, n};
    return STATUS_OK;
}

static enum status read_gsm8k(struct reading *r, const struct json *row, struct conversation *out)
{
    struct span_of_text question, text;
    TRY(column(r, row, "question", &question));
    TRY(column(r, row, "answer", &text));
    const char *mark = NULL;
    for (const char *line = text.bytes; line;) {
        if ((size_t)(end_of(text) - line) >= strlen(result_mark) && !memcmp(line, result_mark, strlen(result_mark)))
            mark = line;
        line = memchr(line, '\n', (size_t)(end_of(text) - line));
        line = line && line + 1 < end_of(text) ? line + 1 : NULL;
    }
    if (!mark)
        return bad(r, "'answer' has no line that begins with '%s'; add one with the result, or use format qa-cot or "
                      "prompt-completion", result_mark);
    struct span_of_text answer = trim(from_to(mark + strlen(result_mark), end_of(text)));
    struct span_of_text thought = trim(from_to(text.bytes, mark));
    if (!answer.size)
        return bad(r, "'answer' has nothing behind '%s'; fill it or remove the row", result_mark);
    if (!r->options->keep_calculator_marks)
        TRY(without_marks(r, thought, &thought));
    return pair(r, question, thought, answer, out);
}

/* 0 where the turn takes no loss; other weights are for the whole row. Absent: 1. */
static enum status message_weight(struct reading *r, const struct json *message, const char *name, double *out)
{
    static const char *const keys[] = {"weight", "loss_scale"};
    char where[128];
    snprintf(where, sizeof where, "%.40s", name);
    *out = 1;
    for (int i = 0; i < 2; i++) {
        const struct json *value = json_member(message, keys[i]);
        enum json_kind kind = json_kind(value);
        if (kind == JSON_KIND_NULL)
            continue;
        *out = json_to_real(value);
        if ((kind != JSON_KIND_INT && kind != JSON_KIND_REAL) || !(*out >= 0 && *out <= 1e6))
            return bad(r, "%s.%s must be a number from 0 to 1e6, found %s", where, keys[i], json_kind_name(kind));
    }
    const struct json *loss = json_member(message, "loss");
    if (json_kind(loss) == JSON_KIND_NULL)
        return STATUS_OK;
    if (json_kind(loss) != JSON_KIND_BOOL)
        return bad(r, "%s.loss must be true or false, found %s", where, json_kind_name(json_kind(loss)));
    if (!json_to_bool(loss))
        *out = 0;
    return STATUS_OK;
}

static enum status read_assistant(struct reading *r, const struct json *message, const char *name,
                                  struct span_of_text content, double *weight, struct message *out)
{
    TRY(split_thought(r, content, name, out));
    const struct json *reasoning = json_member(message, "reasoning_content");
    if (json_kind(reasoning) != JSON_KIND_NULL) {
        char inner[128];
        snprintf(inner, sizeof inner, "%.40s.reasoning_content", name);
        size_t size = 0;
        const char *bytes = json_to_string(reasoning, &size);
        struct span_of_text thought = {bytes, size};
        if (!bytes || trim(thought).size)
            TRY(text_of(r, reasoning, inner, &thought));
        thought = trim(thought);
        if (thought.size && out->thought)
            return bad(r, "%s has a thought in reasoning_content and another between %s tags; keep one", name, thought_open);
        if (thought.size) {
            out->thought = thought.bytes;
            out->thought_size = thought.size;
        }
    }
    TRY(message_weight(r, message, name, weight));
    out->supervised = *weight > 0;
    return STATUS_OK;
}

static const char *const role_names[] = {"system", "user", "assistant"};

static enum status role_of(struct reading *r, const struct json *message, const char *name, enum role *out)
{
    if (json_kind(message) != JSON_KIND_OBJECT)
        return bad(r, "%s must be an object with role and content, found %s", name, json_kind_name(json_kind(message)));
    const char *role = json_to_string(json_member(message, "role"), NULL);
    for (int i = 0; role && i < 3; i++)
        if (!strcmp(role, role_names[i])) {
            *out = (enum role)i;
            return STATUS_OK;
        }
    return bad(r, "%s has the role '%.40s'; allowed are system, user and assistant", name, role ? role : "(none)");
}

/* The role must follow from the ones before it: [system] (user assistant)+. */
static enum status check_order(struct reading *r, const struct conversation *so_far, enum role role, const char *name)
{
    int before = so_far->count ? (int)so_far->messages[so_far->count - 1].role : -1;
    bool fits = role == ROLE_SYSTEM ? before == -1 : role == ROLE_USER ? before != ROLE_USER : before == ROLE_USER;
    if (fits)
        return STATUS_OK;
    return bad(r, "%s has the role '%s' %s%s%s; the order must be system (optional), then user and assistant in turn", name,
               role_names[role], before < 0 ? "at the beginning" : "right after '", before < 0 ? "" : role_names[before],
               before < 0 ? "" : "'");
}

/* Appends a JSON list of messages. Assistant turns of a prompt take no loss. */
static enum status add_messages(struct reading *r, const struct json *list, const char *list_name, bool supervised,
                                double *weight, struct conversation *out)
{
    for (size_t i = 0; i < json_count(list); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s[%zu]", list_name, i);
        const struct json *message = json_at(list, i);
        enum role role = ROLE_USER;
        TRY(role_of(r, message, name, &role));
        TRY(check_order(r, out, role, name));
        char inner[96];
        snprintf(inner, sizeof inner, "%s.content", name);
        struct span_of_text content;
        TRY(text_of(r, json_member(message, "content"), inner, &content));
        struct message *place = &out->messages[out->count];
        *place = (struct message){.role = role, .content = content.bytes, .content_size = content.size};
        if (role == ROLE_ASSISTANT) {
            double own = 1;
            TRY(read_assistant(r, message, name, content, &own, place));
            place->supervised = place->supervised && supervised;
            if (place->supervised && *weight >= 0 && own != *weight)
                return bad(r, "%s has the weight %g and an earlier turn %g; weights other than 0 must be the same in all "
                              "turns of a row", name, own, *weight);
            if (place->supervised)
                *weight = own;
        }
        out->count++;
    }
    return STATUS_OK;
}

static enum status room_for(struct reading *r, size_t messages, struct conversation *out)
{
    out->messages = arena_alloc(r->arena, messages + 1, sizeof *out->messages);
    return out->messages ? STATUS_OK : no_memory(r);
}

static enum status finish_messages(struct reading *r, double weight, struct conversation *out)
{
    if (!out->count || out->messages[out->count - 1].role != ROLE_ASSISTANT)
        return bad(r, "the last message must be an assistant's; there is nothing to learn from behind the last question");
    if (weight < 0)
        return bad(r, "no assistant message takes loss: every weight is 0, so the row teaches nothing");
    out->weight *= (float)weight;
    return STATUS_OK;
}

static enum status read_messages(struct reading *r, const struct json *row, struct conversation *out)
{
    const struct json *list = json_member(row, "messages");
    if (json_kind(list) != JSON_KIND_ARRAY)
        return bad(r, "'messages' must be an array, found %s", json_kind_name(json_kind(list)));
    double weight = -1;
    TRY(room_for(r, json_count(list), out));
    TRY(add_messages(r, list, "messages", true, &weight, out));
    return finish_messages(r, weight, out);
}

/* One side of prompt-completion: a list of messages, or a string that is one message of `role`. */
static enum status add_side(struct reading *r, const struct json *value, const char *key, enum role role, double *weight,
                            struct conversation *out)
{
    if (json_kind(value) == JSON_KIND_ARRAY)
        return add_messages(r, value, key, role == ROLE_ASSISTANT, weight, out);
    char name[64];
    snprintf(name, sizeof name, "'%s'", key);
    struct span_of_text text;
    TRY(text_of(r, value, name, &text));
    TRY(check_order(r, out, role, name));
    struct message *place = &out->messages[out->count];
    *place = (struct message){.role = role, .content = text.bytes, .content_size = text.size};
    if (role == ROLE_ASSISTANT) {
        TRY(split_thought(r, text, name, place));
        *weight = 1;
    }
    out->count++;
    return STATUS_OK;
}

static enum status read_prompt_completion(struct reading *r, const struct json *row, struct conversation *out)
{
    const struct json *prompt = json_member(row, "prompt"), *completion = json_member(row, "completion");
    double weight = -1;
    TRY(room_for(r, json_count(prompt) + json_count(completion) + 2, out));
    TRY(add_side(r, prompt, "prompt", ROLE_USER, &weight, out));
    TRY(add_side(r, completion, "completion", ROLE_ASSISTANT, &weight, out));
    return finish_messages(r, weight, out);
}

struct row_format {
    const char *name;
    const char *keys[FORMAT_MAX_KEYS + 1];
    enum status (*read)(struct reading *r, const struct json *row, struct conversation *out);
};

/* Detection takes the first that fits, so formats with more columns stand before those with a part of them. */
static const struct row_format formats[] = {
    {"messages", {"messages"}, read_messages},
    {"qa-cot", {"question", "thought", "answer"}, read_qa_cot},
    {"gsm8k", {"question", "answer"}, read_gsm8k},
    {"prompt-completion", {"prompt", "completion"}, read_prompt_completion},
};
enum { FORMATS = sizeof formats / sizeof *formats };

const char *row_format_name(const struct row_format *format)
{
    return format->name;
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

static bool has_columns(const struct row_format *format, const struct json *row)
{
    for (const char *const *key = format->keys; *key; key++)
        if (!json_member(row, *key))
            return false;
    return true;
}

static void list_keys(const struct row_format *format, struct text *out)
{
    for (const char *const *key = format->keys; *key; key++)
        text_printf(out, "%s%s", key == format->keys ? "" : ", ", *key);
}

/* "...; found the columns a, b; format x would match" or, where none does, the columns each one wants. */
static enum status wrong_columns(const struct json *row, const struct row_format *wanted, struct reading *r)
{
    struct text text = {0};
    if (wanted) {
        text_printf(&text, "format %s needs the columns ", wanted->name);
        list_keys(wanted, &text);
    } else {
        text_puts(&text, "no known format has these columns");
    }
    text_puts(&text, "; found ");
    int shown = 0;
    for (const void *it = json_first(row); it && shown < 12; it = json_next(row, it), shown++)
        text_printf(&text, "%s%.40s", shown ? ", " : "", json_it_key(it, NULL));
    text_puts(&text, !shown ? "none" : json_count(row) > 12 ? ", ..." : "");
    bool any = false;
    for (int i = 0; i < FORMATS; i++)
        if (has_columns(&formats[i], row)) {
            text_printf(&text, "%s%s", any ? ", " : "; set format: ", formats[i].name);
            any = true;
        }
    for (int i = 0; !any && i < FORMATS; i++) {
        text_printf(&text, "%s%s (", i ? ", " : "; rename them to suit ", formats[i].name);
        list_keys(&formats[i], &text);
        text_puts(&text, ")");
    }
    enum status st = text.failed ? no_memory(r) : bad(r, "%s", text.data);
    text_free(&text);
    return st;
}

static enum status must_be_object(struct reading *r, const struct json *row)
{
    if (json_kind(row) == JSON_KIND_OBJECT)
        return STATUS_OK;
    return bad(r, "a row must be a JSON object with named columns, found %s", json_kind_name(json_kind(row)));
}

enum status row_format_detect(const struct json *row, const char *path, int64_t line, const struct row_format **out,
                              struct error *err)
{
    struct reading r = {.path = path, .line = line, .err = err};
    TRY(must_be_object(&r, row));
    for (int i = 0; i < FORMATS; i++)
        if (has_columns(&formats[i], row)) {
            *out = &formats[i];
            return STATUS_OK;
        }
    return wrong_columns(row, NULL, &r);
}

static enum status row_weight(struct reading *r, const struct json *row, float *out)
{
    const struct json *value = json_member(row, "weight");
    enum json_kind kind = json_kind(value);
    *out = 1;
    if (kind == JSON_KIND_NULL)
        return STATUS_OK;
    double weight = json_to_real(value);
    if ((kind != JSON_KIND_INT && kind != JSON_KIND_REAL) || !(weight > 0 && weight <= 1e6))
        return bad(r, "'weight' must be a number above 0 and at most 1e6, found %s", json_kind_name(kind));
    *out = (float)weight;
    return STATUS_OK;
}

enum status row_read(const struct row_format *format, const struct json *row, const char *path, int64_t line,
                     const struct row_options *options, struct arena *arena, struct conversation *out,
                     struct error *err)
{
    struct reading r = {path, line, options, arena, err};
    *out = (struct conversation){0};
    TRY(must_be_object(&r, row));
    if (!has_columns(format, row))
        return wrong_columns(row, format, &r);
    TRY(row_weight(&r, row, &out->weight));
    return format->read(&r, row, out);
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
