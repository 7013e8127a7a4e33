#include "worker/model/counters.h"

#include <string.h>

#include "common/memory.h"
#include "common/timing.h"

#define NAME(name, text) text,
const char *const model_part_names[] = {MODEL_PARTS(NAME)};

enum status counters_create(int layers, int tasks, int heads, struct counters *out, struct error *err)
{
    *out = (struct counters){.layers = layers, .tasks = tasks, .heads = heads};
    struct routing_counts shape = {layers, tasks, heads, NULL};
    out->count = COUNTERS_ROUTING + routing_counts_size(&shape) * (sizeof(struct routing_count) / sizeof *out->items);
    out->items = mem_alloc(out->count, sizeof *out->items);
    if (!out->items)
        FAIL(err, STATUS_NOMEM, "no memory for the counters of %d layers", layers);
    return STATUS_OK;
}

void counters_free(struct counters *c)
{
    mem_free(c->items);
    *c = (struct counters){0};
}

void counters_clear(struct counters *c)
{
    memset(c->items, 0, c->count * sizeof *c->items);
}

struct routing_counts counters_routing(const struct counters *c)
{
    return (struct routing_counts){c->layers, c->tasks, c->heads, (struct routing_count *)(c->items + COUNTERS_ROUTING)};
}

void counters_resume(struct counters *c)
{
    if (c)
        c->last_ns = time_ns();
}

void counters_lap(struct counters *c, enum model_part part)
{
    if (!c)
        return;
    int64_t now = time_ns();
    c->items[COUNTERS_TIMES + part] += now - c->last_ns;
    c->last_ns = now;
}
