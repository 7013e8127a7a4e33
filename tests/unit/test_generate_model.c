/* Generation with a real, small model of random weights: greedy text is what the full pass finds most likely, sampled
 * text depends on seed and stream alone, and short memory anywhere is reported. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "common/rng.h"
#include "worker/data/demo/demo.h"
#include "worker/infer/answer.h"
#include "worker/infer/generate.h"
#include "worker/ops/gemm.h"

static struct tokenizer *tokenizer;
static struct model_config config;
static struct params table;
static float *values;
static struct error err;
static const int32_t prompt[] = {20, 33, 41, 57, 20, 33}, closing[] = {5, 7};

static int open_model(void **state)
{
    (void)state;
    struct text file = {0}, settings = {0};
    assert_ok(gemm_init(&err), &err);
    assert_ok(demo_tokenizer("", 0, 0, &file, &settings, &err), &err);
    assert_ok(tokenizer_load_text(file.data, file.size, settings.data, settings.size, "demo", &tokenizer, &err), &err);
    text_free(&file);
    text_free(&settings);
    config = (struct model_config){.type = MODEL_QWEN2, .width = 24, .hidden = 40, .layers = 2, .heads = 4, .kv_heads = 2,
                                   .head_dim = 8, .vocab = tokenizer_size(tokenizer), .max_positions = 128,
                                   .norm_eps = 1e-5f, .rope_theta = 1e4, .rope_factor = 1, .qkv_bias = true,
                                   .init_std = 0.3f, .bos = -1};
    assert_ok(model_params(&config, &table, &err), &err);
    values = mem_alloc_aligned((size_t)table.values, sizeof *values);
    params_initialise(&table, 3, values);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    mem_free_aligned(values);
    params_free(&table);
    tokenizer_free(tokenizer);
    assert_int_equal(mem_live(), 0);
    return 0;
}

static struct generate_settings one_stage(int max_new_tokens)
{
    return (struct generate_settings){.sampling = {.temperature = 1, .top_p = 1}, .max_new_tokens = max_new_tokens};
}

static enum status run(const struct generate_settings *settings, uint64_t stream, int threads, struct generated *out)
{
    struct threads *pool = NULL;
    struct model *model = NULL;
    struct generator *generator = NULL;
    enum status st;
    TRY_OR(done, st, threads_create(threads, &pool, &err));
    TRY_OR(done, st, model_create(&config, &table, &(struct model_options){0}, pool, &model, &err));
    TRY_OR(done, st, generator_create(model, &config, values, tokenizer, settings, &generator, &err));
    TRY_OR(done, st, generator_run(generator, prompt, sizeof prompt / sizeof *prompt, stream, NULL, NULL, out, &err));
done:
    generator_free(generator);
    model_free(model);
    threads_free(pool);
    return st;
}

/* Appends to ids[*n] the `count` tokens that are chosen from whole passes over everything so far, one pass each. */
static void teacher(int32_t *ids, int *n, int count, const struct sampling *sampling, uint64_t stream)
{
    struct sampler *sampler;
    struct threads *pool;
    struct model *model;
    assert_ok(threads_create(1, &pool, &err), &err);
    assert_ok(model_create(&config, &table, &(struct model_options){0}, pool, &model, &err), &err);
    assert_ok(sampler_create(sampling, config.vocab, &sampler, &err), &err);
    uint8_t spans[200] = {0};
    float *logits = test_malloc(200 * (size_t)config.vocab * sizeof *logits);
    for (int i = 0; i < count; i++) {
        struct batch batch = {0};
        assert_ok(batch_append(&batch, &(struct row){.tokens = ids, .spans = spans, .n_tokens = *n, .weight = 1}, (const float[SPAN_COUNT]){1, 1, 1, 1}, &err), &err);
        assert_ok(model_logits(model, values, &batch, logits, &err), &err);
        batch_free(&batch);
        const float *last = logits + (*n - 1) * config.vocab;
        int32_t best = 0;
        for (int32_t v = 1; v < config.vocab; v++)
            if (last[v] > last[best])
                best = v;
        if (sampling->do_sample)
            assert_ok(sampler_next(sampler, last, stream, (uint64_t)i, &best, &err), &err);
        ids[(*n)++] = best;
    }
    sampler_free(sampler);
    test_free(logits);
    model_free(model);
    threads_free(pool);
}

static void check_text(const struct text *found, const int32_t *ids, int n)
{
    struct text wanted = {0};
    assert_ok(tokenizer_decode(tokenizer, ids, (size_t)n, true, &wanted, &err), &err);
    assert_int_equal(found->size, wanted.size);
    assert_memory_equal(found->data, wanted.data, wanted.size);
    text_free(&wanted);
}

static void greedy_is_the_most_likely_of_the_full_pass(void **state)
{
    (void)state;
    int32_t ids[200];
    int n = sizeof prompt / sizeof *prompt, kinds = 0;
    struct generated out = {0};
    struct generate_settings s = one_stage(60);
    memcpy(ids, prompt, sizeof prompt);
    teacher(ids, &n, 60, &s.sampling, 0);
    for (int i = 1; i < 60; i++)
        kinds += ids[n - i] != ids[n - i - 1];
    assert_true(kinds > 5); /* else there is nothing to get wrong */
    assert_ok(run(&s, 0, 2, &out), &err);
    check_text(&out.answer, ids + 6, 60);
    assert_int_equal(out.answer_tokens, 60);

    /* The same in two stages: thought of 20 tokens, the tag, the prefix, answer of 15. */
    s.two_stage = true;
    s.max_thinking_tokens = 20;
    s.thought_close = "</think>";
    s.close = closing;
    s.n_close = 2;
    s.answer_prefix = "So: ";
    s.max_new_tokens = 15;
    n = 6;
    memcpy(ids, prompt, sizeof prompt);
    teacher(ids, &n, 20, &s.sampling, 0);
    assert_ok(run(&s, 0, 1, &out), &err);
    check_text(&out.thought, ids + 6, 20);
    assert_int_equal(out.status, GENERATE_ANSWER_CUT); /* both were; the answer is what counts */
    memcpy(ids + n, closing, sizeof closing);
    n += 2;
    struct token_list prefix = {0};
    assert_ok(tokenizer_encode(tokenizer, "So: ", 4, 0, &prefix, &err), &err);
    memcpy(ids + n, prefix.ids, prefix.count * sizeof *ids);
    n += (int)prefix.count;
    token_list_free(&prefix);
    int first = n;
    teacher(ids, &n, 15, &s.sampling, 0);
    check_text(&out.answer, ids + first, 15);
    generated_free(&out);
}

static bool same(const struct generated *a, const struct generated *b)
{
    return a->answer.size == b->answer.size && !memcmp(a->answer.data, b->answer.data, a->answer.size);
}

static void seed_and_stream_decide(void **state)
{
    (void)state;
    struct generate_settings s = one_stage(40);
    struct generated first = {0}, other = {0};
    s.sampling.do_sample = true;
    s.sampling.temperature = 1.5;
    s.sampling.seed = 9;
    assert_ok(run(&s, 4, 1, &first), &err);
    int32_t ids[200];
    int n = sizeof prompt / sizeof *prompt;
    memcpy(ids, prompt, sizeof prompt);
    teacher(ids, &n, 40, &s.sampling, 4);
    check_text(&first.answer, ids + 6, 40);
    for (int threads = 1; threads <= 3; threads++) {
        assert_ok(run(&s, 4, threads, &other), &err);
        assert_true(same(&first, &other));
    }
    assert_ok(run(&s, 5, 1, &other), &err);
    assert_false(same(&first, &other));
    s.sampling.seed = 10;
    assert_ok(run(&s, 4, 1, &other), &err);
    assert_false(same(&first, &other));
    generated_free(&first);
    generated_free(&other);
}

static void repetition_can_be_ruled_out(void **state)
{
    (void)state;
    struct generate_settings s = one_stage(60);
    struct generated plain = {0}, varied = {0};
    bool twice[256] = {false};
    assert_ok(run(&s, 0, 1, &plain), &err);
    s.sampling.repetition_penalty = 1;
    assert_ok(run(&s, 0, 1, &varied), &err);
    assert_true(same(&plain, &varied));
    s.sampling.repetition_penalty = 1e6; /* a token per byte: no byte comes twice, those of the prompt not at all */
    assert_ok(run(&s, 0, 1, &varied), &err);
    assert_false(same(&plain, &varied));
    for (size_t i = 0; i < sizeof prompt / sizeof *prompt; i++) {
        struct text byte = {0};
        assert_ok(tokenizer_decode(tokenizer, &prompt[i], 1, true, &byte, &err), &err);
        twice[(unsigned char)byte.data[0]] = true;
        text_free(&byte);
    }
    for (size_t i = 0; i < varied.answer.size; i++)
        if ((unsigned char)varied.answer.data[i] < 0x80) { /* others may be U+FFFD */
            assert_false(twice[(unsigned char)varied.answer.data[i]]);
            twice[(unsigned char)varied.answer.data[i]] = true;
        }
    assert_true(varied.answer.size > 20);
    generated_free(&plain);
    generated_free(&varied);
}

/* Answers depend on their own row and number, whatever was answered before and by whom. */
static void rows_are_independent(void **state)
{
    (void)state;
    struct generate_settings s = one_stage(20);
    struct threads *pool;
    struct model *model;
    struct answerer *answerer;
    struct answer answers[2][6] = {0};
    s.sampling.do_sample = true;
    s.sampling.temperature = 1.5;
    s.self_consistency = 3;
    assert_ok(threads_create(1, &pool, &err), &err);
    for (int order = 0; order < 2; order++) {
        assert_ok(model_create(&config, &table, &(struct model_options){0}, pool, &model, &err), &err);
        assert_ok(answer_create(model, &config, values, tokenizer, &s, &answerer, &err), &err);
        for (int i = 0; i < 6; i++) {
            int k = order ? 5 - i : i, n = 8 + k % 3 * 20;
            int32_t tokens[60];
            uint8_t spans[60] = {0};
            for (int t = 0; t < n; t++)
                tokens[t] = 20 + (t * 7 + n) % 50;
            spans[n - 2] = SPAN_ANSWER;
            spans[n - 1] = SPAN_END;
            assert_ok(answer_row(answerer, &(struct row){.tokens = tokens, .spans = spans, .n_tokens = n}, (uint64_t)k, &answers[order][k],
                                 &err), &err);
        }
        answer_free(answerer);
        model_free(model);
    }
    for (int k = 0; k < 6; k++) {
        assert_int_equal(answers[0][k].score.rows, 1);
        assert_true(answers[0][k].generated.answer.size > 0 && same(&answers[0][k].generated, &answers[1][k].generated));
        assert_int_equal(answers[0][k].votes.samples, 3);
    }
    assert_false(same(&answers[0][0].generated, &answers[0][3].generated)); /* the same prompt, but another row */
    for (int k = 0; k < 12; k++)
        answer_clear(&answers[k / 6][k % 6]);
    threads_free(pool);
}

/* Says stop at call *context, and from then on. */
static bool stop_at_zero(void *context)
{
    int *left = context;
    *left -= *left > 0;
    return !*left;
}

static void a_generation_stops_when_asked_to(void **state)
{
    (void)state;
    struct threads *pool;
    struct model *model;
    struct generator *generator;
    struct generated whole = {0}, part = {0};
    struct generate_settings s = one_stage(30);
    s.two_stage = true;
    s.max_thinking_tokens = 20;
    s.thought_close = "</think>";
    s.close = closing;
    s.n_close = 2;
    assert_ok(threads_create(1, &pool, &err), &err);
    assert_ok(model_create(&config, &table, &(struct model_options){0}, pool, &model, &err), &err);
    assert_ok(generator_create(model, &config, values, tokenizer, &s, &generator, &err), &err);
    assert_ok(generator_run(generator, prompt, 6, 0, NULL, NULL, &whole, &err), &err);
    assert_int_equal(whole.thought_tokens, 20);
    assert_true(whole.answer_tokens > 10);

    int left = 8; /* in the thought: no answer follows */
    generator_set_stop(generator, stop_at_zero, &left);
    assert_ok(generator_run(generator, prompt, 6, 0, NULL, NULL, &part, &err), &err);
    assert_int_equal(part.thought_tokens, 7);
    assert_int_equal(part.answer_tokens, 0);
    assert_int_equal(part.status, GENERATE_NO_ANSWER);
    assert_memory_equal(part.thought.data, whole.thought.data, part.thought.size - 3); /* a character may be cut */

    left = 20 + 6; /* in the answer: what there is stays, and counts as cut */
    assert_ok(generator_run(generator, prompt, 6, 0, NULL, NULL, &part, &err), &err);
    assert_int_equal(part.thought_tokens, 20);
    assert_int_equal(part.answer_tokens, 5);
    assert_int_equal(part.status, GENERATE_ANSWER_CUT);

    generator_set_stop(generator, NULL, NULL);
    assert_ok(generator_run(generator, prompt, 6, 0, NULL, NULL, &part, &err), &err);
    assert_true(same(&whole, &part));
    generated_free(&whole);
    generated_free(&part);
    generator_free(generator);
    model_free(model);
    threads_free(pool);
}

static void short_memory_is_reported(void **state)
{
    (void)state;
    struct generate_settings s = one_stage(12);
    long before = mem_live(), n = 0;
    s.two_stage = true;
    s.max_thinking_tokens = 10;
    s.thought_close = "</think>";
    s.close = closing;
    s.n_close = 2;
    s.answer_prefix = "So: ";
    s.sampling.do_sample = true;
    for (;; n++) {
        struct generated out = {0};
        mem_fail_after(n, false);
        err.text[0] = '\0';
        enum status st = run(&s, 0, 2, &out);
        mem_fail_after(-1, false);
        generated_free(&out);
        assert_int_equal(mem_live(), before);
        if (st == STATUS_OK)
            break;
        assert_int_equal(st, STATUS_NOMEM);
        assert_non_null(strstr(err.text, "memory"));
    }
    assert_true(n > 40);
    print_message("%ld allocations walked\n", n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_is_the_most_likely_of_the_full_pass),
        cmocka_unit_test(seed_and_stream_decide),
        cmocka_unit_test(a_generation_stops_when_asked_to),
        cmocka_unit_test(repetition_can_be_ruled_out),
        cmocka_unit_test(rows_are_independent),
        cmocka_unit_test(short_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
