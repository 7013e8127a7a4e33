#include "worker/infer/sample.h"

#include <math.h>
#include <stdlib.h>

#include "common/memory.h"
#include "common/rng.h"

struct candidate {
    float logit;
    int32_t token;
};

struct sampler {
    struct sampling settings;
    int64_t vocab;
    struct candidate *candidates; /* [vocab] */
};

void sample_penalise(float *logits, const uint8_t *seen, int64_t vocab, double penalty)
{
    for (int64_t i = 0; i < vocab && penalty != 1; i++)
        if (seen[i])
            logits[i] = (float)(logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty);
}

enum status sampler_create(const struct sampling *settings, int64_t vocab, struct sampler **out, struct error *err)
{
    struct sampler *sampler = mem_alloc(1, sizeof *sampler);
    if (sampler)
        sampler->candidates = mem_alloc((size_t)vocab, sizeof *sampler->candidates);
    if (!sampler || !sampler->candidates) {
        mem_free(sampler);
        FAIL(err, STATUS_NOMEM, "no memory to sample from %lld tokens", (long long)vocab);
    }
    sampler->settings = *settings;
    sampler->vocab = vocab;
    *out = sampler;
    return STATUS_OK;
}

void sampler_free(struct sampler *sampler)
{
    if (!sampler)
        return;
    mem_free(sampler->candidates);
    mem_free(sampler);
}

/* Most likely first, the lower id on ties: a total order, so that the result is unique. */
static int by_likelihood(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

static void sift_down(struct candidate *heap, int64_t size, int64_t at)
{
    for (int64_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && by_likelihood(&heap[child + 1], &heap[child]) > 0)
            child++;
        if (by_likelihood(&heap[at], &heap[child]) >= 0)
            return;
        struct candidate swapped = heap[at];
        heap[at] = heap[child];
        heap[child] = swapped;
    }
}

/* Moves the k most likely to the front, unordered: a heap of k with the least likely on top. */
static void select_top(struct candidate *all, int64_t n, int64_t k)
{
    for (int64_t i = k / 2; i-- > 0;)
        sift_down(all, k, i);
    for (int64_t i = k; i < n; i++)
        if (by_likelihood(&all[i], &all[0]) < 0) {
            struct candidate swapped = all[0];
            all[0] = all[i];
            all[i] = swapped;
            sift_down(all, k, 0);
        }
}

static int32_t draw(struct sampler *sampler, int64_t n, uint64_t stream, uint64_t position)
{
    struct candidate *c = sampler->candidates;
    double largest = c[0].logit, total = 0;
    for (int64_t i = 0; i < n; i++)
        total += exp((c[i].logit - largest) / sampler->settings.temperature);
    if (sampler->settings.top_p < 1) {
        double kept = 0;
        int64_t i = 0;
        while (i < n && kept < sampler->settings.top_p * total)
            kept += exp((c[i++].logit - largest) / sampler->settings.temperature);
        n = i > 0 ? i : 1;
        total = kept;
    }
    double left = rng_uniform(sampler->settings.seed, rng_substream(RNG_SAMPLE, stream), position) * total;
    for (int64_t i = 0; i < n; i++) {
        left -= exp((c[i].logit - largest) / sampler->settings.temperature);
        if (left < 0)
            return c[i].token;
    }
    return c[n - 1].token; /* only rounding leads here */
}

enum status sampler_next(struct sampler *sampler, const float *logits, uint64_t stream, uint64_t position, int32_t *token,
                         struct error *err)
{
    int64_t best = 0;
    for (int64_t i = 0; i < sampler->vocab; i++) {
        if (isnan(logits[i]))
            FAIL(err, STATUS_NUMERIC, "the logit of token %lld is not a number at position %llu", (long long)i,
                 (unsigned long long)position);
        if (logits[i] > logits[best])
            best = i;
    }
    if (!sampler->settings.do_sample) {
        *token = (int32_t)best;
        return STATUS_OK;
    }
    int64_t n = sampler->vocab;
    for (int64_t i = 0; i < n; i++)
        sampler->candidates[i] = (struct candidate){logits[i], (int32_t)i};
    if (sampler->settings.top_k > 0 && sampler->settings.top_k < n) {
        select_top(sampler->candidates, n, sampler->settings.top_k);
        n = sampler->settings.top_k;
    }
    qsort(sampler->candidates, (size_t)n, sizeof *sampler->candidates, by_likelihood);
    *token = draw(sampler, n, stream, position);
    return STATUS_OK;
}
