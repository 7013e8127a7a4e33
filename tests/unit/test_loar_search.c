/* The search for lists of layers against going through all of them: options that remain, the best lists within one and
 * several budgets, random lists, memory that runs short. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/memory.h"
#include "common/rng.h"
#include "worker/loar/search.h"

static struct error err;

static void assert_space(const int *windows, int n_windows, const double *shares, int n_shares, int heads, int longest,
                         const char *wanted)
{
    struct search_space space;
    char found[256] = "";
    search_space_make(windows, n_windows, shares, n_shares, heads, longest, &space);
    for (int i = 0; i < space.count; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%d/%g ", space.items[i].window, space.items[i].share);
    assert_string_equal(found, wanted);
}

static void spaces(void **state)
{
    (void)state;
    const int windows[] = {256, 1024, 0, 256};
    const double shares[] = {0.25, 0.5, 0.75, 1};
    assert_space(windows, 4, shares, 4, 8, 2000, "0/1 0/0.75 0/0.5 0/0.25 1024/1 1024/0.75 1024/0.5 1024/0.25 256/1 256/0.75 256/0.5 256/0.25 ");
    assert_space(windows, 3, shares, 1, 8, 1024, "0/1 0/0.25 256/1 256/0.25 ");  /* 1024 sees all of 1024 keys */
    assert_space(windows, 3, shares, 1, 8, 256, "0/1 0/0.25 ");
    assert_space(windows, 1, shares, 3, 2, 9999, "0/1 0/0.25 256/1 256/0.25 ");  /* one of two heads; 0.75 buys both */
    assert_space(windows, 0, shares, 0, 8, 9999, "0/1 ");
    assert_space(windows + 2, 1, shares, 4, 1, 9999, "0/1 ");
}

enum { MOST_LAYERS = 5, MOST_OPTIONS = 5 };

struct problem {
    struct search_problem p;
    double loss[MOST_LAYERS * MOST_OPTIONS], cost[MOST_OPTIONS];
};

/* Losses of both signs, some of them equal; some options as dear as a dense layer or dearer. */
static void draw_problem(uint64_t seed, struct problem *out)
{
    uint64_t n = 0;
    *out = (struct problem){.p = {.layers = 1 + (int)rng_below(seed, 1, n++, MOST_LAYERS), .options = 1 + (int)rng_below(seed, 1, n++, MOST_OPTIONS)}};
    for (int o = 0; o < out->p.options; o++)
        out->cost[o] = o ? 0.05 + 1.1 * rng_uniform(seed, 1, n++) : 1;
    for (int i = 0; i < out->p.layers * out->p.options; i++)
        out->loss[i] = i % out->p.options ? seed % 3 ? rng_normal(seed, 1, n++) : (double)rng_below(seed, 1, n++, 3) - 0.5 : 0;
    for (int o = 0; o < out->p.options; o++)
        out->cost[o] *= 7.25; /* any unit */
    out->p.loss = out->loss;
    out->p.cost = out->cost;
}

/* The list with this number, counting all there are; false behind the last. */
static bool list_of(const struct search_problem *p, int number, uint8_t *list)
{
    for (int i = 0; i < p->layers; i++) {
        list[i] = (uint8_t)(number % p->options);
        number /= p->options;
    }
    return number == 0;
}

static int cells_of(const struct search_problem *p, const uint8_t *list)
{
    int sum = 0;
    for (int i = 0; i < p->layers; i++)
        sum += search_option_cells(p, list[i]);
    return sum;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Losses of all lists that take at most so many cells, rising. */
static int all_losses(const struct search_problem *p, int cells, double *out)
{
    uint8_t list[MOST_LAYERS];
    int count = 0;
    for (int number = 0; list_of(p, number, list); number++)
        if (cells_of(p, list) <= cells)
            out[count++] = search_loss(p, list);
    qsort(out, (size_t)count, sizeof *out, by_value);
    return count;
}

static bool listed(const uint8_t *lists, int count, const uint8_t *list, int layers)
{
    for (int i = 0; i < count; i++)
        if (!memcmp(lists + i * layers, list, (size_t)layers))
            return true;
    return false;
}

static void one_budget(void **state)
{
    (void)state;
    static double all[3125];
    int with_all = 0, with_none = 0, cut = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct problem q;
        uint8_t lists[20 * MOST_LAYERS];
        int found;
        draw_problem(seed, &q);
        double budget = rng_uniform(seed, 2, 0);
        budget = seed % 7 ? budget : 1;
        int wanted = 1 + (int)rng_below(seed, 2, 1, 20), cells = (int)(budget * search_cells(&q.p) + 1e-9);
        assert_ok(search_candidates(&q.p, &budget, 1, wanted, lists, &found, &err), &err);
        int there = all_losses(&q.p, cells, all);
        assert_int_equal(found, there < wanted ? there : wanted);
        for (int i = 0; i < found; i++) {
            const uint8_t *list = lists + i * q.p.layers;
            assert_true(search_loss(&q.p, list) == all[i]);
            assert_true(cells_of(&q.p, list) <= cells);
            assert_true(search_cost(&q.p, list) <= budget + 1e-9);
            assert_false(listed(lists, i, list, q.p.layers));
        }
        with_all += found == there;
        with_none += found == 0;
        cut += found == wanted && found < there;
    }
    assert_true(with_all > 20 && with_none > 5 && cut > 100);
}

/* A dense model costs exactly 1, however many layers it has and whatever a layer costs. */
static void dense_fits(void **state)
{
    (void)state;
    for (int layers = 1; layers <= 200; layers++) {
        double budget = 1, cost[] = {0.1 + layers / 3.0, 1e9}, loss[400];
        uint8_t list[200];
        int found;
        for (int i = 0; i < 2 * layers; i++)
            loss[i] = i % 2 ? -1 : 0;
        struct search_problem p = {layers, 2, loss, cost};
        assert_ok(search_candidates(&p, &budget, 1, 1, list, &found, &err), &err);
        assert_int_equal(found, 1);
        for (int i = 0; i < layers; i++)
            assert_int_equal(list[i], 0);
        assert_true(fabs(search_cost(&p, list) - 1) < 1e-12);
        assert_true(search_cells(&p) >= 64 * layers && search_option_cells(&p, 0) * layers == search_cells(&p));
    }
}

/* The best of each budget, then the second of each: those that one budget alone would give, and none twice. */
static void several_budgets(void **state)
{
    (void)state;
    int shared = 0;
    for (uint64_t seed = 1000; seed < 1200; seed++) {
        struct problem q;
        const double budgets[] = {0.8, 0.7, 0.6};
        uint8_t lists[9 * MOST_LAYERS], alone[3][9 * MOST_LAYERS], wanted[9 * MOST_LAYERS];
        int found, counts[3], count = 0;
        draw_problem(seed, &q);
        int layers = q.p.layers;
        for (int b = 0; b < 3; b++)
            assert_ok(search_candidates(&q.p, &budgets[b], 1, 9, alone[b], &counts[b], &err), &err);
        for (int rank = 0; rank < 9; rank++)
            for (int b = 0; b < 3 && count < 9; b++) {
                const uint8_t *list = alone[b] + rank * layers;
                if (rank >= counts[b])
                    continue;
                if (listed(wanted, count, list, layers))
                    shared++;
                else
                    memcpy(wanted + count++ * layers, list, (size_t)layers);
            }
        assert_ok(search_candidates(&q.p, budgets, 3, 9, lists, &found, &err), &err);
        assert_int_equal(found, count);
        assert_memory_equal(lists, wanted, (size_t)(count * layers));
    }
    assert_true(shared > 100);
}

static void random_lists(void **state)
{
    (void)state;
    const double cost[] = {4, 3, 2, 1}, loss[4 * 12] = {0};
    struct search_problem p = {12, 4, loss, cost};
    uint8_t list[12], again[12], other[12];
    int seen[4] = {0};
    for (uint64_t i = 0; i < 500; i++) {
        double budget = 0.35 + 0.6 * rng_uniform(9, 3, i); /* from rarely to hardly ever met by drawing alone */
        assert_true(search_draw(&p, budget, 0.9 * budget, 7, i, list));
        assert_true(search_cost(&p, list) <= budget && search_cost(&p, list) >= 0.9 * budget);
        assert_true(search_draw(&p, budget, 0.9 * budget, 7, i, again));
        assert_memory_equal(list, again, sizeof list);
        assert_true(search_draw(&p, budget, 0.9 * budget, 7, i + 1, again) && search_draw(&p, budget, 0.9 * budget, 8, i, other));
        assert_false(!memcmp(list, again, sizeof list) && !memcmp(list, other, sizeof list));
        for (int k = 0; k < 12; k++)
            seen[list[k]]++;
    }
    for (int o = 0; o < 4; o++)
        assert_true(seen[o] > 500); /* 1500 on average */
    assert_false(search_draw(&p, 0.2, 0.1, 7, 0, list)); /* the cheapest list costs 0.25 */
    p.layers = 1;
    assert_false(search_draw(&p, 0.95, 0.9, 7, 0, list)); /* 0.75 or 1 */
    assert_true(search_draw(&p, 1, 0.9, 7, 0, list));
    assert_int_equal(list[0], 0);
}

static void short_memory(void **state)
{
    (void)state;
    struct problem q;
    draw_problem(5, &q);
    const double budget = 0.9;
    uint8_t lists[4 * MOST_LAYERS];
    int found, n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        long live = mem_live();
        mem_fail_after(n, false);
        st = search_candidates(&q.p, &budget, 1, 4, lists, &found, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        assert_int_equal(mem_live(), live);
    }
    assert_int_equal(n, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spaces),          cmocka_unit_test(one_budget),   cmocka_unit_test(dense_fits),
        cmocka_unit_test(several_budgets), cmocka_unit_test(random_lists), cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
