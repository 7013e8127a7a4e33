/* A worker in a thread of its own, with a model made of arithmetic, and what a test needs to play its server frame by frame.
 * For one test program: it defines model_gradient and model_loss. Include behind cmocka_all.h. */
#ifndef TESTS_SUPPORT_PLAYED_SERVER_H
#define TESTS_SUPPORT_PLAYED_SERVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/checksum.h"
#include "common/memory.h"
#include "proto/messages.h"
#include "proto/transport_local.h"
#include "ps/server.h"
#include "tests/support/made_up_model.h"
#include "worker/train/join.h"
#include "worker/train/loop.h"

enum { VALUES = 64, CHUNK = 16, CHUNKS = VALUES / CHUNK, SLOTS = 4, LONG_MS = 60000 };

static struct params table;
static struct error err;

/* ---- The model of this test: the gradient of value i in slot k of step s is values[i] + 100 s + k ------------------- */

struct model {
    int nothing;
};
static atomic_int fetched;       /* chunks that the played server has received */
static bool wait_for_fetch;      /* the last backward pass does not end before the first one was */
static int nan_slot = -1;

enum status model_gradient(struct model *model, const float *values, const struct batch *batch, float *gradients,
                           model_ready_fn *on_ready, void *context, struct loss_sums *sums, struct error *why)
{
    (void)model;
    int step = batch->tokens[0], slot = batch->positions[0];
    if (slot == nan_slot)
        FAIL(why, STATUS_NUMERIC, "made up");
    for (int i = VALUES; i-- > 0;) {
        gradients[i] = values[i] + (float)(100 * step + slot);
        if (i % CHUNK == 0)
            on_ready(context, i);
        while (wait_for_fetch && slot == SLOTS - 1 && i == VALUES - CHUNK && !atomic_load(&fetched))
            on_ready(context, i); /* every look moves what is under way */
    }
    sums->loss = slot;
    sums->weight = 1;
    sums->tokens = 7;
    return STATUS_OK;
}

enum status model_loss(struct model *model, const float *values, const struct batch *batch, struct loss_sums *sums,
                       struct error *why)
{
    (void)model, (void)why;
    sums->loss = values[0] + (float)(10 * batch->tokens[0] + batch->positions[0]);
    sums->weight = 1;
    return STATUS_OK;
}

static enum status one_token(int first, int second, struct batch *out, struct error *why)
{
    static const float weights[SPAN_COUNT] = {0, 1, 1, 1};
    int32_t token = first;
    uint8_t span = SPAN_ANSWER;
    batch_clear(out);
    TRY(batch_append(out, &(struct row){.tokens = &token, .spans = &span, .n_tokens = 1, .weight = 1}, weights, why));
    out->positions[0] = second;
    return STATUS_OK;
}

static int empty_from = SLOTS, bad_slot = -1, bad_batch = -1;

static enum status train_batch(void *context, int stage, int64_t step, int slot, struct batch *out, struct error *why)
{
    (void)context, (void)stage;
    if (slot == bad_slot)
        FAIL(why, STATUS_DATA, "no rows for slot %d", slot);
    if (slot < empty_from)
        return one_token((int)step, slot, out, why);
    batch_clear(out);
    return STATUS_OK;
}

static enum status eval_batch(void *context, int stage, int set, int64_t index, struct batch *out, struct error *why)
{
    (void)context, (void)stage;
    if (index == bad_batch)
        FAIL(why, STATUS_DATA, "no rows for batch %d of set %d", (int)index, set);
    return one_token(set, (int)index, out, why);
}

/* ---- The worker ------------------------------------------------------------------------------------------------- */

struct worker {
    struct transport *transport;
    const struct params *table;
    int64_t join_ms, loop_ms;
    bool only_join, cannot_load;
    struct welcome welcome;
    enum status status;
    struct error err;
    pthread_t thread;
};

static atomic_int pending_signals;
static int take_signals(void)
{
    return atomic_exchange(&pending_signals, 0);
}

static void *live(void *context)
{
    struct worker *w = context;
    struct threads *pool;
    w->status = worker_join(w->transport, 0, 3, w->join_ms, &w->welcome, &w->err);
    if (w->status != STATUS_OK || w->only_join)
        return NULL;
    if (w->cannot_load) {
        w->status = error_set(&w->err, STATUS_DATA, "my disk is empty");
        worker_fail(w->transport, 0, w->status, &w->err);
        return NULL;
    }
    if (threads_create(1, &pool, &w->err) != STATUS_OK)
        abort();
    struct loop_config config = {
        .transport = w->transport,
        .table = w->table,
        .chunks = chunks_make(w->table->values, CHUNK),
        .pool = pool,
        .slots = w->welcome.slots,
        .range = slots_of_worker(w->welcome.slots, w->welcome.workers, w->welcome.worker),
        .source = {.train = train_batch, .evaluate = eval_batch},
        .timeout_ms = w->loop_ms,
        .signals = take_signals,
    };
    w->status = worker_loop(&config, &w->err);
    threads_free(pool);
    return NULL;
}

static struct transport *ends[3];
static struct worker worker;

static void worker_starts(void)
{
    worker.transport = ends[1];
    worker.join_ms = worker.join_ms ? worker.join_ms : LONG_MS;
    worker.loop_ms = worker.loop_ms ? worker.loop_ms : LONG_MS;
    worker.table = worker.table ? worker.table : &table;
    assert_int_equal(pthread_create(&worker.thread, NULL, live, &worker), 0);
}

static struct held { /* frames that came while something else was awaited, in order */
    unsigned char bytes[8192];
    size_t size;
} held[64];
static int n_held, first_held;

static void drop_held(void)
{
    n_held = first_held = 0;
}

static void world_begins(int size)
{
    worker = (struct worker){0};
    drop_held();
    atomic_store(&fetched, 0);
    assert_ok(transport_local_create(size, ends, &err), &err);
}

/* The worker has ended as it should, and nothing of it is left. */
static void worker_ends(enum status wanted, const char *part)
{
    assert_int_equal(pthread_join(worker.thread, NULL), 0);
    assert_int_equal(worker.status, wanted);
    if (wanted != STATUS_OK && !strstr(worker.err.text, part)) {
        print_error("message '%s' lacks '%s'\n", worker.err.text, part);
        fail();
    }
    mem_free(worker.welcome.config);
}

static void world_ends(int size)
{
    for (int i = 0; i < size; i++)
        transport_free(ends[i]);
}

/* ---- The played server ------------------------------------------------------------------------------------------ */

static struct arena words;

/* Moves what is under way, and holds what arrives. */
static void look(void)
{
    struct arrival frame;
    bool arrived;
    assert_ok(transport_poll(ends[0], &frame, &arrived, &err), &err);
    if (!arrived) {
        transport_idle(ends[0], false);
        return;
    }
    assert_int_equal(frame.source, 1);
    assert_true(n_held < 64 && frame.size <= sizeof held->bytes);
    held[n_held].size = frame.size;
    memcpy(held[n_held++].bytes, frame.bytes, frame.size);
}

/* Where the last counters belonged to; they come before the numbers of a slot or batch. */
static struct message_text counted;

/* The worker's next message, signs of life and counters left out. */
static struct message next_message(void)
{
    for (;;) {
        struct message m;
        while (first_held == n_held) {
            drop_held();
            look();
        }
        arena_reset(&words);
        assert_ok(frame_decode(held[first_held].bytes, held[first_held].size, 1, &words, &m, &err), &err);
        first_held++;
        if (m.kind == MESSAGE_COUNTS)
            counted = m.counts;
        else if (m.kind != MESSAGE_ALIVE)
            return m;
    }
}

static struct message expect(enum message_kind kind)
{
    struct message m = next_message();
    assert_string_equal(message_kind_name(m.kind), message_kind_name(kind));
    return m;
}

static void say(const struct message *m)
{
    assert_ok(frame_post(ends[0], 1, m, &err), &err);
}

static void order(enum order_action action, int64_t step, int set, int first, int count, enum status status, const char *text)
{
    say(&(struct message){.kind = MESSAGE_ORDER, .order = {.action = action, .step = step, .set = set, .first = first, .count = count, .status = status,
                                                            .text = text, .stage_step = step, .version = step}});
}

static void welcome(void)
{
    struct message m = expect(MESSAGE_HELLO);
    assert_string_equal(m.hello.version, LOAR_VERSION);
    assert_int_equal(m.hello.rank, 1);
    assert_int_equal(m.hello.threads, 3);
    assert_string_equal(m.hello.fingerprint, "");
    m = (struct message){.kind = MESSAGE_WELCOME};
    m.welcome.workers = 1;
    m.welcome.slots = SLOTS;
    m.welcome.first_step = 12;
    m.welcome.payload = "a: 1";
    m.welcome.payload_size = 4;
    say(&m);
}

static void worker_is_ready(void)
{
    char fingerprint[DIGEST_HEX_SIZE];
    params_fingerprint(&table, fingerprint);
    struct message m = expect(MESSAGE_HELLO);
    assert_string_equal(m.hello.fingerprint, fingerprint);
    assert_int_equal(m.hello.threads, 1);
}

static float parameters[VALUES];
static struct transfer *sends[CHUNKS];

static void announce_parameters(int64_t step, uint32_t wrong)
{
    for (int c = 0; c < CHUNKS; c++) {
        struct message m = {.kind = MESSAGE_CHUNK};
        m.chunk = (struct message_chunk){.what = CHUNK_PARAMETERS, .step = step, .chunk = c, .bytes = CHUNK * sizeof(float),
                                         .tag = (uint32_t)(step * CHUNKS + c)};
        m.chunk.crc32c = crc32c(parameters + c * CHUNK, CHUNK * sizeof(float)) + wrong;
        assert_ok(transport_send(ends[0], 1, m.chunk.tag, parameters + c * CHUNK, CHUNK * sizeof(float), &sends[c], &err), &err);
        say(&m);
    }
}

static void parameters_have_left(void)
{
    for (int c = 0; c < CHUNKS; c++)
        assert_true(transport_done(ends[0], sends[c]));
}

static void fetch(const struct message_chunk *chunk, float out[VALUES])
{
    struct transfer *transfer;
    assert_ok(transport_receive(ends[0], 1, chunk->tag, out + chunk->chunk * CHUNK, (size_t)chunk->bytes, &transfer, &err), &err);
    while (!transport_done(ends[0], transfer))
        look();
    assert_int_equal(crc32c(out + chunk->chunk * CHUNK, CHUNK * sizeof(float)), chunk->crc32c);
    atomic_fetch_add(&fetched, 1);
}

static void dismiss(enum status status, const char *text)
{
    order(status == STATUS_OK || status == STATUS_STOPPED ? ORDER_STOP : ORDER_ABORT, -1, 0, 0, 0, status, text);
    expect(MESSAGE_BYE);
}

#endif
