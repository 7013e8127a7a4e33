/* The model with attention routing: no token looks ahead, decoding decides as the full pass does, gradients agree with
 * differences of the loss, all heads on is the dense model to the bit, threads and recomputation change nothing. */
#include "tests/gradient/gradient.h"

#include "common/memory.h"
#include "worker/model/model.h"

enum { LAYERS = 4, HEADS = 4, VOCAB = 40 };

static const struct loar_layer layers[LAYERS] = {
    {true, 0, 0, 0.5}, {true, 70, 8, 0.5}, {false, 64, 0, 1}, {true, 0, 0, 0.75}};

struct fixture {
    struct loar_plan plan;
    struct model_config config;
    struct params table;
    struct threads *pool;
    struct model *model;
    float *values, *gradients;
};

static int kv_heads = 2; /* of the models to come */

static struct loar_config routing(enum loar_policy policy, enum loar_feature feature, enum loar_granularity granularity)
{
    struct loar_config c = LOAR_CONFIG_DEFAULT;
    c.policy = policy;
    c.feature = feature;
    c.granularity = granularity;
    c.router_dim = 12;
    c.n_tasks = 2;
    c.c = 1.0;
    c.n_always_on = 1;
    c.always_on[0] = 2;
    return c;
}

static void fixture_open_with(struct fixture *f, const struct loar_config *routing, const struct loar_layer *which, int threads,
                              bool checkpointing, bool base_frozen)
{
    struct error err;
    *f = (struct fixture){.pool = pool_of(threads)};
    if (routing)
        f->plan = (struct loar_plan){*routing, which};
    f->config = (struct model_config){.type = MODEL_QWEN2, .width = 24, .hidden = 40, .layers = LAYERS, .heads = HEADS,
                                      .kv_heads = kv_heads, .head_dim = 8, .vocab = VOCAB, .max_positions = 512, .norm_eps = 1e-5f,
                                      .rope_theta = 1e4, .rope_factor = 1, .qkv_bias = true, .init_std = 0.2f, .bos = -1,
                                      .loar = routing ? &f->plan : NULL, .training.kind = base_frozen ? TRAIN_ROUTERS : TRAIN_ALL};
    assert_ok(model_params(&f->config, &f->table, &err), &err);
    assert_ok(model_create(&f->config, &f->table, &(struct model_options){.checkpointing = checkpointing}, f->pool, &f->model, &err),
              &err);
    f->values = mem_alloc_aligned((size_t)params_room(&f->table), sizeof *f->values);
    f->gradients = mem_alloc_aligned((size_t)f->table.values, sizeof *f->gradients);
    for (int i = 0; i < f->table.count; i++)
        param_initialise(&f->table.items[i], 3, f->values + params_place(&f->table, i));
    for (int i = 0; i < f->table.count; i++) { /* routers that tell heads apart */
        const struct param *p = &f->table.items[i];
        bool last = strstr(p->name, "router.fc2") || strstr(p->name, "task_bias"), average = strstr(p->name, "state.average") != NULL;
        for (int64_t j = 0; (last || average) && j < p->size; j++)
            f->values[p->offset + j] = (average ? 0.2f : 1.0f) * (float)rng_normal(5, rng_substream(RNG_INIT, (uint64_t)i), (uint64_t)j);
    }
}

static void fixture_open(struct fixture *f, const struct loar_config *routing, int threads, bool checkpointing)
{
    fixture_open_with(f, routing, layers, threads, checkpointing, false);
}

static void fixture_close(struct fixture *f)
{
    model_free(f->model);
    mem_free_aligned(f->values);
    mem_free_aligned(f->gradients);
    params_free(&f->table);
    threads_free(f->pool);
}

static int32_t token(int row, int i)
{
    return (int32_t)rng_below(9, RNG_DATA, (uint64_t)(row * 1000 + i), VOCAB);
}

static void append(struct batch *batch, int row, int n, int task)
{
    struct error err;
    int32_t tokens[512];
    uint8_t spans[512];
    for (int i = 0; i < n; i++) {
        tokens[i] = token(row, i);
        spans[i] = i < n / 3 ? SPAN_PROMPT : SPAN_ANSWER;
    }
    assert_ok(batch_append(batch, &(struct row){.tokens = tokens, .spans = spans, .n_tokens = n, .task = task, .weight = 1}, (const float[SPAN_COUNT]){0, 1, 1, 1}, &err), &err);
}

static struct batch rows(void)
{
    struct batch batch = {0};
    append(&batch, 1, 90, 0);
    append(&batch, 2, 20, 1);
    append(&batch, 3, 140, 1);
    return batch;
}

/* Every policy, feature and granularity that fit. */
typedef void each_fn(const struct loar_config *c);
static void for_each(each_fn *run)
{
    for (int policy = 0; policy < LOAR_N_POLICIES; policy++)
        for (int feature = 0; feature < LOAR_N_FEATURES; feature++)
            for (int granularity = 0; granularity < LOAR_N_GRANULARITIES; granularity++) {
                bool whole = feature == LOAR_PROMPT_MEAN || feature == LOAR_SEQ_MEAN;
                if (whole != (granularity == LOAR_BY_SEQUENCE))
                    continue;
                for (int soft = 0; soft < 2; soft++) {
                    struct loar_config c = routing((enum loar_policy)policy, (enum loar_feature)feature,
                                                   (enum loar_granularity)granularity);
                    c.gate = soft ? LOAR_SOFT : LOAR_HARD;
                    run(&c);
                }
            }
}

static int different; /* configurations whose heads do not all run */

static void look_ahead(const struct loar_config *c)
{
    /* In the middle of a block; early, where the leak is looked for, so that much of the mean changes. */
    const int at = c->feature == LOAR_SEQ_MEAN ? 20 : 100;
    struct fixture f;
    struct error err;
    fixture_open(&f, c, 2, false);
    struct batch batch = {0};
    append(&batch, 4, 150, 0);
    float *before = test_malloc(150 * VOCAB * sizeof *before), *after = test_malloc(150 * VOCAB * sizeof *after);
    assert_ok(model_logits(f.model, f.values, &batch, before, &err), &err);
    for (int i = at + 1; i < 150; i++)
        batch.tokens[i] = 7;
    assert_ok(model_logits(f.model, f.values, &batch, after, &err), &err);
    bool same = !memcmp(before, after, (at + 1) * VOCAB * sizeof *before);
    if (c->feature == LOAR_SEQ_MEAN)
        different += !same;
    else
        assert_true(same);
    assert_true(memcmp(before + 120 * VOCAB, after + 120 * VOCAB, VOCAB * sizeof *before));
    test_free(before), test_free(after);
    batch_free(&batch);
    fixture_close(&f);
}

static void no_token_looks_ahead(void **state)
{
    (void)state;
    different = 0;
    for_each(look_ahead);
    /* The leak shows wherever it can: `article` may run all heads for both texts. */
    print_message("%d of %d configurations leak\n", different, 2 * LOAR_N_POLICIES);
    assert_true(different >= 9);
}

static void decode(const struct loar_config *c)
{
    const int pieces[] = {37, 1, 1, 30, 1, 1, 60, 1, 1, 3};
    if (c->feature == LOAR_SEQ_MEAN)
        return;
    struct fixture f;
    struct error err;
    fixture_open(&f, c, 2, false);
    struct batch batch = {0};
    append(&batch, 5, 136, 1);
    for (int i = 0; i < 36; i++) /* the first piece is the prompt */
        batch.target_spans[i] = SPAN_PROMPT;
    for (int i = 36; i < 136; i++)
        batch.target_spans[i] = SPAN_ANSWER;
    float *all = test_malloc(136 * VOCAB * sizeof *all), last[VOCAB];
    assert_ok(model_logits(f.model, f.values, &batch, all, &err), &err);
    struct kv_cache *cache;
    assert_ok(kv_cache_create(f.model, 136, &cache, &err), &err);
    for (int round = 0; round < 2; round++) {
        int at = 0;
        kv_cache_set_task(cache, 37, 1);
        for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
            assert_ok(model_decode(f.model, f.values, cache, batch.tokens + at, pieces[i], last, &err), &err);
            at += pieces[i];
            double *wanted = doubles_of(all + (at - 1) * VOCAB, VOCAB);
            assert_near("logits", last, wanted, VOCAB, 1e-5);
            test_free(wanted);
        }
        assert_int_equal(at, 136);
        kv_cache_reset(cache);
    }
    kv_cache_free(cache);
    test_free(all);
    batch_free(&batch);
    fixture_close(&f);
}

static void decoding_decides_as_the_full_pass(void **state)
{
    (void)state;
    for_each(decode);
}

/* Layers with a window forget keys; what they still hold is enough. */
static void caches_forget_what_no_token_sees(void **state)
{
    (void)state;
    enum { LENGTH = 500 };
    const int pieces[] = {310, 1, 1, 30, 1, 80, 1, 1, 70, 1, 4};
    const enum loar_granularity granularities[] = {LOAR_BY_TOKEN, LOAR_BY_BLOCK};
    for (int i = 0; i < 2; i++) {
        struct loar_config c = routing(LOAR_POLICY_quantile, LOAR_EMA, granularities[i]);
        struct fixture f;
        struct error err;
        fixture_open(&f, &c, 2, false);
        struct batch batch = {0};
        append(&batch, 6, LENGTH, 0);
        float *all = test_malloc(LENGTH * VOCAB * sizeof *all), last[VOCAB];
        assert_ok(model_logits(f.model, f.values, &batch, all, &err), &err);
        struct kv_cache *cache;
        assert_ok(kv_cache_create(f.model, LENGTH, &cache, &err), &err);
        /* two layers keep everything; the others sinks, window - 1 and a piece of 256 */
        assert_int_equal(kv_cache_bytes(cache), 2 * (2 * LENGTH + (8 + 69 + 256) + (63 + 256)) * 2 * 8 * sizeof(float));
        for (int round = 0; round < 2; round++) {
            int at = 0;
            for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
                assert_ok(model_decode(f.model, f.values, cache, batch.tokens + at, pieces[k], last, &err), &err);
                at += pieces[k];
                double *wanted = doubles_of(all + (at - 1) * VOCAB, VOCAB);
                assert_near("logits", last, wanted, VOCAB, 1e-5);
                test_free(wanted);
            }
            assert_int_equal(at, LENGTH);
            kv_cache_reset(cache);
        }
        kv_cache_free(cache);
        test_free(all);
        batch_free(&batch);
        fixture_close(&f);
    }
}

/* One feature per granularity, where what the router looks at makes no difference. */
static bool is_usual(const struct loar_config *c)
{
    return c->feature == (c->granularity == LOAR_BY_TOKEN ? LOAR_TOKEN : c->granularity == LOAR_BY_BLOCK ? LOAR_PREFIX_MEAN : LOAR_PROMPT_MEAN);
}

/* With choices and gates held, the loss is smooth in all weights but the router's. Soft gates: it is smooth in the last
 * router, too, whose gradient is exact for the heads that run; what comes before also moves its features, which the
 * gradient leaves out on purpose. */
static void differences(const struct loar_config *config)
{
    struct loar_config c = *config;
    if (!is_usual(&c))
        return;
    c.stand_in = LOAR_NORMALISER;
    struct fixture f;
    struct error err;
    fixture_open(&f, &c, 1, false);
    struct batch batch = rows();
    struct loss_sums sums, above, below;
    assert_ok(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &sums, &err), &err);
    for (int i = 0; i < f.table.count; i++) {
        const struct param *p = &f.table.items[i];
        bool router = strstr(p->name, "loar.") != NULL;
        if (!router && (i + (int)c.policy + (int)c.gate) % 4)
            continue; /* each tensor with some policies, each policy with some tensors */
        if (router && (c.gate == LOAR_HARD || c.granularity == LOAR_BY_TOKEN || !strstr(p->name, "loar.layers.3.router")))
            continue; /* of so many decisions by token, some are always about to turn over */
        model_keep_routing(f.model, !router);
        int wrong = 0;
        for (int pick = 0; pick < (router ? 3 : 1); pick++) {
            int64_t at = p->offset + (int64_t)rng_below(4, RNG_DATA, (uint64_t)(i * 4 + pick), (uint64_t)p->size);
            float value = f.values[at];
            const float step = 1e-3f;
            f.values[at] = value + step;
            assert_ok(model_loss(f.model, f.values, &batch, &above, &err), &err);
            f.values[at] = value - step;
            assert_ok(model_loss(f.model, f.values, &batch, &below, &err), &err);
            double width = (double)(value + step) - (double)(value - step), wanted = (above.loss - below.loss) / width;
            f.values[at] = value;
            double error = fabs(wanted - f.gradients[at]);
            if (!(error <= 2e-2 + 4e-3 * fabs(wanted))) {
                wrong++;
                print_message("%s, %s, %s: %s: found %g, wanted %g\n", loar_policy_names[c.policy], loar_feature_names[c.feature],
                              loar_granularity_names[c.granularity], p->name, (double)f.gradients[at], wanted);
            }
        }
        /* A router's step may turn a head on or off somewhere. */
        assert_true(wrong <= router);
    }
    batch_free(&batch);
    fixture_close(&f);
}

static void gradients_are_differences(void **state)
{
    (void)state;
    for_each(differences);
}

/* With a key head per query head, keys and values that nobody reads are left out: gradients are still differences of the loss,
 * and decoding, which computes them all, agrees. */
static void unread_keys_are_left_out(void **state)
{
    (void)state;
    kv_heads = HEADS;
    for (int policy = 0; policy < LOAR_N_POLICIES; policy++) {
        struct loar_config c = routing((enum loar_policy)policy, LOAR_PROMPT_MEAN, LOAR_BY_SEQUENCE);
        differences(&c);
        c.gate = LOAR_SOFT;
        differences(&c);
        decode(&c);
    }
    kv_heads = 2;
}

/* Before the schedule lets routing in, losses and gradients are the dense model's to the bit. */
static void all_heads_on_is_dense(const struct loar_config *c)
{
    struct fixture dense, routed;
    struct error err;
    if (!is_usual(c))
        return;
    const struct loar_schedule schedule = {100, 10, 0.25, 0.1, false};
    static const struct loar_layer open[LAYERS] = {{true, 0, 0, 0.5}, {true, 0, 0, 0.5}, {false, 0, 0, 1}, {true, 0, 0, 0.5}};
    fixture_open(&dense, NULL, 2, false);
    fixture_open(&routed, c, 2, false);
    routed.plan.layers = open;
    for (int i = 0; i < dense.table.count; i++) {
        const struct param *p = &dense.table.items[i], *q = &routed.table.items[params_find(&routed.table, p->name)];
        memcpy(routed.values + q->offset, dense.values + p->offset, (size_t)p->size * sizeof *dense.values);
    }
    struct batch batch = rows();
    struct loss_sums a, b;
    assert_ok(model_gradient(dense.model, dense.values, &batch, dense.gradients, NULL, NULL, &a, &err), &err);
    for (int step = 0; step <= 10; step += 5) {
        model_set_schedule(routed.model, &schedule, step, (uint64_t)step);
        assert_ok(model_gradient(routed.model, routed.values, &batch, routed.gradients, NULL, NULL, &b, &err), &err);
        assert_memory_equal(&a, &b, sizeof a);
        for (int i = 0; i < dense.table.count; i++) {
            const struct param *p = &dense.table.items[i], *q = &routed.table.items[params_find(&routed.table, p->name)];
            assert_memory_equal(routed.gradients + q->offset, dense.gradients + p->offset, (size_t)p->size * sizeof *dense.values);
        }
    }
    model_set_schedule(routed.model, &schedule, 99, 1);
    assert_ok(model_loss(routed.model, routed.values, &batch, &b, &err), &err);
    different += a.loss != b.loss;
    batch_free(&batch);
    fixture_close(&dense);
    fixture_close(&routed);
}

static void begins_dense(void **state)
{
    (void)state;
    different = 0;
    for_each(all_heads_on_is_dense);
    assert_true(different >= 30); /* of 36 */
}

/* Bit for bit: threads and recomputation, in every stage. */
static void same_bits(const struct loar_config *c)
{
    const struct loar_schedule schedule = {100, 10, 0.25, 0.1, false};
    struct error err;
    if (c->feature != LOAR_PREFIX_MEAN || c->granularity != LOAR_BY_BLOCK)
        return;
    struct batch batch = rows();
    for (int stand_in = 0; stand_in < LOAR_N_STAND_INS; stand_in++)
        for (int step = 5 + 45 * (stand_in % 2); step < 100; step += 90) { /* dense and frozen, or routed */
            struct loar_config config = *c;
            config.stand_in = (enum loar_stand_in)((stand_in + (int)c->policy) % LOAR_N_STAND_INS);
            struct fixture first;
            struct loss_sums sums, again;
            fixture_open(&first, &config, 1, false);
            memset(first.gradients, 0xFF, (size_t)first.table.values * sizeof *first.gradients);
            model_set_schedule(first.model, &schedule, step, 7);
            assert_ok(model_gradient(first.model, first.values, &batch, first.gradients, NULL, NULL, &sums, &err), &err);
            for (int64_t i = 0; i < first.table.values; i++)
                assert_true(isfinite(first.gradients[i]));
            for (int threads = 1; threads <= 3; threads++) {
                struct fixture f;
                fixture_open(&f, &config, threads, threads != 2);
                model_set_schedule(f.model, &schedule, step, 7);
                assert_ok(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &again, &err), &err);
                assert_memory_equal(&sums, &again, sizeof sums);
                assert_memory_equal(f.gradients, first.gradients, (size_t)f.table.values * sizeof *f.gradients);
                fixture_close(&f);
            }
            fixture_close(&first);
        }
    batch_free(&batch);
}

static void nothing_changes_a_bit(void **state)
{
    (void)state;
    for_each(same_bits);
}

struct readiness {
    int64_t last;
    int calls;
};

static void note_ready(void *context, int64_t first)
{
    struct readiness *r = context;
    assert_true(first >= 0 && first <= r->last);
    r->last = first;
    r->calls++;
}

/* With the base model frozen, routers learn as beside one that is trained, to the bit, with layers below that are not routed
 * or where backward ends; and nothing else is written. */
static void routers_alone(const struct loar_config *c)
{
    static const struct loar_layer upper[LAYERS] = {{false, 0, 0, 1}, {true, 70, 8, 0.5}, {false, 64, 0, 1}, {true, 0, 0, 0.75}};
    const struct loar_schedule schedule = {100, 10, 0.25, 0.1, false};
    if (!is_usual(c))
        return;
    struct batch batch = rows();
    for (int variant = 0; variant < 3; variant++) {
        struct fixture full, alone;
        struct error err;
        struct loss_sums a, b;
        fixture_open_with(&full, c, variant == 1 ? upper : layers, 2, variant == 2, false);
        fixture_open_with(&alone, c, variant == 1 ? upper : layers, 1 + variant, variant == 2, true);
        assert_true(alone.table.trained + alone.table.frozen == full.table.trained && alone.table.trained < full.table.trained / 2);
        for (int step = 5; step < 100; step += 45) { /* dense, routed, frozen */
            struct readiness ready = {.last = alone.table.values};
            model_set_schedule(full.model, &schedule, step, 7);
            model_set_schedule(alone.model, &schedule, step, 7);
            memset(alone.gradients, 0xFF, (size_t)alone.table.values * sizeof *alone.gradients);
            assert_ok(model_gradient(full.model, full.values, &batch, full.gradients, NULL, NULL, &a, &err), &err);
            assert_ok(model_gradient(alone.model, alone.values, &batch, alone.gradients, note_ready, &ready, &b, &err), &err);
            assert_memory_equal(&a, &b, sizeof a);
            assert_true(ready.last == 0 && ready.calls == 2 + LAYERS - (variant == 1));
            for (int i = 0; i < full.table.count; i++) {
                const struct param *p = &full.table.items[i], *q = &alone.table.items[i];
                assert_int_equal(q->role == PARAM_TRAINED, strstr(p->name, "loar.") != NULL);
                if (q->role == PARAM_TRAINED)
                    assert_memory_equal(full.gradients + p->offset, alone.gradients + q->offset, (size_t)p->size * sizeof *full.gradients);
                for (int64_t j = p->size; q->role == PARAM_TRAINED && j % PARAM_ALIGN; j++)
                    assert_true(alone.gradients[q->offset + j] == 0);
            }
        }
        fixture_close(&full);
        fixture_close(&alone);
    }
    batch_free(&batch);
}

static void routers_learn_alone_as_beside_the_model(void **state)
{
    (void)state;
    for_each(routers_alone);
}

static void bad_scores_are_named(void **state)
{
    (void)state;
    struct loar_config c = routing(LOAR_POLICY_topk, LOAR_PREFIX_MEAN, LOAR_BY_BLOCK);
    struct fixture f;
    struct error err;
    struct loss_sums sums;
    fixture_open(&f, &c, 1, false);
    struct batch batch = rows();
    f.values[f.table.items[params_find(&f.table, "loar.layers.1.router.fc2.bias")].offset + 1] = NAN;
    assert_refused(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &sums, &err), STATUS_NUMERIC, &err,
                   "score of head 1 is nan");
    assert_refused(model_loss(f.model, f.values, &batch, &sums, &err), STATUS_NUMERIC, &err, "score of head 1 is nan");
    batch_free(&batch);
    fixture_close(&f);
}

static void short_memory_is_reported(void **state)
{
    (void)state;
    struct loar_config c = routing(LOAR_POLICY_quantile, LOAR_PREFIX_MEAN, LOAR_BY_BLOCK);
    struct fixture f;
    struct error err;
    fixture_open(&f, &c, 2, false);
    struct batch batch = rows();
    struct loss_sums sums;
    long before = mem_live(), n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        struct model *model = NULL;
        struct kv_cache *cache = NULL;
        float logits[VOCAB];
        mem_fail_after(n, false);
        TRY_OR(done, st, model_create(&f.config, &f.table, &(struct model_options){0}, f.pool, &model, &err));
        TRY_OR(done, st, model_gradient(model, f.values, &batch, f.gradients, NULL, NULL, &sums, &err));
        TRY_OR(done, st, kv_cache_create(model, 100, &cache, &err));
        TRY_OR(done, st, model_decode(model, f.values, cache, batch.tokens, 70, logits, &err));
    done:
        kv_cache_free(cache);
        model_free(model);
        mem_fail_after(-1, false);
        assert_int_equal(mem_live(), before);
        assert_true(st == STATUS_OK || (st == STATUS_NOMEM && strstr(err.text, "no memory")));
    }
    assert_true(n > 100);
    batch_free(&batch);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_token_looks_ahead),
        cmocka_unit_test(decoding_decides_as_the_full_pass), cmocka_unit_test(caches_forget_what_no_token_sees),
        cmocka_unit_test(gradients_are_differences), cmocka_unit_test(unread_keys_are_left_out),
        cmocka_unit_test(begins_dense),
        cmocka_unit_test(nothing_changes_a_bit),
        cmocka_unit_test(routers_learn_alone_as_beside_the_model),
        cmocka_unit_test(bad_scores_are_named),
        cmocka_unit_test(short_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
