/* Data sets in turns: counts and shares, where an epoch ends, orders that do not depend on who asks, file order, limits. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "common/slots.h"
#include "worker/data/order.h"

enum { MAX_ROWS = 4096 };

/* Sets that lie one behind the other. */
static void make_sets(int n, const uint32_t *rows, const double *shares, struct mix_set *out)
{
    uint32_t first = 0;
    for (int i = 0; i < n; i++) {
        out[i] = (struct mix_set){.first = first, .rows = rows[i], .share = shares[i]};
        first += rows[i];
    }
}

static int set_of(const struct mix_set *sets, int n, uint32_t row)
{
    for (int i = 0; i < n; i++)
        if (row >= sets[i].first && row < sets[i].first + sets[i].rows)
            return i;
    fail_msg("row %u belongs to no set", row);
    return -1;
}

/* All rows of an epoch, one slot after the other. */
static uint32_t epoch_of(struct order *order, int64_t epoch, uint32_t out[MAX_ROWS])
{
    int64_t steps = order_steps_per_epoch(order);
    uint32_t count = 0;
    for (int64_t step = epoch * steps; step < (epoch + 1) * steps; step++)
        for (int slot = 0; slot < order->slots; slot++)
            count += (uint32_t)order_slot(order, step, slot, out + count);
    return count;
}

static void names_are_known(void **state)
{
    (void)state;
    enum mix_strategy strategy = MIX_CONCAT;
    assert_true(mix_strategy_parse("interleave_over", &strategy));
    assert_int_equal(strategy, MIX_INTERLEAVE_OVER);
    assert_true(mix_strategy_parse("concat", &strategy));
    assert_int_equal(strategy, MIX_CONCAT);
    assert_false(mix_strategy_parse("interleave", &strategy));
}

static void epochs_end_where_they_should(void **state)
{
    (void)state;
    static const struct {
        enum mix_strategy strategy;
        uint32_t rows[3];
        double shares[3];
        uint32_t counts[3];
    } cases[] = {
        {MIX_INTERLEAVE_UNDER, {100, 30, 50}, {1, 1, 1}, {30, 30, 30}},
        {MIX_INTERLEAVE_OVER, {100, 30, 50}, {1, 1, 1}, {100, 100, 100}},
        {MIX_INTERLEAVE_UNDER, {100, 30, 50}, {2, 0.5, 1}, {99, 25, 50}}, /* the third ends at 49.5 */
        {MIX_INTERLEAVE_OVER, {100, 30, 50}, {2, 0.5, 1}, {118, 30, 59}}, /* the second ends at 59 */
        {MIX_INTERLEAVE_UNDER, {100, 0, 50}, {1, 1, 1}, {50, 0, 50}},
        {MIX_INTERLEAVE_OVER, {7, 7, 7}, {0.1, 0.3, 0.7}, {7, 20, 46}}, /* the first ends at 65, and two last rows stand there */
        {MIX_INTERLEAVE_OVER, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct error err;
        struct mix_set sets[3];
        int64_t rows;
        make_sets(3, cases[c].rows, cases[c].shares, sets);
        assert_ok(mixture_count(cases[c].strategy, sets, 3, &rows, &err), &err);
        uint32_t sum = 0;
        for (int i = 0; i < 3; i++) {
            int slack = cases[c].shares[0] == 0.1; /* 0.1 is none of the floating-point numbers, and times may round apart */
            if (abs((int)sets[i].count - (int)cases[c].counts[i]) > slack)
                fail_msg("case %zu, set %d: %u rows, wanted %u", c, i, sets[i].count, cases[c].counts[i]);
            sum += sets[i].count;
        }
        assert_int_equal(rows, sum);
    }
}

/* Over: every row of every set at least once. Under: none twice. Both: counts of a prefix stay within a row of the shares, and
 * each run through a set holds every row once. */
static void check_mixture(enum mix_strategy strategy, bool shuffle, uint64_t seed, int slots, int slot_rows)
{
    static const uint32_t rows[] = {120, 37, 64};
    static const double shares[] = {3, 1.5, 0.7};
    static uint32_t got[MAX_ROWS], again[MAX_ROWS];
    struct error err;
    struct mix_set sets[3];
    struct order order;
    make_sets(3, rows, shares, sets);
    assert_ok(order_create_mixed(seed, strategy, sets, 3, slots, slot_rows, shuffle, &order, &err), &err);
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        uint32_t count = epoch_of(&order, epoch, got), seen[300] = {0}, taken[3] = {0};
        assert_int_equal(count, order.rows);
        for (uint32_t at = 0; at < count; at++) {
            int set = set_of(sets, 3, got[at]);
            uint32_t pass = taken[set]++ / sets[set].rows;
            assert_int_equal(seen[got[at]]++, pass); /* each once per pass */
            if (!shuffle)
                assert_int_equal(got[at], sets[set].first + (taken[set] - 1) % sets[set].rows);
            for (int i = 0; i < 3; i++) {
                double wanted = shares[i] / 5.2 * (at + 1);
                assert_true(taken[i] > wanted - 1.5 && taken[i] < wanted + 1.5);
            }
        }
        for (int i = 0; i < 3; i++) {
            assert_int_equal(taken[i], order.sets[i].count);
            assert_true(strategy == MIX_INTERLEAVE_OVER ? taken[i] >= rows[i] : taken[i] <= rows[i]);
        }
        epoch_of(&order, 2 - epoch, again); /* another epoch meanwhile changes nothing */
        assert_int_equal(epoch_of(&order, epoch, again), count);
        assert_memory_equal(got, again, count * sizeof *got);
    }
    order_free(&order);
}

static void mixtures_keep_their_promises(void **state)
{
    (void)state;
    for (int over = 0; over < 2; over++)
        for (int shuffle = 0; shuffle < 2; shuffle++)
            for (uint64_t seed = 1; seed < 4; seed++)
                check_mixture(over ? MIX_INTERLEAVE_OVER : MIX_INTERLEAVE_UNDER, shuffle, seed, 4, 3);
    assert_int_equal(mem_live(), 0);
}

static void sets_are_shuffled_anew(void **state)
{
    (void)state;
    static const uint32_t rows[] = {90, 30};
    static const double shares[] = {1, 1};
    static uint32_t got[2][MAX_ROWS];
    struct error err;
    struct mix_set sets[2];
    struct order order;
    make_sets(2, rows, shares, sets);
    assert_ok(order_create_mixed(3, MIX_INTERLEAVE_OVER, sets, 2, 2, 5, true, &order, &err), &err);
    for (int epoch = 0; epoch < 2; epoch++)
        assert_int_equal(epoch_of(&order, epoch, got[epoch]), 180);
    int same_pass = 0, same_epoch = 0;
    for (int i = 0; i < 30; i++) { /* places of the second set are the odd ones */
        same_pass += got[0][2 * i + 1] == got[0][2 * (i + 30) + 1];
        same_epoch += got[0][2 * i + 1] == got[1][2 * i + 1];
        assert_true(got[0][2 * i + 1] >= 90);
    }
    assert_true(same_pass < 10);
    assert_true(same_epoch < 10);
    order_free(&order);
}

/* As for one set: any worker, any sequence of questions. */
static void mixtures_do_not_depend_on_workers(void **state)
{
    (void)state;
    enum { SLOTS = 8, SLOT_ROWS = 2, STEPS = 20 };
    static const uint32_t rows[] = {50, 21};
    static const double shares[] = {0.6, 0.4};
    static uint32_t whole[STEPS][SLOTS][SLOT_ROWS];
    uint32_t taken[SLOT_ROWS];
    struct error err;
    struct mix_set sets[2];
    struct order order;
    make_sets(2, rows, shares, sets);
    assert_ok(order_create_mixed(5, MIX_INTERLEAVE_OVER, sets, 2, SLOTS, SLOT_ROWS, true, &order, &err), &err);
    for (int step = 0; step < STEPS; step++)
        for (int slot = 0; slot < SLOTS; slot++)
            order_slot(&order, step, slot, whole[step][slot]);
    order_free(&order);
    for (int workers = 1; workers <= SLOTS; workers += 3)
        for (int worker = 0; worker < workers; worker++) {
            assert_ok(order_create_mixed(5, MIX_INTERLEAVE_OVER, sets, 2, SLOTS, SLOT_ROWS, true, &order, &err), &err);
            struct slot_range range = slots_of_worker(SLOTS, workers, worker);
            for (int step = STEPS - 1; step >= 0; step--)
                for (int slot = range.first; slot < range.first + range.count; slot++) {
                    int n = order_slot(&order, step, slot, taken);
                    for (int i = 0; i < n; i++)
                        assert_int_equal(taken[i], whole[step][slot][i]);
                }
            order_free(&order);
        }
}

/* concat is what a run without the key has always had. */
static void concat_is_the_order_of_all_rows(void **state)
{
    (void)state;
    static const uint32_t rows[] = {50, 21};
    static const double shares[] = {0.6, 0.1};
    static uint32_t mixed[MAX_ROWS], plain[MAX_ROWS];
    struct error err;
    struct mix_set sets[2];
    struct order a, b;
    make_sets(2, rows, shares, sets);
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        assert_ok(order_create_mixed(9, MIX_CONCAT, sets, 2, 4, 2, shuffle, &a, &err), &err);
        assert_ok(order_create(9, 71, 4, 2, shuffle, &b, &err), &err);
        for (int epoch = 0; epoch < 3; epoch++) {
            assert_int_equal(epoch_of(&a, epoch, mixed), 71);
            assert_int_equal(epoch_of(&b, epoch, plain), 71);
            assert_memory_equal(mixed, plain, 71 * sizeof *mixed);
        }
        order_free(&a);
        order_free(&b);
    }
    /* The orders of releases so far. */
    static const uint32_t known[] = {2, 3, 1, 8, 5, 7, 0, 6, 4, 9};
    assert_ok(order_create(42, 10, 2, 5, true, &b, &err), &err);
    assert_int_equal(epoch_of(&b, 1, plain), 10);
    assert_memory_equal(plain, known, sizeof known);
    order_free(&b);
}

static void impossible_mixtures_are_refused(void **state)
{
    (void)state;
    static const uint32_t rows[] = {1000000, 10};
    struct error err;
    struct mix_set sets[2];
    struct order order;
    make_sets(2, rows, (const double[]){1e-6, 1}, sets);
    assert_refused(order_create_mixed(1, MIX_INTERLEAVE_OVER, sets, 2, 1, 1, true, &order, &err), STATUS_DATA, &err, "weights");
    make_sets(2, rows, (const double[]){1, 1}, sets);
    assert_refused(order_create_mixed(1, MIX_INTERLEAVE_UNDER, sets, 2, 32, 1, true, &order, &err), STATUS_DATA, &err,
                   "20 rows, fewer than the 32 slots");
    for (long n = 0; n < 3; n++) {
        mem_fail_after(n, false);
        assert_refused(order_create_mixed(1, MIX_INTERLEAVE_UNDER, sets, 2, 2, 1, true, &order, &err), STATUS_NOMEM, &err, "no memory");
        mem_fail_after(-1, false);
        assert_int_equal(mem_live(), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_known), cmocka_unit_test(epochs_end_where_they_should),
        cmocka_unit_test(mixtures_keep_their_promises), cmocka_unit_test(sets_are_shuffled_anew),
        cmocka_unit_test(mixtures_do_not_depend_on_workers), cmocka_unit_test(concat_is_the_order_of_all_rows),
        cmocka_unit_test(impossible_mixtures_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
