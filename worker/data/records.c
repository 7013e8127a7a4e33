#include "worker/data/records.h"

enum status records_open(const char *path, const struct table_rules *rules, struct records *out, struct error *err)
{
    *out = (struct records){.path = path, .is_table = table_delimiter(path)};
    if (!out->is_table && rules->header && *rules->header)
        FAIL(err, STATUS_USAGE, "'%s' is read as JSON, which names its columns itself; leave header out, or give the file the ending "
             ".csv or .tsv", path);
    if (!out->is_table)
        return jsonl_open(path, &out->jsonl, err);
    enum status st = table_open(path, rules, &out->table, err);
    if (st != STATUS_OK)
        table_close(&out->table);
    return st;
}

void records_close(struct records *records)
{
    jsonl_close(&records->jsonl);
    table_close(&records->table);
    *records = (struct records){0};
}

enum status records_next(struct records *records, struct jsonl_record *out, bool *found, struct error *err)
{
    return records->is_table ? table_next(&records->table, out, found, err) : jsonl_next(&records->jsonl, out, found, err);
}

enum status records_parse(const struct records *records, const struct jsonl_record *record, struct json **out,
                          struct error *err)
{
    return records->is_table ? table_parse(&records->table, record, out, err)
                             : jsonl_parse(&records->jsonl, record, out, err);
}

const char *records_wanted(const struct records *records)
{
    return records->is_table ? "it should have lines of fields below a header" : "it should have one JSON object per line";
}
