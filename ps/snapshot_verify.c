#include "ps/snapshot_verify.h"

#include <stdlib.h>

#include "common/checksum.h"
#include "common/direct_io.h"
#include "common/memory.h"
#include "ps/snapshot_seal.h"

/* One tensor of one array, in the order of the file. */
struct stretch {
    int64_t begin, end;
    uint32_t wanted, found;
    int array, tensor;
};

struct verifier {
    struct stretch *stretches;
    size_t count, current; /* those before `current` lie before `at` */
    int64_t at;
    uint32_t body;
};

static int by_place(const void *a, const void *b)
{
    const struct stretch *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static enum status list_stretches(const struct snapshot_index *index, struct verifier *v, struct error *err)
{
    v->stretches = mem_alloc((size_t)index->n_arrays * (size_t)index->table.count, sizeof *v->stretches);
    if (!v->stretches)
        FAIL(err, STATUS_NOMEM, "no memory for the places of a snapshot's tensors");
    for (int array = 0; array < index->n_arrays; array++)
        for (int i = 0; i < index->table.count; i++) {
            const struct index_place *place = &index->places[array][i];
            int64_t bytes = index->table.items[i].size * (int64_t)sizeof(float);
            if (bytes)
                v->stretches[v->count++] = (struct stretch){place->offset, place->offset + bytes, place->crc32c, 0, array, i};
        }
    qsort(v->stretches, v->count, sizeof *v->stretches, by_place);
    return STATUS_OK;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void take(void *context, const unsigned char *bytes, size_t size)
{
    struct verifier *v = context;
    int64_t begin = v->at, end = begin + (int64_t)size, body = sooner(later(begin, SEAL_SIZE), end);
    v->body = crc32c_more(v->body, bytes + (body - begin), (size_t)(end - body));
    for (size_t i = v->current; i < v->count && v->stretches[i].begin < end; i++) {
        struct stretch *s = &v->stretches[i];
        int64_t from = later(s->begin, begin), to = sooner(s->end, end);
        s->found = crc32c_more(s->found, bytes + (from - begin), (size_t)(to - from));
        v->current += s->end <= end;
    }
    v->at = end;
}

static enum status compare(const struct snapshot_index *index, const struct verifier *v, const char *path, struct error *err)
{
    for (size_t i = 0; i < v->count; i++) {
        const struct stretch *s = &v->stretches[i];
        if (s->end > v->at || s->found != s->wanted)
            FAIL(err, STATUS_IO, "'%s': '%s' of '%s' reads back differently than it was written", path, index->names[s->array],
                 index->table.items[s->tensor].name);
    }
    return STATUS_OK;
}

enum status verify_content(const char *path, const struct snapshot_index *index, uint32_t *body, struct error *err)
{
    struct verifier v = {0};
    enum status st = list_stretches(index, &v, err);
    if (st == STATUS_OK)
        st = direct_read(path, take, &v, err);
    if (st == STATUS_OK)
        st = compare(index, &v, path, err);
    *body = v.body;
    mem_free(v.stretches);
    return st;
}
