/* A worker's life: say hello, then obey orders: train a step, evaluate, leave. Gradients are announced chunk by
 * chunk while the backward pass still runs and move when the server asks.
 * Must not know: options, files, how batches come about. */
#ifndef WORKER_TRAIN_LOOP_H
#define WORKER_TRAIN_LOOP_H

#include <stdint.h>

#include "common/params.h"
#include "common/slots.h"
#include "common/status.h"
#include "common/threads.h"
#include "proto/transport.h"
#include "worker/data/batch.h"
#include "worker/model/model.h"

/* Where batches come from: pure functions of their arguments. An empty batch is allowed. */
struct batch_source {
    void *context;
    enum status (*train)(void *context, int64_t step, int slot, struct batch *out, struct error *err);
    enum status (*evaluate)(void *context, int set, int64_t index, struct batch *out, struct error *err);
};

struct loop_config {
    struct transport *transport;
    int server; /* rank of the server */
    struct model *model;
    /* [params_room(table)] with the frozen tensors in place, from mem_alloc_aligned; taken over. May be NULL where none is
     * frozen. */
    float *values;
    const struct params *table;
    struct chunks chunks;
    struct threads *pool;
    int slots;
    struct slot_range range; /* the slots that are mine */
    struct batch_source source;
    const struct loar_schedule *routing; /* how far it has been let in at a step; no matter for a dense model */
    uint64_t seed;
    int64_t timeout_ms;
    int (*signals)(void); /* bits to pass on to the server; NULL: none */
};

/* Obeys until told to leave. STATUS_OK: the run is done; STATUS_STOPPED: stopped after a snapshot; otherwise the
 * failure, the server's or our own (which the server was told). */
enum status worker_loop(const struct loop_config *config, struct error *err);

#endif
