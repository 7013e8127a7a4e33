/* Readers of formats that have a column for each part: question, thought and answer, or one text.
 * Must not know: names of columns. */
#include <stdio.h>
#include <string.h>

#include "worker/data/reading.h"

static const char result_mark[] = "#### ";

/* One question and one answer. */
static enum status pair(struct reading *r, struct span_of_text question, struct span_of_text thought,
                        struct span_of_text answer, struct conversation *out)
{
    TRY(reading_room(r, 2, out));
    out->count = 2;
    out->messages[0] = (struct message){.role = ROLE_USER, .content = question.bytes, .content_size = question.size};
    out->messages[1] = (struct message){.role = ROLE_ASSISTANT, .content = answer.bytes, .content_size = answer.size,
                                        .supervised = true};
    reading_think(r, thought, &out->messages[1]);
    return STATUS_OK;
}

static enum status thought_column(struct reading *r, struct span_of_text *out)
{
    TRY(reading_optional(r, ROW_THOUGHT, out));
    if (out->size || r->options->empty_thoughts)
        return STATUS_OK;
    if (json_kind(r->cells[ROW_THOUGHT].value) == JSON_KIND_NULL)
        return reading_column(r, ROW_THOUGHT, out);
    return reading_bad(r, "'%.60s' is empty; fill it, remove the row, or set ignore_empty_thought: true", r->cells[ROW_THOUGHT].name);
}

enum status reading_question_thought_answer(struct reading *r, struct conversation *out)
{
    struct span_of_text question, thought, answer;
    TRY(reading_column(r, ROW_QUESTION, &question));
    TRY(thought_column(r, &thought));
    TRY(reading_column(r, ROW_ANSWER, &answer));
    return pair(r, question, thought, answer, out);
}

/* The thought without its <<expression=value>> marks. An opening without a close in the same line is no mark. */
static enum status without_marks(struct reading *r, struct span_of_text text, struct span_of_text *out)
{
    char *copy = arena_alloc(r->arena, text.size + 1, 1);
    const char *end = span_end(text);
    if (!copy)
        return reading_no_memory(r);
    size_t n = 0;
    for (const char *at = text.bytes; at < end;) {
        const char *close = end - at >= 2 && at[0] == '<' && at[1] == '<' ? span_find(span_from_to(at, end), ">>") : NULL;
        if (close && !memchr(at, '\n', (size_t)(close - at)))
            at = close + 2;
        else
            copy[n++] = *at++;
    }
    *out = (struct span_of_text){copy, n};
    return STATUS_OK;
}

enum status reading_gsm8k(struct reading *r, struct conversation *out)
{
    struct span_of_text question, text;
    TRY(reading_column(r, ROW_QUESTION, &question));
    TRY(reading_column(r, ROW_ANSWER, &text));
    const char *mark = NULL, *end = span_end(text), *name = r->cells[ROW_ANSWER].name;
    for (const char *line = text.bytes; line;) {
        if ((size_t)(end - line) >= strlen(result_mark) && !memcmp(line, result_mark, strlen(result_mark)))
            mark = line;
        line = memchr(line, '\n', (size_t)(end - line));
        line = line && line + 1 < end ? line + 1 : NULL;
    }
    if (!mark)
        return reading_bad(r, "'%.60s' has no line that begins with '%s'; add one with the result, or use format qa-cot or "
                           "prompt-completion", name, result_mark);
    struct span_of_text answer = span_trim(span_from_to(mark + strlen(result_mark), end));
    struct span_of_text thought = span_trim(span_from_to(text.bytes, mark));
    if (!answer.size)
        return reading_bad(r, "'%.60s' has nothing behind '%s'; fill it or remove the row", name, result_mark);
    if (!r->options->keep_calculator_marks)
        TRY(without_marks(r, thought, &thought));
    return pair(r, question, thought, answer, out);
}

/* The instruction with the input on the next line. */
static enum status with_input(struct reading *r, struct span_of_text instruction, struct span_of_text *out)
{
    struct span_of_text input;
    TRY(reading_optional(r, ROW_INPUT, &input));
    *out = instruction;
    if (!input.size)
        return STATUS_OK;
    char *joined = arena_alloc(r->arena, instruction.size + 1 + input.size, 1);
    if (!joined)
        return reading_no_memory(r);
    memcpy(joined, instruction.bytes, instruction.size);
    joined[instruction.size] = '\n';
    memcpy(joined + instruction.size + 1, input.bytes, input.size);
    *out = (struct span_of_text){joined, instruction.size + 1 + input.size};
    return STATUS_OK;
}

enum status reading_alpaca(struct reading *r, struct conversation *out)
{
    struct span_of_text question, answer;
    TRY(reading_column(r, ROW_QUESTION, &question));
    TRY(reading_column(r, ROW_ANSWER, &answer));
    TRY(with_input(r, question, &question));
    TRY(reading_room(r, reading_lead_count(r) + 2, out));
    TRY(reading_lead(r, out));
    TRY(reading_turn(r, ROLE_USER, question, r->cells[ROW_QUESTION].name, out));
    char name[64];
    snprintf(name, sizeof name, "'%.60s'", r->cells[ROW_ANSWER].name);
    return reading_turn(r, ROLE_ASSISTANT, answer, name, out);
}

enum status reading_plain_text(struct reading *r, struct conversation *out)
{
    struct span_of_text text;
    TRY(reading_column(r, ROW_TEXT, &text));
    TRY(reading_room(r, 1, out));
    out->messages[0] = (struct message){.role = ROLE_ASSISTANT, .content = text.bytes, .content_size = text.size,
                                        .supervised = true};
    out->count = 1;
    out->plain = true;
    return STATUS_OK;
}

/* A name, or a whole number as its digits. */
static enum status label_text(struct reading *r, struct span_of_text *out)
{
    const struct cell *cell = &r->cells[ROW_LABEL];
    enum json_kind kind = json_kind(cell->value);
    if (kind == JSON_KIND_STRING) {
        TRY(reading_column(r, ROW_LABEL, out));
        *out = span_trim(*out);
        return STATUS_OK;
    }
    if (kind != JSON_KIND_INT)
        return reading_bad(r, "'%.60s' must be a label's name or a whole number, found %s", cell->name, json_kind_name(kind));
    char *digits = arena_alloc(r->arena, 24, 1);
    if (!digits)
        return reading_no_memory(r);
    *out = (struct span_of_text){digits, (size_t)snprintf(digits, 24, "%lld", (long long)json_to_int(cell->value))};
    return STATUS_OK;
}

enum status reading_classification(struct reading *r, struct conversation *out)
{
    struct span_of_text text, label;
    const struct label_set *known = r->options->labels;
    TRY(reading_column(r, ROW_TEXT, &text));
    TRY(label_text(r, &label));
    int place = known ? label_set_place(known, label.bytes, label.size) : 0;
    if (place < 0) {
        struct text list = {0};
        label_set_list(known, &list);
        enum status st = list.failed ? reading_no_memory(r)
                                     : reading_bad(r, "'%.60s' is '%.*s', which is none of the %d labels of task '%.60s': %s",
                                                   r->cells[ROW_LABEL].name, (int)(label.size < 60 ? label.size : 60), label.bytes,
                                                   known->count, known->task, list.data);
        text_free(&list);
        return st;
    }
    if (known)
        label = (struct span_of_text){known->names[place], strlen(known->names[place])};
    return pair(r, text, (struct span_of_text){NULL, 0}, label, out);
}
