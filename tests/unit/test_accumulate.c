/* A worker's partial sums must have exactly the shape of the tree over all slots, for every node and chunking. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "common/rng.h"
#include "worker/train/accumulate.h"

enum { VALUES = 64 };

static float value_of(int slot, int i)
{
    return (float)(rng_normal(5, RNG_INIT, (uint64_t)(slot * VALUES + i)) * (slot % 3 ? 1e-3 : 1e4));
}

static float tree_sum(struct slot_node node, int slots, int i)
{
    if (node.level == 0)
        return value_of(node.index, i);
    float left = tree_sum((struct slot_node){node.level - 1, node.index * 2}, slots, i);
    if (!slot_node_has_right(node, slots))
        return left;
    return left + tree_sum((struct slot_node){node.level - 1, node.index * 2 + 1}, slots, i);
}

static void check_node(struct accumulator *acc, struct slot_node node, int slots)
{
    struct error err;
    struct slot_range covered = slot_node_range(node, slots);
    float *sum = NULL;
    for (int k = 0; k < covered.count; k++) {
        float *gradient;
        assert_ok(accumulator_begin(acc, k, covered.count, &gradient, &err), &err);
        /* Backward finishes from the end; positions need not meet chunk borders. */
        for (int i = VALUES - 1; i >= 0; i--) {
            gradient[i] = value_of(covered.first + k, i);
            if (i % 7 == 0) {
                int lowest = accumulator_advance(acc, i);
                assert_true(lowest * 10 >= i && (lowest - 1) * 10 < i);
            }
        }
        accumulator_end(acc, &sum);
        assert_true((sum != NULL) == (k == covered.count - 1));
    }
    for (int i = 0; i < VALUES; i++) {
        float wanted = tree_sum(node, slots, i);
        assert_memory_equal(&sum[i], &wanted, sizeof wanted);
    }
    accumulator_release(acc, sum);
}

static void sums_have_the_shape_of_the_tree(void **state)
{
    (void)state;
    struct error err;
    struct chunks chunks = chunks_make(VALUES, 10);
    for (int threads = 1; threads <= 3; threads++) {
        struct threads *pool;
        struct accumulator *acc;
        assert_ok(threads_create(threads, &pool, &err), &err);
        assert_ok(accumulator_create(&chunks, pool, &acc, &err), &err);
        for (int slots = 1; slots <= 19; slots++)
            for (int workers = 1; workers <= slots; workers++)
                for (int w = 0; w < workers; w++) {
                    struct slot_node nodes[SLOT_MAX_NODES];
                    int n = slot_nodes_of_range(slots_of_worker(slots, workers, w), slots, nodes);
                    for (int i = 0; i < n; i++)
                        check_node(acc, nodes[i], slots);
                }
        accumulator_free(acc);
        threads_free(pool);
    }
}

static void a_node_can_be_given_up(void **state)
{
    (void)state;
    struct error err;
    struct chunks chunks = chunks_make(VALUES, 10);
    struct threads *pool;
    struct accumulator *acc;
    assert_ok(threads_create(1, &pool, &err), &err);
    long before = mem_live();
    assert_ok(accumulator_create(&chunks, pool, &acc, &err), &err);
    float *gradient, *sum;
    for (int k = 0; k < 3; k++) {
        assert_ok(accumulator_begin(acc, k, 8, &gradient, &err), &err);
        memset(gradient, 0, VALUES * sizeof *gradient);
        if (k < 2)
            accumulator_end(acc, &sum);
    }
    accumulator_reset(acc);
    check_node(acc, (struct slot_node){2, 0}, 4);
    mem_fail_after(0, true);
    enum status st = STATUS_OK;
    for (int k = 0; k < 8 && st == STATUS_OK; k++) {
        st = accumulator_begin(acc, k, 8, &gradient, &err);
        if (st == STATUS_OK) {
            memset(gradient, 0, VALUES * sizeof *gradient);
            accumulator_end(acc, &sum);
        }
    }
    mem_fail_after(-1, false);
    assert_int_equal(st, STATUS_NOMEM);
    accumulator_free(acc);
    assert_int_equal(mem_live(), before);
    threads_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_have_the_shape_of_the_tree),
        cmocka_unit_test(a_node_can_be_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
