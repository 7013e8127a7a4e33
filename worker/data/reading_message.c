/* One message of a list, in the spellings of several trainers: who speaks, texts in parts, thoughts of their own and the
 * keys that weigh a turn's loss.
 * Must not know: the order of messages, names of columns. */
#include <stdio.h>
#include <string.h>

#include "worker/data/reading.h"

/* Who speaks, as files call it. */
static const struct {
    const char *name;
    enum role role;
} speakers[] = {
    {"system", ROLE_SYSTEM},       {"developer", ROLE_SYSTEM}, {"user", ROLE_USER},           {"human", ROLE_USER},
    {"assistant", ROLE_ASSISTANT}, {"gpt", ROLE_ASSISTANT},    {"bot", ROLE_ASSISTANT},       {"chatgpt", ROLE_ASSISTANT},
    {"model", ROLE_ASSISTANT},     {"function_call", ROLE_ASSISTANT}, {"tool", ROLE_TOOL},    {"function", ROLE_TOOL},
    {"ipython", ROLE_TOOL},        {"observation", ROLE_TOOL},
};
enum { SPEAKERS = sizeof speakers / sizeof *speakers };

bool reading_role(const char *word, enum role *out)
{
    for (int i = 0; word && i < SPEAKERS; i++)
        if (!strcmp(word, speakers[i].name)) {
            *out = speakers[i].role;
            return true;
        }
    return false;
}

enum status reading_speaker(struct reading *r, const struct json *message, const char *name, enum role *out)
{
    if (json_kind(message) != JSON_KIND_OBJECT)
        return reading_bad(r, "%s must be an object with role and content, found %s", name,
                           json_kind_name(json_kind(message)));
    const struct json *given = json_member(message, "role");
    const char *role = json_to_string(given ? given : json_member(message, "from"), NULL);
    if (reading_role(role, out))
        return STATUS_OK;
    return reading_bad(r, "%s has the role '%.40s'; allowed are system, user, assistant and tool, or human, gpt and observation",
                       name, role ? role : "(none)");
}

bool reading_sides(const struct json *object, const char *sides[2])
{
    int found[2] = {0, 0};
    for (int i = 0; i < SPEAKERS; i++) {
        int side = speakers[i].role == ROLE_ASSISTANT;
        if ((side || speakers[i].role == ROLE_USER) && json_kind(json_member(object, speakers[i].name)) == JSON_KIND_STRING) {
            sides[side] = speakers[i].name;
            found[side]++;
        }
    }
    return !json_member(object, "role") && !json_member(object, "from") && found[0] == 1 && found[1] == 1;
}

/* ---- texts in parts ---- */

/* A part of a text: a string, or an object of type text or reasoning with what it says in `text` or `value`. */
static enum status read_part(struct reading *r, const struct json *part, const char *name, struct span_of_text *out,
                             bool *is_thought)
{
    const struct json *said = part;
    *is_thought = false;
    if (json_kind(part) == JSON_KIND_OBJECT) {
        const char *type = json_to_string(json_member(part, "type"), NULL);
        *is_thought = type && (!strcmp(type, "reasoning") || !strcmp(type, "thinking"));
        if (type && strcmp(type, "text") && !*is_thought)
            return reading_bad(r, "%s is of type '%.40s'; only text and reasoning can be read", name, type);
        said = json_member(part, "text");
        said = said ? said : json_member(part, "value");
    }
    if (json_kind(said) != JSON_KIND_STRING)
        return reading_bad(r, "%s must be a text, or an object with type text and the text in it, found %s", name,
                           json_kind_name(json_kind(said)));
    out->bytes = json_to_string(said, &out->size);
    return STATUS_OK;
}

static size_t room_of(const struct json *parts)
{
    size_t room = 1;
    for (size_t i = 0; i < json_count(parts); i++) {
        const struct json *part = json_at(parts, i), *text = json_member(part, "text");
        size_t size = 0;
        if (json_to_string(json_kind(part) == JSON_KIND_OBJECT ? text ? text : json_member(part, "value") : part, &size))
            room += size;
    }
    return room;
}

/* Parts one behind the other, thoughts apart. */
static enum status join_parts(struct reading *r, const struct json *parts, const char *name, struct span_of_text *out,
                              struct span_of_text *thought)
{
    size_t room = room_of(parts);
    char *texts[2] = {arena_alloc(r->arena, room, 1), arena_alloc(r->arena, room, 1)};
    size_t sizes[2] = {0, 0};
    if (!texts[0] || !texts[1])
        return reading_no_memory(r);
    for (size_t i = 0; i < json_count(parts); i++) {
        char inner[144];
        struct span_of_text text;
        bool thinks;
        snprintf(inner, sizeof inner, "%.110s[%zu]", name, i);
        TRY(read_part(r, json_at(parts, i), inner, &text, &thinks));
        memcpy(texts[thinks] + sizes[thinks], text.bytes, text.size);
        sizes[thinks] += text.size;
    }
    *out = (struct span_of_text){texts[0], sizes[0]};
    *thought = (struct span_of_text){texts[1], sizes[1]};
    return STATUS_OK;
}

enum status reading_content(struct reading *r, const struct json *value, const char *name, struct span_of_text *out,
                            struct span_of_text *thought)
{
    *thought = (struct span_of_text){NULL, 0};
    if (json_kind(value) != JSON_KIND_ARRAY)
        return reading_text(r, value, name, out);
    TRY(join_parts(r, value, name, out, thought));
    return reading_check_text(r, *out, name);
}

/* ---- thought and weight of an assistant's message ---- */

static enum status own_thought(struct reading *r, const struct json *message, const char *name, struct message *out)
{
    const struct json *reasoning = json_member(message, "reasoning_content");
    if (json_kind(reasoning) == JSON_KIND_NULL)
        return STATUS_OK;
    char inner[128];
    snprintf(inner, sizeof inner, "%.100s.reasoning_content", name);
    size_t size = 0;
    const char *bytes = json_to_string(reasoning, &size);
    struct span_of_text thought = {bytes, size};
    if (!bytes || span_trim(thought).size)
        TRY(reading_text(r, reasoning, inner, &thought));
    thought = span_trim(thought);
    if (thought.size && out->thought && out->thought_size)
        return reading_bad(r, "%s has a thought in reasoning_content and another between " THOUGHT_OPEN " tags; keep one", name);
    if (thought.size || !out->thought)
        reading_think(r, thought, out);
    return STATUS_OK;
}

/* weight, loss_scale: a number, 0 for no loss. loss, train: false for no loss; mask: true for it. */
static enum status own_factor(struct reading *r, const struct json *message, const char *name, struct message *out)
{
    static const struct {
        const char *key;
        bool number, silences; /* silences: the truth value that takes the loss away */
    } keys[] = {{"weight", true, false}, {"loss_scale", true, false}, {"loss", false, false}, {"train", false, false}, {"mask", false, true}};
    double factor = 1;
    bool silent = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct json *value = json_member(message, keys[i].key);
        enum json_kind kind = json_kind(value);
        if (kind == JSON_KIND_NULL)
            continue;
        if (!keys[i].number) {
            if (kind != JSON_KIND_BOOL)
                return reading_bad(r, "%s.%s must be true or false, found %s", name, keys[i].key, json_kind_name(kind));
            silent |= json_to_bool(value) == keys[i].silences;
            continue;
        }
        factor = json_to_real(value);
        if ((kind != JSON_KIND_INT && kind != JSON_KIND_REAL) || !(factor >= 0 && factor <= 1e6))
            return reading_bad(r, "%s.%s must be a number from 0 to 1e6, found %s", name, keys[i].key, json_kind_name(kind));
    }
    out->factor = (float)factor;
    out->supervised &= !silent && out->factor > 0;
    return STATUS_OK;
}

enum status reading_assistant(struct reading *r, const struct json *message, const char *name, struct message *out)
{
    const struct json *calls = json_member(message, "tool_calls");
    if (json_kind(calls) == JSON_KIND_ARRAY && json_count(calls))
        return reading_bad(r, "%s has tool_calls, which no template here can write; put the call into content, as the model shall "
                           "write it", name);
    TRY(own_thought(r, message, name, out));
    return own_factor(r, message, name, out);
}
