/* A training or inference example before it becomes tokens: messages with roles, the thought apart from the
 * answer. Row readers make it, chat templates turn it into a row of tokens with spans.
 * Must not know: file formats, token ids. */
#ifndef WORKER_DATA_CONVERSATION_H
#define WORKER_DATA_CONVERSATION_H

#include <stdbool.h>
#include <stddef.h>

/* A tool's turn says what a tool answered. */
enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, ROLE_COUNT };
/* "system", "user", "assistant", "tool" */
const char *role_name(enum role role);

/* Strings are borrowed from the reader's arena; UTF-8, not necessarily NUL-terminated. */
struct message {
    enum role role;
    const char *content; /* for the assistant: the answer alone */
    size_t content_size;
    const char *thought; /* NULL where there is none; of size 0: empty, which is written, but takes no loss */
    size_t thought_size;
    bool supervised; /* assistant messages only: tokens of this turn take loss */
    float factor;    /* of a supervised turn's loss against the other turns of the row; 0 stands for 1 */
};

struct conversation {
    struct message *messages;
    int count;
    float weight; /* loss weight of the row, 1 unless the row or all its turns say otherwise */
    bool plain;   /* no talk at all: the one message is a text by itself, without marks of roles round it */
};

#endif
