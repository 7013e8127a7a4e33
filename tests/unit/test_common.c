/* The foundations: checksums, random numbers, slots, chunks, threads, files, JSON, allocation. */
#include "tests/support/cmocka_all.h"

#include "common/checksum.h"
#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/params.h"
#include "common/rng.h"
#include "common/slots.h"
#include "common/text.h"
#include "common/threads.h"
#include "tests/support/scratch.h"

static void crc32c_vectors(void **state)
{
    (void)state;
    assert_int_equal(crc32c("123456789", 9), 0xE3069283);
    unsigned char zeros[32] = {0};
    assert_int_equal(crc32c(zeros, 32), 0x8a9136aa);
    assert_int_equal(crc32c("", 0), 0);
}

static void philox_is_reference(void **state)
{
    (void)state;
    /* Known answer of Random123 for philox4x32-10 with counter 0 and key 0: 6627e8d5 e169c58d bc57ac4c 9b00dbd8. */
    assert_true(rng_u64(0, 0, 0) == 0xe169c58d6627e8d5u);
    double sum = 0, square = 0;
    for (int i = 0; i < 20000; i++) {
        double x = rng_normal(7, RNG_INIT, (uint64_t)i);
        sum += x;
        square += x * x;
    }
    assert_true(sum / 20000 < 0.03 && sum / 20000 > -0.03);
    assert_true(square / 20000 < 1.05 && square / 20000 > 0.95);
}

static void permutation_is_complete(void **state)
{
    (void)state;
    uint32_t order[100];
    bool seen[100] = {false};
    rng_permutation(3, RNG_SHUFFLE, 100, order);
    int moved = 0;
    for (uint32_t i = 0; i < 100; i++) {
        assert_false(seen[order[i]]);
        seen[order[i]] = true;
        moved += order[i] != i;
    }
    assert_true(moved > 80);
}

/* Sums a tree of strings, so that the shape itself can be compared. */
static void shape_of(struct slot_node node, int slots, struct text *out)
{
    if (node.level == 0) {
        text_printf(out, "%d", node.index);
        return;
    }
    struct slot_node left = {node.level - 1, node.index * 2};
    bool both = slot_node_has_right(node, slots);
    if (both)
        text_puts(out, "(");
    shape_of(left, slots, out);
    if (both) {
        text_puts(out, "+");
        shape_of((struct slot_node){node.level - 1, node.index * 2 + 1}, slots, out);
        text_puts(out, ")");
    }
}

static void slots_are_covered_once(void **state)
{
    (void)state;
    for (int slots = 1; slots <= 40; slots++)
        for (int workers = 1; workers <= slots; workers++) {
            int next = 0;
            for (int w = 0; w < workers; w++) {
                struct slot_range range = slots_of_worker(slots, workers, w);
                assert_int_equal(range.first, next);
                assert_true(range.count >= 1);
                struct slot_node nodes[SLOT_MAX_NODES];
                int n = slot_nodes_of_range(range, slots, nodes);
                for (int i = 0; i < n; i++) {
                    struct slot_range covered = slot_node_range(nodes[i], slots);
                    assert_int_equal(covered.first, next);
                    assert_true(covered.count >= 1);
                    next += covered.count;
                }
                assert_int_equal(next, range.first + range.count);
            }
            assert_int_equal(next, slots);
        }
    struct text shape = {0};
    shape_of((struct slot_node){slot_root_level(6), 0}, 6, &shape);
    assert_string_equal(shape.data, "(((0+1)+(2+3))+(4+5))");
    text_free(&shape);
}

static void params_and_chunks(void **state)
{
    (void)state;
    struct error err;
    struct params table = {0};
    struct param a = {.name = "a", .n_dims = 2, .shape = {3, 5}, .init = INIT_NORMAL, .init_std = 0.5f};
    struct param b = {.name = "b", .n_dims = 1, .shape = {7}, .init = INIT_ONES};
    struct param f = {.name = "f", .n_dims = 1, .shape = {9}, .role = PARAM_FROZEN};
    assert_ok(params_add(&table, &a, NULL, &err), &err);
    assert_ok(params_add(&table, &f, NULL, &err), &err);
    assert_ok(params_add(&table, &b, NULL, &err), &err);
    assert_refused(params_add(&table, &a, NULL, &err), STATUS_INTERNAL, &err, "twice");
    assert_int_equal(table.values, 32);
    assert_int_equal(table.trained, 22);
    assert_int_equal(table.frozen, 9);
    assert_int_equal(table.items[params_find(&table, "b")].offset, 16);
    assert_int_equal(params_at(&table, 15), 0);
    assert_int_equal(params_at(&table, 16), 2);
    struct param g = {.name = "g", .n_dims = 1, .shape = {3}, .role = PARAM_FROZEN};
    assert_ok(params_add(&table, &g, NULL, &err), &err);
    assert_int_equal(table.frozen_values, 32);
    assert_int_equal(params_room(&table), 64);
    assert_int_equal(params_place(&table, 0), 0);
    assert_int_equal(params_place(&table, 1), 32);
    assert_int_equal(params_place(&table, 2), 16);
    assert_int_equal(params_place(&table, 3), 48);
    char before[DIGEST_HEX_SIZE], after[DIGEST_HEX_SIZE];
    params_fingerprint(&table, before);
    snprintf(table.frozen_digest, sizeof table.frozen_digest, "something else");
    params_fingerprint(&table, after);
    assert_string_not_equal(before, after);
    float values[32];
    params_initialise(&table, 1, values);
    assert_true(values[15] == 0 && values[16] == 1 && values[0] != values[1]);
    struct chunks chunks = chunks_make(table.values, 20);
    assert_int_equal(chunks.count, 2);
    assert_int_equal(chunk_size(&chunks, 1), 12);
    params_free(&table);
}

static void count_task(void *context, int task, int thread)
{
    (void)thread;
    ((int *)context)[task]++;
}

static void threads_run_each_task_once(void **state)
{
    (void)state;
    struct error err;
    for (int n = 1; n <= 4; n++) {
        struct threads *pool;
        assert_ok(threads_create(n, &pool, &err), &err);
        for (int round = 0; round < 50; round++) {
            int hits[37] = {0};
            threads_run(pool, 37, count_task, hits);
            for (int i = 0; i < 37; i++)
                assert_int_equal(hits[i], 1);
        }
        threads_free(pool);
    }
}

static void files_replace_and_read(void **state)
{
    (void)state;
    struct error err;
    char folder[SCRATCH_SIZE];
    assert_non_null(scratch_folder(folder, "common"));
    char *deep = path_join(folder, "a/b/c");
    assert_ok(folder_make(deep, &err), &err);
    assert_true(folder_is_empty(deep));
    char *path = path_join(deep, "f");
    assert_ok(file_replace(path, "hello", 5, &err), &err);
    assert_ok(file_replace(path, "world!", 6, &err), &err);
    char *text;
    size_t size;
    assert_ok(file_read(path, &text, &size, &err), &err);
    assert_string_equal(text, "world!");
    mem_free(text);
    assert_false(folder_is_empty(deep));
    assert_refused(file_read(folder, &text, &size, &err), STATUS_DATA, &err, folder);
    mem_free(path);
    mem_free(deep);
    assert_int_equal(scratch_remove(folder), 0);
}

static void json_is_strict(void **state)
{
    (void)state;
    struct error err;
    struct json *v;
    const char *good = "{\"a\": [1, 2.5, \"x\\u0000y\"], \"b\": null}";
    assert_ok(json_parse(good, strlen(good), "t", &v, &err), &err);
    assert_int_equal(json_count(json_member(v, "a")), 3);
    size_t size;
    json_to_string(json_at(json_member(v, "a"), 2), &size);
    assert_int_equal(size, 3);
    int64_t n = 9;
    assert_ok(json_get_int(v, "b", "t", &n, &err), &err);
    assert_int_equal(n, 9);
    assert_refused(json_get_int(v, "a", "t", &n, &err), STATUS_DATA, &err, "'a' must be an integer, found an array");
    json_free(v);
    const char *bad[] = {"{\"a\":1,\"a\":2}", "{} x", "{\"a\":\"\xff\"}", "", "[1,]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refused(json_parse(bad[i], strlen(bad[i]), "rows:3", &v, &err), STATUS_DATA, &err, "rows:3");
}

static void allocation_faults_are_reported(void **state)
{
    (void)state;
    struct error err;
    const char *text = "{\"a\": [1, 2, {\"b\": \"c\"}]}";
    long before = mem_live();
    for (long n = 0;; n++) {
        struct json *v;
        mem_fail_after(n, false);
        enum status st = json_parse(text, strlen(text), "t", &v, &err);
        mem_fail_after(-1, false);
        if (st == STATUS_OK) {
            json_free(v);
            assert_true(n > 3);
            break;
        }
        assert_int_equal(st, STATUS_NOMEM);
        assert_int_equal(mem_live(), before);
    }
    assert_int_equal(mem_live(), before);
    assert_null(mem_alloc(SIZE_MAX / 2, 4));
}

static void arenas_join_blocks(void **state)
{
    (void)state;
    struct arena arena = {.block_bytes = 256};
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 20; i++) {
            char *p = arena_alloc(&arena, 10, 7);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 64, 0);
            memset(p, i, 70);
        }
        arena_reset(&arena);
    }
    arena_free(&arena);
}

static void errors_are_prefixed(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(error_set(&err, STATUS_DATA, "row %d", 7), STATUS_DATA);
    assert_int_equal(error_prefix(&err, "file %s", "a.jsonl"), STATUS_DATA);
    assert_string_equal(err.text, "file a.jsonl: row 7");
    for (int i = 0; i < 2000; i++)
        error_prefix(&err, "again");
    assert_int_equal(strlen(err.text), ERROR_TEXT_SIZE - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_prefixed),
        cmocka_unit_test(crc32c_vectors),
        cmocka_unit_test(philox_is_reference),
        cmocka_unit_test(permutation_is_complete),
        cmocka_unit_test(slots_are_covered_once),
        cmocka_unit_test(params_and_chunks),
        cmocka_unit_test(threads_run_each_task_once),
        cmocka_unit_test(files_replace_and_read),
        cmocka_unit_test(json_is_strict),
        cmocka_unit_test(allocation_faults_are_reported),
        cmocka_unit_test(arenas_join_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
