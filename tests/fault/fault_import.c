/* Reading and writing model folders while memory or disk runs out: every n-th allocation, every n-th system call and
 * every file size fails once; each time there is an error, nothing leaks, and nothing half-written is left that reads
 * as a model. */
#include "tests/support/cmocka_all.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "tests/support/fault_io.h"
#include "tests/support/scratch.h"
#include "worker/model/config.h"
#include "worker/model/export.h"
#include "worker/model/import.h"

static struct error err;
static char *base, *folder;
static struct params table;
static float *values, *again;
static struct model_config config;
static struct text config_text;
static const struct export_file carried[] = {{"tokenizer.json", "{\"model\":{}}", 12}};

static int make_all(void **state)
{
    (void)state;
    static char name[SCRATCH_SIZE];
    base = scratch_folder(name, "fault");
    folder = base ? path_join(base, "model") : NULL;
    config = (struct model_config){.width = 8, .hidden = 8, .layers = 1, .heads = 2, .kv_heads = 1, .head_dim = 4, .vocab = 20,
                                   .max_positions = 16, .norm_eps = 1e-6f, .rope_theta = 10000, .rope_factor = 1,
                                   .init_std = 0.02f, .bos = -1, .n_eos = 1, .eos = {2}};
    model_config_write(&config, "float32", &config_text);
    struct param items[] = {
        {.name = "w", .n_dims = 2, .shape = {40, 10}, .init_std = 1},
        {.name = "x", .n_dims = 2, .shape = {10, 40}, .init_std = 1},
        {.name = "n", .n_dims = 1, .shape = {10}, .init = INIT_ONES},
    };
    for (int i = 0; i < 3; i++)
        if (params_add(&table, &items[i], NULL, &err) != STATUS_OK)
            return 1;
    values = mem_alloc((size_t)table.values, sizeof *values);
    again = mem_alloc((size_t)table.values, sizeof *again);
    params_initialise(&table, 1, values);
    return !folder || config_text.failed;
}

static void empty_folder(void)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));)
        if (*e->d_name != '.') {
            char *path = path_join(folder, e->d_name);
            unlink(path);
            mem_free(path);
        }
    closedir(dir);
    rmdir(folder);
}

static int remove_all(void **state)
{
    (void)state;
    mem_free(folder);
    mem_free(values);
    mem_free(again);
    params_free(&table);
    text_free(&config_text);
    return rmdir(base);
}

static enum status do_export(enum safetensors_dtype dtype, int64_t shard_bytes)
{
    struct export_options options = {.dtype = dtype, .shard_bytes = shard_bytes};
    return model_export(folder, config_text.data, config_text.size, carried, 1, &table, values, &options, &err);
}

static enum status do_import(void)
{
    return model_import(folder, &config, &table, NULL, again, NULL, &err);
}

static enum status do_read_config(void)
{
    struct model_config c;
    return model_config_read(folder, &c, &err);
}

static enum status do_export_whole(void)
{
    return do_export(SAFETENSORS_BF16, 0);
}

static enum status do_export_shards(void)
{
    return do_export(SAFETENSORS_F32, 2000);
}

/* Fails the n-th allocation, for every n until the call has no more; at least `least` of them. A call that writes the
 * folder must leave nothing in it when it fails. */
static void walk_allocations(enum status (*call)(void), bool writes, int least)
{
    for (int persistent = 0; persistent < 2; persistent++) {
        enum status st = STATUS_NOMEM;
        int n = 0;
        if (writes)
            empty_folder();
        for (; st != STATUS_OK; n++) {
            long live = mem_live();
            mem_fail_after(n, persistent);
            st = call();
            mem_fail_after(-1, false);
            assert_int_equal(mem_live(), live);
            if (st != STATUS_OK && st != STATUS_NOMEM)
                fail_msg("allocation %d: %s: %s", n, status_name(st), err.text);
            assert_true(st == STATUS_OK || !writes || folder_is_empty(folder));
        }
        if (n <= least)
            fail_msg("only %d allocations were seen to fail, expected more than %d", n - 1, least);
    }
}

static void short_memory_is_an_error_everywhere(void **state)
{
    (void)state;
    walk_allocations(do_export_whole, true, 10);
    walk_allocations(do_import, false, 15);
    walk_allocations(do_read_config, false, 20);
    walk_allocations(do_export_shards, true, 15);
    walk_allocations(do_import, false, 20);
    assert_memory_equal(again, values, (size_t)table.values * sizeof *values);
    empty_folder();
}

/* No file may grow beyond `limit` bytes, as on a full disk. */
static void limit_files(rlim_t limit)
{
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
    r.rlim_cur = limit;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void walk_file_sizes(enum status (*call)(void))
{
    const long live = mem_live();
    int failures = 0;
    for (rlim_t limit = 0;; limit += 13) {
        limit_files(limit);
        enum status st = call();
        limit_files(RLIM_INFINITY);
        if (st == STATUS_OK)
            break;
        failures++;
        assert_int_equal(st, STATUS_IO);
        assert_non_null(strstr(err.text, "cannot write"));
        assert_true(folder_is_empty(folder));
    }
    assert_true(failures > 20);
    assert_int_equal(mem_live(), live);
    assert_int_equal(do_read_config(), STATUS_OK);
    assert_int_equal(do_import(), STATUS_OK);
    empty_folder();
}

static void a_full_disk_leaves_nothing_behind(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    walk_file_sizes(do_export_whole);
    walk_file_sizes(do_export_shards);
}

static void imports_the_same(void)
{
    assert_ok(do_read_config(), &err);
    memset(again, 0, (size_t)table.values * sizeof *again);
    assert_ok(do_import(), &err);
    assert_memory_equal(again, values, (size_t)table.values * sizeof *values);
}

/* Fails the n-th system call that writes, flushes, closes or renames, for every n. A write that took only half, and the
 * close of a file that was flushed already, may go well; then the folder must be right. */
static void walk_calls(int error, bool cut, bool persistent)
{
    const long live = mem_live();
    long n = 0, failures = 0;
    for (;; n++) {
        empty_folder();
        fault_io_arm(n, error, cut, persistent);
        enum status st = do_export_shards();
        const char *hit = fault_io_hit();
        fault_io_arm(-1, 0, false, false);
        if (st == STATUS_OK) {
            imports_the_same();
            if (!hit)
                break;
            if (!cut && strcmp(hit, "close"))
                fail_msg("call %ld, a failed %s, went unnoticed", n, hit);
            continue;
        }
        failures++;
        assert_int_equal(st, STATUS_IO);
        if (!strstr(err.text, strerror(error)))
            fail_msg("call %ld, %s: '%s' lacks '%s'", n, hit, err.text, strerror(error));
        assert_true(folder_is_empty(folder));
    }
    assert_int_equal(mem_live(), live);
    assert_true(failures > 20);
    empty_folder();
}

static void a_failing_disk_is_noticed_at_every_call(void **state)
{
    (void)state;
    walk_calls(EIO, false, false);
    walk_calls(ENOSPC, false, true);
    walk_calls(ENOSPC, true, true);
}

/* Overwriting that fails must not leave an old config.json beside other weights. */
static void a_failed_overwrite_is_no_model(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(do_export_whole(), STATUS_OK);
    struct export_options options = {.dtype = SAFETENSORS_F32, .overwrite = true};
    limit_files(1200);
    enum status st = model_export(folder, config_text.data, config_text.size, carried, 1, &table, values, &options, &err);
    limit_files(RLIM_INFINITY);
    assert_int_equal(st, STATUS_IO);
    assert_refused(do_read_config(), STATUS_DATA, &err, "holds no config.json");
    empty_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_memory_is_an_error_everywhere),
        cmocka_unit_test(a_full_disk_leaves_nothing_behind),
        cmocka_unit_test(a_failing_disk_is_noticed_at_every_call),
        cmocka_unit_test(a_failed_overwrite_is_no_model),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
