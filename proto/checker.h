/* A thread that computes checksums beside the one that moves payloads: taking a payload in costs that thread a copy, and
 * checking it afterwards would hold up the next one.
 * Must not know: transports, messages. */
#ifndef PROTO_CHECKER_H
#define PROTO_CHECKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct checker;

/* The caller's, and in its place until it is done; the bytes must not change meanwhile. */
struct check {
    const void *data;
    size_t bytes;
    uint32_t crc; /* CRC32C once it is done */
    atomic_bool done;
    struct check *next;
};

enum status checker_create(struct checker **out, struct error *err);
/* Finishes what was added, then ends the thread. NULL is allowed. */
void checker_free(struct checker *checker);
/* Sets data and bytes before; never fails, never waits. */
void checker_add(struct checker *checker, struct check *check);
/* Computes one that nobody has begun, on the calling thread; false when there is none. For callers with nothing else to do. */
bool checker_help(struct checker *checker);
bool check_done(const struct check *check);

#endif
