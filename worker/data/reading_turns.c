/* Readers of formats that hold lists of turns, in the spellings of several trainers: role and content, from and value,
 * or both sides of a pair in one object.
 * Must not know: names of columns. */
#include <stdio.h>
#include <string.h>

#include "worker/data/reading.h"

/* Who speaks, as files call it. */
static const struct {
    const char *name;
    enum role role;
} speakers[] = {
    {"system", ROLE_SYSTEM}, {"user", ROLE_USER}, {"human", ROLE_USER}, {"assistant", ROLE_ASSISTANT}, {"gpt", ROLE_ASSISTANT},
    {"bot", ROLE_ASSISTANT}, {"chatgpt", ROLE_ASSISTANT}, {"model", ROLE_ASSISTANT},
};
enum { SPEAKERS = sizeof speakers / sizeof *speakers };

/* 0 where the turn takes no loss; other weights are for the whole row. Absent: 1. */
static enum status message_weight(struct reading *r, const struct json *message, const char *name, double *out)
{
    static const char *const keys[] = {"weight", "loss_scale"};
    *out = 1;
    for (int i = 0; i < 2; i++) {
        const struct json *value = json_member(message, keys[i]);
        enum json_kind kind = json_kind(value);
        if (kind == JSON_KIND_NULL)
            continue;
        *out = json_to_real(value);
        if ((kind != JSON_KIND_INT && kind != JSON_KIND_REAL) || !(*out >= 0 && *out <= 1e6))
            return reading_bad(r, "%s.%s must be a number from 0 to 1e6, found %s", name, keys[i], json_kind_name(kind));
    }
    const struct json *loss = json_member(message, "loss");
    if (json_kind(loss) == JSON_KIND_NULL)
        return STATUS_OK;
    if (json_kind(loss) != JSON_KIND_BOOL)
        return reading_bad(r, "%s.loss must be true or false, found %s", name, json_kind_name(json_kind(loss)));
    if (!json_to_bool(loss))
        *out = 0;
    return STATUS_OK;
}

/* What an assistant's message says beside its content: a thought of its own, and weights. */
static enum status read_assistant(struct reading *r, const struct json *message, const char *name, double *weight,
                                  struct message *out)
{
    const struct json *reasoning = json_member(message, "reasoning_content");
    if (json_kind(reasoning) != JSON_KIND_NULL) {
        char inner[128];
        snprintf(inner, sizeof inner, "%.100s.reasoning_content", name);
        size_t size = 0;
        const char *bytes = json_to_string(reasoning, &size);
        struct span_of_text thought = {bytes, size};
        if (!bytes || span_trim(thought).size)
            TRY(reading_text(r, reasoning, inner, &thought));
        thought = span_trim(thought);
        if (thought.size && out->thought)
            return reading_bad(r, "%s has a thought in reasoning_content and another between " THOUGHT_OPEN " tags; keep one",
                               name);
        if (thought.size) {
            out->thought = thought.bytes;
            out->thought_size = thought.size;
        }
    }
    return message_weight(r, message, name, weight);
}

static enum status role_of(struct reading *r, const struct json *message, const char *name, enum role *out)
{
    if (json_kind(message) != JSON_KIND_OBJECT)
        return reading_bad(r, "%s must be an object with role and content, found %s", name,
                           json_kind_name(json_kind(message)));
    const struct json *given = json_member(message, "role");
    const char *role = json_to_string(given ? given : json_member(message, "from"), NULL);
    for (int i = 0; role && i < SPEAKERS; i++)
        if (!strcmp(role, speakers[i].name)) {
            *out = speakers[i].role;
            return STATUS_OK;
        }
    return reading_bad(r, "%s has the role '%.40s'; allowed are system, user and assistant, or human and gpt", name,
                       role ? role : "(none)");
}

/* Turns of a list so far. */
struct list {
    const char *name;
    bool supervised; /* assistant turns of a prompt take no loss */
    double weight;   /* of the turns that take loss; < 0: none yet */
};

/* Takes the weight of the turn that was added last. */
static enum status take_weight(struct reading *r, const char *name, double own, struct list *list, struct conversation *out)
{
    struct message *turn = &out->messages[out->count - 1];
    turn->supervised = list->supervised && own > 0;
    if (!turn->supervised)
        return STATUS_OK;
    if (list->weight >= 0 && own != list->weight)
        return reading_bad(r, "%s has the weight %g and an earlier turn %g; weights other than 0 must be the same in all "
                           "turns of a row", name, own, list->weight);
    list->weight = own;
    return STATUS_OK;
}

static enum status add_message(struct reading *r, const struct json *message, const char *name, struct list *list,
                               struct conversation *out)
{
    enum role role = ROLE_USER;
    TRY(role_of(r, message, name, &role));
    TRY(reading_order(r, out, role, name));
    const struct json *content = json_member(message, "content"), *value = json_member(message, "value");
    char inner[112];
    snprintf(inner, sizeof inner, "%.100s.%s", name, content || !value ? "content" : "value");
    struct span_of_text text;
    TRY(reading_text(r, content ? content : value, inner, &text));
    TRY(reading_turn(r, role, text, name, out));
    if (role != ROLE_ASSISTANT)
        return STATUS_OK;
    double own = 1;
    TRY(read_assistant(r, message, name, &own, &out->messages[out->count - 1]));
    return take_weight(r, name, own, list, out);
}

/* {"human": question, "assistant": answer} and the like: both sides, in the order of a talk. */
static bool is_pair(const struct json *object)
{
    int sides[ROLE_ASSISTANT + 1] = {0};
    for (int i = 0; i < SPEAKERS; i++)
        sides[speakers[i].role] += json_kind(json_member(object, speakers[i].name)) == JSON_KIND_STRING;
    return !json_member(object, "role") && !json_member(object, "from") && sides[ROLE_USER] == 1 && sides[ROLE_ASSISTANT] == 1;
}

static enum status add_pair(struct reading *r, const struct json *object, const char *name, struct list *list,
                            struct conversation *out)
{
    for (int i = 0; i < SPEAKERS; i++) { /* questions stand above answers in the table */
        const struct json *said = json_member(object, speakers[i].name);
        char inner[112];
        struct span_of_text text;
        if (speakers[i].role == ROLE_SYSTEM || json_kind(said) != JSON_KIND_STRING)
            continue;
        snprintf(inner, sizeof inner, "%.90s.%s", name, speakers[i].name);
        TRY(reading_text(r, said, inner, &text));
        TRY(reading_turn(r, speakers[i].role, text, inner, out));
    }
    return take_weight(r, name, 1, list, out);
}

static enum status add_messages(struct reading *r, const struct json *turns, struct list *list, struct conversation *out)
{
    for (size_t i = 0; i < json_count(turns); i++) {
        char name[96];
        snprintf(name, sizeof name, "%.60s[%zu]", list->name, i);
        const struct json *turn = json_at(turns, i);
        TRY(is_pair(turn) ? add_pair(r, turn, name, list, out) : add_message(r, turn, name, list, out));
    }
    return STATUS_OK;
}

static enum status finish(struct reading *r, const struct list *list, struct conversation *out)
{
    if (!out->count || out->messages[out->count - 1].role != ROLE_ASSISTANT)
        return reading_bad(r, "the last message must be an assistant's; there is nothing to learn from behind the last question");
    if (list->weight < 0)
        return reading_bad(r, "no assistant message takes loss: every weight is 0, so the row teaches nothing");
    out->weight *= (float)list->weight;
    return STATUS_OK;
}

enum status reading_messages(struct reading *r, struct conversation *out)
{
    const struct cell *cell = &r->cells[ROW_MESSAGES];
    struct list list = {.name = cell->name, .supervised = true, .weight = -1};
    if (json_kind(cell->value) != JSON_KIND_ARRAY)
        return reading_bad(r, "'%.60s' must be an array, found %s", cell->name, json_kind_name(json_kind(cell->value)));
    TRY(reading_room(r, 2 * json_count(cell->value) + reading_lead_count(r), out));
    TRY(reading_lead(r, out));
    TRY(add_messages(r, cell->value, &list, out));
    return finish(r, &list, out);
}

/* One side of prompt-completion: a list of messages, or a string that is one message of `role`. */
static enum status add_side(struct reading *r, enum row_role side, enum role role, struct list *list, struct conversation *out)
{
    const struct cell *cell = &r->cells[side];
    list->name = cell->name;
    list->supervised = role == ROLE_ASSISTANT;
    if (json_kind(cell->value) == JSON_KIND_ARRAY)
        return add_messages(r, cell->value, list, out);
    char name[64];
    struct span_of_text text;
    snprintf(name, sizeof name, "'%.60s'", cell->name);
    TRY(reading_text(r, cell->value, name, &text));
    TRY(reading_turn(r, role, text, name, out));
    if (role == ROLE_ASSISTANT)
        list->weight = 1;
    return STATUS_OK;
}

enum status reading_prompt_completion(struct reading *r, struct conversation *out)
{
    struct list list = {.weight = -1};
    size_t prompt = json_count(r->cells[ROW_QUESTION].value), completion = json_count(r->cells[ROW_ANSWER].value);
    TRY(reading_room(r, reading_lead_count(r) + 2 * (prompt + completion) + 2, out));
    TRY(reading_lead(r, out));
    TRY(add_side(r, ROW_QUESTION, ROLE_USER, &list, out));
    TRY(add_side(r, ROW_ANSWER, ROLE_ASSISTANT, &list, out));
    return finish(r, &list, out);
}
