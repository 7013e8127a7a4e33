/* The table of `loar` commands: usage, dispatch, suggestions. */
#ifndef LAUNCH_FRONT_H
#define LAUNCH_FRONT_H

#include <stdio.h>

/* All commands with a line each. */
void front_usage(FILE *out);
/* Runs argv[0] as a command; an unknown one is status 2 with the nearest name. */
int front_run(int argc, char **argv);

#endif
