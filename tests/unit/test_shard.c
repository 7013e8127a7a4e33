/* Chunk storage and the cut into shards. */
#include "tests/support/cmocka_all.h"

#include "common/checksum.h"
#include "common/memory.h"
#include "ps/shard.h"

static const char *const names[] = {"exp_avg", "exp_avg_sq"};

static void storage(void **state)
{
    (void)state;
    struct error err;
    long before = mem_live();
    struct chunks chunks = chunks_make(208, 64);
    struct shard *shard;
    assert_ok(shard_create(&chunks, 2, names, &shard, &err), &err);
    assert_int_equal((uintptr_t)shard->parameters % 64, 0);
    assert_int_equal(shard_state(shard, "exp_avg"), 0);
    assert_int_equal(shard_state(shard, "exp_avg_sq"), 1);
    assert_int_equal(shard_state(shard, "momentum_buffer"), -1);
    for (int i = 0; i < 208; i++) {
        assert_true(shard->parameters[i] == 0 && shard->states[0][i] == 0 && shard->states[1][i] == 0);
        shard->parameters[i] = (float)i;
        shard->states[1][i] = 1;
    }
    assert_int_equal(chunk_crc32c(&chunks, 1, shard->parameters), crc32c(shard->parameters + 64, 256));
    assert_int_equal(chunk_crc32c(&chunks, 3, shard->parameters), crc32c(shard->parameters + 192, 64));
    shard_reset_states(shard);
    assert_true(shard->parameters[207] == 207 && shard->states[1][0] == 0 && shard->states[1][207] == 0);
    shard_free(shard);
    shard_free(NULL);
    assert_int_equal(mem_live(), before);
}

static void bad_storage_is_refused(void **state)
{
    (void)state;
    struct error err;
    struct shard *shard;
    struct chunks nothing = chunks_make(0, 64), odd = chunks_make(208, 65);
    assert_refused(shard_create(&nothing, 2, names, &shard, &err), STATUS_USAGE, &err, "nothing to train");
    assert_refused(shard_create(&odd, 2, names, &shard, &err), STATUS_USAGE, &err, "multiples of 16");
    struct chunks chunks = chunks_make(208, 64);
    assert_refused(shard_create(&chunks, 5, names, &shard, &err), STATUS_INTERNAL, &err, "at most 4");
}

static void short_memory(void **state)
{
    (void)state;
    struct error err;
    struct chunks chunks = chunks_make(208, 64);
    long before = mem_live();
    for (long n = 0; n < 4; n++) {
        struct shard *shard;
        mem_fail_after(n, false);
        assert_refused(shard_create(&chunks, 2, names, &shard, &err), STATUS_NOMEM, &err, "no memory");
        mem_fail_after(-1, false);
        assert_int_equal(mem_live(), before);
    }
    struct shard *shard;
    mem_fail_after(4, false);
    assert_ok(shard_create(&chunks, 2, names, &shard, &err), &err);
    mem_fail_after(-1, false);
    shard_free(shard);
}

/* Smallest possible weight of the heaviest of `shards` consecutive ranges of chunks [first, count), by trying all. */
static int64_t lightest_plan(const struct chunks *chunks, int first, int shards)
{
    int64_t best = INT64_MAX, weight = 0;
    if (shards == 1) {
        for (int c = first; c < chunks->count; c++)
            weight += chunk_size(chunks, c);
        return weight;
    }
    for (int end = first + 1; end <= chunks->count - (shards - 1); end++) {
        weight += chunk_size(chunks, end - 1);
        int64_t rest = lightest_plan(chunks, end, shards - 1);
        int64_t heaviest = weight > rest ? weight : rest;
        if (heaviest < best)
            best = heaviest;
    }
    return best;
}

static void plans_are_balanced(void **state)
{
    (void)state;
    struct error err;
    for (int64_t values = 16; values <= 640; values += 16) {
        struct chunks chunks = chunks_make(values, 64);
        for (int shards = 1; shards <= chunks.count; shards++) {
            struct shard_range plan[16];
            assert_ok(shards_plan(&chunks, shards, plan, &err), &err);
            int next = 0;
            int64_t heaviest = 0;
            for (int s = 0; s < shards; s++) {
                int64_t weight = 0;
                assert_int_equal(plan[s].first, next);
                assert_true(plan[s].count >= 1);
                for (int c = 0; c < plan[s].count; c++)
                    weight += chunk_size(&chunks, next++);
                if (weight > heaviest)
                    heaviest = weight;
            }
            assert_int_equal(next, chunks.count);
            assert_int_equal(heaviest, lightest_plan(&chunks, 0, shards));
        }
    }
    struct chunks chunks = chunks_make(128, 64);
    struct shard_range plan[3];
    assert_refused(shards_plan(&chunks, 3, plan, &err), STATUS_USAGE, &err, "1 to 2 servers");
    assert_refused(shards_plan(&chunks, 0, plan, &err), STATUS_USAGE, &err, "ps.servers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storage),
        cmocka_unit_test(bad_storage_is_refused),
        cmocka_unit_test(short_memory),
        cmocka_unit_test(plans_are_balanced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
