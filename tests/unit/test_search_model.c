/* The model of a search against models made for it: a list gives the loss that a run with the written list has, heads are
 * ranked by what they matter, timing leaves no trace, options that cannot be are refused. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/memory.h"
#include "common/rng.h"
#include "launch/loar_block.h"
#include "launch/search_list.h"
#include "launch/search_model.h"
#include "worker/loar/tensors.h"

enum { LAYERS = 3, HEADS = 4, HEAD_DIM = 4, WIDTH = 16, VOCAB = 40, SINKS = 2 };
static const float span_weights[SPAN_COUNT] = {0, 1, 1, 1};
static struct error err;
static struct threads *pool;
static struct batch batches[2];
static struct search_rows rows = {.batches = batches, .count = 2};
static struct search_space space;

static const struct model_config bare = {.type = MODEL_LLAMA, .width = WIDTH, .hidden = 24, .layers = LAYERS, .heads = HEADS, .kv_heads = 2,
                                         .head_dim = HEAD_DIM, .vocab = VOCAB, .max_positions = 128, .norm_eps = 1e-5f,
                                         .rope_theta = 1e4, .rope_factor = 1, .init_std = 0.3f, .bos = -1};

/* Two batches of three rows of 30 to 60 tokens. */
static int make_rows(void **state)
{
    (void)state;
    uint64_t n = 0;
    assert_ok(threads_create(2, &pool, &err), &err);
    for (int b = 0; b < 2; b++)
        for (int r = 0; r < 3; r++) {
            int32_t tokens[60];
            uint8_t spans[60];
            struct row row = {.tokens = tokens, .spans = spans, .n_tokens = 30 + (int)rng_below(1, 1, n++, 31), .weight = 1};
            for (int i = 0; i < row.n_tokens; i++) {
                tokens[i] = (int32_t)rng_below(1, 1, n++, VOCAB);
                spans[i] = i < 9 ? SPAN_PROMPT : SPAN_ANSWER;
            }
            assert_ok(batch_append(&batches[b], &row, span_weights, &err), &err);
        }
    search_space_make((const int[]){8, 16}, 2, (const double[]){0.25, 0.5, 0.75}, 3, HEADS, 60, &space);
    assert_int_equal(space.count, 12);
    return 0;
}

static int free_rows(void **state)
{
    (void)state;
    batch_free(&batches[0]);
    batch_free(&batches[1]);
    threads_free(pool);
    return mem_live() != 0;
}

static struct loar_layer routed[LAYERS];
static struct loar_plan plan;
static struct search_model m;

static void open_model(enum loar_granularity granularity, enum loar_router_kind router)
{
    struct model_config config = bare;
    plan = (struct loar_plan){LOAR_CONFIG_DEFAULT, routed};
    plan.config.policy = LOAR_POLICY_topk;
    plan.config.router = router;
    plan.config.granularity = granularity;
    config.loar = &plan;
    for (int i = 0; i < LAYERS; i++)
        routed[i] = (struct loar_layer){.routed = true, .budget = 1};
    assert_ok(search_model_create(&config, SINKS, false, pool, &m, &err), &err);
    params_initialise(&m.own, 3, m.values);
}

static double loss_of(const uint8_t *list)
{
    double loss = 0;
    search_model_use(&m, &space, list);
    assert_ok(search_model_loss(&m, &rows, &loss, &err), &err);
    return loss;
}

/* The loss of a model of its own, with the weights of the same names. */
static double loss_beside(const struct model_config *config)
{
    struct params table = {0};
    struct model *model;
    struct loss_sums sum = {0}, more;
    assert_ok(model_params(config, &table, &err), &err);
    float *values = mem_alloc_aligned((size_t)table.values, sizeof *values);
    for (int i = 0; i < table.count; i++) {
        int at = params_find(&m.table, table.items[i].name);
        assert_true(at >= 0 && m.table.items[at].size == table.items[i].size);
        memcpy(values + table.items[i].offset, m.values + m.table.items[at].offset, (size_t)table.items[i].size * sizeof *values);
    }
    assert_ok(model_create(config, &table, &(struct model_options){0}, pool, &model, &err), &err);
    for (int b = 0; b < rows.count; b++) {
        assert_ok(model_loss(model, values, &batches[b], &more, &err), &err);
        loss_sums_add(&sum, &more);
    }
    model_free(model);
    mem_free_aligned(values);
    params_free(&table);
    return sum.loss / sum.weight;
}

/* What a run computes whose loar.layers is the written list. */
static double loss_of_run(const uint8_t *list)
{
    struct options options;
    struct text text = {0};
    struct model_config config = bare;
    search_list_put_yaml(&space, list, LAYERS, SINKS, &text);
    text_puts(&text, "  policy: topk\n  router: static\n  granularity: token\nmodel_name_or_path: m\ndatasets: [{path: a.jsonl}]\n");
    assert_ok(options_parse_text(text.data, text.size, "run.yaml", 0, NULL, &options, NULL, &err), &err);
    struct loar_setup *setup;
    assert_ok(loar_block_read(&options, &config, &setup, &err), &err);
    config.loar = &setup->plan;
    double loss = loss_beside(&config);
    loar_setup_free(setup);
    options_free(&options);
    text_free(&text);
    return loss;
}

static void a_list_is_a_run(void **state)
{
    (void)state;
    uint8_t list[LAYERS] = {0};
    open_model(LOAR_BY_TOKEN, LOAR_LEARNED);
    double dense = loss_beside(&bare), last = dense;
    assert_true(loss_of(list) == dense);
    assert_ok(search_model_rank_heads(&m, &rows, &err), &err);
    assert_true(loss_of(list) == dense);
    for (uint64_t i = 0; i < 30; i++) {
        for (int k = 0; k < LAYERS; k++)
            list[k] = (uint8_t)rng_below(5, 1, i * LAYERS + (uint64_t)k, (uint64_t)space.count);
        list[0] = (uint8_t)(i % (uint64_t)space.count); /* every option */
        double loss = loss_of(list);
        assert_true(loss == loss_of_run(list));
        assert_true(loss != last);
        last = loss;
    }
    search_model_free(&m);
}

static int64_t place_of(const char *format, int layer)
{
    char name[64];
    snprintf(name, sizeof name, format, layer);
    int at = params_find(&m.table, name);
    assert_true(at >= 0);
    return m.table.items[at].offset;
}

/* Heads whose output counts for 1, 0.3, 0.09 ... of what it did are of falling importance. */
static void heads_are_ranked(void **state)
{
    (void)state;
    static const int orders[LAYERS][HEADS] = {{2, 0, 3, 1}, {3, 2, 1, 0}, {1, 3, 0, 2}};
    open_model(LOAR_BY_TOKEN, LOAR_RANDOM);
    for (int i = 0; i < LAYERS; i++) {
        float *o = m.values + place_of("model.layers.%d.self_attn.o_proj.weight", i), factor = 1;
        for (int rank = 0; rank < HEADS; rank++, factor *= 0.1f)
            for (int d = 0; d < WIDTH; d++)
                for (int c = 0; c < HEAD_DIM; c++)
                    o[d * HEADS * HEAD_DIM + orders[i][rank] * HEAD_DIM + c] *= rank == HEADS - 1 ? 0 : factor;
    }
    assert_ok(search_model_rank_heads(&m, &rows, &err), &err);
    for (int i = 0; i < LAYERS; i++) {
        const float *score = m.values + place_of("loar.layers.%d.router.fc2.bias", i);
        assert_true(score[orders[i][0]] == 1);
        for (int rank = 1; rank < HEADS; rank++)
            assert_true(score[orders[i][rank]] < score[orders[i][rank - 1]]);
    }
    /* The idle one goes first, and nobody misses it. */
    const uint8_t dense[LAYERS] = {0}, three[LAYERS] = {1, 1, 1}, two[LAYERS] = {2, 2, 2};
    assert_true(space.items[1].share == 0.75 && space.items[2].share == 0.5);
    double all = loss_of(dense);
    assert_true(fabs(loss_of(three) - all) < 1e-5 && loss_of(three) != all);
    assert_true(fabs(loss_of(two) - all) > 1e-5);
    search_model_free(&m);
}

static void shares_need_decisions(void **state)
{
    (void)state;
    bool skips;
    open_model(LOAR_BY_TOKEN, LOAR_LEARNED);
    assert_ok(search_model_skips(&m, &rows, &skips, &err), &err);
    assert_true(skips);
    search_model_free(&m);
    open_model(LOAR_BY_BLOCK, LOAR_LEARNED); /* the first block of 64 runs all heads */
    assert_ok(search_model_skips(&m, &rows, &skips, &err), &err);
    assert_false(skips);
    assert_refused(search_model_check(&m, &space, &err), STATUS_USAGE, &err, "a layer with window 16 and 1 of the heads: layer 0: window 16 is "
                   "shorter than a block of 64");
    m.plan.config.n_always_on = 2;
    m.plan.config.always_on[1] = 3;
    struct search_space heads = {2, {{0, 1}, {0, 0.25}}};
    assert_refused(search_model_check(&m, &heads, &err), STATUS_USAGE, &err, "a layer with window 0 and 0.25 of the heads: layer 0: 2 heads are "
                   "always on, but budget 0.25 pays for 1");
    heads.items[1].share = 0.5;
    assert_ok(search_model_check(&m, &heads, &err), &err);
    search_model_free(&m);
}

static void times(void **state)
{
    (void)state;
    for (int router = LOAR_LEARNED; router <= LOAR_RANDOM; router++) {
        double cost[12] = {0};
        const uint8_t list[LAYERS] = {7, 0, 2};
        open_model(LOAR_BY_TOKEN, (enum loar_router_kind)router);
        assert_ok(search_model_rank_heads(&m, &rows, &err), &err);
        double before = loss_of(list);
        assert_ok(search_model_time(&m, &space, &rows, 2, cost, &err), &err);
        for (int o = 0; o < space.count; o++)
            assert_true(cost[o] > 0 && isfinite(cost[o]));
        assert_true(loss_of(list) == before);
        search_model_free(&m);
    }
}

static enum status whole_course(void)
{
    double cost[12];
    struct model_config config = bare;
    config.loar = &plan;
    TRY(search_model_create(&config, SINKS, false, pool, &m, &err));
    params_initialise(&m.own, 3, m.values);
    enum status st = search_model_rank_heads(&m, &rows, &err);
    if (st == STATUS_OK)
        st = search_model_time(&m, &space, &rows, 1, cost, &err);
    search_model_free(&m);
    return st;
}

static void short_memory(void **state)
{
    (void)state;
    int n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        long live = mem_live();
        mem_fail_after(n, false);
        st = whole_course();
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_is_a_run), cmocka_unit_test(heads_are_ranked), cmocka_unit_test(shares_need_decisions),
        cmocka_unit_test(times),           cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, make_rows, free_rows);
}
