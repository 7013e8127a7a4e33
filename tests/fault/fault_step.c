/* Server and worker in one process, as `worker run.yaml` without mpirun has them, from joining to goodbye with a real model:
 * whichever allocation fails, or all from some moment on, both end with a status, nothing is leaked and no memory is
 * touched that was given back. */
#include "tests/support/cmocka_all.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "common/checksum.h"
#include "common/memory.h"
#include "common/rng.h"
#include "common/timing.h"
#include "proto/transport_local.h"
#include "ps/server.h"
#include "worker/ops/gemm.h"
#include "worker/train/join.h"
#include "worker/train/loop.h"

enum { STEPS = 2, SLOTS = 3, BATCHES = 2, CHUNK = 640, LONG_MS = 10000000 };

/* ---- Clocks run faster than the real one, so that waiting for somebody who cannot answer costs little --------------- */

static atomic_int speed = 1;

double time_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return ((double)now.tv_sec + (double)now.tv_nsec * 1e-9) * atomic_load(&speed);
}

int64_t time_ms(void)
{
    return (int64_t)(time_seconds() * 1e3);
}

int64_t time_ns(void)
{
    return (int64_t)(time_seconds() * 1e9);
}

/* ---- Both sides ------------------------------------------------------------------------------------------------- */

static const struct model_config config = {.type = MODEL_QWEN2, .width = 16, .hidden = 24, .layers = 2, .heads = 2,
                                           .kv_heads = 1, .head_dim = 8, .vocab = 30, .max_positions = 64, .norm_eps = 1e-5f,
                                           .rope_theta = 1e4, .rope_factor = 1, .qkv_bias = true, .init_std = 0.2f, .bos = -1};
static int64_t timeout_ms;

static enum status some_rows(int64_t number, struct batch *out, struct error *err)
{
    static const float weights[SPAN_COUNT] = {0, 1, 1, 1};
    batch_clear(out);
    for (int r = 0; r < 2; r++) {
        int32_t tokens[9];
        uint8_t spans[9];
        for (int i = 0; i < 9; i++) {
            tokens[i] = (int32_t)rng_below(4, RNG_DATA, (uint64_t)(number * 100 + r * 10 + i), 30);
            spans[i] = i < 3 ? SPAN_PROMPT : SPAN_ANSWER;
        }
        TRY(batch_append(out, &(struct row){.tokens = tokens, .spans = spans, .n_tokens = 9, .weight = 1}, weights, err));
    }
    return STATUS_OK;
}

static enum status train_batch(void *context, int stage, int64_t step, int slot, struct batch *out, struct error *err)
{
    (void)context, (void)stage;
    return some_rows(step * SLOTS + slot, out, err);
}

static enum status eval_batch(void *context, int stage, int set, int64_t index, struct batch *out, struct error *err)
{
    (void)context, (void)stage, (void)set;
    return some_rows(1000 + index, out, err);
}

struct side {
    struct transport *transport;
    enum status status;
    struct error err;
};

/* What launch/work.c does, with a model that needs no files. */
static void *work(void *context)
{
    struct side *side = context;
    struct error *err = &side->err;
    struct welcome welcome = {0};
    struct threads *pool = NULL;
    struct params table = {0};
    struct model *model = NULL;
    side->status = worker_join(side->transport, 0, 2, timeout_ms, &welcome, err);
    if (side->status != STATUS_OK)
        return NULL;
    enum status st = threads_create(2, &pool, err);
    if (st == STATUS_OK)
        st = model_params(&config, &table, err);
    if (st == STATUS_OK)
        st = model_create(&config, &table, &(struct model_options){0}, pool, &model, err);
    if (st != STATUS_OK) {
        worker_fail(side->transport, 0, st, err);
    } else {
        struct loop_config loop = {
            .transport = side->transport,
            .model = model,
            .table = &table,
            .chunks = chunks_make(table.values, CHUNK),
            .pool = pool,
            .slots = welcome.slots,
            .range = slots_of_worker(welcome.slots, welcome.workers, welcome.worker),
            .source = {.train = train_batch, .evaluate = eval_batch},
            .timeout_ms = timeout_ms,
        };
        st = worker_loop(&loop, err);
    }
    side->status = st;
    mem_free(welcome.config);
    model_free(model);
    params_free(&table);
    threads_free(pool);
    return NULL;
}

struct start {
    struct params table;
    struct threads *pool;
    struct optimizer *optimizer;
    struct shard *shard;
    struct server *server;
};

static enum status begin(struct transport *transport, struct start *s, struct error *err)
{
    struct optimizer_options settings = OPTIMIZER_OPTIONS_DEFAULT;
    TRY(threads_create(2, &s->pool, err));
    TRY(model_params(&config, &s->table, err));
    struct chunks chunks = chunks_make(s->table.values, CHUNK);
    TRY(optimizer_create("adamw", &settings, &s->table, &chunks, &s->optimizer, err));
    TRY(shard_create(&chunks, optimizer_n_states(s->optimizer), optimizer_state_names(s->optimizer), &s->shard, err));
    params_initialise(&s->table, 3, s->shard->parameters);
    struct server_config server = {
        .transport = transport, .table = &s->table, .shard = s->shard, .slots = SLOTS, .pool = s->pool,
        .optimizer = s->optimizer, .stage = {.schedule = {.type = SCHEDULE_CONSTANT, .base = 0.01, .total = STEPS}, .max_grad_norm = 1},
        .credits = 2, .timeout_ms = timeout_ms, .config_text = "x: 1", .config_size = 4,
    };
    return server_create(&server, &s->server, err);
}

static enum status train(struct server *server, struct error *err)
{
    struct slot_report sums;
    struct server_step facts;
    TRY(server_accept(server, err));
    for (int64_t step = 0; step < STEPS; step++)
        TRY(server_train_step(server, step, &facts, err));
    return server_evaluate(server, STEPS, 0, BATCHES, &sums, err);
}

/* What launch/serve.c does; checksum: of the parameters at the end. */
static enum status serve(struct transport *transport, uint32_t *checksum, struct error *err)
{
    struct start s = {0};
    enum status st = begin(transport, &s, err);
    if (st == STATUS_OK)
        st = train(s.server, err);
    bool clean = s.server ? server_dismiss(s.server, st, err->text) : server_refuse(transport, st, err->text);
    if (!clean)
        transport_abort(transport, status_exit_code(st));
    if (st == STATUS_OK)
        *checksum = crc32c(s.shard->parameters, (size_t)s.table.values * sizeof(float));
    server_free(s.server);
    shard_free(s.shard);
    optimizer_free(s.optimizer);
    params_free(&s.table);
    threads_free(s.pool);
    return st;
}

struct outcome {
    enum status server, worker;
    struct error server_err, worker_err;
    uint32_t checksum;
};

/* A whole run with the fault armed for allocation n on. */
static void run(long n, bool persistent, struct outcome *out)
{
    struct transport *ends[2];
    pthread_t thread;
    struct error err;
    assert_ok(transport_local_create(2, ends, &err), &err);
    struct side side = {.transport = ends[1]};
    memset(out, 0, sizeof *out);
    mem_fail_after(n, persistent);
    assert_int_equal(pthread_create(&thread, NULL, work, &side), 0);
    out->server = serve(ends[0], &out->checksum, &out->server_err);
    pthread_join(thread, NULL);
    out->worker = side.status;
    out->worker_err = side.err;
    transport_free(ends[1]);
    transport_free(ends[0]);
}

/* True while the armed allocation has not been reached; disarms it. */
static bool still_armed(void)
{
    bool armed = false;
    for (int i = 0; i < 1000 && !armed; i++) {
        void *block = mem_alloc(1, 1);
        armed = !block;
        mem_free(block);
    }
    mem_fail_after(-1, false);
    return armed;
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    struct outcome wanted, found;
    long n = 0, ended = 0;
    atomic_store(&speed, 1);
    timeout_ms = LONG_MS;
    run(-1, false, &wanted);
    assert_ok(wanted.server, &wanted.server_err);
    assert_ok(wanted.worker, &wanted.worker_err);
    long before = mem_live();
    atomic_store(&speed, 60);
    for (;; n++) {
        run(n, false, &found);
        bool armed = still_armed();
        if (mem_live() != before)
            print_error("allocation %ld: %ld blocks were left\n", n, mem_live() - before);
        assert_int_equal(mem_live(), before);
        if (armed)
            break;
        bool server = found.server == STATUS_NOMEM, worker = found.worker == STATUS_NOMEM;
        if (found.server == STATUS_OK) { /* not needed after all, or only for the goodbye */
            assert_int_equal(found.checksum, wanted.checksum);
        } else if (!server && !worker) {
            print_error("allocation %ld: server '%s', worker '%s'\n", n, found.server_err.text, found.worker_err.text);
            fail();
        } else {
            assert_non_null(strstr(server ? found.server_err.text : found.worker_err.text, "memory"));
            ended++;
        }
    }
    assert_ok(found.server, &found.server_err);
    assert_int_equal(found.checksum, wanted.checksum);
    assert_true(n > 100 && ended > n / 2);
    print_message("%ld allocations walked, %ld ended the run\n", n, ended);
}

static void memory_may_run_out_for_good(void **state)
{
    (void)state;
    struct outcome found;
    long before = mem_live(), n = 0;
    atomic_store(&speed, 200); /* most of these runs end by a deadline */
    timeout_ms = 60000;
    for (;; n += 11) {
        run(n, true, &found);
        mem_fail_after(-1, false);
        assert_int_equal(mem_live(), before);
        if (found.server == STATUS_OK && found.worker == STATUS_OK && n > 100)
            break;
        if (found.server != STATUS_OK)
            assert_true(found.server_err.text[0]);
        if (found.worker != STATUS_OK && found.server == STATUS_OK)
            assert_true(found.worker_err.text[0]);
    }
    print_message("%ld moments\n", n / 11);
}

static int load_kernels(void **state)
{
    (void)state;
    struct error err;
    assert_ok(gemm_init(&err), &err);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(memory_may_run_out_for_good),
    };
    return cmocka_run_group_tests(tests, load_kernels, NULL);
}
