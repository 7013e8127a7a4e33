/* Starts gnuplot, a program of its own.
 * Must not know: what is drawn. */
#ifndef LAUNCH_GNUPLOT_H
#define LAUNCH_GNUPLOT_H

#include "common/status.h"
#include "common/text.h"

/* Gives gnuplot the script on its standard input. What it draws becomes the file `path`, in one piece or not at all, or
 * with NULL goes to standard output. STATUS_USAGE where gnuplot is not installed, with what to type; STATUS_IO with its
 * own words where it fails. */
enum status gnuplot_draw(const struct text *script, const char *path, struct error *err);

#endif
