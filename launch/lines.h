/* Lines of a file or of standard input through a function on several threads, and its results out in the same order.
 * Memory does not grow with the input, only with its longest line.
 * Must not know: what is done with a line. */
#ifndef LAUNCH_LINES_H
#define LAUNCH_LINES_H

#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

/* Appends the result to `out`; called from several threads at once. `where` is "file:line", for messages. */
typedef enum status line_fn(void *context, const char *line, size_t size, const char *where, struct text *out,
                            struct error *err);

/* `path` NULL or "-": standard input. Lines end at '\n'. Results go to standard output as they come; when a line fails,
 * those of all lines before it have been written. */
enum status lines_run(const char *path, int threads, line_fn *fn, void *context, struct error *err);

#endif
