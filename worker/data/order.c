#include "worker/data/order.h"

#include "common/memory.h"
#include "common/rng.h"

enum status order_create(uint64_t seed, int64_t rows, int slots, int slot_rows, bool shuffle, struct order *out,
                         struct error *err)
{
    if (slots < 1 || slot_rows < 1)
        FAIL(err, STATUS_INTERNAL, "a global batch of %d slots with %d rows each", slots, slot_rows);
    if (rows < slots)
        FAIL(err, STATUS_DATA,
             "the training data hold %lld rows, fewer than the %d slots of a global batch; give more rows or lower ps.slots",
             (long long)rows, slots);
    if (rows > UINT32_MAX)
        FAIL(err, STATUS_DATA, "the training data hold %lld rows; at most %u are possible", (long long)rows, UINT32_MAX);
    struct order order = {.seed = seed, .rows = (uint32_t)rows, .slots = slots, .slot_rows = slot_rows,
                          .shuffle = shuffle, .cached = -1};
    if (shuffle) {
        order.permutation = mem_alloc(order.rows, sizeof *order.permutation);
        if (!order.permutation)
            FAIL(err, STATUS_NOMEM, "no memory for the order of %lld rows", (long long)rows);
    }
    *out = order;
    return STATUS_OK;
}

void order_free(struct order *order)
{
    mem_free(order->permutation);
    *order = (struct order){.cached = -1};
}

int64_t order_steps_per_epoch(const struct order *order)
{
    int64_t per_step = (int64_t)order->slots * order->slot_rows;
    return (order->rows + per_step - 1) / per_step;
}

int order_slot(struct order *order, int64_t step, int slot, uint32_t *rows)
{
    int64_t steps = order_steps_per_epoch(order);
    int64_t epoch = step / steps;
    if (order->shuffle && epoch != order->cached) {
        rng_permutation(order->seed, rng_substream(RNG_SHUFFLE, (uint64_t)epoch), order->rows, order->permutation);
        order->cached = epoch;
    }
    int64_t first = ((step % steps) * order->slots + slot) * order->slot_rows;
    int count = 0;
    for (; count < order->slot_rows && first + count < order->rows; count++)
        rows[count] = order->shuffle ? order->permutation[first + count] : (uint32_t)(first + count);
    return count;
}
