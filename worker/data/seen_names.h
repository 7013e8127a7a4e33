/* Names as they turn up, each kept once and numbered in that order.
 * Must not know: what is named. */
#ifndef WORKER_DATA_SEEN_NAMES_H
#define WORKER_DATA_SEEN_NAMES_H

#include <stdint.h>

#include "common/status.h"

struct seen_names {
    char **names;  /* [count] in order of their first appearance */
    int32_t *sorted; /* [count] numbers in order of the names */
    int count, capacity;
};

/* Number of the name. STATUS_DATA when there are too many to be labels. */
enum status seen_names_add(struct seen_names *seen, const char *name, int32_t *out, struct error *err);
void seen_names_free(struct seen_names *seen);

#endif
