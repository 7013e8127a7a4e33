/* Readers of formats that hold lists of turns: role and content, from and value, or both sides of a pair in one object.
 * Must not know: names of columns. */
#include <stdio.h>

#include "worker/data/reading.h"

/* A list being read. */
struct list {
    const char *name;
    bool supervised; /* assistant turns of a prompt take no loss */
};

static enum status add_message(struct reading *r, const struct json *message, const char *name, const struct list *list,
                               struct conversation *out)
{
    enum role role = ROLE_USER;
    TRY(reading_speaker(r, message, name, &role));
    TRY(reading_order(r, out, role, name));
    const struct json *content = json_member(message, "content"), *value = json_member(message, "value");
    char inner[112];
    snprintf(inner, sizeof inner, "%.100s.%s", name, content || !value ? "content" : "value");
    struct span_of_text text, thought;
    TRY(reading_content(r, content ? content : value, inner, &text, &thought));
    TRY(reading_turn(r, role, text, name, out));
    if (role != ROLE_ASSISTANT)
        return STATUS_OK;
    struct message *turn = &out->messages[out->count - 1];
    if (span_trim(thought).size)
        reading_think(r, span_trim(thought), turn);
    turn->supervised = list->supervised;
    return reading_assistant(r, message, name, turn);
}

static enum status add_pair(struct reading *r, const struct json *object, const char *const sides[2], const char *name,
                            const struct list *list, struct conversation *out)
{
    for (int side = 0; side < 2; side++) {
        char inner[112];
        struct span_of_text text;
        snprintf(inner, sizeof inner, "%.90s.%s", name, sides[side]);
        TRY(reading_text(r, json_member(object, sides[side]), inner, &text));
        TRY(reading_turn(r, side ? ROLE_ASSISTANT : ROLE_USER, text, inner, out));
    }
    out->messages[out->count - 1].supervised = list->supervised;
    return STATUS_OK;
}

static enum status add_messages(struct reading *r, const struct json *turns, const struct list *list, struct conversation *out)
{
    for (size_t i = 0; i < json_count(turns); i++) {
        char name[96];
        snprintf(name, sizeof name, "%.60s[%zu]", list->name, i);
        const struct json *turn = json_at(turns, i);
        const char *sides[2];
        TRY(reading_sides(turn, sides) ? add_pair(r, turn, sides, name, list, out) : add_message(r, turn, name, list, out));
    }
    return STATUS_OK;
}

static enum status finish(struct reading *r, const struct conversation *out)
{
    if (!out->count || out->messages[out->count - 1].role != ROLE_ASSISTANT)
        return reading_bad(r, "the last message must be an assistant's; there is nothing to learn from behind the last question");
    return STATUS_OK;
}

enum status reading_messages(struct reading *r, struct conversation *out)
{
    const struct cell *cell = &r->cells[ROW_MESSAGES];
    struct list list = {.name = cell->name, .supervised = true};
    if (json_kind(cell->value) != JSON_KIND_ARRAY)
        return reading_bad(r, "'%.60s' must be an array, found %s", cell->name, json_kind_name(json_kind(cell->value)));
    TRY(reading_room(r, 2 * json_count(cell->value) + reading_lead_count(r), out));
    TRY(reading_lead(r, out));
    TRY(add_messages(r, cell->value, &list, out));
    return finish(r, out);
}

/* One side of prompt-completion: a list of messages, or a string that is one message of `role`. */
static enum status add_side(struct reading *r, enum row_role side, enum role role, struct conversation *out)
{
    const struct cell *cell = &r->cells[side];
    struct list list = {.name = cell->name, .supervised = role == ROLE_ASSISTANT};
    if (json_kind(cell->value) == JSON_KIND_ARRAY)
        return add_messages(r, cell->value, &list, out);
    char name[64];
    struct span_of_text text;
    snprintf(name, sizeof name, "'%.60s'", cell->name);
    TRY(reading_text(r, cell->value, name, &text));
    return reading_turn(r, role, text, name, out);
}

enum status reading_prompt_completion(struct reading *r, struct conversation *out)
{
    size_t prompt = json_count(r->cells[ROW_QUESTION].value), completion = json_count(r->cells[ROW_ANSWER].value);
    TRY(reading_room(r, reading_lead_count(r) + 2 * (prompt + completion) + 2, out));
    TRY(reading_lead(r, out));
    TRY(add_side(r, ROW_QUESTION, ROLE_USER, out));
    TRY(add_side(r, ROW_ANSWER, ROLE_ASSISTANT, out));
    return finish(r, out);
}
