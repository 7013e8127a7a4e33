/* `loar bench NAME`: programs that print ratios measured in one run. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/status.h"
#include "launch/bench.h"
#include "launch/commands.h"

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} benches[] = {
#define BENCH(name, help) {#name, help, bench_##name},
#include "launch/bench.def"
#undef BENCH
};

static void usage(FILE *out)
{
    fputs("usage: loar bench NAME [--help]\n\n", out);
    for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++)
        fprintf(out, "  %-10s %s\n", benches[i].name, benches[i].help);
}

int cmd_bench(int argc, char **argv)
{
    if (argc > 1)
        for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++)
            if (!strcmp(argv[1], benches[i].name))
                return benches[i].run(argc - 1, argv + 1);
    bool help = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    if (argc > 1 && !help)
        fprintf(stderr, "loar bench: there is no '%s'\n", argv[1]);
    usage(help ? stdout : stderr);
    return help ? 0 : status_exit_code(STATUS_USAGE);
}
