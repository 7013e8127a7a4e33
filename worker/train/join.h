/* How a worker comes into a run and how it leaves one that it could not join.
 * Must not know: models, data. */
#ifndef WORKER_TRAIN_JOIN_H
#define WORKER_TRAIN_JOIN_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "proto/transport.h"

/* What the server tells a worker about the run. */
struct welcome {
    int workers, worker; /* how many, and which one this is */
    int slots;
    int64_t first_step;
    char *config; /* text of the run file with the command line's overrides, NUL-terminated; mem_free */
    size_t config_size;
};

/* Greets the server (host, threads, version); once the model is known with the fingerprint of its table, else NULL. */
enum status worker_greet(struct transport *transport, int server, int threads, const char *fingerprint, struct error *err);
/* Greets and waits for the welcome. STATUS_STOPPED or the server's own failure when the run ends before it began. */
enum status worker_join(struct transport *transport, int server, int threads, int64_t timeout_ms, struct welcome *out,
                        struct error *err);
/* Names the awaited server in waits (wait_describe_fn); context: const int *, its rank. */
void worker_describe_server(void *context, char *text, size_t size);
/* Tells the server that this worker failed. */
void worker_report_failure(struct transport *transport, int server, enum status status, const struct error *why);
/* The same, then waits to be dismissed and says goodbye: for failures before the training loop. */
void worker_fail(struct transport *transport, int server, enum status status, const struct error *why);

#endif
