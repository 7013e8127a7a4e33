/* What the server does with its workers: take them in, train a step, evaluate, dismiss.
 * Must not know: how messages travel. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/memory.h"
#include "common/timing.h"
#include "proto/wait.h"
#include "ps/server_priv.h"

enum { FAREWELL_MS = 10000 };

static bool all_said(const struct server *s)
{
    return s->n_said == s->workers;
}

static int first_mute(const struct server *s)
{
    for (int w = 0; w < s->workers; w++)
        if (!s->said[w])
            return w;
    return -1;
}

static void forget_said(struct server *s)
{
    memset(s->said, 0, (size_t)s->workers * sizeof *s->said);
    s->n_said = 0;
}

enum status server_accept(struct server *s, struct error *err)
{
    TRY(server_wait(s, all_said, first_mute, "workers to report", false, err));
    forget_said(s);
    for (int w = 0; w < s->workers; w++) {
        struct message m = {.kind = MESSAGE_WELCOME};
        m.welcome.workers = s->workers;
        m.welcome.worker = w;
        m.welcome.slots = s->config.slots;
        m.welcome.first_step = s->config.first_step;
        m.welcome.payload = s->config.config_text;
        m.welcome.payload_size = s->config.config_size;
        TRY(server_post(s, w, &m, err));
    }
    /* The second greeting says that data and model are loaded. */
    TRY(server_wait(s, all_said, first_mute, "workers to load data and model", false, err));
    for (int w = 0; w < s->workers; w++)
        s->sessions[w].state = SESSION_READY;
    forget_said(s);
    return STATUS_OK;
}

static enum status order(struct server *s, int worker, enum order_action action, int64_t step, int set, int first, int count,
                         enum status why, const char *text, struct error *err)
{
    struct message m = {.kind = MESSAGE_ORDER};
    m.order.action = action;
    m.order.step = step;
    m.order.set = set;
    m.order.first = first;
    m.order.count = count;
    m.order.status = why;
    m.order.text = text ? text : "";
    m.order.stage = s->stage.number;
    m.order.stage_step = step - s->stage.first_step;
    m.order.version = step + s->replaced;
    if (step < 0)
        m.order.stage_step = m.order.version = -1;
    return server_post(s, worker, &m, err);
}

static void checksum_chunk(void *context, int task, int thread)
{
    (void)thread;
    struct server *s = context;
    s->crcs[task] = chunk_crc32c(&s->config.shard->chunks, task, s->config.shard->parameters);
}

/* Announces the parameters of `step` to all workers, in forward order, unless they have them. */
static enum status publish(struct server *s, int64_t step, struct error *err)
{
    int64_t version = step + s->replaced;
    if (s->version == version)
        return STATUS_OK;
    struct shard *shard = s->config.shard;
    threads_run(s->config.pool, shard->chunks.count, checksum_chunk, s);
    for (int c = 0; c < shard->chunks.count; c++)
        for (int w = 0; w < s->workers; w++) {
            size_t bytes = (size_t)chunk_size(&shard->chunks, c) * sizeof(float);
            struct message_chunk chunk = {.what = CHUNK_PARAMETERS, .step = version, .chunk = c};
            TRY(outbox_announce(&s->outbox, s->sessions[w].rank, &chunk, shard->parameters + chunk_begin(&shard->chunks, c),
                                bytes, &s->crcs[c], NULL, err));
            session_sent(&s->sessions[w], bytes);
        }
    s->version = version;
    return STATUS_OK;
}

static bool step_is_in(const struct server *s)
{
    return gather_complete(s->gather) && s->n_reports == s->config.slots && s->outbox.count == 0;
}

static int step_waits_for(const struct server *s)
{
    int worker = gather_waits_for(s->gather);
    for (int k = 0; worker < 0 && k < s->config.slots; k++)
        for (int w = 0; !s->reports[k].here && w < s->workers; w++)
            if (k >= s->sessions[w].slots.first && k < s->sessions[w].slots.first + s->sessions[w].slots.count)
                worker = w;
    return worker;
}

/* The slot, and through it the worker, whose loss is not a number. */
static enum status check_losses(struct server *s, int64_t step, struct error *err)
{
    for (int k = 0; k < s->config.slots; k++)
        if (!isfinite(s->reports[k].numbers.loss))
            FAIL(err, STATUS_NUMERIC, "the loss of slot %d in step %lld is %g; the last snapshot is untouched. Lower the learning "
                 "rate, or look at the rows of that slot", k, (long long)step + 1, s->reports[k].numbers.loss);
    return STATUS_OK;
}

static enum status update(struct server *s, struct server_step *out, struct error *err)
{
    const float *const *sums = gather_sums(s->gather);
    double weight = out->sums.weight;
    out->learning_rate = schedule_rate(&s->stage.schedule, out->step - s->stage.first_step);
    if (!(weight > 0)) {
        log_warn("step %lld has no supervised token: no update", (long long)out->step + 1);
        return STATUS_OK;
    }
    struct gradient_norm norm = gradient_norm(s->config.optimizer, s->config.pool, sums, weight);
    double model = norm.norm[PARAM_GROUP_MODEL], router = norm.norm[PARAM_GROUP_ROUTER];
    if (norm.non_finite >= 0 || !isfinite(model) || !isfinite(router)) {
        char where[256];
        optimizer_locate(s->config.optimizer, norm.non_finite, where, sizeof where);
        FAIL(err, STATUS_NUMERIC, "the gradient of %s is not finite in step %lld; the last snapshot is untouched. Lower the "
             "learning rate or set max_grad_norm", where, (long long)out->step + 1);
    }
    out->grad_norm = model > 0 ? model : router;
    out->router_grad_norm = router;
    bool fits = out->step - s->stage.first_step < s->stage.router_steps;
    struct optimizer_scalars scalars = {
        .step = ++s->config.updates,
        .pace = {[PARAM_GROUP_MODEL] = {out->learning_rate, gradient_clip(model, s->stage.max_grad_norm) / weight},
                 [PARAM_GROUP_ROUTER] = {fits ? s->stage.router_rate : out->learning_rate,
                                         gradient_clip(router, s->stage.max_grad_norm) / weight}},
    };
    out->updated = true;
    return optimizer_step(s->config.optimizer, s->config.pool, &scalars, s->config.shard, sums, s->before_update,
                          s->before_update_context, err);
}

static void clear_counts(struct server *s)
{
    s->n_counts = 0; /* the next message brings the number of them */
    for (int w = 0; w < s->workers; w++)
        s->sessions[w].work = 0;
}

const int64_t *server_counts(const struct server *s, size_t *count)
{
    *count = s->n_counts;
    return s->counts;
}

static double imbalance(const struct server *s)
{
    int64_t most = 0, sum = 0;
    for (int w = 0; w < s->workers; w++) {
        most = s->sessions[w].work > most ? s->sessions[w].work : most;
        sum += s->sessions[w].work;
    }
    return sum > 0 ? (double)most * s->workers / (double)sum : 0;
}

void server_enter_stage(struct server *s, const struct server_stage *stage)
{
    s->stage = *stage;
}

void server_replaced(struct server *s, int64_t updates)
{
    s->config.updates = updates;
    s->replaced++;
}

enum status server_train_step(struct server *s, int64_t step, struct server_step *out, struct error *err)
{
    int64_t began = time_ms();
    *out = (struct server_step){.step = step, .slowest_rank = -1};
    s->step = step;
    s->n_reports = 0;
    clear_counts(s);
    memset(s->reports, 0, (size_t)s->config.slots * sizeof *s->reports);
    gather_begin(s->gather, step);
    for (int w = 0; w < s->workers; w++) {
        session_step_begin(&s->sessions[w], step, began);
        s->sessions[w].state = SESSION_COMPUTING;
        TRY(order(s, w, ORDER_TRAIN, step, 0, 0, 0, STATUS_OK, NULL, err));
    }
    TRY(publish(s, step, err));
    TRY(server_wait(s, step_is_in, step_waits_for, "gradients", false, err));
    int64_t arrived = time_ms();
    for (int w = 0; w < s->workers; w++) {
        session_step_end(&s->sessions[w], arrived);
        clock_advance(&s->clock, w);
        s->sessions[w].state = SESSION_READY;
    }
    for (int k = 0; k < s->config.slots; k++)
        slot_report_add(&out->sums, &s->reports[k].numbers);
    TRY(check_losses(s, step, err));
    TRY(update(s, out, err));
    struct session_slowest slowest = sessions_slowest(s->sessions, s->workers);
    out->slowest_rank = slowest.index < 0 ? -1 : s->sessions[slowest.index].rank;
    out->slowest_lag_ms = slowest.lag_ms;
    out->median_lag_ms = slowest.median_ms;
    out->imbalance = imbalance(s);
    out->wait_seconds = (double)(arrived - began) / 1e3;
    out->seconds = (double)(time_ms() - began) / 1e3;
    s->step = -1;
    return STATUS_OK;
}

static bool evaluation_is_in(const struct server *s)
{
    return s->n_eval == s->eval_batches && s->outbox.count == 0;
}

/* Batches or rows of an evaluation set, shared among the workers. */
static enum status share_out(struct server *s, enum order_action action, int64_t step, int set, int count, struct error *err)
{
    struct report *reports = mem_realloc(s->eval_reports, (size_t)count, sizeof *reports);
    if (!reports)
        FAIL(err, STATUS_NOMEM, "no memory to evaluate %d batches or rows", count);
    memset(reports, 0, (size_t)count * sizeof *reports);
    s->eval_reports = reports;
    s->eval_batches = count;
    s->eval_set = set;
    s->n_eval = 0;
    clear_counts(s);
    for (int w = 0; w < s->workers; w++) {
        struct slot_range share = slots_of_worker(count, s->workers, w);
        TRY(order(s, w, action, step, set, share.first, share.count, STATUS_OK, NULL, err));
    }
    TRY(publish(s, step, err));
    return server_wait(s, evaluation_is_in, NULL, "the evaluation", false, err);
}

enum status server_evaluate(struct server *s, int64_t step, int set, int batches, struct slot_report *sums, struct error *err)
{
    *sums = (struct slot_report){0};
    TRY(share_out(s, ORDER_EVALUATE, step, set, batches, err));
    for (int i = 0; i < batches; i++)
        slot_report_add(sums, &s->eval_reports[i].numbers);
    return STATUS_OK;
}

enum status server_generate(struct server *s, int64_t step, int set, int rows, struct error *err)
{
    for (int i = 0; i < SERVER_SHOWN_ROWS; i++)
        text_clear(&s->shown[i]);
    return share_out(s, ORDER_GENERATE, step, set, rows, err);
}

const struct text *server_shown(const struct server *s, int row)
{
    return &s->shown[row];
}

static bool all_left(const struct server *s)
{
    return all_said(s) && gather_drained(s->gather) && s->outbox.count == 0;
}

bool server_dismiss(struct server *s, enum status why, const char *text)
{
    struct error ignored;
    s->leaving = true;
    s->config.signals = NULL;
    s->config.timeout_ms = FAREWELL_MS;
    forget_said(s);
    gather_discard(s->gather);
    for (int w = 0; w < s->workers; w++)
        if (order(s, w, why == STATUS_OK || why == STATUS_STOPPED ? ORDER_STOP : ORDER_ABORT, -1, 0, 0, 0, why, text, &ignored))
            return false;
    return server_wait(s, all_left, first_mute, "workers to leave", true, &ignored) == STATUS_OK;
}

bool server_refuse(struct transport *transport, enum status why, const char *text)
{
    struct error err;
    struct arena arena = {0};
    struct wait wait;
    int left = transport_size(transport) - 1;
    struct message m = {.kind = MESSAGE_ORDER};
    m.order.action = ORDER_ABORT;
    m.order.step = -1;
    m.order.status = why;
    m.order.text = text;
    for (int rank = 1; rank < transport_size(transport); rank++)
        if (frame_post(transport, rank, &m, &err) != STATUS_OK)
            return false;
    wait_begin(&wait, "workers to leave", FAREWELL_MS, NULL, NULL);
    enum status st = STATUS_OK;
    while (left > 0 && st == STATUS_OK) {
        struct arrival arrival;
        bool arrived;
        st = transport_poll(transport, &arrival, &arrived, &err);
        if (st == STATUS_OK && arrived) {
            struct message word;
            arena_reset(&arena);
            st = frame_decode(arrival.bytes, arrival.size, arrival.source, &arena, &word, &err);
            left -= st == STATUS_OK && word.kind == MESSAGE_BYE;
        } else if (st == STATUS_OK) {
            st = wait_check(&wait, &err);
            transport_idle(transport, false);
        }
    }
    arena_free(&arena);
    return left == 0;
}
