/* `loar report`: axes, escaping, what is read of metrics.jsonl, and pages that must be well-formed whatever a run wrote. */
#include "tests/support/cmocka_all.h"
#include "tests/support/capture.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/commands.h"
#include "launch/history.h"
#include "launch/page.h"
#include "launch/svg.h"
#include "tests/support/scratch.h"

static struct error err;
static char folder[SCRATCH_SIZE], metrics[128], page_path[128], other_path[128], output[128], errors[128];

static int set_up(void **state)
{
    (void)state;
    if (!scratch_folder(folder, "page"))
        return 1;
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", folder);
    snprintf(page_path, sizeof page_path, "%s/report.html", folder);
    snprintf(other_path, sizeof other_path, "%s/other.html", folder);
    snprintf(output, sizeof output, "%s/output", folder);
    snprintf(errors, sizeof errors, "%s/errors", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    const char *const files[] = {metrics, page_path, other_path, output, errors};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        unlink(files[i]);
    return rmdir(folder); /* fails if anything else was left */
}

/* ---- well-formed ---- */

enum { DEPTH_MAX = 64, TAG_SIZE = 32 };

static const char *skip_attributes(const char *at)
{
    while (*at && *at != '>' && *at != '/') {
        assert_int_equal(*at, ' ');
        at += strspn(at, " \n");
        size_t name = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-0123456789");
        assert_true(name > 0 && at[name] == '=' && at[name + 1] == '"');
        at += name + 2;
        size_t value = strcspn(at, "\"<");
        assert_int_equal(at[value], '"');
        at += value + 1;
    }
    return at;
}

static const char *skip_entity(const char *at)
{
    static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&#8239;"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strncmp(at, names[i], strlen(names[i])))
            return at + strlen(names[i]);
    fail_msg("a bare & at '%.30s'", at);
    return NULL;
}

/* Every tag is closed in order, every attribute quoted, and no markup character is left bare. */
static void expect_well_formed(const char *page)
{
    static const char doctype[] = "<!DOCTYPE html>";
    char open[DEPTH_MAX][TAG_SIZE];
    int depth = 0, elements = 0;
    assert_memory_equal(page, doctype, sizeof doctype - 1);
    for (const char *at = page + sizeof doctype - 1; *at;) {
        if (*at == '&') {
            at = skip_entity(at);
        } else if (*at != '<') {
            assert_true((unsigned char)*at >= ' ' || *at == '\n' || *at == '\t');
            at++;
        } else {
            bool closing = at[1] == '/';
            const char *name = at + 1 + closing;
            size_t size = strspn(name, "abcdefghijklmnopqrstuvwxyz123456789");
            assert_true(size > 0 && size < TAG_SIZE && depth < DEPTH_MAX);
            at = skip_attributes(name + size);
            if (closing) {
                assert_true(depth > 0 && strlen(open[depth - 1]) == size && !strncmp(open[depth - 1], name, size));
                depth--;
            } else if (*at == '/') {
                at++;
            } else {
                snprintf(open[depth++], TAG_SIZE, "%.*s", (int)size, name);
                elements++;
            }
            assert_int_equal(*at++, '>');
        }
    }
    assert_int_equal(depth, 0);
    assert_true(elements > 5);
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "http"));
    assert_null(strstr(page, " src="));
}

/* The page of these lines; release with text_free. */
static struct text page_of(const char *lines)
{
    struct history history;
    struct text page = {0};
    assert_ok(history_read(lines, strlen(lines), &history, &err), &err);
    struct page_request request = {.folder = "/runs/a <run>/", .history = &history, .written = 1700000000};
    assert_ok(page_put(&request, &page, &err), &err);
    history_free(&history);
    expect_well_formed(page.data);
    return page;
}

static void expect(const struct text *page, const char *part, bool wanted)
{
    if ((strstr(page->data, part) != NULL) != wanted)
        fail_msg("%s is%s in the page:\n%s", part, wanted ? " not" : "", page->data);
}

/* ---- svg ---- */

static void ticks_are_round(void **state)
{
    (void)state;
    double t[SVG_TICKS_MAX];
    assert_int_equal(svg_ticks(0, 1, 5, t), 6);
    assert_true(t[0] == 0 && fabs(t[1] - 0.2) < 1e-12 && t[5] == 1);
    assert_int_equal(svg_ticks(-3.2, 4.1, 5, t), 4);
    assert_true(t[0] == -2 && t[1] == 0 && t[3] == 4);
    assert_int_equal(svg_ticks(7, 7, 5, t), 1);
    assert_true(t[0] == 7);
    int n = svg_ticks(1e300, 1.5e300, 6, t);
    assert_true(n >= 2 && n <= SVG_TICKS_MAX && t[0] >= 1e300 * 0.999 && t[n - 1] <= 1.5e300 * 1.001);
    n = svg_ticks(1e15, 1e15 + 1, 6, t);
    assert_true(n >= 1 && n <= SVG_TICKS_MAX);
    n = svg_log_ticks(0.03, 6, t);
    assert_true(n == 7 && fabs(t[0] - 0.05) < 1e-12 && fabs(t[n - 1] - 5) < 1e-9);
    n = svg_log_ticks(1e-30, 1e30, t);
    assert_true(n > 3 && n <= SVG_TICKS_MAX && t[0] >= 1e-30 * 0.99 && t[n - 1] <= 1e30 * 1.01);
}

static void numbers_are_short(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"}, {1.23456, "1.235"}, {0.000105, "1.05e-4"}, {-0.0002, "-2e-4"}, {150000, "150000"}, {2500000, "2.5e6"},
                 {12, "12"}, {NAN, "-"}, {INFINITY, "inf"}, {-INFINITY, "-inf"}};
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(svg_number(text, cases[i].value), cases[i].text);
}

static void text_is_escaped(void **state)
{
    (void)state;
    struct text out = {0};
    svg_puts(&out, "</script><b>&amp;\"'\n");
    assert_string_equal(out.data, "&lt;/script&gt;&lt;b&gt;&amp;amp;&quot;&#39;\n");
    text_clear(&out);
    /* control characters, a cut character, an overlong one, a surrogate, a noncharacter; CR is dropped */
    svg_put_text(&out, "a\x01\r\xc3\xa4\xe2\x82|\xc0\x80|\xed\xa0\x80|\xef\xbf\xbe|\xf0\x9f\x98\x80\xc3", 24);
    assert_string_equal(out.data, "a\xef\xbf\xbd\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd|"
                                  "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd|\xf0\x9f\x98\x80\xef\xbf\xbd");
    text_free(&out);
}

/* Counts of a piece in a text. */
static int times(const char *text, const char *part)
{
    int count = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        count++;
    return count;
}

static void curves_have_gaps_and_few_points(void **state)
{
    (void)state;
    enum { MANY = 50000 };
    double x[5] = {1, 2, 3, 4, 5}, y[5] = {5, NAN, 3, INFINITY, 1};
    struct svg_series series = {.name = "s", .x = x, .y = y, .count = 5};
    struct svg_chart chart = {.title = "t", .x_label = "step", .series = &series, .n_series = 1};
    struct text out = {0};
    assert_true(svg_chart(&out, &chart));
    const char *curve = strstr(strstr(out.data, "class=\"chart\""), "class=\"curve s0\"");
    assert_non_null(curve);
    assert_int_equal(times(curve, "M"), 3); /* begins anew behind each gap */
    assert_int_equal(times(out.data, "<circle class=\"dot s0\""), 3);
    assert_non_null(strstr(out.data, "<title>s 3 at 3</title>"));
    y[0] = y[2] = y[4] = NAN;
    text_clear(&out);
    assert_false(svg_chart(&out, &chart));
    assert_int_equal(out.size, 0);
    static double many_x[MANY], many_y[MANY];
    for (int i = 0; i < MANY; i++) {
        many_x[i] = i;
        many_y[i] = i == 31234 ? 1000 : 1 + 0.1 * (i % 7); /* one spike must survive */
    }
    series = (struct svg_series){.name = "s", .x = many_x, .y = many_y, .count = MANY};
    assert_true(svg_chart(&out, &chart));
    assert_true(out.size < 40000);
    const char *path = strstr(strstr(out.data, "class=\"chart\""), "class=\"curve s0\" d=\"M");
    double highest = INFINITY, lowest = 0;
    char *next;
    for (path = strchr(path, 'M'); *path == 'M' || *path == 'L'; path = next) {
        strtod(path + 1, &next);
        double at = strtod(next, &next);
        highest = fmin(highest, at);
        lowest = fmax(lowest, at);
    }
    assert_true(highest < 40 && lowest > 200 && *path == '"'); /* the view box grows downwards */
    text_free(&out);
}

/* ---- history ---- */

static const char staged[] =
    "{\"step\": 0, \"plan\": {\"run_name\": \"r\", \"model\": \"m\", \"hosts\": \"h\", \"ranks\": 3, \"workers\": 2, \"first_step\": 0,"
    " \"started\": \"2026-01-02T03:04:05Z\", \"total_steps\": 40, \"steps_per_epoch\": 10, \"parameters\": 1234567, \"trained\": 10,"
    " \"data\": [{\"name\": \"rows\", \"evaluation\": false, \"rows\": 9, \"prompt_tokens\": 1, \"thought_tokens\": 2, \"answer_tokens\": 3,"
    " \"end_tokens\": 4}, {\"name\": \"a\", \"evaluation\": true}, {\"name\": \"a_b\", \"evaluation\": true}],"
    " \"run_file\": \"seed: 1 # <x>\\n\", \"options\": \"seed: 1\\n\", \"notes\": \"note one\\nnote two\"}}\n"
    "{\"step\": 0, \"stage\": \"short\", \"begins\": true}\n"
    "{\"step\": 10, \"loss\": 3, \"thought_loss\": 4, \"answer_loss\": 2, \"accuracy\": 0.5, \"tokens\": 50, \"elapsed_s\": 10, \"left_s\": 30,"
    " \"learning_rate\": 0.001, \"grad_norm\": null, \"slowest_rank\": 2, \"slowest_lag_ms\": 30, \"median_lag_ms\": 10, \"imbalance\": 1.5,"
    " \"active_heads\": 0.5}\n"
    "{\"step\": 10, \"eval_loss\": 2.5, \"eval_a_loss\": 2, \"eval_a_b_loss\": 3, \"eval_a_exact_match\": 0.25, \"eval_a_b_f1\": 0.5,"
    " \"eval_a_cut\": 0.125, \"eval_a_odd\": 7, \"eval_thought_loss\": 1, \"eval_runtime_s\": 1, \"active_heads\": 0.25, \"stage\": \"short\"}\n"
    "{\"step\": 10, \"sample\": {\"set\": \"a\", \"prompt\": \"P\", \"thought\": \"T1\", \"answer\": \"A\", \"expected\": \"E\", \"right\": true,"
    " \"status\": \"complete\"}}\n"
    "{\"step\": 10, \"stage\": \"long\", \"begins\": true}\n"
    "{\"step\": 20, \"eval_loss\": 1.5, \"eval_a_loss\": 1.25, \"eval_a_b_loss\": 2.25, \"eval_a_exact_match\": 0.75, \"eval_runtime_s\": 1}\n"
    "{\"step\": 20, \"sample\": {\"set\": \"a\", \"prompt\": \"P\", \"thought\": \"T2\", \"answer\": \"\", \"right\": false, \"status\": \"cut\"}}\n"
    "{\"step\": 20, \"snapshot\": \"step-00000020.h5\", \"bytes\": 5}\n"
    "{\"step\": 20, \"warning\": \"careful\"}\n"
    "{\"step\": 20, \"routing\": \"eval\", \"tasks\": [\"t\", \"none\", \"odd\"], \"active\": [[[1, 0.5], [0.25, 0]], null, [[1], [1, 1]]]}\n";

static void history_sorts_lines(void **state)
{
    (void)state;
    struct history h;
    assert_ok(history_read(staged, sizeof staged - 1, &h, &err), &err);
    assert_true(h.n_broken == 0 && !h.cut && h.n_lines == 11 && h.last_step == 20);
    const struct history_series *s = history_find(&h, "eval_a_exact_match");
    assert_true(s && s->count == 2 && s->steps[1] == 20 && s->values[1] == 0.75 && s->stages[0] == 0 && s->stages[1] == 1);
    assert_true(history_last(s, 0) == 0.25 && history_last(s, HISTORY_ANY) == 0.75 && isnan(history_last(s, -1)));
    assert_true(isnan(history_last(history_find(&h, "grad_norm"), HISTORY_ANY)) && history_find(&h, "grad_norm")->count == 1);
    /* What an evaluation counted is not mixed with what training did; a snapshot's numbers are none of a step. */
    assert_true(history_find(&h, "active_heads")->count == 1 && history_find(&h, "eval_active_heads")->values[0] == 0.25);
    assert_null(history_find(&h, "bytes"));
    assert_true(h.n_stages == 2 && !strcmp(h.stages[1], "long") && h.lines[HISTORY_SAMPLE].count == 2);
    assert_true(isnan(history_last(NULL, HISTORY_ANY)));
    struct page_sets sets;
    const char *metric = NULL;
    assert_true(page_sets_find(&h, &sets));
    assert_int_equal(sets.count, 2);
    assert_int_equal(page_sets_of(&sets, "eval_a_b_loss", &metric), 1); /* the longest name */
    assert_string_equal(metric, "loss");
    assert_int_equal(page_sets_of(&sets, "eval_loss", &metric), -1);
    page_sets_free(&sets);
    history_free(&h);
}

static void broken_lines_are_counted(void **state)
{
    (void)state;
    struct history h;
    static const char lines[] = "{\"step\": 1, \"loss\": 2, \"eval_x_loss\": 1, \"eval_x_thought_loss\": 1}\n\n[1]\nnonsense\n{\"loss\": 5}\n{\"step\": 2, \"lo";
    assert_ok(history_read(lines, sizeof lines - 1, &h, &err), &err);
    assert_true(h.n_lines == 5 && h.n_broken == 3 && h.cut && h.last_step == 1);
    assert_int_equal(history_find(&h, "loss")->count, 1); /* a number without a step belongs nowhere */
    struct page_sets sets;
    assert_true(page_sets_find(&h, &sets)); /* without a plan: by the keys */
    assert_int_equal(sets.count, 1);
    assert_string_equal(sets.names[0], "x");
    page_sets_free(&sets);
    history_free(&h);
}

/* ---- pages ---- */

static void page_of_a_staged_run(void **state)
{
    (void)state;
    struct text page = page_of(staged);
    static const char *const parts[] = {
        "<title>r</title>", "no end recorded", "its last line was written 2023-11-14 22:13 UTC", "started 2026-01-02 03:04 UTC",
        "3 ranks (1 server, 2 workers) on h", "1\xe2\x80\xaf" "234\xe2\x80\xaf" "567 parameters", "<th>steps</th><td>40</td><td>20</td>",
        "<th>tokens</th><td></td><td>50</td>", "40 s, by its first line", "eval_loss 1.5 at step 20", "step-00000020.h5",
        "Training loss", "Evaluation loss", "Exact match", "Macro F1", "Learning rate", "<li><svg class=\"key\"",
        "<tr><th>a</th><td>short</td><td class=\"n\">10</td><td class=\"n\">2</td>", "<td class=\"n\">25.0&#8239;%</td>",
        "<tr><th>a_b</th><td>long</td>", "<th>cut</th>", "<td class=\"n\">12.5&#8239;%</td>", "<th>odd</th>", "<td class=\"n\">7</td>",
        ">long</text>", ">short</text>", "layer 1, head 0: 0.25",
        "The map of odd cannot be drawn here", "Share of heads that ran", ">T2</dd>", "1 earlier", ">T1</dd>", ">right</span>", ">wrong</span>",
        ">cut</span>", "<th>2</th><td class=\"n\">1</td><td class=\"n\">20</td>", "mean of all: 1.5", "note two", "step 20: careful",
        "seed: 1 # &lt;x&gt;", "All options",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        expect(&page, parts[i], true);
    expect(&page, "Gradient norm", false); /* null alone is no curve */
    expect(&page, "no JSON object", false);
    text_free(&page);
}

static void page_says_how_the_run_stands(void **state)
{
    (void)state;
    static const struct {
        const char *lines, *wanted, *unwanted;
    } cases[] = {
        {"", "has not recorded anything yet", "Plan and outcome"},
        {"{\"st", "1 of 1 lines of metrics.jsonl is no JSON object and left out; the last one was cut off", "Plan and outcome"},
        {"{\"step\": 1, \"loss\": 2}\n", "a &lt;run&gt;</title>", "a <run>"},
        {"{\"step\": 1, \"loss\": 2}\n{\"step\": 1, \"error\": \"the <loss> is nan\"}\n", "The run failed: the &lt;loss&gt; is nan", "no end recorded"},
        /* an error of a part that was resumed since */
        {"{\"step\": 1, \"error\": \"x\"}\n{\"step\": 5, \"plan\": {\"first_step\": 5, \"resumed_from\": \"s.h5\", \"workers\": 1}}\n{\"step\": 6, \"loss\": 1}\n",
         "<th>resumed</th><td></td><td>after step 5", "The run failed"},
        {"{\"step\": 9, \"plan\": {\"total_steps\": 20}}\n{\"step\": 9, \"end\": {\"stopped\": false, \"step\": 9, \"why\": \"no better for 3 evaluations\","
         " \"best_metric\": \"eval_x\", \"best_value\": 0.5, \"best_step\": 6, \"digest\": \"ab\", \"seconds\": 4000, \"ended\": \"2026-01-02T03:04:05Z\"}}\n",
         "finished early, 11 steps before the last that was planned: no better for 3 evaluations, 2026-01-02 03:04 UTC", "no end recorded"},
        {"{\"step\": 9, \"stage\": \"a\", \"early_stop\": true, \"best_step\": 6, \"eval_loss\": 0.5}\n",
         "<th>early stop</th><td></td><td>after step 9, stage a: no gain since step 6", "Evaluation loss"},
        {"{\"step\": 0, \"plan\": {\"total_steps\": 20, \"steps_per_epoch\": 5, \"data\": [{\"evaluation\": false, \"prompt_tokens\": 1, \"thought_tokens\": 2,"
         " \"answer_tokens\": 3, \"end_tokens\": 4}, {\"evaluation\": true, \"prompt_tokens\": 9}]}}\n{\"step\": 5, \"epoch\": 1, \"tokens\": 9, \"loss\": 1}\n",
         "<th>epochs</th><td>4.00</td><td>1.00</td></tr>\n<tr><th>tokens</th><td>about 40</td><td>9</td>", "NaN"},
        {"{\"step\": 9, \"end\": {\"stopped\": true, \"step\": 9}}\n", "stopped on request", "finished"},
        {"{\"step\": 1, \"loss\": 1, \"elapsed_s\": 100}\n{\"step\": 2, \"loss\": 1, \"elapsed_s\": 30}\n", "2 min 10 s", "x"},
        /* hostile texts everywhere */
        {"{\"step\": 1, \"stage\": \"</text>\", \"begins\": true}\n{\"step\": 2, \"eval_</th>_loss\": 1, \"eval_runtime_s\": 1, \"eval_</th>_<i>\": 1}\n"
         "{\"step\": 2, \"warning\": \"<img>\"}\n{\"step\": 2, \"snapshot\": \"<s>\"}\n"
         "{\"step\": 2, \"routing\": \"train\", \"tasks\": [\"<t>\", 3], \"active\": [[[0.5]], [[2]]]}\n"
         "{\"step\": 2, \"sample\": {\"set\": \"<s>\", \"prompt\": \"</script>\\u0000\", \"thought\": \"]]>\", \"answer\": \"&\", \"status\": \"<\"}}\n",
         "&lt;/script&gt;\xef\xbf\xbd", "<img"},
        {"{\"step\": 2, \"plan\": {\"data\": [3, {\"name\": 5}], \"started\": 7}, \"end\": 3}\n{\"step\": \"x\"}\n{\"step\": 1e300, \"loss\": 1e300}\n"
         "{\"step\": -5, \"loss\": -1e300}\n{\"step\": 3, \"routing\": \"eval\", \"tasks\": 3, \"active\": null}\n", "Plan and outcome", "<x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text page = page_of(cases[i].lines);
        expect(&page, cases[i].wanted, true);
        if (strcmp(cases[i].unwanted, "x"))
            expect(&page, cases[i].unwanted, false);
        text_free(&page);
    }
}

static void short_memory(void **state)
{
    (void)state;
    int n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        struct history h = {0};
        struct text page = {0};
        long live = mem_live();
        mem_fail_after(n, true);
        st = history_read(staged, sizeof staged - 1, &h, &err);
        if (st == STATUS_OK) {
            struct page_request request = {.folder = "r", .history = &h};
            st = page_put(&request, &page, &err);
        }
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        history_free(&h);
        text_free(&page);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 20);
}

/* ---- the command ---- */

#define run(...) run_words(cmd_report, output, errors, "report", __VA_ARGS__)

static void command_writes_a_page(void **state)
{
    (void)state;
    assert_ok(file_replace(metrics, staged, sizeof staged - 1, &err), &err);
    assert_int_equal(run(folder, NULL), 0);
    expect_in(output, "report.html: 11 lines of metrics, up to step 20");
    expect_in(page_path, "</html>\n");
    assert_int_equal(run("--out", other_path, folder, NULL), 0);
    expect_in(other_path, "</html>\n");
    assert_int_equal(run("--help", NULL), 0);
    expect_in(output, "usage: loar report RUN");
    static const char *const bad[][3] = {
        {NULL, NULL, "the folder of a run is needed"}, {"--out", NULL, "--out needs a value"}, {"--oot=x", "r", "unknown option '--oot=x'"},
        {"a", "b", "'b' is too much"},                 {"--out=x.htm", "r", "must end in .html"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(run(bad[i][0], bad[i][1], NULL), 2);
        expect_in(errors, bad[i][2]);
    }
    assert_int_equal(run("/nowhere/at/all", NULL), 3);
    expect_in(errors, "'/nowhere/at/all' is not the folder of a run");
    assert_int_equal(run(folder, "--out=/nowhere/at/all.html", NULL), 3);
    expect_in(errors, "/nowhere/at/all.html");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ticks_are_round),
        cmocka_unit_test(numbers_are_short),
        cmocka_unit_test(text_is_escaped),
        cmocka_unit_test(curves_have_gaps_and_few_points),
        cmocka_unit_test(history_sorts_lines),
        cmocka_unit_test(broken_lines_are_counted),
        cmocka_unit_test(page_of_a_staged_run),
        cmocka_unit_test(page_says_how_the_run_stands),
        cmocka_unit_test(short_memory),
        cmocka_unit_test_setup_teardown(command_writes_a_page, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
