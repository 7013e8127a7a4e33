/* What routing keeps and reports: the schedule, thresholds, prices and averages by hand, gate gradients and stand-ins,
 * counts, and the tensors of a routed layer. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/memory.h"
#include "common/rng.h"
#include "worker/loar/counts.h"
#include "worker/loar/gate_gradient.h"
#include "worker/loar/policy.h"
#include "worker/loar/schedule.h"
#include "worker/loar/tensors.h"
#include "worker/loar/track.h"

static struct threads *pool_of(int count)
{
    struct error err;
    struct threads *pool = NULL;
    assert_ok(threads_create(count, &pool, &err), &err);
    return pool;
}

static void schedule(void **state)
{
    (void)state;
    struct error err;
    struct loar_schedule s = {100, 20, 0.25, 0.1, false};
    assert_ok(loar_schedule_check(&s, &err), &err);
    const struct {
        int64_t step;
        enum loar_stage stage;
        double budget;
    } moments[] = {{0, LOAR_STAGE_DENSE, 1},      {19, LOAR_STAGE_DENSE, 1},     {20, LOAR_STAGE_ANNEAL, 1},
                   {30, LOAR_STAGE_ANNEAL, 0.8},  {44, LOAR_STAGE_ANNEAL, 0.52}, {45, LOAR_STAGE_ROUTED, 0.5},
                   {89, LOAR_STAGE_ROUTED, 0.5},  {90, LOAR_STAGE_FROZEN, 0.5},  {99, LOAR_STAGE_FROZEN, 0.5}};
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        struct loar_moment m = loar_schedule_at(&s, moments[i].step, 0.5);
        assert_int_equal(m.stage, moments[i].stage);
        assert_true(fabs(m.budget - moments[i].budget) < 1e-12);
    }
    assert_true(loar_schedule_at(&s, 0, 0.5).budget == 1 && loar_schedule_at(&s, 20, 0.5).budget == 1);
    struct loar_schedule none = {100, 0, 0, 0, false};
    assert_ok(loar_schedule_check(&none, &err), &err);
    assert_true(loar_schedule_at(&none, 0, 0.5).budget == 1);
    assert_true(loar_schedule_at(&none, 1, 0.5).budget == 0.5);
    none.let_in = true;
    assert_true(loar_schedule_at(&none, 0, 0.5).budget == 0.5 && loar_schedule_at(&none, 0, 0.5).stage == LOAR_STAGE_ROUTED);
    s.dense_steps = 66;
    assert_refused(loar_schedule_check(&s, &err), STATUS_USAGE, &err, "66 dense, 25 annealing and 10 frozen steps");
    s.dense_steps = -1;
    assert_refused(loar_schedule_check(&s, &err), STATUS_USAGE, &err, "dense_steps is -1");
    s.anneal_share = NAN, s.dense_steps = 0;
    assert_refused(loar_schedule_check(&s, &err), STATUS_USAGE, &err, "anneal_share is nan");
    s.anneal_share = 0, s.frozen_share = 1.1;
    assert_refused(loar_schedule_check(&s, &err), STATUS_USAGE, &err, "frozen_share is 1.1");
}

/* Two routed decisions of task 0, a free one, one of task 1; three heads. */
enum { HEADS = 3 };
static struct decision items[] = {
    {.first = 0, .end = 2, .source = DECISION_FREE},
    {.first = 2, .end = 4, .reads = 2, .source = DECISION_ROUTED},
    {.first = 4, .end = 5, .reads = 4, .source = DECISION_ROUTED},
    {.sequence = 1, .first = 5, .end = 8, .reads = 1, .task = 1, .source = DECISION_ROUTED},
};
static int32_t of_sequence[] = {0, 3, 4}, starts[] = {0, 5, 8};
static const struct decisions four = {.count = 4, .n_tokens = 8, .n_sequences = 2, .items = items,
                                      .of_sequence = of_sequence, .starts = starts};
static const uint8_t on[] = {1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1};

static void assert_values(const float *found, const float *wanted, int n)
{
    for (int i = 0; i < n; i++)
        if (!(fabsf(found[i] - wanted[i]) < 1e-6f)) {
            print_error("[%d]: found %g, wanted %g\n", i, (double)found[i], (double)wanted[i]);
            fail();
        }
}
#define ASSERT_VALUES(found, ...) \
    assert_values((found), (const float[]){__VA_ARGS__}, (int)(sizeof((const float[]){__VA_ARGS__}) / sizeof(float)))

static void thresholds(void **state)
{
    (void)state;
    struct loar_config c = LOAR_CONFIG_DEFAULT;
    c.n_tasks = 2;
    c.fallback = LOAR_FALLBACK_ALL;
    const float z[] = {9, 9, 9, 1, 0, -1, 2, 0.5f, -2, -1, 3, 0}, layer[] = {0.25f, 7, 1, 8};
    const double budgets[] = {0.4, 0.5};
    float threshold[2 * HEADS], rows[2 * (HEADS + 1)], room[4 * HEADS];
    track_read_thresholds(&c, HEADS, layer, threshold);
    ASSERT_VALUES(threshold, 0.25f, 0.25f, 0.25f, 1, 1, 1);
    track_threshold(&c, &four, HEADS, budgets, z, threshold, room, rows); /* two of 2 1 .5 0 -1 -2, two of 3 0 -1 */
    ASSERT_VALUES(rows, 2 * (0.75f - 0.25f), 2, -0.5f - 1, 1);
    c.fallback = LOAR_FALLBACK_MIN_HEADS; /* the best of each decision runs anyway: none of .5 0 -1 -2 is left, one of 0 -1 */
    track_threshold(&c, &four, HEADS, budgets, z, threshold, room, rows);
    ASSERT_VALUES(rows, 2 * (0.5f - 0.25f), 2, -0.5f - 1, 1);
    c.fallback = LOAR_FALLBACK_ALL;
    c.n_always_on = 1;
    c.always_on[0] = 2; /* counts as two of two, one of one: none of 2 1 .5 0 is left, one of 3 -1 */
    track_threshold(&c, &four, HEADS, budgets, z, threshold, room, rows);
    ASSERT_VALUES(rows, 2 * (2 - 0.25f), 2, 1 - 1, 1);
    c.per_head = true;
    track_read_thresholds(&c, HEADS, (const float[]){1.5f, 0.75f, -1.5f, 7, -2, 0, 1, 9}, threshold);
    ASSERT_VALUES(threshold, 1.5f, 0.75f, -1.5f, -2, 0, 1);
    track_threshold(&c, &four, HEADS, budgets, z, threshold, room, rows); /* one of two; one of one; always on or not */
    ASSERT_VALUES(rows, 0, -1, 0, 2, 0, 2, -2, 1);
    c.tasks[0] = (struct loar_task){.has_policy = true, .policy = LOAR_POLICY_topk}; /* keeps none */
    track_threshold(&c, &four, HEADS, budgets, z, threshold, room, rows);
    ASSERT_VALUES(rows, 0, 0, 0, 0, 0, 2, -2, 1);
}

/* The rule that the owner of the table applies leads a threshold to the quantile and a count to all that was seen. */
static void convergence(void **state)
{
    (void)state;
    enum { STEPS = 4000, M = 32 };
    struct loar_config c = LOAR_CONFIG_DEFAULT;
    c.fallback = LOAR_FALLBACK_ALL;
    struct decision many[M];
    for (int m = 0; m < M; m++)
        many[m] = (struct decision){.source = DECISION_ROUTED};
    const struct decisions d = {.count = M, .items = many};
    float row[2] = {0}, move[2], threshold[HEADS], z[M * HEADS], room[M * HEADS];
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < M * HEADS; i++) /* uniform in [0, 3), later heads higher */
            z[i] = (float)(rng_uniform(1, 2, (uint64_t)(step * M * HEADS + i)) + i % HEADS);
        track_read_thresholds(&c, HEADS, row, threshold);
        track_threshold(&c, &d, HEADS, &(const double){0.25}, z, threshold, room, move);
        row[0] += 0.01f * move[0] / move[1];
        row[1] += move[1];
    }
    assert_true(fabsf(row[0] - 2.25f) < 0.02f);
    assert_true(row[1] == STEPS * M);
}

static void multipliers(void **state)
{
    (void)state;
    struct loar_config c = LOAR_CONFIG_DEFAULT;
    c.n_tasks = 3;
    c.policy = LOAR_POLICY_sigmoid;
    const float values[] = {0.5f, 9, -0.25f, 4, -1, 0};
    float multiplier[3], rows[6];
    track_read_multipliers(3, values, multiplier);
    ASSERT_VALUES(multiplier, 0.5f, 0, 0);
    track_multiplier(&c, &four, HEADS, (const double[]){0.4, 0.4, 0.4}, on, values, rows);
    /* task 0 ran 1/3 and 2/3, task 1 1/3 and is drawn back by its debt, task 2 was not seen */
    ASSERT_VALUES(rows, 1 - 0.8f, 2, 1.0f / 3 - 0.4f + 0.25f, 1, 0, 0);
}

static void averages(void **state)
{
    (void)state;
    enum { C = 70 };
    struct error err;
    float attended[8 * HEADS * C], values[HEADS * (C + 1)], rows[HEADS * (C + 1)], first[HEADS * (C + 1)];
    struct row_lists lists = {0};
    for (int i = 0; i < 8 * HEADS * C; i++)
        attended[i] = (float)((i * 37) % 64);
    for (int i = 0; i < HEADS * (C + 1); i++)
        values[i] = (float)(i % 5);
    for (int threads = 1; threads <= 3; threads++) {
        struct threads *pool = pool_of(threads);
        assert_ok(row_lists_make(pool, &four, HEADS, on, NULL, &lists, &err), &err);
        float packed[8 * HEADS * C];
        int64_t offsets[HEADS], at = 0;
        for (int h = 0; h < HEADS; h++) {
            offsets[h] = at;
            for (int64_t j = 0; j < row_lists_count(&lists, h); j++, at += C)
                memcpy(packed + at, attended + (row_lists_of(&lists, h)[j] * HEADS + h) * C, C * sizeof *packed);
        }
        track_average(pool, &lists, C, packed, offsets, C, values, rows);
        for (int h = 0; h < HEADS; h++) {
            float count = 0;
            for (int m = 0; m < 4; m++)
                count += on[m * HEADS + h] ? (float)(items[m].end - items[m].first) : 0;
            for (int i = 0; i < C; i++) {
                float sum = 0;
                for (int m = 0; m < 4; m++)
                    for (int row = items[m].first; on[m * HEADS + h] && row < items[m].end; row++)
                        sum += attended[(row * HEADS + h) * C + i] - values[h * (C + 1) + i];
                assert_true(rows[h * (C + 1) + i] == sum); /* whole numbers */
            }
            assert_true(rows[h * (C + 1) + C] == count);
        }
        if (threads == 1)
            memcpy(first, rows, sizeof rows);
        assert_memory_equal(first, rows, sizeof rows);
        threads_free(pool);
    }
    row_lists_free(&lists);
}

static void gate_gradients(void **state)
{
    (void)state;
    const float delta[8 * HEADS] = {1, -2, 3, 4, 5, 6, 7, NAN, 9, 10, NAN, 12, 13, NAN, 15, 1, 1, -1, 2, 2, -2, 4, 3, 5};
    float clean[8 * HEADS], dgate[4 * HEADS], importance[4 * HEADS];
    const float stand_in[] = {0, 0, 0, 0, 0.5f, 0.25f, 0, 0.125f, 0, -1, -2, 0};
    for (int i = 0; i < 8 * HEADS; i++)
        clean[i] = isnan(delta[i]) ? 1 : delta[i];
    for (int threads = 1; threads <= 3; threads++) {
        struct threads *pool = pool_of(threads);
        gate_gradient(pool, &four, HEADS, delta, on, NULL, dgate);
        ASSERT_VALUES(dgate, 5, 3, 9, 17, 0, 0, 13, 0, 15, 0, 0, 2);
        gate_gradient(pool, &four, HEADS, delta, on, stand_in, dgate);
        ASSERT_VALUES(dgate, 5, 3, 9, 17, 0.5f, 0.25f, 13, 0.125f, 15, -1, -2, 2);
        gate_importance(pool, &four, HEADS, clean, importance);
        ASSERT_VALUES(importance, 2.5f, 3.5f, 4.5f, 8.5f, 1, 10.5f, 13, 1, 15, 7.0f / 3, 2, 8.0f / 3);
        threads_free(pool);
    }
}

/* A skipped head's stand-in is the gradient of a gate on its average output. */
static void stand_ins(void **state)
{
    (void)state;
    enum { WIDTH = 150, C = 20 };
    static float weight[WIDTH * HEADS * C], average[HEADS * (C + 1)], dy[8 * WIDTH];
    static float vectors[HEADS * WIDTH], sums[4 * WIDTH], out[4 * HEADS], first[4 * HEADS];
    for (int i = 0; i < WIDTH * HEADS * C; i++)
        weight[i] = (float)rng_normal(1, 1, (uint64_t)i);
    for (int i = 0; i < HEADS * (C + 1); i++)
        average[i] = (float)rng_normal(1, 2, (uint64_t)i);
    for (int i = 0; i < 8 * WIDTH; i++)
        dy[i] = (float)rng_normal(1, 3, (uint64_t)i);
    for (int threads = 1; threads <= 3; threads++) {
        struct threads *pool = pool_of(threads);
        stand_in_vectors(pool, WIDTH, HEADS, C, weight, average, vectors);
        stand_in_gradient(pool, &four, WIDTH, HEADS, dy, vectors, sums, out);
        if (threads == 1)
            memcpy(first, out, sizeof out);
        assert_memory_equal(first, out, sizeof out);
        threads_free(pool);
    }
    for (int m = 0; m < 4; m++)
        for (int h = 0; h < HEADS; h++) {
            double wanted = 0;
            for (int row = items[m].first; row < items[m].end; row++)
                for (int i = 0; i < WIDTH; i++)
                    for (int c = 0; c < C; c++)
                        wanted += (double)dy[row * WIDTH + i] * (double)weight[(i * HEADS + h) * C + c] *
                                  (double)average[h * (C + 1) + c];
            assert_true(fabs(out[m * HEADS + h] - wanted) < 1e-3);
        }
}

static void counts(void **state)
{
    (void)state;
    struct routing_count counted[2 * 2 * (HEADS + 1)] = {{0}};
    struct routing_counts a = {2, 2, HEADS, counted};
    assert_int_equal(routing_counts_size(&a), sizeof counted / sizeof *counted);
    routing_counts_add(&a, 1, &four, on);
    struct decision kept[] = {{.first = 0, .end = 8, .task = 1, .source = DECISION_KEPT}};
    routing_counts_add(&a, 1, &(struct decisions){.count = 1, .items = kept}, on + 9);
    const int64_t wanted[2][HEADS + 1][2] = {{{3, 5}, {1, 2}, {2, 3}, {3, 5}}, {{0, 0}, {0, 0}, {1, 11}, {1, 11}}};
    for (int task = 0; task < 2; task++)
        for (int h = 0; h <= HEADS; h++) {
            struct routing_count *c = routing_counts_at(&a, 1, task, h);
            assert_true(c->decisions == wanted[task][h][0] && c->rows == wanted[task][h][1]);
            assert_true(routing_counts_at(&a, 0, task, h)->rows == 0);
        }
}

static int named(const struct params *table, const char *name, int64_t rows, int64_t columns)
{
    int index = params_find(table, name);
    assert_true(index >= 0);
    const struct param *p = &table->items[index];
    assert_true(p->role == PARAM_TRAINED && p->shape[0] == rows && (p->n_dims == 1 ? 1 : p->shape[1]) == columns);
    return index;
}

static void tensors(void **state)
{
    (void)state;
    struct error err;
    const struct loar_shape shape = {48, 6, 8};
    struct params table = {0}, empty = {0};
    struct loar_places at;
    struct loar_config c = LOAR_CONFIG_DEFAULT;
    c.n_tasks = 2;
    assert_ok(loar_list(&c, &shape, 3, &table, &err), &err);
    assert_int_equal(table.count, 7);
    named(&table, "loar.layers.3.router.fc1.weight", 64, 48);
    named(&table, "loar.layers.3.router.fc1.bias", 64, 1);
    named(&table, "loar.layers.3.router.fc2.weight", 6, 64);
    named(&table, "loar.layers.3.router.fc2.bias", 6, 1);
    named(&table, "loar.layers.3.router.task_bias", 2, 6);
    named(&table, "loar.layers.3.state.threshold", 2, 2);
    named(&table, "loar.layers.3.state.average", 6, 9);
    for (int i = 0; i < table.count; i++)
        assert_true(table.items[i].rate == (strstr(table.items[i].name, ".threshold") ? 0.1f : strstr(table.items[i].name, ".state.") ? 0.05f : 0));
    assert_ok(loar_find(&c, &shape, 3, &table, &at, &err), &err);
    assert_true(at.multiplier == -1 && at.threshold == table.items[5].offset && at.fc1_weight == 0);

    /* At the first step every policy, even under a small budget, has every score equal and above its threshold. */
    float *values = test_calloc((size_t)table.values, sizeof *values), f[48], hidden[64], z[6];
    params_initialise(&table, 1, values);
    struct router router = loar_router(&c, &shape, &at, values);
    struct router_gradient gradient = loar_router_gradient(&at, values);
    assert_true(gradient.fc2_bias == router.fc2_bias && gradient.task_bias == router.task_bias);
    for (int i = 0; i < 48; i++)
        f[i] = (float)rng_normal(1, 3, (uint64_t)i);
    struct decision routed = {.end = 1, .reads = 1, .task = 1, .source = DECISION_ROUTED};
    struct threads *pool = pool_of(1);
    router_forward(pool, &router, &(struct decisions){.count = 1, .items = &routed}, f, hidden, z);
    ASSERT_VALUES(z, 1, 1, 1, 1, 1, 1);
    threads_free(pool);
    test_free(values);

    assert_refused(loar_find(&c, &shape, 2, &table, &at, &err), STATUS_DATA, &err,
                   "'loar.layers.2.router.fc1.weight' is missing");
    c.router_dim = 32;
    assert_refused(loar_find(&c, &shape, 3, &table, &at, &err), STATUS_DATA, &err, "has 64 x 48 values");
    params_free(&table);
    table = empty;
    c.policy = LOAR_POLICY_sigmoid;
    c.stand_in = LOAR_NORMALISER;
    assert_ok(loar_list(&c, &shape, 0, &table, &err), &err);
    assert_int_equal(table.count, 6);
    assert_true(table.items[named(&table, "loar.layers.0.state.multiplier", 2, 2)].rate == 0.02f);
    params_free(&table);
    table = empty;
    c.policy = LOAR_POLICY_quantile;
    c.per_head = true;
    for (long n = 0, live = mem_live();; n++) {
        mem_fail_after(n, false);
        enum status status = loar_list(&c, &shape, 0, &table, &err);
        mem_fail_after(-1, false);
        if (status == STATUS_OK)
            break;
        assert_int_equal(status, STATUS_NOMEM);
        params_free(&table);
        assert_int_equal(mem_live(), live);
    }
    named(&table, "loar.layers.0.state.threshold", 2, 7);
    params_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedule), cmocka_unit_test(thresholds),     cmocka_unit_test(convergence),
        cmocka_unit_test(averages), cmocka_unit_test(multipliers),    cmocka_unit_test(gate_gradients),
        cmocka_unit_test(counts),   cmocka_unit_test(stand_ins),      cmocka_unit_test(tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
