/* CSV and TSV files as rows: the fields of a line, or of several where quotes hold line ends, under the names of the
 * header line. A row becomes a JSON object of strings, so that row formats need not know where it came from. The file is
 * mapped, not copied; a line that is broken is still found, so that the next ones can be read.
 * Must not know: what the columns mean. */
#ifndef WORKER_DATA_TABLE_H
#define WORKER_DATA_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/json.h"
#include "common/status.h"
#include "worker/data/jsonl.h"

/* How a field says what would end it. double: RFC 4180, in quotes, a quote inside twice; a quote that does not begin the
 * field is plain. none: not at all, every character is itself. backslash: the same, but \n, \t, \r and \\ are a line
 * end, a tab, a carriage return and a backslash. */
enum quoting { QUOTING_DOUBLE, QUOTING_NONE, QUOTING_BACKSLASH };

struct table_rules {
    enum quoting quoting;
    const char *header; /* names of the columns, with commas between them, of a file without a header line; NULL or "": it
                           has one */
};
/* Takes the value of the key `quoting` or `header` of a run file; *known is false for another key. */
enum status table_rules_set(struct table_rules *rules, const char *key, const char *value, bool *known, struct error *err);

struct table {
    const char *path; /* borrowed, for messages */
    struct file_map map;
    const char *text; /* the bytes behind a byte order mark */
    size_t size, at, skipped; /* skipped: bytes of the mark */
    int64_t line; /* of position `at`, from 1 */
    char delimiter;
    enum quoting quoting;
    char **names; /* [n_names] "" for a column without one, which is left out */
    size_t n_names;
};

/* The delimiter that goes with the file's ending, in small letters or capitals: ',' for .csv, '\t' for .tsv; 0: no table. */
char table_delimiter(const char *path);

/* Reads the header too. STATUS_DATA naming "path:line:column" for a broken one. table_close also after a failure. */
enum status table_open(const char *path, const struct table_rules *rules, struct table *out, struct error *err);
/* The same over bytes in memory; `path` only names them in messages. */
enum status table_over(const char *path, char delimiter, const char *bytes, size_t size, const struct table_rules *rules,
                       struct table *out, struct error *err);
void table_close(struct table *table);

/* The next row; *found = false at the end. Empty lines are passed over. STATUS_DATA only for a quote that never closes. */
enum status table_next(struct table *table, struct jsonl_record *out, bool *found, struct error *err);

/* Reads a row: STATUS_DATA naming "path:line:column" for NUL bytes and invalid UTF-8, text behind a closing quote and a
 * number of fields that is not the header's. Safe for several threads on one table. */
enum status table_parse(const struct table *table, const struct jsonl_record *record, struct json **out, struct error *err);

#endif
