/* Strings of bytes, each once, numbered in the order they came in, each with a count: the different words of a text, or
 * the tokens of a vocabulary.
 * Must not know: what a string means. */
#ifndef WORKER_DATA_TOKENIZER_WORDS_H
#define WORKER_DATA_TOKENIZER_WORDS_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

struct word_entry {
    size_t at; /* where its bytes begin */
    uint32_t size, hash;
    int64_t count;
};
/* Start with {0}. */
struct word_table {
    struct word_entry *words; /* [count] */
    size_t count, capacity;
    struct text bytes;
    uint32_t *places; /* number of a word + 1, 0: free */
    size_t mask;
};

/* Adds to the count of the string, which must not be empty; *index (may be NULL) is its number. When memory is short the
 * table is as before. */
enum status word_table_add(struct word_table *table, const char *bytes, size_t size, int64_t count, int32_t *index,
                           struct error *err);
/* Adds everything that `other` holds. */
enum status word_table_join(struct word_table *table, const struct word_table *other, struct error *err);
/* The bytes stay where they are until the next string is added. */
const char *word_table_bytes(const struct word_table *table, size_t index);
void word_table_free(struct word_table *table);

#endif
