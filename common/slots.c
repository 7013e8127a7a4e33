#include "common/slots.h"

struct slot_range slots_of_worker(int slots, int workers, int worker)
{
    int first = (int)((long long)slots * worker / workers);
    int end = (int)((long long)slots * (worker + 1) / workers);
    return (struct slot_range){first, end - first};
}

struct slot_range slot_node_range(struct slot_node node, int slots)
{
    long long first = (long long)node.index << node.level;
    long long end = (long long)(node.index + 1) << node.level;
    if (first > slots)
        first = slots;
    if (end > slots)
        end = slots;
    return (struct slot_range){(int)first, (int)(end - first)};
}

int slot_root_level(int slots)
{
    int level = 0;
    while ((1LL << level) < slots)
        level++;
    return level;
}

int slot_nodes_of_range(struct slot_range range, int slots, struct slot_node nodes[SLOT_MAX_NODES])
{
    int count = 0;
    int at = range.first, end = range.first + range.count;
    while (at < end) {
        /* The largest node that starts here and does not reach past the end of the range. */
        struct slot_node node = {0, at};
        for (int level = 1; level <= slot_root_level(slots); level++) {
            if (at & ((1 << level) - 1))
                break;
            struct slot_node wider = {level, at >> level};
            struct slot_range covered = slot_node_range(wider, slots);
            if (covered.first + covered.count > end)
                break;
            node = wider;
        }
        nodes[count++] = node;
        struct slot_range covered = slot_node_range(node, slots);
        at = covered.first + covered.count;
    }
    return count;
}

bool slot_node_has_right(struct slot_node node, int slots)
{
    return node.level > 0 && (((long long)node.index * 2 + 1) << (node.level - 1)) < slots;
}
