/* Questions one after the other: from a file of rows in any format, or lines of plain text, each of which is one.
 * Must not know: models, answers. */
#ifndef LAUNCH_QUESTIONS_H
#define LAUNCH_QUESTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/json.h"
#include "common/memory.h"
#include "common/status.h"
#include "common/text.h"
#include "worker/data/conversation.h"
#include "worker/data/records.h"
#include "worker/data/rows.h"

struct chat_template;
struct request;

/* Valid until the next one is asked for. */
struct question {
    struct conversation conversation;
    const struct message *asked;    /* the question proper */
    const struct message *expected; /* its answer; NULL: the file has none */
};

struct questions {
    const char *path; /* borrowed, for messages */
    struct row_options options;
    const struct row_format *format; /* NULL: not recognised yet */
    struct records records;
    FILE *lines;      /* NULL: records are read */
    struct text line;
    struct message message; /* of the line */
    struct question last;
    int64_t times, time; /* each question is handed out so many times; the last one was for the time-th, from 0 */
    struct json *row;
    struct arena arena;
};

/* Tags of thoughts are the template's. request->file or request->lines ("-": standard input), with the request's format and
 * columns; every question as often as the request wants answers to it. On failure nothing is left open. */
enum status questions_open(const struct request *request, const struct chat_template *chat_template, struct questions *out,
                           struct error *err);
void questions_close(struct questions *questions);
/* The question text that asks for steps is added to it (options cot_prompt; NULL or "": none). STATUS_DATA naming "file:line"
 * for a bad row, and for one of plain text. Empty lines are passed over. */
enum status questions_next(struct questions *questions, const char *cot_prompt, struct question *out, bool *found, struct error *err);

#endif
