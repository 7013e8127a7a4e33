/* A routed model from a snapshot and from the folder it was exported to: the same bits, task by task; and routers of a
 * folder that are missing, damaged or of another shape; and a snapshot of routers alone, which finds its model. */
#include "tests/support/cmocka_all.h"

#include <dirent.h>
#include <math.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/rng.h"
#include "launch/commands.h"
#include "launch/loar_block.h"
#include "launch/loar_folder.h"
#include "launch/source.h"
#include "ps/snapshot.h"
#include "tests/support/capture.h"
#include "tests/support/scratch.h"
#include "worker/data/demo/demo.h"
#include "worker/data/tokenizer.h"
#include "worker/loar/tensors.h"
#include "worker/model/config.h"
#include "worker/model/import.h"

enum { TOKENS = 150 };

static const char run_file[] =
    "model_name_or_path: m\n"
    "datasets: [{path: a.jsonl, task: qa}, {path: b.jsonl, task: sums}]\n"
    "loar: {layers: [{budget: 0.5}, {range: 1, window: 70, sinks: 4}], router_dim: 12,\n"
    "  tasks: [{task: sums, policy: sigmoid, budget: 0.75}], default_task: sums}\n";

static struct error err;
static char base[SCRATCH_SIZE], snapshots[SCRATCH_SIZE + 16], folder[SCRATCH_SIZE + 16], said[SCRATCH_SIZE + 16]; /* what commands print */
static struct options options;
static struct model_config config;
static struct loar_setup *setup;
static struct params table;
static float *values;
static struct text config_json, routing_json, tokenizer_json, tokenizer_config;
static struct threads *pool;

static int make_model(void **state)
{
    (void)state;
    struct tokenizer *tokenizer;
    assert_non_null(scratch_folder(base, "source"));
    snprintf(snapshots, sizeof snapshots, "%s/snapshots", base);
    snprintf(folder, sizeof folder, "%s/folder", base);
    snprintf(said, sizeof said, "%s/said", base);
    assert_ok(threads_create(2, &pool, &err), &err);
    assert_ok(demo_tokenizer("", 0, 0, &tokenizer_json, &tokenizer_config, &err), &err);
    assert_ok(tokenizer_load_text(tokenizer_json.data, tokenizer_json.size, tokenizer_config.data, tokenizer_config.size, "demo",
                                  &tokenizer, &err), &err);
    config = (struct model_config){.type = MODEL_QWEN2, .width = 24, .hidden = 40, .layers = 3, .heads = 4, .kv_heads = 2,
                                   .head_dim = 8, .vocab = tokenizer_size(tokenizer), .max_positions = 256, .norm_eps = 1e-5f,
                                   .rope_theta = 1e4, .rope_factor = 1, .qkv_bias = true, .init_std = 0.2f, .bos = -1};
    tokenizer_free(tokenizer);
    model_config_write(&config, "float32", &config_json);
    assert_ok(options_parse_text(run_file, sizeof run_file - 1, "run.yaml", 0, NULL, &options, NULL, &err), &err);
    assert_ok(loar_block_read(&options, &config, &setup, &err), &err);
    loar_folder_write(setup, &routing_json);
    config.loar = &setup->plan;
    assert_ok(model_params(&config, &table, &err), &err);
    values = mem_alloc_aligned((size_t)table.values, sizeof *values);
    params_initialise(&table, 3, values);
    for (int i = 0; i < table.count; i++) { /* routers that tell heads and tasks apart, state as after some steps */
        const struct param *p = &table.items[i];
        bool last = strstr(p->name, "router.fc2") || strstr(p->name, "task_bias") || strstr(p->name, "state.");
        for (int64_t j = 0; last && j < p->size; j++)
            values[p->offset + j] = (float)rng_normal(5, rng_substream(RNG_INIT, (uint64_t)i), (uint64_t)j);
    }
    return 0;
}

static void empty(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));)
        if (*e->d_name != '.') {
            char *name = path_join(path, e->d_name);
            unlink(name);
            mem_free(name);
        }
    closedir(dir);
    rmdir(path);
}

static int free_model(void **state)
{
    (void)state;
    empty(snapshots);
    empty(folder);
    unlink(said);
    loar_setup_free(setup);
    params_free(&table);
    mem_free_aligned(values);
    options_free(&options);
    text_free(&config_json);
    text_free(&routing_json);
    text_free(&tokenizer_json);
    text_free(&tokenizer_config);
    threads_free(pool);
    return rmdir(base);
}

/* routing_file: as snapshots have it now, or as those of before did. */
static void write_snapshot(bool routing_file)
{
    struct text saved = {0};
    options_format(&options, OPTIONS_ALL, &saved);
    const struct snapshot_text texts[] = {{"options", saved.data, saved.size}};
    const struct snapshot_text files[] = {{"config.json", config_json.data, config_json.size},
                                          {"tokenizer.json", tokenizer_json.data, tokenizer_json.size},
                                          {"loar_config.json", routing_json.data, routing_json.size}};
    struct snapshot_view view = {.table = &table, .values = values, .meta = {.step = 7}, .texts = texts, .n_texts = 1,
                                 .files = files, .n_files = routing_file ? 3 : 2};
    empty(snapshots);
    assert_ok(snapshot_write(snapshots, &view, NULL, &err), &err);
    text_free(&saved);
}

static int try_export(const char *option, const char *value)
{
    char *argv[] = {"export", snapshots, folder, (char *)option, (char *)value, NULL};
    return run_captured(cmd_export, 3 + (option != NULL) + (value != NULL), argv, said, said);
}

static void export_it(const char *option, const char *value)
{
    empty(folder);
    assert_int_equal(try_export(option, value), 0);
}

static float *logits_of(const char *path, bool snapshot, int task)
{
    struct source source;
    struct batch batch = {0};
    int32_t tokens[TOKENS];
    uint8_t spans[TOKENS];
    assert_ok(source_open(path, snapshot, NULL, pool, &source, &err), &err);
    for (int i = 0; i < TOKENS; i++) {
        tokens[i] = (int32_t)rng_below(9, RNG_DATA, (uint64_t)i, (uint64_t)config.vocab);
        spans[i] = i < TOKENS / 3 ? SPAN_PROMPT : SPAN_ANSWER;
    }
    assert_ok(batch_append(&batch, &(struct row){.tokens = tokens, .spans = spans, .n_tokens = TOKENS, .task = task, .weight = 1}, (const float[SPAN_COUNT]){0, 1, 1, 1}, &err), &err);
    float *logits = test_malloc((size_t)(TOKENS * config.vocab) * sizeof *logits);
    assert_ok(model_logits(source.model, source.values, &batch, logits, &err), &err);
    batch_free(&batch);
    source_close(&source);
    return logits;
}

static void a_folder_computes_what_its_snapshot_does(void **state)
{
    (void)state;
    size_t bytes = (size_t)(TOKENS * config.vocab) * sizeof(float);
    write_snapshot(true);
    float *logits[2];
    for (int task = 0; task < 2; task++) {
        logits[task] = logits_of(snapshots, true, task);
        export_it(NULL, NULL);
        float *again = logits_of(folder, false, task);
        assert_memory_equal(again, logits[task], bytes);
        test_free(again);
        export_it("--dense", NULL);
        again = logits_of(folder, false, task);
        assert_memory_not_equal(again, logits[task], bytes);
        test_free(again);
    }
    assert_memory_not_equal(logits[0], logits[1], bytes);
    test_free(logits[0]);
    test_free(logits[1]);
}

static void routers_keep_every_bit(void **state)
{
    (void)state;
    struct source source;
    struct text again = {0};
    write_snapshot(false); /* from the options alone */
    export_it("--dtype", "bf16");
    assert_ok(source_open(folder, false, NULL, pool, &source, &err), &err);
    loar_folder_write(source.loar, &again);
    assert_string_equal(again.data, routing_json.data);
    assert_int_equal(source.loar->default_task, 1);
    int routers = 0, rounded = 0;
    for (int i = 0; i < table.count; i++) {
        const struct param *p = &table.items[i];
        int at = params_find(&source.table, p->name);
        assert_true(at >= 0);
        bool same = !memcmp(source.values + source.table.items[at].offset, values + p->offset, (size_t)p->size * sizeof *values);
        routers += loar_is_tensor(p->name);
        rounded += !same;
        assert_true(same || !loar_is_tensor(p->name));
    }
    assert_true(routers >= 18 && rounded > 20);
    text_free(&again);
    source_close(&source);
}

static enum status import(const struct import_options *how, float *out, struct import_report *report)
{
    return model_import(folder, &config, &table, how, out, report, &err);
}

static void routers_that_are_not_there_begin_anew(void **state)
{
    (void)state;
    struct import_report report;
    float *out = mem_alloc_aligned((size_t)table.values, sizeof *out), *fresh = mem_alloc_aligned((size_t)table.values, sizeof *fresh);
    params_initialise(&table, 11, fresh);
    write_snapshot(true);
    export_it("--dense", NULL);
    assert_refused(import(NULL, out, NULL), STATUS_DATA, &err, "'loar.layers.0.router.fc1.weight' [12, 24] that its loar_config.json asks for");
    assert_ok(import(&(struct import_options){.new_routers = true, .seed = 11}, out, &report), &err);
    for (int i = 0; i < table.count; i++) {
        const struct param *p = &table.items[i];
        assert_memory_equal(out + p->offset, (loar_is_tensor(p->name) ? fresh : values) + p->offset, (size_t)p->size * sizeof *out);
    }
    assert_true(report.new_routers > 0 && report.tensors + report.new_routers == table.count && report.left_routers == 0);

    export_it(NULL, NULL);
    assert_ok(import(&(struct import_options){.new_routers = true, .seed = 11}, out, &report), &err);
    assert_memory_equal(out, values, (size_t)table.values * sizeof *out);
    assert_int_equal(report.new_routers, 0);
    struct loar_config *c = &setup->plan.config;
    c->router_dim = 8;
    struct params narrow = {0};
    assert_ok(model_params(&config, &narrow, &err), &err);
    assert_refused(model_import(folder, &config, &narrow, &(struct import_options){.new_routers = true, .seed = 11}, out, NULL, &err), STATUS_DATA, &err,
                   "tensor 'loar.layers.0.router.fc1.weight' has the shape [12, 24], this run's routing asks for [8, 24]: give loar.router_dim");
    c->router_dim = 12;
    config.loar = NULL;
    struct params dense = {0};
    assert_ok(model_params(&config, &dense, &err), &err);
    assert_ok(model_import(folder, &config, &dense, NULL, out, &report, &err), &err);
    assert_true(report.left_routers == table.count - dense.count && report.unknown_extras == 0 && report.known_extras == 0);
    config.loar = &setup->plan;
    params_free(&narrow);
    params_free(&dense);
    mem_free_aligned(out);
    mem_free_aligned(fresh);
}

static void damaged_routers_are_named(void **state)
{
    (void)state;
    struct source source;
    float *at = values + table.items[params_find(&table, "loar.layers.2.state.threshold")].offset, good = *at;
    *at = NAN;
    write_snapshot(true);
    export_it(NULL, NULL);
    *at = good;
    assert_refused(source_open(folder, false, NULL, pool, &source, &err), STATUS_NUMERIC, &err, "'loar.layers.2.state.threshold' holds NaN at index 0");
}

/* A snapshot of the routers alone, beside the model in `folder`. */
static void write_routers(const char *base_digest, const char *model)
{
    struct options alone;
    struct text saved = {0};
    struct params routers = {0};
    char all[1024];
    int size = snprintf(all, sizeof all, "%sfinetuning_type: router\n", run_file);
    assert_ok(options_parse_text(all, (size_t)size, "run.yaml", 0, NULL, &alone, NULL, &err), &err);
    options_format(&alone, OPTIONS_ALL, &saved);
    config.training.kind = TRAIN_ROUTERS;
    assert_ok(model_params(&config, &routers, &err), &err);
    config.training.kind = TRAIN_ALL;
    assert_true(routers.trained > 0 && routers.trained + routers.frozen == table.trained);
    float *trained = mem_alloc_aligned((size_t)routers.values, sizeof *trained);
    for (int i = 0; i < routers.count; i++)
        if (routers.items[i].role == PARAM_TRAINED)
            memcpy(trained + routers.items[i].offset, values + table.items[i].offset, (size_t)table.items[i].size * sizeof *trained);
    const struct snapshot_text texts[] = {{"options", saved.data, saved.size}, {"base", model, strlen(model)}};
    const struct snapshot_text files[] = {{"config.json", config_json.data, config_json.size},
                                          {"tokenizer.json", tokenizer_json.data, tokenizer_json.size},
                                          {"loar_config.json", routing_json.data, routing_json.size}};
    struct snapshot_view view = {.table = &routers, .values = trained, .meta = {.step = 7}, .texts = texts, .n_texts = 2,
                                 .files = files, .n_files = 3};
    snprintf(view.meta.base_digest, sizeof view.meta.base_digest, "%s", base_digest);
    empty(snapshots);
    assert_ok(snapshot_write(snapshots, &view, NULL, &err), &err);
    mem_free_aligned(trained);
    params_free(&routers);
    options_free(&alone);
    text_free(&saved);
}

static void routers_find_their_model(void **state)
{
    (void)state;
    struct import_report report;
    struct source source;
    struct params routers = {0};
    char away[sizeof folder + 8];
    snprintf(away, sizeof away, "%s-away", folder);
    write_snapshot(true);
    float *wanted = logits_of(snapshots, true, 0);
    export_it("--dense", NULL);
    config.training.kind = TRAIN_ROUTERS;
    assert_ok(model_params(&config, &routers, &err), &err);
    float *out = mem_alloc_aligned((size_t)routers.values, sizeof *out);
    assert_ok(model_import(folder, &config, &routers, &(struct import_options){.new_routers = true}, out, &report, &err), &err);
    config.training.kind = TRAIN_ALL;
    mem_free_aligned(out);
    params_free(&routers);

    write_routers(report.frozen_digest, folder);
    float *again = logits_of(snapshots, true, 0);
    assert_memory_equal(again, wanted, (size_t)(TOKENS * config.vocab) * sizeof *wanted);
    test_free(again);
    int n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        long live = mem_live();
        mem_fail_after(n, true);
        st = source_open(snapshots, true, NULL, pool, &source, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        if (st == STATUS_OK)
            source_close(&source);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 100);
    assert_int_equal(rename(folder, away), 0);
    assert_refused(source_open(snapshots, true, NULL, pool, &source, &err), STATUS_DATA, &err, "holds only what was trained; the model that it");
    assert_ok(source_open(snapshots, true, away, pool, &source, &err), &err);
    source_close(&source);
    write_routers("0123", folder);
    assert_refused(source_open(snapshots, true, away, pool, &source, &err), STATUS_DATA, &err, "have the digest 0123, the folder's");
    empty(away);
    test_free(wanted);
}

static void short_memory_is_reported(void **state)
{
    (void)state;
    write_snapshot(false);
    int n = 0;
    for (int status = -1; status != 0; n++) {
        long live = mem_live();
        empty(folder);
        mem_fail_after(n, true);
        status = try_export(NULL, NULL);
        mem_fail_after(-1, false);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 100);
    n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        struct source source;
        long live = mem_live();
        mem_fail_after(n, true);
        st = source_open(folder, false, NULL, pool, &source, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        if (st == STATUS_OK)
            source_close(&source);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_computes_what_its_snapshot_does),
        cmocka_unit_test(routers_keep_every_bit),
        cmocka_unit_test(routers_that_are_not_there_begin_anew),
        cmocka_unit_test(damaged_routers_are_named),
        cmocka_unit_test(routers_find_their_model),
        cmocka_unit_test(short_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, make_model, free_model);
}
