#include "launch/front.h"

#include <string.h>

#include "common/options.h"
#include "launch/commands.h"
#include "launch/screen.h"

static const struct {
    const char *name, *arguments, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
#define COMMAND(name, arguments, help) {#name, arguments, help, cmd_##name},
#include "launch/commands.def"
#undef COMMAND
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

void front_usage(FILE *out)
{
    struct screen screen;
    screen_open(&screen, out);
    screen_printf(&screen, "usage: loar COMMAND [arguments]\n\n");
    for (int i = 0; i < COMMANDS; i++)
        screen_printf(&screen, "  %s %s\n      %s\n", commands[i].name, commands[i].arguments, commands[i].help);
    screen_printf(&screen, "\nloar COMMAND --help tells more; loar help options lists the keys of run files.\n"
                           "Training itself: mpirun -n RANKS worker RUN.yaml, see worker --help.\n");
    screen_close(&screen);
}

int front_run(int argc, char **argv)
{
    const char *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++) {
        names[i] = commands[i].name;
        if (!strcmp(argv[0], names[i]))
            return commands[i].run(argc, argv);
    }
    const char *near = nearest_name(argv[0], names, COMMANDS);
    fprintf(stderr, "loar: unknown command '%.60s'", argv[0]);
    fprintf(stderr, near ? "; did you mean '%s'?\n" : "; see loar --help\n", near);
    return status_exit_code(STATUS_USAGE);
}
