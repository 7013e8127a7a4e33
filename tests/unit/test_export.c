/* Exported folders: they read back bit for bit, sharded or not, and nothing half-written passes for a model. */
#include "tests/support/cmocka_all.h"

#include <math.h>
#include <unistd.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "tests/support/scratch.h"
#include "worker/model/config.h"
#include "worker/model/export.h"
#include "worker/model/import.h"

static struct error err;
static const char config_json[] = "{\"model_type\":\"llama\",\"torch_dtype\":\"float16\",\"rms_norm_eps\":1e-05,\"hidden_size\":64,"
                                  "\"intermediate_size\":96,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100,"
                                  "\"odd\":{\"list\":[1,2.5,\"\\u00e9\\n\",true,null],\"empty\":{},\"none\":[]}}";
static const struct export_file carried[] = {{"tokenizer.json", "{}", 2}, {"generation_config.json", "{\"eos_token_id\":3}", 18}};

static char *base; /* an empty folder; `folder` is to be made inside it */
static char *folder;

static int make_base(void **state)
{
    (void)state;
    static char name[SCRATCH_SIZE];
    base = scratch_folder(name, "export");
    folder = base ? path_join(base, "model") : NULL;
    return folder == NULL;
}

static int remove_base(void **state)
{
    (void)state;
    mem_free(folder);
    return rmdir(base);
}

static bool holds(const char *name)
{
    char *path = path_join(folder, name);
    bool there = file_exists(path);
    mem_free(path);
    return there;
}

static void drop(const char *name)
{
    char *path = path_join(folder, name);
    assert_int_equal(unlink(path), 0);
    mem_free(path);
}

/* role: of the middle tensor. */
static void make_model(struct params *table, enum param_role role, float **values)
{
    struct param a = {.name = "b.weight", .n_dims = 2, .shape = {5, 7}, .init = INIT_NORMAL, .init_std = 1};
    struct param b = {.name = "a.weight", .n_dims = 1, .shape = {20}, .role = role, .init = INIT_NORMAL, .init_std = 3};
    struct param c = {.name = "c.weight", .n_dims = 2, .shape = {2, 3}, .init = INIT_ONES};
    *table = (struct params){0};
    assert_ok(params_add(table, &a, NULL, &err), &err);
    assert_ok(params_add(table, &b, NULL, &err), &err);
    assert_ok(params_add(table, &c, NULL, &err), &err);
    *values = mem_alloc((size_t)params_room(table), sizeof **values);
    for (int i = 0; i < table->count; i++)
        param_initialise(&table->items[i], 7, *values + params_place(table, i));
}

static enum status export_with(const struct params *table, const float *values, enum safetensors_dtype dtype, bool overwrite,
                               int64_t shard_bytes)
{
    struct export_options options = {.dtype = dtype, .overwrite = overwrite, .shard_bytes = shard_bytes};
    return model_export(folder, config_json, strlen(config_json), carried, 2, table, values, &options, &err);
}

static void import_equals(const struct params *table, const float *values)
{
    struct model_config config;
    assert_ok(model_config_read(folder, &config, &err), &err);
    assert_true(config.norm_eps == 1e-5f && config.n_eos == 1 && config.eos[0] == 3);
    float *again = mem_alloc((size_t)table->values, sizeof *again);
    assert_ok(model_import(folder, &config, table, NULL, again, NULL, &err), &err);
    assert_memory_equal(again, values, (size_t)table->values * sizeof *again);
    mem_free(again);
}

static void check_config(const char *dtype)
{
    char *path = path_join(folder, "config.json");
    struct json *config, *original;
    assert_ok(json_read_file(path, &config, &err), &err);
    assert_ok(json_parse(config_json, strlen(config_json), "original", &original, &err), &err);
    assert_int_equal(json_count(config), json_count(original));
    assert_string_equal(json_to_string(json_member(config, "torch_dtype"), NULL), dtype);
    assert_true(json_to_real(json_member(config, "rms_norm_eps")) == 1e-5);
    const struct json *list = json_member(json_member(config, "odd"), "list");
    assert_int_equal(json_count(list), 5);
    assert_true(json_to_int(json_at(list, 0)) == 1 && json_to_real(json_at(list, 1)) == 2.5);
    assert_string_equal(json_to_string(json_at(list, 2), NULL), "\xc3\xa9\n");
    assert_true(json_to_bool(json_at(list, 3)) && json_kind(json_at(list, 4)) == JSON_KIND_NULL);
    assert_int_equal(json_kind(json_member(json_member(config, "odd"), "empty")), JSON_KIND_OBJECT);
    json_free(config);
    json_free(original);
    mem_free(path);
}

static void an_export_reads_back_bit_for_bit(void **state)
{
    (void)state;
    struct params table;
    float *values;
    make_model(&table, PARAM_TRAINED, &values);
    assert_ok(export_with(&table, values, SAFETENSORS_F32, false, 0), &err);
    assert_true(holds("tokenizer.json") && holds("model.safetensors") && !holds("model.safetensors.index.json"));
    import_equals(&table, values);
    check_config("float32");
    assert_refused(export_with(&table, values, SAFETENSORS_F32, false, 0), STATUS_USAGE, &err, "is not empty");

    /* Over it, in shards: the file of before would be read instead of them, so it must be gone. */
    assert_ok(export_with(&table, values, SAFETENSORS_F32, true, 150), &err);
    assert_true(!holds("model.safetensors") && holds("model.safetensors.index.json"));
    assert_true(holds("model-00001-of-00002.safetensors") && holds("model-00002-of-00002.safetensors"));
    import_equals(&table, values);

    /* And back to one file, as BF16: the values are those rounded. */
    assert_ok(export_with(&table, values, SAFETENSORS_BF16, true, 0), &err);
    assert_true(holds("model.safetensors") && !holds("model.safetensors.index.json"));
    assert_true(!holds("model-00001-of-00002.safetensors") && !holds("model-00002-of-00002.safetensors"));
    check_config("bfloat16");
    for (int64_t i = 0; i < table.values; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
        memcpy(&values[i], &bits, 4);
    }
    import_equals(&table, values);
    drop("model.safetensors");
    drop("config.json");
    drop("tokenizer.json");
    drop("generation_config.json");
    assert_int_equal(rmdir(folder), 0);
    mem_free(values);
    params_free(&table);
}

static void frozen_tensors_are_part_of_the_folder(void **state)
{
    (void)state;
    struct params table, all;
    float *values, *wanted;
    make_model(&all, PARAM_TRAINED, &wanted);
    make_model(&table, PARAM_FROZEN, &values);
    assert_true(table.frozen == 20 && params_room(&table) == all.values);
    assert_ok(export_with(&table, values, SAFETENSORS_F32, false, 0), &err);
    import_equals(&all, wanted);

    struct model_config config;
    struct import_options options = {.keep_frozen = true};
    struct import_report kept, checked, whole;
    float *again = mem_alloc((size_t)params_room(&table), sizeof *again);
    assert_ok(model_config_read(folder, &config, &err), &err);
    assert_ok(model_import(folder, &config, &table, &options, again, &kept, &err), &err);
    assert_memory_equal(again, values, (size_t)params_room(&table) * sizeof *again);
    memset(again, 0xFF, (size_t)params_room(&table) * sizeof *again);
    assert_ok(model_import(folder, &config, &table, NULL, again, &checked, &err), &err);
    assert_memory_equal(again, values, (size_t)table.values * sizeof *again);
    assert_true(again[table.values] != again[table.values]); /* what is not kept is left alone */
    assert_int_equal(strlen(kept.frozen_digest), 32);
    assert_string_equal(kept.frozen_digest, checked.frozen_digest);
    assert_ok(model_import(folder, &config, &all, NULL, again, &whole, &err), &err);
    assert_string_equal(whole.frozen_digest, "");

    values[table.values + 19] += 1;
    assert_ok(export_with(&table, values, SAFETENSORS_F32, true, 0), &err);
    assert_ok(model_import(folder, &config, &table, NULL, again, &kept, &err), &err);
    assert_string_not_equal(kept.frozen_digest, checked.frozen_digest);
    values[table.values] = NAN;
    assert_ok(export_with(&table, values, SAFETENSORS_F32, true, 0), &err);
    assert_refused(model_import(folder, &config, &table, NULL, again, &kept, &err), STATUS_NUMERIC, &err, "'a.weight' holds NaN at index 0");
    drop("model.safetensors");
    drop("config.json");
    drop("tokenizer.json");
    drop("generation_config.json");
    assert_int_equal(rmdir(folder), 0);
    mem_free(again);
    mem_free(values);
    mem_free(wanted);
    params_free(&table);
    params_free(&all);
}

static void bad_requests_are_refused(void **state)
{
    (void)state;
    struct params table;
    float *values;
    make_model(&table, PARAM_TRAINED, &values);
    struct export_options options = {.dtype = SAFETENSORS_F16};
    size_t size = strlen(config_json);
    assert_refused(model_export(folder, config_json, size, NULL, 0, &table, values, &options, &err), STATUS_USAGE, &err, "F16");
    options.dtype = SAFETENSORS_F32;
    assert_refused(model_export(folder, "[]", 2, NULL, 0, &table, values, &options, &err), STATUS_DATA, &err, "must be an object");
    static const char *const names[] = {"../x", "", ".x", "config.json", "model.safetensors", "model-1.safetensors",
                                        "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct export_file file = {names[i], "x", 1};
        assert_refused(model_export(folder, config_json, size, &file, 1, &table, values, &options, &err), STATUS_DATA, &err,
                       "cannot go along");
    }
    assert_false(folder_exists(folder));
    assert_ok(file_replace(folder, "x", 1, &err), &err);
    assert_refused(model_export(folder, config_json, size, NULL, 0, &table, values, &options, &err), STATUS_USAGE, &err,
                   "not a folder");
    unlink(folder);
    mem_free(values);
    params_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_export_reads_back_bit_for_bit),
        cmocka_unit_test(frozen_tensors_are_part_of_the_folder),
        cmocka_unit_test(bad_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, make_base, remove_base);
}
