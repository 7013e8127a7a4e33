#include "worker/data/duplicates.h"

#include <stdlib.h>
#include <string.h>

#include "common/checksum.h"
#include "common/memory.h"

struct mark {
    uint64_t hash;
    int64_t row;
};

uint64_t row_hash(const struct row *row)
{
    return hash64(row->tokens, (size_t)row->n_tokens * sizeof *row->tokens);
}

static int by_hash(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    return x->hash != y->hash ? (x->hash > y->hash) - (x->hash < y->hash) : (x->row > y->row) - (x->row < y->row);
}

/* Marks of all rows, equal hashes side by side, earlier rows first. */
static enum status sorted_marks(const struct dataset *dataset, struct mark **out, struct error *err)
{
    struct mark *marks = mem_alloc((size_t)dataset->rows, sizeof *marks);
    if (!marks)
        FAIL(err, STATUS_NOMEM, "no memory to compare %lld rows", (long long)dataset->rows);
    for (int64_t i = 0; i < dataset->rows; i++) {
        struct row row = dataset_row(dataset, i);
        marks[i] = (struct mark){row_hash(&row), i};
    }
    qsort(marks, (size_t)dataset->rows, sizeof *marks, by_hash);
    *out = marks;
    return STATUS_OK;
}

static bool same(const struct row *a, const struct row *b)
{
    return a->n_tokens == b->n_tokens && !memcmp(a->tokens, b->tokens, (size_t)a->n_tokens * sizeof *a->tokens);
}

/* The first row among marks[from..to), which have the row's hash, that is the same; -1 if none is. */
static int64_t find_like(const struct dataset *dataset, const struct mark *marks, int64_t from, int64_t to, const struct row *row)
{
    for (int64_t i = from; i < to; i++) {
        struct row other = dataset_row(dataset, marks[i].row);
        if (same(&other, row))
            return marks[i].row;
    }
    return -1;
}

static void note(struct duplicates *out, int64_t row, int64_t like)
{
    if (!out->rows || row < out->row) {
        out->row = row;
        out->like = like;
    }
    out->rows++;
}

enum status duplicates_within(const struct dataset *dataset, bool *repeats, struct duplicates *out, struct error *err)
{
    struct mark *marks;
    *out = (struct duplicates){0, -1, -1};
    TRY(sorted_marks(dataset, &marks, err));
    for (int64_t i = 0, first = 0; i < dataset->rows; i++) {
        first = marks[i].hash == marks[first].hash ? first : i;
        struct row row = dataset_row(dataset, marks[i].row);
        int64_t like = find_like(dataset, marks, first, i, &row);
        if (like >= 0)
            note(out, marks[i].row, like);
        if (repeats)
            repeats[marks[i].row] = like >= 0;
    }
    mem_free(marks);
    return STATUS_OK;
}

/* The first mark whose hash is not below. */
static int64_t lower_bound(const struct mark *marks, int64_t count, uint64_t hash)
{
    int64_t low = 0;
    while (count > 0) {
        int64_t half = count / 2;
        if (marks[low + half].hash < hash) {
            low += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return low;
}

enum status duplicates_between(const struct dataset *dataset, const struct dataset *other, struct duplicates *out,
                               struct error *err)
{
    struct mark *marks;
    *out = (struct duplicates){0, -1, -1};
    TRY(sorted_marks(dataset, &marks, err));
    for (int64_t i = 0; i < other->rows; i++) {
        struct row row = dataset_row(other, i);
        uint64_t hash = row_hash(&row);
        int64_t from = lower_bound(marks, dataset->rows, hash), to = from;
        while (to < dataset->rows && marks[to].hash == hash)
            to++;
        int64_t like = find_like(dataset, marks, from, to, &row);
        if (like >= 0)
            note(out, i, like);
    }
    mem_free(marks);
    return STATUS_OK;
}

void duplicates_put_place(const struct dataset *dataset, int64_t row, struct text *out)
{
    text_printf(out, "%s:%lld", dataset->parts[dataset_part_of(dataset, row)].path, (long long)dataset->lines[row]);
}
