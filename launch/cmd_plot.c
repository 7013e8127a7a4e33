/* `loar plot loss RUN` and `loar plot routing RUN`: pictures of what a run wrote into metrics.jsonl, drawn by gnuplot. */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/commands.h"
#include "launch/gnuplot.h"
#include "launch/plot.h"

static const char usage[] =
    "usage: loar plot loss RUN [--out FILE | --term]\n"
    "       loar plot routing RUN [--out FILE] [--which eval|train]\n"
    "\n"
    "Draws what a run wrote into RUN/metrics.jsonl, with gnuplot (Debian: apt-get install gnuplot-nox).\n"
    "\n"
    "  RUN           the output_dir of a run; the run may still go on\n"
    "  loss          training loss, of thoughts and answers too, and evaluation loss, against the step\n"
    "  routing       the newest map of heads that ran, layer by head, for every task, and how the first task\n"
    "                differs from each other one\n"
    "  --out FILE    picture.svg or picture.png (default RUN/loss.svg, RUN/routing.svg)\n"
    "  --term        draw with characters on the terminal\n"
    "  --which KIND  routing of evaluation or of training (default: eval where there is one)\n"
    "\n"
    "Exit status: 0 drawn, 2 wrong usage, no gnuplot or a run without routing, 3 data missing or damaged.\n";

struct command {
    const char *what, *run, *out, *which;
    bool terminal;
};

static enum status take_value(int argc, char **argv, int *at, const char **out, struct error *err)
{
    const char *equals = strchr(argv[*at], '=');
    if (!equals && *at + 1 >= argc)
        FAIL(err, STATUS_USAGE, "%s needs a value; see loar plot --help", argv[*at]);
    *out = equals ? equals + 1 : argv[++*at];
    return STATUS_OK;
}

static bool is_option(const char *argument, const char *name)
{
    size_t size = strlen(name);
    return !strncmp(argument, name, size) && (!argument[size] || argument[size] == '=');
}

static enum status check(const struct command *c, struct error *err)
{
    if (!c->what || (strcmp(c->what, "loss") && strcmp(c->what, "routing")))
        FAIL(err, STATUS_USAGE, "loar plot loss or routing? found '%s'; see loar plot --help", c->what ? c->what : "nothing");
    if (!c->run)
        FAIL(err, STATUS_USAGE, "the folder of a run is needed: loar plot %s RUN; see loar plot --help", c->what);
    bool loss = *c->what == 'l';
    if (loss && c->which)
        FAIL(err, STATUS_USAGE, "--which belongs to loar plot routing; loss draws training and evaluation in one picture");
    if (!loss && c->terminal)
        FAIL(err, STATUS_USAGE, "--term belongs to loar plot loss; maps need a picture, see --out");
    if (c->terminal && c->out)
        FAIL(err, STATUS_USAGE, "--term draws on the terminal and --out into a file; give one of them");
    if (c->which && strcmp(c->which, "eval") && strcmp(c->which, "train"))
        FAIL(err, STATUS_USAGE, "--which must be eval or train, found '%s'", c->which);
    return STATUS_OK;
}

static enum status parse(int argc, char **argv, struct command *out, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--term"))
            out->terminal = true;
        else if (is_option(argv[i], "--out"))
            TRY(take_value(argc, argv, &i, &out->out, err));
        else if (is_option(argv[i], "--which"))
            TRY(take_value(argc, argv, &i, &out->which, err));
        else if (!strncmp(argv[i], "--", 2))
            FAIL(err, STATUS_USAGE, "unknown option '%s'; see loar plot --help", argv[i]);
        else if (!out->what)
            out->what = argv[i];
        else if (!out->run)
            out->run = argv[i];
        else
            FAIL(err, STATUS_USAGE, "one run at a time: '%s' is too much; see loar plot --help", argv[i]);
    }
    return check(out, err);
}

/* The terminal's size, or a size that fits most where there is none. */
static void terminal_size(int *columns, int *rows)
{
    struct winsize size;
    bool known = !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col >= 40 && size.ws_row >= 12;
    *columns = known ? size.ws_col : 100;
    *rows = known ? size.ws_row - 2 : 30;
}

static enum status picture_form(const char *path, enum plot_form *out, struct error *err)
{
    const char *dot = strrchr(path, '.');
    if (dot && !strcmp(dot, ".svg"))
        *out = PLOT_SVG;
    else if (dot && !strcmp(dot, ".png"))
        *out = PLOT_PNG;
    else
        FAIL(err, STATUS_USAGE, "--out '%s' must end in .svg or .png", path);
    return STATUS_OK;
}

static enum status draw(const struct command *c, const struct plot_request *request, const char *path, struct error *err)
{
    struct text script = {0}, told = {0};
    enum status st = (*c->what == 'l' ? plot_loss : plot_routing)(request, &script, &told, err);
    if (st == STATUS_OK)
        st = gnuplot_draw(&script, path, err);
    if (st == STATUS_OK && path)
        printf("%s: %s\n", path, told.data);
    text_free(&script);
    text_free(&told);
    return st;
}

static enum status run(const struct command *c, struct error *err)
{
    struct plot_request request = {.name = c->run, .form = PLOT_TERMINAL, .which = c->which};
    char *lines = NULL, *metrics = path_join(c->run, "metrics.jsonl");
    char *usual = path_join(c->run, *c->what == 'l' ? "loss.svg" : "routing.svg");
    const char *path = c->terminal ? NULL : c->out ? c->out : usual;
    enum status st = STATUS_OK;
    if (!metrics || !usual)
        st = error_set(err, STATUS_NOMEM, "no memory for a path");
    if (st == STATUS_OK && path)
        st = picture_form(path, &request.form, err);
    if (st == STATUS_OK && (st = file_read(metrics, &lines, &request.size, err)) == STATUS_DATA)
        error_prefix(err, "'%s' is not the folder of a run", c->run);
    if (st == STATUS_OK) {
        request.path = metrics;
        request.lines = lines;
        terminal_size(&request.columns, &request.rows);
        st = draw(c, &request, path, err);
    }
    mem_free(lines);
    mem_free(metrics);
    mem_free(usual);
    return st;
}

int cmd_plot(int argc, char **argv)
{
    struct command command = {0};
    struct error err;
    if (argc > 1 && (!strcmp(argv[argc - 1], "--help") || !strcmp(argv[argc - 1], "-h"))) {
        fputs(usage, stdout);
        return 0;
    }
    enum status st = parse(argc, argv, &command, &err);
    if (st == STATUS_OK)
        st = run(&command, &err);
    if (st != STATUS_OK)
        fprintf(stderr, "loar plot: %s\n", err.text);
    return status_exit_code(st);
}
