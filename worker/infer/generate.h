/* Text from a model: one stage, or thought and answer apart. Stage one writes the thought until its closing tag or its
 * limit; stage two puts the tag there if the model did not, then the answer prefix, and writes the answer. A thought that ends
 * too early is made to go on: the tag is taken back and a text put in its place (Muennighoff et al., "s1: Simple test-time
 * scaling", 2025).
 * Must not know: files, templates, where the prompt came from. */
#ifndef WORKER_INFER_GENERATE_H
#define WORKER_INFER_GENERATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"
#include "worker/data/batch.h"
#include "worker/data/tokenizer.h"
#include "worker/infer/sample.h"
#include "worker/model/model.h"

struct generate_settings {
    struct sampling sampling;
    int max_new_tokens;         /* of the answer */
    bool two_stage;             /* thought first */
    int max_thinking_tokens;    /* of the thought */
    int min_thinking_tokens;    /* of the thought: shorter ones go on behind thinking_extend_text; 0: any length */
    const char *thinking_extend_text; /* not "" where min_thinking_tokens is above 0 */
    const char *thought_open, *thought_close; /* the tags round a thought, such as "<think>" and "</think>"; NULL: none */
    bool model_opens;           /* prompts leave the opening tag to the model: without it what ends the turn is an answer */
    const int32_t *open;        /* tokens that begin a thought as rows spell it, where they are part of it and not of the prompt */
    int n_open;
    const int32_t *close;       /* tokens that end a thought as rows spell it, up to where the answer begins */
    int n_close;
    const char *answer_prefix;  /* put before the answer; NULL or "": none */
    const int32_t *ends;        /* tokens that end the turn */
    int n_ends;
    const char *const *stops;   /* texts that end the answer; they are not part of it */
    int n_stops;
    int task;                   /* of the requests, for a routed model */
    int self_consistency;       /* answers to vote over, for vote_run and answer_row (vote.h); below 2: one, without a vote */
};

enum generate_status {
    GENERATE_COMPLETE,    /* the model ended its turn, or a stop text came */
    GENERATE_THOUGHT_CUT, /* the thought reached its limit; the answer followed nevertheless */
    GENERATE_ANSWER_CUT,  /* the answer reached its limit */
    GENERATE_NO_ANSWER,   /* nothing but white space */
};
const char *generate_status_name(enum generate_status status);

struct generated {
    struct text thought, answer;
    enum generate_status status;
    int thought_tokens, answer_tokens;
};
void generated_free(struct generated *generated);
void generated_reset(struct generated *generated); /* nothing generated; keeps the memory */

/* Called with text as it comes; never splits a character. */
typedef void generate_text_fn(void *context, enum span span, const char *bytes, size_t size);

struct generator;
/* All but the settings' numbers are borrowed. One generation at a time. */
enum status generator_create(struct model *model, const struct model_config *config, const float *values,
                             const struct tokenizer *tokenizer, const struct generate_settings *settings,
                             struct generator **out, struct error *err);
void generator_free(struct generator *generator);
/* The task of the generations to come, instead of the settings' one. */
void generator_set_task(struct generator *generator, int task);
/* Asked before every token whether the generation is to end, as at its limits; once true, it must stay true to its end. NULL:
 * nobody is asked. */
typedef bool generate_stop_fn(void *context);
void generator_set_stop(struct generator *generator, generate_stop_fn *stop, void *context);

/* Continues the prompt. A thought is kept apart from the answer in one stage too: what stands between the tags, or before the
 * closing tag where a model leaves out the opening one (then on_text has called it an answer, and `out` is right). A thought
 * that is never closed stays a thought, and there is no answer: GENERATE_THOUGHT_CUT at the limit, else GENERATE_NO_ANSWER.
 * `stream` keeps the random numbers of several generations apart. on_text may be NULL. The texts of
 * `out` are replaced. STATUS_DATA when the prompt leaves no room in the model's positions. */
enum status generator_run(struct generator *generator, const int32_t *prompt, int n_prompt, uint64_t stream,
                          generate_text_fn *on_text, void *context, struct generated *out, struct error *err);

#endif
