#include "ps/server.h"


#include "common/memory.h"
#include "common/timing.h"
#include "ps/clock.h"
#include "ps/server_priv.h"

void slot_report_add(struct slot_report *sum, const struct slot_report *more)
{
    sum->loss += more->loss;
    sum->weight += more->weight;
    for (int i = 0; i < REPORT_SPANS; i++) {
        sum->span_loss[i] += more->span_loss[i];
        sum->span_count[i] += more->span_count[i];
    }
    sum->correct += more->correct;
    sum->tokens += more->tokens;
}

enum status server_create(const struct server_config *config, struct server **out, struct error *err)
{
    struct server *s = mem_alloc(1, sizeof *s);
    if (!s)
        FAIL(err, STATUS_NOMEM, "no memory for the server");
    s->config = *config;
    s->stage = config->stage;
    s->workers = transport_size(config->transport) - 1;
    s->version = -1;
    outbox_init(&s->outbox, config->transport);
    enum status st = STATUS_OK;
    if (s->workers < 1)
        st = error_set(err, STATUS_USAGE, "a run needs at least one worker besides the server");
    else if (s->workers > config->slots)
        st = error_set(err, STATUS_USAGE,
                       "%d workers but only %d slots: a worker without a slot would have nothing to do; raise ps.slots or "
                       "start at most %d ranks",
                       s->workers, config->slots, config->slots + 1);
    if (st == STATUS_OK) {
        size_t chunks = (size_t)config->shard->chunks.count;
        s->sessions = mem_alloc((size_t)s->workers, sizeof *s->sessions);
        s->said = mem_alloc((size_t)s->workers, sizeof *s->said);
        s->reports = mem_alloc((size_t)config->slots, sizeof *s->reports);
        s->crcs = mem_alloc(chunks, sizeof *s->crcs);
        if (!s->sessions || !s->said || !s->reports || !s->crcs)
            st = error_set(err, STATUS_NOMEM, "no memory for a server of %d workers", s->workers);
    }
    if (st == STATUS_OK)
        st = clock_init(&s->clock, s->workers, 0, config->first_step, err);
    if (st != STATUS_OK) {
        server_free(s);
        return st;
    }
    for (int w = 0; w < s->workers; w++) {
        session_init(&s->sessions[w], w + 1, time_ms());
        s->sessions[w].slots = slots_of_worker(config->slots, s->workers, w);
    }
    st = gather_create(config->transport, &config->shard->chunks, config->slots, s->sessions, s->workers, config->credits,
                       &s->gather, err);
    if (st != STATUS_OK) {
        server_free(s);
        return st;
    }
    *out = s;
    return STATUS_OK;
}

void server_free(struct server *s)
{
    if (!s)
        return;
    gather_free(s->gather);
    clock_free(&s->clock);
    mem_free(s->sessions);
    mem_free(s->said);
    mem_free(s->reports);
    mem_free(s->eval_reports);
    for (int i = 0; i < SERVER_SHOWN_ROWS; i++)
        text_free(&s->shown[i]);
    mem_free(s->counts);
    mem_free(s->crcs);
    outbox_free(&s->outbox);
    arena_free(&s->arena);
    mem_free(s);
}

int server_workers(const struct server *s)
{
    return s->workers;
}

const struct session *server_session(const struct server *s, int worker)
{
    return &s->sessions[worker];
}

int64_t server_updates(const struct server *s)
{
    return s->config.updates;
}

int server_take_signals(struct server *s)
{
    int signals = s->signals | (s->config.signals ? s->config.signals() : 0);
    s->signals = 0;
    return signals;
}

void server_before_update(struct server *s, server_chunk_fn *fn, void *context)
{
    s->before_update = fn;
    s->before_update_context = context;
}

void server_on_idle(struct server *s, server_idle_fn *fn, void *context)
{
    s->on_idle = fn;
    s->on_idle_context = context;
}
