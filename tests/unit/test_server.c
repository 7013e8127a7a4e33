/* Server and workers through the in-process transport with a model made of arithmetic: the parameters after some
 * steps are the same bits for any number of workers, threads, chunks and credits, and failures reach the server. */
#include "tests/support/cmocka_all.h"

#include <math.h>
#include <pthread.h>

#include "common/memory.h"
#include "common/rng.h"
#include "proto/transport_local.h"
#include "ps/server.h"
#include "tests/support/made_up_model.h"
#include "worker/train/join.h"
#include "worker/train/loop.h"

enum { STEPS = 5, SLOTS = 12, MAX_WORKERS = 12 };

/* The model of this test: gradients depend on parameters, step and slot; one batch token per slot. */
struct model {
    const struct params *table;
};

static int failing_slot = -1, nan_slot = -1, nan_place = 33;

/* Behind the trained tensors, where a table has it: rows of 43 values and a count, halves and whole numbers. */
enum { TRACKED = 40 * 16 + 37 * 16, TRACKED_ROWS = 4, TRACKED_WIDTH = 44 };

static float tracked_sum(int64_t i, int step, int slot)
{
    return i % TRACKED_WIDTH == TRACKED_WIDTH - 1 ? (float)(slot % 3) * (i > TRACKED_WIDTH) : (float)((i * 7 + step * 3 + slot) % 19) / 2;
}

enum status model_gradient(struct model *model, const float *values, const struct batch *batch, float *gradients,
                           model_ready_fn *on_ready, void *context, struct loss_sums *sums, struct error *err)
{
    int step = batch->tokens[0], slot = batch->positions[0];
    if (slot == failing_slot && step == 2)
        FAIL(err, STATUS_NUMERIC, "made up");
    for (int64_t i = model->table->values; i-- > 0;) {
        if (i >= TRACKED)
            gradients[i] = tracked_sum(i - TRACKED, step, slot);
        else
            gradients[i] = (float)(values[i] * 0.1 + rng_normal((uint64_t)step, (uint64_t)slot, (uint64_t)i) * (slot % 5 ? 1.0 : 1e3));
        if (i % 23 == 0 && on_ready)
            on_ready(context, i);
    }
    if (slot == nan_slot && step == 3)
        gradients[nan_place] = NAN;
    the_counts[0] += 100 + slot;
    the_counts[COUNTERS_ROUTING - 1] += step;
    sums->loss = slot * 0.3 + step;
    sums->weight = 1 + slot % 3;
    sums->tokens = 10 + slot;
    sums->correct = slot;
    return STATUS_OK;
}

enum status model_loss(struct model *model, const float *values, const struct batch *batch, struct loss_sums *sums,
                       struct error *err)
{
    (void)model, (void)err;
    sums->loss = values[1] * batch->positions[0];
    sums->weight = 1;
    return STATUS_OK;
}

static enum status one_token(int first, int second, struct batch *out, struct error *err)
{
    static const float weights[SPAN_COUNT] = {0, 1, 1, 1};
    int32_t token = first;
    uint8_t span = SPAN_ANSWER;
    batch_clear(out);
    TRY(batch_append(out, &(struct row){.tokens = &token, .spans = &span, .n_tokens = 1, .weight = 1}, weights, err));
    out->positions[0] = second;
    return STATUS_OK;
}

static enum status train_batch(void *context, int stage, int64_t step, int slot, struct batch *out, struct error *err)
{
    (void)stage, (void)context;
    return one_token((int)step, slot, out, err);
}

static enum status eval_batch(void *context, int stage, int set, int64_t index, struct batch *out, struct error *err)
{
    (void)stage, (void)context;
    return one_token(set, (int)index, out, err);
}

struct side {
    struct transport *transport;
    const struct params *table;
    int64_t chunk_values;
    int threads;
    enum status status;
    struct error err;
};

static void *work(void *context)
{
    struct side *side = context;
    struct welcome welcome;
    struct threads *pool;
    struct model model = {side->table};
    side->status = worker_join(side->transport, 0, side->threads, 20000, &welcome, &side->err);
    if (side->status != STATUS_OK)
        return NULL;
    if (threads_create(side->threads, &pool, &side->err) != STATUS_OK)
        abort();
    struct loop_config config = {
        .transport = side->transport,
        .model = &model,
        .table = side->table,
        .chunks = chunks_make(side->table->values, side->chunk_values),
        .pool = pool,
        .slots = welcome.slots,
        .range = slots_of_worker(welcome.slots, welcome.workers, welcome.worker),
        .source = {NULL, train_batch, eval_batch},
        .timeout_ms = 20000,
    };
    side->status = worker_loop(&config, &side->err);
    mem_free(welcome.config);
    threads_free(pool);
    return NULL;
}

struct outcome {
    enum status status;
    struct error err;
    float *values;
    struct slot_report step_sums, eval_sums;
    double norm;
};

static int stop_after;
static int pending_signal(void)
{
    return stop_after > 0 && --stop_after == 0 ? SERVER_SIGNAL_STOP : 0;
}

/* A whole run with `workers` threads as workers. */
static void run(const struct params *table, int workers, int64_t chunk_values, int threads, int credits, struct outcome *out)
{
    struct error *err = &out->err;
    struct transport *ends[MAX_WORKERS + 1];
    struct side sides[MAX_WORKERS];
    pthread_t handles[MAX_WORKERS];
    struct threads *pool;
    struct optimizer *optimizer;
    struct shard *shard;
    struct server *server;
    struct chunks chunks = chunks_make(table->values, chunk_values);
    struct optimizer_options settings = OPTIMIZER_OPTIONS_DEFAULT;
    *out = (struct outcome){0};
    assert_ok(transport_local_create(workers + 1, ends, err), err);
    assert_ok(threads_create(threads, &pool, err), err);
    assert_ok(optimizer_create("adamw", &settings, table, &chunks, &optimizer, err), err);
    assert_ok(shard_create(&chunks, optimizer_n_states(optimizer), optimizer_state_names(optimizer), &shard, err), err);
    params_initialise(table, 3, shard->parameters);
    for (int w = 0; w < workers; w++) {
        sides[w] = (struct side){.transport = ends[w + 1], .table = table, .chunk_values = chunk_values, .threads = threads};
        assert_int_equal(pthread_create(&handles[w], NULL, work, &sides[w]), 0);
    }
    struct server_config config = {
        .transport = ends[0],
        .table = table,
        .shard = shard,
        .slots = SLOTS,
        .pool = pool,
        .optimizer = optimizer,
        .stage = {.schedule = {.type = SCHEDULE_CONSTANT, .base = 0.01, .total = STEPS}, .max_grad_norm = 1},
        .credits = credits,
        .timeout_ms = 20000,
        .config_text = "x: 1",
        .config_size = 4,
        .signals = pending_signal,
    };
    assert_ok(server_create(&config, &server, err), err);
    out->status = server_accept(server, err);
    for (int64_t step = 0; out->status == STATUS_OK && step < STEPS; step++) {
        struct server_step facts;
        int64_t total = 0;
        out->status = server_train_step(server, step, &facts, err);
        out->step_sums = facts.sums;
        out->norm = facts.grad_norm;
        size_t count;
        const int64_t *counts = server_counts(server, &count);
        for (int slot = 0; out->status == STATUS_OK && slot < SLOTS; slot++)
            total += 100 + slot;
        if (out->status == STATUS_OK) {
            assert_int_equal(count, COUNTERS_ROUTING);
            assert_int_equal(counts[0], total);
            assert_int_equal(counts[COUNTERS_ROUTING - 1], step * SLOTS);
            assert_true(workers == 1 ? facts.imbalance == 1 : facts.imbalance >= 1 && facts.imbalance < workers);
        }
        if (out->status == STATUS_OK && step == 2)
            out->status = server_evaluate(server, step + 1, 4, 17, &out->eval_sums, err);
    }
    assert_true(server_dismiss(server, out->status, err->text));
    for (int w = 0; w < workers; w++) {
        pthread_join(handles[w], NULL);
        assert_int_equal(sides[w].status, out->status);
        transport_free(ends[w + 1]);
    }
    server_free(server);
    transport_free(ends[0]);
    out->values = mem_alloc((size_t)table->values, sizeof(float));
    memcpy(out->values, shard->parameters, (size_t)table->values * sizeof(float));
    shard_free(shard);
    optimizer_free(optimizer);
    threads_free(pool);
}

static void make_table(struct params *table)
{
    struct error err;
    *table = (struct params){0};
    assert_ok(params_add(table, &(struct param){.name = "a", .n_dims = 2, .shape = {40, 16}, .init = INIT_NORMAL, .init_std = 1, .decay = true}, NULL, &err), &err);
    assert_ok(params_add(table, &(struct param){.name = "b", .n_dims = 1, .shape = {37 * 16}, .init = INIT_ONES}, NULL, &err), &err);
}

static void bits_do_not_depend_on_workers(void **state)
{
    (void)state;
    struct params table;
    struct outcome first, other;
    make_table(&table);
    run(&table, 1, 256, 1, 4, &first);
    assert_int_equal(first.status, STATUS_OK);
    assert_true(first.norm > 0 && first.eval_sums.weight == 17 && first.step_sums.tokens == 12 * 10 + 66);
    const struct { int workers, threads, credits; } ways[] = {{2, 1, 1}, {3, 2, 1}, {4, 1, 4}, {5, 1, 2}, {7, 1, 1}, {12, 1, 3}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        run(&table, ways[i].workers, 256, ways[i].threads, ways[i].credits, &other);
        assert_int_equal(other.status, STATUS_OK);
        assert_memory_equal(other.values, first.values, (size_t)table.values * sizeof(float));
        assert_memory_equal(&other.step_sums, &first.step_sums, sizeof first.step_sums.loss);
        assert_true(other.eval_sums.loss == first.eval_sums.loss && other.norm == first.norm);
        mem_free(other.values);
    }
    mem_free(first.values);
    params_free(&table);
}

static void add_tracked(struct params *table)
{
    struct error err;
    assert_ok(params_add(table, &(struct param){.name = "state", .n_dims = 2, .shape = {TRACKED_ROWS, TRACKED_WIDTH}, .init = INIT_ONES, .rate = 0.25f}, NULL, &err), &err);
    assert_int_equal(table->items[table->count - 1].offset, TRACKED);
}

/* Tensors that follow observations: exact sums over slots, whatever the workers; the others train as if they were not there. */
static void tracked_tensors(void **state)
{
    (void)state;
    struct params table, plain;
    struct outcome out, without;
    float wanted[TRACKED_ROWS * TRACKED_WIDTH];
    make_table(&plain);
    make_table(&table);
    add_tracked(&table);
    for (int i = 0; i < TRACKED_ROWS * TRACKED_WIDTH; i++)
        wanted[i] = 1;
    for (int step = 0; step < STEPS; step++)
        for (int i = 0; i < TRACKED_ROWS * TRACKED_WIDTH; i++) {
            int last = i / TRACKED_WIDTH * TRACKED_WIDTH + TRACKED_WIDTH - 1;
            double sum = 0, n = 0;
            for (int slot = 0; slot < SLOTS; slot++) {
                sum += tracked_sum(i, step, slot);
                n += tracked_sum(last, step, slot);
            }
            wanted[i] = i == last ? wanted[i] + (float)n : n > 0 ? (float)(wanted[i] + 0.25 / n * sum) : wanted[i];
        }
    assert_true(wanted[0] == 1 && wanted[TRACKED_WIDTH] != 1 && wanted[2 * TRACKED_WIDTH - 1] == 1 + STEPS * 12);
    run(&plain, 1, 256, 1, 4, &without);
    const struct { int workers, threads; } ways[] = {{1, 1}, {3, 2}, {7, 3}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        run(&table, ways[i].workers, 256, ways[i].threads, 4, &out);
        assert_int_equal(out.status, STATUS_OK);
        assert_memory_equal(out.values + TRACKED, wanted, sizeof wanted);
        assert_memory_equal(out.values, without.values, TRACKED * sizeof(float));
        assert_true(out.norm == without.norm);
        mem_free(out.values);
    }
    mem_free(without.values);
    nan_slot = 4;
    nan_place = TRACKED + 2 * TRACKED_WIDTH + 5;
    run(&table, 3, 256, 1, 4, &out);
    nan_slot = -1;
    nan_place = 33;
    assert_int_equal(out.status, STATUS_NUMERIC);
    assert_non_null(strstr(out.err.text, "'state' [2, 5] is not finite in step 4"));
    mem_free(out.values);
    params_free(&plain);
    params_free(&table);
}

static void failures_name_the_worker(void **state)
{
    (void)state;
    struct params table;
    struct outcome out;
    make_table(&table);
    failing_slot = 7;
    run(&table, 3, 256, 1, 4, &out);
    failing_slot = -1;
    assert_int_equal(out.status, STATUS_NUMERIC);
    assert_non_null(strstr(out.err.text, "rank 2"));
    assert_non_null(strstr(out.err.text, "step 3, slot 7: made up"));
    mem_free(out.values);
    params_free(&table);
}

static void a_bad_gradient_names_its_tensor(void **state)
{
    (void)state;
    struct params table;
    struct outcome out;
    make_table(&table);
    nan_slot = 4;
    run(&table, 3, 256, 1, 4, &out);
    nan_slot = -1;
    assert_int_equal(out.status, STATUS_NUMERIC);
    assert_non_null(strstr(out.err.text, "'a' [2, 1]"));
    assert_non_null(strstr(out.err.text, "step 4"));
    mem_free(out.values);
    params_free(&table);
}

static void a_signal_ends_the_run_between_updates(void **state)
{
    (void)state;
    struct params table;
    struct outcome out;
    make_table(&table);
    for (int turns = 1; turns < 200; turns += 13) {
        stop_after = turns;
        run(&table, 4, 256, 1, 4, &out);
        stop_after = 0;
        assert_true(out.status == STATUS_STOPPED || out.status == STATUS_OK);
        mem_free(out.values);
    }
    params_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_workers),
        cmocka_unit_test(tracked_tensors),
        cmocka_unit_test(failures_name_the_worker),
        cmocka_unit_test(a_bad_gradient_names_its_tensor),
        cmocka_unit_test(a_signal_ends_the_run_between_updates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
