/* What columns of rows mean, and the names users give them. Defined by rows.c, which has the formats.
 * Must not know: rows, conversations. */
#ifndef WORKER_DATA_COLUMNS_H
#define WORKER_DATA_COLUMNS_H

#include <stdbool.h>

/* What a column holds, whatever its name. */
enum row_role {
    ROW_QUESTION, ROW_INPUT, ROW_THOUGHT, ROW_ANSWER, ROW_SYSTEM, ROW_HISTORY, ROW_MESSAGES, ROW_TEXT, ROW_LABEL, ROW_WEIGHT,
    ROW_ROLES
};

/* Columns that bear other names than a format gives them. NULL or "": the format's. A column that is named must be in
 * every row. */
struct row_columns {
    const char *names[ROW_ROLES];
};
/* Takes `name` for the column that a run file calls `key`: question_column and so on. False if there is no such key. */
bool row_columns_set(struct row_columns *columns, const char *key, const char *name);

#endif
