#include "worker/data/tokenizer/words.h"

#include <string.h>

#include "common/memory.h"
#include "worker/data/tokenizer/tables.h"

static enum status no_memory(const struct word_table *table, struct error *err)
{
    FAIL(err, STATUS_NOMEM, "no memory for %zu different strings", table->count + 1);
}

/* Room for one more, with half of the places free at least. */
static enum status reserve(struct word_table *table, struct error *err)
{
    if (table->count < table->capacity)
        return STATUS_OK;
    size_t capacity = table->capacity ? table->capacity * 2 : 512;
    struct word_entry *words = mem_realloc(table->words, capacity, sizeof *words);
    if (!words)
        return no_memory(table, err);
    table->words = words;
    uint32_t *places = mem_alloc(capacity * 2, sizeof *places);
    if (!places)
        return no_memory(table, err);
    mem_free(table->places);
    table->places = places;
    table->mask = capacity * 2 - 1;
    table->capacity = capacity;
    for (size_t i = 0; i < table->count; i++) {
        size_t at = words[i].hash & table->mask;
        while (places[at])
            at = (at + 1) & table->mask;
        places[at] = (uint32_t)i + 1;
    }
    return STATUS_OK;
}

/* Both text and numbers must have room, so that nothing is half there when memory is short. */
static enum status append(struct word_table *table, const char *bytes, struct word_entry entry, struct error *err)
{
    if (table->count == INT32_MAX || entry.size == UINT32_MAX)
        FAIL(err, STATUS_DATA, "too much text: more than %d different strings, or one of 4 GiB", INT32_MAX);
    entry.at = table->bytes.size;
    text_append(&table->bytes, bytes, entry.size);
    if (table->bytes.failed) {
        table->bytes.failed = false;
        return no_memory(table, err);
    }
    table->words[table->count++] = entry;
    return STATUS_OK;
}

enum status word_table_add(struct word_table *table, const char *bytes, size_t size, int64_t count, int32_t *index,
                           struct error *err)
{
    uint32_t hash = (uint32_t)bytes_hash(bytes, size), found;
    TRY(reserve(table, err));
    size_t at = hash & table->mask;
    for (; (found = table->places[at]); at = (at + 1) & table->mask) {
        const struct word_entry *word = &table->words[found - 1];
        if (word->hash == hash && word->size == size && !memcmp(table->bytes.data + word->at, bytes, size))
            break;
    }
    if (!found) {
        uint32_t length = size < UINT32_MAX ? (uint32_t)size : UINT32_MAX;
        TRY(append(table, bytes, (struct word_entry){.size = length, .hash = hash}, err));
        table->places[at] = found = (uint32_t)table->count;
    }
    table->words[found - 1].count += count;
    if (index)
        *index = (int32_t)(found - 1);
    return STATUS_OK;
}

enum status word_table_join(struct word_table *table, const struct word_table *other, struct error *err)
{
    for (size_t i = 0; i < other->count; i++)
        TRY(word_table_add(table, word_table_bytes(other, i), other->words[i].size, other->words[i].count, NULL, err));
    return STATUS_OK;
}

const char *word_table_bytes(const struct word_table *table, size_t index)
{
    return table->bytes.data + table->words[index].at;
}

void word_table_free(struct word_table *table)
{
    mem_free(table->words);
    mem_free(table->places);
    text_free(&table->bytes);
    *table = (struct word_table){0};
}
