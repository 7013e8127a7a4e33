/* Ranks of one process called in turn: what is sent arrives once, in order and whole, or an error says why not; nothing leaks.
 * Also waits with deadlines and the check for foreign launchers. */
#include "tests/support/cmocka_all.h"

#include <sys/resource.h>

#include "common/log.h"
#include "common/memory.h"
#include "common/timing.h"
#include "proto/frame.h"
#include "proto/launcher.h"
#include "proto/transport_faulty.h"
#include "proto/transport_local.h"
#include "proto/wait.h"

static struct error err;

static struct arrival must_arrive(struct transport *t)
{
    struct arrival frame;
    bool arrived;
    assert_ok(transport_poll(t, &frame, &arrived, &err), &err);
    assert_true(arrived);
    return frame;
}

static void must_be_quiet(struct transport *t)
{
    struct arrival frame;
    bool arrived;
    assert_ok(transport_poll(t, &frame, &arrived, &err), &err);
    assert_false(arrived);
}

static void frames_keep_their_order(void **state)
{
    (void)state;
    struct transport *t[3];
    char text[32];
    assert_ok(transport_local_create(3, t, &err), &err);
    assert_int_equal(transport_rank(t[2]), 2);
    assert_int_equal(transport_size(t[2]), 3);
    must_be_quiet(t[0]);
    for (int i = 0; i < 100; i++) {
        int size = snprintf(text, sizeof text, "frame %d", i);
        assert_ok(transport_post(t[1 + i % 2], 0, text, (size_t)size + 1, &err), &err);
        memset(text, 'x', sizeof text);
    }
    for (int i = 0; i < 100; i++) {
        struct arrival frame = must_arrive(t[0]);
        snprintf(text, sizeof text, "frame %d", i);
        assert_int_equal(frame.source, 1 + i % 2);
        assert_int_equal(frame.size, strlen(text) + 1);
        assert_string_equal(frame.bytes, text);
    }
    must_be_quiet(t[0]);
    for (int r = 0; r < 3; r++)
        transport_free(t[r]);
    assert_int_equal(mem_live(), 0);
}

static void payloads_go_straight_to_their_place(void **state)
{
    (void)state;
    enum { COUNT = 300, BYTES = 1000 };
    struct transport *t[2];
    static unsigned char from[COUNT][BYTES], to[COUNT][BYTES];
    struct transfer *sends[COUNT], *receives[COUNT];
    for (int i = 0; i < COUNT; i++)
        memset(from[i], i * 7, BYTES);
    assert_ok(transport_local_create(2, t, &err), &err);
    for (int i = 0; i < COUNT; i++) /* half of them are asked for before they are offered */
        if (i % 2)
            assert_ok(transport_receive(t[0], 1, (uint32_t)i, to[i], BYTES, &receives[i], &err), &err);
    for (int i = 0; i < COUNT; i++)
        assert_ok(transport_send(t[1], 0, (uint32_t)i, from[i], BYTES, &sends[i], &err), &err);
    must_be_quiet(t[1]);
    for (int i = 0; i < COUNT; i += 2)
        assert_false(transport_done(t[1], sends[i])); /* nobody has asked yet */
    for (int i = COUNT - 2; i >= 0; i -= 2)
        assert_ok(transport_receive(t[0], 1, (uint32_t)i, to[i], BYTES, &receives[i], &err), &err);
    must_be_quiet(t[0]);
    must_be_quiet(t[1]);
    for (int i = 0; i < COUNT; i++) {
        assert_true(transport_done(t[0], receives[i]));
        assert_true(transport_done(t[1], sends[i]));
    }
    assert_memory_equal(from, to, sizeof from);
    transport_free(t[1]);
    transport_free(t[0]);
    assert_int_equal(mem_live(), 0);
}

static void equal_tags_match_in_order(void **state)
{
    (void)state;
    struct transport *t[3];
    struct transfer *x[8];
    int from[4] = {1, 2, 3, 4}, to[4] = {0};
    assert_ok(transport_local_create(3, t, &err), &err);
    assert_ok(transport_send(t[1], 0, 5, &from[0], sizeof(int), &x[0], &err), &err);
    assert_ok(transport_send(t[2], 0, 5, &from[1], sizeof(int), &x[1], &err), &err);
    assert_ok(transport_send(t[1], 0, 69, &from[2], sizeof(int), &x[2], &err), &err);
    assert_ok(transport_send(t[1], 0, 5, &from[3], sizeof(int), &x[3], &err), &err);
    for (int i = 0; i < 2; i++)
        assert_ok(transport_receive(t[0], 1, 5, &to[i], sizeof(int), &x[4 + i], &err), &err);
    assert_ok(transport_receive(t[0], 2, 5, &to[2], sizeof(int), &x[6], &err), &err);
    assert_ok(transport_receive(t[0], 1, 69, &to[3], sizeof(int), &x[7], &err), &err);
    for (int r = 0; r < 3; r++)
        must_be_quiet(t[r]);
    static const int owners[8] = {1, 2, 1, 1, 0, 0, 0, 0};
    for (int i = 0; i < 8; i++)
        assert_true(transport_done(t[owners[i]], x[i]));
    assert_int_equal(to[0], 1);
    assert_int_equal(to[1], 4);
    assert_int_equal(to[2], 2);
    assert_int_equal(to[3], 3);
    for (int r = 0; r < 3; r++)
        transport_free(t[r]);
    assert_int_equal(mem_live(), 0);
}

static void other_length_than_announced_is_said(void **state)
{
    (void)state;
    for (int sent = 4; sent <= 16; sent += 12) {
        struct transport *t[2];
        struct transfer *send, *receive;
        char from[16] = "", to[8] = "kept";
        struct arrival frame;
        bool arrived;
        assert_ok(transport_local_create(2, t, &err), &err);
        assert_ok(transport_send(t[1], 0, 3, from, (size_t)sent, &send, &err), &err);
        assert_ok(transport_receive(t[0], 1, 3, to, sizeof to, &receive, &err), &err);
        assert_refused(transport_poll(t[0], &frame, &arrived, &err), STATUS_PEER, &err, "rank 1 sent a payload of");
        assert_false(transport_done(t[0], receive));
        assert_string_equal(to, "kept");
        must_be_quiet(t[1]);
        assert_true(transport_done(t[1], send));
        transport_free(t[1]);
        transport_abandon(t[0]);
        assert_int_equal(mem_live(), 0);
    }
}

static void wrong_calls_are_refused(void **state)
{
    (void)state;
    struct transport *t[2];
    struct transfer *x;
    char byte = 0;
    assert_ok(transport_local_create(2, t, &err), &err);
    assert_refused(transport_post(t[0], 2, &byte, 1, &err), STATUS_INTERNAL, &err, "rank 2 of 2");
    assert_refused(transport_post(t[0], -1, &byte, 1, &err), STATUS_INTERNAL, &err, "rank -1");
    assert_refused(transport_post(t[0], 0, &byte, 1, &err), STATUS_INTERNAL, &err, "rank 0");
    assert_refused(transport_post(t[0], 1, &byte, 0, &err), STATUS_USAGE, &err, "0 bytes");
    assert_refused(transport_post(t[0], 1, &byte, (size_t)TRANSPORT_MAX_BYTES + 1, &err), STATUS_USAGE, &err, "allowed");
    assert_refused(transport_send(t[0], 1, TRANSPORT_TAGS, &byte, 1, &x, &err), STATUS_USAGE, &err, "tag");
    assert_refused(transport_receive(t[0], 1, 0, NULL, 1, &x, &err), STATUS_USAGE, &err, "receive");
    assert_int_equal(transport_next_tag(0), 1);
    assert_int_equal(transport_next_tag(TRANSPORT_TAGS - 1), 0);
    transport_free(t[0]);
    transport_free(t[1]);
    transport_free(NULL);
    transport_abandon(NULL);
}

static void who_gives_up_leaks_nothing_and_is_noticed(void **state)
{
    (void)state;
    struct transport *t[3];
    struct transfer *x;
    struct arrival frame;
    bool arrived;
    char data[64] = "";
    assert_ok(transport_local_create(3, t, &err), &err);
    assert_ok(transport_send(t[1], 0, 1, data, sizeof data, &x, &err), &err);
    assert_ok(transport_receive(t[1], 0, 2, data, sizeof data, &x, &err), &err);
    assert_ok(transport_send(t[0], 1, 9, data, sizeof data, &x, &err), &err);
    assert_ok(transport_post(t[0], 1, "unread", 7, &err), &err);
    assert_ok(transport_post(t[1], 0, "last words", 11, &err), &err);
    transport_abandon(t[1]);
    frame = must_arrive(t[0]); /* what it said before still arrives */
    assert_string_equal(frame.bytes, "last words");
    assert_refused(transport_poll(t[0], &frame, &arrived, &err), STATUS_PEER, &err, "rank 1 gave up");
    assert_refused(transport_poll(t[2], &frame, &arrived, &err), STATUS_PEER, &err, "rank 1 gave up");
    assert_ok(transport_post(t[0], 1, "nobody is there", 16, &err), &err);
    transport_abandon(t[0]);
    transport_abandon(t[2]);
    assert_int_equal(mem_live(), 0);
}

/* Also through the faulty transport, and by an abort. */
static void what_is_withdrawn_is_not_touched(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct transport *t[2];
        struct transfer *x;
        struct arrival frame;
        bool arrived;
        char from[2][8] = {"first", "second"}, to[2][8] = {"", ""};
        struct faults none = {0};
        assert_ok(transport_local_create(2, t, &err), &err);
        if (way == 1)
            assert_ok(transport_faulty_create(t[1], &none, &t[1], &err), &err);
        assert_ok(transport_send(t[1], 0, 1, from[0], 8, &x, &err), &err);
        assert_ok(transport_receive(t[1], 0, 2, to[1], 8, &x, &err), &err);
        if (way < 2)
            assert_true(transport_withdraw(t[1]));
        else
            transport_abort(t[1], 5);
        assert_ok(transport_receive(t[0], 1, 1, to[0], 8, &x, &err), &err);
        assert_ok(transport_send(t[0], 1, 2, from[1], 8, &x, &err), &err);
        if (way < 2)
            must_be_quiet(t[0]);
        else
            assert_refused(transport_poll(t[0], &frame, &arrived, &err), STATUS_PEER, &err, "rank 1 ended the run");
        assert_false(transport_done(t[0], x));
        assert_string_equal(to[0], "");
        assert_string_equal(to[1], "");
        transport_free(t[0]);
        transport_free(t[1]);
    }
    assert_int_equal(mem_live(), 0);
}

static void abort_ends_all(void **state)
{
    (void)state;
    struct transport *t[3];
    struct arrival frame;
    bool arrived;
    assert_ok(transport_local_create(3, t, &err), &err);
    transport_abort(t[1], 4);
    for (int r = 0; r < 3; r++) {
        assert_refused(transport_poll(t[r], &frame, &arrived, &err), STATUS_PEER, &err, "exit status");
        transport_abandon(t[r]);
    }
    assert_int_equal(mem_live(), 0);
}

/* Builds two ranks, moves a frame, a frame in place and a payload, with whatever allocation fails. */
static enum status everything_once(void)
{
    struct transport *t[2];
    struct transfer *sends[2] = {NULL, NULL}, *receive = NULL;
    struct arrival frame;
    bool arrived;
    char from[8] = "payload", to[8] = "", framed[FRAME_ROOM + 8];
    struct message text = {.kind = MESSAGE_TEXT, .text = {.payload = framed + FRAME_ROOM, .payload_size = 8}};
    struct faults none = {0};
    memset(framed, 0, sizeof framed);
    TRY(transport_local_create(2, t, &err));
    enum status st = transport_faulty_create(t[0], &none, &t[0], &err);
    if (st != STATUS_OK) {
        transport_abandon(t[1]);
        return st;
    }
    st = frame_send(t[0], 1, &text, framed + FRAME_ROOM, &sends[0], &err);
    if (st == STATUS_OK)
        st = frame_post(t[0], 1, &text, &err);
    if (st == STATUS_OK)
        st = transport_send(t[0], 1, 0, from, sizeof from, &sends[1], &err);
    if (st == STATUS_OK)
        st = transport_receive(t[1], 0, 0, to, sizeof to, &receive, &err);
    for (int i = 0; i < 3 && st == STATUS_OK; i++)
        st = transport_poll(t[0], &frame, &arrived, &err);
    for (int i = 0; i < 3 && st == STATUS_OK; i++)
        st = transport_poll(t[1], &frame, &arrived, &err);
    if (st == STATUS_OK) {
        assert_true(transport_done(t[0], sends[0]) && transport_done(t[0], sends[1]) && transport_done(t[1], receive));
        assert_string_equal(to, "payload");
    }
    transport_abandon(t[0]);
    transport_abandon(t[1]);
    return st;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    enum status st = STATUS_NOMEM;
    long n = 0;
    for (; st != STATUS_OK; n++) {
        assert_true(n < 100);
        mem_fail_after(n, false);
        st = everything_once();
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        assert_int_equal(mem_live(), 0);
    }
    assert_true(n > 8);
}

static double thread_cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static void waiting_costs_little(void **state)
{
    (void)state;
    struct transport *t[2];
    assert_ok(transport_local_create(2, t, &err), &err);
    for (int moving = 0; moving < 2; moving++) {
        double began = time_seconds(), used = thread_cpu_seconds();
        while (time_seconds() - began < 1.5) {
            must_be_quiet(t[0]);
            transport_idle(t[0], moving);
        }
#ifdef LOAR_SANITIZED
        assert_true(thread_cpu_seconds() - used < 0.5 * 1.5); /* the tools take their share */
#else
        assert_true(thread_cpu_seconds() - used < 0.05 * 1.5);
#endif
        assert_ok(transport_post(t[1], 0, "x", 1, &err), &err);
        must_arrive(t[0]);
    }
    transport_free(t[0]);
    transport_free(t[1]);
}

static void describe_rank(void *context, char *text, size_t size)
{
    snprintf(text, size, "rank %d on node7", *(int *)context);
}

static void deadlines_name_whom(void **state)
{
    (void)state;
    struct wait wait;
    int rank = 3;
    log_init(LOG_ERROR, -1); /* keeps the notice out of the test's output */
    wait_begin(&wait, "gradients", 20, describe_rank, &rank);
    assert_int_equal(wait_check(&wait, &err), STATUS_OK);
    wait.notice_ms = 0; /* as if ten seconds had passed */
    assert_int_equal(wait_check(&wait, &err), STATUS_OK);
    assert_true(wait.notice_ms > time_ms());
    wait.heard_ms -= 50;
    assert_refused(wait_check(&wait, &err), STATUS_TIMEOUT, &err, "waiting for gradients from rank 3 on node7");
    wait_heard(&wait);
    assert_int_equal(wait_check(&wait, &err), STATUS_OK);
    wait.heard_ms -= 2 * TIME_ASLEEP_MS; /* as if this process had been suspended */
    wait.looked_ms -= 2 * TIME_ASLEEP_MS;
    assert_int_equal(wait_check(&wait, &err), STATUS_OK);
    log_init(LOG_INFO, -1);
}

struct variable {
    const char *name, *value;
};

static const char *lookup(void *context, const char *name)
{
    const struct variable *only = context;
    return !strcmp(only->name, name) ? only->value : NULL;
}

static void foreign_launchers_are_refused(void **state)
{
    (void)state;
    static struct variable bad[] = {{"SLURM_NTASKS", "16"}, {"PMI_SIZE", "2"}, {"OMPI_COMM_WORLD_SIZE", "4"},
                                    {"MPI_LOCALNRANKS", "8"}, {"PMIX_RANK", "1"}, {"SLURM_STEP_NUM_TASKS", "3"}};
    static struct variable good[] = {{"SLURM_NTASKS", "1"}, {"PMI_SIZE", "1"}, {"PMIX_RANK", "0"}, {"HOME", "99"},
                                     {"PMI_SIZE", ""}, {"OMPI_COMM_WORLD_SIZE", "many"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_refused(launcher_check(1, lookup, &bad[i], &err), STATUS_USAGE, &err, bad[i].name);
        assert_int_equal(launcher_check(2, lookup, &bad[i], &err), STATUS_OK);
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(launcher_check(1, lookup, &good[i], &err), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_keep_their_order),
        cmocka_unit_test(payloads_go_straight_to_their_place),
        cmocka_unit_test(equal_tags_match_in_order),
        cmocka_unit_test(other_length_than_announced_is_said),
        cmocka_unit_test(wrong_calls_are_refused),
        cmocka_unit_test(who_gives_up_leaks_nothing_and_is_noticed),
        cmocka_unit_test(what_is_withdrawn_is_not_touched),
        cmocka_unit_test(abort_ends_all),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(waiting_costs_little),
        cmocka_unit_test(deadlines_name_whom),
        cmocka_unit_test(foreign_launchers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
