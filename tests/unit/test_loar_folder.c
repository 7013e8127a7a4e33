/* loar_config.json: what is written reads back as the same routing, and what is wrong with a file is said. */
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/loar_block.h"
#include "launch/loar_folder.h"
#include "tests/support/cmocka_all.h"
#include "tests/support/scratch.h"

static struct error err;
static const struct model_config model = {.width = 64, .layers = 8, .heads = 8, .head_dim = 8};

static struct loar_setup *setup_of(const char *block)
{
    struct options o;
    struct loar_setup *setup;
    char all[1024];
    int size = snprintf(all, sizeof all, "model_name_or_path: m\ndatasets: [{path: a.jsonl, task: qa}, {path: b.jsonl, task: \"g\\\"\xc3\xa9n\"}]\n%s", block);
    assert_ok(options_parse_text(all, (size_t)size, "run.yaml", 0, NULL, &o, NULL, &err), &err);
    assert_ok(loar_block_read(&o, &model, &setup, &err), &err);
    options_free(&o);
    return setup;
}

static void assert_same(const struct loar_setup *a, const struct loar_setup *b)
{
    const struct loar_config *x = &a->plan.config, *y = &b->plan.config;
    assert_true(loar_setup_same_tasks(a, b));
    assert_int_equal(a->default_task, b->default_task);
    assert_int_equal(a->n_layers, b->n_layers);
    for (int i = 0; i < a->n_layers; i++) {
        assert_true(a->layers[i].routed == b->layers[i].routed && a->layers[i].budget == b->layers[i].budget);
        assert_true(a->layers[i].window == b->layers[i].window && a->layers[i].sinks == b->layers[i].sinks);
    }
    assert_true(x->feature == y->feature && x->granularity == y->granularity && x->block == y->block && x->router_dim == y->router_dim);
    assert_true(x->router == y->router && x->policy == y->policy && x->c == y->c && x->per_head == y->per_head && x->gate == y->gate);
    assert_true(x->fallback == y->fallback && x->min_heads == y->min_heads && x->ema_decay == y->ema_decay);
    assert_true(x->stand_in == y->stand_in && x->explore == y->explore && x->n_always_on == y->n_always_on);
    assert_memory_equal(x->always_on, y->always_on, sizeof x->always_on);
    for (int t = 0; t < x->n_tasks; t++) {
        assert_int_equal(loar_task_policy(x, t), loar_task_policy(y, t));
        assert_true(loar_task_budget(x, t, 0.37) == loar_task_budget(y, t, 0.37));
    }
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    static const char *const blocks[] = {
        "loar: {layers: article}\n",
        "loar: {layers: dense}\n",
        "loar: {layers: [{preset: interleave}, {range: 2, budget: 0.333333333333333333, window: 100, sinks: 3}], budget: 0.7,\n"
        "  policy: topp, features: ema, granularity: token, block: 128, router_dim: 8, router: random, gate: soft, always_on: [0, 3],\n"
        "  fallback: all, c: 0.9, per_head: true, ema_decay: 0.9, stand_in: explore, explore: 0.1, default_task: \"g\\\"\xc3\xa9n\",\n"
        "  tasks: [{task: qa, budget: 0.6, policy: sigmoid}]}\n",
        "loar: {layers: [{budget: 0.5}], features: prompt_mean, granularity: sequence, policy: softmax_rel, router: static, min_heads: 4,\n"
        "  stand_in: none, tasks: [{task: qa, policy: topk}]}\n",
    };
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        struct loar_setup *setup = setup_of(blocks[i]), *again;
        struct text text = {0}, twice = {0};
        loar_folder_write(setup, &text);
        assert_ok(loar_folder_parse(text.data, text.size, "file", &model, &again, &err), &err);
        assert_same(setup, again);
        loar_folder_write(again, &twice);
        assert_string_equal(text.data, twice.data);
        text_free(&text);
        text_free(&twice);
        loar_setup_free(setup);
        loar_setup_free(again);
    }
}

/* The text of a good file with the first `old` replaced. */
static void changed(const char *old, const char *new, struct text *out)
{
    struct loar_setup *setup = setup_of("loar: {layers: [{preset: interleave}, {range: 0, sinks: 5}], budget: 0.5, always_on: [1], tasks: [{task: qa, budget: 0.25}]}\n");
    struct text text = {0};
    loar_folder_write(setup, &text);
    loar_setup_free(setup);
    char *at = strstr(text.data, old);
    if (!at)
        fail_msg("the file lacks '%s':\n%s", old, text.data);
    text_append(out, text.data, (size_t)(at - text.data));
    text_puts(out, new);
    text_puts(out, at + strlen(old));
    text_free(&text);
}

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *old, *new, *part;
    } rows[] = {
        {"\n}\n", "\n", "file: broken JSON at line"},
        {"{\n  \"format_version\": 1", "[{\n  \"format_version\": 1", "broken JSON"},
        {"\"format_version\": 1", "\"format_version\": 2", "has format 2; this program reads 1"},
        {"\"format_version\": 1", "\"format_version\": \"1\"", "'format_version' must be an integer, found a string"},
        {"\"policy\"", "\"polciy\"", "unknown key 'polciy'; did you mean 'policy'?"},
        {"  \"gate\": \"hard\",\n", "", "the key 'gate' is missing"},
        {"\"gate\": \"hard\"", "\"gate\": null", "the key 'gate' is missing"},
        {"\"gate\": \"hard\"", "\"gate\": \"firm\"", "'gate' is 'firm'; known are hard, soft"},
        {"\"gate\": \"hard\"", "\"gate\": 1", "'gate' must be a string, found an integer"},
        {"\"policy\": \"quantile\"", "\"policy\": \"default\"", "'policy' is 'default'; known are article"},
        {"\"router_dim\": 64", "\"router_dim\": 0", "'router_dim' is 0; allowed are 1 to 65536"},
        {"\"router_dim\": 64", "\"router_dim\": 64.5", "'router_dim' must be an integer"},
        {"\"router_dim\": 64", "\"router_dim\": 4294967360", "'router_dim' is 4294967360"},
        {"\"min_heads\": 1", "\"min_heads\": 9", "min_heads is 9; allowed are 1 to 8"},
        {"\"block\": 64", "\"block\": 65", "block is 65 tokens; allowed are 64 and 128"},
        {"\"ema_decay\": 0.99", "\"ema_decay\": -1", "'ema_decay' is -1; it must be at least 0"},
        {"\"ema_decay\": 0.99", "\"ema_decay\": 1e999", "broken JSON"},
        {"\"per_head\": false", "\"per_head\": 0", "'per_head' must be true or false"},
        {"\"always_on\": [1]", "\"always_on\": 1", "'always_on' must be a list, found an integer"},
        {"\"always_on\": [1]", "\"always_on\": [1.5]", "entry 0 of 'always_on' is no head"},
        {"\"always_on\": [1]", "\"always_on\": [8]", "always_on names head 8; this model's heads are 0 to 7"},
        {"\"always_on\": [1]", "\"always_on\": [0,1,2,3,4]", "heads are always on, but budget"},
        {"    {\"routed\": true, \"window\": 256, \"sinks\": 5", "    {\"routed\": true, \"window\": -1, \"sinks\": 5", "layer 0: 'window' is -1"},
        {"    {\"routed\": true, \"window\": 256, \"sinks\": 5", "    {\"routed\": true, \"window\": 32, \"sinks\": 5", "layer 0: window 32 is shorter than a block"},
        {"    {\"routed\": true, \"window\": 256, \"sinks\": 5", "    {\"routed\": true, \"windows\": 256, \"sinks\": 5", "layer 0: unknown key 'windows'; did you mean 'window'?"},
        {"    {\"routed\": true, \"window\": 256, \"sinks\": 5", "    {\"routed\": 1, \"window\": 256, \"sinks\": 5", "layer 0: 'routed' must be true or false"},
        {"\"budget\": 0.5}", "\"budget\": 1.5}", "layer 0: 'budget' is 1.5; it must be above 0 and at most 1"},
        {"\"budget\": 0.5}", "\"budget\": 0}", "layer 0: 'budget' is 0"},
        {"\"layers\": [", "\"layers\": [{\"routed\": false, \"window\": 0, \"sinks\": 0, \"budget\": 1.0},", "lists 9 layers, the model has 8"},
        {"\"layers\": [", "\"layers\": {}, \"more\": [", "unknown key 'more'"},
        {"\"task\": \"qa\"", "\"task\": \"\"", "task 0: is named ''"},
        {"\"task\": \"qa\"", "\"task\": 7", "task 0: 'task' must be a string"},
        {"\"task\": \"qa\"", "\"task\": \"g\\\"\xc3\xa9n\"", "task 1: is named 'g\"\xc3\xa9n'; names must not be empty, nor the same twice"},
        {"\"scale\": 0.5", "\"scale\": 0", "task 0: 'scale' is 0; it must be above 0"},
        {"\"policy\": \"default\"", "\"policy\": \"no\"", "task 0: 'policy' is 'no'; known are article, softmax_rel, topk, topp, sigmoid, quantile and default"},
        {"\"default_task\": \"qa\"", "\"default_task\": \"sums\"", "'default_task' is 'sums', which is none of its tasks"},
        {"\"tasks\": [", "\"tasks\": [], \"layers2\": [", "unknown key 'layers2'; did you mean 'layers'?"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text text = {0};
        struct loar_setup *setup = NULL;
        changed(rows[i].old, rows[i].new, &text);
        assert_refused(loar_folder_parse(text.data, text.size, "file", &model, &setup, &err), STATUS_DATA, &err, rows[i].part);
        assert_null(setup);
        text_free(&text);
    }
    struct loar_setup *setup;
    assert_refused(loar_folder_parse("[]", 2, "file", &model, &setup, &err), STATUS_DATA, &err, "file: must be an object, found an array");
    assert_refused(loar_folder_parse("", 0, "file", &model, &setup, &err), STATUS_DATA, &err, "file: broken JSON");
}

static void folders(void **state)
{
    (void)state;
    char dir[SCRATCH_SIZE], path[SCRATCH_SIZE + 32];
    assert_non_null(scratch_folder(dir, "folder"));
    struct loar_setup *setup, *again;
    assert_ok(loar_folder_read(dir, &model, &again, &err), &err);
    assert_null(again);
    struct text text = {0};
    setup = setup_of("loar: {layers: article}\n");
    loar_folder_write(setup, &text);
    snprintf(path, sizeof path, "%s/loar_config.json", dir);
    assert_ok(file_replace(path, text.data, text.size, &err), &err);
    assert_ok(loar_folder_read(dir, &model, &again, &err), &err);
    assert_same(setup, again);
    loar_setup_free(again);
    assert_ok(file_replace(path, text.data, text.size / 2, &err), &err);
    assert_refused(loar_folder_read(dir, &model, &again, &err), STATUS_DATA, &err, path);
    unlink(path);
    rmdir(dir);
    text_free(&text);
    loar_setup_free(setup);
}

static void short_memory(void **state)
{
    (void)state;
    struct loar_setup *setup = setup_of("loar: {layers: article}\n"), *again = NULL;
    struct text text = {0};
    loar_folder_write(setup, &text);
    int n = 0;
    for (long live = mem_live();; n++) {
        mem_fail_after(n, false);
        enum status st = loar_folder_parse(text.data, text.size, "file", &model, &again, &err);
        mem_fail_after(-1, false);
        if (st == STATUS_OK)
            break;
        assert_int_equal(st, STATUS_NOMEM);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 20);
    loar_setup_free(again);
    loar_setup_free(setup);
    text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(folders),
        cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
