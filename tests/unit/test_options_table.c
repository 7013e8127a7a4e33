/* The table of options, row by row: every key is set, got, bounded, refused and documented, and every alias reaches its key. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/options_table.h"
#include "common/options_value.h"
#include "tests/support/parsed_options.h"

static void assert_value(const char *key, const char *wanted)
{
    struct text text = {0};
    text_puts(&text, "");
    assert_true(options_get(&o, key, &text));
    assert_string_equal(text.data, wanted);
    text_free(&text);
}

static bool inside(const struct option_limits *l, double v)
{
    return (l->low_open ? v > l->low : v >= l->low) && (l->high_open ? v < l->high : v <= l->high);
}

/* A value of the row that is not its default. */
static void other_value(const struct option_row *row, char out[128])
{
    double fallback = strtod(row->fallback, NULL);
    static const double tries[] = {1, 2, 3, 0.5, 0.25, 100, 4096, 0};
    snprintf(out, 128, "an \"other\": value");
    if (row->kind == OPTION_KIND_BOOL)
        snprintf(out, 128, "%s", strcmp(row->fallback, "true") ? "true" : "false");
    else if (row->kind == OPTION_KIND_CHOICE)
        snprintf(out, 128, "%s", strcmp(row->fallback, row->limits.words[0]) ? row->limits.words[0] : row->limits.words[1]);
    else if (row->kind == OPTION_KIND_STRINGS)
        snprintf(out, 128, "[\"a b\", c]");
    else if (row->kind == OPTION_KIND_REALS)
        snprintf(out, 128, "[0.25, 0.5]");
    else if (row->kind == OPTION_KIND_DATASETS)
        snprintf(out, 128, "[{path: x.jsonl, name: n, format: gsm8k, task: t, weight: 2, max_samples: 7, answer_column: a}]");
    else if (row->kind == OPTION_KIND_LAYERS)
        snprintf(out, 128, "[{range: 0-5, window: 128, budget: 0.5, routed: true}, {preset: dense, range: -1}]");
    else if (row->kind == OPTION_KIND_TASKS)
        snprintf(out, 128, "{task: t, budget: 0.25, policy: topk}");
    else if (row->kind == OPTION_KIND_STAGES)
        snprintf(out, 128, "[{name: a, max_samples: 7}, {start_from: best, learning_rate: 0.5}]");
    else if (row->kind != OPTION_KIND_STRING)
        for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++)
            if (inside(&row->limits, tries[i]) && tries[i] != fallback && (row->kind == OPTION_KIND_REAL || tries[i] == floor(tries[i]))) {
                snprintf(out, 128, "%g", tries[i]);
                return;
            }
}

static void every_key_is_set_and_got(void **state)
{
    (void)state;
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        char value[128];
        assert_ok(options_defaults(&o, &err), &err);
        assert_true(option_value_is_default(row, (char *)&o + row->offset));
        other_value(row, value);
        if (i == OPTION_ps_servers)
            snprintf(value, sizeof value, "1"); /* the only one there is */
        assert_ok(options_set(&o, row->name, value, &err), &err);
        assert_int_equal(option_value_is_default(row, (char *)&o + row->offset), i == OPTION_ps_servers);
        struct text once = {0}, twice = {0};
        assert_true(options_get(&o, row->name, &once));
        if (!option_entries(row->kind))
            assert_string_equal(once.data, value);
        assert_int_equal(options_get_source(&o, row->name).origin, ORIGIN_COMMAND_LINE);
        options_free(&o);
        assert_ok(options_defaults(&o, &err), &err);
        assert_ok(options_set(&o, row->name, once.data, &err), &err);
        assert_true(options_get(&o, row->name, &twice));
        assert_string_equal(once.data, twice.data);
        /* null is the default again */
        assert_ok(options_set(&o, row->name, "null", &err), &err);
        assert_true(option_value_is_default(row, (char *)&o + row->offset));
        options_free(&o);
        text_free(&once);
        text_free(&twice);
    }
}

static void every_key_refuses_nonsense(void **state)
{
    (void)state;
    assert_ok(options_defaults(&o, &err), &err);
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        if (row->kind == OPTION_KIND_STRING || row->kind == OPTION_KIND_STRINGS)
            continue;
        assert_refused(options_set(&o, row->name, "nonsense", &err), STATUS_USAGE, &err, row->name);
        assert_refused(options_set(&o, row->name, "nonsense", &err), STATUS_USAGE, &err, "wanted");
        assert_true(option_value_is_default(row, (char *)&o + row->offset));
    }
    options_free(&o);
}

static void every_bound_holds(void **state)
{
    (void)state;
    assert_ok(options_defaults(&o, &err), &err);
    int checked = 0;
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        if (row->kind != OPTION_KIND_INT && row->kind != OPTION_KIND_REAL)
            continue;
        for (int high = 0; high < 2; high++) {
            double bound = high ? row->limits.high : row->limits.low;
            bool open = high ? row->limits.high_open : row->limits.low_open;
            char text[64];
            if (!isfinite(bound))
                continue;
            snprintf(text, sizeof text, "%.0f", bound);
            assert_int_equal(options_set(&o, row->name, text, &err), open && bound != strtod(row->fallback, NULL) ? STATUS_USAGE : STATUS_OK);
            double outside = bound + (high ? 3 : -3);
            snprintf(text, sizeof text, "%.0f", outside);
            assert_int_equal(options_set(&o, row->name, text, &err), STATUS_USAGE);
            checked++;
        }
        assert_ok(options_set(&o, row->name, row->fallback, &err), &err);
    }
    assert_true(checked > 50);
    options_free(&o);
}

static void every_alias_reaches_its_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < option_alias_count; i++) {
        const struct option_alias *alias = &option_aliases[i];
        const struct option_row *row = option_find(alias->name, NULL);
        char value[128];
        assert_non_null(row);
        for (int k = 0; k < OPTION_COUNT; k++)
            assert_string_not_equal(alias->other, option_rows[k].name);
        assert_ok(options_defaults(&o, &err), &err);
        other_value(row, value);
        assert_ok(options_set(&o, alias->other, value, &err), &err);
        if (alias->inverse)
            assert_value(alias->name, strcmp(value, "true") ? "true" : "false");
        else
            assert_value(alias->name, value);
        assert_string_equal(options_get_source(&o, alias->name).alias, alias->other);
        options_free(&o);
    }
}

static void every_row_is_documented(void **state)
{
    (void)state;
    struct text help = {0}, page = {0};
    options_help(&help);
    options_reference(&page);
    for (int i = 0; i < OPTION_COUNT; i++) {
        char line[128], cell[128];
        snprintf(line, sizeof line, "\n  %s\n", option_rows[i].name);
        snprintf(cell, sizeof cell, "\n| `%s` | ", option_rows[i].name);
        assert_non_null(strstr(help.data, line));
        assert_non_null(strstr(page.data, cell));
        assert_true(strlen(option_rows[i].help) > 5);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(option_rows[i].name, option_rows[k].name);
    }
    for (const char *line = help.data; *line;) {
        size_t size = strcspn(line, "\n");
        assert_true(size <= 80);
        line += size + (line[size] == '\n');
    }
    text_free(&help);
    text_free(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_is_set_and_got),
        cmocka_unit_test(every_key_refuses_nonsense),
        cmocka_unit_test(every_bound_holds),
        cmocka_unit_test(every_alias_reaches_its_key),
        cmocka_unit_test(every_row_is_documented),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
