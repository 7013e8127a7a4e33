/* Row formats: how the columns of a JSON object become a conversation, with the thought apart from the answer.
 * Must not know: tokens, templates, where the rows lie on disk (beyond a name for messages). */
#ifndef WORKER_DATA_ROWS_H
#define WORKER_DATA_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/json.h"
#include "common/memory.h"
#include "common/status.h"
#include "worker/data/columns.h"
#include "worker/data/conversation.h"
#include "worker/data/labels.h"

/*   messages           messages[].role/content; a thought is `reasoning_content` or stands between <think> tags;
 *                      optional per assistant message: weight or loss_scale (a number, 0 for no loss), loss or train (false
 *                      for no loss), mask (true for no loss); content may be a list of parts; roles system, user, assistant,
 *                      tool and their other names (reading_message.c)
 *   sharegpt           conversations[].from/value with human and gpt, or pairs conversation[].human/assistant
 *   qa-cot             question, thought, answer; the thought also as reasoning, rationale, cot, reasoning_content or
 *                      chain_of_thought, the others by the names below
 *   medical-o1         Question, Complex_CoT, Response
 *   gsm8k              question, answer: the thought is the text above the last line that begins with "#### "
 *   prompt-completion  prompt, completion: each a string or a list of messages; or one of question, query, input,
 *                      instruction, problem and one of answer, response, output, solution
 *   alpaca             instruction, output; optional input, below the instruction
 *   classification     text (or sentence), label: a name or a whole number; as a conversation the label is the answer
 *   text               text: all of it is trained, nothing stands round it but the tokenizer's end token
 * Messages and pairs take an optional `system`; prompt-completion and alpaca an optional `history`, a list of pairs of
 * question and answer, too. Every format takes an optional `weight` of the row. Other columns are ignored. */
struct row_format;

struct row_options {
    bool keep_calculator_marks; /* gsm8k: keep <<48/2=24>> in thoughts; else they are cut out */
    struct row_columns columns;
    const struct label_set *labels; /* classification: those that a row may have; NULL: any */
    bool last_turn_only; /* earlier assistant turns take no loss, whatever their own weights */
    bool empty_thoughts; /* a thought may say nothing: tags round nothing, an empty column */
    const char *thought_open, *thought_close; /* tags of thoughts inside answers; NULL or not there: <think>, </think> */
};

/* The format with this name; STATUS_USAGE listing the known ones. */
enum status row_format_find(const char *name, const struct row_format **out, struct error *err);
/* The format whose columns the row has; STATUS_DATA naming "path:line", the columns found and the known formats. */
enum status row_format_detect(const struct json *row, const char *path, int64_t line, const struct row_options *options,
                              const struct row_format **out, struct error *err);
/* STATUS_USAGE if a column is named that the format has no use for. */
enum status row_format_check(const struct row_format *format, const struct row_columns *columns, struct error *err);
const char *row_format_name(const struct row_format *format);
bool row_format_has_label(const struct row_format *format);

/* Fills `out` with strings that live in `row` or in the arena. STATUS_DATA for any row that must not be trained on:
 * missing columns, wrong kinds, empty question, thought or answer, NUL characters, wrong role order. */
enum status row_read(const struct row_format *format, const struct json *row, const char *path, int64_t line,
                     const struct row_options *options, struct arena *arena, struct conversation *out,
                     struct error *err);

/* Adds the text that asks for steps to the last question (on a line of its own) and the prefix to every supervised
 * answer; NULL or "" adds nothing, and plain text stays as it is. Generation uses it too, so that prompts look as they
 * did in training. */
enum status conversation_dress(struct conversation *conversation, const char *cot_prompt, const char *answer_prefix,
                               struct arena *arena, struct error *err);

#endif
