/* How often heads ran, per layer, task and head: whole numbers, so that sums over slots and ranks are exact in any order.
 * Must not know: what they are reported as. */
#ifndef WORKER_LOAR_COUNTS_H
#define WORKER_LOAR_COUNTS_H

#include "worker/loar/decisions.h"

struct routing_count {
    int64_t decisions; /* begun here; decisions kept from an earlier piece were counted there */
    int64_t rows;
};

struct routing_counts {
    int layers, tasks, heads;
    struct routing_count *items; /* [L][T][H + 1]: what each head ran in; last, all there was */
};

enum status routing_counts_create(int layers, int tasks, int heads, struct routing_counts *out, struct error *err);
void routing_counts_clear(struct routing_counts *counts);
void routing_counts_free(struct routing_counts *counts);
/* head = H: all there was. */
struct routing_count *routing_counts_at(const struct routing_counts *counts, int layer, int task, int head);
/* Counts one pass of one layer; on: [M][H]. */
void routing_counts_add(struct routing_counts *counts, int layer, const struct decisions *decisions, const uint8_t *on);
/* sum += more, of the same shape. */
void routing_counts_merge(struct routing_counts *sum, const struct routing_counts *more);

#endif
