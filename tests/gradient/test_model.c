/* The model as a whole: packing, recomputation and threads change nothing; gradients agree with differences of the loss;
 * decoding agrees with the full pass; what cannot be computed is refused by name; short memory is reported. */
#include "tests/gradient/gradient.h"

#include "common/memory.h"
#include "worker/model/model.h"

static struct model_config config_of(enum model_type type, bool tied)
{
    return (struct model_config){.type = type, .width = 24, .hidden = 40, .layers = 3, .heads = 4, .kv_heads = 2,
                                 .head_dim = 8, .vocab = 50, .max_positions = 512, .norm_eps = 1e-5f, .rope_theta = 1e4,
                                 .rope_factor = 1, .qkv_bias = type == MODEL_QWEN2, .tied = tied, .init_std = 0.2f, .bos = -1};
}

struct fixture {
    struct model_config config;
    struct params table;
    struct threads *pool;
    struct model *model;
    float *values, *gradients;
};

static void fixture_open(struct fixture *f, struct model_config config, int threads, bool checkpointing)
{
    struct error err;
    *f = (struct fixture){.config = config, .pool = pool_of(threads)};
    assert_ok(model_params(&config, &f->table, &err), &err);
    struct model_options options = {.checkpointing = checkpointing};
    assert_ok(model_create(&config, &f->table, &options, f->pool, &f->model, &err), &err);
    f->values = mem_alloc_aligned((size_t)f->table.values, sizeof *f->values);
    f->gradients = mem_alloc_aligned((size_t)f->table.values, sizeof *f->gradients);
    params_initialise(&f->table, 3, f->values);
    for (int i = 0; i < f->table.count; i++) { /* norms and biases away from ones and zeros */
        const struct param *p = &f->table.items[i];
        for (int64_t j = 0; p->n_dims == 1 && j < p->size; j++)
            f->values[p->offset + j] += 0.3f * (float)rng_normal(5, rng_substream(RNG_INIT, (uint64_t)i), (uint64_t)j);
    }
    for (int64_t i = 0; i < f->table.values; i++)
        f->gradients[i] = NAN;
}

static void fixture_close(struct fixture *f)
{
    model_free(f->model);
    mem_free_aligned(f->values);
    mem_free_aligned(f->gradients);
    params_free(&f->table);
    threads_free(f->pool);
}

/* Rows `first` .. `first + count - 1` of a fixed set, each with a prompt, a thought, an answer and an end. */
static struct batch rows_of(int first, int count, int longest)
{
    struct batch batch = {0};
    struct error err;
    for (int r = first; r < first + count; r++) {
        int n = 2 + (int)rng_below(2, RNG_DATA, (uint64_t)r, (uint64_t)longest - 1);
        int32_t *tokens = test_malloc((size_t)n * sizeof *tokens);
        uint8_t *spans = test_malloc((size_t)n);
        for (int i = 0; i < n; i++) {
            tokens[i] = (int32_t)rng_below(9, RNG_DATA, (uint64_t)(r * 1000 + i), 50);
            spans[i] = i == n - 1 ? SPAN_END : i < n / 3 ? SPAN_PROMPT : i < n / 2 ? SPAN_THOUGHT : SPAN_ANSWER;
        }
        struct row row = {.tokens = tokens, .spans = spans, .n_tokens = n, .weight = 0.5f + (float)(r % 3)};
        assert_ok(batch_append(&batch, &row, (const float[SPAN_COUNT]){0, 0.25f, 1, 2}, &err), &err);
        test_free(tokens);
        test_free(spans);
    }
    return batch;
}

static void gradient(struct fixture *f, const struct batch *batch, struct loss_sums *sums)
{
    struct error err;
    assert_ok(model_gradient(f->model, f->values, batch, f->gradients, NULL, NULL, sums, &err), &err);
}

static const struct {
    enum model_type type;
    bool tied;
} kinds[] = {{MODEL_LLAMA, false}, {MODEL_LLAMA, true}, {MODEL_QWEN2, false}, {MODEL_QWEN2, true}};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* Single values move the loss by what the gradient says. The loss is single precision, so the step is large, and the
 * tolerance allows for both rounding and curvature. */
static void differences_of_the_loss(void **state)
{
    (void)state;
    struct error err;
    for (int kind = 0; kind < KINDS; kind++) {
        struct fixture f;
        fixture_open(&f, config_of(kinds[kind].type, kinds[kind].tied), 1, false);
        struct batch batch = rows_of(0, 4, 12);
        struct loss_sums sums, above, below;
        gradient(&f, &batch, &sums);
        for (int i = 0; i < f.table.count; i++) {
            const struct param *p = &f.table.items[i];
            for (int pick = 0; pick < 4; pick++) {
                int64_t at = p->offset + (int64_t)rng_below(4, RNG_DATA, (uint64_t)(i * 4 + pick), (uint64_t)p->size);
                float value = f.values[at];
                const float step = 4e-3f;
                f.values[at] = value + step;
                assert_ok(model_loss(f.model, f.values, &batch, &above, &err), &err);
                f.values[at] = value - step;
                assert_ok(model_loss(f.model, f.values, &batch, &below, &err), &err);
                double width = (double)(value + step) - (double)(value - step);
                f.values[at] = value;
                double wanted = (above.loss - below.loss) / width, error = fabs(wanted - f.gradients[at]);
                if (!(error <= 2e-3 + 2e-3 * fabs(wanted))) {
                    print_error("%s: found %g, wanted %g\n", p->name, (double)f.gradients[at], wanted);
                    fail();
                }
            }
        }
        batch_free(&batch);
        fixture_close(&f);
    }
}

static void packed_is_unpacked(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct fixture all, one;
        fixture_open(&all, config_of(kinds[kind].type, kinds[kind].tied), 2, false);
        fixture_open(&one, all.config, 1, false);
        struct batch batch = rows_of(0, 9, 40);
        struct loss_sums sums, part, total = {0};
        gradient(&all, &batch, &sums);
        double *wanted = test_calloc((size_t)all.table.values, sizeof *wanted);
        for (int r = 0; r < 9; r++) {
            struct batch row = rows_of(r, 1, 40);
            gradient(&one, &row, &part);
            loss_sums_add(&total, &part);
            for (int64_t i = 0; i < all.table.values; i++)
                wanted[i] += one.gradients[i];
            batch_free(&row);
        }
        assert_near("gradient", all.gradients, wanted, (int)all.table.values, 3e-6);
        assert_true(fabs(sums.loss - total.loss) <= 1e-6 * total.loss);
        assert_true(sums.weight == total.weight && sums.correct == total.correct && sums.tokens == total.tokens);
        for (int i = 0; i < SPAN_COUNT; i++) {
            assert_int_equal(sums.span_count[i], total.span_count[i]);
            assert_true(fabs(sums.span_loss[i] - total.span_loss[i]) <= 1e-6 * total.span_loss[i]);
        }
        assert_true(sums.span_count[SPAN_PROMPT] == 0 && sums.span_count[SPAN_THOUGHT] > 0);
        test_free(wanted);
        batch_free(&batch);
        fixture_close(&all);
        fixture_close(&one);
    }
}

/* Bit for bit: threads, recomputation, what was in the scratch before, and the loss without gradient. */
/* The last layer computes only rows with a target: loss and gradients are those of computing all, which targets of no weight
 * ask for. */
static void last_layer_computes_what_is_read(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++)
        for (int checkpointing = 0; checkpointing < 2; checkpointing++) {
            struct fixture f;
            struct loss_sums some, all;
            fixture_open(&f, config_of(kinds[kind].type, kinds[kind].tied), 2, checkpointing);
            struct batch batch = rows_of(20, 5, 90);
            int without = 0;
            for (int i = 0; i < batch.n_tokens; i++)
                without += batch.targets[i] < 0;
            assert_true(without * 10 > batch.n_tokens * 2); /* enough to leave out */
            gradient(&f, &batch, &some);
            float *kept = test_malloc((size_t)f.table.values * sizeof *kept);
            memcpy(kept, f.gradients, (size_t)f.table.values * sizeof *kept);
            for (int i = 0; i < batch.n_tokens; i++)
                if (batch.targets[i] < 0) {
                    batch.targets[i] = 3;
                    batch.weights[i] = 0;
                }
            gradient(&f, &batch, &all);
            assert_true(fabs(some.loss - all.loss) < 1e-5 * all.loss && some.weight == all.weight);
            double *wanted = doubles_of(f.gradients, f.table.values);
            assert_near("gradients", kept, wanted, f.table.values, 1e-5);
            test_free(wanted), test_free(kept);
            batch_free(&batch);
            fixture_close(&f);
        }
}

static void nothing_changes_a_bit(void **state)
{
    (void)state;
    struct error err;
    for (int kind = 0; kind < KINDS; kind++) {
        struct model_config config = config_of(kinds[kind].type, kinds[kind].tied);
        config.width = 160; /* several tiles a product */
        config.hidden = 300;
        config.vocab = 700;
        struct fixture first;
        fixture_open(&first, config, 1, false);
        struct batch batch = rows_of(0, 7, 150), larger = rows_of(20, 9, 170);
        struct loss_sums sums, again;
        gradient(&first, &batch, &sums);
        for (int threads = 1; threads <= 3; threads++)
            for (int checkpointing = 0; checkpointing < 2; checkpointing++)
                for (int round = 0; round < 2; round++) {
                    struct fixture f;
                    fixture_open(&f, config, threads, checkpointing);
                    if (round) { /* another batch went through before */
                        gradient(&f, &larger, &again);
                        assert_ok(model_loss(f.model, f.values, &larger, &again, &err), &err);
                    }
                    gradient(&f, &batch, &again);
                    assert_memory_equal(f.gradients, first.gradients, (size_t)f.table.values * sizeof *f.gradients);
                    assert_memory_equal(&sums, &again, sizeof sums);
                    assert_ok(model_loss(f.model, f.values, &batch, &again, &err), &err);
                    assert_memory_equal(&sums, &again, sizeof sums);
                    fixture_close(&f);
                }
        batch_free(&batch);
        batch_free(&larger);
        fixture_close(&first);
    }
}

/* More supervised tokens than a tile of the head holds (1024 at this vocabulary). */
static void head_tiles_add_up(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, config_of(MODEL_LLAMA, false), 2, false);
    struct batch batch = rows_of(0, 60, 90);
    struct loss_sums sums, part, total = {0};
    gradient(&f, &batch, &sums);
    assert_true(sums.span_count[SPAN_THOUGHT] + sums.span_count[SPAN_ANSWER] + sums.span_count[SPAN_END] > 1100);
    double *wanted = test_calloc((size_t)f.table.values, sizeof *wanted);
    float *whole = test_malloc((size_t)f.table.values * sizeof *whole);
    memcpy(whole, f.gradients, (size_t)f.table.values * sizeof *whole);
    for (int r = 0; r < 60; r += 6) {
        struct batch few = rows_of(r, 6, 90);
        gradient(&f, &few, &part);
        loss_sums_add(&total, &part);
        for (int64_t i = 0; i < f.table.values; i++)
            wanted[i] += f.gradients[i];
        batch_free(&few);
    }
    assert_near("gradient", whole, wanted, (int)f.table.values, 3e-6);
    assert_true(sums.correct == total.correct && fabs(sums.loss - total.loss) <= 1e-6 * total.loss);
    test_free(wanted);
    test_free(whole);
    batch_free(&batch);
    fixture_close(&f);
}

struct ready {
    const struct fixture *f;
    const float *finished; /* gradients of an earlier run */
    int64_t last;
    int calls;
};

/* What is announced has its final value already. */
static void on_ready(void *context, int64_t first)
{
    struct ready *r = context;
    assert_true(first < r->last);
    assert_memory_equal(r->f->gradients + first, r->finished + first, (size_t)(r->last - first) * sizeof(float));
    r->last = first;
    r->calls++;
}

static void gradients_are_ready_when_announced(void **state)
{
    (void)state;
    struct error err;
    for (int kind = 0; kind < KINDS; kind++) {
        struct fixture f;
        fixture_open(&f, config_of(kinds[kind].type, kinds[kind].tied), 2, false);
        struct batch batch = rows_of(0, 3, 20);
        struct loss_sums sums;
        gradient(&f, &batch, &sums);
        size_t bytes = (size_t)f.table.values * sizeof *f.gradients;
        float *finished = test_malloc(bytes);
        memcpy(finished, f.gradients, bytes);
        memset(f.gradients, 0xff, bytes); /* NaN everywhere */
        struct ready ready = {&f, finished, f.table.values, 0};
        assert_ok(model_gradient(f.model, f.values, &batch, f.gradients, on_ready, &ready, &sums, &err), &err);
        assert_true(ready.last == 0);
        assert_int_equal(ready.calls, 2 + f.config.layers);
        test_free(finished);
        batch_free(&batch);
        fixture_close(&f);
    }
}

static void decoding_is_the_full_pass(void **state)
{
    (void)state;
    struct error err;
    const int steps[] = {7, 1, 1, 3, 1, 140, 1, 2};
    for (int rope = ROPE_PLAIN; rope <= ROPE_LLAMA3; rope++) {
        struct model_config config = config_of(rope == ROPE_LINEAR ? MODEL_QWEN2 : MODEL_LLAMA, rope != ROPE_LINEAR);
        config.rope = (enum rope_type)rope;
        config.rope_factor = 4;
        config.rope_low_freq_factor = 1;
        config.rope_high_freq_factor = 4;
        config.rope_original_positions = 64;
        struct fixture f;
        fixture_open(&f, config, 2, false);
        struct batch batch = {0};
        int32_t tokens[160];
        uint8_t spans[160] = {0};
        int n = 0;
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
            n += steps[i];
        for (int i = 0; i < n; i++)
            tokens[i] = (int32_t)rng_below(8, RNG_DATA, (uint64_t)i, 50);
        assert_ok(batch_append(&batch, &(struct row){.tokens = tokens, .spans = spans, .n_tokens = n, .weight = 1}, (const float[SPAN_COUNT]){1, 1, 1, 1}, &err), &err);
        float *all = test_malloc((size_t)n * 50 * sizeof *all), last[50];
        assert_ok(model_logits(f.model, f.values, &batch, all, &err), &err);
        struct kv_cache *cache;
        assert_ok(kv_cache_create(f.model, n, &cache, &err), &err);
        for (int round = 0; round < 2; round++) {
            int at = 0;
            for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
                assert_ok(model_decode(f.model, f.values, cache, tokens + at, steps[i], last, &err), &err);
                at += steps[i];
                assert_int_equal(kv_cache_length(cache), at);
                double *wanted = doubles_of(all + (at - 1) * 50, 50);
                assert_near("logits", last, wanted, 50, 1e-5);
                test_free(wanted);
            }
            assert_refused(model_decode(f.model, f.values, cache, tokens, 1, last, &err), STATUS_USAGE, &err, "positions of the cache");
            kv_cache_reset(cache);
        }
        kv_cache_free(cache);
        test_free(all);
        batch_free(&batch);
        fixture_close(&f);
    }
}

static void nothing_to_learn(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, config_of(MODEL_LLAMA, false), 1, false);
    struct batch batch = rows_of(0, 2, 9);
    for (int i = 0; i < batch.n_tokens; i++)
        batch.targets[i] = -1;
    struct loss_sums sums;
    gradient(&f, &batch, &sums);
    for (int64_t i = 0; i < f.table.values; i++)
        assert_true(f.gradients[i] == 0);
    assert_true(sums.loss == 0 && sums.weight == 0 && sums.tokens == batch.n_tokens);
    batch_clear(&batch);
    gradient(&f, &batch, &sums);
    batch_free(&batch);
    fixture_close(&f);
}

static void bad_input_is_named(void **state)
{
    (void)state;
    struct error err;
    struct fixture f;
    fixture_open(&f, config_of(MODEL_LLAMA, false), 2, false);
    struct batch batch = rows_of(0, 3, 20);
    struct loss_sums sums;
    int32_t token = batch.tokens[4];
    batch.tokens[4] = 50;
    assert_refused(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &sums, &err), STATUS_DATA, &err,
                   "token id 50 at position 4 does not fit the model's vocabulary of 50");
    batch.tokens[4] = token;
    int64_t at = f.table.items[params_find(&f.table, "model.layers.1.mlp.up_proj.weight")].offset + 5;
    float value = f.values[at];
    f.values[at] = NAN;
    assert_refused(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &sums, &err), STATUS_NUMERIC, &err,
                   "'model.layers.1.mlp.up_proj.weight' holds nan at index 5");
    assert_refused(model_loss(f.model, f.values, &batch, &sums, &err), STATUS_NUMERIC, &err, "mlp.up_proj");
    f.values[at] = 3e38f; /* finite, but what follows is not */
    assert_refused(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &sums, &err), STATUS_NUMERIC, &err,
                   "the output of layer 1");
    f.values[at] = value;
    gradient(&f, &batch, &sums);
    assert_true(isfinite(sums.loss));
    /* Weights of tokens that the loss, a double, can take and a gradient cannot. */
    for (int i = 0; i < batch.n_tokens; i++)
        batch.weights[i] *= 3e37f;
    assert_refused(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &sums, &err), STATUS_NUMERIC, &err,
                   "but the gradient of tensor '");
    assert_true(isfinite(sums.loss));

    struct model_config bad = f.config;
    struct params table = {0};
    bad.kv_heads = 3;
    assert_refused(model_params(&bad, &table, &err), STATUS_DATA, &err, "4 attention heads cannot share 3");
    bad = f.config;
    bad.layers = 4;
    struct model *model;
    assert_refused(model_create(&bad, &f.table, &(struct model_options){0}, f.pool, &model, &err), STATUS_INTERNAL, &err,
                   "model.layers.3.input_layernorm.weight");
    batch_free(&batch);
    fixture_close(&f);
}

/* Creates a model, takes a step, and decodes, with the n-th allocation failing; afterwards nothing is left over. */
static enum status whole_life(const struct fixture *f, const struct batch *batch, float *gradients, struct error *err)
{
    struct params table = {0};
    struct model *model = NULL;
    struct kv_cache *cache = NULL;
    struct loss_sums sums;
    float logits[50];
    enum status st;
    TRY_OR(done, st, model_params(&f->config, &table, err));
    TRY_OR(done, st, model_create(&f->config, &table, &(struct model_options){0}, f->pool, &model, err));
    TRY_OR(done, st, model_gradient(model, f->values, batch, gradients, NULL, NULL, &sums, err));
    TRY_OR(done, st, model_loss(model, f->values, batch, &sums, err));
    TRY_OR(done, st, kv_cache_create(model, 300, &cache, err));
    TRY_OR(done, st, model_decode(model, f->values, cache, batch->tokens, 9, logits, err));
done:
    kv_cache_free(cache);
    model_free(model);
    params_free(&table);
    return st;
}

static void short_memory_is_reported(void **state)
{
    (void)state;
    struct error err;
    struct fixture f;
    fixture_open(&f, config_of(MODEL_QWEN2, false), 2, false);
    struct batch batch = rows_of(0, 3, 20);
    long before = mem_live(), n = 0;
    for (;; n++) {
        mem_fail_after(n, false);
        err.text[0] = '\0';
        enum status st = whole_life(&f, &batch, f.gradients, &err);
        mem_fail_after(-1, false);
        assert_int_equal(mem_live(), before);
        if (st == STATUS_OK)
            break;
        assert_int_equal(st, STATUS_NOMEM);
        assert_non_null(strstr(err.text, "no memory"));
    }
    assert_true(n > 60);
    print_message("%ld allocations walked\n", n);

    /* A step that failed for lack of memory can be taken again. */
    struct loss_sums sums;
    gradient(&f, &batch, &sums);
    float *wanted = test_malloc((size_t)f.table.values * sizeof *wanted);
    memcpy(wanted, f.gradients, (size_t)f.table.values * sizeof *wanted);
    struct batch larger = rows_of(0, 30, 60);
    mem_fail_after(0, true);
    assert_int_equal(model_gradient(f.model, f.values, &larger, f.gradients, NULL, NULL, &sums, &err), STATUS_NOMEM);
    mem_fail_after(-1, false);
    gradient(&f, &batch, &sums);
    assert_memory_equal(f.gradients, wanted, (size_t)f.table.values * sizeof *wanted);
    test_free(wanted);
    batch_free(&batch);
    batch_free(&larger);
    fixture_close(&f);
}

static void flops_are_counted(void **state)
{
    (void)state;
    struct model_config config = config_of(MODEL_LLAMA, true);
    struct batch batch = rows_of(0, 1, 2); /* one row of two tokens, the second is its end */
    assert_int_equal(batch.n_tokens, 2);
    double keys = 2 * 24 * 16, rest = 24 * 32 + 32 * 24 + 3 * 24 * 40;
    /* the last layer computes the first token alone, but for its keys and values: the other has no target */
    double wanted = 6 * (3 * 2 * keys + 5 * rest + 24 * 50) + 12 * 32 * (2 * 3 + 1.0);
    assert_true(fabs(model_step_flops(&config, &batch) - wanted) < 0.5);
    batch_free(&batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(differences_of_the_loss),
        cmocka_unit_test(packed_is_unpacked),
        cmocka_unit_test(last_layer_computes_what_is_read),
        cmocka_unit_test(nothing_changes_a_bit),
        cmocka_unit_test(head_tiles_add_up),
        cmocka_unit_test(gradients_are_ready_when_announced),
        cmocka_unit_test(decoding_is_the_full_pass),
        cmocka_unit_test(nothing_to_learn),
        cmocka_unit_test(bad_input_is_named),
        cmocka_unit_test(short_memory_is_reported),
        cmocka_unit_test(flops_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
