/* The next token from logits: greedy, or sampled after temperature, top-k and top-p. A pure function of the
 * logits, the settings and (seed, position), so that a generation can be repeated anywhere.
 * Must not know: models, tokens' texts. */
#ifndef WORKER_INFER_SAMPLE_H
#define WORKER_INFER_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

struct sampling {
    bool do_sample;     /* false: the most likely token, the lowest id on ties */
    double temperature; /* > 0; logits are divided by it */
    int top_k;          /* keep the k most likely; 0: all */
    double top_p;       /* then the smallest set whose probabilities reach p; 1: all */
    double repetition_penalty; /* see sample_penalise, which the caller calls; 0: none */
    uint64_t seed;
};

/* Makes tokens less likely that are there already: logits above 0 are divided by the penalty, others multiplied by it
 * (Keskar et al., "CTRL", 2019, as Hugging Face does it). logits: [vocab]; seen: [vocab], 0 or 1. Penalty 1: nothing. */
void sample_penalise(float *logits, const uint8_t *seen, int64_t vocab, double penalty);

struct sampler;
enum status sampler_create(const struct sampling *settings, int64_t vocab, struct sampler **out, struct error *err);
void sampler_free(struct sampler *sampler);
/* logits: [vocab]. `position` counts the tokens of one generation; `stream` tells generations apart.
 * STATUS_NUMERIC when a logit is not a number. */
enum status sampler_next(struct sampler *sampler, const float *logits, uint64_t stream, uint64_t position, int32_t *token,
                         struct error *err);

#endif
