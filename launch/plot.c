#include "launch/plot.h"

#include "worker/data/jsonl.h"

void plot_put_quoted(const char *text, struct text *script)
{
    text_puts(script, "'");
    for (; *text; text++) {
        if (*text == '\'')
            text_puts(script, "''");
        else if ((unsigned char)*text < ' ') /* a line break would end the command */
            text_puts(script, " ");
        else
            text_append(script, text, 1);
    }
    text_puts(script, "'");
}

void plot_begin(const struct plot_request *request, int width, int height, struct text *script)
{
    if (request->form == PLOT_TERMINAL)
        text_printf(script, "set terminal dumb size %d,%d\n", request->columns, request->rows);
    else
        text_printf(script, "set terminal %s size %d,%d font 'sans,12' background rgb 'white'\n",
                    request->form == PLOT_SVG ? "svg" : "pngcairo", width, height);
    text_puts(script, "set encoding utf8\n");
}

enum status plot_each_line(const struct plot_request *request, plot_line_taker *take, void *context, struct error *err)
{
    struct jsonl reader;
    struct jsonl_record record;
    jsonl_over(request->path, request->lines, request->size, &reader);
    for (bool found;;) {
        struct json *line;
        struct error unused;
        TRY(jsonl_next(&reader, &record, &found, err));
        if (!found)
            return STATUS_OK;
        enum status st = jsonl_parse(&reader, &record, &line, &unused);
        if (st == STATUS_NOMEM)
            FAIL(err, st, "no memory to read '%s'", request->path);
        if (st == STATUS_OK && !take(context, line, record.line))
            json_free(line);
    }
}
