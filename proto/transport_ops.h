/* What a kind of transport provides, and the part of its state that all kinds share. Only for proto/transport*.c. */
#ifndef PROTO_TRANSPORT_OPS_H
#define PROTO_TRANSPORT_OPS_H

#include "proto/transport.h"

/* Every kind of transfer begins with this. */
struct transfer {
    bool done; /* set by the kind's poll */
};

struct transport_ops {
    /* A NULL `out` means: copy what you need. */
    enum status (*post)(struct transport *t, int dest, const void *bytes, size_t size, struct transfer **out,
                        struct error *err);
    enum status (*send)(struct transport *t, int dest, uint32_t tag, const void *data, size_t bytes, struct transfer **out,
                        struct error *err);
    enum status (*receive)(struct transport *t, int source, uint32_t tag, void *data, size_t bytes, struct transfer **out,
                           struct error *err);
    enum status (*poll)(struct transport *t, struct arrival *out, bool *arrived, struct error *err);
    void (*release)(struct transport *t, struct transfer *transfer); /* of a transfer that is done */
    void (*sleep)(struct transport *t, long us); /* may return early when there is something to poll */
    void (*close)(struct transport *t, bool orderly);
    bool (*withdraw)(struct transport *t); /* NULL: not possible */
    void (*abort)(struct transport *t, int exit_code);
};

struct transport {
    const struct transport_ops *ops;
    int rank, size;
    bool progressed; /* a transfer was completed: set by the kind's poll, cleared by transport_idle */
    int misses;      /* polls in a row that brought nothing */
    int sleeps;      /* ... after which it slept */
    int64_t idle_since_us;
};

#endif
