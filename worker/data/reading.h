/* What the readers of all row formats share: the row's columns by role, the messages a bad row gets, texts, thoughts and
 * turns. Only rows.c and the readers include it.
 * Must not know: which columns a format has. */
#ifndef WORKER_DATA_READING_H
#define WORKER_DATA_READING_H

#include "worker/data/rows.h"

/* A column of the row at hand. */
struct cell {
    const struct json *value; /* NULL: the row does not have it */
    const char *name;         /* in this row */
};

struct reading {
    const char *path;
    int64_t line;
    const struct row_options *options;
    struct arena *arena;
    struct error *err;
    struct cell cells[ROW_ROLES];
};

struct span_of_text {
    const char *bytes;
    size_t size;
};

#define THOUGHT_OPEN "<think>"
#define THOUGHT_CLOSE "</think>"

/* STATUS_DATA with "path:line: " in front. */
enum status reading_bad(struct reading *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum status reading_no_memory(struct reading *r);

struct span_of_text span_trim(struct span_of_text text);
struct span_of_text span_from_to(const char *begin, const char *end);
const char *span_find(struct span_of_text text, const char *what);
const char *span_end(struct span_of_text text);

/* A string that says something. `name` is how the message calls it. */
enum status reading_text(struct reading *r, const struct json *value, const char *name, struct span_of_text *out);
/* The same for a text that was put together. */
enum status reading_check_text(struct reading *r, struct span_of_text text, const char *name);
enum status reading_column(struct reading *r, enum row_role role, struct span_of_text *out);
/* Size 0 where the column is absent, null or blank. */
enum status reading_optional(struct reading *r, enum row_role role, struct span_of_text *out);

/* Room for so many messages. */
enum status reading_room(struct reading *r, size_t messages, struct conversation *out);
/* The role must follow from the ones before it: [system] (user assistant (tool+ assistant)*)+. */
enum status reading_order(struct reading *r, const struct conversation *so_far, enum role role, const char *name);
/* Gives the message its thought; one that says nothing is there only where the run allows empty thoughts. */
void reading_think(const struct reading *r, struct span_of_text thought, struct message *out);
/* Appends a turn that takes its place in the order. An assistant's text is split into thought and answer and is
 * supervised. */
enum status reading_turn(struct reading *r, enum role role, struct span_of_text text, const char *name,
                         struct conversation *out);
/* One object of a list of messages: who speaks; what is said, from a string or a list of parts; of an assistant's message
 * the thought and the factor of its loss. `name` is how messages call it. */
enum status reading_speaker(struct reading *r, const struct json *message, const char *name, enum role *out);
enum status reading_content(struct reading *r, const struct json *value, const char *name, struct span_of_text *out,
                            struct span_of_text *thought);
enum status reading_assistant(struct reading *r, const struct json *message, const char *name, struct message *out);
/* Which role a word stands for; false if none. */
bool reading_role(const char *word, enum role *out);
/* {"human": question, "assistant": answer} and the like: the object's one text of each side. */
bool reading_sides(const struct json *object, const char *sides[2]);

/* Appends the column `system`, if it says something, and the pairs of the column `history`. */
size_t reading_lead_count(const struct reading *r);
enum status reading_lead(struct reading *r, struct conversation *out);

/* The readers. Needed columns are in the cells. */
enum status reading_messages(struct reading *r, struct conversation *out);
enum status reading_prompt_completion(struct reading *r, struct conversation *out);
enum status reading_question_thought_answer(struct reading *r, struct conversation *out);
enum status reading_gsm8k(struct reading *r, struct conversation *out);
enum status reading_alpaca(struct reading *r, struct conversation *out);
enum status reading_plain_text(struct reading *r, struct conversation *out);
enum status reading_classification(struct reading *r, struct conversation *out);

#endif
