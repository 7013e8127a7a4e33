/* Decisions of whole documents and of documents in pieces: bounds by hand, causality, the same bits for pieces of any
 * size and any number of threads, for every feature, granularity and policy. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/memory.h"
#include "common/rng.h"
#include "worker/loar/features.h"
#include "worker/loar/policy.h"
#include "worker/loar/router.h"
#include "worker/loar/row_lists.h"

enum { WIDTH = 70, HEADS = 6, DIM = 21, TASKS = 2, LONGEST = 400 };

static float *random_values(int64_t n, uint64_t stream, float size)
{
    float *out = test_malloc((size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++)
        out[i] = size * (float)(2 * rng_uniform(7, stream, (uint64_t)i) - 1);
    return out;
}

/* A routed layer with random weights. */
struct layer {
    struct loar_config config;
    struct router router;
    float *weights[5];
    float threshold[HEADS];
    struct threads *pool;
};

static void layer_open(struct layer *l, enum loar_feature feature, enum loar_granularity granularity,
                       enum loar_policy policy, int threads)
{
    struct error err;
    *l = (struct layer){.config = LOAR_CONFIG_DEFAULT};
    l->config.feature = feature;
    l->config.granularity = granularity;
    l->config.policy = policy;
    l->config.ema_decay = 0.97;
    l->config.n_tasks = TASKS;
    const int64_t sizes[] = {DIM * WIDTH, DIM, HEADS * DIM, HEADS, TASKS * HEADS};
    const float scales[] = {4, 0.1f, 2, 0.1f, 0.5f};
    for (int i = 0; i < 5; i++)
        l->weights[i] = random_values(sizes[i], (uint64_t)(100 + i), scales[i]);
    for (int h = 0; h < HEADS; h++)
        l->threshold[h] = policy == LOAR_POLICY_quantile ? 0.1f * (float)h : 0;
    l->router = (struct router){WIDTH, DIM, HEADS, TASKS, l->weights[0], l->weights[1], l->weights[2], l->weights[3],
                                l->weights[4]};
    assert_ok(threads_create(threads, &l->pool, &err), &err);
}

static void layer_close(struct layer *l)
{
    for (int i = 0; i < 5; i++)
        test_free(l->weights[i]);
    threads_free(l->pool);
}

/* What came out for each token. */
struct outcome {
    float z[3 * LONGEST][HEADS], gate[3 * LONGEST][HEADS];
    uint8_t on[3 * LONGEST][HEADS];
    enum decision_source source[3 * LONGEST];
    int first[3 * LONGEST]; /* first token of its decision */
};

static void decide(struct layer *l, int n_sequences, const int32_t *starts, const int32_t *earlier, const int32_t *prompts,
                   const int32_t *tasks, const float *x, struct loar_memory *memories, struct outcome *out)
{
    struct error err;
    struct decisions d = {0};
    assert_ok(decisions_make(&l->config, n_sequences, starts, earlier, prompts, tasks, &d, &err), &err);
    size_t m = (size_t)d.count + 1;
    float *f = test_malloc(m * WIDTH * sizeof *f), *hidden = test_malloc(m * DIM * sizeof *hidden);
    float *z = test_malloc(m * HEADS * sizeof *z), *gate = test_malloc(m * HEADS * sizeof *gate);
    uint8_t *on = test_malloc(m * HEADS);
    features_forward(l->pool, &l->config, &d, WIDTH, x, memories, f);
    router_forward(l->pool, &l->router, &d, f, hidden, z);
    struct policy_setting settings[LOAR_MAX_TASKS];
    for (int t = 0; t < l->config.n_tasks; t++)
        settings[t] = (struct policy_setting){.config = &l->config, .heads = HEADS, .budget = 0.5, .threshold = l->threshold};
    assert_ok(policy_choose(l->pool, settings, &d, z, memories, on, gate, &err), &err);
    for (int t = 0; t < d.n_tokens; t++) {
        int at = d.of_token[t];
        memcpy(out->z[t], z + at * HEADS, sizeof *out->z);
        memcpy(out->gate[t], gate + at * HEADS, sizeof *out->gate);
        memcpy(out->on[t], on + at * HEADS, sizeof *out->on);
        out->source[t] = d.items[at].source;
        out->first[t] = d.items[at].first;
    }
    test_free(f), test_free(hidden), test_free(z), test_free(gate), test_free(on);
    decisions_free(&d);
}

/* Every combination that a user may choose. */
static void each(void (*test)(enum loar_feature, enum loar_granularity, enum loar_policy))
{
    struct error err;
    for (int f = 0; f < LOAR_N_FEATURES; f++)
        for (int g = 0; g < LOAR_N_GRANULARITIES; g++)
            for (int p = 0; p < LOAR_N_POLICIES; p++) {
                struct loar_config c = LOAR_CONFIG_DEFAULT;
                c.feature = (enum loar_feature)f;
                c.granularity = (enum loar_granularity)g;
                c.policy = (enum loar_policy)p;
                const struct loar_shape shape = {WIDTH, HEADS, 4};
                if (loar_check(&c, &shape, &(struct loar_layer){true, 0, 0, 0.5}, 1, &err) == STATUS_OK)
                    test(c.feature, c.granularity, c.policy);
            }
}

static const int32_t starts[] = {0, 150, 150, 480, 600}, prompts[] = {20, 0, 129, 0}, tasks[] = {1, 0, 0, 1};
enum { SEQUENCES = 4, TOKENS = 600 };

static void bounds(void **state)
{
    (void)state;
    struct error err;
    struct decisions d = {0};
    struct loar_config c = LOAR_CONFIG_DEFAULT;
    c.n_tasks = TASKS;
    assert_ok(decisions_make(&c, SEQUENCES, starts, NULL, NULL, tasks, &d, &err), &err);
    assert_int_equal(d.count, 3 + 0 + 6 + 2);
    assert_int_equal(d.of_sequence[1], 3);
    assert_int_equal(d.of_sequence[2], 3);
    assert_int_equal(d.of_sequence[4], 11);
    struct decision *i = &d.items[2];
    assert_true(i->first == 128 && i->end == 150 && i->reads == 128 && i->task == 1 && i->source == DECISION_ROUTED);
    assert_int_equal(d.items[0].source, DECISION_FREE);
    assert_true(d.of_token[127] == 1 && d.of_token[128] == 2 && d.of_token[150] == 3 && d.of_token[599] == 10);
    /* The second piece of a document: 100 tokens came before, so the block of tokens 64 to 127 goes on. */
    assert_ok(decisions_make(&c, 1, (int32_t[]){0, 60}, (int32_t[]){100}, NULL, tasks, &d, &err), &err);
    assert_int_equal(d.count, 2);
    assert_true(d.items[0].source == DECISION_KEPT && d.items[0].end == 28);
    assert_true(d.items[1].source == DECISION_ROUTED && d.items[1].first == 28 && d.items[1].reads == 128);
    c.granularity = LOAR_BY_TOKEN;
    assert_ok(decisions_make(&c, 1, (int32_t[]){0, 60}, NULL, NULL, tasks, &d, &err), &err);
    assert_true(d.count == 60 && d.items[0].source == DECISION_FREE && d.items[59].reads == 59);
    c.feature = LOAR_TOKEN;
    assert_ok(decisions_make(&c, 1, (int32_t[]){0, 60}, NULL, NULL, tasks, &d, &err), &err);
    assert_true(d.count == 60 && d.items[0].source == DECISION_ROUTED && d.items[59].reads == 60);
    c.feature = LOAR_PROMPT_MEAN;
    assert_ok(decisions_make(&c, SEQUENCES, starts, NULL, prompts, tasks, &d, &err), &err);
    assert_int_equal(d.count, 2 + 0 + 2 + 1);
    assert_true(d.items[0].source == DECISION_FREE && d.items[0].end == 20);
    assert_true(d.items[1].source == DECISION_ROUTED && d.items[1].reads == 20 && d.items[1].end == 150);
    assert_int_equal(d.items[4].source, DECISION_FREE); /* there is no prompt to look at */
    c.feature = LOAR_SEQ_MEAN;
    assert_ok(decisions_make(&c, SEQUENCES, starts, NULL, NULL, tasks, &d, &err), &err);
    assert_true(d.count == 3 && d.items[1].reads == 330);
    assert_refused(decisions_make(&c, 1, starts, NULL, NULL, (int32_t[]){2}, &d, &err), STATUS_INTERNAL, &err, "task 2");
    decisions_free(&d);
}

/* Features against plain means in double precision. */
static void means(void **state)
{
    (void)state;
    struct error err;
    float *x = random_values(TOKENS * WIDTH, 1, 1);
    for (int feature = 0; feature < LOAR_N_FEATURES; feature++) {
        struct layer l;
        layer_open(&l, (enum loar_feature)feature, LOAR_BY_BLOCK, LOAR_POLICY_topk, 2);
        struct decisions d = {0};
        assert_ok(decisions_make(&l.config, SEQUENCES, starts, NULL, prompts, tasks, &d, &err), &err);
        float *f = random_values(d.count * WIDTH, 2, 1);
        features_forward(l.pool, &l.config, &d, WIDTH, x, NULL, f);
        for (int m = 0; m < d.count; m++)
            for (int i = 0; i < WIDTH; i++) {
                double sum = 0, weights = 0, wanted = 0;
                const float *document = x + starts[d.items[m].sequence] * WIDTH + i;
                for (int t = 0; t < d.items[m].reads; t++) {
                    double age = d.items[m].reads - 1 - t;
                    double weight = feature == LOAR_EMA ? pow(0.97, age) : feature == LOAR_TOKEN ? age == 0 : 1;
                    sum += weight * document[t * WIDTH];
                    weights += weight;
                }
                if (d.items[m].source == DECISION_ROUTED)
                    wanted = sum / weights;
                assert_true(fabs(f[m * WIDTH + i] - wanted) < 1e-6);
            }
        test_free(f);
        decisions_free(&d);
        layer_close(&l);
    }
    test_free(x);
}

/* Tokens after t, and other documents, leave all decisions up to t alone; seq_mean looks at them. */
static void one_causality(enum loar_feature feature, enum loar_granularity granularity, enum loar_policy policy)
{
    static struct outcome before, after;
    struct layer l;
    layer_open(&l, feature, granularity, policy, 2);
    float *x = random_values(TOKENS * WIDTH, 1, 1), *other = random_values(TOKENS * WIDTH, 9, 1);
    decide(&l, SEQUENCES, starts, NULL, prompts, tasks, x, NULL, &before);
    int changed = 0;
    for (int pick = 0; pick < 12; pick++) {
        int t = 150 + (int)rng_below(3, 4, (uint64_t)pick, 330); /* in the document of tokens 150 to 479 */
        memcpy(other + 150 * WIDTH, x + 150 * WIDTH, (size_t)(t + 1 - 150) * WIDTH * sizeof *x);
        decide(&l, SEQUENCES, starts, NULL, prompts, tasks, other, NULL, &after);
        bool same = true;
        for (int i = 150; i <= t; i++)
            same = same && !memcmp(before.z[i], after.z[i], sizeof *before.z) &&
                   !memcmp(before.gate[i], after.gate[i], sizeof *before.gate) &&
                   !memcmp(before.on[i], after.on[i], sizeof *before.on);
        if (feature != LOAR_SEQ_MEAN && !same) {
            print_error("%s, %s, %s: tokens after %d change decisions before\n", loar_feature_names[feature],
                        loar_granularity_names[granularity], loar_policy_names[policy], t - 150);
            fail();
        }
        changed += !same;
        float *fresh = random_values(TOKENS * WIDTH, (uint64_t)(20 + pick), 1);
        memcpy(other, fresh, TOKENS * WIDTH * sizeof *fresh);
        test_free(fresh);
    }
    assert_true(feature != LOAR_SEQ_MEAN || changed > 9);
    test_free(x), test_free(other);
    layer_close(&l);
}

static void causality(void **state)
{
    (void)state;
    each(one_causality);
}

/* A document that comes in pieces, beside another that does too, is decided as the whole one is. */
static void one_in_pieces(enum loar_feature feature, enum loar_granularity granularity, enum loar_policy policy)
{
    static struct outcome whole, piece;
    struct error err;
    const int32_t all[] = {0, 390, 700}, prompt[] = {130, 71}, task[] = {1, 0};
    int routed = 0, differing = 0, varied = 0;
    struct layer l;
    layer_open(&l, feature, granularity, policy, 1);
    l.config.gate = policy % 2 ? LOAR_SOFT : LOAR_HARD;
    float *x = random_values(700 * WIDTH, 1, 1), *part = test_malloc(700 * WIDTH * sizeof *part);
    decide(&l, 2, all, NULL, prompt, task, x, NULL, &whole);
    struct loar_memory memories[2];
    for (int b = 0; b < 2; b++)
        assert_ok(loar_memory_create(WIDTH, HEADS, &memories[b], &err), &err);
    for (int round = 0; round < 4; round++) {
        const int largest[] = {1, 7, 90, 700};
        int32_t earlier[2] = {0};
        loar_memory_reset(&memories[0]);
        loar_memory_reset(&memories[1]);
        for (uint64_t step = 0; earlier[0] < all[1] || earlier[1] < all[2] - all[1]; step++) {
            int32_t at[3] = {0};
            for (int b = 0; b < 2; b++) {
                int left = all[b + 1] - all[b] - earlier[b];
                int n = 1 + (int)rng_below(8, (uint64_t)round, 2 * step + (uint64_t)b, (uint64_t)largest[round]);
                at[b + 1] = at[b] + (n < left ? n : left);
                memcpy(part + at[b] * WIDTH, x + (all[b] + earlier[b]) * WIDTH,
                       (size_t)(at[b + 1] - at[b]) * WIDTH * sizeof *x);
            }
            decide(&l, 2, at, earlier, prompt, task, part, memories, &piece);
            for (int b = 0; b < 2; b++) {
                for (int t = at[b]; t < at[b + 1]; t++) {
                    int here = all[b] + earlier[b] + t - at[b];
                    bool same = !memcmp(whole.on[here], piece.on[t], sizeof *whole.on) &&
                                !memcmp(whole.gate[here], piece.gate[t], sizeof *whole.gate);
                    if (piece.source[t] == DECISION_ROUTED)
                        same = same && !memcmp(whole.z[here], piece.z[t], sizeof *whole.z), routed++;
                    if (feature != LOAR_SEQ_MEAN && !same) {
                        print_error("%s, %s, %s: token %d of document %d is decided otherwise in pieces up to %d\n",
                                    loar_feature_names[feature], loar_granularity_names[granularity],
                                    loar_policy_names[policy], here - all[b], b, largest[round]);
                        fail();
                    }
                    differing += !same;
                    varied += !!memchr(piece.on[t], 0, HEADS);
                }
                earlier[b] += at[b + 1] - at[b];
            }
        }
    }
    assert_true(routed > 0 && (varied > 0 || policy == LOAR_POLICY_article));
    assert_true(feature != LOAR_SEQ_MEAN || differing > 0);
    loar_memory_free(&memories[0]);
    loar_memory_free(&memories[1]);
    test_free(x), test_free(part);
    layer_close(&l);
}

static void in_pieces(void **state)
{
    (void)state;
    each(one_in_pieces);
}

/* Threads change no bit, and a decision does not depend on those computed with it. */
static void one_threads(enum loar_feature feature, enum loar_granularity granularity, enum loar_policy policy)
{
    static struct outcome one, more;
    float *x = random_values(TOKENS * WIDTH, 1, 1);
    for (int threads = 1; threads <= 3; threads++) {
        struct layer l;
        memset(&more, 0, sizeof more);
        layer_open(&l, feature, granularity, policy, threads);
        decide(&l, SEQUENCES, starts, NULL, prompts, tasks, x, NULL, &more);
        if (threads == 1)
            one = more;
        assert_memory_equal(&one, &more, sizeof one);
        decide(&l, 1, (int32_t[]){0, 330}, NULL, prompts + 2, tasks + 2, x + 150 * WIDTH, NULL, &more);
        assert_memory_equal(one.z[150], more.z[0], 330 * sizeof *one.z);
        assert_memory_equal(one.gate[150], more.gate[0], 330 * sizeof *one.gate);
        layer_close(&l);
    }
    test_free(x);
}

static void threads(void **state)
{
    (void)state;
    each(one_threads);
}

static void rows(void **state)
{
    (void)state;
    struct error err;
    struct decisions d = {0};
    struct row_lists lists = {0};
    struct threads *pool;
    struct loar_config c = LOAR_CONFIG_DEFAULT;
    c.n_tasks = TASKS;
    const int32_t at[] = {0, 70, 70, 100}, task[] = {0, 1, 0}; /* blocks 0-63, 64-69, 70-99 */
    const uint8_t on[] = {1, 0, 1, 1, 1, 0, 1, 0, 0};
    assert_ok(decisions_make(&c, 3, at, NULL, NULL, task, &d, &err), &err);
    for (int threads = 1; threads <= 3; threads++) {
        assert_ok(threads_create(threads, &pool, &err), &err);
        assert_ok(row_lists_make(pool, &d, 3, on, NULL, &lists, &err), &err);
        assert_true(lists.all[0] == 1 && lists.all[1] == 0 && lists.all[2] == 0);
        assert_true(row_lists_count(&lists, 0) == 100 && row_lists_count(&lists, 1) == 6 && row_lists_count(&lists, 2) == 64);
        for (int i = 0; i < 100; i++)
            assert_int_equal(row_lists_of(&lists, 0)[i], i);
        for (int i = 0; i < 6; i++)
            assert_int_equal(row_lists_of(&lists, 1)[i], 64 + i);
        assert_memory_equal(lists.bounds, ((int64_t[]){0, 70, 70, 100, 0, 6, 6, 6, 0, 64, 64, 64}), 12 * 8);
        threads_free(pool);
    }
    row_lists_free(&lists);
    decisions_free(&d);
}

static enum status make_all(struct error *err)
{
    struct decisions d = {0};
    struct row_lists lists = {0};
    struct loar_memory memory = {0};
    struct threads *pool = NULL;
    uint8_t on[2000];
    memset(on, 1, sizeof on);
    struct loar_config c = LOAR_CONFIG_DEFAULT;
    c.granularity = LOAR_BY_TOKEN;
    enum status status;
    TRY_OR(done, status, threads_create(1, &pool, err));
    TRY_OR(done, status, decisions_make(&c, 1, (int32_t[]){0, 10}, NULL, NULL, (int32_t[]){0}, &d, err));
    TRY_OR(done, status, decisions_make(&c, 2, (int32_t[]){0, 100, 300}, NULL, NULL, (int32_t[]){0, 0}, &d, err));
    assert_int_equal(d.of_token[299], 299);
    TRY_OR(done, status, row_lists_make(pool, &d, 2, on, NULL, &lists, err));
    TRY_OR(done, status, row_lists_make(pool, &d, 3, on, NULL, &lists, err));
    TRY_OR(done, status, loar_memory_create(WIDTH, HEADS, &memory, err));
    assert_true(memory.sum && memory.on && memory.gate);
done:
    loar_memory_free(&memory);
    row_lists_free(&lists);
    decisions_free(&d);
    threads_free(pool);
    return status;
}

static void short_memory(void **state)
{
    (void)state;
    struct error err;
    long live = mem_live(), n = 0;
    for (enum status status = STATUS_NOMEM; status != STATUS_OK; n++) {
        mem_fail_after(n, false);
        status = make_all(&err);
        assert_true(status == STATUS_OK || (status == STATUS_NOMEM && strstr(err.text, "no memory")));
        assert_int_equal(mem_live(), live);
    }
    mem_fail_after(-1, false);
    assert_true(n > 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds),  cmocka_unit_test(means), cmocka_unit_test(causality),    cmocka_unit_test(in_pieces),
        cmocka_unit_test(threads), cmocka_unit_test(rows),  cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
