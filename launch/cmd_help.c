/* `loar help [COMMAND | options]`. */
#include <stdio.h>
#include <string.h>

#include "common/options.h"
#include "launch/commands.h"
#include "launch/front.h"

int cmd_help(int argc, char **argv)
{
    if (argc < 2 || argv[1][0] == '-') {
        front_usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "options")) {
        char *request[] = {argv[1], "--help", NULL};
        return front_run(2, request);
    }
    struct text page = {0};
    options_reference(&page);
    int failed = page.failed || fputs(page.data, stdout) < 0;
    text_free(&page);
    return failed ? status_exit_code(STATUS_IO) : 0;
}
