/* The server as launch/ drives it: take workers in, train a step, evaluate, save, stop. Inside runs one event
 * loop (progress -> dispatch -> timers) on the calling thread; sums and updates go to the thread pool.
 * Must not know: models, rows, option names. */
#ifndef PS_SERVER_H
#define PS_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/params.h"
#include "common/status.h"
#include "common/text.h"
#include "common/threads.h"
#include "proto/messages.h"
#include "proto/transport.h"
#include "ps/optimizer/optimizer.h"
#include "ps/schedule.h"
#include "ps/session.h"
#include "ps/shard.h"

struct server;

enum { SERVER_SIGNAL_STOP = 1, SERVER_SIGNAL_SAVE = 2 };

/* A part of the run with a course of its own. */
struct server_stage {
    int number;         /* from 0; workers take rows and options by it */
    int64_t first_step; /* steps of the run before it */
    struct schedule schedule; /* by steps of the stage */
    double max_grad_norm;     /* 0: no clipping; of each group of parameters by itself */
    int64_t router_steps;     /* first steps of the stage in which routers have this learning rate instead */
    double router_rate;
};

struct server_config {
    struct transport *transport;  /* this rank is 0, the workers are 1..size-1 */
    const struct params *table;
    struct shard *shard;          /* parameters and optimizer states; the caller fills the parameters */
    int slots;
    struct threads *pool;
    struct optimizer *optimizer;
    struct server_stage stage;    /* the one to begin with */
    int credits;                  /* chunk payloads that may be on their way at once */
    int64_t timeout_ms;           /* deadline of every wait */
    int64_t first_step;           /* steps done so far */
    int64_t updates;              /* optimizer updates done so far: fewer than steps where a batch was empty */
    const char *config_text;      /* handed to the workers */
    size_t config_size;
    int (*signals)(void);         /* SERVER_SIGNAL_* seen since the last call; NULL: none */
};

/* What a step or an evaluation amounted to. */
struct server_step {
    int64_t step;                 /* number of the step, from 0 */
    struct slot_report sums;      /* over all slots, added in slot order */
    double learning_rate;
    double grad_norm;             /* of the averaged gradient, before clipping: the model's; where only routers learn, theirs */
    double router_grad_norm;      /* the routers'; 0 where there are none */
    bool updated;                 /* false when the batch had no loss weight */
    double seconds, wait_seconds; /* whole step; of it waiting for workers */
    int slowest_rank;             /* whose gradients usually come last, and how late (smoothed); -1: not known */
    double slowest_lag_ms, median_lag_ms;
    double imbalance;             /* largest work of a worker by the mean of all; 0: not told */
};

void slot_report_add(struct slot_report *sum, const struct slot_report *more);

enum status server_create(const struct server_config *config, struct server **out, struct error *err);
void server_free(struct server *server);

/* Takes in all workers (HELLO -> WELCOME -> ready). Fails with the worker's own message if one cannot start. */
enum status server_accept(struct server *server, struct error *err);
int server_workers(const struct server *server);
/* What is known of worker 0..workers-1. */
const struct session *server_session(const struct server *server, int worker);
/* Optimizer updates done so far. */
int64_t server_updates(const struct server *server);
/* SERVER_SIGNAL_* that came since the last call, from this rank or from a worker. */
int server_take_signals(struct server *server);

/* From here on steps and evaluations belong to this stage; to be called before the first of them. */
void server_enter_stage(struct server *server, const struct server_stage *stage);
/* The shard's parameters were replaced: workers get them anew. `updates`: those that the optimizer's states have seen. */
void server_replaced(struct server *server, int64_t updates);

/* Runs training step `step`. STATUS_STOPPED when asked to stop meanwhile: parameters are those before the step. */
enum status server_train_step(struct server *server, int64_t step, struct server_step *out, struct error *err);

/* Evaluates batches 0..batches-1 of an evaluation set with the present parameters (those of `step`). */
enum status server_evaluate(struct server *server, int64_t step, int set, int batches, struct slot_report *sums,
                            struct error *err);

/* Lets the workers answer rows 0..rows-1 of an evaluation set, each by one of them; their counts add up in server_counts, and
 * what they have to show is in server_shown. */
enum status server_generate(struct server *server, int64_t step, int set, int rows, struct error *err);
/* What a worker sent to be shown about a row of the last server_generate, "" where it sent nothing; rows 0..SERVER_SHOWN_ROWS-1. */
enum { SERVER_SHOWN_ROWS = 64 };
const struct text *server_shown(const struct server *server, int row);

/* Sums of the whole numbers that workers counted in the last step or evaluation of a set; *count is 0 where they told none.
 * Valid until the next one. */
const int64_t *server_counts(const struct server *server, size_t *count);

/* Called for every chunk of the flat space right before it is changed, from a pool thread. */
typedef void server_chunk_fn(void *context, int chunk);
/* Registers the function; NULL clears it. */
void server_before_update(struct server *server, server_chunk_fn *fn, void *context);
/* Called once per turn of the event loop while the server has nothing else to do; true = there is more to do. */
typedef bool server_idle_fn(void *context);
void server_on_idle(struct server *server, server_idle_fn *fn, void *context);

/* Tells the workers to leave (status: why), receives what they had announced, and waits for their farewell. False
 * when one did not answer in time. */
bool server_dismiss(struct server *server, enum status why, const char *text);
/* The same for ranks that have only said hello, when there is no server yet. */
bool server_refuse(struct transport *transport, enum status why, const char *text);

#endif
