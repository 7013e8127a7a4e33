/* The server's own state, shared by server.c (life), server_loop.c (events) and server_step.c (what a step does). */
#ifndef PS_SERVER_PRIV_H
#define PS_SERVER_PRIV_H

#include "common/memory.h"
#include "proto/exchange.h"
#include "ps/clock.h"
#include "ps/gather.h"
#include "ps/server.h"
#include "ps/session.h"

/* One slot's or one evaluation batch's numbers, once they are here. */
struct report {
    bool here;
    struct slot_report numbers;
};

struct server {
    struct server_config config;
    int workers;
    struct session *sessions; /* [workers] */
    bool *said;               /* [workers] scratch of the handshakes: has answered */
    int n_said;
    struct clock clock;
    struct gather *gather;
    struct arena arena; /* decoded messages, one at a time */

    int64_t step;           /* the step in work, or -1 */
    struct report *reports; /* [slots] */
    int n_reports;
    int eval_set; /* the evaluation in work */
    struct report *eval_reports;
    int n_eval, eval_batches;

    struct server_stage stage;
    int64_t replaced;        /* how often parameters were replaced from outside */
    int64_t version;         /* of the parameters that the workers were sent: step + replaced; -1: none */
    uint32_t *crcs;          /* [chunks] of the parameters */
    struct outbox outbox;    /* parameters on their way */

    struct text shown[SERVER_SHOWN_ROWS]; /* about rows of the last generation */
    int64_t *counts; /* [n_counts] sums over the slots or batches of what is in work */
    size_t n_counts;

    int signals;   /* SERVER_SIGNAL_*, ours or reported by a worker, not yet acted upon */
    bool leaving;  /* dismissal under way: failures of workers no longer count */
    server_chunk_fn *before_update;
    void *before_update_context;
    server_idle_fn *on_idle;
    void *on_idle_context;
};


/* Packs and posts one message. */
enum status server_post(struct server *server, int worker, const struct message *message, struct error *err);
/* Runs the loop until ready() holds. waits_for() names the worker that is awaited (-1: none in particular); `what`
 * completes "waiting for". A stop signal ends it with STATUS_STOPPED unless `finish` is set. */
enum status server_wait(struct server *server, bool (*ready)(const struct server *), int (*waits_for)(const struct server *),
                        const char *what, bool finish, struct error *err);

#endif
