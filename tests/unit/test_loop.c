/* A worker's life seen from the server's side: the test plays the server frame by frame, and once a real one, against
 * worker_join and worker_loop in a thread of their own with a model made of arithmetic. */
#include "tests/support/cmocka_all.h"
#include "tests/support/played_server.h"

/* ---- Joining ---------------------------------------------------------------------------------------------------- */

static void a_worker_joins_and_leaves(void **state)
{
    (void)state;
    const enum status ends_with[] = {STATUS_OK, STATUS_STOPPED, STATUS_NUMERIC};
    for (int i = 0; i < 3; i++) {
        world_begins(2);
        worker_starts();
        welcome();
        worker_is_ready();
        dismiss(ends_with[i], "the reason");
        worker_ends(ends_with[i], "the reason");
        assert_int_equal(worker.welcome.workers, 1);
        assert_int_equal(worker.welcome.worker, 0);
        assert_int_equal(worker.welcome.first_step, 12);
        assert_int_equal(worker.welcome.config_size, 4);
        world_ends(2);
    }
    world_begins(2);
    worker.only_join = true;
    worker_starts();
    welcome();
    pthread_join(worker.thread, NULL);
    assert_int_equal(worker.status, STATUS_OK);
    assert_string_equal(worker.welcome.config, "a: 1");
    mem_free(worker.welcome.config);
    world_ends(2);
}

static void a_refused_worker_says_goodbye(void **state)
{
    (void)state;
    world_begins(2);
    worker_starts();
    assert_true(server_refuse(ends[0], STATUS_USAGE, "output_dir is not empty"));
    worker_ends(STATUS_USAGE, "output_dir is not empty");
    world_ends(2);
    world_begins(2); /* the same once it has been greeted */
    worker_starts();
    welcome();
    worker_is_ready();
    assert_true(server_refuse(ends[0], STATUS_DATA, "no rows"));
    worker_ends(STATUS_DATA, "no rows");
    world_ends(2);
}

static void a_mute_server_is_given_up(void **state)
{
    (void)state;
    world_begins(2);
    worker.join_ms = 20;
    worker_starts();
    expect(MESSAGE_HELLO);
    struct message m = expect(MESSAGE_FAILURE);
    assert_int_equal(m.failure.status, STATUS_TIMEOUT);
    dismiss(STATUS_TIMEOUT, "then not");
    worker_ends(STATUS_TIMEOUT, "from the server (rank 0)");
    world_ends(2);
    world_begins(2); /* it was heard of, but orders nothing */
    worker.loop_ms = 20;
    worker_starts();
    welcome();
    worker_is_ready();
    m = expect(MESSAGE_FAILURE);
    assert_int_equal(m.failure.status, STATUS_TIMEOUT);
    dismiss(STATUS_TIMEOUT, "then not");
    worker_ends(STATUS_TIMEOUT, "waiting for an order from the server (rank 0)");
    world_ends(2);
}

static void a_server_that_dies_ends_the_wait(void **state)
{
    (void)state;
    for (int when = 0; when < 3; when++) {
        world_begins(2);
        worker_starts();
        if (when > 0)
            welcome();
        if (when > 1) {
            worker_is_ready();
            announce_parameters(0, 0);
            order(ORDER_TRAIN, 0, 0, 0, 0, STATUS_OK, NULL);
            expect(MESSAGE_SLOT);
        }
        drop_held();
        transport_abandon(ends[0]);
        worker_ends(STATUS_PEER, "rank 0 gave up");
        transport_free(ends[1]);
    }
}

/* ---- Orders ----------------------------------------------------------------------------------------------------- */

static void a_step_is_announced_from_the_end(void **state)
{
    (void)state;
    world_begins(2);
    worker_starts();
    welcome();
    worker_is_ready();
    for (int64_t step = 12; step < 15; step++) {
        float sum[VALUES];
        int slots = 0, chunks = 0;
        for (int i = 0; i < VALUES; i++)
            parameters[i] = (float)(i % 7) + (float)step;
        order(ORDER_TRAIN, step, 0, 0, 0, STATUS_OK, NULL);
        announce_parameters(step, 0);
        while (slots < SLOTS || chunks < CHUNKS) {
            struct message m = next_message();
            if (m.kind == MESSAGE_SLOT) {
                assert_int_equal(m.slot.step, step);
                assert_int_equal(m.slot.slot, slots);
                assert_true(counted.step == step && counted.index == slots && counted.payload_size == COUNTERS_ROUTING * sizeof(int64_t));
                assert_true(m.slot.numbers.loss == slots && m.slot.numbers.weight == 1 && m.slot.numbers.tokens == 7);
                slots++;
                continue;
            }
            assert_int_equal(m.kind, MESSAGE_CHUNK);
            assert_int_equal(slots, SLOTS - 1); /* the last slot of the node is in work */
            assert_int_equal(m.chunk.what, CHUNK_GRADIENT);
            assert_int_equal(m.chunk.chunk, CHUNKS - 1 - chunks);
            assert_int_equal(m.chunk.step, step);
            assert_int_equal(m.chunk.level, 2);
            assert_int_equal(m.chunk.index, 0);
            struct message_chunk chunk = m.chunk;
            if (chunk.chunk > 0) { /* fetching waits, and the report is the last to come */
                fetch(&chunk, sum);
                chunks++;
                continue;
            }
            m = expect(MESSAGE_SLOT);
            assert_int_equal(m.slot.slot, slots++);
            fetch(&chunk, sum);
            chunks++;
        }
        parameters_have_left();
        for (int i = 0; i < VALUES; i++)
            assert_true(sum[i] == 4 * (parameters[i] + (float)(100 * step)) + 6);
    }
    dismiss(STATUS_OK, "");
    worker_ends(STATUS_OK, "");
    world_ends(2);
}

static void payloads_move_during_the_backward_pass(void **state)
{
    (void)state;
    float sum[VALUES];
    world_begins(2);
    worker_starts();
    welcome();
    worker_is_ready();
    wait_for_fetch = true; /* if they did not, this would never end */
    order(ORDER_TRAIN, 0, 0, 0, 0, STATUS_OK, NULL);
    announce_parameters(0, 0);
    for (int k = 0; k < SLOTS - 1; k++)
        expect(MESSAGE_SLOT);
    struct message m = expect(MESSAGE_CHUNK);
    fetch(&m.chunk, sum);
    for (int c = CHUNKS - 2; c >= 0; c--) {
        m = expect(MESSAGE_CHUNK);
        fetch(&m.chunk, sum);
    }
    expect(MESSAGE_SLOT);
    dismiss(STATUS_STOPPED, "enough");
    worker_ends(STATUS_STOPPED, "enough");
    wait_for_fetch = false;
    world_ends(2);
}

static void batches_are_evaluated_as_ordered(void **state)
{
    (void)state;
    world_begins(2);
    worker_starts();
    welcome();
    worker_is_ready();
    parameters[0] = 1000;
    order(ORDER_EVALUATE, 3, 2, 4, 3, STATUS_OK, NULL);
    announce_parameters(3, 0);
    for (int i = 4; i < 7; i++) {
        struct message m = expect(MESSAGE_EVAL);
        assert_int_equal(counted.index, m.eval.batch);
        assert_int_equal(m.eval.set, 2);
        assert_int_equal(m.eval.batch, i);
        assert_true(m.eval.numbers.loss == 1020 + i);
    }
    order(ORDER_EVALUATE, 3, 1, 0, 1, STATUS_OK, NULL); /* parameters of that step are here already */
    struct message m = expect(MESSAGE_EVAL);
    assert_true(m.eval.numbers.loss == 1010);
    order(ORDER_EVALUATE, 3, 1, 0, 0, STATUS_OK, NULL); /* more workers than batches */
    dismiss(STATUS_OK, "");
    worker_ends(STATUS_OK, "");
    world_ends(2);
}

static void signals_are_passed_on(void **state)
{
    (void)state;
    world_begins(2);
    worker_starts();
    welcome();
    worker_is_ready();
    for (int flags = 1; flags < 4; flags++) {
        atomic_store(&pending_signals, flags);
        struct message m = expect(MESSAGE_SIGNAL);
        assert_int_equal(m.signal.flags, flags);
    }
    dismiss(STATUS_OK, "");
    worker_ends(STATUS_OK, "");
    world_ends(2);
}

/* ---- Failures --------------------------------------------------------------------------------------------------- */

/* The worker must name what is wrong, wait for its dismissal and say goodbye. */
static void must_fail(enum status status, const char *part)
{
    struct message m;
    do
        m = next_message();
    while (m.kind == MESSAGE_SLOT || m.kind == MESSAGE_EVAL);
    assert_int_equal(m.kind, MESSAGE_FAILURE);
    assert_int_equal(m.failure.status, status);
    assert_int_equal(m.failure.rank, 1);
    if (!strstr(m.failure.text, part)) {
        print_error("message '%s' lacks '%s'\n", m.failure.text, part);
        fail();
    }
    dismiss(STATUS_PEER, "rank 1 failed");
    worker_ends(status, part); /* its own words, not the server's */
}

static void own_failures_are_reported(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        world_begins(2);
        worker.cannot_load = kind == 3;
        worker_starts();
        welcome();
        if (kind < 3)
            worker_is_ready();
        bad_slot = kind == 0 ? 2 : -1;
        nan_slot = kind == 1 ? 3 : -1;
        bad_batch = kind == 2 ? 5 : -1;
        if (kind < 2)
            order(ORDER_TRAIN, 6, 0, 0, 0, STATUS_OK, NULL);
        else if (kind == 2)
            order(ORDER_EVALUATE, 6, 1, 4, 3, STATUS_OK, NULL);
        if (kind < 3)
            announce_parameters(6, 0);
        const char *const texts[] = {"no rows for slot 2", "step 7, slot 3: made up", "no rows for batch 5 of set 1", "my disk is empty"};
        must_fail(kind == 1 ? STATUS_NUMERIC : STATUS_DATA, texts[kind]);
        bad_slot = nan_slot = bad_batch = -1;
        world_ends(2);
    }
}

static void a_server_that_breaks_the_rules_is_named(void **state)
{
    (void)state;
    struct message chunk = {.kind = MESSAGE_CHUNK};
    chunk.chunk = (struct message_chunk){.what = CHUNK_PARAMETERS, .chunk = CHUNKS - 1, .bytes = CHUNK * sizeof(float)};
    for (int kind = 0; kind < 7; kind++) {
        struct message m = chunk;
        const char *part = "not in my table of 4 chunks";
        world_begins(3);
        worker_starts();
        welcome();
        worker_is_ready();
        switch (kind) {
        case 0: m.chunk.chunk = CHUNKS; break;
        case 1: m.chunk.bytes -= 4; break;
        case 2: m.chunk.what = CHUNK_GRADIENT; break;
        case 3:
            m = (struct message){.kind = MESSAGE_SIGNAL, .signal = {1}};
            part = "rank 0 sent a worker a message of kind";
            break;
        }
        if (kind == 4) {
            announce_parameters(0, 1);
            part = "arrived damaged from rank 0";
        } else if (kind == 5) {
            assert_ok(transport_post(ends[0], 1, "nonsense", 8, &err), &err);
            part = "not a frame";
        } else if (kind == 6) {
            m = (struct message){.kind = MESSAGE_ORDER, .order = {.action = ORDER_STOP}};
            assert_ok(frame_post(ends[2], 1, &m, &err), &err);
            part = "rank 2 sent a worker a message of kind";
        } else {
            say(&m);
        }
        if (kind == 4) { /* what has arrived damaged cannot be sent again: the rest is taken in, and nobody waits */
            m = next_message();
            assert_int_equal(m.kind, MESSAGE_FAILURE);
            assert_non_null(strstr(m.failure.text, part));
            order(ORDER_ABORT, -1, 0, 0, 0, STATUS_PEER, "rank 1 failed");
            worker_ends(STATUS_PEER, part);
        } else {
            must_fail(STATUS_PEER, part);
        }
        world_ends(3);
    }
}

/* ---- A real server ---------------------------------------------------------------------------------------------- */

struct outcome {
    enum status status;
    struct server_step step;
    float values[VALUES];
    int signals;
};

/* Accepts the worker, takes `steps` steps, and dismisses it. */
static void serve(int steps, struct outcome *out)
{
    struct threads *pool;
    struct optimizer *optimizer;
    struct shard *shard;
    struct server *server;
    struct chunks chunks = chunks_make(VALUES, CHUNK);
    struct optimizer_options settings = OPTIMIZER_OPTIONS_DEFAULT;
    *out = (struct outcome){0};
    err.text[0] = '\0';
    assert_ok(threads_create(1, &pool, &err), &err);
    assert_ok(optimizer_create("sgd", &settings, &table, &chunks, &optimizer, &err), &err);
    assert_ok(shard_create(&chunks, optimizer_n_states(optimizer), optimizer_state_names(optimizer), &shard, &err), &err);
    struct server_config config = {
        .transport = ends[0], .table = &table, .shard = shard, .slots = SLOTS, .pool = pool, .optimizer = optimizer,
        .stage = {.schedule = {.type = SCHEDULE_CONSTANT, .base = 0.5, .total = 10}}, .credits = 2, .timeout_ms = LONG_MS,
        .config_text = "a: 1", .config_size = 4,
    };
    assert_ok(server_create(&config, &server, &err), &err);
    out->status = server_accept(server, &err);
    for (int step = 0; out->status == STATUS_OK && step < steps; step++)
        out->status = server_train_step(server, step, &out->step, &err);
    out->signals = server_take_signals(server);
    assert_true(server_dismiss(server, out->status, err.text));
    memcpy(out->values, shard->parameters, sizeof out->values);
    server_free(server);
    shard_free(shard);
    optimizer_free(optimizer);
    threads_free(pool);
}

static void slots_may_be_empty(void **state)
{
    (void)state;
    struct outcome out;
    for (empty_from = 0; empty_from <= SLOTS; empty_from++) {
        world_begins(2);
        worker_starts();
        serve(1, &out);
        worker_ends(STATUS_OK, "");
        assert_int_equal(out.status, STATUS_OK);
        assert_int_equal(out.step.updated, empty_from > 0);
        assert_int_equal(out.step.sums.tokens, 7 * empty_from);
        /* From zero, by the mean of slot numbers 0 .. n-1 times the rate. */
        for (int i = 0; i < VALUES; i++)
            assert_true(out.values[i] == (empty_from ? -0.5f * (float)(empty_from - 1) / 2 : 0));
        world_ends(2);
    }
    empty_from = SLOTS;
}

static void a_worker_that_cannot_load_stops_the_run(void **state)
{
    (void)state;
    struct outcome out;
    world_begins(2);
    worker.cannot_load = true;
    worker_starts();
    serve(1, &out);
    assert_int_equal(out.status, STATUS_DATA);
    assert_non_null(strstr(err.text, "rank 1 on "));
    assert_non_null(strstr(err.text, "my disk is empty"));
    worker_ends(STATUS_DATA, "my disk is empty");
    world_ends(2);
}

static void other_tensors_are_refused(void **state)
{
    (void)state;
    struct outcome out;
    struct params other = {0};
    assert_ok(params_add(&other, &(struct param){.name = "b", .n_dims = 1, .shape = {VALUES}}, NULL, &err), &err);
    world_begins(2);
    worker.table = &other;
    worker_starts();
    serve(1, &out);
    assert_int_equal(out.status, STATUS_DATA);
    assert_non_null(strstr(err.text, "lists other tensors"));
    worker_ends(STATUS_DATA, "lists other tensors");
    world_ends(2);
    params_free(&other);
}

static void signals_reach_a_real_server(void **state)
{
    (void)state;
    struct outcome out;
    world_begins(2);
    atomic_store(&pending_signals, SERVER_SIGNAL_SAVE);
    worker_starts();
    serve(1, &out);
    assert_int_equal(out.status, STATUS_OK);
    assert_int_equal(out.signals, SERVER_SIGNAL_SAVE);
    worker_ends(STATUS_OK, "");
    world_ends(2);
}

static int open_table(void **state)
{
    (void)state;
    assert_ok(params_add(&table, &(struct param){.name = "a", .n_dims = 1, .shape = {VALUES}}, NULL, &err), &err);
    assert_int_equal(table.values, VALUES);
    return 0;
}

static int close_table(void **state)
{
    (void)state;
    params_free(&table);
    arena_free(&words);
    assert_int_equal(mem_live(), 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_joins_and_leaves),
        cmocka_unit_test(a_refused_worker_says_goodbye),
        cmocka_unit_test(a_mute_server_is_given_up),
        cmocka_unit_test(a_server_that_dies_ends_the_wait),
        cmocka_unit_test(a_step_is_announced_from_the_end),
        cmocka_unit_test(payloads_move_during_the_backward_pass),
        cmocka_unit_test(batches_are_evaluated_as_ordered),
        cmocka_unit_test(signals_are_passed_on),
        cmocka_unit_test(own_failures_are_reported),
        cmocka_unit_test(a_server_that_breaks_the_rules_is_named),
        cmocka_unit_test(slots_may_be_empty),
        cmocka_unit_test(a_worker_that_cannot_load_stops_the_run),
        cmocka_unit_test(other_tensors_are_refused),
        cmocka_unit_test(signals_reach_a_real_server),
    };
    return cmocka_run_group_tests(tests, open_table, close_table);
}
