/* `loar generate` for tasks whose rows have a class: the label of a text, or of every row of a file, and how many were right.
 * Must not know: command lines, how text is generated. */
#ifndef LAUNCH_CLASSIFY_H
#define LAUNCH_CLASSIFY_H

#include "launch/source.h"
#include "worker/data/columns.h"
#include "worker/data/table.h"

struct classify_request {
    const char *prompt, *file; /* one of them */
    const char *format, *task; /* NULL: recognised; the only one there is */
    struct row_columns columns;
    struct table_rules table;
    int64_t rows, score; /* rows to print and to count; negative: all / none */
};

/* Whether a request with this task (may be NULL) asks for a label of the model. */
bool classify_is_meant(const struct source *source, const char *task);
/* Prints to stdout. */
enum status classify(const struct classify_request *request, struct source *source, struct error *err);

#endif
