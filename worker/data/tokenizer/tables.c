#include "worker/data/tokenizer/tables.h"

#include <string.h>

#include "common/memory.h"

/* Mixing as in MurmurHash3's finaliser (Appleby, public domain). */
static uint64_t mix(uint64_t h)
{
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

uint64_t bytes_hash(const char *bytes, size_t size)
{
    uint64_t h = size * 0x9e3779b97f4a7c15u, word;
    for (; size >= sizeof word; bytes += sizeof word, size -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        h = mix(h ^ word);
    }
    word = 0;
    memcpy(&word, bytes, size);
    return mix(h ^ word);
}

/* A power of two with at least half of the places free. */
static size_t places_for(size_t expected)
{
    size_t places = 16;
    while (places / 2 < expected)
        places *= 2;
    return places;
}

bool name_table_open(struct name_table *table, size_t expected)
{
    size_t places = places_for(expected);
    *table = (struct name_table){.places = mem_alloc(places, sizeof *table->places), .mask = places - 1};
    for (size_t i = 0; table->places && i < places; i++)
        table->places[i].id = -1;
    return table->places;
}

static struct name_entry *name_place(const struct name_table *table, const char *name, size_t size)
{
    size_t at = bytes_hash(name, size) & table->mask;
    for (;; at = (at + 1) & table->mask) {
        struct name_entry *entry = &table->places[at];
        if (entry->id < 0 || (entry->size == size && !memcmp(entry->name, name, size)))
            return entry;
    }
}

int32_t name_table_add(struct name_table *table, const char *name, size_t size, int32_t id)
{
    struct name_entry *entry = name_place(table, name, size);
    if (entry->id < 0) {
        *entry = (struct name_entry){name, (uint32_t)size, id};
        table->count++;
    }
    return entry->id;
}

int32_t name_table_find(const struct name_table *table, const char *name, size_t size)
{
    return name_place(table, name, size)->id;
}

void name_table_free(struct name_table *table)
{
    mem_free(table->places);
    *table = (struct name_table){0};
}

bool merge_table_open(struct merge_table *table, size_t expected)
{
    size_t places = places_for(expected);
    *table = (struct merge_table){.places = mem_alloc(places, sizeof *table->places), .mask = places - 1};
    for (size_t i = 0; table->places && i < places; i++)
        table->places[i].left = -1;
    return table->places;
}

static struct merge *merge_place(const struct merge_table *table, int32_t left, int32_t right)
{
    size_t at = mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & table->mask;
    for (;; at = (at + 1) & table->mask) {
        struct merge *merge = &table->places[at];
        if (merge->left < 0 || (merge->left == left && merge->right == right))
            return merge;
    }
}

void merge_table_set(struct merge_table *table, struct merge merge)
{
    *merge_place(table, merge.left, merge.right) = merge;
}

const struct merge *merge_table_find(const struct merge_table *table, int32_t left, int32_t right)
{
    const struct merge *merge = merge_place(table, left, right);
    return merge->left < 0 ? NULL : merge;
}

void merge_table_free(struct merge_table *table)
{
    mem_free(table->places);
    *table = (struct merge_table){0};
}
