#include "launch/talk.h"

#include <ctype.h>
#include <string.h>

#include "common/text.h"
#include "worker/data/rows.h"

static void message_free(struct message *m)
{
    mem_free((char *)m->content);
    *m = (struct message){0};
}

static void keep(struct talk *talk, int count)
{
    while (talk->count > count)
        message_free(&talk->messages[--talk->count]);
}

void talk_free(struct talk *talk)
{
    keep(talk, 0);
    mem_free(talk->messages);
    arena_free(&talk->arena);
    *talk = (struct talk){0};
}

static bool has_system(const struct talk *talk)
{
    return talk->count && talk->messages[0].role == ROLE_SYSTEM;
}

/* Puts a message at a place; takes the text. */
static enum status put(struct talk *talk, int at, enum role role, char *text, size_t size, struct error *err)
{
    if (text && talk->count == talk->capacity) {
        int capacity = talk->capacity ? 2 * talk->capacity : 8;
        struct message *grown = mem_realloc(talk->messages, (size_t)capacity, sizeof *grown);
        if (grown) {
            talk->messages = grown;
            talk->capacity = capacity;
        }
    }
    if (!text || talk->count == talk->capacity) {
        mem_free(text);
        FAIL(err, STATUS_NOMEM, "no memory for what was said");
    }
    memmove(talk->messages + at + 1, talk->messages + at, (size_t)(talk->count - at) * sizeof *talk->messages);
    talk->messages[at] = (struct message){.role = role, .content = text, .content_size = size};
    talk->count++;
    return STATUS_OK;
}

enum status talk_set_system(struct talk *talk, const char *text, struct error *err)
{
    bool replaces = has_system(talk);
    if (*text)
        TRY(put(talk, 0, ROLE_SYSTEM, mem_strdup(text), strlen(text), err));
    if (!replaces)
        return STATUS_OK;
    int old = *text ? 1 : 0;
    message_free(&talk->messages[old]);
    talk->count--;
    memmove(talk->messages + old, talk->messages + old + 1, (size_t)(talk->count - old) * sizeof *talk->messages);
    return STATUS_OK;
}

enum status talk_ask(struct talk *talk, const char *question, size_t size, struct error *err)
{
    return put(talk, talk->count, ROLE_USER, mem_strndup(question, size), size, err);
}

enum status talk_reply(struct talk *talk, const char *prefix, const char *answer, size_t size, struct error *err)
{
    struct text text = {0};
    while (size && isspace((unsigned char)answer[size - 1]))
        size--;
    while (size && isspace((unsigned char)*answer))
        answer++, size--;
    text_puts(&text, prefix ? prefix : "");
    text_append(&text, answer, size);
    if (text.failed) {
        text_free(&text);
        FAIL(err, STATUS_NOMEM, "no memory for what was said");
    }
    return put(talk, talk->count, ROLE_ASSISTANT, text.data, text.size, err);
}

void talk_drop_question(struct talk *talk)
{
    if (talk->count && talk->messages[talk->count - 1].role == ROLE_USER)
        keep(talk, talk->count - 1);
}

void talk_reset(struct talk *talk)
{
    keep(talk, has_system(talk));
}

int talk_turns(const struct talk *talk)
{
    return (talk->count - has_system(talk)) / 2;
}

const char *talk_system(const struct talk *talk)
{
    return has_system(talk) ? talk->messages[0].content : NULL;
}

enum status talk_conversation(struct talk *talk, const char *cot_prompt, struct conversation *out, struct error *err)
{
    arena_reset(&talk->arena);
    struct message *copy = arena_alloc(&talk->arena, (size_t)talk->count + 1, sizeof *copy);
    if (!copy)
        FAIL(err, STATUS_NOMEM, "no memory for a conversation of %d messages", talk->count);
    if (talk->count)
        memcpy(copy, talk->messages, (size_t)talk->count * sizeof *copy);
    *out = (struct conversation){.messages = copy, .count = talk->count, .weight = 1};
    return conversation_dress(out, cot_prompt, NULL, &talk->arena, err);
}
