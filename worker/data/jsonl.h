/* Cuts a file into JSON values, one per row: a line each, or the elements of one JSON array. The file is mapped,
 * not copied; a row that is broken is still found, so that the next ones can be read.
 * Must not know: what the rows mean. */
#ifndef WORKER_DATA_JSONL_H
#define WORKER_DATA_JSONL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/files.h"
#include "common/json.h"
#include "common/status.h"

struct jsonl {
    const char *path; /* borrowed, for messages */
    struct file_map map;
    const char *text; /* the bytes behind a byte order mark */
    size_t size, at, skipped; /* skipped: bytes of the mark */
    int64_t line; /* of position `at`, from 1 */
    bool array, first, closed;
};

struct jsonl_record {
    const char *text; /* without line end or comma */
    size_t size;
    int64_t line; /* where it begins */
};

enum status jsonl_open(const char *path, struct jsonl *out, struct error *err);
/* The same over bytes in memory; `path` only names them in messages. */
void jsonl_over(const char *path, const char *bytes, size_t size, struct jsonl *out);
void jsonl_close(struct jsonl *reader);

/* The next row; *found = false at the end. Blank lines are passed over. STATUS_DATA only where the array around
 * the rows is damaged. */
enum status jsonl_next(struct jsonl *reader, struct jsonl_record *out, bool *found, struct error *err);

/* Reads a record: STATUS_DATA naming "path:line[:column]" for NUL bytes and invalid UTF-8 (with the byte's offset
 * in its line) and for broken JSON. Safe for several threads on one reader. */
enum status jsonl_parse(const struct jsonl *reader, const struct jsonl_record *record, struct json **out,
                        struct error *err);

#endif
