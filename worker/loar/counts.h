/* How often heads ran, per layer, task and head: whole numbers, so that sums over slots and ranks are exact in any order.
 * The numbers lie in memory of the caller's.
 * Must not know: what they are reported as. */
#ifndef WORKER_LOAR_COUNTS_H
#define WORKER_LOAR_COUNTS_H

#include <stddef.h>

#include "worker/loar/decisions.h"

struct routing_count {
    int64_t decisions; /* begun here; decisions kept from an earlier piece were counted there */
    int64_t rows;
};

struct routing_counts {
    int layers, tasks, heads;
    struct routing_count *items; /* [L][T][H + 1]: what each head ran in; last, all there was */
};

/* Items of a shape. */
size_t routing_counts_size(const struct routing_counts *shape);
/* head = H: all there was. */
struct routing_count *routing_counts_at(const struct routing_counts *counts, int layer, int task, int head);
/* Counts one pass of one layer; on: [M][H]. */
void routing_counts_add(const struct routing_counts *counts, int layer, const struct decisions *decisions, const uint8_t *on);

#endif
