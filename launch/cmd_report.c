/* `loar report RUN`: what a run wrote into metrics.jsonl as one HTML page. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/commands.h"
#include "launch/page.h"

static const char usage[] =
    "usage: loar report RUN [--out FILE.html]\n"
    "\n"
    "Writes one HTML page about a run: plan and outcome, losses, evaluations, samples, routing,\n"
    "ranks, warnings, run file and options. It needs no network and no other file; open it\n"
    "with any browser. The run may still go on, or have been killed.\n"
    "\n"
    "  RUN         the output_dir of a run\n"
    "  --out FILE  where the page goes (default RUN/report.html)\n"
    "\n"
    "Exit status: 0 written, 2 wrong usage, 3 RUN is not the folder of a run, or the page\n"
    "cannot be written.\n";

struct command {
    const char *run, *out;
};

static enum status parse(int argc, char **argv, struct command *out, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--out=", 6))
            out->out = argv[i] + 6;
        else if (!strcmp(argv[i], "--out") && i + 1 < argc)
            out->out = argv[++i];
        else if (!strcmp(argv[i], "--out"))
            FAIL(err, STATUS_USAGE, "--out needs a value; see loar report --help");
        else if (!strncmp(argv[i], "--", 2))
            FAIL(err, STATUS_USAGE, "unknown option '%s'; see loar report --help", argv[i]);
        else if (!out->run)
            out->run = argv[i];
        else
            FAIL(err, STATUS_USAGE, "one run at a time: '%s' is too much; see loar report --help", argv[i]);
    }
    if (!out->run)
        FAIL(err, STATUS_USAGE, "the folder of a run is needed: loar report RUN; see loar report --help");
    size_t size = out->out ? strlen(out->out) : 5;
    if (out->out && (size < 5 || strcmp(out->out + size - 5, ".html")))
        FAIL(err, STATUS_USAGE, "--out '%s' must end in .html", out->out);
    return STATUS_OK;
}

static int64_t time_written(const char *path)
{
    struct stat file;
    return stat(path, &file) ? 0 : (int64_t)file.st_mtime;
}

static enum status write_page(const struct command *c, const char *metrics, const char *path, struct error *err)
{
    char *lines = NULL;
    size_t size;
    struct history history = {0};
    struct text page = {0};
    enum status st = file_read(metrics, &lines, &size, err);
    if (st == STATUS_DATA)
        return error_prefix(err, "'%s' is not the folder of a run", c->run);
    if (st == STATUS_OK)
        st = history_read(lines, size, &history, err);
    if (st == STATUS_OK) {
        struct page_request request = {.folder = c->run, .history = &history, .written = time_written(metrics)};
        st = page_put(&request, &page, err);
    }
    if (st == STATUS_OK)
        st = file_replace(path, page.data, page.size, err);
    if (st == STATUS_OK)
        printf("%s: %d lines of metrics, up to step %.0f\n", path, history.n_lines, history.last_step > 0 ? history.last_step : 0.0);
    mem_free(lines);
    history_free(&history);
    text_free(&page);
    return st;
}

int cmd_report(int argc, char **argv)
{
    struct command command = {0};
    struct error err;
    if (argc > 1 && (!strcmp(argv[argc - 1], "--help") || !strcmp(argv[argc - 1], "-h"))) {
        fputs(usage, stdout);
        return 0;
    }
    enum status st = parse(argc, argv, &command, &err);
    if (st == STATUS_OK) {
        char *metrics = path_join(command.run, "metrics.jsonl"), *usual = path_join(command.run, "report.html");
        if (metrics && usual)
            st = write_page(&command, metrics, command.out ? command.out : usual, &err);
        else
            st = error_set(&err, STATUS_NOMEM, "no memory for a path");
        mem_free(metrics);
        mem_free(usual);
    }
    if (st != STATUS_OK)
        fprintf(stderr, "loar report: %s\n", err.text);
    return status_exit_code(st);
}
