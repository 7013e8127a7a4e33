#include "common/params.h"

#include <string.h>

#include "common/checksum.h"
#include "common/memory.h"
#include "common/rng.h"

static int64_t padded(int64_t size)
{
    return (size + PARAM_ALIGN - 1) / PARAM_ALIGN * PARAM_ALIGN;
}

enum status params_add(struct params *table, const struct param *entry, int *index, struct error *err)
{
    if (params_find(table, entry->name) >= 0)
        FAIL(err, STATUS_INTERNAL, "tensor '%s' is listed twice", entry->name);
    if (table->count == table->capacity) {
        int capacity = table->capacity ? 2 * table->capacity : 64;
        struct param *grown = mem_realloc(table->items, (size_t)capacity, sizeof *grown);
        if (!grown)
            FAIL(err, STATUS_NOMEM, "no memory for a table of %d tensors", capacity);
        table->items = grown;
        table->capacity = capacity;
    }
    struct param p = *entry;
    p.size = 1;
    for (int i = 0; i < p.n_dims; i++)
        if (p.shape[i] < 0 || __builtin_mul_overflow(p.size, p.shape[i], &p.size) || p.size > INT64_MAX / 8)
            FAIL(err, STATUS_DATA, "tensor '%s': its shape overflows", entry->name);
    if (p.rate != 0 && !(p.rate > 0 && p.rate <= 1 && p.role == PARAM_TRAINED && p.n_dims > 0 && p.shape[p.n_dims - 1] > 1))
        FAIL(err, STATUS_INTERNAL, "tensor '%s' cannot be moved at rate %g: it must be in the flat space, with rows of values "
             "and a count, and the rate above 0 and at most 1", entry->name, (double)p.rate);
    p.name = mem_strdup(entry->name);
    if (!p.name)
        FAIL(err, STATUS_NOMEM, "no memory for the name of tensor '%s'", entry->name);
    if (p.role == PARAM_TRAINED) {
        p.offset = table->values;
        table->values += padded(p.size);
        table->trained += p.size;
    } else {
        p.offset = table->frozen_values;
        table->frozen_values += padded(p.size);
        table->frozen += p.size;
    }
    if (index)
        *index = table->count;
    table->items[table->count++] = p;
    return STATUS_OK;
}

int params_find(const struct params *table, const char *name)
{
    for (int i = 0; i < table->count; i++)
        if (!strcmp(table->items[i].name, name))
            return i;
    return -1;
}

int64_t params_place(const struct params *table, int index)
{
    const struct param *p = &table->items[index];
    return p->role == PARAM_TRAINED ? p->offset : table->values + p->offset;
}

int64_t params_room(const struct params *table)
{
    return table->values + table->frozen_values;
}

int params_at(const struct params *table, int64_t value)
{
    int found = -1;
    for (int i = 0; i < table->count; i++)
        if (table->items[i].role == PARAM_TRAINED && table->items[i].offset <= value)
            found = i;
    return found;
}

void params_free(struct params *table)
{
    for (int i = 0; i < table->count; i++)
        mem_free(table->items[i].name);
    mem_free(table->items);
    *table = (struct params){0};
}

void param_initialise(const struct param *p, uint64_t seed, float *values)
{
    uint64_t stream = RNG_INIT;
    for (const char *c = p->name; *c; c++)
        stream = rng_substream(stream, (unsigned char)*c);
    for (int64_t j = 0; j < p->size; j++)
        values[j] = p->init == INIT_NORMAL    ? (float)(p->init_std * rng_normal(seed, stream, (uint64_t)j))
                    : p->init == INIT_UNIFORM ? (float)(p->init_std * (2 * rng_uniform(seed, stream, (uint64_t)j) - 1))
                    : p->init == INIT_ONES    ? 1.0f
                                              : 0.0f;
}

void params_initialise(const struct params *table, uint64_t seed, float *values)
{
    memset(values, 0, (size_t)table->values * sizeof *values);
    for (int i = 0; i < table->count; i++)
        if (table->items[i].role == PARAM_TRAINED)
            param_initialise(&table->items[i], seed, values + table->items[i].offset);
}

void params_fingerprint(const struct params *table, char hex[DIGEST_HEX_SIZE])
{
    struct digest *digest = digest_new();
    if (!digest) {
        memset(hex, '0', DIGEST_HEX_SIZE - 1);
        hex[DIGEST_HEX_SIZE - 1] = '\0';
        return;
    }
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->items[i];
        int64_t numbers[] = {p->role, p->n_dims, p->role == PARAM_TRAINED ? p->offset : -1};
        digest_add_string(digest, p->name);
        digest_add(digest, numbers, sizeof numbers);
        digest_add(digest, p->shape, (size_t)p->n_dims * sizeof *p->shape);
        if (p->rate > 0)
            digest_add(digest, &p->rate, sizeof p->rate);
    }
    if (*table->frozen_digest)
        digest_add_string(digest, table->frozen_digest);
    digest_finish(digest, hex);
}

struct chunks chunks_make(int64_t values, int64_t chunk_values)
{
    return (struct chunks){values, chunk_values, (int)((values + chunk_values - 1) / chunk_values)};
}

int64_t chunk_begin(const struct chunks *chunks, int chunk)
{
    return chunks->chunk_values * chunk;
}

int64_t chunk_size(const struct chunks *chunks, int chunk)
{
    int64_t left = chunks->values - chunk_begin(chunks, chunk);
    return left < chunks->chunk_values ? left : chunks->chunk_values;
}
