#include "worker/data/reading.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum status reading_bad(struct reading *r, const char *format, ...)
{
    char what[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return error_set(r->err, STATUS_DATA, "%s:%lld: %s", r->path, (long long)r->line, what);
}

enum status reading_no_memory(struct reading *r)
{
    return error_set(r->err, STATUS_NOMEM, "%s:%lld: no memory for the row", r->path, (long long)r->line);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct span_of_text span_trim(struct span_of_text text)
{
    while (text.size && is_space(*text.bytes)) {
        text.bytes++;
        text.size--;
    }
    while (text.size && is_space(text.bytes[text.size - 1]))
        text.size--;
    return text;
}

const char *span_find(struct span_of_text text, const char *what)
{
    return memmem(text.bytes, text.size, what, strlen(what));
}

struct span_of_text span_from_to(const char *begin, const char *end)
{
    return (struct span_of_text){begin, (size_t)(end - begin)};
}

const char *span_end(struct span_of_text text)
{
    return text.bytes + text.size;
}

enum status reading_text(struct reading *r, const struct json *value, const char *name, struct span_of_text *out)
{
    if (json_kind(value) != JSON_KIND_STRING)
        return reading_bad(r, "%s must be a string, found %s", name, json_kind_name(json_kind(value)));
    out->bytes = json_to_string(value, &out->size);
    return reading_check_text(r, *out, name);
}

enum status reading_check_text(struct reading *r, struct span_of_text text, const char *name)
{
    if (memchr(text.bytes, '\0', text.size))
        return reading_bad(r, "%s holds a NUL character (\\u0000); remove it", name);
    if (!span_trim(text).size)
        return reading_bad(r, "%s is empty; fill it or remove the row", name);
    return STATUS_OK;
}

enum status reading_column(struct reading *r, enum row_role role, struct span_of_text *out)
{
    char name[64];
    snprintf(name, sizeof name, "'%.60s'", r->cells[role].name);
    return reading_text(r, r->cells[role].value, name, out);
}

enum status reading_optional(struct reading *r, enum row_role role, struct span_of_text *out)
{
    const struct json *value = r->cells[role].value;
    struct span_of_text text = {NULL, 0};
    *out = text;
    if (json_kind(value) == JSON_KIND_NULL)
        return STATUS_OK;
    text.bytes = json_to_string(value, &text.size);
    return text.bytes && !span_trim(text).size ? STATUS_OK : reading_column(r, role, out);
}

enum status reading_room(struct reading *r, size_t messages, struct conversation *out)
{
    out->messages = arena_alloc(r->arena, messages + 1, sizeof *out->messages);
    return out->messages ? STATUS_OK : reading_no_memory(r);
}

enum status reading_order(struct reading *r, const struct conversation *so_far, enum role role, const char *name)
{
    int before = so_far->count ? (int)so_far->messages[so_far->count - 1].role : -1;
    static const bool may_follow[ROLE_COUNT][ROLE_COUNT + 1] = { /* [role][the one before + 1], 0: at the beginning */
        [ROLE_SYSTEM] = {[0] = true},
        [ROLE_USER] = {[0] = true, [ROLE_SYSTEM + 1] = true, [ROLE_ASSISTANT + 1] = true},
        [ROLE_ASSISTANT] = {[ROLE_USER + 1] = true, [ROLE_TOOL + 1] = true},
        [ROLE_TOOL] = {[ROLE_ASSISTANT + 1] = true, [ROLE_TOOL + 1] = true},
    };
    if (may_follow[role][before + 1])
        return STATUS_OK;
    return reading_bad(r, "%s has the role '%s' %s%s%s; the order must be system (optional), then user and assistant in turn; "
                       "tools speak behind an assistant",
                       name, role_name(role), before < 0 ? "at the beginning" : "right after '",
                       before < 0 ? "" : role_name((enum role)before),
                       before < 0 ? "" : "'");
}

void reading_think(const struct reading *r, struct span_of_text thought, struct message *out)
{
    out->thought = thought.size ? thought.bytes : r->options->empty_thoughts ? "" : NULL;
    out->thought_size = thought.size;
}

/* Parts "<think>thought</think>answer"; a missing opening tag is accepted, because many templates put it into the
 * prompt. White space round the tags belongs to the template. Tags that the run names are looked for first. */
static enum status split_thought(struct reading *r, struct span_of_text text, const char *name, struct message *out)
{
    struct span_of_text rest = span_trim(text);
    const char *tags[2] = {r->options->thought_open, r->options->thought_close};
    if (!tags[0] || !tags[1] || !*tags[0] || !*tags[1] || (!span_find(rest, tags[0]) && !span_find(rest, tags[1]))) {
        tags[0] = THOUGHT_OPEN;
        tags[1] = THOUGHT_CLOSE;
    }
    const char *open = span_find(rest, tags[0]);
    const char *close = span_find(rest, tags[1]);
    if (!open && !close)
        return STATUS_OK;
    if (open && !close)
        return reading_bad(r, "%s opens %.40s and never closes it; the row may be cut off", name, tags[0]);
    if (open && open < close && open != rest.bytes)
        return reading_bad(r, "%s has text in front of %.40s; move it into the thought or the answer", name, tags[0]);
    const char *begin = open && open < close ? open + strlen(tags[0]) : rest.bytes;
    struct span_of_text thought = span_trim(span_from_to(begin, close));
    struct span_of_text answer = span_trim(span_from_to(close + strlen(tags[1]), span_end(rest)));
    if (!answer.size)
        return reading_bad(r, "%s has no answer behind %.40s; fill it or remove the row", name, tags[1]);
    out->content = answer.bytes;
    out->content_size = answer.size;
    reading_think(r, thought, out);
    return STATUS_OK;
}

enum status reading_turn(struct reading *r, enum role role, struct span_of_text text, const char *name,
                         struct conversation *out)
{
    struct message *place = &out->messages[out->count];
    TRY(reading_order(r, out, role, name));
    *place = (struct message){.role = role, .content = text.bytes, .content_size = text.size,
                              .supervised = role == ROLE_ASSISTANT};
    if (role == ROLE_ASSISTANT)
        TRY(split_thought(r, text, name, place));
    out->count++;
    return STATUS_OK;
}

size_t reading_lead_count(const struct reading *r)
{
    return 1 + 2 * json_count(r->cells[ROW_HISTORY].value);
}

/* [[question, answer], ...] */
static enum status add_history(struct reading *r, struct conversation *out)
{
    const struct cell *history = &r->cells[ROW_HISTORY];
    enum json_kind kind = json_kind(history->value);
    const char *text = json_to_string(history->value, NULL);
    if (kind == JSON_KIND_NULL || (text && !*text))
        return STATUS_OK;
    if (kind != JSON_KIND_ARRAY)
        return reading_bad(r, "'%.60s' must be a list of pairs [question, answer], found %s", history->name,
                           json_kind_name(kind));
    for (size_t i = 0; i < json_count(history->value); i++) {
        const struct json *pair = json_at(history->value, i);
        if (json_kind(pair) != JSON_KIND_ARRAY || json_count(pair) != 2)
            return reading_bad(r, "%.60s[%zu] must be a pair [question, answer], found %s of %zu", history->name, i,
                               json_kind_name(json_kind(pair)), json_count(pair));
        for (size_t side = 0; side < 2; side++) {
            char name[112];
            struct span_of_text said;
            snprintf(name, sizeof name, "%.60s[%zu][%zu]", history->name, i, side);
            TRY(reading_text(r, json_at(pair, side), name, &said));
            TRY(reading_turn(r, side ? ROLE_ASSISTANT : ROLE_USER, said, name, out));
        }
    }
    return STATUS_OK;
}

enum status reading_lead(struct reading *r, struct conversation *out)
{
    struct span_of_text system;
    TRY(reading_optional(r, ROW_SYSTEM, &system));
    if (system.size)
        TRY(reading_turn(r, ROLE_SYSTEM, system, r->cells[ROW_SYSTEM].name, out));
    return add_history(r, out);
}
