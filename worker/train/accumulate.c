#include "worker/train/accumulate.h"

#include "common/memory.h"

enum { MAX_BUFFERS = SLOT_MAX_NODES };

struct accumulator {
    struct chunks chunks;
    struct threads *pool;
    float *free[MAX_BUFFERS];
    int n_free;
    float *pending[MAX_BUFFERS]; /* partial sums of complete left siblings, widest first */
    int n_pending;
    float *current; /* gradient of the slot in work */
    int merges;     /* how many pending sums join when it is done */
    bool last;      /* last slot of its node */
    int lowest;     /* chunks from here on are summed already */
};

enum status accumulator_create(const struct chunks *chunks, struct threads *pool, struct accumulator **out,
                               struct error *err)
{
    struct accumulator *acc = mem_alloc(1, sizeof *acc);
    if (!acc)
        FAIL(err, STATUS_NOMEM, "no memory to sum gradients");
    acc->chunks = *chunks;
    acc->pool = pool;
    *out = acc;
    return STATUS_OK;
}

void accumulator_free(struct accumulator *acc)
{
    if (!acc)
        return;
    accumulator_reset(acc);
    while (acc->n_free > 0)
        mem_free_aligned(acc->free[--acc->n_free]);
    mem_free(acc);
}

void accumulator_reset(struct accumulator *acc)
{
    if (acc->current)
        accumulator_release(acc, acc->current);
    acc->current = NULL;
    while (acc->n_pending > 0)
        accumulator_release(acc, acc->pending[--acc->n_pending]);
}

enum status accumulator_begin(struct accumulator *acc, int slot, int count, float **gradients, struct error *err)
{
    if (acc->n_free > 0)
        acc->current = acc->free[--acc->n_free];
    else
        acc->current = mem_alloc_aligned((size_t)acc->chunks.values, sizeof(float));
    if (!acc->current)
        FAIL(err, STATUS_NOMEM, "no memory for a gradient of %lld values; use fewer slots per worker (ps.slots)",
             (long long)acc->chunks.values);
    /* Slot numbers count in binary: every trailing one bit closes a subtree. The last slot closes them all,
     * also where the node is cut off by the number of slots. */
    acc->last = slot == count - 1;
    acc->merges = acc->last ? acc->n_pending : __builtin_ctz(~(unsigned)slot);
    acc->lowest = acc->chunks.count;
    *gradients = acc->current;
    return STATUS_OK;
}

struct merge {
    struct accumulator *acc;
    int first_chunk;
};

static void merge_chunk(void *context, int task, int thread)
{
    (void)thread;
    const struct merge *merge = context;
    struct accumulator *acc = merge->acc;
    int chunk = merge->first_chunk + task;
    int64_t begin = chunk_begin(&acc->chunks, chunk), size = chunk_size(&acc->chunks, chunk);
    float *restrict sum = acc->current + begin;
    for (int m = 1; m <= acc->merges; m++) {
        const float *restrict left = acc->pending[acc->n_pending - m] + begin;
        for (int64_t i = 0; i < size; i++)
            sum[i] = left[i] + sum[i];
    }
}

int accumulator_advance(struct accumulator *acc, int64_t first)
{
    int ready = (int)((first + acc->chunks.chunk_values - 1) / acc->chunks.chunk_values);
    if (ready < acc->lowest) {
        struct merge merge = {acc, ready};
        if (acc->merges > 0)
            threads_run(acc->pool, acc->lowest - ready, merge_chunk, &merge);
        acc->lowest = ready;
    }
    return acc->lowest;
}

void accumulator_end(struct accumulator *acc, float **sum)
{
    accumulator_advance(acc, 0);
    for (int m = 0; m < acc->merges; m++)
        accumulator_release(acc, acc->pending[--acc->n_pending]);
    *sum = NULL;
    if (acc->last)
        *sum = acc->current;
    else
        acc->pending[acc->n_pending++] = acc->current;
    acc->current = NULL;
}

void accumulator_release(struct accumulator *acc, float *sum)
{
    if (acc->n_free < MAX_BUFFERS)
        acc->free[acc->n_free++] = sum;
    else
        mem_free_aligned(sum);
}
