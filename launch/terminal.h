/* The terminal that standard output ends at, and text that fits it: how wide it is, how wide text is, where lines break. Under
 * mpirun a rank's output is a pipe; what counts then is where mpirun's own output goes.
 * Must not know: what is printed. */
#ifndef LAUNCH_TERMINAL_H
#define LAUNCH_TERMINAL_H

#include <stddef.h>
#include <stdio.h>

#include "common/text.h"

/* Columns of the terminal at this moment, 0 where `out` does not end at one. */
int terminal_columns(FILE *out);

/* Columns that UTF-8 text takes: 2 for wide characters (East Asian, emoji), 0 for marks that join the one before, 1 for a byte that is
 * no UTF-8. Line ends and tabs count as 1. */
int terminal_width(const char *text, size_t size);
/* The longest beginning of the text that takes at most so many columns, in whole characters; at least one. In bytes. */
size_t terminal_fit(const char *text, size_t size, int columns);

/* Appends the lines with those that are longer than `columns` broken at blanks; what follows is indented to where the text behind a
 * label begins, else a little. A word longer than a line is broken unless it is a path, which would no longer be one.
 * columns 0: as they are. */
void terminal_wrap(struct text *out, const char *lines, size_t size, int columns);
/* The same for one command of a shell: it breaks at blanks with a backslash, so that it can still be copied. No line end behind it. */
void terminal_wrap_command(struct text *out, const char *command, int columns);

#endif
