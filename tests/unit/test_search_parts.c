/* The parts of a search that need no model: splits of rows that share none, costs as a file, lists as text, the lists that
 * are tried and the best of them. */
#include "tests/support/cmocka_all.h"

#include <math.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/search_costs.h"
#include "launch/search_list.h"
#include "launch/search_rows.h"
#include "launch/search_trials.h"
#include "tests/support/scratch.h"

static struct error err;

/* ---- rows ---- */

enum { ROWS = 50 };

static const float span_weights[SPAN_COUNT] = {0, 1, 1, 1};
static struct dataset_part part;
static int64_t starts[ROWS + 1];
static int32_t tokens[ROWS * 4];
static uint8_t spans[ROWS * 4];
static float weights[ROWS];
static const struct dataset dataset = {.rows = ROWS, .starts = starts, .tokens = tokens, .spans = spans, .weights = weights,
                                       .parts = &part, .n_parts = 1};

/* Row i holds 2, 3 or 4 tokens i. */
static void fill_dataset(enum span span)
{
    for (int i = 0; i < ROWS; i++) {
        starts[i + 1] = starts[i] + 2 + i % 3;
        weights[i] = 1;
        for (int64_t k = starts[i]; k < starts[i + 1]; k++) {
            tokens[k] = i;
            spans[k] = (uint8_t)span;
        }
    }
}

static void splits(void **state)
{
    (void)state;
    struct search_rows found[3], again[3];
    int seen[ROWS] = {0}, moved = 0;
    fill_dataset(SPAN_ANSWER);
    assert_ok(search_rows_draw(&dataset, span_weights, 7, 16, 5, 3, found, &err), &err);
    assert_ok(search_rows_draw(&dataset, span_weights, 8, 16, 5, 3, again, &err), &err);
    for (int s = 0; s < 3; s++) {
        assert_true(found[s].count == 4 && found[s].rows == 16 && found[s].shortest == 2 && found[s].longest == 4);
        for (int b = 0; b < 4; b++) {
            const struct batch *batch = &found[s].batches[b];
            assert_int_equal(batch->n_sequences, b < 3 ? 5 : 1);
            for (int i = 0; i < batch->n_sequences; i++) {
                seen[batch->tokens[batch->starts[i]]]++;
                moved += again[s].batches[b].tokens[again[s].batches[b].starts[i]] != batch->tokens[batch->starts[i]];
            }
        }
    }
    int rows = 0;
    for (int i = 0; i < ROWS; i++) {
        assert_true(seen[i] <= 1);
        rows += seen[i];
    }
    assert_int_equal(rows, 48);
    assert_true(moved > 30); /* another seed, other rows */
    search_rows_free(found, 3);
    search_rows_free(again, 3);
    assert_refused(search_rows_draw(&dataset, span_weights, 7, 17, 5, 3, found, &err), STATUS_USAGE, &err,
                   "3 splits of 17 rows cannot be drawn from the 50 training rows");
    assert_refused(search_rows_draw(&dataset, span_weights, 7, 0, 5, 3, found, &err), STATUS_USAGE, &err, "3 splits of 0 rows");
    /* Row 30 becomes a copy of row 3: one of them is drawn. */
    for (int k = 0; k < 2; k++)
        tokens[starts[30] + k] = 3;
    assert_ok(search_rows_draw(&dataset, span_weights, 7, 49, 49, 1, found, &err), &err);
    int copies = 0;
    for (int i = 0; i < 49; i++)
        copies += found[0].batches[0].tokens[found[0].batches[0].starts[i]] == 3;
    assert_int_equal(copies, 1);
    search_rows_free(found, 1);
    assert_refused(search_rows_draw(&dataset, span_weights, 7, 50, 5, 1, found, &err), STATUS_USAGE, &err,
                   "1 splits of 50 rows cannot be drawn from the 50 training rows, of which only 49 differ");
    fill_dataset(SPAN_PROMPT);
    assert_refused(search_rows_draw(&dataset, span_weights, 7, 9, 5, 3, found, &err), STATUS_USAGE, &err, "no token that a loss is taken on");
    fill_dataset(SPAN_ANSWER);
    int n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        long live = mem_live();
        mem_fail_after(n, false);
        st = search_rows_draw(&dataset, span_weights, 7, 4, 2, 3, found, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        if (st == STATUS_OK)
            search_rows_free(found, 3);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 6);
}

/* ---- texts ---- */

static const struct search_space space = {5, {{0, 1}, {0, 0.5}, {256, 1}, {256, 0.5}, {64, 0.125}}};

static void lists_as_text(void **state)
{
    (void)state;
    const uint8_t list[] = {3, 3, 3, 0, 0, 1, 2, 4};
    struct text line = {0}, yaml = {0};
    search_list_put(&space, list, 8, &line);
    assert_string_equal(line.data, "0-2 256/0.5, 3-4 full/1, 5 full/0.5, 6 256/1, 7 64/0.125");
    search_list_put_yaml(&space, list, 8, 4, &yaml);
    assert_string_equal(yaml.data, "loar:\n  layers:\n"
                                   "    - {range: 0-2, window: 256, sinks: 4, budget: 0.5}\n"
                                   "    - {range: 3-4, preset: dense}\n"
                                   "    - {range: 5, budget: 0.5}\n"
                                   "    - {range: 6, window: 256, sinks: 4}\n"
                                   "    - {range: 7, window: 64, sinks: 4, budget: 0.125}\n");
    text_free(&line);
    text_free(&yaml);
}

static char costs_path[SCRATCH_SIZE];

static void write_costs(const char *text)
{
    assert_ok(file_replace(costs_path, text, strlen(text), &err), &err);
}

static void costs_as_file(void **state)
{
    (void)state;
    const double cost[5] = {12.25, 1.0 / 3, 1e-7, 250000, 3};
    double found[5];
    struct text text = {0};
    assert_non_null(scratch_file(costs_path, "costs"));
    search_costs_put(&space, cost, &text);
    text_puts(&text, "  - {window: 99, budget: 0.5, ms: 1}\n"); /* of another search */
    write_costs(text.data);
    assert_ok(search_costs_read(costs_path, &space, found, &err), &err);
    assert_memory_equal(found, cost, sizeof cost);
    int n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        long live = mem_live();
        mem_fail_after(n, false);
        st = search_costs_read(costs_path, &space, found, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 3);
    text_free(&text);
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"", ": wanted the key `costs` alone"},
        {"- a\n", ": wanted the key `costs` alone"},
        {"cost: []\n", ": wanted the key `costs` alone"},
        {"costs: 3\n", ": wanted the key `costs` alone"},
        {"costs: []\nmore: 1\n", ": wanted the key `costs` alone"},
        {"costs: [\n", ":2:1: "},
        {"costs: []\n", ": window 0 with budget 1 is missing"},
        {"costs:\n  - {window: 0, budget: 1, ms: 1}\n", ": window 0 with budget 0.5 is missing"},
        {"costs:\n  - a\n", ":2:5: found a text, wanted an entry such as"},
        {"costs:\n  - {window: 0, budget: 1}\n", ":2:5: ms is missing"},
        {"costs:\n  - {budget: 1, ms: 1}\n", ":2:5: window is missing"},
        {"costs:\n  - {window: 0, budget: 1, ms: 0}\n", ":2:32: ms: found '0'"},
        {"costs:\n  - {window: 0, budget: 1, ms: .nan}\n", "ms: found '.nan'"},
        {"costs:\n  - {window: -1, budget: 1, ms: 1}\n", "window: found '-1'"},
        {"costs:\n  - {window: 0, budget: 2, ms: 1}\n", "budget: found '2'"},
        {"costs:\n  - {window: 0, budget: [1], ms: 1}\n", "budget: found ''"},
        {"costs:\n  - {window: 0, share: 1, ms: 1}\n", ":2:17: unknown key 'share'"},
        {"costs:\n  - {window: 0, budget: 1, ms: 1}\n  - {window: 0, budget: 1.0, ms: 2}\n", ":3:5: window 0 with budget 1 is given twice"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_costs(rows[i].text);
        assert_refused(search_costs_read(costs_path, &space, found, &err), STATUS_USAGE, &err, rows[i].part);
        assert_non_null(strstr(err.text, costs_path));
    }
    assert_int_equal(unlink(costs_path), 0);
    assert_refused(search_costs_read(costs_path, &space, found, &err), STATUS_USAGE, &err, "cannot open");
}

/* ---- trials ---- */

enum { LAYERS = 9 };

static void trials(void **state)
{
    (void)state;
    const double cost[] = {4, 3, 2, 1};
    double loss[LAYERS * 4];
    for (int i = 0; i < LAYERS; i++)
        for (int o = 0; o < 4; o++)
            loss[i * 4 + o] = o == 2 ? 0.001 * (i + 1) : 0.01 * o * (i + 1); /* the third option is cheap for what it does */
    const struct search_problem p = {LAYERS, 4, loss, cost};
    struct search_trials t, again;
    assert_ok(search_trials_make(&p, 0.75, 6, 5, &t, &err), &err);
    assert_ok(search_trials_make(&p, 0.75, 6, 5, &again, &err), &err);
    assert_int_equal(t.count, 14);
    assert_int_equal(t.missing, 0);
    int kinds[3] = {0};
    for (int i = 0; i < t.count; i++) {
        const struct search_trial *now = &t.items[i];
        kinds[now->kind]++;
        assert_true(now->cost <= 0.75 + 1e-9 && (now->kind != TRIAL_RANDOM || now->cost >= 0.675));
        assert_true(now->cost == search_cost(&p, now->list) && now->predicted == search_loss(&p, now->list));
        assert_true(isnan(now->loss[SPLIT_SINGLE]) && isnan(now->loss[SPLIT_CHOICE]) && isnan(now->loss[SPLIT_REPORT]));
        assert_memory_equal(now->list, again.items[i].list, LAYERS);
        assert_true(t.items[0].predicted <= now->predicted);
    }
    assert_true(kinds[TRIAL_CANDIDATE] == 6 && kinds[TRIAL_RANDOM] == 6 && kinds[TRIAL_RULE] == 2);
    assert_string_equal(t.items[0].name, "candidate 1");
    assert_string_equal(t.items[11].name, "random 6");
    assert_memory_equal(t.items[12].list, ((const uint8_t[]){2, 2, 2, 2, 2, 2, 0, 0, 0}), LAYERS);
    assert_memory_equal(t.items[13].list, ((const uint8_t[]){2, 2, 2, 0, 2, 2, 2, 0, 2}), LAYERS);
    assert_true(search_trials_has(&t, "article") && search_trials_has(&t, "interleave"));
    search_trials_free(&again);

    /* The least loss wins; of equals the cheaper one; of a kind only its own. */
    for (int i = 0; i < t.count; i++)
        t.items[i].loss[SPLIT_CHOICE] = 3 - (i == 8) - (i == 4) * 0.5;
    assert_int_equal(search_trials_best(&t, -1), 8);
    assert_int_equal(search_trials_best(&t, TRIAL_CANDIDATE), 4);
    t.items[12].cost = 0.7, t.items[13].cost = 0.6;
    assert_int_equal(search_trials_best(&t, TRIAL_RULE), 13);
    t.items[13].cost = 0.8;
    assert_int_equal(search_trials_best(&t, TRIAL_RULE), 12);
    search_trials_free(&t);

    /* Rules that keep too many layers dense for the budget are left out. */
    assert_ok(search_trials_make(&p, 0.45, 3, 5, &t, &err), &err);
    assert_false(search_trials_has(&t, "article"));
    assert_true(search_trials_has(&t, "interleave"));
    search_trials_free(&t);
    assert_refused(search_trials_make(&p, 0.2, 3, 5, &t, &err), STATUS_USAGE, &err,
                   "--budget is 0.2, but the cheapest option in every layer still costs 0.2500 of the dense attention");
    /* One layer cannot cost 0.85 to 0.94. */
    const struct search_problem one = {1, 4, loss, cost};
    assert_ok(search_trials_make(&one, 0.94, 2, 5, &t, &err), &err);
    assert_int_equal(t.missing, 2);
    assert_int_equal(search_trials_best(&t, TRIAL_RANDOM), -1);
    search_trials_free(&t);
    int n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        long live = mem_live();
        mem_fail_after(n, false);
        st = search_trials_make(&p, 0.75, 3, 5, &t, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        if (st == STATUS_OK)
            search_trials_free(&t);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits),
        cmocka_unit_test(lists_as_text),
        cmocka_unit_test(costs_as_file),
        cmocka_unit_test(trials),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
