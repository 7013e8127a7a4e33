/* Routing rules by hand-worked numbers: which heads each policy picks, what all of them share, gates, the gradient of the
 * budget's price, the fit to importance, and configurations that are refused. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/memory.h"
#include "worker/loar/policy.h"

enum { HEADS = 4 };

/* One routed decision of ten rows after a free block. */
struct one {
    struct loar_config config;
    struct decision items[2];
    struct decisions decisions;
    struct policy_setting setting;
    struct threads *pool;
    float threshold[HEADS];
};

static void open_one(struct one *o, enum loar_policy policy, double budget)
{
    struct error err;
    *o = (struct one){.config = LOAR_CONFIG_DEFAULT};
    o->config.policy = policy;
    o->config.fallback = LOAR_FALLBACK_ALL;
    o->config.stand_in = LOAR_NORMALISER;
    o->items[0] = (struct decision){.first = 0, .end = 64, .source = DECISION_FREE};
    o->items[1] = (struct decision){.first = 64, .end = 74, .reads = 64, .source = DECISION_ROUTED};
    o->decisions = (struct decisions){.count = 2, .n_tokens = 74, .n_sequences = 1, .items = o->items};
    o->setting = (struct policy_setting){.config = &o->config, .heads = HEADS, .budget = budget, .target = 0.5, .threshold = o->threshold};
    assert_ok(threads_create(1, &o->pool, &err), &err);
}

static void close_one(struct one *o)
{
    threads_free(o->pool);
}

/* The routed decision's heads as text, "1010". */
static const char *chosen(struct one *o, const float z[HEADS], float gate[HEADS])
{
    static char text[HEADS + 1];
    struct error err;
    float scores[2 * HEADS] = {NAN, NAN, NAN, NAN}, gates[2 * HEADS]; /* nobody looks at a free decision's scores */
    uint8_t on[2 * HEADS];
    memcpy(scores + HEADS, z, HEADS * sizeof *z);
    assert_ok(policy_choose(o->pool, &o->setting, &o->decisions, scores, NULL, on, gates, &err), &err);
    for (int h = 0; h < HEADS; h++) {
        assert_true(on[h] == 1 && gates[h] == 1);
        text[h] = (char)('0' + on[HEADS + h]);
        if (!on[HEADS + h])
            assert_true(gates[HEADS + h] == 0);
    }
    if (gate)
        memcpy(gate, gates + HEADS, HEADS * sizeof *gate);
    return text;
}

/* softmax of log(w) is w / sum(w) */
#define LOGS(a, b, c, d) ((const float[HEADS]){logf(a), logf(b), logf(c), logf(d)})

static void rules(void **state)
{
    (void)state;
    struct one o;
    open_one(&o, LOAR_POLICY_article, 0.5);
    assert_string_equal(chosen(&o, LOGS(1, 7, 1, 1), NULL), "0100");
    assert_string_equal(chosen(&o, LOGS(52, 16, 16, 16), NULL), "1000");
    assert_string_equal(chosen(&o, LOGS(48, 20, 16, 16), NULL), "1111"); /* none passes */
    close_one(&o);

    open_one(&o, LOAR_POLICY_softmax_rel, 0.5);
    o.config.c = 0.9; /* least share 0.225 */
    assert_string_equal(chosen(&o, LOGS(20, 23, 25, 32), NULL), "0111");
    o.config.c = 2; /* the article's 0.5 */
    assert_string_equal(chosen(&o, LOGS(1, 7, 1, 1), NULL), "0100");
    close_one(&o);

    open_one(&o, LOAR_POLICY_topk, 0.5);
    assert_string_equal(chosen(&o, (const float[]){0.1f, -3, 2, 0.2f}, NULL), "0011");
    assert_string_equal(chosen(&o, (const float[]){1, 1, 1, 1}, NULL), "1100"); /* ties: lower index */
    assert_string_equal(chosen(&o, (const float[]){0, 1, 0, 0}, NULL), "1100");
    o.setting.budget = 0.51; /* rounded up */
    assert_string_equal(chosen(&o, (const float[]){0.1f, -3, 2, 0.2f}, NULL), "1011");
    o.setting.budget = 0.01;
    assert_string_equal(chosen(&o, (const float[]){0.1f, -3, 2, 0.2f}, NULL), "0010");
    close_one(&o);

    open_one(&o, LOAR_POLICY_topp, 0.6);
    assert_string_equal(chosen(&o, LOGS(1, 4, 2, 3), NULL), "0101"); /* 0.4 + 0.3 */
    o.setting.budget = 0.71;
    assert_string_equal(chosen(&o, LOGS(1, 4, 2, 3), NULL), "0111");
    o.setting.budget = 0.4 - 1e-3;
    assert_string_equal(chosen(&o, LOGS(1, 4, 2, 3), NULL), "0100");
    close_one(&o);

    open_one(&o, LOAR_POLICY_sigmoid, 0.5);
    assert_string_equal(chosen(&o, (const float[]){0.01f, -0.01f, 3, 0}, NULL), "1010");
    close_one(&o);

    open_one(&o, LOAR_POLICY_quantile, 0.5);
    memcpy(o.threshold, (const float[]){-1, 0, 1, 2}, sizeof o.threshold);
    assert_string_equal(chosen(&o, (const float[]){-0.5f, 0, 1.5f, 1.5f}, NULL), "1010");
    close_one(&o);

    assert_int_equal(loar_heads_of(0.28, 25), 7); /* though 0.28 * 25 is a little above 7 */
    assert_int_equal(loar_heads_of(0.56, 20), 12);
    assert_int_equal(loar_heads_of(1, 12), 12);
}

/* What all policies share. */
/* Each task has its own rule, budget and thresholds. */
static void tasks(void **state)
{
    (void)state;
    struct one o;
    struct error err;
    open_one(&o, LOAR_POLICY_quantile, 0.5);
    o.config.n_tasks = 3;
    o.config.tasks[1] = (struct loar_task){.has_policy = true, .policy = LOAR_POLICY_topk, .scale = 0.5};
    o.config.tasks[2] = (struct loar_task){.scale = 4};
    assert_true(loar_task_budget(&o.config, 0, 0.5) == 0.5 && loar_task_budget(&o.config, 1, 0.5) == 0.25);
    assert_true(loar_task_budget(&o.config, 2, 0.5) == 1);
    struct policy_setting settings[3];
    for (int t = 0; t < 3; t++) {
        settings[t] = o.setting;
        settings[t].budget = loar_task_budget(&o.config, t, 0.5);
    }
    struct decision items[3];
    for (int t = 0; t < 3; t++)
        items[t] = (struct decision){.first = t, .end = t + 1, .reads = 1, .task = t, .source = DECISION_ROUTED};
    const struct decisions three = {.count = 3, .n_tokens = 3, .n_sequences = 1, .items = items};
    const float z[3 * HEADS] = {1, -1, 2, 3, 1, -1, 2, 3, 1, -1, 2, 3};
    const uint8_t wanted[3 * HEADS] = {1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1};
    uint8_t on[3 * HEADS];
    float gate[3 * HEADS];
    assert_ok(policy_choose(o.pool, settings, &three, z, NULL, on, gate, &err), &err);
    assert_memory_equal(on, wanted, sizeof on);
    close_one(&o);
}

static void completion(void **state)
{
    (void)state;
    struct one o;
    float gate[HEADS];
    for (int policy = 0; policy < LOAR_N_POLICIES; policy++) { /* a full budget is the dense layer */
        open_one(&o, (enum loar_policy)policy, 1);
        o.config.gate = LOAR_SOFT;
        o.config.fallback = LOAR_FALLBACK_MIN_HEADS;
        assert_string_equal(chosen(&o, (const float[]){-9, 9, -8, -7}, gate), "1111");
        assert_true(gate[0] == 1 && gate[3] == 1);
        close_one(&o);
    }
    open_one(&o, LOAR_POLICY_quantile, 0.5);
    assert_string_equal(chosen(&o, (const float[]){-1, -2, -3, -4}, NULL), "1111");
    o.config.fallback = LOAR_FALLBACK_MIN_HEADS;
    o.config.min_heads = 2;
    assert_string_equal(chosen(&o, (const float[]){-3, -2, -1, -4}, NULL), "0110");
    assert_string_equal(chosen(&o, (const float[]){-3, -2, -1, 4}, NULL), "0011");
    o.config.n_always_on = 1;
    o.config.always_on[0] = 3;
    assert_string_equal(chosen(&o, (const float[]){-3, -2, -1, -4}, NULL), "0011");
    o.config.fallback = LOAR_FALLBACK_ALL; /* no score passes: an always-on head does not count */
    assert_string_equal(chosen(&o, (const float[]){-3, -2, -1, -4}, NULL), "1111");
    assert_string_equal(chosen(&o, (const float[]){-3, 1, -1, -4}, NULL), "0101");
    close_one(&o);

    open_one(&o, LOAR_POLICY_topk, 0.5); /* always-on heads are paid from the budget */
    o.config.n_always_on = 1;
    o.config.always_on[0] = 3;
    assert_string_equal(chosen(&o, (const float[]){2, 3, 1, -4}, NULL), "0101");
    close_one(&o);
    open_one(&o, LOAR_POLICY_topp, 0.55); /* 0.1 of the always-on head, then 0.4 and 0.3 */
    o.config.n_always_on = 1;
    o.config.always_on[0] = 0;
    assert_string_equal(chosen(&o, LOGS(1, 4, 2, 3), NULL), "1101");
    close_one(&o);
}

static void gates(void **state)
{
    (void)state;
    struct one o;
    float gate[HEADS];
    open_one(&o, LOAR_POLICY_topk, 0.5);
    chosen(&o, LOGS(1, 4, 2, 3), gate);
    assert_true(gate[1] == 1 && gate[3] == 1);
    o.config.gate = LOAR_SOFT;
    chosen(&o, LOGS(1, 4, 2, 3), gate); /* H times the softmax */
    assert_true(fabsf(gate[1] - 1.6f) < 1e-6f && fabsf(gate[3] - 1.2f) < 1e-6f);
    close_one(&o);
    open_one(&o, LOAR_POLICY_quantile, 0.5);
    o.config.gate = LOAR_SOFT;
    o.threshold[2] = 1;
    chosen(&o, (const float[]){0, -1, 1 + logf(3), 0}, gate);
    assert_true(fabsf(gate[2] - 0.75f) < 1e-6f);
    close_one(&o);
}

static void gradients(void **state)
{
    (void)state;
    struct one o;
    float z[2 * HEADS] = {0}, dgate[2 * HEADS] = {9, 9, 9, 9, 1, 2, 3, 4}, dz[2 * HEADS];
    const uint8_t on[2 * HEADS] = {1, 1, 1, 1, 1, 0, 0, 1};
    memcpy(z + HEADS, LOGS(1, 1, 1, 1), sizeof z / 2);
    open_one(&o, LOAR_POLICY_topk, 0.5);
    policy_backward(o.pool, &o.setting, &o.decisions, z, on, dgate, dz);
    /* p = 1/4, scaled dp = 4, 8, 12, 16 with mean 10 */
    for (int h = 0; h < HEADS; h++)
        assert_true(dz[h] == 0 && fabsf(dz[HEADS + h] - (float)(4 * (h + 1) - 10) / 4) < 1e-6f);
    o.config.gate = LOAR_SOFT; /* dp = 4, 0, 0, 16 with mean 5 */
    policy_backward(o.pool, &o.setting, &o.decisions, z, on, dgate, dz);
    assert_true(fabsf(dz[4] + 0.25f) < 1e-6f && fabsf(dz[5] + 1.25f) < 1e-6f && fabsf(dz[7] - 2.75f) < 1e-6f);
    o.config.stand_in = LOAR_NONE;
    policy_backward(o.pool, &o.setting, &o.decisions, z, on, dgate, dz);
    assert_true(fabsf(dz[4] + 0.25f) < 1e-6f && dz[5] == 0 && dz[6] == 0);
    o.setting.budget = 1;
    policy_backward(o.pool, &o.setting, &o.decisions, z, on, dgate, dz);
    for (int h = 0; h < 2 * HEADS; h++)
        assert_true(dz[h] == 0);
    close_one(&o);

    open_one(&o, LOAR_POLICY_sigmoid, 0.5); /* p = 1/2: dz = dp / 4; the price is 0.2 * 10 rows / 4 heads */
    o.setting.price = 0.2f;
    policy_backward(o.pool, &o.setting, &o.decisions, z, on, dgate, dz);
    for (int h = 0; h < HEADS; h++)
        assert_true(dz[h] == 0 && fabsf(dz[HEADS + h] - ((float)(h + 1) + 0.5f) / 4) < 1e-6f);
    close_one(&o);
}

static void fit(void **state)
{
    (void)state;
    struct one o;
    float z[2 * HEADS] = {0}, importance[2 * HEADS] = {9, 9, 9, 9, 1, 4, 2, 3}, dz[2 * HEADS];
    float room[2 * HEADS], levels[HEADS];
    open_one(&o, LOAR_POLICY_topk, 1);
    policy_fit(o.pool, &o.setting, &o.decisions, z, importance, room, levels, dz); /* ten rows times 1/4 - share */
    const float softmax[] = {1.5f, -1.5f, 0.5f, -0.5f};
    for (int h = 0; h < HEADS; h++)
        assert_true(dz[h] == 0 && fabsf(dz[HEADS + h] - softmax[h]) < 1e-5f);
    close_one(&o);
    open_one(&o, LOAR_POLICY_quantile, 1);
    o.threshold[0] = -50; /* thresholds take no part */
    policy_fit(o.pool, &o.setting, &o.decisions, z, importance, room, levels, dz); /* ten rows / four heads times 1/2 - target */
    const float sigmoid[] = {1.25f, -1.25f, 1.25f, -1.25f};
    for (int h = 0; h < HEADS; h++)
        assert_true(fabsf(dz[HEADS + h] - sigmoid[h]) < 1e-6f);
    memset(importance, 0, sizeof importance);
    policy_fit(o.pool, &o.setting, &o.decisions, z, importance, room, levels, dz);
    for (int h = 0; h < 2 * HEADS; h++)
        assert_true(dz[h] == 0);
    close_one(&o);
}

/* Decisions share a budget of the sigmoid family: one may want all of its heads, another none. */
static void fit_across_decisions(void **state)
{
    (void)state;
    struct one o;
    float z[2 * HEADS] = {0}, importance[2 * HEADS] = {10, 9, 8, 7, 1, 4, 2, 3}, dz[2 * HEADS], room[2 * HEADS], levels[HEADS];
    open_one(&o, LOAR_POLICY_quantile, 1);
    o.items[0].source = DECISION_ROUTED; /* 64 rows / four heads times 1/2 - target; ten rows */
    policy_fit(o.pool, &o.setting, &o.decisions, z, importance, room, levels, dz);
    for (int h = 0; h < HEADS; h++)
        assert_true(fabsf(dz[h] + 8) < 1e-6f && fabsf(dz[HEADS + h] - 1.25f) < 1e-6f);
    o.config.per_head = true; /* half of each head's decisions: the first */
    importance[3] = 0;        /* but the second for the last head */
    policy_fit(o.pool, &o.setting, &o.decisions, z, importance, room, levels, dz);
    for (int h = 0; h < HEADS; h++)
        assert_true(fabsf(dz[h] + (h < 3 ? 8 : -8)) < 1e-6f && fabsf(dz[HEADS + h] - (h < 3 ? 1.25f : -1.25f)) < 1e-6f);
    o.config.per_head = false; /* two heads of each decision always run and use the budget up */
    o.config.n_always_on = 2;
    o.config.always_on[0] = 0, o.config.always_on[1] = 1;
    policy_fit(o.pool, &o.setting, &o.decisions, z, importance, room, levels, dz);
    assert_true(dz[2] > 0 && dz[3] > 0 && dz[HEADS + 2] > 0 && dz[HEADS + 3] > 0);
    close_one(&o);
}

/* The share of decisions that explore is what was asked for, one more head each, the same for the same seed. */
static void exploration(void **state)
{
    (void)state;
    enum { M = 4000 };
    struct one o;
    struct error err;
    open_one(&o, LOAR_POLICY_topk, 0.5);
    o.config.stand_in = LOAR_EXPLORE;
    o.config.explore = 0.1;
    struct decision *items = test_calloc(M, sizeof *items);
    struct decisions all = {.count = M, .n_tokens = M, .n_sequences = 1, .items = items};
    for (int m = 0; m < M; m++)
        items[m] = (struct decision){.first = m, .end = m + 1, .reads = 1, .source = DECISION_ROUTED};
    float *z = test_calloc(M * HEADS, sizeof *z), *gate = test_calloc(M * HEADS, sizeof *gate);
    uint8_t *on = test_calloc(M, HEADS), *again = test_calloc(M, HEADS);
    int extra[HEADS] = {0}, total = 0;
    o.setting.explore_seed = 5;
    o.setting.explore_stream = 6;
    for (int exploring = 0; exploring < 2; exploring++) {
        o.setting.exploring = exploring;
        assert_ok(policy_choose(o.pool, &o.setting, &all, z, NULL, on, gate, &err), &err);
        assert_ok(policy_choose(o.pool, &o.setting, &all, z, NULL, again, gate, &err), &err);
        assert_memory_equal(on, again, M * HEADS);
        for (int m = 0; m < M; m++) {
            int count = 0;
            for (int h = 0; h < HEADS; h++)
                count += on[m * HEADS + h], extra[h] += on[m * HEADS + h] && h > 1;
            assert_true(count == 2 || (exploring && count == 3));
            total += count - 2;
        }
        assert_true(exploring || total == 0);
    }
    assert_true(abs(total - M / 10) < M / 50 && abs(extra[2] - extra[3]) < M / 50);
    test_free(items), test_free(z), test_free(gate), test_free(on), test_free(again);
    close_one(&o);
}

static void not_finite(void **state)
{
    (void)state;
    struct one o;
    struct error err;
    float z[2 * HEADS] = {NAN}, gate[2 * HEADS];
    uint8_t on[2 * HEADS];
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++)
        for (int full = 0; full < 2; full++) {
            open_one(&o, LOAR_POLICY_topk, full ? 1 : 0.5);
            z[HEADS + 2] = bad[i];
            assert_refused(policy_choose(o.pool, &o.setting, &o.decisions, z, NULL, on, gate, &err), STATUS_NUMERIC, &err,
                           "head 2");
            assert_non_null(strstr(err.text, "decision 1 (sequence 0, tokens 64 to 73)"));
            close_one(&o);
        }
    open_one(&o, LOAR_POLICY_topk, 0.5);
    o.items[0].source = DECISION_KEPT;
    z[HEADS + 2] = 0;
    assert_refused(policy_choose(o.pool, &o.setting, &o.decisions, z, NULL, on, gate, &err), STATUS_INTERNAL, &err, "memory");
    close_one(&o);
}

static void configurations(void **state)
{
    (void)state;
    struct error err;
    const struct loar_shape shape = {64, 8, 8};
    const struct loar_layer fine[] = {{true, 256, 4, 0.5}, {false, 0, 0, 0}, {true, 0, 0, 1}};
    const struct loar_config good = LOAR_CONFIG_DEFAULT;
    assert_ok(loar_check(&good, &shape, fine, 3, &err), &err);
#define REFUSED(part, ...)                                                                           \
    do {                                                                                             \
        struct loar_config c = good;                                                                 \
        struct loar_layer l = fine[0];                                                               \
        __VA_ARGS__;                                                                                 \
        assert_refused(loar_check(&c, &shape, (struct loar_layer[]){fine[1], l}, 2, &err), STATUS_USAGE, &err, part); \
    } while (0)
    REFUSED("always_on lists 9 heads, but the model has only 8", c.n_always_on = 9);
    REFUSED("always_on names head 8; this model's heads are 0 to 7", c.n_always_on = 1, c.always_on[0] = 8);
    REFUSED("always_on names head 3 twice", c.n_always_on = 2, c.always_on[0] = c.always_on[1] = 3);
    REFUSED("layer 1: budget is 0;", l.budget = 0);
    REFUSED("layer 1: budget is 1.5", l.budget = 1.5);
    REFUSED("layer 1: budget is nan", l.budget = NAN);
    REFUSED("layer 1: window 63 is shorter than a block of 64", l.window = 63);
    REFUSED("must not be negative", l.sinks = -1);
    REFUSED("sinks without a window", l.window = 0);
    REFUSED("block is 32", c.block = 32);
    REFUSED("min_heads is 9", c.min_heads = 9);
    REFUSED("ema_decay is 1", c.feature = LOAR_EMA, c.ema_decay = 1);
    REFUSED("granularity sequence", c.granularity = LOAR_BY_SEQUENCE);
    REFUSED("policy article would never route", c.policy = LOAR_POLICY_article, l.budget = 1);
    REFUSED("policy article would never route", c.tasks[1] = (struct loar_task){true, LOAR_POLICY_article, 9}, c.n_tasks = 2);
    REFUSED("there are 65 tasks", c.n_tasks = 65);
    REFUSED("c is 0", c.policy = LOAR_POLICY_softmax_rel, c.c = 0);
    REFUSED("explore is 0", c.stand_in = LOAR_EXPLORE, c.explore = 0);
    REFUSED("router_dim is 0", c.router_dim = 0);
    REFUSED("2 heads are always on, but budget 0.1 pays for 1 of 8", c.n_always_on = 2, c.always_on[0] = 3, l.budget = 0.1);
    struct loar_config c = good;
    c.feature = LOAR_PROMPT_MEAN;
    c.granularity = LOAR_BY_SEQUENCE;
    assert_ok(loar_check(&c, &shape, fine, 3, &err), &err);
    assert_false(loar_is_leaky(&c));
    c.feature = LOAR_SEQ_MEAN;
    assert_true(loar_is_leaky(&c));
    for (int i = 0; i < LOAR_N_POLICIES; i++) {
        assert_int_equal(loar_choice(loar_policy_names, LOAR_N_POLICIES, policy_of((enum loar_policy)i)->name), i);
        assert_string_equal(loar_policy_names[i], policy_of((enum loar_policy)i)->name);
    }
    assert_int_equal(loar_choice(loar_feature_names, LOAR_N_FEATURES, "seq_mean"), LOAR_SEQ_MEAN);
    assert_int_equal(loar_choice(loar_feature_names, LOAR_N_FEATURES, "mean"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks),       cmocka_unit_test(rules),       cmocka_unit_test(completion), cmocka_unit_test(gates),
        cmocka_unit_test(gradients),   cmocka_unit_test(fit), cmocka_unit_test(fit_across_decisions),        cmocka_unit_test(exploration),
        cmocka_unit_test(not_finite),  cmocka_unit_test(configurations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
