/* Any bytes at all as a CSV or TSV file, with every way of quoting, with and without a header line: each row is refused
 * with its place or has all columns; rows follow one another, and what is written again as CSV is read the same. */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "common/text.h"
#include "worker/data/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

static void demand_place(const struct error *err)
{
    demand(err->code == STATUS_DATA && !strncmp(err->text, "fuzz:", 5));
}

/* A column without a name reads as nothing, so rows that have one are not written again. */
static bool all_named(const struct table *table)
{
    for (size_t i = 0; i < table->n_names; i++)
        if (!*table->names[i])
            return false;
    return true;
}

static void put_quoted(struct text *out, const char *bytes, size_t size)
{
    text_puts(out, "\"");
    for (size_t i = 0; i < size; i++)
        text_append(out, bytes[i] == '"' ? "\"\"" : bytes + i, bytes[i] == '"' ? 2 : 1);
    text_puts(out, "\"");
}

/* The row as a CSV file of its own must read as the same row. */
static void check_again(const struct table *table, const struct json *row)
{
    struct text csv = {0};
    struct table again;
    struct table_rules rules = {0};
    struct jsonl_record record;
    struct json *copy = NULL;
    struct error err = {0};
    bool found;
    for (size_t i = 0; i < table->n_names; i++) {
        text_puts(&csv, i ? "," : "");
        put_quoted(&csv, table->names[i], strlen(table->names[i]));
    }
    for (size_t i = 0; i < table->n_names; i++) {
        size_t length;
        const char *bytes = json_to_string(json_member(row, table->names[i]), &length);
        text_puts(&csv, i ? "," : "\n");
        put_quoted(&csv, bytes, length);
    }
    demand(table_over("fuzz", ',', csv.data, csv.size, &rules, &again, &err) == STATUS_OK);
    demand(table_next(&again, &record, &found, &err) == STATUS_OK && found);
    demand(table_parse(&again, &record, &copy, &err) == STATUS_OK);
    for (size_t i = 0; i < table->n_names; i++) {
        size_t a, b;
        const char *first = json_to_string(json_member(row, table->names[i]), &a);
        const char *second = json_to_string(json_member(copy, table->names[i]), &b);
        demand(first && second && a == b && !memcmp(first, second, a));
    }
    demand(table_next(&again, &record, &found, &err) == STATUS_OK && !found);
    json_free(copy);
    table_close(&again);
    text_free(&csv);
}

static void read_as(const char *bytes, size_t size, char delimiter, const struct table_rules *rules)
{
    struct table table;
    struct jsonl_record record;
    struct error err = {0};
    const char *behind = bytes;
    int64_t line = 0;
    bool found = true;
    enum status st = table_over("fuzz", delimiter, bytes, size, rules, &table, &err);
    if (st != STATUS_OK)
        demand(err.code == STATUS_DATA);
    while (st == STATUS_OK && (st = table_next(&table, &record, &found, &err)) == STATUS_OK && found) {
        struct json *row;
        demand(record.size && record.text >= behind && record.size <= (size_t)(bytes + size - record.text) && record.line > line);
        behind = record.text + record.size;
        line = record.line;
        if (table_parse(&table, &record, &row, &err) != STATUS_OK) {
            demand_place(&err);
            continue;
        }
        if (all_named(&table)) {
            demand(json_count(row) == table.n_names);
            check_again(&table, row);
        }
        json_free(row);
    }
    demand(st == STATUS_OK || err.code == STATUS_DATA);
    table_close(&table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char delimiters[] = {',', '\t'};
    long live = mem_live();
    for (int i = 0; i < 2; i++)
        for (int quoting = QUOTING_DOUBLE; quoting <= QUOTING_BACKSLASH; quoting++)
            for (int header = 0; header < 2; header++) {
                struct table_rules rules = {(enum quoting)quoting, header ? "a,\"b, c\"" : NULL};
                read_as((const char *)data, size, delimiters[i], &rules);
            }
    demand(mem_live() == live);
    return 0;
}
