/* Maps of the heads that ran, one per task, and of how tasks differ.
 * Must not know: command lines, processes, how routing decides. */
#include "launch/plot.h"

#include <string.h>

#include "common/scalar.h"

enum { TASKS_MAX = 64, SIDE_MAX = 4096, PANEL_WIDTH = 420, PANEL_HEIGHT = 360, ACROSS = 4 };

/* A line of metrics that tells which heads ran. */
struct routing {
    struct json *line;
    int64_t number; /* of the line */
    int64_t step;
    const char *kind; /* "train" or "eval" */
    const char *names[TASKS_MAX];
    const struct json *active[TASKS_MAX]; /* [layers][heads]; NULL: the task had no rows */
    int tasks, layers, heads, first;      /* first: the first task that had rows */
};

static double share(const struct routing *r, int task, int layer, int head)
{
    return json_to_real(json_at(json_at(r->active[task], (size_t)layer), (size_t)head));
}

/* ---- reading ---- */

static const char *kind_of(const struct json *line)
{
    const char *kind = json_to_string(json_member(line, "routing"), NULL);
    return kind && (!strcmp(kind, "eval") || !strcmp(kind, "train")) ? kind : NULL;
}

/* Keeps the newest line of each kind: newest[0] eval, newest[1] train; line NULL where there is none. */
static bool take_line(void *context, struct json *line, int64_t number)
{
    struct routing *newest = context;
    const char *kind = kind_of(line);
    if (!kind)
        return false;
    struct routing *place = &newest[*kind == 't'];
    json_free(place->line);
    *place = (struct routing){.line = line, .number = number, .kind = kind};
    return true;
}

static enum status choose(const struct plot_request *request, struct routing newest[2], struct routing **out, struct error *err)
{
    static const char *const names[] = {"eval", "train"};
    for (int i = 0; i < 2; i++)
        if (newest[i].line && (!request->which || !strcmp(request->which, names[i]))) {
            *out = &newest[i];
            return STATUS_OK;
        }
    for (int i = 0; i < 2; i++)
        if (newest[i].line)
            FAIL(err, STATUS_USAGE, "'%s' has no line with \"routing\": \"%s\", only with \"%s\"; draw that with --which %s",
                 request->path, request->which, names[i], names[i]);
    FAIL(err, STATUS_USAGE, "the run did not route attention: '%s' has no line with \"routing\"; runs with a loar: block in "
         "their run file write such lines", request->path);
}

/* Every value a number from 0 to 1, every layer with as many heads. */
static enum status read_matrix(const char *path, struct routing *r, int task, const struct json *matrix, struct error *err)
{
    int layers = (int)json_count(matrix);
    if (json_kind(matrix) != JSON_KIND_ARRAY || !layers || layers > SIDE_MAX || (r->layers && layers != r->layers))
        FAIL(err, STATUS_DATA, "%s:%lld: active[%d] must be a list of layers, as many for every task and at most %d; found %d",
             path, (long long)r->number, task, SIDE_MAX, layers);
    r->layers = layers;
    for (int l = 0; l < layers; l++) {
        const struct json *heads = json_at(matrix, (size_t)l);
        int count = (int)json_count(heads);
        if (json_kind(heads) != JSON_KIND_ARRAY || !count || count > SIDE_MAX || (r->heads && count != r->heads))
            FAIL(err, STATUS_DATA, "%s:%lld: active[%d][%d] must be a list of heads, as many in every layer and at most %d; "
                 "found %d", path, (long long)r->number, task, l, SIDE_MAX, count);
        r->heads = count;
        for (int h = 0; h < count; h++) {
            const struct json *value = json_at(heads, (size_t)h);
            enum json_kind kind = json_kind(value);
            if ((kind != JSON_KIND_INT && kind != JSON_KIND_REAL) || !(json_to_real(value) >= 0 && json_to_real(value) <= 1))
                FAIL(err, STATUS_DATA, "%s:%lld: active[%d][%d][%d] must be a number from 0 to 1, found %s", path,
                     (long long)r->number, task, l, h,
                     kind == JSON_KIND_INT || kind == JSON_KIND_REAL ? "another" : json_kind_name(kind));
        }
    }
    r->active[task] = matrix;
    return STATUS_OK;
}

static enum status read_routing(const char *path, struct routing *r, struct error *err)
{
    const struct json *tasks = json_member(r->line, "tasks"), *active = json_member(r->line, "active");
    size_t count = json_count(tasks);
    if (json_kind(tasks) != JSON_KIND_ARRAY || json_kind(active) != JSON_KIND_ARRAY || !count || count > TASKS_MAX ||
        json_count(active) != count)
        FAIL(err, STATUS_DATA, "%s:%lld: \"tasks\" and \"active\" must be lists of the same length, from 1 to %d, found "
             "%zu and %zu", path, (long long)r->number, TASKS_MAX, count, json_count(active));
    TRY(json_get_int(r->line, "step", path, &r->step, err));
    r->tasks = (int)count;
    r->first = -1;
    for (int t = 0; t < r->tasks; t++) {
        const struct json *matrix = json_at(active, (size_t)t);
        r->names[t] = json_to_string(json_at(tasks, (size_t)t), NULL);
        if (!r->names[t])
            FAIL(err, STATUS_DATA, "%s:%lld: tasks[%d] must be a name, found %s", path, (long long)r->number, t,
                 json_kind_name(json_kind(json_at(tasks, (size_t)t))));
        if (json_kind(matrix) == JSON_KIND_NULL)
            continue;
        TRY(read_matrix(path, r, t, matrix, err));
        r->first = r->first < 0 ? t : r->first;
    }
    if (r->first < 0)
        FAIL(err, STATUS_DATA, "%s:%lld: no task had rows, so there is nothing to draw", path, (long long)r->number);
    return STATUS_OK;
}

/* ---- drawing ---- */

/* "head layer value" a line: of a task or, with other >= 0, of the first task minus that one. */
static void put_block(const struct routing *r, int task, int other, struct text *script)
{
    text_printf(script, other < 0 ? "$task%d << END\n" : "$less%d << END\n", other < 0 ? task : other);
    for (int l = 0; l < r->layers; l++)
        for (int h = 0; h < r->heads; h++) {
            text_printf(script, "%d %d ", h, l);
            scalar_put_real(script, share(r, task, l, h) - (other < 0 ? 0 : share(r, other, l, h)));
            text_puts(script, "\n");
        }
    text_puts(script, "END\n");
}

static void put_panel(const struct routing *r, int task, int other, struct text *script)
{
    struct text title = {0};
    text_printf(&title, other < 0 ? "%s" : "%s - %s", r->names[task], other < 0 ? "" : r->names[other]);
    text_puts(script, "set title ");
    plot_put_quoted(title.data ? title.data : "", script);
    script->failed |= title.failed;
    text_free(&title);
    text_puts(script, " noenhanced\n");
    text_puts(script, other < 0 ? "set cbrange [0:1]\nset palette defined (0 '#f7fbff', 0.5 '#6baed6', 1 '#08306b')\n"
                                : "set cbrange [-1:1]\nset palette defined (-1 '#b2182b', 0 '#f7f7f7', 1 '#2166ac')\n");
    text_printf(script, other < 0 ? "plot $task%d" : "plot $less%d", other < 0 ? task : other);
    text_puts(script, " using 1:2:(0.5):(0.5):3 with boxxyerror fillstyle solid linecolor palette notitle\n");
}

/* Whole numbers at the axes, at most 16 of them. */
static int tic_step(int count)
{
    return (count + 15) / 16;
}

static void put_script(const struct plot_request *request, const struct routing *r, struct text *script)
{
    int maps = 0;
    for (int t = 0; t < r->tasks; t++)
        maps += r->active[t] != NULL;
    /* Up to two tasks stand in one row with their difference; more have their differences in rows below. */
    int across = maps <= 2 ? 2 * maps - 1 : maps < ACROSS ? maps : ACROSS;
    int map_rows = (maps + across - 1) / across;
    int rows = maps <= 2 ? 1 : map_rows + (maps - 1 + across - 1) / across;
    plot_begin(request, across * PANEL_WIDTH, rows * PANEL_HEIGHT + 40, script);
    for (int t = 0; t < r->tasks; t++)
        if (r->active[t]) {
            put_block(r, t, -1, script);
            if (t != r->first)
                put_block(r, r->first, t, script);
        }
    text_printf(script, "set multiplot layout %d,%d title ", rows, across);
    struct text title = {0};
    text_printf(&title, "%s, step %lld, %s: share of rows in which a head ran", request->name, (long long)r->step, r->kind);
    plot_put_quoted(title.data ? title.data : "", script);
    script->failed |= title.failed;
    text_free(&title);
    text_printf(script, " noenhanced\nset xlabel 'head'\nset ylabel 'layer'\nset xrange [-0.5:%d.5]\nset yrange [-0.5:%d.5]\n"
                        "set xtics 0,%d\nset ytics 0,%d\nset tics out nomirror\n",
                r->heads - 1, r->layers - 1, tic_step(r->heads), tic_step(r->layers));
    for (int t = 0; t < r->tasks; t++)
        if (r->active[t])
            put_panel(r, t, -1, script);
    for (int i = maps; maps > 2 && i < map_rows * across; i++)
        text_puts(script, "set multiplot next\n");
    for (int t = r->first + 1; t < r->tasks; t++)
        if (r->active[t])
            put_panel(r, r->first, t, script);
    text_puts(script, "unset multiplot\n");
}

static void tell(const struct routing *r, struct text *told)
{
    text_printf(told, "step %lld, %s, %d layers x %d heads, tasks", (long long)r->step, r->kind, r->layers, r->heads);
    for (int t = 0; t < r->tasks; t++)
        text_printf(told, "%s %s%s", t ? "," : "", r->names[t], r->active[t] ? "" : " (no rows)");
}

enum status plot_routing(const struct plot_request *request, struct text *script, struct text *told, struct error *err)
{
    struct routing newest[2] = {{0}}, *r = NULL;
    enum status st;
    TRY_OR(done, st, plot_each_line(request, take_line, newest, err));
    TRY_OR(done, st, choose(request, newest, &r, err));
    TRY_OR(done, st, read_routing(request->path, r, err));
    put_script(request, r, script);
    tell(r, told);
    if (script->failed || told->failed)
        st = error_set(err, STATUS_NOMEM, "no memory to draw '%s'", request->path);
done:
    json_free(newest[0].line);
    json_free(newest[1].line);
    return st;
}
