/* Curves and maps of a run's page. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "launch/page.h"
#include "launch/svg.h"

enum { CURVES_MAX = PAGE_SETS_MAX + 8, MARKS_MAX = 64, CELLS_MAX = 16384 };

/* A chart in the making. */
struct drawing {
    const struct history *history;
    struct svg_series series[CURVES_MAX];
    struct svg_mark marks[MARKS_MAX];
    struct svg_chart chart;
};

/* Stages, and places where the run was resumed, stand in every chart. */
static void begin(struct drawing *d, const struct history *h, const char *title, bool share, bool log)
{
    *d = (struct drawing){.history = h};
    d->chart = (struct svg_chart){.title = title, .x_label = "step", .share = share, .log = log, .series = d->series, .marks = d->marks};
    const struct history_lines *stages = &h->lines[HISTORY_STAGE], *plans = &h->lines[HISTORY_PLAN];
    for (int i = 0; i < stages->count && d->chart.n_marks < MARKS_MAX; i++)
        d->marks[d->chart.n_marks++] = (struct svg_mark){history_real(stages->items[i], "step"), history_text(stages->items[i], "stage")};
    for (int i = 1; i < plans->count && d->chart.n_marks < MARKS_MAX; i++)
        d->marks[d->chart.n_marks++] = (struct svg_mark){history_real(plans->items[i], "step"), "resumed"};
}

static void add(struct drawing *d, const char *key, const char *name, int colour)
{
    const struct history_series *s = history_find(d->history, key);
    if (!s || d->chart.n_series == CURVES_MAX)
        return;
    d->series[d->chart.n_series++] = (struct svg_series){.name = name, .colour = colour % SVG_COLOURS, .x = s->steps, .y = s->values, .count = s->count};
}

/* A metric of each evaluation set; the first colour is left for that of all sets together. */
static void add_sets(struct drawing *d, const struct page_sets *sets, const char *metric)
{
    for (int i = 0; i < d->history->n_series; i++) {
        const char *of;
        int set = page_sets_of(sets, d->history->series[i].key, &of);
        if (set >= 0 && !strcmp(of, metric))
            add(d, d->history->series[i].key, sets->names[set], set + 1);
    }
}

/* Sections open with their first chart. */
struct section {
    const char *title;
    bool open;
};

static void open_section(struct text *out, struct section *s)
{
    if (!s->open)
        text_printf(out, "<section><h2>%s</h2>\n<div class=\"charts\">\n", s->title);
    s->open = true;
}

static void draw(struct text *out, struct section *s, const struct drawing *d)
{
    struct text chart = {0};
    bool drawn = svg_chart(&chart, &d->chart);
    if (chart.failed)
        out->failed = true;
    if (drawn && !chart.failed) {
        open_section(out, s);
        text_append(out, chart.data, chart.size);
    }
    text_free(&chart);
}

static void close_section(struct text *out, const struct section *s)
{
    if (s->open)
        text_puts(out, "</div></section>\n");
}

void page_put_losses(struct text *out, const struct history *h, const struct page_sets *sets)
{
    struct section section = {.title = "Loss"};
    struct drawing d;
    begin(&d, h, "Training loss", false, true);
    add(&d, "loss", "loss", 0);
    add(&d, "thought_loss", "thoughts", 1);
    add(&d, "answer_loss", "answers", 2);
    draw(out, &section, &d);
    begin(&d, h, "Evaluation loss", false, true);
    if (sets->count != 1)
        add(&d, "eval_loss", "all sets", 0);
    add_sets(&d, sets, "loss");
    draw(out, &section, &d);
    begin(&d, h, "Evaluation loss of thoughts and answers", false, true);
    add(&d, "eval_thought_loss", "thoughts", 1);
    add(&d, "eval_answer_loss", "answers", 2);
    draw(out, &section, &d);
    close_section(out, &section);
}

void page_put_scores(struct text *out, const struct history *h, const struct page_sets *sets)
{
    static const struct {
        const char *metric, *title;
    } scores[] = {{"exact_match", "Exact match"}, {"exact_match_flexible", "Exact match, flexible"}, {"f1", "Macro F1"}, {"accuracy", "Accuracy"}};
    struct section section = {.title = "Scores over the run"};
    struct drawing d;
    for (size_t i = 0; i < sizeof scores / sizeof *scores; i++) {
        char key[64];
        bool training = !strcmp(scores[i].metric, "accuracy");
        snprintf(key, sizeof key, "eval_%s", scores[i].metric);
        begin(&d, h, scores[i].title, true, false);
        if (training)
            add(&d, "accuracy", "training", 0);
        else if (sets->count != 1)
            add(&d, key, "all sets", 0);
        add_sets(&d, sets, scores[i].metric);
        draw(out, &section, &d);
    }
    close_section(out, &section);
}

void page_put_optimisation(struct text *out, const struct history *h)
{
    static const struct {
        const char *key, *title;
        bool log;
    } charts[] = {
        {"learning_rate", "Learning rate", false},
        {"grad_norm", "Gradient norm, before clipping", true},
        {"router_grad_norm", "Gradient norm of the routers, before clipping", true},
        {"tokens_per_second", "Tokens per second", false},
    };
    struct section section = {.title = "Optimisation and speed"};
    struct drawing d;
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++) {
        begin(&d, h, charts[i].title, false, charts[i].log);
        add(&d, charts[i].key, charts[i].title, 0);
        draw(out, &section, &d);
    }
    close_section(out, &section);
}

/* ---- routing ---- */

static bool is_share(const struct json *value)
{
    enum json_kind kind = json_kind(value);
    return (kind == JSON_KIND_INT || kind == JSON_KIND_REAL) && json_to_real(value) >= 0 && json_to_real(value) <= 1;
}

/* [layers][heads] as plain numbers in new memory; NULL where it is no such matrix, is too large to be looked at, or memory is short. */
static double *matrix_of(const struct json *matrix, int *rows, int *columns)
{
    size_t layers = json_count(matrix), heads = json_count(json_at(matrix, 0));
    if (!layers || !heads || layers > CELLS_MAX || heads > CELLS_MAX || layers * heads > CELLS_MAX)
        return NULL;
    double *values = mem_alloc(layers * heads, sizeof *values);
    for (size_t l = 0; values && l < layers; l++)
        for (size_t k = 0; k < heads; k++) {
            const struct json *row = json_at(matrix, l), *value = json_at(row, k);
            bool number = json_count(row) == heads && (is_share(value) || json_kind(value) == JSON_KIND_NULL);
            if (!number) {
                mem_free(values);
                return NULL;
            }
            values[l * heads + k] = is_share(value) ? json_to_real(value) : NAN;
        }
    *rows = (int)layers;
    *columns = (int)heads;
    return values;
}

static void put_map(struct text *out, const char *task, const struct json *matrix)
{
    struct svg_map map = {.title = task, .row_name = "layer", .column_name = "head"};
    if (json_kind(matrix) == JSON_KIND_NULL)
        return;
    double *values = matrix_of(matrix, &map.rows, &map.columns);
    if (!values) {
        text_puts(out, "<p class=\"note\">The map of ");
        svg_puts(out, task);
        text_puts(out, " cannot be drawn here; loar plot routing draws it, or says what is wrong with it.</p>\n");
        return;
    }
    map.values = values;
    svg_map(out, &map);
    mem_free(values);
}

static void put_maps(struct text *out, const struct json *line)
{
    const struct json *tasks = json_member(line, "tasks"), *active = json_member(line, "active");
    text_printf(out, "<p>Share of rows in which each head ran, by task, at step %.0f of the run (%s). Bright heads ran often, dark "
                     "ones were skipped; a layer that is not routed runs all its heads.</p>\n", history_real(line, "step"),
                !strcmp(history_text(line, "routing"), "eval") ? "evaluation" : "training");
    svg_map_scale(out);
    text_puts(out, "<div class=\"charts\">\n");
    for (size_t t = 0; t < json_count(tasks); t++) {
        const char *name = json_to_string(json_at(tasks, t), NULL);
        put_map(out, name && *name ? name : "task", json_at(active, t));
    }
    text_puts(out, "</div>\n");
}

void page_put_routing(struct text *out, const struct history *h)
{
    const struct json *line = history_newest(h, HISTORY_ROUTING_EVAL);
    struct drawing d;
    if (!line)
        line = history_newest(h, HISTORY_ROUTING_TRAIN);
    if (!line)
        return;
    text_puts(out, "<section><h2>Attention routing</h2>\n");
    put_maps(out, line);
    text_puts(out, "<div class=\"charts\">\n");
    begin(&d, h, "Share of heads that ran, mean over layers", true, false);
    add(&d, "active_heads", "training", 0);
    add(&d, "eval_active_heads", "evaluation", 1);
    svg_chart(out, &d.chart);
    begin(&d, h, "Work of attention, as a share of dense", true, false);
    add(&d, "attention_share", "training", 0);
    add(&d, "eval_attention_share", "evaluation", 1);
    svg_chart(out, &d.chart);
    text_puts(out, "</div></section>\n");
}
