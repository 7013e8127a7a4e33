#include "worker/loar/counts.h"

#include <string.h>

#include "common/memory.h"

static size_t items_of(const struct routing_counts *c)
{
    return (size_t)c->layers * (size_t)c->tasks * (size_t)(c->heads + 1);
}

enum status routing_counts_create(int layers, int tasks, int heads, struct routing_counts *out, struct error *err)
{
    *out = (struct routing_counts){layers, tasks, heads, NULL};
    out->items = mem_alloc(items_of(out), sizeof *out->items);
    if (!out->items)
        FAIL(err, STATUS_NOMEM, "no memory to count the use of %d heads in %d layers", heads, layers);
    return STATUS_OK;
}

void routing_counts_clear(struct routing_counts *counts)
{
    memset(counts->items, 0, items_of(counts) * sizeof *counts->items);
}

void routing_counts_free(struct routing_counts *counts)
{
    mem_free(counts->items);
    *counts = (struct routing_counts){0};
}

struct routing_count *routing_counts_at(const struct routing_counts *c, int layer, int task, int head)
{
    return c->items + ((int64_t)layer * c->tasks + task) * (c->heads + 1) + head;
}

void routing_counts_add(struct routing_counts *counts, int layer, const struct decisions *decisions, const uint8_t *on)
{
    for (int m = 0; m < decisions->count; m++) {
        const struct decision *d = &decisions->items[m];
        struct routing_count *item = routing_counts_at(counts, layer, d->task, 0);
        int64_t begun = d->source != DECISION_KEPT, rows = d->end - d->first;
        for (int h = 0; h <= counts->heads; h++) {
            int64_t ran = h == counts->heads || on[m * (int64_t)counts->heads + h];
            item[h].decisions += ran * begun;
            item[h].rows += ran * rows;
        }
    }
}

void routing_counts_merge(struct routing_counts *sum, const struct routing_counts *more)
{
    for (size_t i = 0; i < items_of(sum); i++) {
        sum->items[i].decisions += more->items[i].decisions;
        sum->items[i].rows += more->items[i].rows;
    }
}
