/* Who may pull when, and what is said about slow and silent workers. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "common/rng.h"
#include "ps/clock.h"
#include "ps/session.h"

static void synchronous(void **state)
{
    (void)state;
    struct error err;
    struct clock clock;
    assert_ok(clock_init(&clock, 3, 0, 10, &err), &err);
    for (int w = 0; w < 3; w++) {
        assert_true(clock_may_pull(&clock, w, 10));
        assert_false(clock_may_pull(&clock, w, 11));
    }
    clock_advance(&clock, 0);
    clock_advance(&clock, 2);
    assert_int_equal(clock_of(&clock, 0), 11);
    assert_int_equal(clock_min(&clock), 10);
    assert_int_equal(clock_slowest(&clock), 1);
    assert_false(clock_may_pull(&clock, 0, 11));
    assert_true(clock_may_pull(&clock, 1, 10));
    clock_advance(&clock, 1);
    assert_int_equal(clock_slowest(&clock), 0);
    for (int w = 0; w < 3; w++)
        assert_true(clock_may_pull(&clock, w, 11));
    clock_free(&clock);
}

/* Workers move at random as far as they may: none gets further ahead than the bound, and the bound is reached. */
static void bounded_staleness_holds(void **state)
{
    (void)state;
    struct error err;
    for (int64_t staleness = 0; staleness <= 3; staleness++) {
        struct clock clock;
        assert_ok(clock_init(&clock, 4, staleness, 0, &err), &err);
        int64_t widest = 0;
        for (uint64_t turn = 0; turn < 3000; turn++) {
            int w = (int)rng_below(1, (uint64_t)staleness, turn, 4);
            if (!clock_may_pull(&clock, w, clock_of(&clock, w)))
                continue;
            int64_t ahead = clock_of(&clock, w) - clock_min(&clock);
            assert_true(ahead <= staleness);
            widest = ahead > widest ? ahead : widest;
            clock_advance(&clock, w);
        }
        assert_int_equal(widest, staleness);
        assert_true(clock_min(&clock) > 100);
        clock_free(&clock);
    }
    struct clock clock;
    assert_ok(clock_init(&clock, 2, -1, 0, &err), &err);
    for (int step = 0; step < 50; step++) {
        assert_true(clock_may_pull(&clock, 0, step));
        clock_advance(&clock, 0);
    }
    assert_false(clock_may_pull(&clock, 1, 1));
    clock_free(&clock);
}

static void clocks_need_workers_and_memory(void **state)
{
    (void)state;
    struct error err;
    struct clock clock;
    long before = mem_live();
    assert_refused(clock_init(&clock, 0, 0, 0, &err), STATUS_USAGE, &err, "no workers");
    mem_fail_after(0, false);
    assert_refused(clock_init(&clock, 3, 0, 0, &err), STATUS_NOMEM, &err, "3 workers");
    mem_fail_after(-1, false);
    clock_free(&clock);
    assert_int_equal(mem_live(), before);
}

static void one_step(struct session *session, int64_t step, int64_t began, int64_t first, int64_t last)
{
    session_step_begin(session, step, began);
    session_step_push(session, began + first);
    session_step_push(session, began + last);
    session_step_end(session, began + last);
}

static void lags_are_smoothed(void **state)
{
    (void)state;
    struct session s;
    session_init(&s, 3, 1000);
    assert_int_equal(s.step, -1);
    one_step(&s, 0, 2000, 50, 100);
    assert_true(s.first_lag_ms == 50 && s.last_lag_ms == 100);
    one_step(&s, 1, 3000, 50, 200);
    assert_true(s.first_lag_ms == 50 && s.last_lag_ms == 120);
    assert_int_equal(s.step, 1);
    assert_int_equal(s.steps, 2);
    assert_int_equal(s.seen_ms, 3200);
    session_step_begin(&s, 2, 4000);
    session_step_end(&s, 9000);
    assert_int_equal(s.steps, 2);
    assert_true(s.last_lag_ms == 120);
}

static void the_slow_one_is_named(void **state)
{
    (void)state;
    static const int64_t lags[] = {100, 140, 900, 120, 110};
    struct session sessions[5];
    for (int i = 0; i < 5; i++)
        session_init(&sessions[i], i + 1, 0);
    assert_int_equal(sessions_slowest(sessions, 5).index, -1);
    for (int i = 0; i < 5; i++)
        one_step(&sessions[i], 0, 0, 10, lags[i]);
    struct session_slowest slowest = sessions_slowest(sessions, 5);
    assert_int_equal(slowest.index, 2);
    assert_true(slowest.lag_ms == 900 && slowest.median_ms == 120);
    slowest = sessions_slowest(sessions, 2);
    assert_true(slowest.index == 1 && slowest.median_ms == 100);
    struct session same[3];
    for (int i = 0; i < 3; i++) {
        session_init(&same[i], i, 0);
        one_step(&same[i], 0, 0, 5, 50);
    }
    slowest = sessions_slowest(same, 3);
    assert_true(slowest.index == 0 && slowest.lag_ms == 50 && slowest.median_ms == 50);
}

static void silence(void **state)
{
    (void)state;
    struct session sessions[3];
    for (int i = 0; i < 3; i++)
        session_init(&sessions[i], i, 1000);
    session_touch(&sessions[0], 2000);
    session_touch(&sessions[0], 1500);
    session_received(&sessions[1], 4096, 1800);
    assert_int_equal(session_silent_ms(&sessions[0], 2500), 500);
    assert_int_equal(session_silent_ms(&sessions[0], 1900), 0);
    assert_int_equal(sessions_most_silent(sessions, 3, 3000), 2);
    sessions[2].state = SESSION_DONE;
    assert_int_equal(sessions_most_silent(sessions, 3, 3000), 1);
    sessions[0].state = sessions[1].state = SESSION_FAILED;
    assert_int_equal(sessions_most_silent(sessions, 3, 3000), -1);
}

static void summaries(void **state)
{
    (void)state;
    char text[SESSION_SUMMARY_SIZE];
    struct session s;
    session_init(&s, 3, 0);
    session_summary(&s, 500, text);
    assert_non_null(strstr(text, "rank 3 on an unknown host"));
    assert_non_null(strstr(text, "no step yet"));
    session_identify(&s, "node7", 2, (struct slot_range){8, 4});
    s.state = SESSION_COMPUTING;
    session_received(&s, 3 << 20, 1000);
    session_sent(&s, 1 << 19);
    one_step(&s, 0, 1000, 40, 250);
    assert_string_equal(session_summary(&s, 3250, text),
                        "rank 3 on node7, 2 threads, slots 8..11, computing, gradients after 40..250 ms, 3.0 MiB in, "
                        "0.5 MiB out, silent for 2.0 s");
    char host[400];
    memset(host, 'h', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    session_identify(&s, host, 1, (struct slot_range){0, 1});
    assert_int_equal(strlen(s.host), SESSION_HOST_SIZE - 1);
    assert_non_null(strstr(session_summary(&s, 0, text), "silent for 0.0 s"));
    for (int state_number = SESSION_JOINING; state_number <= SESSION_FAILED; state_number++)
        assert_true(strlen(session_state_name((enum session_state)state_number)) > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(synchronous),
        cmocka_unit_test(bounded_staleness_holds),
        cmocka_unit_test(clocks_need_workers_and_memory),
        cmocka_unit_test(lags_are_smoothed),
        cmocka_unit_test(the_slow_one_is_named),
        cmocka_unit_test(silence),
        cmocka_unit_test(summaries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
