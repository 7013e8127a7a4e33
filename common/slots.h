/* The fixed binary tree over the slots (micro-batches) of a global batch.
 * Node (level, index) covers slots [index << level, (index + 1) << level) cut off at `slots`; its sum is
 * left child + right child, or the left child alone where the right one would be empty. Because only whole
 * nodes are ever summed, the result has the same bits however the slots are spread over workers. */
#ifndef COMMON_SLOTS_H
#define COMMON_SLOTS_H

#include <stdbool.h>

struct slot_node {
    int level, index;
};

struct slot_range {
    int first, count;
};

enum { SLOT_MAX_NODES = 64 }; /* a range splits into at most 2 * log2(slots) nodes */

/* Contiguous share of worker `worker` of `workers`; sizes differ by at most one. */
struct slot_range slots_of_worker(int slots, int workers, int worker);
/* The slots a node covers. */
struct slot_range slot_node_range(struct slot_node node, int slots);
/* Splits a range into the fewest whole nodes, in slot order; returns how many were written to `nodes`. */
int slot_nodes_of_range(struct slot_range range, int slots, struct slot_node nodes[SLOT_MAX_NODES]);
/* Level of the root: the smallest L with (1 << L) >= slots. */
int slot_root_level(int slots);
/* True when a node has a right child, so that its sum is an addition and not a copy. */
bool slot_node_has_right(struct slot_node node, int slots);

#endif
