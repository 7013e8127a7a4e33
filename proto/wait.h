/* A wait with a deadline that says, every ten seconds, for whom and for how long.
 * Must not know: what is awaited. */
#ifndef PROTO_WAIT_H
#define PROTO_WAIT_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

/* Writes who is awaited ("rank 3 on node7") to text. */
typedef void wait_describe_fn(void *context, char *text, size_t size);

struct wait {
    const char *what; /* completes "waiting for" */
    int64_t limit_ms; /* without a sign of life */
    wait_describe_fn *describe;
    void *context;
    int64_t began_ms, heard_ms, looked_ms, notice_ms;
};

/* describe may be NULL where `what` says it all. */
void wait_begin(struct wait *wait, const char *what, int64_t limit_ms, wait_describe_fn *describe, void *context);
/* The one who is awaited gave a sign of life: the deadline moves on. */
void wait_heard(struct wait *wait);
/* To be called on every turn of a loop that waits. STATUS_TIMEOUT, naming whom, once limit_ms have passed in silence; time
 * in which the process itself was suspended does not count. */
enum status wait_check(struct wait *wait, struct error *err);

#endif
