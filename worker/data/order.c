#include "worker/data/order.h"

#include <string.h>

#include "common/memory.h"
#include "common/rng.h"

static enum status check(int64_t rows, int slots, int slot_rows, struct error *err)
{
    if (slots < 1 || slot_rows < 1)
        FAIL(err, STATUS_INTERNAL, "a global batch of %d slots with %d rows each", slots, slot_rows);
    if (rows < slots)
        FAIL(err, STATUS_DATA,
             "the training data hold %lld rows, fewer than the %d slots of a global batch; give more rows or lower ps.slots",
             (long long)rows, slots);
    if (rows > UINT32_MAX)
        FAIL(err, STATUS_DATA, "the training data hold %lld rows; at most %u are possible", (long long)rows, UINT32_MAX);
    return STATUS_OK;
}

enum status order_create(uint64_t seed, int64_t rows, int slots, int slot_rows, bool shuffle, struct order *out,
                         struct error *err)
{
    TRY(check(rows, slots, slot_rows, err));
    struct order order = {.seed = seed, .rows = (uint32_t)rows, .slots = slots, .slot_rows = slot_rows,
                          .shuffle = shuffle, .cached = -1};
    if (shuffle) {
        order.epoch_rows = mem_alloc(order.rows, sizeof *order.epoch_rows);
        if (!order.epoch_rows)
            FAIL(err, STATUS_NOMEM, "no memory for the order of %lld rows", (long long)rows);
    }
    *out = order;
    return STATUS_OK;
}

enum status order_create_mixed(uint64_t seed, enum mix_strategy strategy, const struct mix_set *sets, int n_sets, int slots,
                               int slot_rows, bool shuffle, struct order *out, struct error *err)
{
    int64_t all = 0, rows;
    for (int i = 0; i < n_sets; i++)
        all += sets[i].rows;
    if (strategy == MIX_CONCAT)
        return order_create(seed, all, slots, slot_rows, shuffle, out, err);
    struct order order = {.seed = seed, .slots = slots, .slot_rows = slot_rows, .shuffle = shuffle, .cached = -1, .n_sets = n_sets};
    enum status st;
    if (!(order.sets = mem_alloc((size_t)n_sets, sizeof *sets)))
        FAIL(err, STATUS_NOMEM, "no memory for the order of %d data sets", n_sets);
    memcpy(order.sets, sets, (size_t)n_sets * sizeof *sets);
    TRY_OR(failed, st, mixture_count(strategy, order.sets, n_sets, &rows, err));
    TRY_OR(failed, st, check(rows, slots, slot_rows, err));
    order.rows = (uint32_t)rows;
    order.epoch_rows = mem_alloc((size_t)rows, sizeof *order.epoch_rows);
    order.scratch = mem_alloc((size_t)all, sizeof *order.scratch);
    if (order.epoch_rows && order.scratch) {
        *out = order;
        return STATUS_OK;
    }
    st = error_set(err, STATUS_NOMEM, "no memory for the order of %lld rows", (long long)rows);
failed:
    order_free(&order);
    return st;
}

void order_free(struct order *order)
{
    mem_free(order->epoch_rows);
    mem_free(order->scratch);
    mem_free(order->sets);
    *order = (struct order){.cached = -1};
}

int64_t order_steps_per_epoch(const struct order *order)
{
    int64_t per_step = (int64_t)order->slots * order->slot_rows;
    return (order->rows + per_step - 1) / per_step;
}

static void draw_epoch(struct order *order, int64_t epoch)
{
    if (order->sets)
        mixture_epoch(order->sets, order->n_sets, order->seed, epoch, order->shuffle, order->scratch, order->epoch_rows);
    else
        rng_permutation(order->seed, rng_substream(RNG_SHUFFLE, (uint64_t)epoch), order->rows, order->epoch_rows);
    order->cached = epoch;
}

int order_slot(struct order *order, int64_t step, int slot, uint32_t *rows)
{
    int64_t steps = order_steps_per_epoch(order);
    int64_t epoch = step / steps;
    if (order->epoch_rows && epoch != order->cached)
        draw_epoch(order, epoch);
    int64_t first = ((step % steps) * order->slots + slot) * order->slot_rows;
    int count = 0;
    for (; count < order->slot_rows && first + count < order->rows; count++)
        rows[count] = order->epoch_rows ? order->epoch_rows[first + count] : (uint32_t)(first + count);
    return count;
}
