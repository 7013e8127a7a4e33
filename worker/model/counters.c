#include "worker/model/counters.h"

#include <math.h>
#include <string.h>

#include "common/memory.h"
#include "common/timing.h"

#define NAME(name, text) text,
const char *const model_part_names[] = {MODEL_PARTS(NAME)};

static size_t routing_items(int layers, int tasks, int heads)
{
    struct routing_counts shape = {layers, tasks, heads, NULL};
    return routing_counts_size(&shape) * (sizeof(struct routing_count) / sizeof(int64_t));
}

enum status counters_create(int layers, int tasks, int heads, int labels, struct counters *out, struct error *err)
{
    *out = (struct counters){.layers = layers, .tasks = tasks, .heads = heads, .labels = labels};
    out->count = COUNTERS_ROUTING + routing_items(layers, tasks, heads) +
                 (size_t)labels * (sizeof(struct class_count) / sizeof *out->items);
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

void counters_add_loss(struct counters *c, int64_t position, int64_t length, double loss)
{
    int64_t *quarter = c->items + COUNTERS_QUARTERS + 2 * (4 * position / length);
    if (!(loss >= 0 && loss < 1 << 20)) /* not a number to add up; the loss itself is reported elsewhere */
        return;
    quarter[0] += llround(loss * COUNTERS_LOSS_UNIT);
    quarter[1]++;
}

struct class_count *counters_classes(const struct counters *c)
{
    return (struct class_count *)(c->items + COUNTERS_ROUTING + routing_items(c->layers, c->tasks, c->heads));
}

void counters_add_class(struct counters *c, int label, int best)
{
    struct class_count *counts = counters_classes(c);
    counts[label].rows++;
    counts[best].chosen++;
    counts[label].right += label == best;
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
