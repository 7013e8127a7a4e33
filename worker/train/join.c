#include "worker/train/join.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/threads.h"
#include "proto/messages.h"
#include "proto/wait.h"

enum { FAREWELL_MS = 10000 };

void worker_describe_server(void *context, char *text, size_t size)
{
    snprintf(text, size, "the server (rank %d)", *(const int *)context);
}

enum status worker_greet(struct transport *transport, int server, int threads, const char *fingerprint, struct error *err)
{
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    struct message m = {.kind = MESSAGE_HELLO};
    m.hello.version = LOAR_VERSION;
    m.hello.rank = transport_rank(transport);
    m.hello.host = host;
    m.hello.pid = getpid();
    m.hello.threads = threads;
    m.hello.fingerprint = fingerprint;
    m.hello.cores = threads_cores();
    return frame_post(transport, server, &m, err);
}

/* The server's next message that is a welcome or an order to leave. */
static enum status next_word(struct transport *transport, int server, int64_t timeout_ms, struct arena *arena, struct message *m,
                             struct error *err)
{
    struct wait wait;
    wait_begin(&wait, "the run to begin", timeout_ms, worker_describe_server, &server);
    for (;;) {
        struct arrival arrival;
        bool arrived;
        TRY(transport_poll(transport, &arrival, &arrived, err));
        if (arrived) {
            arena_reset(arena);
            TRY(frame_decode(arrival.bytes, arrival.size, arrival.source, arena, m, err));
            if (arrival.source == server && (m->kind == MESSAGE_WELCOME || m->kind == MESSAGE_ORDER))
                return STATUS_OK;
            wait_heard(&wait);
            continue;
        }
        TRY(wait_check(&wait, err));
        transport_idle(transport, false);
    }
}

static enum status read_welcome(const struct message *m, struct welcome *out, struct error *err)
{
    if (m->kind == MESSAGE_ORDER)
        FAIL(err, m->order.status == STATUS_OK ? STATUS_STOPPED : (enum status)m->order.status, "%s", m->order.text);
    *out = (struct welcome){.workers = m->welcome.workers, .worker = m->welcome.worker, .slots = m->welcome.slots,
                            .first_step = m->welcome.first_step, .config_size = m->welcome.payload_size};
    out->config = mem_strndup(m->welcome.payload, m->welcome.payload_size);
    if (!out->config)
        FAIL(err, STATUS_NOMEM, "no memory for the configuration");
    return STATUS_OK;
}

enum status worker_join(struct transport *transport, int server, int threads, int64_t timeout_ms, struct welcome *out,
                        struct error *err)
{
    struct arena arena = {0};
    struct message m;
    struct error ignored;
    bool dismissed = false;
    enum status st = worker_greet(transport, server, threads, NULL, err);
    if (st == STATUS_OK)
        st = next_word(transport, server, timeout_ms, &arena, &m, err);
    if (st == STATUS_OK) {
        dismissed = m.kind == MESSAGE_ORDER;
        st = read_welcome(&m, out, err);
    }
    if (dismissed)
        frame_post(transport, server, &(struct message){.kind = MESSAGE_BYE}, &ignored);
    else if (st != STATUS_OK)
        worker_fail(transport, server, st, err); /* or the server would wait for us until its deadline */
    arena_free(&arena);
    return st;
}

void worker_report_failure(struct transport *transport, int server, enum status status, const struct error *why)
{
    struct error ignored;
    struct message m = {.kind = MESSAGE_FAILURE};
    m.failure.status = status;
    m.failure.rank = transport_rank(transport);
    m.failure.text = why->text;
    frame_post(transport, server, &m, &ignored);
}

void worker_fail(struct transport *transport, int server, enum status status, const struct error *why)
{
    struct error ignored;
    struct arena arena = {0};
    struct message m;
    worker_report_failure(transport, server, status, why);
    do {
        if (next_word(transport, server, FAREWELL_MS, &arena, &m, &ignored) != STATUS_OK)
            break;
    } while (m.kind != MESSAGE_ORDER);
    frame_post(transport, server, &(struct message){.kind = MESSAGE_BYE}, &ignored);
    arena_free(&arena);
}
