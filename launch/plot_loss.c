/* Loss curves of a run. Points are taken line by line, so what a resumed run wrote anew is drawn as it stands.
 * Must not know: command lines, processes. */
#include "launch/plot.h"

#include "common/scalar.h"

enum { CURVES = 4 };

struct curve {
    const char *key, *title, *style;
    struct text points; /* "step value" a line; an empty line where the curve breaks */
    int count;
};

/* A loss that was not finite stands as null: the curve has a gap there. */
static void add_point(struct curve *curve, const struct json *line, const struct json *step)
{
    const struct json *value = json_member(line, curve->key);
    enum json_kind kind = json_kind(value);
    if (kind == JSON_KIND_INT || kind == JSON_KIND_REAL) {
        scalar_put_real(&curve->points, json_to_real(step));
        text_puts(&curve->points, " ");
        scalar_put_real(&curve->points, json_to_real(value));
        curve->count++;
    } else if (!value) {
        return;
    }
    text_puts(&curve->points, "\n");
}

static bool take_line(void *context, struct json *line, int64_t number)
{
    (void)number;
    struct curve *curves = context;
    const struct json *step = json_member(line, "step");
    for (int i = 0; i < CURVES && (json_kind(step) == JSON_KIND_INT || json_kind(step) == JSON_KIND_REAL); i++)
        add_point(&curves[i], line, step);
    return false;
}

static void put_script(const struct plot_request *request, const struct curve *curves, struct text *script)
{
    plot_begin(request, 960, 600, script);
    text_puts(script, "set title ");
    plot_put_quoted(request->name, script);
    text_puts(script, " noenhanced\nset xlabel 'step'\nset ylabel 'loss'\nset grid\nset key top right\n");
    for (int i = 0; i < CURVES; i++)
        if (curves[i].count)
            text_printf(script, "$%s << END\n%sEND\n", curves[i].key, curves[i].points.data);
    const char *between = "plot ";
    for (int i = 0; i < CURVES; i++)
        if (curves[i].count) {
            text_printf(script, "%s$%s using 1:2 with %s %s title '%s'", between, curves[i].key,
                        curves[i].count == 1 ? "points" : request->form == PLOT_TERMINAL ? "lines" : "linespoints",
                        curves[i].style, curves[i].title);
            between = ", \\\n     ";
        }
    text_puts(script, "\n");
}

enum status plot_loss(const struct plot_request *request, struct text *script, struct text *told, struct error *err)
{
    struct curve curves[CURVES] = {
        {.key = "loss", .title = "training", .style = "linewidth 2 linecolor rgb '#1f4e9c' pointtype 7 pointsize 0.2"},
        {.key = "thought_loss", .title = "training, thoughts", .style = "linecolor rgb '#2a9d5c' pointtype 7 pointsize 0.2"},
        {.key = "answer_loss", .title = "training, answers", .style = "linecolor rgb '#b565c9' pointtype 7 pointsize 0.2"},
        {.key = "eval_loss", .title = "evaluation", .style = "linewidth 2 linecolor rgb '#d1495b' pointtype 7 pointsize 0.6"},
    };
    bool failed = false, any = false;
    enum status st = plot_each_line(request, take_line, curves, err);
    for (int i = 0; i < CURVES; i++) {
        failed |= curves[i].points.failed;
        any |= curves[i].count > 0;
    }
    if (st == STATUS_OK && !any && !failed)
        st = error_set(err, STATUS_DATA, "'%s' holds no loss yet; a line comes every logging_steps steps", request->path);
    if (st == STATUS_OK && !failed) {
        put_script(request, curves, script);
        for (int i = 0, shown = 0; i < CURVES; i++)
            if (curves[i].count)
                text_printf(told, "%s%d of %s", shown++ ? ", " : "", curves[i].count, curves[i].key);
    }
    if (st == STATUS_OK && (failed || script->failed || told->failed))
        st = error_set(err, STATUS_NOMEM, "no memory to draw '%s'", request->path);
    for (int i = 0; i < CURVES; i++)
        text_free(&curves[i].points);
    return st;
}
