/* The `loar` block: what its words mean for layers and tasks, and what is refused. */
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/loar_block.h"
#include "tests/support/cmocka_all.h"
#include "tests/support/scratch.h"

static struct options o;
static struct model_config model;
static struct loar_setup *setup;
static struct error err;

static enum status plan(const char *block)
{
    char all[1024];
    int size = snprintf(all, sizeof all, "model_name_or_path: m\ndatasets: [{path: a.jsonl, task: qa}, {path: b.jsonl, task: gen}, {path: c.jsonl, task: qa}]\n%s", block);
    enum status st = options_parse_text(all, (size_t)size, "run.yaml", 0, NULL, &o, NULL, &err);
    model = (struct model_config){.width = 64, .layers = 8, .heads = 8, .head_dim = 8};
    if (st == STATUS_OK && (st = loar_block_read(&o, &model, &setup, &err)) != STATUS_OK)
        options_free(&o);
    return st;
}

static void done(void)
{
    loar_setup_free(setup);
    setup = NULL;
    options_free(&o);
}

/* One letter per layer: '.' everything, 'r' routed, 'w' window, 'b' both. */
static void assert_layers(const char *block, const char *wanted)
{
    char found[9] = "";
    assert_ok(plan(block), &err);
    assert_non_null(setup);
    for (int i = 0; i < 8; i++) {
        const struct loar_layer *l = &setup->layers[i];
        found[i] = l->window ? l->routed ? 'b' : 'w' : l->routed ? 'r' : '.';
        assert_true(l->window || !l->sinks);
    }
    assert_string_equal(found, wanted);
    done();
}

static void layers(void **state)
{
    (void)state;
    assert_ok(plan(""), &err);
    assert_null(setup);
    done();
    assert_layers("loar: {layers: article}\n", "bbbbbb..");
    assert_layers("loar: {layers: interleave}\n", "bbb.bbb.");
    assert_layers("loar: {layers: dense}\n", "........");
    assert_layers("loar: {layers: article, window: 0}\n", "rrrrrr..");
    assert_layers("loar: {layers: [{budget: 0.5}, {range: 0-4, window: 128, sinks: 4}]}\n", "bbbbbrrr");
    assert_layers("loar: {layers: [{preset: article, range: 2-7}, {range: -1, window: 64}, {range: 3, routed: false}]}\n", "..bwbb.w");
    assert_layers("loar: {layers: [{routed: true}, {range: -8, routed: false}]}\n", ".rrrrrrr");
    assert_refused(plan("loar: {layers: [article]}\n"), STATUS_USAGE, &err, "wanted a mapping such as {range: 0-5");
    assert_ok(plan("loar: {layers: [{preset: article}, {range: 1, budget: 0.25}, {range: 2, sinks: 9}], budget: 0.4, window: 128, sinks: 3}\n"), &err);
    const struct loar_layer *l = setup->plan.layers;
    assert_true(l[0].budget == 0.4 && l[0].window == 128 && l[0].sinks == 3);
    assert_true(l[1].budget == 0.25 && l[1].window == 128 && l[1].routed);
    assert_true(l[2].sinks == 9 && l[2].window == 128);
    struct text told = {0};
    loar_setup_put_layers(setup, &told);
    assert_string_equal(told.data, "layer 0: window 128 and 3 sinks, 40 % of the heads; layer 1: window 128 and 3 sinks, 25 % of the heads; "
                                   "layer 2: window 128 and 9 sinks, 40 % of the heads; layers 3 to 5: window 128 and 3 sinks, 40 % of "
                                   "the heads; layers 6 to 7: all");
    text_free(&told);
    done();
}

/* A list from a file is the list itself, and its refusals are those of loar.layers. */
static void layers_from_a_file(void **state)
{
    (void)state;
    char path[SCRATCH_SIZE], block[128];
    assert_non_null(scratch_file(path, "block"));
    static const char list[] = "loar:\n  layers:\n    - {range: 0-4, window: 128, sinks: 4, budget: 0.5}\n    - {range: 5, budget: 0.25}\n"
                               "    - {range: 6-7, preset: dense}\n";
    assert_ok(file_replace(path, list, sizeof list - 1, &err), &err);
    snprintf(block, sizeof block, "loar: {layers_file: %s, window: 64}\n", path);
    assert_layers(block, "bbbbbr..");
    assert_ok(plan(block), &err);
    const struct loar_layer *l = setup->layers;
    assert_true(l[4].window == 128 && l[4].sinks == 4 && l[4].budget == 0.5 && l[5].budget == 0.25);
    done();
    assert_ok(file_replace(path, "loar: {layers: [{range: 7-8, window: 64}]}", 42, &err), &err);
    assert_refused(plan(block), STATUS_USAGE, &err, "loar.layers.0: range '7-8' leaves the model");
    assert_int_equal(unlink(path), 0);
    assert_refused(plan(block), STATUS_USAGE, &err, "loar.layers_file: cannot open");
}

static void tasks(void **state)
{
    (void)state;
    assert_ok(plan("loar: {layers: article, budget: 0.5, tasks: [{task: gen, budget: 0.25, policy: topk}], default_task: gen}\n"), &err);
    const struct loar_config *c = &setup->plan.config;
    assert_int_equal(c->n_tasks, 2);
    assert_int_equal(loar_setup_task(setup, "qa"), 0);
    assert_int_equal(loar_setup_task(setup, "gen"), 1);
    assert_int_equal(loar_setup_task(setup, "sums"), -1);
    assert_int_equal(setup->default_task, 1);
    assert_true(loar_task_budget(c, 0, 0.5) == 0.5 && loar_task_budget(c, 1, 0.5) == 0.25);
    assert_int_equal(loar_task_policy(c, 0), LOAR_POLICY_quantile);
    assert_int_equal(loar_task_policy(c, 1), LOAR_POLICY_topk);
    done();
}

static void every_word(void **state)
{
    (void)state;
    assert_ok(plan("loar: {layers: article, policy: topp, features: ema, granularity: token, block: 128, router_dim: 8, router: random, gate: soft,\n"
                   "  always_on: [0, 3], fallback: all, c: 0.9, per_head: true, ema_decay: 0.9, stand_in: explore, explore: 0.1}\n"), &err);
    const struct loar_config *c = &setup->plan.config;
    assert_true(c->policy == LOAR_POLICY_topp && c->feature == LOAR_EMA && c->granularity == LOAR_BY_TOKEN && c->block == 128);
    assert_true(c->router_dim == 8 && c->router == LOAR_RANDOM && c->gate == LOAR_SOFT && c->n_always_on == 2 && c->always_on[1] == 3);
    assert_true(c->fallback == LOAR_FALLBACK_ALL && c->c == 0.9 && c->per_head && c->ema_decay == 0.9);
    assert_true(c->stand_in == LOAR_EXPLORE && c->explore == 0.1);
    done();
    /* The words of the options and those of the router are one list. */
    struct {
        const char *key;
        const char *const *names;
        int count;
    } lists[] = {{"policy", loar_policy_names, LOAR_N_POLICIES},          {"features", loar_feature_names, LOAR_N_FEATURES},
                 {"granularity", loar_granularity_names, LOAR_N_GRANULARITIES}, {"router", loar_router_names, LOAR_N_ROUTERS},
                 {"gate", loar_gate_names, LOAR_N_GATES},                 {"fallback", loar_fallback_names, LOAR_N_FALLBACKS},
                 {"stand_in", loar_stand_in_names, LOAR_N_STAND_INS}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (int k = 0; k < lists[i].count; k++) {
            char block[128];
            snprintf(block, sizeof block, "loar: {layers: [{budget: 0.5}], %s%s: %s}\n", i == 2 ? "features: prompt_mean, " : "",
                     lists[i].key, lists[i].names[k]);
            assert_ok(plan(block), &err);
            done();
        }
}

static void refusals(void **state)
{
    (void)state;
    const struct {
        const char *block, *part;
    } rows[] = {
        {"loar: {layers: articel}\n", "did you mean 'article'?"},
        {"loar: {layers: [{rang: 3}]}\n", "loar.layers.0.rang: unknown key; did you mean 'range'?"},
        {"loar: {layers: [{range: 8, window: 64}]}\n", "loar: loar.layers.0: range '8' leaves the model, whose layers are 0 to 7"},
        {"loar: {layers: [{range: 5-2, window: 64}]}\n", "range '5-2' is none"},
        {"loar: {layers: [{range: -9, window: 64}]}\n", "range '-9' leaves the model"},
        {"loar: {layers: [{range: 3x, window: 64}]}\n", "range '3x' is none"},
        {"loar: {layers: [{budget: 0}]}\n", "loar.layers.0.budget: found '0'"},
        {"loar: {layers: article, budget: 1.5}\n", "loar.budget: found '1.5'"},
        {"loar: {layers: article, window: 32}\n", "window 32 is shorter than a block of 64"},
        {"loar: {layers: article, always_on: [0,1,2,3,4,5,6,7,8]}\n", "always_on lists 9 heads, but the model has only 8"},
        {"loar: {layers: article, always_on: [0.5]}\n", "always_on names head 0.5"},
        {"loar: {layers: article, min_heads: 99999999}\n", "min_heads is"},
        {"loar: {layers: article, default_task: sums}\n", "no data set trains the task 'sums'; there are: qa, gen"},
        {"loar: {layers: article, tasks: [{task: sums, budget: 0.5}]}\n", "loar.tasks: no data set trains the task 'sums'"},
        {"loar: {layers: article, tasks: [{budget: 0.5}]}\n", "entry 0 names no task"},
        {"loar: {layers: article, tasks: [{task: qa}, {task: qa}]}\n", "entries 0 and 1 are both about 'qa'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_refused(plan(rows[i].block), STATUS_USAGE, &err, rows[i].part);
}

static void schedules(void **state)
{
    (void)state;
    struct loar_schedule s;
    assert_ok(plan("loar: {layers: article, dense_steps: 30, anneal_share: 0.5, frozen_share: 0.3}\n"), &err);
    assert_ok(loar_block_schedule(&o, false, 200, &s, &err), &err);
    assert_true(s.total_steps == 200 && s.dense_steps == 30 && s.anneal_share == 0.5 && s.frozen_share == 0.3);
    assert_refused(loar_block_schedule(&o, false, 100, &s, &err), STATUS_USAGE, &err, "loar: 30 dense, 50 annealing and 30 frozen steps");
    done();
    assert_ok(plan("loar: {dense_steps: 30}\n"), &err);
    assert_ok(loar_block_schedule(&o, false, 10, &s, &err), &err);
    assert_refused(loar_block_schedule(&o, true, 10, &s, &err), STATUS_USAGE, &err, "loar: 30 dense");
    done();
    /* What was learnt before is let in at once, unless the run file says otherwise. */
    assert_ok(plan(""), &err);
    assert_ok(loar_block_schedule(&o, true, 10, &s, &err), &err);
    assert_true(s.anneal_share == 0);
    assert_ok(loar_block_schedule(&o, false, 10, &s, &err), &err);
    assert_true(s.anneal_share == 0.25);
    done();
    assert_ok(plan("loar: {anneal_share: 0.5}\n"), &err);
    assert_ok(loar_block_schedule(&o, true, 10, &s, &err), &err);
    assert_true(s.anneal_share == 0.5);
    done();
}

static void short_memory(void **state)
{
    (void)state;
    for (long n = 0, live = mem_live();; n++) {
        mem_fail_after(n, false);
        enum status st = plan("loar: {layers: [{preset: article}, {range: 1, budget: 0.25}], tasks: [{task: gen, budget: 0.25}]}\n");
        mem_fail_after(-1, false);
        if (st == STATUS_OK)
            break;
        assert_int_equal(st, STATUS_NOMEM);
        assert_int_equal(mem_live(), live);
    }
    done();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers),    cmocka_unit_test(layers_from_a_file), cmocka_unit_test(tasks),
        cmocka_unit_test(every_word), cmocka_unit_test(refusals),          cmocka_unit_test(schedules),
        cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
