/* The event loop: what arrives is dispatched by kind, payloads are moved along, and nobody waits without saying for
 * whom. Must not know: what a step is made of. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/checksum.h"
#include "common/log.h"
#include "common/timing.h"
#include "ps/server_priv.h"

enum { NOTICE_MS = 10000 };

/* Every worker greets twice: on arrival, and with the fingerprint of its parameter table once it has loaded. */
static enum status on_hello(struct server *s, int worker, const struct message *m, struct error *err)
{
    const struct message_hello *hello = &m->hello;
    if (strcmp(hello->version, LOAR_VERSION))
        FAIL(err, STATUS_USAGE, "rank %d on %s runs version %s, the server %s; start all ranks with the same program",
             s->sessions[worker].rank, hello->host, hello->version, LOAR_VERSION);
    char fingerprint[DIGEST_HEX_SIZE];
    params_fingerprint(s->config.table, fingerprint);
    if (*hello->fingerprint && strcmp(hello->fingerprint, fingerprint))
        FAIL(err, STATUS_DATA, "rank %d on %s lists other tensors than the server; do all nodes see the same model folder?",
             s->sessions[worker].rank, hello->host);
    session_identify(&s->sessions[worker], hello->host, hello->threads, s->sessions[worker].slots);
    if (!s->said[worker])
        s->n_said++;
    s->said[worker] = true;
    return STATUS_OK;
}

static enum status on_chunk(struct server *s, int worker, const struct message *m, struct error *err)
{
    return gather_announce(s->gather, worker, &m->chunk, err);
}

static enum status keep_report(struct server *s, int worker, struct report *reports, int count, int index, int *n_here,
                               const struct slot_report *numbers, struct error *err)
{
    if (index < 0 || index >= count || reports[index].here)
        FAIL(err, STATUS_PEER, "rank %d reported slot or batch %d of %d, which is not expected", s->sessions[worker].rank, index,
             count);
    reports[index] = (struct report){true, *numbers};
    ++*n_here;
    return STATUS_OK;
}

static enum status on_slot(struct server *s, int worker, const struct message *m, struct error *err)
{
    if (m->slot.step != s->step)
        FAIL(err, STATUS_PEER, "rank %d reported step %" PRId64 " during step %" PRId64, s->sessions[worker].rank, m->slot.step,
             s->step);
    return keep_report(s, worker, s->reports, s->config.slots, m->slot.slot, &s->n_reports, &m->slot.numbers, err);
}

static enum status on_eval(struct server *s, int worker, const struct message *m, struct error *err)
{
    if (s->leaving)
        return STATUS_OK;
    if (m->eval.set != s->eval_set)
        FAIL(err, STATUS_PEER, "rank %d reported evaluation set %d instead of %d", s->sessions[worker].rank, m->eval.set,
             s->eval_set);
    return keep_report(s, worker, s->eval_reports, s->eval_batches, m->eval.batch, &s->n_eval, &m->eval.numbers, err);
}

/* Counts travel before the numbers of their slot or batch, so they are here when these are. */
static enum status on_counts(struct server *s, int worker, const struct message *m, struct error *err)
{
    const struct message_text *in = &m->counts;
    size_t count = in->payload_size / sizeof *s->counts;
    if (s->leaving)
        return STATUS_OK;
    if (!s->n_counts && count) {
        mem_free(s->counts);
        s->counts = mem_alloc(count, sizeof *s->counts);
        if (!s->counts)
            FAIL(err, STATUS_NOMEM, "no memory for %zu counters", count);
        s->n_counts = count;
    }
    if (count != s->n_counts || in->payload_size % sizeof *s->counts)
        FAIL(err, STATUS_PEER, "rank %d sent counters of %zu bytes instead of %zu", s->sessions[worker].rank, in->payload_size,
             s->n_counts * sizeof *s->counts);
    for (size_t i = 0; i < count; i++) {
        int64_t value;
        memcpy(&value, (const char *)in->payload + i * sizeof value, sizeof value);
        if (value < 0 || value >= INT64_C(1) << 53)
            FAIL(err, STATUS_PEER, "rank %d sent %" PRId64 " as counter %zu", s->sessions[worker].rank, value, i);
        s->counts[i] += value;
        if (i == 0)
            s->sessions[worker].work += value;
    }
    return STATUS_OK;
}

static enum status on_text(struct server *s, int worker, const struct message *m, struct error *err)
{
    const struct message_text *in = &m->text;
    if (s->leaving)
        return STATUS_OK;
    if (in->set != s->eval_set || in->index < 0 || in->index >= SERVER_SHOWN_ROWS)
        FAIL(err, STATUS_PEER, "rank %d sent a text about row %d of evaluation set %d, which is not expected", s->sessions[worker].rank,
             in->index, in->set);
    text_clear(&s->shown[in->index]);
    text_append(&s->shown[in->index], in->payload, in->payload_size);
    return STATUS_OK;
}

static enum status on_signal(struct server *s, int worker, const struct message *m, struct error *err)
{
    (void)worker, (void)err;
    s->signals |= m->signal.flags;
    return STATUS_OK;
}

static enum status on_alive(struct server *s, int worker, const struct message *m, struct error *err)
{
    (void)s, (void)worker, (void)m, (void)err;
    return STATUS_OK;
}

static enum status on_failure(struct server *s, int worker, const struct message *m, struct error *err)
{
    s->sessions[worker].state = SESSION_FAILED;
    if (s->leaving)
        return STATUS_OK;
    FAIL(err, (enum status)m->failure.status, "rank %d on %s: %s", s->sessions[worker].rank, s->sessions[worker].host,
         m->failure.text);
}

static enum status on_bye(struct server *s, int worker, const struct message *m, struct error *err)
{
    (void)m;
    if (!s->leaving)
        FAIL(err, STATUS_PEER, "rank %d left in the middle of the run", s->sessions[worker].rank);
    if (!s->said[worker])
        s->n_said++;
    s->said[worker] = true;
    s->sessions[worker].state = SESSION_DONE;
    return STATUS_OK;
}

typedef enum status handler(struct server *, int worker, const struct message *, struct error *);
static handler *const handlers[MESSAGE_KIND_COUNT] = {
    [MESSAGE_HELLO] = on_hello,   [MESSAGE_CHUNK] = on_chunk, [MESSAGE_SLOT] = on_slot,       [MESSAGE_EVAL] = on_eval,
    [MESSAGE_COUNTS] = on_counts, [MESSAGE_TEXT] = on_text,
    [MESSAGE_SIGNAL] = on_signal, [MESSAGE_ALIVE] = on_alive, [MESSAGE_FAILURE] = on_failure, [MESSAGE_BYE] = on_bye,
};

static enum status dispatch(struct server *s, const struct arrival *arrival, struct error *err)
{
    struct message m;
    arena_reset(&s->arena);
    TRY(frame_decode(arrival->bytes, arrival->size, arrival->source, &s->arena, &m, err));
    int worker = arrival->source - 1;
    if (worker < 0 || worker >= s->workers || !handlers[m.kind])
        FAIL(err, STATUS_PEER, "rank %d sent the server a message of kind %d", arrival->source, (int)m.kind);
    session_touch(&s->sessions[worker], time_ms());
    return handlers[m.kind](s, worker, &m, err);
}

enum status server_post(struct server *s, int worker, const struct message *message, struct error *err)
{
    return frame_post(s->config.transport, s->sessions[worker].rank, message, err);
}

static void reap_sends(struct server *s)
{
    struct parcel left;
    while (outbox_collect(&s->outbox, &left))
        ;
}

/* One turn: everything that can be done without waiting. */
static enum status turn(struct server *s, bool *active, bool *busy, struct error *err)
{
    *active = false;
    if (s->config.signals)
        s->signals |= s->config.signals();
    for (;;) {
        struct arrival arrival;
        bool arrived;
        TRY(transport_poll(s->config.transport, &arrival, &arrived, err));
        if (!arrived)
            break;
        *active = true;
        TRY(dispatch(s, &arrival, err));
    }
    TRY(gather_progress(s->gather, time_ms(), busy, err));
    reap_sends(s);
    *busy = *busy || s->outbox.count > 0;
    return STATUS_OK;
}

/* After a time in which the server itself stood still, patience with everybody begins anew. */
static void forgive(struct server *s, int64_t *began, int64_t *looked)
{
    int64_t now = time_ms();
    if (now - *looked > TIME_ASLEEP_MS) {
        for (int w = 0; w < s->workers; w++)
            session_touch(&s->sessions[w], now);
        *began = now;
    }
    *looked = now;
}

/* Says every ten seconds for whom the server waits; past the deadline it gives up. */
static enum status watch(struct server *s, int worker, const char *what, int64_t began, int64_t *notice, struct error *err)
{
    int64_t now = time_ms();
    if (worker < 0)
        worker = sessions_most_silent(s->sessions, s->workers, now);
    struct session *session = worker >= 0 ? &s->sessions[worker] : NULL;
    int64_t silent = session ? session_silent_ms(session, now) : now - began;
    if (silent > now - began)
        silent = now - began; /* silence before the wait is not held against it */
    if (silent > s->config.timeout_ms)
        FAIL(err, STATUS_TIMEOUT, "no sign of life from rank %d on %s for %" PRId64 " s while waiting for %s; raise timeout_s if it "
             "was only slow", session ? session->rank : -1, session ? session->host : "?", silent / 1000, what);
    if (now >= *notice) {
        char text[SESSION_SUMMARY_SIZE];
        log_info("waiting for %s since %" PRId64 " s: %s", what, (now - began) / 1000,
                 session ? session_summary(session, now, text) : "all ranks");
        *notice = now + NOTICE_MS;
        for (int w = 0; w < s->workers; w++)
            TRY(server_post(s, w, &(struct message){.kind = MESSAGE_ALIVE}, err));
    }
    return STATUS_OK;
}

enum status server_wait(struct server *s, bool (*ready)(const struct server *), int (*waits_for)(const struct server *),
                        const char *what, bool finish, struct error *err)
{
    int64_t began = time_ms(), looked = began, notice = began + NOTICE_MS;
    for (;;) {
        bool active, busy;
        TRY(turn(s, &active, &busy, err));
        if (ready(s))
            return STATUS_OK;
        if (!finish && s->signals & SERVER_SIGNAL_STOP)
            FAIL(err, STATUS_STOPPED, "asked to stop while waiting for %s", what);
        forgive(s, &began, &looked);
        if (active)
            continue;
        TRY(watch(s, waits_for ? waits_for(s) : -1, what, began, &notice, err));
        if (s->on_idle && s->on_idle(s->on_idle_context))
            continue;
        transport_idle(s->config.transport, busy);
    }
}
