#include "worker/train/loop.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/checksum.h"
#include "common/memory.h"
#include "common/rng.h"
#include "common/timing.h"
#include "proto/exchange.h"
#include "proto/messages.h"
#include "proto/wait.h"
#include "worker/train/accumulate.h"
#include "worker/model/counters.h"
#include "worker/train/join.h"

enum { ALIVE_MS = 2000, FAREWELL_MS = 30000, PARAMETER_CREDITS = 8 };

/* A node sum on its way to the server; its buffer is busy until it is whole and every chunk has left. */
struct outgoing {
    float *sum; /* NULL while the accumulator still owns it, and when it was given back */
    int sends;
};

struct loop {
    struct loop_config config;
    float *values; /* [params_room] parameters as the server sent them, frozen ones behind */
    int64_t version, coming; /* step they belong to: complete / being received */
    int chunks_in;
    struct accumulator *accumulator;
    struct batch batch;
    struct arena arena; /* decoded messages */

    bool has_order, leave;
    struct message_order order;   /* the last one that came */
    struct message_order present; /* the one that is followed */
    char order_text[ERROR_TEXT_SIZE];

    struct slot_node nodes[SLOT_MAX_NODES];
    int n_nodes;
    struct outgoing outgoing[SLOT_MAX_NODES];
    struct outbox outbox; /* gradients; marks: struct outgoing */
    struct inbox inbox;   /* parameters */

    int64_t step;
    int node, lowest; /* node in work, and the lowest of its chunks that was announced */
    bool node_last;   /* its last slot is in work */
    float *gradients;
    int64_t alive_ms; /* when the server last heard of us */
    int64_t progress; /* payloads that moved and messages that said more than that the server is alive */
    bool parting;
    enum status trouble; /* first failure inside a callback */
    struct error *err;
};

static enum status post(struct loop *l, const struct message *m, struct error *err)
{
    l->alive_ms = time_ms();
    return frame_post(l->config.transport, l->config.server, m, err);
}

static enum status take_parameters(struct loop *l, const struct message_chunk *m, struct error *err)
{
    const struct chunks *chunks = &l->config.chunks;
    if (m->what != CHUNK_PARAMETERS || m->chunk < 0 || m->chunk >= chunks->count ||
        m->bytes != (uint64_t)chunk_size(chunks, m->chunk) * sizeof(float))
        FAIL(err, STATUS_PEER, "the server announced chunk %d (%llu bytes), which is not in my table of %d chunks", m->chunk,
             (unsigned long long)m->bytes, chunks->count);
    if (m->step != l->coming) {
        l->coming = m->step;
        l->chunks_in = 0;
    }
    return inbox_expect(&l->inbox, l->config.server, m, l->values + chunk_begin(chunks, m->chunk), err);
}

static enum status take_order(struct loop *l, const struct message_order *order)
{
    if (order->action == ORDER_STOP || order->action == ORDER_ABORT)
        l->leave = true;
    l->order = *order;
    snprintf(l->order_text, sizeof l->order_text, "%s", order->text);
    l->has_order = true;
    return STATUS_OK;
}

static enum status take_message(struct loop *l, const struct arrival *arrival, struct error *err)
{
    struct message m;
    arena_reset(&l->arena);
    TRY(frame_decode(arrival->bytes, arrival->size, arrival->source, &l->arena, &m, err));
    l->progress += m.kind != MESSAGE_ALIVE;
    if (arrival->source == l->config.server && m.kind == MESSAGE_CHUNK)
        return take_parameters(l, &m.chunk, err);
    if (arrival->source == l->config.server && m.kind == MESSAGE_ORDER)
        return take_order(l, &m.order);
    if (arrival->source == l->config.server && m.kind == MESSAGE_ALIVE)
        return STATUS_OK;
    FAIL(err, STATUS_PEER, "rank %d sent a worker a message of kind %d", arrival->source, (int)m.kind);
}

static enum status finish_receives(struct loop *l, struct error *err)
{
    for (;;) {
        struct parcel parcel;
        bool arrived;
        TRY(inbox_collect(&l->inbox, &parcel, &arrived, err));
        if (!arrived)
            return STATUS_OK;
        l->progress++;
        if (++l->chunks_in == l->config.chunks.count)
            l->version = l->coming;
    }
}

static void release_if_done(struct loop *l, struct outgoing *out)
{
    if (out->sends > 0 || !out->sum)
        return;
    accumulator_release(l->accumulator, out->sum);
    out->sum = NULL;
}

static void finish_sends(struct loop *l)
{
    struct parcel left;
    while (outbox_collect(&l->outbox, &left)) {
        struct outgoing *out = left.place;
        l->progress++;
        out->sends--;
        release_if_done(l, out);
    }
}

/* Everything that can be done without waiting; also called between the layers of a backward pass. */
static enum status turn(struct loop *l, bool *active, struct error *err)
{
    *active = false;
    for (;;) {
        struct arrival arrival;
        bool arrived;
        TRY(transport_poll(l->config.transport, &arrival, &arrived, err));
        if (!arrived)
            break;
        *active = true;
        TRY(take_message(l, &arrival, err));
    }
    TRY(finish_receives(l, err));
    finish_sends(l);
    struct message m = {.kind = MESSAGE_ALIVE};
    if (l->config.signals && (m.signal.flags = l->config.signals())) {
        m.kind = MESSAGE_SIGNAL;
        return post(l, &m, err);
    }
    return time_ms() - l->alive_ms > ALIVE_MS ? post(l, &m, err) : STATUS_OK;
}

/* Waits until ready() holds, as long as the server gives signs of life; when parting, as long as something moves: two
 * that only assure each other of being alive would never part. */
static enum status wait_for(struct loop *l, bool (*ready)(const struct loop *), const char *what, struct error *err)
{
    struct wait wait;
    wait_begin(&wait, what, l->config.timeout_ms, worker_describe_server, &l->config.server);
    for (;;) {
        bool active;
        int64_t before = l->progress;
        TRY(turn(l, &active, err));
        if (ready(l))
            return STATUS_OK;
        if (l->progress != before || (active && !l->parting))
            wait_heard(&wait);
        if (active)
            continue;
        TRY(wait_check(&wait, err));
        transport_idle(l->config.transport, l->outbox.count + l->inbox.count > 0);
    }
}

static bool has_order(const struct loop *l)
{
    return l->has_order;
}

/* Parameters of the ordered step are here; being told to leave ends the wait, too. */
static bool has_parameters(const struct loop *l)
{
    return l->version == l->present.version || l->leave;
}

/* The end of a step: all gradients are fetched. */
static bool sends_are_done(const struct loop *l)
{
    return l->outbox.count == 0 || l->leave;
}

static bool may_leave(const struct loop *l)
{
    return l->leave && l->outbox.count + l->inbox.count == 0;
}

/* Announces the chunks of the node in work from `lowest` up to those that were announced before. */
static enum status announce(struct loop *l, int lowest, struct error *err)
{
    const struct chunks *chunks = &l->config.chunks;
    struct outgoing *out = &l->outgoing[l->node];
    while (l->lowest > lowest) {
        int chunk = --l->lowest;
        struct message_chunk m = {.what = CHUNK_GRADIENT, .step = l->step, .chunk = chunk,
                                  .level = l->nodes[l->node].level, .index = l->nodes[l->node].index};
        TRY(outbox_announce(&l->outbox, l->config.server, &m, l->gradients + chunk_begin(chunks, chunk),
                            (size_t)chunk_size(chunks, chunk) * sizeof(float), NULL, out, err));
        out->sends++;
        l->alive_ms = time_ms();
    }
    return STATUS_OK;
}

/* Called between the layers of a backward pass: what is final is summed and announced, messages move on. */
static void gradient_ready(void *context, int64_t first)
{
    struct loop *l = context;
    bool active;
    if (l->trouble != STATUS_OK)
        return;
    int lowest = accumulator_advance(l->accumulator, first);
    if (l->node_last)
        l->trouble = announce(l, lowest, l->err);
    if (l->trouble == STATUS_OK)
        l->trouble = turn(l, &active, l->err);
}

static void report_of(const struct loss_sums *sums, struct slot_report *out)
{
    *out = (struct slot_report){.loss = sums->loss, .weight = sums->weight, .correct = sums->correct, .tokens = sums->tokens};
    for (int i = 0; i < SPAN_COUNT; i++) {
        out->span_loss[i] = sums->span_loss[i];
        out->span_count[i] = sums->span_count[i];
    }
}

/* What the model did since the last time; goes before the numbers of the slot or batch. */
static enum status post_counts(struct loop *l, int64_t step, int set, int index, struct error *err)
{
    struct counters *counters = model_counters(l->config.model);
    struct message m = {.kind = MESSAGE_COUNTS};
    m.counts = (struct message_text){.step = step, .set = set, .index = index, .payload = counters->items,
                                     .payload_size = counters->count * sizeof *counters->items};
    TRY(post(l, &m, err));
    counters_clear(counters);
    return STATUS_OK;
}

/* draw: whatever must differ from slot to slot, and for no other reason. */
static void schedule_routing(struct loop *l, int64_t step, int slot)
{
    const struct batch_source *source = &l->config.source;
    uint64_t draw = rng_u64(l->config.seed, RNG_EXPLORE, (uint64_t)(step * l->config.slots + slot));
    if (source->routing)
        model_set_schedule(l->config.model, source->routing(source->context, l->present.stage), l->present.stage_step, draw);
}

/* A failure to compute, with the rows that were computed behind the message. */
static enum status with_rows(struct loop *l, enum status st, int stage, int set, int64_t step, int64_t index, struct error *err)
{
    const struct batch_source *source = &l->config.source;
    struct text rows = {0};
    struct error cause = *err;
    if (st == STATUS_NUMERIC && source->name_rows)
        source->name_rows(source->context, stage, set, step, index, &rows);
    if (rows.size && !rows.failed)
        error_set(err, st, "%s; the rows were %s", cause.text, rows.data);
    text_free(&rows);
    return st;
}

static enum status run_slot(struct loop *l, int slot, int number, int count, struct error *err)
{
    struct loss_sums sums = {0};
    int64_t began = time_ms();
    l->err = err;
    l->trouble = STATUS_OK;
    l->node_last = number == count - 1;
    l->lowest = l->config.chunks.count;
    TRY(accumulator_begin(l->accumulator, number, count, &l->gradients, err));
    TRY(l->config.source.train(l->config.source.context, l->present.stage, l->present.stage_step, slot, &l->batch, err));
    schedule_routing(l, l->step, slot);
    if (l->batch.n_tokens > 0) {
        enum status st = model_gradient(l->config.model, l->values, &l->batch, l->gradients, gradient_ready, l, &sums, err);
        if (st != STATUS_OK) {
            error_prefix(err, "step %" PRId64 ", slot %d", l->step + 1, slot);
            return with_rows(l, st, l->present.stage, -1, l->present.stage_step, slot, err);
        }
    } else {
        /* The end of an epoch can leave later slots without rows. */
        memset(l->gradients, 0, (size_t)l->config.chunks.values * sizeof *l->gradients);
        gradient_ready(l, 0);
    }
    TRY(l->trouble);
    accumulator_end(l->accumulator, &l->outgoing[l->node].sum);
    release_if_done(l, &l->outgoing[l->node]);
    TRY(post_counts(l, l->step, 0, slot, err));
    struct message m = {.kind = MESSAGE_SLOT};
    m.slot.step = l->step;
    m.slot.slot = slot;
    report_of(&sums, &m.slot.numbers);
    m.slot.numbers.compute_us = (time_ms() - began) * 1000;
    return post(l, &m, err);
}

static enum status train_step(struct loop *l, struct error *err)
{
    l->step = l->present.step;
    for (l->node = 0; l->node < l->n_nodes; l->node++) {
        struct slot_range covered = slot_node_range(l->nodes[l->node], l->config.slots);
        for (int k = 0; k < covered.count && !l->leave; k++)
            TRY(run_slot(l, covered.first + k, k, covered.count, err));
        if (l->leave)
            break; /* what was announced must still be fetched, so the buffers stay as they are */
    }
    return STATUS_OK;
}

static enum status evaluate(struct loop *l, const struct message_order *order, struct error *err)
{
    bool active;
    schedule_routing(l, order->step, 0);
    for (int i = 0; i < order->count && !l->leave; i++) {
        struct loss_sums sums = {0};
        int index = order->first + i;
        TRY(l->config.source.evaluate(l->config.source.context, order->stage, order->set, index, &l->batch, err));
        enum status st = model_loss(l->config.model, l->values, &l->batch, &sums, err);
        if (st != STATUS_OK) {
            error_prefix(err, "evaluation after step %" PRId64, order->step);
            return with_rows(l, st, order->stage, order->set, 0, index, err);
        }
        TRY(post_counts(l, order->step, order->set, index, err));
        struct message m = {.kind = MESSAGE_EVAL};
        m.eval.set = order->set;
        m.eval.batch = index;
        report_of(&sums, &m.eval.numbers);
        TRY(post(l, &m, err));
        TRY(turn(l, &active, err));
    }
    return STATUS_OK;
}

/* Answers rows of an evaluation set. The numbers of a row say that it is done. */
static enum status answer(struct loop *l, const struct message_order *order, struct error *err)
{
    bool active;
    struct answer_report report = {0};
    schedule_routing(l, order->step, 0);
    enum status st = l->config.source.answer ? STATUS_OK : error_set(err, STATUS_PEER, "no answers were expected to be wanted");
    for (int i = 0; st == STATUS_OK && i < order->count && !l->leave; i++) {
        int index = order->first + i;
        struct message counts = {.kind = MESSAGE_COUNTS}, shown = {.kind = MESSAGE_TEXT}, done = {.kind = MESSAGE_EVAL};
        text_clear(&report.shown);
        st = l->config.source.answer(l->config.source.context, order->stage, order->set, index, &report, err);
        counts.counts = (struct message_text){order->step, order->set, index, report.counts, sizeof report.counts};
        shown.text = (struct message_text){order->step, order->set, index, report.shown.data, report.shown.size};
        done.eval.set = order->set;
        done.eval.batch = index;
        if (st == STATUS_OK)
            st = post(l, &counts, err);
        if (st == STATUS_OK && report.shown.size)
            st = post(l, &shown, err);
        if (st == STATUS_OK)
            st = post(l, &done, err);
        if (st == STATUS_OK)
            st = turn(l, &active, err);
    }
    text_free(&report.shown);
    return st;
}

static enum status follow(struct loop *l, const struct message_order *order, struct error *err)
{
    switch (order->action) {
    case ORDER_EVALUATE: return evaluate(l, order, err);
    case ORDER_GENERATE: return answer(l, order, err);
    default: return train_step(l, err);
    }
}

/* Obeys orders until told to leave. */
static enum status obey(struct loop *l, struct error *err)
{
    for (;;) {
        TRY(wait_for(l, has_order, "an order", err));
        l->has_order = false;
        if (l->leave)
            return STATUS_OK;
        l->present = l->order;
        TRY(wait_for(l, has_parameters, "parameters", err));
        if (l->leave)
            continue;
        TRY(follow(l, &l->present, err));
        TRY(wait_for(l, sends_are_done, "gradients to be fetched", err));
    }
}

static void loop_free(struct loop *l)
{
    for (int i = 0; i < SLOT_MAX_NODES; i++)
        if (l->outgoing[i].sum)
            mem_free_aligned(l->outgoing[i].sum);
    accumulator_free(l->accumulator);
    if (!l->config.values)
        mem_free_aligned(l->values);
    outbox_free(&l->outbox);
    inbox_free(&l->inbox);
    batch_free(&l->batch);
    arena_free(&l->arena);
    mem_free(l);
}

static enum status loop_create(const struct loop_config *config, struct loop **out, struct error *err)
{
    struct loop *l = mem_alloc(1, sizeof *l);
    if (!l)
        FAIL(err, STATUS_NOMEM, "no memory for the training loop");
    l->config = *config;
    l->version = l->coming = -1;
    outbox_init(&l->outbox, config->transport);
    inbox_init(&l->inbox, config->transport, NULL, PARAMETER_CREDITS);
    l->n_nodes = slot_nodes_of_range(config->range, config->slots, l->nodes);
    l->values = config->values ? config->values : mem_alloc_aligned((size_t)config->table->values, sizeof(float));
    enum status st = STATUS_OK;
    if (!config->values && config->table->frozen)
        st = error_set(err, STATUS_INTERNAL, "a worker was given no frozen tensors");
    else if (!l->values)
        st = error_set(err, STATUS_NOMEM, "no memory for %" PRId64 " parameters", config->table->values);
    if (st == STATUS_OK)
        st = accumulator_create(&config->chunks, config->pool, &l->accumulator, err);
    if (st != STATUS_OK) {
        loop_free(l);
        return st;
    }
    *out = l;
    return STATUS_OK;
}

/* Leaves in good order: says why if it is our own failure, lets the server fetch what was announced, says goodbye. */
static void farewell(struct loop *l, enum status st, const struct error *why)
{
    struct error ignored;
    l->config.signals = NULL;
    l->config.timeout_ms = FAREWELL_MS;
    l->parting = true;
    if (st != STATUS_OK && !l->leave)
        worker_report_failure(l->config.transport, l->config.server, st, why);
    if (wait_for(l, may_leave, "permission to leave", &ignored) == STATUS_OK)
        post(l, &(struct message){.kind = MESSAGE_BYE}, &ignored);
}

enum status worker_loop(const struct loop_config *config, struct error *err)
{
    struct loop *l = NULL;
    enum status st = loop_create(config, &l, err);
    if (st != STATUS_OK) {
        worker_fail(config->transport, config->server, st, err);
        return st;
    }
    char fingerprint[DIGEST_HEX_SIZE];
    params_fingerprint(config->table, fingerprint);
    st = worker_greet(config->transport, config->server, threads_count(config->pool), fingerprint, err);
    if (st == STATUS_OK)
        st = obey(l, err);
    farewell(l, st, err);
    if (st == STATUS_OK && l->order.status != STATUS_OK)
        st = error_set(err, (enum status)l->order.status, "%s", l->order_text);
    /* Where the farewell failed, the server may still read gradients; memory it can reach is better lost than reused. */
    if (l->outbox.count + l->inbox.count == 0 || transport_withdraw(config->transport))
        loop_free(l);
    return st;
}
