/* Evaluation results, samples, slow ranks and warnings of a run's page. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "launch/page.h"
#include "launch/svg.h"

enum { COLUMNS_MAX = 16, NAME_SIZE = 64, RANKS_MAX = 64, SAMPLES_OPEN = 24, SAMPLES_EARLIER = 48, WARNINGS_MAX = 100 };

/* ---- evaluation ---- */

/* Metrics in the order of columns: those of every run first, then others as they are found. */
struct columns {
    char names[COLUMNS_MAX][NAME_SIZE];
    int count;
};

static const struct {
    const char *metric, *title;
    bool share;
} known[] = {
    {"loss", "loss", false},           {"thought_loss", "loss of thoughts", false}, {"answer_loss", "loss of answers", false},
    {"accuracy", "accuracy", true},    {"exact_match", "exact match", true},        {"exact_match_flexible", "exact match, flexible", true},
    {"f1", "macro F1", true},          {"answered_rows", "answered rows", false},   {"cut", "cut", true},
    {"no_answer", "no answer", true},
};
enum { KNOWN = sizeof known / sizeof *known };

static int known_of(const char *metric)
{
    for (int i = 0; i < KNOWN; i++)
        if (!strcmp(known[i].metric, metric))
            return i;
    return -1;
}

static void add_column(struct columns *c, const char *metric)
{
    for (int i = 0; i < c->count; i++)
        if (!strcmp(c->names[i], metric))
            return;
    if (c->count < COLUMNS_MAX && strlen(metric) < NAME_SIZE)
        snprintf(c->names[c->count++], NAME_SIZE, "%s", metric);
}

static void find_columns(const struct history *h, const struct page_sets *sets, struct columns *out)
{
    const char *metric;
    *out = (struct columns){.count = 0};
    for (int k = 0; k < KNOWN; k++)
        for (int i = 0; i < h->n_series; i++) {
            const char *key = h->series[i].key;
            bool of_set = page_sets_of(sets, key, &metric) >= 0;
            if (of_set ? !strcmp(metric, known[k].metric) : !strncmp(key, "eval_", 5) && !strcmp(key + 5, known[k].metric))
                add_column(out, known[k].metric);
        }
    for (int i = 0; i < h->n_series; i++)
        if (page_sets_of(sets, h->series[i].key, &metric) >= 0)
            add_column(out, metric);
}

static const struct history_series *series_of(const struct history *h, const char *set, const char *metric)
{
    char key[512];
    snprintf(key, sizeof key, *set ? "eval_%s_%s" : "eval_%s%s", set, metric);
    return history_find(h, key);
}

static void put_value(struct text *out, const char *metric, double value)
{
    char number[32];
    int k = known_of(metric);
    if (isfinite(value) && k >= 0 && known[k].share)
        text_printf(out, "<td class=\"n\">%.1f&#8239;%%</td>", 100 * value);
    else
        text_printf(out, "<td class=\"n\">%s</td>", svg_number(number, value));
}

/* The newest values of a set, of one stage or (-1) before any began; nothing where there is none. */
static void put_set(struct text *out, const struct history *h, const struct columns *c, const char *set, int stage)
{
    double step = NAN;
    for (int i = 0; i < c->count; i++) {
        const struct history_series *s = series_of(h, set, c->names[i]);
        for (int k = 0; s && k < s->count; k++)
            if (isfinite(s->values[k]) && s->stages[k] == stage && !(s->steps[k] <= step))
                step = s->steps[k];
    }
    if (!isfinite(step))
        return;
    text_puts(out, "<tr><th>");
    svg_puts(out, *set ? set : "all sets");
    text_puts(out, "</th>");
    if (h->n_stages) {
        text_puts(out, "<td>");
        svg_puts(out, stage < 0 ? "" : h->stages[stage]);
        text_puts(out, "</td>");
    }
    text_printf(out, "<td class=\"n\">%.0f</td>", step);
    for (int i = 0; i < c->count; i++)
        put_value(out, c->names[i], history_last(series_of(h, set, c->names[i]), stage));
    text_puts(out, "</tr>\n");
}

void page_put_evaluation(struct text *out, const struct history *h, const struct page_sets *sets)
{
    struct columns columns;
    find_columns(h, sets, &columns);
    if (!columns.count)
        return;
    text_puts(out, "<section><h2>Evaluation</h2>\n<p>The newest values");
    text_puts(out, h->n_stages ? " of each stage.</p>\n" : ".</p>\n");
    text_puts(out, "<div class=\"scroll\"><table>\n<thead><tr><th>set</th>");
    text_puts(out, h->n_stages ? "<th>stage</th><th>step</th>" : "<th>step</th>");
    for (int i = 0; i < columns.count; i++) {
        int k = known_of(columns.names[i]);
        text_puts(out, "<th>");
        svg_puts(out, k >= 0 ? known[k].title : columns.names[i]);
        text_puts(out, "</th>");
    }
    text_puts(out, "</tr></thead>\n<tbody>\n");
    for (int i = sets->count == 1 ? 0 : -1; i < sets->count; i++) {
        const char *set = i < 0 ? "" : sets->names[i];
        for (int stage = -1; stage < h->n_stages; stage++)
            put_set(out, h, &columns, set, stage);
    }
    text_puts(out, "</tbody></table></div></section>\n");
}

/* ---- samples ---- */

/* A text of a sample, whose class is its name; "-" for an empty one that is to be there always. */
static void put_passage(struct text *out, const struct json *sample, const char *name, bool always)
{
    size_t size = 0;
    const char *passage = json_to_string(json_member(sample, name), &size);
    if (!size && !always)
        return;
    text_printf(out, "<dt>%s</dt><dd class=\"%s\">", name, name);
    svg_put_text(out, size ? passage : "-", size ? size : 1);
    text_puts(out, "</dd>\n");
}

static void put_sample(struct text *out, const struct json *line)
{
    const struct json *sample = json_member(line, "sample"), *right = json_member(sample, "right");
    const char *status = history_text(sample, "status");
    text_puts(out, "<article class=\"sample\"><h3>");
    svg_puts(out, *history_text(sample, "set") ? history_text(sample, "set") : "sample");
    text_printf(out, " <small>step %.0f</small>", history_real(line, "step"));
    if (json_kind(right) == JSON_KIND_BOOL)
        text_printf(out, json_to_bool(right) ? " <span class=\"badge good\">right</span>" : " <span class=\"badge bad\">wrong</span>");
    if (*status && strcmp(status, "complete")) {
        text_puts(out, " <span class=\"badge open\">");
        svg_puts(out, status);
        text_puts(out, "</span>");
    }
    text_puts(out, "</h3>\n<dl>\n");
    put_passage(out, sample, "prompt", false);
    put_passage(out, sample, "thought", false);
    put_passage(out, sample, "answer", true);
    put_passage(out, sample, "expected", false);
    text_puts(out, "</dl></article>\n");
}

/* Those of the newest step are open; the newest of those before can be opened. */
void page_put_samples(struct text *out, const struct history *h)
{
    const struct history_lines *samples = &h->lines[HISTORY_SAMPLE];
    int first = samples->count;
    if (!samples->count)
        return;
    double newest = history_real(samples->items[samples->count - 1], "step");
    while (first > 0 && samples->count - first < SAMPLES_OPEN && history_real(samples->items[first - 1], "step") == newest)
        first--;
    text_puts(out, "<section><h2>Samples</h2>\n<div class=\"samples\">\n");
    for (int i = first; i < samples->count; i++)
        put_sample(out, samples->items[i]);
    text_puts(out, "</div>\n");
    if (first > 0) {
        int shown = first < SAMPLES_EARLIER ? first : SAMPLES_EARLIER;
        text_printf(out, "<details><summary>%d earlier, the newest first", shown);
        text_printf(out, shown < first ? " (%d more are in metrics.jsonl)" : "", first - shown);
        text_puts(out, "</summary>\n<div class=\"samples\">\n");
        for (int i = first; i-- > first - shown;)
            put_sample(out, samples->items[i]);
        text_puts(out, "</div></details>\n");
    }
    text_puts(out, "</section>\n");
}

/* ---- ranks ---- */

/* How often a rank was the last to send its gradients, and how far behind the middle one. */
struct slow_rank {
    int rank, times;
    double behind_ms, most_ms;
};

static int find_slow(const struct history *h, struct slow_rank ranks[RANKS_MAX])
{
    const struct history_series *slowest = history_find(h, "slowest_rank"), *lag = history_find(h, "slowest_lag_ms");
    const struct history_series *median = history_find(h, "median_lag_ms");
    int count = 0;
    if (!slowest || !lag || !median || lag->count != slowest->count || median->count != slowest->count)
        return 0;
    for (int i = 0; i < slowest->count; i++) {
        double behind = lag->values[i] - median->values[i];
        int at = 0;
        if (!isfinite(behind) || !(slowest->values[i] >= 0) || slowest->values[i] > 1e6)
            continue;
        while (at < count && ranks[at].rank != (int)slowest->values[i])
            at++;
        if (at == RANKS_MAX)
            continue;
        if (at == count)
            ranks[count++] = (struct slow_rank){.rank = (int)slowest->values[i]};
        ranks[at].times++;
        ranks[at].behind_ms += behind;
        ranks[at].most_ms = fmax(ranks[at].most_ms, behind);
    }
    return count;
}

void page_put_ranks(struct text *out, const struct history *h)
{
    struct slow_rank ranks[RANKS_MAX];
    int count = find_slow(h, ranks);
    const struct history_series *imbalance = history_find(h, "imbalance");
    double sum = 0;
    int known_imbalance = 0;
    char number[32];
    for (int i = 0; imbalance && i < imbalance->count; i++)
        if (isfinite(imbalance->values[i])) {
            sum += imbalance->values[i];
            known_imbalance++;
        }
    if (!count && !known_imbalance)
        return;
    text_puts(out, "<section><h2>Ranks</h2>\n");
    if (known_imbalance)
        text_printf(out, "<p>Busiest worker over the mean of all: %s, mean over the run.</p>\n", svg_number(number, sum / known_imbalance));
    if (count)
        text_puts(out, "<div class=\"scroll\"><table>\n<thead><tr><th>rank</th><th>lines in which it was the slowest</th>"
                       "<th>behind the median, mean ms</th><th>at most, ms</th></tr></thead>\n<tbody>\n");
    for (int i = 0; i < count; i++)
        text_printf(out, "<tr><th>%d</th><td class=\"n\">%d</td><td class=\"n\">%.0f</td><td class=\"n\">%.0f</td></tr>\n", ranks[i].rank,
                    ranks[i].times, ranks[i].behind_ms / ranks[i].times, ranks[i].most_ms);
    text_puts(out, count ? "</tbody></table></div></section>\n" : "</section>\n");
}

/* ---- warnings ---- */

static void put_lines(struct text *out, const struct history_lines *lines, const char *member, const char *class)
{
    int first = lines->count > WARNINGS_MAX ? lines->count - WARNINGS_MAX : 0;
    if (first)
        text_printf(out, "<li>%d earlier ones are in metrics.jsonl</li>\n", first);
    for (int i = first; i < lines->count; i++) {
        text_printf(out, "<li class=\"%s\">step %.0f: ", class, history_real(lines->items[i], "step"));
        svg_puts(out, history_text(lines->items[i], member));
        text_puts(out, "</li>\n");
    }
}

/* Notes of the plan, a line each; what the data's readers complained of is among the warnings. */
static void put_notes(struct text *out, const char *notes)
{
    while (*notes) {
        size_t size = strcspn(notes, "\n");
        text_puts(out, "<li>");
        svg_put_text(out, notes, size);
        text_puts(out, "</li>\n");
        notes += size + (notes[size] == '\n');
    }
}

void page_put_warnings(struct text *out, const struct history *h)
{
    const char *notes = history_text(history_newest(h, HISTORY_PLAN), "notes");
    const struct history_lines *warnings = &h->lines[HISTORY_WARNING], *errors = &h->lines[HISTORY_ERROR];
    if (!*notes && !warnings->count && !errors->count)
        return;
    text_puts(out, "<section><h2>Notes and warnings</h2>\n<ul class=\"warnings\">\n");
    put_notes(out, notes);
    put_lines(out, warnings, "warning", "warning");
    put_lines(out, errors, "error", "error");
    text_puts(out, "</ul></section>\n");
}
