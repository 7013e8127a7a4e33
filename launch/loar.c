/* `loar COMMAND`: everything around training. */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/status.h"
#include "launch/front.h"

int main(int argc, char **argv)
{
    log_init(LOG_INFO, -1);
    if (argc < 2) {
        front_usage(stderr);
        return status_exit_code(STATUS_USAGE);
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        front_usage(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("loar %s\n", LOAR_VERSION);
        return 0;
    }
    return front_run(argc - 1, argv + 1);
}
