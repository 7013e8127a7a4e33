/* A worker's life: say hello, then obey orders: train a step, evaluate, leave. Gradients are announced chunk by
 * chunk while the backward pass still runs and move when the server asks.
 * Must not know: options, files, how batches come about. */
#ifndef WORKER_TRAIN_LOOP_H
#define WORKER_TRAIN_LOOP_H

#include <stdint.h>

#include "common/params.h"
#include "common/slots.h"
#include "common/status.h"
#include "common/text.h"
#include "common/threads.h"
#include "proto/transport.h"
#include "worker/data/batch.h"
#include "worker/model/model.h"

enum { ANSWER_COUNTS = 16 };

/* What a row of an evaluation set was answered with. What the counts mean is the business of who fills and who reads them. */
struct answer_report {
    int64_t counts[ANSWER_COUNTS]; /* add up over rows */
    struct text shown;             /* for a person to see, "" for most rows */
};

/* Where batches come from, and how rows are answered: pure functions of their arguments. An empty batch is allowed. `step` is
 * that of the stage. */
struct batch_source {
    void *context;
    enum status (*train)(void *context, int stage, int64_t step, int slot, struct batch *out, struct error *err);
    enum status (*evaluate)(void *context, int stage, int set, int64_t index, struct batch *out, struct error *err);
    /* Lets the model answer row `index` of an evaluation set. NULL where that is never asked for. */
    enum status (*answer)(void *context, int stage, int set, int64_t index, struct answer_report *out, struct error *err);
    /* How far routing has been let in; NULL: always the whole of it. */
    const struct loar_schedule *(*routing)(void *context, int stage);
    /* Appends which rows the slot of a training step holds (set < 0), or the batch `index` of an evaluation set, for a message. NULL:
     * nobody knows. */
    void (*name_rows)(void *context, int stage, int set, int64_t step, int64_t index, struct text *out);
};

struct loop_config {
    struct transport *transport;
    int server; /* rank of the server */
    struct model *model;
    /* [params_room(table)] with the frozen tensors in place; the caller's. May be NULL where none is frozen. */
    float *values;
    const struct params *table;
    struct chunks chunks;
    struct threads *pool;
    int slots;
    struct slot_range range; /* the slots that are mine */
    struct batch_source source;
    uint64_t seed;
    int64_t timeout_ms;
    int (*signals)(void); /* bits to pass on to the server; NULL: none */
};

/* Obeys until told to leave. STATUS_OK: the run is done; STATUS_STOPPED: stopped after a snapshot; otherwise the
 * failure, the server's or our own (which the server was told). */
enum status worker_loop(const struct loop_config *config, struct error *err);

#endif
