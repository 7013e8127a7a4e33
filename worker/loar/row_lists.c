#include "worker/loar/row_lists.h"

#include <string.h>

#include "common/memory.h"

/* Makes the array that `array` (the address of a pointer of any type) points to hold `count` items. */
static enum status reserve(void *array, size_t *capacity, size_t count, size_t size, struct error *err)
{
    void *block;
    memcpy(&block, array, sizeof block);
    if (block && count <= *capacity)
        return STATUS_OK;
    block = mem_realloc(block, count, size);
    if (!block)
        FAIL(err, STATUS_NOMEM, "no memory for lists of %zu active rows", count);
    memcpy(array, &block, sizeof block);
    *capacity = count;
    return STATUS_OK;
}

struct listing {
    const struct decisions *decisions;
    const uint8_t *on, *wanted;
    struct row_lists *out;
};

static void list_head(void *context, int h, int thread)
{
    (void)thread;
    const struct listing *a = context;
    const struct decisions *d = a->decisions;
    struct row_lists *out = a->out;
    int64_t *bounds = out->bounds + h * (int64_t)(out->n_sequences + 1), at = 0;
    int32_t *rows = out->rows + (int64_t)h * out->n_tokens;
    for (int b = 0; b < d->n_sequences; b++) {
        bounds[b] = at;
        for (int m = d->of_sequence[b]; m < d->of_sequence[b + 1]; m++)
            if (!a->on || a->on[m * (int64_t)out->heads + h])
                for (int32_t row = d->items[m].first; row < d->items[m].end; row++)
                    if (!a->wanted || a->wanted[row])
                        rows[at++] = row;
    }
    bounds[d->n_sequences] = at;
    out->all[h] = at == out->n_tokens;
}

enum status row_lists_make(struct threads *pool, const struct decisions *decisions, int heads, const uint8_t *on,
                           const uint8_t *wanted, struct row_lists *out, struct error *err)
{
    size_t h = (size_t)heads, n = (size_t)decisions->n_tokens, b = (size_t)decisions->n_sequences + 1;
    TRY(reserve(&out->rows, &out->rows_capacity, h * n, sizeof *out->rows, err));
    TRY(reserve(&out->bounds, &out->bounds_capacity, h * b, sizeof *out->bounds, err));
    TRY(reserve(&out->all, &out->heads_capacity, h, sizeof *out->all, err));
    out->heads = heads;
    out->n_sequences = decisions->n_sequences;
    out->n_tokens = decisions->n_tokens;
    struct listing a = {decisions, on, wanted, out};
    threads_run(pool, heads, list_head, &a);
    return STATUS_OK;
}

void row_lists_free(struct row_lists *lists)
{
    mem_free(lists->rows);
    mem_free(lists->bounds);
    mem_free(lists->all);
    *lists = (struct row_lists){0};
}
