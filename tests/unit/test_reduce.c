/* The server's half of the summation tree: whatever the spread over workers, the same bits; buffers are bounded,
 * reused and never lost; wrong node sums are refused. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/memory.h"
#include "common/rng.h"
#include "ps/reduce.h"

enum { VALUES = 37, MAX_SLOTS = 24 };

static float slot_sums[MAX_SLOTS][VALUES];

/* Values whose sums depend on the order: magnitudes from denormals to 2^100, both signs, zeros of both signs. */
static void fill_nasty(void)
{
    for (int s = 0; s < MAX_SLOTS; s++)
        for (int i = 0; i < VALUES; i++) {
            uint64_t bits = rng_u64(11, (uint64_t)s, (uint64_t)i);
            float mantissa = 1 + (float)(bits & 0x7fffff) / 8388608.0f;
            int exponent = i % 4 == 0 ? (int)(bits >> 32) % 3 : (int)((bits >> 32) % 240) - 140;
            float value = i % 11 == 10 ? 0.0f : ldexpf(mantissa, exponent);
            slot_sums[s][i] = bits >> 63 ? -value : value;
        }
}

/* The definition, by recursion over halves of the next power of two. False: the node is empty. */
static bool sum_by_definition(int first, int width, int slots, float *out)
{
    if (first >= slots)
        return false;
    if (width == 1) {
        memcpy(out, slot_sums[first], sizeof slot_sums[first]);
        return true;
    }
    float right[VALUES];
    sum_by_definition(first, width / 2, slots, out);
    if (sum_by_definition(first + width / 2, width / 2, slots, right))
        for (int i = 0; i < VALUES; i++)
            out[i] = out[i] + right[i];
    return true;
}

static void root_by_definition(int slots, float *out)
{
    int width = 1;
    while (width < slots)
        width *= 2;
    sum_by_definition(0, width, slots, out);
}

/* What a worker sends for the node that covers `range`: its own sum by the same rule. */
static void push_node(struct reduce *r, struct slot_node node, int slots)
{
    struct error err;
    float *buffer = NULL;
    assert_ok(buffer_pool_take(r->pool, &buffer, &err), &err);
    assert_non_null(buffer);
    assert_int_equal((uintptr_t)buffer % 64, 0);
    assert_true(sum_by_definition(node.index << node.level, 1 << node.level, slots, buffer));
    assert_int_equal(reduce_expects(r), node.index << node.level);
    assert_false(reduce_complete(r));
    assert_null(reduce_take(r));
    assert_ok(reduce_push(r, node, buffer, &err), &err);
}

static void push_range(struct reduce *r, struct slot_range range, int slots)
{
    struct slot_node nodes[SLOT_MAX_NODES];
    int count = slot_nodes_of_range(range, slots, nodes);
    for (int n = 0; n < count; n++)
        push_node(r, nodes[n], slots);
}

static void check_root(struct reduce *r, const float *wanted)
{
    assert_true(reduce_complete(r));
    assert_int_equal(reduce_expects(r), r->slots);
    float *root = reduce_take(r);
    assert_non_null(root);
    assert_memory_equal(root, wanted, VALUES * sizeof(float));
    assert_false(reduce_complete(r));
    buffer_pool_give(r->pool, root);
    assert_int_equal(buffer_pool_in_use(r->pool), 0);
}

static void any_number_of_workers(void **state)
{
    (void)state;
    struct error err;
    long before = mem_live();
    for (int slots = 1; slots <= MAX_SLOTS; slots++) {
        float wanted[VALUES];
        root_by_definition(slots, wanted);
        struct buffer_pool *pool;
        int bound = slot_root_level(slots) + 1;
        assert_ok(buffer_pool_create(VALUES, 0, bound, &pool, &err), &err);
        struct reduce r = {0};
        for (int workers = 1; workers <= slots; workers++) {
            reduce_begin(&r, pool, VALUES, slots);
            for (int w = 0; w < workers; w++)
                push_range(&r, slots_of_worker(slots, workers, w), slots);
            check_root(&r, wanted);
        }
        assert_true(buffer_pool_peak(pool) <= bound);
        buffer_pool_free(pool);
    }
    assert_int_equal(mem_live(), before);
}

static void every_cut_into_ranges(void **state)
{
    (void)state;
    struct error err;
    struct buffer_pool *pool;
    assert_ok(buffer_pool_create(VALUES, 100, 5, &pool, &err), &err);
    struct reduce r = {0};
    for (int slots = 1; slots <= 11; slots++) {
        float wanted[VALUES];
        root_by_definition(slots, wanted);
        for (unsigned cuts = 0; cuts < 1u << (slots - 1); cuts++) {
            reduce_begin(&r, pool, VALUES, slots);
            for (int first = 0, end = 1; end <= slots; end++)
                if (end == slots || (cuts >> (end - 1) & 1)) {
                    push_range(&r, (struct slot_range){first, end - first}, slots);
                    first = end;
                }
            check_root(&r, wanted);
        }
    }
    buffer_pool_free(pool);
}

static void order_does_matter_here(void **state)
{
    (void)state;
    float wanted[VALUES], left_to_right[VALUES];
    root_by_definition(MAX_SLOTS, wanted);
    memcpy(left_to_right, slot_sums[0], sizeof left_to_right);
    for (int s = 1; s < MAX_SLOTS; s++)
        reduce_add(left_to_right, slot_sums[s], VALUES);
    assert_memory_not_equal(wanted, left_to_right, sizeof wanted);
}

static void wrong_nodes_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct buffer_pool *pool;
    assert_ok(buffer_pool_create(VALUES, 0, 4, &pool, &err), &err);
    struct reduce r = {0};
    static const struct slot_node wrong[] = {{0, 2}, {0, 0}, {1, 0}, {3, 0}, {4, 0}, {-1, 0}, {0, -1}, {0, 6}, {1, 3},
                                             {70, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        reduce_begin(&r, pool, VALUES, 6);
        push_node(&r, (struct slot_node){0, 0}, 6);
        float *buffer;
        assert_ok(buffer_pool_take(pool, &buffer, &err), &err);
        assert_int_equal(reduce_push(&r, wrong[i], buffer, &err), STATUS_PEER);
        assert_int_equal(buffer_pool_in_use(pool), 1);
        assert_int_equal(reduce_expects(&r), 1);
    }
    reduce_drop(&r);
    reduce_begin(&r, pool, VALUES, 6);
    push_node(&r, (struct slot_node){3, 0}, 6);
    float *late;
    assert_ok(buffer_pool_take(pool, &late, &err), &err);
    assert_refused(reduce_push(&r, (struct slot_node){0, 5}, late, &err), STATUS_PEER, &err, "slot 6 on was due");
    assert_true(reduce_complete(&r));
    reduce_drop(&r);
    assert_int_equal(buffer_pool_in_use(pool), 0);
    buffer_pool_free(pool);
}

static void pool_is_bounded_and_reuses(void **state)
{
    (void)state;
    struct error err;
    struct buffer_pool *pool;
    long before = mem_live();
    assert_refused(buffer_pool_create(0, 0, 1, &pool, &err), STATUS_INTERNAL, &err, "no sense");
    assert_ok(buffer_pool_create(100, 40, 2, &pool, &err), &err);
    float *a, *b, *c;
    assert_ok(buffer_pool_take(pool, &a, &err), &err);
    memset((char *)a - 40, 1, 40 + 100 * sizeof(float));
    assert_ok(buffer_pool_take(pool, &b, &err), &err);
    assert_false(buffer_pool_has_room(pool));
    assert_ok(buffer_pool_take(pool, &c, &err), &err);
    assert_null(c);
    buffer_pool_give(pool, c);
    buffer_pool_give(pool, a);
    assert_true(buffer_pool_has_room(pool));
    long live = mem_live();
    assert_ok(buffer_pool_take(pool, &c, &err), &err);
    assert_ptr_equal(c, a);
    assert_int_equal(mem_live(), live);
    buffer_pool_give(pool, b);
    buffer_pool_give(pool, c);
    assert_int_equal(buffer_pool_peak(pool), 2);
    buffer_pool_free(pool);
    buffer_pool_free(NULL);
    assert_int_equal(mem_live(), before);
}

static void short_memory(void **state)
{
    (void)state;
    struct error err;
    long before = mem_live();
    int failures = 0;
    for (long n = 0; n < 10; n++) {
        struct buffer_pool *pool = NULL;
        float *buffer = NULL;
        mem_fail_after(n, false);
        enum status status = buffer_pool_create(16, 0, 2, &pool, &err);
        if (status == STATUS_OK) {
            status = buffer_pool_take(pool, &buffer, &err);
            if (status != STATUS_OK) {
                assert_null(buffer);
                assert_int_equal(buffer_pool_in_use(pool), 0);
            }
        }
        mem_fail_after(-1, false);
        failures += status == STATUS_NOMEM;
        if (pool) {
            buffer_pool_give(pool, buffer);
            buffer_pool_free(pool);
        }
        assert_int_equal(mem_live(), before);
    }
    assert_int_equal(failures, 3);
}

int main(void)
{
    fill_nasty();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_workers),      cmocka_unit_test(every_cut_into_ranges),
        cmocka_unit_test(order_does_matter_here),     cmocka_unit_test(wrong_nodes_are_refused),
        cmocka_unit_test(pool_is_bounded_and_reuses), cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
