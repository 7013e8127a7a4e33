/* The head of a run's page, and what was planned against what came of it. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "launch/page.h"
#include "launch/svg.h"

/* ---- words ---- */

/* "2 h 05 min", "3 min 12 s", "4.2 s". */
static const char *duration(char text[32], double seconds)
{
    if (!(seconds >= 0) || seconds > 1e9)
        return "-";
    long long s = llround(seconds);
    if (seconds < 10)
        snprintf(text, 32, "%.1f s", seconds);
    else if (s < 60)
        snprintf(text, 32, "%lld s", s);
    else if (s < 3600)
        snprintf(text, 32, "%lld min %02lld s", s / 60, s % 60);
    else
        snprintf(text, 32, "%lld h %02lld min", s / 3600, s / 60 % 60);
    return text;
}

/* 1234567 as 1 234 567: blanks that do not break. */
static const char *whole(char text[64], double value)
{
    char digits[32];
    size_t used = 0;
    if (!isfinite(value) || fabs(value) > 1e18)
        return "-";
    snprintf(digits, sizeof digits, "%.0f", value);
    for (size_t i = 0, n = strlen(digits); i < n; i++) {
        if (i && (n - i) % 3 == 0 && digits[i - 1] != '-')
            used += (size_t)snprintf(text + used, 64 - used, "\xe2\x80\xaf");
        text[used++] = digits[i];
    }
    text[used] = '\0';
    return text;
}

/* "2026-11-25T10:20:30Z" as "2026-11-25 10:20 UTC"; anything else as it is. */
static void put_time(struct text *out, const char *stamp)
{
    if (strlen(stamp) == 20 && stamp[10] == 'T') {
        svg_put_text(out, stamp, 10);
        text_puts(out, " ");
        svg_put_text(out, stamp + 11, 5);
        text_puts(out, " UTC");
    } else {
        svg_puts(out, stamp);
    }
}

/* The part of a path behind its last slash, without slashes at its end. */
static void put_folder(struct text *out, const char *path)
{
    size_t size = strlen(path);
    while (size > 1 && path[size - 1] == '/')
        size--;
    size_t begin = size;
    while (begin && path[begin - 1] != '/')
        begin--;
    svg_put_text(out, path + begin, size - begin);
}

static void put_name(struct text *out, const struct page_request *r)
{
    const char *name = history_text(history_newest(r->history, HISTORY_PLAN), "run_name");
    if (*name)
        svg_puts(out, name);
    else
        put_folder(out, r->folder);
}

/* ---- how it stands ---- */

enum state { STATE_EMPTY, STATE_OPEN, STATE_FAILED, STATE_STOPPED, STATE_FINISHED };

/* An error ends a run unless its end is recorded; one of an earlier part, before the newest plan, is no longer true. */
static enum state state_of(const struct history *h)
{
    const struct json *end = history_newest(h, HISTORY_END), *stopped = json_member(end, "stopped");
    const struct json *plan = history_newest(h, HISTORY_PLAN), *error = history_newest(h, HISTORY_ERROR);
    if (end)
        return json_kind(stopped) == JSON_KIND_BOOL && json_to_bool(stopped) ? STATE_STOPPED : STATE_FINISHED;
    if (error && !(history_real(error, "step") < history_real(plan, "first_step")))
        return STATE_FAILED;
    return h->last_step < 0 ? STATE_EMPTY : STATE_OPEN;
}

/* Seconds of all parts of the run; each begins to count anew. */
static double seconds_of(const struct history *h)
{
    const struct history_series *s = history_find(h, "elapsed_s");
    double sum = 0, last = 0;
    for (int i = 0; s && i < s->count; i++)
        if (isfinite(s->values[i])) {
            sum += s->values[i] < last ? last : 0;
            last = s->values[i];
        }
    double end = history_real(history_newest(h, HISTORY_END), "seconds");
    return sum + (end > last ? end : last);
}

static double tokens_of(const struct history *h)
{
    const struct history_series *s = history_find(h, "tokens");
    double end = history_real(history_newest(h, HISTORY_END), "tokens"), sum = 0;
    for (int i = 0; s && i < s->count; i++)
        sum += isfinite(s->values[i]) ? s->values[i] : 0;
    return isfinite(end) ? end : s ? sum : NAN;
}

static double planned_steps(const struct history *h)
{
    double planned = history_real(history_newest(h, HISTORY_PLAN), "total_steps");
    return isfinite(planned) ? planned : history_last(history_find(h, "total_steps"), HISTORY_ANY);
}

/* ---- the head ---- */

static void put_tile(struct text *out, const char *label, const char *value, const char *more)
{
    text_printf(out, "<div class=\"tile\"><span>%s</span><b>%s</b><span>%s</span></div>\n", label, value, more);
}

static void put_tiles(struct text *out, const struct history *h)
{
    char steps[64], more[96], room[64], number[32];
    double loss = history_last(history_find(h, "loss"), HISTORY_ANY), eval_loss = history_last(history_find(h, "eval_loss"), HISTORY_ANY);
    text_puts(out, "<div class=\"tiles\">\n");
    snprintf(more, sizeof more, "of %s", whole(room, planned_steps(h)));
    put_tile(out, "step", whole(steps, h->last_step), more);
    if (isfinite(loss))
        put_tile(out, "training loss", svg_number(number, loss), "last line");
    if (isfinite(eval_loss))
        put_tile(out, "evaluation loss", svg_number(number, eval_loss), "last evaluation");
    if (isfinite(tokens_of(h)))
        put_tile(out, "tokens", whole(room, tokens_of(h)), "trained on");
    if (history_find(h, "elapsed_s"))
        put_tile(out, "time", duration(number, seconds_of(h)), "of training");
    text_puts(out, "</div>\n");
}

static void put_facts(struct text *out, const struct history *h)
{
    const struct history_lines *plans = &h->lines[HISTORY_PLAN];
    const struct json *plan = history_newest(h, HISTORY_PLAN);
    char room[64];
    if (!plan)
        return;
    text_puts(out, "<p class=\"facts\">");
    svg_puts(out, history_text(plan, "model"));
    text_printf(out, ", %s parameters", whole(room, history_real(plan, "parameters")));
    text_printf(out, ", %s trained<br/>started ", whole(room, history_real(plan, "trained")));
    put_time(out, history_text(json_member(plans->items[0], "plan"), "started"));
    double ranks = history_real(plan, "ranks"), workers = history_real(plan, "workers");
    if (ranks > 0)
        text_printf(out, ", %.0f ranks (1 server, %.0f worker%s)", ranks, workers, workers == 1 ? "" : "s");
    else
        text_puts(out, ", one process");
    text_puts(out, " on ");
    svg_puts(out, history_text(plan, "hosts"));
    text_puts(out, "</p>\n");
}

static void put_state(struct text *out, enum state state)
{
    static const char *const words[] = {"nothing yet", "no end recorded", "failed", "stopped", "finished"};
    static const char *const classes[] = {"open", "open", "bad", "open", "good"};
    text_printf(out, " <span class=\"badge %s\">%s</span>", classes[state], words[state]);
}

static void put_written(struct text *out, const struct page_request *r)
{
    char text[32];
    struct tm parts;
    time_t written = (time_t)r->written;
    if (r->written && gmtime_r(&written, &parts) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)) {
        text_puts(out, " (its last line was written ");
        put_time(out, text);
        text_puts(out, ")");
    }
}

void page_put_head(struct text *out, const struct page_request *r)
{
    const struct history *h = r->history;
    enum state state = state_of(h);
    text_puts(out, "<title>");
    put_name(out, r);
    text_puts(out, "</title>\n</head>\n<body>\n<main>\n<header>\n<h1>");
    put_name(out, r);
    put_state(out, state);
    text_puts(out, "</h1>\n");
    put_facts(out, h);
    text_puts(out, "</header>\n");
    if (state == STATE_EMPTY)
        text_puts(out, "<p class=\"note\">The run has not recorded anything yet: metrics.jsonl is empty. A line comes every "
                       "logging_steps steps.</p>\n");
    if (state == STATE_OPEN) {
        text_puts(out, "<p class=\"note\">The run goes on, or was killed: no end is recorded");
        put_written(out, r);
        text_puts(out, ". This is its state so far.</p>\n");
    }
    if (state == STATE_FAILED) {
        text_puts(out, "<p class=\"note bad\">The run failed: ");
        svg_puts(out, history_text(history_newest(h, HISTORY_ERROR), "error"));
        text_puts(out, "</p>\n");
    }
    if (h->n_broken)
        text_printf(out, "<p class=\"note\">%d of %d lines of metrics.jsonl %s no JSON object and left out%s.</p>\n", h->n_broken,
                    h->n_lines, h->n_broken == 1 ? "is" : "are", h->cut ? "; the last one was cut off" : "");
    if (state != STATE_EMPTY)
        put_tiles(out, h);
}

/* ---- plan and outcome ---- */

static void begin_row(struct text *out, const char *label)
{
    text_printf(out, "<tr><th>%s</th><td>", label);
}

static void put_row(struct text *out, const char *label, const char *planned, const char *happened)
{
    begin_row(out, label);
    text_printf(out, "%s</td><td>%s</td></tr>\n", planned, happened);
}

/* Tokens of an epoch of training rows; epochs of the plan. */
static double tokens_per_epoch(const struct json *plan)
{
    static const char *const spans[] = {"prompt_tokens", "thought_tokens", "answer_tokens", "end_tokens"};
    const struct json *data = json_member(plan, "data");
    double sum = 0;
    for (size_t i = 0; i < json_count(data); i++) {
        const struct json *evaluation = json_member(json_at(data, i), "evaluation");
        for (int s = 0; s < 4 && json_kind(evaluation) == JSON_KIND_BOOL && !json_to_bool(evaluation); s++)
            sum += history_real(json_at(data, i), spans[s]);
    }
    return sum;
}

static void put_numbers(struct text *out, const struct history *h)
{
    const struct json *plan = history_newest(h, HISTORY_PLAN), *end = history_newest(h, HISTORY_END);
    const struct history_series *elapsed = history_find(h, "elapsed_s"), *left = history_find(h, "left_s");
    char a[64], b[64], text[96];
    put_row(out, "steps", whole(a, planned_steps(h)), whole(b, h->last_step));
    /* Stages have rows and epochs of their own. */
    double epochs = h->n_stages ? NAN : planned_steps(h) / history_real(plan, "steps_per_epoch"), epoch = history_real(end, "epoch");
    epoch = isfinite(epoch) ? epoch : history_last(history_find(h, "epoch"), HISTORY_ANY);
    if (isfinite(epochs) && isfinite(epoch)) {
        snprintf(a, sizeof a, "%.2f", epochs);
        snprintf(b, sizeof b, "%.2f", epoch);
        put_row(out, "epochs", a, b);
    }
    double tokens = tokens_per_epoch(plan) * epochs;
    if (isfinite(tokens_of(h))) {
        snprintf(text, sizeof text, "about %s", whole(a, tokens));
        put_row(out, "tokens", isfinite(tokens) && tokens > 0 ? text : "", whole(b, tokens_of(h)));
    }
    if (elapsed && left && isfinite(elapsed->values[0] + left->values[0])) {
        snprintf(text, sizeof text, "%s, by its first line", duration(a, elapsed->values[0] + left->values[0]));
        put_row(out, "time", text, duration(b, seconds_of(h)));
    }
}

/* The best value the run named, else the lowest evaluation loss. */
static void put_best(struct text *out, const struct history *h)
{
    const struct json *end = history_newest(h, HISTORY_END);
    const struct history_series *loss = history_find(h, "eval_loss");
    const char *metric = history_text(end, "best_metric");
    double value = history_real(end, "best_value"), step = history_real(end, "best_step");
    char a[32], b[64];
    for (int i = 0; !*metric && loss && i < loss->count; i++)
        if (isfinite(loss->values[i]) && !(loss->values[i] >= value)) {
            value = loss->values[i];
            step = loss->steps[i];
        }
    if (!isfinite(value))
        return;
    begin_row(out, "best");
    text_puts(out, "</td><td>");
    svg_puts(out, *metric ? metric : "eval_loss");
    text_printf(out, " %s at step %s</td></tr>\n", svg_number(a, value), whole(b, step));
}

static void put_end(struct text *out, const struct history *h)
{
    static const char *const words[] = {"nothing yet", "not recorded: the run goes on, or was killed", "the run failed", "stopped on request",
                                        "finished"};
    enum state state = state_of(h);
    const struct json *end = history_newest(h, HISTORY_END);
    begin_row(out, "end");
    text_printf(out, "</td><td>%s", words[state]);
    double short_of = planned_steps(h) - history_real(end, "step");
    if (state == STATE_FINISHED && short_of > 0)
        text_printf(out, " early, %.0f steps before the last that was planned", short_of);
    if (*history_text(end, "why")) {
        text_puts(out, ": ");
        svg_puts(out, history_text(end, "why"));
    }
    if (*history_text(end, "ended")) {
        text_puts(out, ", ");
        put_time(out, history_text(end, "ended"));
    }
    text_puts(out, "</td></tr>\n");
    if (*history_text(end, "digest")) {
        begin_row(out, "digest");
        text_puts(out, "</td><td><code>");
        svg_puts(out, history_text(end, "digest"));
        text_puts(out, "</code></td></tr>\n");
    }
}

/* A stage that ended before its last step; without stages, the run. */
static void put_early(struct text *out, const struct json *line)
{
    begin_row(out, "early stop");
    text_printf(out, "</td><td>after step %.0f", history_real(line, "step"));
    if (*history_text(line, "stage")) {
        text_puts(out, ", stage ");
        svg_puts(out, history_text(line, "stage"));
    }
    text_printf(out, ": no gain since step %.0f</td></tr>\n", history_real(line, "best_step"));
}

static void put_parts(struct text *out, const struct history *h)
{
    const struct history_lines *plans = &h->lines[HISTORY_PLAN], *snapshots = &h->lines[HISTORY_SNAPSHOT];
    for (int i = 0; i < h->lines[HISTORY_EARLY].count; i++)
        put_early(out, h->lines[HISTORY_EARLY].items[i]);
    for (int i = 0; i < plans->count; i++) {
        const struct json *plan = json_member(plans->items[i], "plan");
        if (!*history_text(plan, "resumed_from"))
            continue;
        begin_row(out, "resumed");
        text_printf(out, "</td><td>after step %.0f, ", history_real(plan, "first_step"));
        put_time(out, history_text(plan, "started"));
        text_printf(out, ", %.0f workers</td></tr>\n", history_real(plan, "workers"));
    }
    if (!snapshots->count)
        return;
    begin_row(out, "snapshots");
    text_printf(out, "</td><td>%d written, the newest <code>", snapshots->count);
    svg_puts(out, history_text(snapshots->items[snapshots->count - 1], "snapshot"));
    text_puts(out, "</code></td></tr>\n");
}

static void put_data(struct text *out, const struct json *plan)
{
    const struct json *data = json_member(plan, "data");
    char room[64];
    static const char *const columns[] = {"rows", "used", "skipped", "too_long", "prompt_tokens", "thought_tokens", "answer_tokens", "longest"};
    if (!json_count(data))
        return;
    text_puts(out, "<div class=\"scroll\"><table>\n<thead><tr><th>data set</th><th>for</th><th>rows</th><th>used</th><th>skipped</th>"
                   "<th>too long</th><th>prompt tokens</th><th>thought tokens</th><th>answer tokens</th><th>longest row</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < json_count(data); i++) {
        const struct json *set = json_at(data, i), *evaluation = json_member(set, "evaluation");
        text_puts(out, "<tr><th>");
        svg_puts(out, history_text(set, "name"));
        text_printf(out, "</th><td>%s</td>", json_kind(evaluation) == JSON_KIND_BOOL && json_to_bool(evaluation) ? "evaluation" : "training");
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++)
            text_printf(out, "<td class=\"n\">%s</td>", whole(room, history_real(set, columns[c])));
        text_puts(out, "</tr>\n");
    }
    text_puts(out, "</tbody></table></div>\n");
}

void page_put_plan(struct text *out, const struct page_request *r)
{
    const struct history *h = r->history;
    if (h->last_step < 0)
        return;
    text_puts(out, "<section><h2>Plan and outcome</h2>\n<div class=\"scroll\"><table class=\"plan\">\n"
                   "<thead><tr><th></th><th>planned</th><th>outcome</th></tr></thead>\n<tbody>\n");
    put_numbers(out, h);
    put_best(out, h);
    put_end(out, h);
    put_parts(out, h);
    text_puts(out, "</tbody></table></div>\n");
    put_data(out, history_newest(h, HISTORY_PLAN));
    text_puts(out, "</section>\n");
}
