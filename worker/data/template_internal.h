/* What a template is made of, shared by the table of built-in ones, by files that declare one and by the encoder.
 * Only worker/data/template*.c include it.
 * Must not know: rows. */
#ifndef WORKER_DATA_TEMPLATE_INTERNAL_H
#define WORKER_DATA_TEMPLATE_INTERNAL_H

#include "common/memory.h"
#include "worker/data/template.h"

/* Text, a tag, text; each may be NULL. */
struct piece {
    const char *before, *tag, *after;
};

/* What stands round the text of a role. In these texts the template's tokens are tokens. */
struct frame {
    const char *prefix; /* NULL: the template cannot write this role */
    const char *suffix;
};

enum { TEMPLATE_TOKENS = 16 };

struct chat_template {
    const char *name;
    const char *bos;            /* NULL: the tokenizer's own, unless it is its EOS too; "": none */
    const char *default_system; /* where a conversation has none */
    struct frame roles[ROLE_COUNT]; /* of the assistant: the head that the model continues; before the end token */
    const char *system_join;    /* between system texts */
    const char *lead;           /* before an answer without a thought; learnt */
    const char *no_thought;     /* behind the head of a turn without a thought; not learnt */
    struct piece open, close;   /* round a thought */
    bool tags_needed;           /* the tags must be tokens; else they may be plain text */
    bool open_is_prompt;        /* the opening tag is given to the model, not learnt */
    bool model_opens;           /* generation leaves the opening tag to the model */
    const char *end;            /* token that ends a turn; NULL: the tokenizer's EOS */
    const char *end_after;      /* written behind it only if something follows */
    const char *tokens[TEMPLATE_TOKENS + 1]; /* that the texts above hold; ended by NULL */

    /* How a run uses it. */
    enum template_choice thinking;
    bool ignore_empty;
    enum train_on_eos train_on_eos;
    bool declared;      /* by a file */
    struct arena arena; /* of the strings of one that was made */
};

/* The table of built-in ones, in template_table.c. */
extern const struct chat_template template_table[];
extern const int template_table_size;

#endif
