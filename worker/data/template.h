/* Chat templates: how a conversation becomes token ids, and which part of it each token belongs to. One table row per
 * template. Text of users is encoded so that it can never become a control token.
 * Must not know: files, row formats, models. */
#ifndef WORKER_DATA_TEMPLATE_H
#define WORKER_DATA_TEMPLATE_H

#include <stdbool.h>

#include "common/status.h"
#include "worker/data/batch.h"
#include "worker/data/conversation.h"
#include "worker/data/tokenizer.h"

struct chat_template;

/* NULL if there is none with this name. */
const struct chat_template *template_find(const char *name);
/* "deepseek-llm, deepseek-coder, ..." */
const char *template_names(void);
const char *template_name(const struct chat_template *chat_template);

/* STATUS_DATA naming the template and the token if the tokenizer lacks one that the template needs. Do it once before
 * a run. */
enum status template_check(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                           struct error *err);

/* The whole conversation as a training row. A thought is kept on supervised turns and dropped on others, as at inference.
 * Spans: everything not supervised is SPAN_PROMPT; a thought with its closing tag (and its opening tag, where the
 * template leaves that to the model) is SPAN_THOUGHT; then SPAN_ANSWER and, for the end token, SPAN_END.
 * Of plain text every token is SPAN_ANSWER, and the tokenizer's EOS, SPAN_END, stands behind it without the template's marks.
 * out->weight is the conversation's; out->task is 0. row_free releases it. */
enum status template_encode(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                            const struct conversation *conversation, struct row *out, struct error *err);

/* A text to be classified: the begin token and the text alone, all of it SPAN_PROMPT. */
enum status template_encode_text(const struct chat_template *chat_template, const struct tokenizer *tokenizer, const char *text,
                                 size_t size, struct row *out, struct error *err);

/* Appends the ids a model continues: the conversation without its last message if that is a supervised answer, then the
 * head of an assistant's turn, and with `thinking` the opening tag of a thought. These ids are always the first ones of
 * template_encode's row for the same conversation, where `thinking` says whether its last message has a thought.
 * STATUS_DATA for plain text, which asks nothing. */
enum status template_prompt(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                            const struct conversation *conversation, bool thinking, struct token_list *out,
                            struct error *err);

/* For generation in two stages. The tag alone ("</think>") stops stage one. The tokens of _close_ids end a thought as
 * rows spell it, from its last character to where the answer begins; those of _lead_ids are the last ones of them, from
 * the tag to the answer (often a blank line), for a model that wrote the tag itself. Both append. */
const char *template_thought_tag(const struct chat_template *chat_template);
enum status template_close_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                               struct token_list *out, struct error *err);
enum status template_lead_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                              struct token_list *out, struct error *err);
/* Appends the ids that end a turn: the template's end token, then the tokenizer's EOS if that is another one. */
enum status template_end_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                             struct token_list *out, struct error *err);

#endif
