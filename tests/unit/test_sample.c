/* Sampling: greedy ties, top-k and top-p sets, frequencies, repeatability. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/memory.h"
#include "worker/infer/sample.h"

enum { VOCAB = 50 };

static void fill(float logits[VOCAB])
{
    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)((i * 37) % VOCAB) * 0.1f;
}

static void counts_of(const struct sampling *settings, const float *logits, int draws, int counts[VOCAB])
{
    struct error err;
    struct sampler *sampler;
    memset(counts, 0, VOCAB * sizeof *counts);
    assert_ok(sampler_create(settings, VOCAB, &sampler, &err), &err);
    for (int i = 0; i < draws; i++) {
        int32_t token, again;
        assert_ok(sampler_next(sampler, logits, 3, (uint64_t)i, &token, &err), &err);
        assert_ok(sampler_next(sampler, logits, 3, (uint64_t)i, &again, &err), &err);
        assert_int_equal(token, again);
        counts[token]++;
    }
    sampler_free(sampler);
}

static void greedy_takes_the_first_of_equals(void **state)
{
    (void)state;
    float logits[VOCAB] = {0};
    int counts[VOCAB];
    logits[7] = logits[9] = 2;
    counts_of(&(struct sampling){.temperature = 1, .top_p = 1}, logits, 3, counts);
    assert_int_equal(counts[7], 3);
}

static void top_k_keeps_the_k_best(void **state)
{
    (void)state;
    float logits[VOCAB];
    int counts[VOCAB];
    fill(logits);
    counts_of(&(struct sampling){.do_sample = true, .temperature = 5, .top_k = 4, .top_p = 1, .seed = 2}, logits, 2000, counts);
    for (int i = 0; i < VOCAB; i++)
        assert_true((counts[i] > 0) == (logits[i] > 4.55f));
}

static void frequencies_follow_the_softmax(void **state)
{
    (void)state;
    float logits[VOCAB];
    int counts[VOCAB];
    fill(logits);
    double total = 0;
    for (int i = 0; i < VOCAB; i++)
        total += exp(logits[i] / 0.8);
    counts_of(&(struct sampling){.do_sample = true, .temperature = 0.8, .top_p = 1, .seed = 5}, logits, 40000, counts);
    for (int i = 0; i < VOCAB; i++)
        assert_true(fabs(counts[i] / 40000.0 - exp(logits[i] / 0.8) / total) < 0.01);
}

static void top_p_keeps_the_smallest_set(void **state)
{
    (void)state;
    float logits[VOCAB];
    int counts[VOCAB], kinds = 0;
    for (int i = 0; i < VOCAB; i++)
        logits[i] = -100;
    logits[3] = logf(0.5f);
    logits[4] = logf(0.3f);
    logits[5] = logf(0.2f);
    counts_of(&(struct sampling){.do_sample = true, .temperature = 1, .top_p = 0.79, .seed = 5}, logits, 4000, counts);
    for (int i = 0; i < VOCAB; i++)
        kinds += counts[i] > 0;
    assert_int_equal(kinds, 2);
    assert_true(fabs(counts[3] / 4000.0 - 0.625) < 0.03);
}

static void not_a_number_is_an_error(void **state)
{
    (void)state;
    struct error err;
    struct sampler *sampler;
    float logits[VOCAB] = {0};
    int32_t token;
    logits[49] = NAN;
    assert_ok(sampler_create(&(struct sampling){.temperature = 1}, VOCAB, &sampler, &err), &err);
    assert_refused(sampler_next(sampler, logits, 0, 12, &token, &err), STATUS_NUMERIC, &err, "token 49");
    sampler_free(sampler);
}

static void what_was_seen_becomes_less_likely(void **state)
{
    (void)state;
    float logits[] = {3, 3, -1, -1, 0};
    const uint8_t seen[] = {1, 0, 1, 0, 1};
    sample_penalise(logits, seen, 5, 1.5);
    const float wanted[] = {2, 3, -1.5f, -1, 0};
    assert_memory_equal(logits, wanted, sizeof wanted);
    sample_penalise(logits, seen, 5, 1);
    assert_memory_equal(logits, wanted, sizeof wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_of_equals), cmocka_unit_test(top_k_keeps_the_k_best),
        cmocka_unit_test(frequencies_follow_the_softmax),   cmocka_unit_test(top_p_keeps_the_smallest_set),
        cmocka_unit_test(not_a_number_is_an_error),         cmocka_unit_test(what_was_seen_becomes_less_likely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
