/* What the files of `loar data` share. */
#ifndef LAUNCH_CMD_DATA_H
#define LAUNCH_CMD_DATA_H

#include <stdint.h>

#include "common/status.h"
#include "common/text.h"
#include "worker/data/columns.h"
#include "worker/data/table.h"

/* The value of --name as a number within bounds; STATUS_USAGE naming both. */
enum status data_parse_int(const char *name, const char *text, int64_t low, int64_t high, int64_t *out, struct error *err);
/* Takes "--name=value" or "--name value" at argv[*at], which begins with "--". */
enum status data_next_option(int argc, char **argv, int *at, char name[64], const char **value, struct error *err);
/* Takes an option about the file of rows: NAME_column, quoting, header. STATUS_USAGE for any other. */
enum status data_rows_option(const char *name, const char *value, struct row_columns *columns, struct table_rules *table,
                             struct error *err);
/* Makes the folder that `path` lies in. */
enum status data_make_parent(const char *path, struct error *err);
enum status data_write_into(const char *folder, const char *name, const struct text *text, struct error *err);

/* `loar data tokenizer`; argv[0] is "tokenizer". */
enum status data_tokenizer(int argc, char **argv, struct error *err);
/* `loar data join`; argv[0] is "join". */
enum status data_join(int argc, char **argv, struct error *err);

#endif
