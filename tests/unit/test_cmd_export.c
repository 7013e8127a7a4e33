/* `loar export` from a snapshot to a folder: the same weights, the files of the model folder, clear refusals. */
#include "tests/support/cmocka_all.h"

#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/commands.h"
#include "ps/snapshot.h"
#include "tests/support/scratch.h"
#include "worker/model/config.h"
#include "worker/model/import.h"

static struct error err;
static char base[SCRATCH_SIZE], snapshots[SCRATCH_SIZE + 16], out[SCRATCH_SIZE + 16];
static struct params table;
static float *values;

static const char config_json[] = "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"
                                  "\"num_attention_heads\":4,\"vocab_size\":100}";

static int make_snapshot(void **state)
{
    (void)state;
    if (!scratch_folder(base, "cmd-export"))
        return 1;
    snprintf(snapshots, sizeof snapshots, "%s/snapshots", base);
    snprintf(out, sizeof out, "%s/out", base);
    struct param w = {.name = "w", .n_dims = 2, .shape = {5, 7}, .init_std = 1}, n = {.name = "n", .n_dims = 1, .shape = {9}};
    if (params_add(&table, &w, NULL, &err) != STATUS_OK || params_add(&table, &n, NULL, &err) != STATUS_OK)
        return 1;
    values = mem_alloc((size_t)table.values, sizeof *values);
    params_initialise(&table, 3, values);
    const struct snapshot_text files[] = {{"config.json", config_json, strlen(config_json)},
                                          {"generation_config.json", "{\"eos_token_id\":7}", 18},
                                          {"tokenizer.json", "{\"x\":1}", 7}};
    struct snapshot_view view = {.table = &table, .values = values, .meta = {.step = 12}, .files = files, .n_files = 3};
    if (snapshot_write(snapshots, &view, NULL, &err) == STATUS_OK)
        return 0;
    print_error("%s\n", err.text);
    return 1;
}

static void drop(const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    assert_int_equal(unlink(path), 0);
    mem_free(path);
}

static int remove_all(void **state)
{
    (void)state;
    char name[SNAPSHOT_STRING_SIZE];
    snapshot_file_name(12, name);
    drop(snapshots, name);
    drop(snapshots, "latest");
    params_free(&table);
    mem_free(values);
    return rmdir(snapshots) || rmdir(base);
}

static int call(const char *snapshot, const char *dir, const char *option, const char *value)
{
    char *argv[] = {"export", (char *)snapshot, (char *)dir, (char *)option, (char *)value, NULL};
    int argc = 0;
    while (argv[argc])
        argc++;
    return cmd_export(argc, argv);
}

static void a_snapshot_becomes_a_folder(void **state)
{
    (void)state;
    char file[SNAPSHOT_STRING_SIZE], path[256];
    snapshot_file_name(12, file);
    snprintf(path, sizeof path, "%s/%s", snapshots, file);
    assert_int_equal(call(path, out, NULL, NULL), 0);
    struct model_config config;
    assert_ok(model_config_read(out, &config, &err), &err);
    assert_true(config.n_eos == 1 && config.eos[0] == 7);
    float again[64];
    assert_true(table.values <= 64);
    assert_ok(model_import(out, &config, &table, NULL, again, NULL, &err), &err);
    assert_memory_equal(again, values, (size_t)table.values * sizeof *values);
    char *tokenizer;
    size_t size;
    snprintf(path, sizeof path, "%s/tokenizer.json", out);
    assert_ok(file_read(path, &tokenizer, &size, &err), &err);
    assert_string_equal(tokenizer, "{\"x\":1}");
    mem_free(tokenizer);

    assert_int_equal(call(snapshots, out, NULL, NULL), status_exit_code(STATUS_USAGE)); /* not empty */
    assert_int_equal(call(snapshots, out, "--overwrite", "--dtype=bf16"), 0);
    assert_ok(model_import(out, &config, &table, NULL, again, NULL, &err), &err);
    for (int i = 0; i < 35; i++)
        assert_true(again[i] - values[i] <= 0x1p-8f * 4 && values[i] - again[i] <= 0x1p-8f * 4);
    assert_memory_not_equal(again, values, 35 * sizeof *values);
    drop(out, "config.json");
    drop(out, "generation_config.json");
    drop(out, "tokenizer.json");
    drop(out, "model.safetensors");
    assert_int_equal(rmdir(out), 0);
}

static void wrong_calls_are_refused(void **state)
{
    (void)state;
    const int usage = status_exit_code(STATUS_USAGE);
    assert_int_equal(call(NULL, NULL, NULL, NULL), usage);
    assert_int_equal(call(snapshots, NULL, NULL, NULL), usage);
    assert_int_equal(call(snapshots, out, "--dtype", "f16"), usage);
    assert_int_equal(call(snapshots, out, "--dtype", NULL), usage);
    assert_int_equal(call(snapshots, out, "--nonsense", NULL), usage);
    assert_int_equal(call(snapshots, out, "third", NULL), usage);
    assert_int_equal(call("no/such/file.h5", out, NULL, NULL), status_exit_code(STATUS_DATA));
    assert_int_equal(call("--help", NULL, NULL, NULL), 0);
    assert_false(folder_exists(out));
}

static void nothing_leaks_when_memory_is_short(void **state)
{
    (void)state;
    int n = 0;
    for (int status = -1; status != 0 && n < 2000; n++) {
        long live = mem_live();
        mem_fail_after(n, true);
        status = call(snapshots, out, NULL, NULL);
        mem_fail_after(-1, false);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 30 && n < 2000);
    drop(out, "config.json");
    drop(out, "generation_config.json");
    drop(out, "tokenizer.json");
    drop(out, "model.safetensors");
    assert_int_equal(rmdir(out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_becomes_a_folder),
        cmocka_unit_test(wrong_calls_are_refused),
        cmocka_unit_test(nothing_leaks_when_memory_is_short),
    };
    return cmocka_run_group_tests(tests, make_snapshot, remove_all);
}
