/* Counters of workers as lines for people and programs. */
#include <math.h>
#include <string.h>

#include "common/json.h"
#include "common/memory.h"
#include "launch/tally.h"
#include "tests/support/cmocka_all.h"

enum { LAYERS = 3, HEADS = 2, TASKS = 3 };

static const struct loar_layer layers[LAYERS] = {{.routed = true, .budget = 0.5}, {.budget = 1}, {.routed = true, .budget = 0.5}};
static struct loar_plan plan;
static struct model_config config;
static const char *const names[] = {"qa", "gen \"x\"", "unseen"};

static void make_model(bool routed)
{
    plan = (struct loar_plan){LOAR_CONFIG_DEFAULT, layers};
    plan.config.n_tasks = TASKS;
    config = (struct model_config){.layers = LAYERS, .heads = HEADS, .loar = routed ? &plan : NULL};
}

/* Rows of a task in a layer, and in how many of them each head ran. */
static void set_rows(struct counters *c, int layer, int task, int64_t all, int64_t first, int64_t second)
{
    struct routing_counts counts = counters_routing(c);
    routing_counts_at(&counts, layer, task, 0)->rows = first;
    routing_counts_at(&counts, layer, task, 1)->rows = second;
    routing_counts_at(&counts, layer, task, HEADS)->rows = all;
}

static struct json *parsed(const struct text *text, const char *end)
{
    struct error err;
    struct json *out;
    struct text whole = {0};
    text_printf(&whole, "%s%s%s", text->data[0] == '{' ? "" : "{", text->data, end);
    assert_ok(json_parse(whole.data, whole.size, "line", &out, &err), &err);
    text_free(&whole);
    return out;
}

static double number(const struct json *object, const char *key)
{
    const struct json *member = json_member(object, key);
    assert_non_null(member);
    return json_to_real(member);
}

static void routed(void **state)
{
    (void)state;
    struct error err;
    struct tally t;
    struct counters step;
    make_model(true);
    assert_ok(tally_create(&config, names, TASKS, &t, &err), &err);
    assert_ok(counters_create(LAYERS, TASKS, HEADS, 0, &step, &err), &err);
    step.items[COUNTERS_FLOPS] = 3000000000;
    step.items[COUNTERS_DENSE_FLOPS] = 4000000000;
    step.items[COUNTERS_TIMES + MODEL_PART_ATTENTION] = 7000000;
    counters_add_loss(&step, 0, 8, 1.5);
    counters_add_loss(&step, 1, 8, 2.5);
    counters_add_loss(&step, 7, 8, 0.25);
    counters_add_loss(&step, 6, 8, NAN);
    set_rows(&step, 0, 0, 100, 100, 50);
    set_rows(&step, 0, 1, 300, 0, 150);
    set_rows(&step, 2, 0, 100, 20, 0);
    set_rows(&step, 2, 1, 300, 300, 300);
    tally_add(&t, step.items, step.count, 1.5);
    tally_add(&t, step.items, step.count, 1.1);
    tally_add(&t, step.items, 3, 1); /* of another shape: nothing to add */
    t.steps = 2;
    assert_true(fabs(tally_active(&t, 0) - 300.0 / 800) < 1e-12 && tally_active(&t, 1) == 1);
    assert_true(fabs(tally_active(&t, 2) - 620.0 / 800) < 1e-12);
    struct report_extra extra = {0};
    tally_put(&t, "train", 40, &extra);
    assert_string_equal(extra.words.data, " heads 0.72");
    struct json *json = parsed(&extra.json, "}");
    assert_true(number(json, "attention_gflop") == 3 && number(json, "attention_share") == 0.75);
    assert_true(fabs(number(json, "active_heads") - (0.375 + 1 + 0.775) / 3) < 1e-12);
    assert_true(fabs(number(json, "imbalance") - 1.8) < 1e-12 && number(json, "attention_ms") == 7 && number(json, "mlp_ms") == 0);
    const struct json *quarters = json_member(json, "loss_by_quarter");
    assert_true(json_to_real(json_at(quarters, 0)) == 2 && json_to_real(json_at(quarters, 3)) == 0.25);
    assert_int_equal(json_kind(json_at(quarters, 1)), JSON_KIND_NULL);
    json_free(json);
    json = parsed(&extra.record, "}");
    assert_true(number(json, "step") == 40);
    assert_string_equal(json_to_string(json_member(json, "routing"), NULL), "train");
    const struct json *active = json_member(json, "active");
    assert_int_equal(json_count(active), TASKS);
    assert_string_equal(json_to_string(json_at(json_member(json, "tasks"), 1), NULL), names[1]);
    const double wanted[2][LAYERS][HEADS] = {{{1, 0.5}, {1, 1}, {0.2, 0}}, {{0, 0.5}, {1, 1}, {1, 1}}};
    for (int task = 0; task < 2; task++)
        for (int i = 0; i < LAYERS; i++)
            for (int h = 0; h < HEADS; h++)
                assert_true(json_to_real(json_at(json_at(json_at(active, (size_t)task), (size_t)i), (size_t)h)) == wanted[task][i][h]);
    assert_int_equal(json_kind(json_at(active, 2)), JSON_KIND_NULL);
    json_free(json);
    assert_non_null(strstr(extra.lines.data, "heads that ran, by layer: 0.38 1.00 0.78; attention 6.00 GFLOP, 75 % of dense\n"));
    assert_non_null(strstr(extra.lines.data, "attention 14"));
    report_extra_free(&extra);
    tally_clear(&t);
    tally_put(&t, "train", 41, &extra);
    assert_int_equal(extra.json.size + extra.record.size + extra.words.size + extra.lines.size, 0);
    counters_free(&step);
    tally_free(&t);
}

static void dense(void **state)
{
    (void)state;
    struct error err;
    struct tally t;
    make_model(false);
    assert_ok(tally_create(&config, names, TASKS, &t, &err), &err);
    int64_t items[COUNTERS_ROUTING] = {[COUNTERS_FLOPS] = 5, [COUNTERS_DENSE_FLOPS] = 5};
    tally_add(&t, items, COUNTERS_ROUTING, 1);
    struct report_extra extra = {0};
    tally_put(&t, "eval", 1, &extra);
    assert_int_equal(extra.record.size + extra.words.size + extra.lines.size, 0);
    struct json *json = parsed(&extra.json, "}");
    assert_true(number(json, "attention_share") == 1 && number(json, "imbalance") == 1);
    assert_null(json_member(json, "active_heads"));
    json_free(json);
    report_extra_free(&extra);
    tally_free(&t);
    mem_fail_after(0, false);
    assert_refused(tally_create(&config, names, TASKS, &t, &err), STATUS_NOMEM, &err, "counters");
    mem_fail_after(-1, false);
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(routed), cmocka_unit_test(dense)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
