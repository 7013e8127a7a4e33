/* Text from a model: one stage, or thought and answer apart. Stage one writes the thought until its closing tag or its
 * limit; stage two puts the tag there if the model did not, then the answer prefix, and writes the answer.
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
    const char *thought_open;   /* tag that the model writes before a thought, to be left out of it; NULL: the prompt holds it */
    const char *thought_close;  /* the tag that ends a thought, such as "</think>" */
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

/* Continues the prompt. `stream` keeps the random numbers of several generations apart. on_text may be NULL. The texts of
 * `out` are replaced. STATUS_DATA when the prompt leaves no room in the model's positions. */
enum status generator_run(struct generator *generator, const int32_t *prompt, int n_prompt, uint64_t stream,
                          generate_text_fn *on_text, void *context, struct generated *out, struct error *err);

#endif
