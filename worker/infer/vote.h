/* The answer that most of several samples agree on: self-consistency (Wang et al., "Self-consistency improves chain of thought
 * reasoning in language models", 2023).
 * Must not know: where prompts come from, expected answers. */
#ifndef WORKER_INFER_VOTE_H
#define WORKER_INFER_VOTE_H

#include <stdint.h>

#include "common/status.h"
#include "common/text.h"
#include "worker/infer/generate.h"

struct candidate_answer {
    struct text answer; /* as the first sample that gave it spelt it */
    struct generated first; /* that sample; empty once it was handed out */
    int votes;
};

/* Start with {0}. */
struct votes {
    struct candidate_answer *items; /* [count] in the order they came up */
    int count, capacity;
    int samples; /* those without a finished answer vote for nothing */
    int winner;  /* in items; -1: no sample had a finished answer */
};
void votes_free(struct votes *votes);
void votes_reset(struct votes *votes); /* no votes; keeps the memory */

int votes_of_winner(const struct votes *votes); /* 0: there is none */
/* Share of the winner's votes in all samples, 0..1. */
double votes_share(const struct votes *votes);

/* Generates settings->self_consistency samples and keeps in `out` the first one of those whose answer won: the most frequent by
 * score_same, the earliest on ties. Without any finished answer that is the first sample. Sample 0 is what generator_run
 * gives for the same stream, which must be below 2^40. With one sample nobody votes, and on_text is called. */
enum status vote_run(struct generator *generator, const struct generate_settings *settings, const int32_t *prompt, int n_prompt,
                     uint64_t stream, generate_text_fn *on_text, void *context, struct generated *out, struct votes *votes,
                     struct error *err);

/* Appends "votes 3 of 5; '42' 3, '41' 1, no answer 1". */
void votes_put(const struct votes *votes, struct text *out);

#endif
