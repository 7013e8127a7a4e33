/* Which metrics there are, which evaluation is the best, and when patience ends. */
#include <math.h>
#include <string.h>

#include "launch/best.h"
#include "tests/support/cmocka_all.h"

static struct error err;
static struct metrics metrics;

static struct options options_with(const char *text)
{
    struct options o;
    struct text all = {0};
    text_printf(&all, "model_name_or_path: m\ndatasets: [{path: a}]\neval_datasets: [{path: e}]\neval_strategy: steps\n%s", text);
    assert_ok(options_parse_text(all.data, all.size, "run.yaml", 0, NULL, &o, NULL, &err), &err);
    text_free(&all);
    return o;
}

static struct best_rule rule_of(const char *text)
{
    struct options o = options_with(text);
    struct best_rule rule;
    struct metrics expected = {0};
    assert_ok(metrics_expect(&expected, NULL, METRICS_LOSSES | METRICS_ANSWERS, &err), &err);
    assert_ok(metrics_expect(&expected, "gsm", METRICS_LOSSES | METRICS_CLASSES, &err), &err);
    assert_ok(best_rule_make(&o, &expected, &rule, &err), &err);
    metrics_free(&expected);
    options_free(&o);
    return rule;
}

/* One evaluation with this value at the next step. */
static bool take(const struct best_rule *rule, struct snapshot_meta *meta, double value)
{
    meta->step++;
    metrics_clear(&metrics);
    assert_ok(metrics_add(&metrics, NULL, rule->metric + strlen("eval_"), value, &err), &err);
    return best_take(rule, &metrics, meta);
}

static void names(void **state)
{
    (void)state;
    assert_ok(metrics_add(&metrics, NULL, "loss", 1, &err), &err);
    assert_ok(metrics_add(&metrics, "a-b", "exact_match", 0.5, &err), &err);
    assert_true(*metrics_find(&metrics, "loss") == 1 && *metrics_find(&metrics, "eval_loss") == 1);
    assert_true(*metrics_find(&metrics, "a-b_exact_match") == 0.5 && *metrics_find(&metrics, "eval_a-b_exact_match") == 0.5);
    assert_null(metrics_find(&metrics, "exact_match"));
    assert_null(metrics_find(&metrics, "val_loss"));
    struct text list = {0};
    metrics_put_names(&metrics, &list);
    assert_string_equal(list.data, "loss, a-b_exact_match");
    text_free(&list);
}

static void rules(void **state)
{
    (void)state;
    struct best_rule rule = rule_of("");
    assert_string_equal(rule.metric, "eval_loss");
    assert_false(rule.greater);
    rule = rule_of("metric_for_best_model: eval_gsm_f1\n");
    assert_string_equal(rule.metric, "eval_gsm_f1");
    assert_true(rule.greater);
    assert_true(rule_of("greater_is_better: true\n").greater);
    assert_false(rule_of("metric_for_best_model: gsm_thought_loss\n").greater);
    struct options o = options_with("metric_for_best_model: f1\n");
    struct metrics expected = {0};
    assert_ok(best_rule_make(&o, &expected, &rule, &err), &err); /* nothing is evaluated at all */
    assert_ok(metrics_expect(&expected, NULL, METRICS_LOSSES, &err), &err);
    assert_refused(best_rule_make(&o, &expected, &rule, &err), STATUS_USAGE, &err,
                   "metric_for_best_model: no evaluation gives 'f1'; there will be loss, thought_loss, answer_loss, accuracy");
    metrics_free(&expected);
    options_free(&o);
}

static void the_best_and_patience(void **state)
{
    (void)state;
    struct best_rule rule = rule_of("early_stopping_patience: 2\nearly_stopping_threshold: 0.1\n");
    struct snapshot_meta meta = {0};
    best_reset(&meta);
    assert_true(take(&rule, &meta, 2.0)); /* the first is */
    assert_false(take(&rule, &meta, 2.0)); /* of equal ones the earlier stays */
    assert_int_equal(meta.idle_evaluations, 1);
    assert_true(take(&rule, &meta, 1.5)); /* a gain ends the wait */
    assert_true(meta.best_step == 3 && meta.best_value == 1.5 && meta.idle_evaluations == 0);
    assert_true(take(&rule, &meta, 1.45)); /* better, but by less than the threshold: best, and no gain */
    assert_true(meta.best_step == 4 && meta.idle_evaluations == 1);
    assert_false(best_is_over(&rule, &meta));
    assert_false(take(&rule, &meta, NAN));
    assert_true(meta.best_step == 4 && meta.idle_evaluations == 2);
    assert_true(best_is_over(&rule, &meta));
    rule.patience = 0;
    assert_false(best_is_over(&rule, &meta));
    best_reset(&meta);
    assert_true(meta.best_step == -1 && meta.idle_evaluations == 0 && !*meta.best_metric);
    assert_false(take(&rule, &meta, NAN)); /* never the best, not even as the first */
    struct best_rule match = rule_of("metric_for_best_model: exact_match\n");
    best_reset(&meta);
    assert_true(take(&match, &meta, 0));
    assert_true(take(&match, &meta, 0.25));
    assert_false(take(&match, &meta, 0.125));
    assert_string_equal(meta.best_metric, "eval_exact_match");
}

static int end(void **state)
{
    (void)state;
    metrics_free(&metrics);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(names, end),
        cmocka_unit_test_teardown(rules, end),
        cmocka_unit_test_teardown(the_best_and_patience, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
