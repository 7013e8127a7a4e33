#include "launch/history.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/memory.h"

/* Places for one more item; false where memory is short. */
static bool grow(void **items, int count, int *room, size_t size)
{
    if (count < *room)
        return true;
    int wanted = *room ? 2 * *room : 16;
    void *larger = mem_realloc(*items, (size_t)wanted, size);
    if (!larger)
        return false;
    *items = larger;
    *room = wanted;
    return true;
}

static bool is_number(const struct json *value)
{
    return json_kind(value) == JSON_KIND_INT || json_kind(value) == JSON_KIND_REAL;
}

/* ---- series ---- */

static bool series_grow(struct history_series *s)
{
    int rooms[3] = {s->room, s->room, s->room};
    if (!grow((void **)&s->steps, s->count, &rooms[0], sizeof *s->steps) ||
        !grow((void **)&s->values, s->count, &rooms[1], sizeof *s->values) ||
        !grow((void **)&s->stages, s->count, &rooms[2], sizeof *s->stages))
        return false;
    s->room = rooms[0];
    return true;
}

static struct history_series *series_of(struct history *h, const char *key)
{
    for (int i = 0; i < h->n_series; i++)
        if (!strcmp(h->series[i].key, key))
            return &h->series[i];
    if (!grow((void **)&h->series, h->n_series, &h->series_room, sizeof *h->series))
        return NULL;
    struct history_series *s = &h->series[h->n_series];
    *s = (struct history_series){.key = mem_strdup(key)};
    if (!s->key)
        return NULL;
    h->n_series++;
    return s;
}

static bool add_number(struct history *h, const char *key, double step, double value, int stage)
{
    struct history_series *s = series_of(h, key);
    if (!s || !series_grow(s))
        return false;
    s->steps[s->count] = step;
    s->values[s->count] = value;
    s->stages[s->count++] = stage;
    return true;
}

/* Numbers of a line; the members that are none are somebody else's. What an evaluation counted goes by the same names as what
 * training did; its numbers are told apart by eval_ in front of all of them. */
static bool add_numbers(struct history *h, const struct json *line, double step, int stage)
{
    bool evaluation = json_member(line, "eval_runtime_s") || json_member(line, "eval_loss");
    char eval_key[256];
    for (const void *it = json_first(line); it; it = json_next(line, it)) {
        const char *key = json_it_key(it, NULL);
        const struct json *value = json_it_value(it);
        bool number = is_number(value);
        if (evaluation && strncmp(key, "eval_", 5) && strcmp(key, "step")) {
            snprintf(eval_key, sizeof eval_key, "eval_%s", key);
            key = eval_key;
        }
        if ((number || json_kind(value) == JSON_KIND_NULL) && strcmp(key, "step") &&
            !add_number(h, key, step, number ? json_to_real(value) : NAN, stage))
            return false;
    }
    return true;
}

/* ---- lines ---- */

static bool stage_begins(const struct json *line)
{
    const struct json *begins = json_member(line, "begins");
    return json_kind(begins) == JSON_KIND_BOOL && json_to_bool(begins);
}

/* HISTORY_KINDS: a line of numbers. */
static enum history_kind kind_of(const struct json *line)
{
    static const struct {
        const char *key;
        enum json_kind value;
        enum history_kind kind;
    } marks[] = {
        {"plan", JSON_KIND_OBJECT, HISTORY_PLAN},     {"end", JSON_KIND_OBJECT, HISTORY_END},
        {"sample", JSON_KIND_OBJECT, HISTORY_SAMPLE}, {"warning", JSON_KIND_STRING, HISTORY_WARNING},
        {"error", JSON_KIND_STRING, HISTORY_ERROR},   {"snapshot", JSON_KIND_STRING, HISTORY_SNAPSHOT},
        {"routing", JSON_KIND_STRING, HISTORY_ROUTING_TRAIN}, {"early_stop", JSON_KIND_BOOL, HISTORY_EARLY},
    };
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (json_kind(json_member(line, marks[i].key)) == marks[i].value) {
            bool eval = marks[i].kind == HISTORY_ROUTING_TRAIN && !strcmp(history_text(line, "routing"), "eval");
            return eval ? HISTORY_ROUTING_EVAL : marks[i].kind;
        }
    return *history_text(line, "stage") && stage_begins(line) ? HISTORY_STAGE : HISTORY_KINDS;
}

/* Takes the line over if it returns true. */
static bool keep(struct history *h, enum history_kind kind, struct json *line)
{
    struct history_lines *lines = &h->lines[kind];
    if ((kind == HISTORY_ROUTING_TRAIN || kind == HISTORY_ROUTING_EVAL) && lines->count) {
        json_free(lines->items[0]);
        lines->items[0] = line;
        return true;
    }
    if (!grow((void **)&lines->items, lines->count, &lines->room, sizeof *lines->items))
        return false;
    lines->items[lines->count++] = line;
    return true;
}

/* A stage that a line begins; a stage that begins again, in a resumed run, is the same one. */
static bool begin_stage(struct history *h, const char *name)
{
    for (int i = 0; i < h->n_stages; i++)
        if (!strcmp(h->stages[i], name))
            return true;
    if (!grow((void **)&h->stages, h->n_stages, &h->stages_room, sizeof *h->stages))
        return false;
    h->stages[h->n_stages++] = name;
    return true;
}

/* The stage a line names, else the last that had begun. */
static int stage_of(const struct history *h, const struct json *line)
{
    const char *name = history_text(line, "stage");
    for (int i = 0; *name && i < h->n_stages; i++)
        if (!strcmp(h->stages[i], name))
            return i;
    return h->n_stages - 1;
}

/* Takes the line over in any case. */
static bool take(struct history *h, struct json *line)
{
    double step = history_real(line, "step");
    enum history_kind kind = kind_of(line);
    h->last_step = step > h->last_step ? step : h->last_step;
    if (kind == HISTORY_KINDS) {
        bool done = !isfinite(step) || add_numbers(h, line, step, stage_of(h, line));
        json_free(line);
        return done;
    }
    if (!keep(h, kind, line)) {
        json_free(line);
        return false;
    }
    return kind != HISTORY_STAGE || begin_stage(h, history_text(line, "stage"));
}

enum status history_read(const char *text, size_t size, struct history *out, struct error *err)
{
    *out = (struct history){.last_step = -1};
    for (size_t at = 0, length; at < size; at += length + 1) {
        const char *end = memchr(text + at, '\n', size - at);
        struct json *line = NULL;
        struct error unused;
        length = end ? (size_t)(end - text) - at : size - at;
        if (!length)
            continue;
        enum status st = json_parse(text + at, length, "metrics", &line, &unused);
        if (st == STATUS_OK && json_kind(line) != JSON_KIND_OBJECT) {
            json_free(line);
            st = STATUS_DATA;
        }
        if (st == STATUS_OK && !take(out, line))
            st = STATUS_NOMEM;
        if (st == STATUS_NOMEM) {
            history_free(out);
            FAIL(err, st, "no memory for the metrics of the run");
        }
        out->n_lines++;
        out->n_broken += st != STATUS_OK;
        out->cut = st != STATUS_OK && !end;
    }
    return STATUS_OK;
}

void history_free(struct history *h)
{
    for (int i = 0; i < h->n_series; i++) {
        mem_free(h->series[i].key);
        mem_free(h->series[i].steps);
        mem_free(h->series[i].values);
        mem_free(h->series[i].stages);
    }
    for (int kind = 0; kind < HISTORY_KINDS; kind++) {
        for (int i = 0; i < h->lines[kind].count; i++)
            json_free(h->lines[kind].items[i]);
        mem_free(h->lines[kind].items);
    }
    mem_free(h->series);
    mem_free(h->stages);
    *h = (struct history){0};
}

/* ---- looking ---- */

const struct history_series *history_find(const struct history *h, const char *key)
{
    for (int i = 0; i < h->n_series; i++)
        if (!strcmp(h->series[i].key, key))
            return &h->series[i];
    return NULL;
}

double history_last(const struct history_series *s, int stage)
{
    for (int i = s ? s->count : 0; i-- > 0;)
        if (isfinite(s->values[i]) && (stage == HISTORY_ANY || s->stages[i] == stage))
            return s->values[i];
    return NAN;
}

const struct json *history_newest(const struct history *h, enum history_kind kind)
{
    static const char *const members[HISTORY_KINDS] = {[HISTORY_PLAN] = "plan", [HISTORY_END] = "end", [HISTORY_SAMPLE] = "sample"};
    const struct history_lines *lines = &h->lines[kind];
    if (!lines->count)
        return NULL;
    const struct json *line = lines->items[lines->count - 1];
    return members[kind] ? json_member(line, members[kind]) : line;
}

double history_real(const struct json *object, const char *key)
{
    const struct json *value = json_member(object, key);
    return is_number(value) ? json_to_real(value) : NAN;
}

const char *history_text(const struct json *object, const char *key)
{
    const char *text = json_to_string(json_member(object, key), NULL);
    return text ? text : "";
}
