#include "launch/estimate.h"

#include <unistd.h>

#include "common/memory.h"

struct plan_memory estimate_memory(const struct start *start)
{
    const struct run *run = &start->run;
    const struct model_config *c = &run->config;
    int64_t longest = 0, row = 4 * c->width + (2 * c->heads + 2 * c->kv_heads) * c->head_dim + 3 * c->hidden;
    for (int i = 0; i < run->train.n_parts; i++)
        if (run->train.parts[i].stats.longest > longest)
            longest = run->train.parts[i].stats.longest;
    int64_t tokens = longest * run->options->per_device_train_batch_size;
    int lowest = training_lowest(&run->table, c->layers), layers = c->layers - lowest + (lowest > 0); /* those below share one's memory */
    int64_t kept = run->options->gradient_checkpointing ? row + c->layers * c->width : row * layers + lowest * c->width;
    if (c->training.kind == TRAIN_ADAPTERS)
        kept += 2 * c->training.lora.rank + (c->training.lora.dropout > 0 ? c->hidden : 0);
    int64_t values = (int64_t)sizeof(float) * run->table.values;
    return (struct plan_memory){.weights = values,
                                .frozen = (int64_t)sizeof(float) * run->table.frozen_values,
                                .gradients = 2 * values,
                                .activations = (int64_t)sizeof(float) * tokens * kept,
                                .server = values * (2 * (1 + start->shard->n_states) + 1)};
}

int64_t estimate_worker_bytes(const struct plan_memory *memory)
{
    return memory->weights + memory->gradients + memory->activations;
}

int64_t estimate_machine_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (int64_t)pages * size : 0;
}

enum status estimate_longest_batch(struct run *run, int64_t *step, int64_t *tokens, struct error *err)
{
    struct order *order = &run->order;
    uint32_t *rows = mem_alloc((size_t)order->slot_rows, sizeof *rows);
    if (!rows)
        FAIL(err, STATUS_NOMEM, "no memory for a list of %d rows", order->slot_rows);
    *step = *tokens = 0;
    for (int64_t s = 0; s < order_steps_per_epoch(order); s++)
        for (int slot = 0; slot < order->slots; slot++) {
            int64_t sum = 0;
            for (int i = order_slot(order, s, slot, rows) - 1; i >= 0; i--)
                sum += run->train.starts[rows[i] + 1] - run->train.starts[rows[i]];
            if (sum > *tokens) {
                *tokens = sum;
                *step = s;
            }
        }
    mem_free(rows);
    return STATUS_OK;
}
