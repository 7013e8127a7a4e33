#include "worker/data/holdout.h"

#include <math.h>
#include <stdlib.h>

#include "common/memory.h"
#include "worker/data/duplicates.h"

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

enum status holdout_choose(const struct dataset *dataset, double size, bool *chosen, struct error *err)
{
    double wanted = size < 1 ? fmax(1, round(size * (double)dataset->rows)) : size;
    if (!(wanted < (double)dataset->rows))
        FAIL(err, STATUS_DATA, "val_size: %g holds out all %lld rows of the training data; lower it, or give more rows", size,
             (long long)dataset->rows);
    uint64_t *hashes = mem_alloc((size_t)dataset->rows, 2 * sizeof *hashes), *sorted = hashes + dataset->rows;
    if (!hashes)
        FAIL(err, STATUS_NOMEM, "no memory to choose among %lld rows", (long long)dataset->rows);
    for (int64_t i = 0; i < dataset->rows; i++) {
        struct row row = dataset_row(dataset, i);
        hashes[i] = sorted[i] = row_hash(&row);
    }
    qsort(sorted, (size_t)dataset->rows, sizeof *sorted, by_value);
    uint64_t highest = sorted[(int64_t)wanted - 1];
    int64_t left = 0;
    for (int64_t i = 0; i < dataset->rows; i++)
        left += !(chosen[i] = hashes[i] <= highest);
    mem_free(hashes);
    if (!left)
        FAIL(err, STATUS_DATA, "val_size: rows that are the same are held out together, and then no row is left to train on");
    return STATUS_OK;
}
