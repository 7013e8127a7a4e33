/* The rows of a file, whatever its kind: CSV or TSV by its ending, else JSON, one object a line or one array.
 * Must not know: what the rows mean. */
#ifndef WORKER_DATA_RECORDS_H
#define WORKER_DATA_RECORDS_H

#include "worker/data/jsonl.h"
#include "worker/data/table.h"

struct records {
    bool is_table;
    const char *path; /* borrowed, for messages */
    struct jsonl jsonl;
    struct table table;
};

/* STATUS_USAGE for a header given to a file of JSON. On failure nothing is left open. */
enum status records_open(const char *path, const struct table_rules *rules, struct records *out, struct error *err);
void records_close(struct records *records);

/* As jsonl_next and table_next, jsonl_parse and table_parse. */
enum status records_next(struct records *records, struct jsonl_record *out, bool *found, struct error *err);
enum status records_parse(const struct records *records, const struct jsonl_record *record, struct json **out,
                          struct error *err);

/* What a file of this kind should hold, to end a message. */
const char *records_wanted(const struct records *records);

#endif
