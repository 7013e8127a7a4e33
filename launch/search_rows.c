#include "launch/search_rows.h"

#include <string.h>

#include "common/memory.h"
#include "common/rng.h"

static enum status fill(const struct dataset *dataset, const float span_weights[SPAN_COUNT], const uint32_t *rows, int64_t n_rows,
                        int64_t batch_rows, struct search_rows *out, struct error *err)
{
    out->rows = n_rows;
    out->count = (int)((n_rows + batch_rows - 1) / batch_rows);
    out->batches = mem_alloc((size_t)out->count, sizeof *out->batches);
    if (!out->batches)
        FAIL(err, STATUS_NOMEM, "no memory for %d batches", out->count);
    double weight = 0;
    for (int64_t i = 0; i < n_rows; i++) {
        struct row row = dataset_row(dataset, rows[i]);
        TRY(batch_append(&out->batches[i / batch_rows], &row, span_weights, err));
        out->shortest = i == 0 || row.n_tokens < out->shortest ? row.n_tokens : out->shortest;
        out->longest = row.n_tokens > out->longest ? row.n_tokens : out->longest;
    }
    for (int b = 0; b < out->count; b++)
        for (int i = 0; i < out->batches[b].n_tokens; i++)
            weight += out->batches[b].weights[i];
    if (weight == 0)
        FAIL(err, STATUS_USAGE, "the %lld rows drawn hold no token that a loss is taken on; give more --rows or another --seed",
             (long long)n_rows);
    return STATUS_OK;
}

static bool is_repeated(const struct dataset *dataset, const uint32_t *kept, int64_t count, uint32_t index)
{
    struct row row = dataset_row(dataset, index);
    for (int64_t i = 0; i < count; i++) {
        struct row other = dataset_row(dataset, kept[i]);
        if (other.n_tokens == row.n_tokens && !memcmp(other.tokens, row.tokens, (size_t)row.n_tokens * sizeof *row.tokens))
            return true;
    }
    return false;
}

/* Moves the first `wanted` rows that repeat none before them to the front, for what was learnt from a row would be known of
 * its copy in another split. Returns how many there were. */
static int64_t leave_out_repeated(const struct dataset *dataset, int64_t wanted, uint32_t *order)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < dataset->rows && kept < wanted; i++)
        if (!is_repeated(dataset, order, kept, order[i]))
            order[kept++] = order[i];
    return kept;
}

enum status search_rows_draw(const struct dataset *dataset, const float span_weights[SPAN_COUNT], uint64_t seed, int64_t rows,
                             int64_t batch_rows, int n_splits, struct search_rows *out, struct error *err)
{
    for (int s = 0; s < n_splits; s++)
        out[s] = (struct search_rows){0};
    if (rows < 1 || rows > INT32_MAX || dataset->rows > UINT32_MAX || rows * n_splits > dataset->rows)
        FAIL(err, STATUS_USAGE, "%d splits of %lld rows cannot be drawn from the %lld training rows; wanted at least one row for each "
             "split: lower --rows or give more rows", n_splits, (long long)rows, (long long)dataset->rows);
    uint32_t *order = mem_alloc((size_t)dataset->rows, sizeof *order);
    if (!order)
        FAIL(err, STATUS_NOMEM, "no memory for the order of %lld rows", (long long)dataset->rows);
    rng_permutation(seed, RNG_SEARCH, (uint32_t)dataset->rows, order);
    int64_t different = leave_out_repeated(dataset, rows * n_splits, order);
    enum status st = STATUS_OK;
    if (different < rows * n_splits)
        st = error_set(err, STATUS_USAGE, "%d splits of %lld rows cannot be drawn from the %lld training rows, of which only %lld differ; "
                       "lower --rows or give more rows", n_splits, (long long)rows, (long long)dataset->rows, (long long)different);
    for (int s = 0; s < n_splits && st == STATUS_OK; s++)
        st = fill(dataset, span_weights, order + s * rows, rows, batch_rows, &out[s], err);
    mem_free(order);
    if (st != STATUS_OK)
        search_rows_free(out, n_splits);
    return st;
}

void search_rows_free(struct search_rows *splits, int n_splits)
{
    for (int s = 0; s < n_splits; s++) {
        for (int b = 0; splits[s].batches && b < splits[s].count; b++)
            batch_free(&splits[s].batches[b]);
        mem_free(splits[s].batches);
        splits[s] = (struct search_rows){0};
    }
}
