/* Chat templates: how a conversation becomes token ids, and which part of it each token belongs to. A template is a row of
 * a table, or declared by a file. Text of users is encoded so that it can never become a control token.
 * Must not know: row formats, models. */
#ifndef WORKER_DATA_TEMPLATE_H
#define WORKER_DATA_TEMPLATE_H

#include <stdbool.h>

#include "common/status.h"
#include "common/text.h"
#include "worker/data/batch.h"
#include "worker/data/conversation.h"
#include "worker/data/tokenizer.h"

struct chat_template;

/* NULL if there is none with this name. */
const struct chat_template *template_find(const char *name);
/* "deepseek-llm, deepseek-coder, ..." */
const char *template_names(void);
const char *template_name(const struct chat_template *chat_template);

enum template_choice { TEMPLATE_AUTO, TEMPLATE_YES, TEMPLATE_NO };
/* Which end tokens take loss: of every supervised turn, only the one that ends the row, or none. */
enum train_on_eos { TRAIN_ON_EOS_TURN, TRAIN_ON_EOS_LAST, TRAIN_ON_EOS_NONE };

/* What a run makes of a template. */
struct template_settings {
    const char *name;  /* of a built-in one; of a declared one: the file, for messages */
    const char *text;  /* a declaration (template_file.c), NUL-terminated; NULL or "": the built-in one */
    const char *thought_open, *thought_close; /* tags with the white space round them; NULL or "": the template's own */
    const char *default_system;               /* NULL or "": the template's own */
    /* Whether the prompt to continue holds the opening tag: then it is no target in rows, and generation puts it there; else
     * it is learnt, and generation waits for the model to write it. AUTO: as the template has it; where it is learnt then,
     * generation puts it there nevertheless. */
    enum template_choice prompt_opens_thought;
    /* YES: turns without a thought get an empty one. NO: thoughts are left out of rows, and the prompt says that there is
     * none, with the template's own mark or an empty thought. AUTO: rows are as they are. */
    enum template_choice enable_thinking;
    bool ignore_empty_thought; /* the tags of an empty thought take no loss */
    enum train_on_eos train_on_eos;
};
/* "auto", "true", "false" and "turn", "last", "none" -> the value; false if unknown. */
bool template_choice_parse(const char *word, enum template_choice *out);
bool train_on_eos_parse(const char *word, enum train_on_eos *out);

/* STATUS_USAGE for a name that is not known; STATUS_DATA naming "file:line" for a declaration that cannot be used. */
enum status template_create(const struct template_settings *settings, struct chat_template **out, struct error *err);
/* A built-in template by its name, or one that a file (.yaml, .yml) declares, with no settings. */
enum status template_open(const char *name_or_file, struct chat_template **out, struct error *err);
/* Only what template_create and template_open made; NULL is allowed. */
void template_free(struct chat_template *chat_template);

/* Appends the template as a file declares it. The same text: the same prompts and rows. */
void template_declare(const struct chat_template *chat_template, struct text *out);
/* 16 hex digits that stand for that text, without its name. STATUS_NOMEM. */
enum { TEMPLATE_HASH_SIZE = 17 };
enum status template_hash(const struct chat_template *chat_template, char out[TEMPLATE_HASH_SIZE], struct error *err);

/* STATUS_DATA naming the template and the token if the tokenizer lacks one that the template needs. Do it once before
 * a run. */
enum status template_check(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                           struct error *err);

/* The whole conversation as a training row. A thought is kept on supervised turns and dropped on others, as at inference.
 * Spans: everything not supervised is SPAN_PROMPT; a thought with its closing tag (and its opening tag, where the
 * template leaves that to the model) is SPAN_THOUGHT; then SPAN_ANSWER and, for the end token, SPAN_END. What must take no
 * loss even where prompts do (a tool's turn, end tokens that are not trained, the tags of an ignored empty thought) is
 * SPAN_PROMPT in a stretch of factor 0; the factors of turns make stretches, too.
 * Of plain text every token is SPAN_ANSWER, and the tokenizer's EOS, SPAN_END, stands behind it without the template's marks.
 * out->weight is the conversation's; out->task is 0. row_free releases it. STATUS_DATA naming message and role for a role
 * that the template cannot write. */
enum status template_encode(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                            const struct conversation *conversation, struct row *out, struct error *err);

/* A text to be classified: the begin token and the text alone, all of it SPAN_PROMPT. */
enum status template_encode_text(const struct chat_template *chat_template, const struct tokenizer *tokenizer, const char *text,
                                 size_t size, struct row *out, struct error *err);

/* Appends the ids a model continues: the conversation without its last message if that is a supervised answer, then the
 * head of an assistant's turn, and with `thinking` the opening tag of a thought, unless that is left to the model. These
 * ids are always the first ones of template_encode's row for the same conversation, where `thinking` says whether its last
 * message has a thought. STATUS_DATA for plain text, which asks nothing. */
enum status template_prompt(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                            const struct conversation *conversation, bool thinking, struct token_list *out,
                            struct error *err);

/* False with enable_thinking: false: prompts say that there is no thought, so there is none to generate. */
bool template_thinks(const struct chat_template *chat_template);
/* The tag that a thought begins with in what the model writes; NULL where the prompt holds it. */
const char *template_written_tag(const struct chat_template *chat_template);
/* True of templates whose models always think (deepseek-r1), unless the run leaves thoughts out. */
bool template_expects_thoughts(const struct chat_template *chat_template);
/* True where a file declares the template. */
bool template_is_declared(const struct chat_template *chat_template);
/* The opening tag of a thought, without white space. */
const char *template_thought_open(const struct chat_template *chat_template);

/* For generation in two stages. The tokens of _open_ids begin a thought where that is the model's part of a row; none where
 * the tag belongs to the prompt or generation leaves it to the model. The tag alone ("</think>") stops stage one. The tokens of _close_ids end a thought as
 * rows spell it, from its last character to where the answer begins; those of _lead_ids are the last ones of them, from
 * the tag to the answer (often a blank line), for a model that wrote the tag itself. Both append. */
const char *template_thought_tag(const struct chat_template *chat_template);
enum status template_open_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                              struct token_list *out, struct error *err);
enum status template_close_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                               struct token_list *out, struct error *err);
enum status template_lead_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                              struct token_list *out, struct error *err);
/* Appends the ids that end a turn: the template's end token, then the tokenizer's EOS if that is another one. */
enum status template_end_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                             struct token_list *out, struct error *err);

#endif
