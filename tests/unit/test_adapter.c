/* Folders of adapters: what is written reads back bit for bit, what is not plain LoRA of known maps is refused by name, and no
 * half of one is left or taken for a whole. */
#include "tests/support/cmocka_all.h"

#include <math.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "tests/support/scratch.h"
#include "worker/model/adapter.h"
#include "worker/model/model.h"
#include "worker/model/safetensors.h"

static struct error err;
static char *base, *folder; /* an empty folder; `folder` is to be made inside it */
static bool tied; /* of the models to come */
static char *modules[] = {"norm,lm_head"};

static const struct training training = {
    .kind = TRAIN_ADAPTERS, .modules = {modules, 1},
    .lora = {.rank = 3, .alpha = 4.5, .dropout = 0.25, .rslora = true, .targets = 1 << LORA_Q | 1 << LORA_DOWN}};

static int make_base(void **state)
{
    (void)state;
    static char name[SCRATCH_SIZE];
    base = scratch_folder(name, "adapter");
    folder = base ? path_join(base, "adapter") : NULL;
    return folder == NULL;
}

static int remove_base(void **state)
{
    (void)state;
    mem_free(folder);
    return rmdir(base);
}

static void drop_all(void)
{
    static const char *const names[] = {"adapter_config.json", "adapter_model.safetensors", "loar_config.json", "config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_join(folder, names[i]);
        unlink(path);
        mem_free(path);
    }
    rmdir(folder);
}

static void make_model(const struct training *t, struct params *table, float **values)
{
    struct model_config config = {.type = MODEL_QWEN2, .width = 16, .hidden = 24, .layers = 2, .heads = 2, .kv_heads = 1, .head_dim = 8,
                                  .vocab = 30, .max_positions = 64, .norm_eps = 1e-5f, .rope_theta = 1e4, .rope_factor = 1, .qkv_bias = true,
                                  .init_std = 0.1f, .bos = -1, .tied = tied, .training = *t};
    *table = (struct params){0};
    assert_ok(model_params(&config, table, &err), &err);
    *values = mem_alloc_aligned((size_t)params_room(table), sizeof **values);
    for (int i = 0; i < table->count; i++) {
        struct param p = table->items[i];
        p.init = INIT_UNIFORM, p.init_std = 1;
        param_initialise(&p, 9, *values + params_place(table, i));
    }
}

static void write_sample(void)
{
    struct params table;
    float *values;
    make_model(&training, &table, &values);
    assert_ok(adapter_write(folder, &training, "the/base", NULL, 0, &table, values, &(struct export_options){.dtype = SAFETENSORS_F32}, &err), &err);
    mem_free_aligned(values);
    params_free(&table);
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    struct params table, again;
    struct adapter adapter;
    float *values, *found;
    make_model(&training, &table, &values);
    assert_false(adapter_is_folder(folder));
    write_sample();
    assert_true(adapter_is_folder(folder));
    assert_ok(adapter_read_config(folder, &adapter, &err), &err);
    assert_string_equal(adapter.base, "the/base");
    const struct lora *lora = &adapter.training.lora;
    assert_true(lora->rank == 3 && lora->alpha == 4.5 && lora->dropout == 0.25 && lora->rslora && lora->targets == training.lora.targets);
    assert_int_equal(adapter.training.modules.count, 2); /* in the order of the model */
    assert_string_equal(adapter.training.modules.items[0], "model.norm");
    make_model(&adapter.training, &again, &found);
    memset(found, 0, (size_t)again.values * sizeof *found);
    assert_int_equal(again.values, table.values);
    assert_ok(adapter_read(folder, &again, found, &err), &err);
    for (int i = 0; i < table.count; i++)
        if (table.items[i].role == PARAM_TRAINED)
            assert_memory_equal(found + again.items[i].offset, values + table.items[i].offset, (size_t)table.items[i].size * sizeof *found);
    assert_refused(adapter_write(folder, &training, "b", NULL, 0, &table, values, &(struct export_options){.dtype = SAFETENSORS_F32}, &err),
                   STATUS_USAGE, &err, "is not empty");
    adapter_free(&adapter);
    mem_free_aligned(values), mem_free_aligned(found);
    params_free(&table), params_free(&again);
    drop_all();
}

static void put_config(const char *text)
{
    char *path = path_join(folder, "adapter_config.json");
    assert_ok(folder_make(folder, &err), &err);
    assert_ok(file_replace(path, text, strlen(text), &err), &err);
    mem_free(path);
}

static void other_configurations_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *wanted;
    } bad[] = {
        {"[]", "must be an object, found"},
        {"{", "adapter_config.json"},
        {"{\"peft_type\":\"IA3\"}", "peft_type is 'IA3' and bias 'none'; LORA and none"},
        {"{\"peft_type\":\"LORA\",\"bias\":\"all\"}", "bias 'all'"},
        {"{\"peft_type\":\"LORA\",\"use_dora\":true}", "'use_dora' is set: only plain LoRA is understood"},
        {"{\"peft_type\":\"LORA\",\"rank_pattern\":{\"q_proj\":4}}", "'rank_pattern' is set"},
        {"{\"peft_type\":\"LORA\",\"layers_to_transform\":[1]}", "'layers_to_transform' is set"},
        {"{\"peft_type\":\"LORA\",\"r\":0}", "r is 0, lora_alpha 8"},
        {"{\"peft_type\":\"LORA\",\"r\":\"8\"}", "r"},
        {"{\"peft_type\":\"LORA\",\"lora_dropout\":1}", "lora_dropout 1"},
        {"{\"peft_type\":\"LORA\"}", "target_modules is missing"},
        {"{\"peft_type\":\"LORA\",\"target_modules\":7}", "'target_modules' must be a list of names"},
        {"{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\",1]}", "'target_modules' must be a list of names"},
        {"{\"peft_type\":\"LORA\",\"target_modules\":[\"c_attn\"]}", "no linear map of a layer is called 'c_attn'"},
        {"{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\"],\"base_model_name_or_path\":3}", "base_model_name_or_path"},
    };
    struct adapter adapter;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        long before = mem_live();
        put_config(bad[i].text);
        assert_refused(adapter_read_config(folder, &adapter, &err), STATUS_DATA, &err, bad[i].wanted);
        assert_non_null(strstr(err.text, "adapter_config.json"));
        assert_int_equal(mem_live(), before);
    }
    put_config("{\"peft_type\":\"LORA\",\"target_modules\":\"all-linear\",\"rank_pattern\":{},\"modules_to_save\":null,\"use_dora\":false}");
    assert_ok(adapter_read_config(folder, &adapter, &err), &err);
    assert_int_equal(adapter.training.lora.targets, (1 << LORA_MODULES) - 1);
    assert_true(adapter.base == NULL && adapter.training.lora.alpha == 8 && adapter.training.modules.count == 0);
    adapter_free(&adapter);
    drop_all();
    assert_refused(adapter_read_config(folder, &adapter, &err), STATUS_DATA, &err, "adapter_config.json");
}

static void expect_refusal(const struct training *t, enum status status, const char *wanted)
{
    struct params table;
    float *values;
    make_model(t, &table, &values);
    assert_refused(adapter_read(folder, &table, values, &err), status, &err, wanted);
    mem_free_aligned(values);
    params_free(&table);
}

/* PEFT is given tied embeddings twice, and must not have changed one of them. */
static void tied_embeddings_stay_tied(void **state)
{
    (void)state;
    static char *embedding[] = {"embed_tokens"};
    struct training t = training;
    struct params table, again;
    struct adapter adapter;
    float *values, *found;
    t.modules = (struct words){embedding, 1};
    tied = true;
    make_model(&t, &table, &values);
    assert_ok(adapter_write(folder, &t, "b", NULL, 0, &table, values, &(struct export_options){.dtype = SAFETENSORS_F32}, &err), &err);
    assert_ok(adapter_read_config(folder, &adapter, &err), &err);
    assert_int_equal(adapter.training.modules.count, 2);
    make_model(&adapter.training, &again, &found);
    memset(found, 0, (size_t)again.values * sizeof *found);
    assert_ok(adapter_read(folder, &again, found, &err), &err);
    int at = params_find(&table, "model.embed_tokens.weight");
    assert_memory_equal(found + again.items[at].offset, values + table.items[at].offset, (size_t)table.items[at].size * sizeof *found);

    struct safetensors *set;
    struct safetensors_tensor tensors[64];
    float *all[64];
    char *path = path_join(folder, "adapter_model.safetensors");
    assert_ok(safetensors_open(path, &set, &err), &err);
    size_t count = safetensors_count(set);
    for (size_t i = 0; i < count; i++) { /* the same, but for one value of the copy */
        const struct safetensors_entry *e = safetensors_at(set, i);
        all[i] = test_malloc((size_t)e->count * sizeof **all);
        assert_ok(safetensors_to_float(e, all[i], &err), &err);
        all[i][0] += !strcmp(e->name, "base_model.model.lm_head.weight");
        tensors[i] = (struct safetensors_tensor){e->name, SAFETENSORS_F32, e->n_dims, e->shape, all[i]};
    }
    assert_ok(safetensors_write(path, tensors, count, &err), &err);
    safetensors_close(set);
    for (size_t i = 0; i < count; i++)
        test_free(all[i]);
    assert_refused(adapter_read(folder, &again, found, &err), STATUS_DATA, &err, "lm_head.weight', which differs from embed_tokens");
    mem_free(path);
    adapter_free(&adapter);
    mem_free_aligned(values), mem_free_aligned(found);
    params_free(&table), params_free(&again);
    tied = false;
    drop_all();
}

static void other_tensors_are_refused(void **state)
{
    (void)state;
    struct training other = training;
    expect_refusal(&training, STATUS_DATA, "adapter_model.safetensors");
    write_sample();
    other.lora.rank = 2;
    expect_refusal(&other, STATUS_DATA, "tensor 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight' has the shape [3, 16], "
                                        "adapter_config.json and the model ask for [2, 16]");
    other = training;
    other.lora.targets |= 1 << LORA_UP;
    expect_refusal(&other, STATUS_DATA, "lacks the tensor 'base_model.model.model.layers.0.mlp.up_proj.lora_A.weight'");
    other.lora.targets = 1 << LORA_Q;
    expect_refusal(&other, STATUS_DATA, "holds the tensor 'base_model.model.model.layers.0.mlp.down_proj.lora_A.weight', which is no adapter");
    drop_all();
    struct params table;
    float *values;
    make_model(&training, &table, &values);
    values[table.items[params_find(&table, "lm_head.weight")].offset + 5] = NAN;
    assert_ok(adapter_write(folder, &training, "b", NULL, 0, &table, values, &(struct export_options){.dtype = SAFETENSORS_F32}, &err), &err);
    mem_free_aligned(values);
    params_free(&table);
    expect_refusal(&training, STATUS_NUMERIC, "tensor 'base_model.model.lm_head.weight' holds nan at index 5");
    drop_all();
}

static void short_memory_is_reported(void **state)
{
    (void)state;
    struct params table;
    float *values;
    make_model(&training, &table, &values);
    long before = mem_live(), n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        struct adapter adapter = {0};
        const struct export_options options = {.dtype = SAFETENSORS_BF16, .overwrite = true};
        mem_fail_after(n, false);
        st = adapter_write(folder, &training, "b", NULL, 0, &table, values, &options, &err);
        bool written = st == STATUS_OK;
        if (st == STATUS_OK)
            st = adapter_read_config(folder, &adapter, &err);
        if (st == STATUS_OK)
            st = adapter_read(folder, &table, values, &err);
        mem_fail_after(-1, false);
        adapter_free(&adapter);
        assert_int_equal(mem_live(), before);
        assert_true(st == STATUS_OK || (st == STATUS_NOMEM && strstr(err.text, "no memory")));
        assert_true(adapter_is_folder(folder) == written); /* what failed to be written is none */
    }
    assert_true(n > 20);
    mem_free_aligned(values);
    params_free(&table);
    drop_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back), cmocka_unit_test(other_configurations_are_refused),
        cmocka_unit_test(other_tensors_are_refused),  cmocka_unit_test(tied_embeddings_stay_tied),
        cmocka_unit_test(short_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, make_base, remove_base);
}
