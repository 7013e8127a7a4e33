/* A conversation that grows turn by turn: what was asked and answered so far, as the next prompt needs it. Thoughts are not
 * kept, so templates show earlier turns without them, as they do in training.
 * Must not know: models, tokens, where words come from. */
#ifndef LAUNCH_TALK_H
#define LAUNCH_TALK_H

#include "common/memory.h"
#include "common/status.h"
#include "worker/data/conversation.h"

/* Start with {0}. */
struct talk {
    struct message *messages; /* [count] their texts are owned: the system's, where there is one, then question and answer in turn */
    int count, capacity;
    struct arena arena; /* behind talk_conversation */
};
void talk_free(struct talk *talk);

/* Texts are copied; STATUS_NOMEM leaves the talk as it was. */
/* Sets or replaces the system's text; "" takes it away. */
enum status talk_set_system(struct talk *talk, const char *text, struct error *err);
enum status talk_ask(struct talk *talk, const char *question, size_t size, struct error *err);
/* The answer to the last question, without white space round it; prefix (NULL: none) stands before it, as in training. */
enum status talk_reply(struct talk *talk, const char *prefix, const char *answer, size_t size, struct error *err);
/* Takes back the last question if it has no answer yet. */
void talk_drop_question(struct talk *talk);
/* Forgets all but the system's text. */
void talk_reset(struct talk *talk);

/* Questions and answers so far. */
int talk_turns(const struct talk *talk);
/* The system's text or NULL. */
const char *talk_system(const struct talk *talk);

/* All of it for template_prompt, with cot_prompt (NULL or "": none) behind the last question; valid until the next call or
 * change. */
enum status talk_conversation(struct talk *talk, const char *cot_prompt, struct conversation *out, struct error *err);

#endif
