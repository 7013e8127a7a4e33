/* What a run wrote into metrics.jsonl as a script for gnuplot: loss curves, and maps of the heads that ran.
 * Must not know: command lines, processes, where the picture goes (gnuplot writes it to its standard output). */
#ifndef LAUNCH_PLOT_H
#define LAUNCH_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/json.h"
#include "common/status.h"
#include "common/text.h"

enum plot_form { PLOT_SVG, PLOT_PNG, PLOT_TERMINAL };

struct plot_request {
    const char *name;          /* of the run, for the title */
    const char *path;          /* of metrics.jsonl, for messages */
    const char *lines;         /* its text: one JSON object a line; lines that are no JSON are passed over */
    size_t size;
    enum plot_form form;
    int columns, rows; /* PLOT_TERMINAL: characters of the terminal */
    const char *which; /* plot_routing: "eval", "train", or NULL: eval where there is one */
};

/* Appends a script and, to `told`, a line that says what is drawn.
 * Loss against step: `loss`, `thought_loss`, `answer_loss` and `eval_loss`, each where lines have it. STATUS_DATA if no
 * line has any. */
enum status plot_loss(const struct plot_request *request, struct text *script, struct text *told, struct error *err);
/* One map (layers up, heads along) for each task of the newest line
 *   {"step": 40, "routing": "eval", "tasks": [T names], "active": [T][layers][heads] shares 0..1, null for a task without rows}
 * and one of the difference between the first task and each other one. STATUS_USAGE if there is no such line, STATUS_DATA
 * naming what is wrong with it. */
enum status plot_routing(const struct plot_request *request, struct text *script, struct text *told, struct error *err);

/* For both. Calls `take` on every line that is JSON; it returns true if it keeps the line, to free it later. */
typedef bool plot_line_taker(void *context, struct json *line, int64_t number);
enum status plot_each_line(const struct plot_request *request, plot_line_taker *take, void *context, struct error *err);
/* Chooses gnuplot's terminal: a picture of width x height, or the characters asked for. */
void plot_begin(const struct plot_request *request, int width, int height, struct text *script);
/* A text between gnuplot's single quotes. */
void plot_put_quoted(const char *text, struct text *script);

#endif
