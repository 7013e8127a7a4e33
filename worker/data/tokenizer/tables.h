/* Hash tables that are filled once and then only read: spelling of a token -> id, pair of ids -> merge.
 * Must not know: where tokens come from. */
#ifndef WORKER_DATA_TOKENIZER_TABLES_H
#define WORKER_DATA_TOKENIZER_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Keys are borrowed. */
struct name_entry {
    const char *name;
    uint32_t size;
    int32_t id; /* -1: free place */
};
struct name_table {
    struct name_entry *places;
    size_t mask, count;
};
bool name_table_open(struct name_table *table, size_t expected); /* false when memory is short */
/* Returns the id the name has already, or gives it `id`. At most `expected` names. */
int32_t name_table_add(struct name_table *table, const char *name, size_t size, int32_t id);
int32_t name_table_find(const struct name_table *table, const char *name, size_t size); /* -1: unknown */
void name_table_free(struct name_table *table);

struct merge {
    int32_t left, right; /* left -1: free place */
    int32_t rank;        /* order of preference, the lowest first */
    int32_t joined;      /* id of the two put together */
};
struct merge_table {
    struct merge *places;
    size_t mask;
};
bool merge_table_open(struct merge_table *table, size_t expected);
void merge_table_set(struct merge_table *table, struct merge merge); /* replaces what the pair had */
const struct merge *merge_table_find(const struct merge_table *table, int32_t left, int32_t right); /* or NULL */
void merge_table_free(struct merge_table *table);

/* A good 64-bit hash of bytes. */
uint64_t bytes_hash(const char *bytes, size_t size);

#endif
