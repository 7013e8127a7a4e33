/* Declares every `loar` command of commands.def. */
#ifndef LAUNCH_COMMANDS_H
#define LAUNCH_COMMANDS_H

#define COMMAND(name, arguments, help) int cmd_##name(int argc, char **argv);
#include "launch/commands.def"
#undef COMMAND

#endif
