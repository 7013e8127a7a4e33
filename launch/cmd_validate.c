/* `loar validate RUN.yaml`: the parser and checks of a run, without the run. */
#include <stdio.h>
#include <string.h>

#include "common/options.h"
#include "launch/check.h"
#include "launch/commands.h"

static const char usage[] =
    "usage: loar validate RUN.yaml [key=value ...] [--options_only]\n"
    "\n"
    "Reads a run file and overrides as `worker` does and lists all problems of the options. Where there are none,\n"
    "loads model, tokenizer and rows, and says what they hold.\n"
    "\n"
    "  --options_only  look at the options alone\n"
    "\n"
    "Exit status: 0 a run would start, 2 problems with the options, 3 with the files they name.\n";

static enum status validate(const char *path, int n_overrides, char **overrides, bool files, struct error *err)
{
    struct options options;
    struct text notes = {0}, given = {0}, found = {0};
    enum status st = options_load(path, n_overrides, overrides, &options, &notes, err);
    if (notes.data)
        fprintf(stderr, "%s", notes.data);
    if (st == STATUS_OK) {
        options_format(&options, OPTIONS_GIVEN, &given);
        if (files)
            st = run_check(&options, &found, err);
        if (!given.failed && given.data)
            fputs(given.data, stdout);
        if (!found.failed && found.data)
            printf("\n%s", found.data);
        options_free(&options);
    }
    text_free(&notes);
    text_free(&given);
    text_free(&found);
    return st;
}

int cmd_validate(int argc, char **argv)
{
    struct error err;
    bool files = true;
    int kept = 1;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            return 0;
        }
        if (!strcmp(argv[i], "--options_only"))
            files = false;
        else
            argv[kept++] = argv[i];
    }
    if (kept < 2) {
        fputs("loar validate: which run file? See loar validate --help\n", stderr);
        return status_exit_code(STATUS_USAGE);
    }
    enum status st = validate(argv[1], kept - 2, argv + 2, files, &err);
    if (st == STATUS_OK)
        printf("ok\n");
    else
        fprintf(stderr, "%s\n", err.text);
    return status_exit_code(st);
}
