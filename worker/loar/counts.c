#include "worker/loar/counts.h"

size_t routing_counts_size(const struct routing_counts *c)
{
    return (size_t)c->layers * (size_t)c->tasks * (size_t)(c->heads + 1);
}

struct routing_count *routing_counts_at(const struct routing_counts *c, int layer, int task, int head)
{
    return c->items + ((int64_t)layer * c->tasks + task) * (c->heads + 1) + head;
}

void routing_counts_add(const struct routing_counts *counts, int layer, const struct decisions *decisions, const uint8_t *on)
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
