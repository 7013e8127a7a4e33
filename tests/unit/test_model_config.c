/* config.json: the public files, defaults, every refusal by name, and what we write reads back the same. */
#include "tests/support/cmocka_all.h"

#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "tests/support/scratch.h"
#include "worker/model/config.h"
#include "worker/model/config_labels.h"

static struct error err;

/* The smallest valid configuration with `more` members in front. */
static void compose(struct text *out, const char *type, const char *more)
{
    text_clear(out);
    text_printf(out, "{%s%s\"model_type\":\"%s\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"
                     "\"num_attention_heads\":4,\"vocab_size\":100}", more, *more ? "," : "", type);
}

static enum status parse(const char *type, const char *more, struct model_config *c)
{
    struct text text = {0};
    compose(&text, type, more);
    enum status st = model_config_parse(text.data, text.size, "config.json", c, &err);
    text_free(&text);
    return st;
}

static void refuse(const char *type, const char *more, const char *part)
{
    struct model_config c;
    assert_refused(parse(type, more, &c), STATUS_DATA, &err, part);
    assert_non_null(strstr(err.text, "config.json"));
}

static void defaults_are_those_of_the_public_code(void **state)
{
    (void)state;
    struct model_config c;
    assert_ok(parse("llama", "", &c), &err);
    assert_int_equal(c.type, MODEL_LLAMA);
    assert_int_equal(c.kv_heads, 4);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.max_positions, 2048);
    assert_true(c.norm_eps == 1e-6f && c.rope_theta == 10000 && c.init_std == 0.02f);
    assert_true(c.rope == ROPE_PLAIN && !c.tied && !c.qkv_bias && c.bos == -1 && c.n_eos == 0);
    assert_ok(parse("qwen2", "\"tie_word_embeddings\":true,\"sliding_window\":128,\"use_sliding_window\":false", &c), &err);
    assert_true(c.type == MODEL_QWEN2 && c.qkv_bias && c.tied);
    assert_int_equal(c.max_positions, 32768);
}

static void variants_are_read(void **state)
{
    (void)state;
    struct model_config c;
    assert_ok(parse("llama", "\"head_dim\":32,\"num_key_value_heads\":2,\"rope_theta\":100000,\"eos_token_id\":[5,6,5],"
                             "\"bos_token_id\":null,\"attention_bias\":false", &c), &err);
    assert_true(c.head_dim == 32 && c.kv_heads == 2 && c.rope_theta == 100000 && c.bos == -1);
    assert_true(c.n_eos == 2 && c.eos[0] == 5 && c.eos[1] == 6);
    assert_ok(parse("llama", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}", &c), &err);
    assert_true(c.rope == ROPE_LINEAR && c.rope_factor == 4);
    assert_ok(parse("llama", "\"rope_scaling\":{\"rope_type\":\"default\"}", &c), &err);
    assert_true(c.rope == ROPE_PLAIN);
    assert_ok(parse("llama", "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":500000.0},\"dtype\":\"float32\"", &c), &err);
    assert_true(c.rope == ROPE_PLAIN && c.rope_theta == 500000);
    assert_ok(parse("llama", "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
                             "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}", &c), &err);
    assert_true(c.rope == ROPE_LLAMA3 && c.rope_factor == 8 && c.rope_low_freq_factor == 1);
    assert_true(c.rope_high_freq_factor == 4 && c.rope_original_positions == 8192);
}

static void unsupported_is_refused_by_name(void **state)
{
    (void)state;
    refuse("deepseek_v2", "", "model_type 'deepseek_v2' is not supported; supported are llama and qwen2");
    refuse("deepseek_v3", "", "deepseek_v3");
    refuse("gpt2", "", "gpt2");
    refuse("llama", "\"architectures\":[\"LlamaForTokenClassification\"]", "'LlamaForTokenClassification'");
    refuse("llama", "\"architectures\":[\"Qwen2ForCausalLM\"]", "supported are LlamaForCausalLM and LlamaForSequenceClassification");
    refuse("llama", "\"architectures\":[\"Qwen2ForSequenceClassification\"]", "supported are LlamaForCausalLM");
#define CLASSIFIES "\"architectures\":[\"LlamaForSequenceClassification\"],"
    refuse("llama", CLASSIFIES "\"num_labels\":1", "'num_labels' is 1");
    refuse("llama", CLASSIFIES "\"id2label\":{\"0\":\"a\",\"2\":\"b\"}", "1 is missing");
    refuse("llama", CLASSIFIES "\"id2label\":{\"0\":\"a\",\"1\":\"a\"}", "'a' twice");
    refuse("llama", "\"classification_tasks\":{}", "must be a list");
    refuse("llama", "\"classification_tasks\":[{\"task\":\"x\"}]", "entry 0");
    refuse("llama", "\"architectures\":[]", "must be a list with one name");
    refuse("llama", "\"architectures\":\"LlamaForCausalLM\"", "must be a list with one name");
    refuse("llama", "\"hidden_act\":\"gelu\"", "hidden_act 'gelu'");
    refuse("llama", "\"attention_bias\":true", "'attention_bias' is true");
    refuse("llama", "\"mlp_bias\":true", "'mlp_bias' is true");
    refuse("qwen2", "\"use_sliding_window\":true", "sliding-window");
    refuse("qwen2", "\"layer_types\":[\"full_attention\",\"sliding_attention\"]", "layer 1");
    refuse("llama", "\"quantization_config\":{}", "quantized weights");
    refuse("llama", "\"partial_rotary_factor\":0.5", "'partial_rotary_factor' is 0.5");
    refuse("llama", "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}", "'dynamic' is not supported");
    refuse("llama", "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2}", "'yarn' is not supported");
    refuse("llama", "\"rope_scaling\":{\"factor\":2}", "names no 'rope_type'");
    refuse("llama", "\"rope_scaling\":4", "must be null or an object");
    refuse("llama", "\"rope_scaling\":{\"type\":\"linear\"}", "lacks 'factor'");
    refuse("llama", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}", "'factor' is 0.5");
    refuse("llama", "\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
                    "\"original_max_position_embeddings\":8192}", "must exceed");
    refuse("llama", "\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4}",
           "'original_max_position_embeddings' is missing");
}

static void impossible_values_are_refused(void **state)
{
    (void)state;
    struct model_config c;
    refuse("llama", "\"num_key_value_heads\":3", "not a multiple of num_key_value_heads 3");
    refuse("llama", "\"num_key_value_heads\":0", "'num_key_value_heads' is 0");
    refuse("llama", "\"head_dim\":15", "head size is 15");
    refuse("llama", "\"head_dim\":100000", "'head_dim' is 100000");
    refuse("llama", "\"max_position_embeddings\":-1", "'max_position_embeddings' is -1");
    refuse("llama", "\"rms_norm_eps\":0", "'rms_norm_eps' is 0");
    refuse("llama", "\"rms_norm_eps\":1e-95", "single precision cannot hold");
    refuse("llama", "\"rms_norm_eps\":\"1e-6\"", "'rms_norm_eps' must be a number");
    refuse("llama", "\"rope_theta\":-1", "'rope_theta' is -1");
    refuse("llama", "\"bos_token_id\":100", "'bos_token_id' is 100");
    refuse("llama", "\"eos_token_id\":100", "'eos_token_id' 100 is outside the vocabulary of 100");
    refuse("llama", "\"eos_token_id\":-1", "outside the vocabulary");
    refuse("llama", "\"eos_token_id\":\"x\"", "'eos_token_id' must be an integer");
    refuse("llama", "\"eos_token_id\":[1,2,3,4,5,6,7,8,9]", "more than 8");
    refuse("llama", "\"tie_word_embeddings\":1", "'tie_word_embeddings' must be true or false");
    static const char *const whole[][2] = {
        {"[]", "must be an object"},
        {"{", "broken JSON"},
        {"{}", "'model_type' is missing"},
        {"{\"model_type\":7}", "'model_type' must be a string"},
        {"{\"model_type\":\"llama\"}", "'hidden_size' is missing"},
        {"{\"model_type\":\"llama\",\"hidden_size\":64.0}", "'hidden_size' must be an integer"},
        {"{\"model_type\":\"llama\",\"hidden_size\":9223372036854775807}", "'hidden_size' is 9223372036854775807"},
        {"{\"model_type\":\"llama\",\"hidden_size\":60,\"intermediate_size\":96,\"num_hidden_layers\":2,"
         "\"num_attention_heads\":7,\"vocab_size\":100}", "hidden_size 60 is not a multiple"},
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        assert_refused(model_config_parse(whole[i][0], strlen(whole[i][0]), "c", &c, &err), STATUS_DATA, &err, whole[i][1]);
}

static void public_folders_are_read(void **state)
{
    (void)state;
    if (!shared_data("models/stories260K-hf/config.json"))
        skip();
    struct model_config c;
    assert_ok(model_config_read("../shared/data/models/stories260K-hf", &c, &err), &err);
    assert_true(c.width == 64 && c.hidden == 172 && c.layers == 5 && c.heads == 8 && c.kv_heads == 4 && c.head_dim == 8);
    assert_true(c.vocab == 512 && c.tied && c.norm_eps == 1e-5f && c.bos == 1 && c.n_eos == 1 && c.eos[0] == 2);
    assert_ok(model_config_read("../shared/data/models/verl-digit-llama", &c, &err), &err);
    assert_true(c.vocab == 16 && !c.tied && c.bos == -1 && c.n_eos == 1 && c.eos[0] == 1);
    assert_ok(model_config_read("../shared/data/models/hf-reference/qwen2-untied", &c, &err), &err);
    assert_true(c.type == MODEL_QWEN2 && c.qkv_bias && c.rope_theta == 1e6);
    assert_ok(model_config_read("../shared/data/models/hf-reference/llama-gqa", &c, &err), &err);
    assert_true(c.kv_heads == 2 && c.head_dim == 12);
    assert_ok(model_config_read("../shared/data/tokenizers/deepseek-coder-6.7b-instruct", &c, &err), &err);
    assert_true(c.rope == ROPE_LINEAR && c.rope_factor == 4 && c.rope_theta == 100000 && c.vocab == 32256);
    assert_ok(model_config_read("../shared/data/tokenizers/deepseek-r1-distill-qwen-32b", &c, &err), &err);
    assert_true(c.layers == 64 && c.heads == 40 && c.kv_heads == 8 && c.norm_eps == 1e-5f);
    assert_true(c.bos == 151646 && c.n_eos == 1 && c.eos[0] == 151643); /* generation_config.json knows the begin token */
    assert_refused(model_config_read("../shared/data/models/hf-reference/deepseek-v2-aux-batch", &c, &err), STATUS_DATA,
                   &err, "deepseek_v2");
    assert_refused(model_config_read("../shared/data/models/hf-reference/deepseek-v3-norope-scaling", &c, &err),
                   STATUS_DATA, &err, "deepseek_v3");
    assert_refused(model_config_read("../shared/data/models", &c, &err), STATUS_DATA, &err, "holds no config.json");
    assert_refused(model_config_read("../shared/data/no-such", &c, &err), STATUS_DATA, &err, "is not there");
}

static void generation_config_adds_ends(void **state)
{
    (void)state;
    char folder[SCRATCH_SIZE];
    assert_non_null(scratch_folder(folder, "config"));
    char *config = path_join(folder, "config.json"), *generation = path_join(folder, "generation_config.json");
    struct text text = {0};
    struct model_config c;
    compose(&text, "qwen2", "\"eos_token_id\":3,\"bos_token_id\":2");
    assert_ok(file_replace(config, text.data, text.size, &err), &err);
    static const char good[] = "{\"eos_token_id\":[9,3],\"bos_token_id\":1,\"temperature\":0.6}", bad[] = "[]";
    assert_ok(file_replace(generation, good, strlen(good), &err), &err);
    assert_ok(model_config_read(folder, &c, &err), &err);
    assert_true(c.bos == 1 && c.n_eos == 2 && c.eos[0] == 3 && c.eos[1] == 9);
    assert_ok(file_replace(generation, bad, strlen(bad), &err), &err);
    assert_refused(model_config_read(folder, &c, &err), STATUS_DATA, &err, "generation_config.json: must be an object");
    unlink(config);
    unlink(generation);
    rmdir(folder);
    mem_free(config);
    mem_free(generation);
    text_free(&text);
}

static void architecture_files_are_yaml(void **state)
{
    (void)state;
    char folder[SCRATCH_SIZE], path[SCRATCH_SIZE + 16];
    assert_non_null(scratch_folder(folder, "config"));
    snprintf(path, sizeof path, "%s/small.yaml", folder);
    static const char good[] = "# a small one\nmodel_type: qwen2\nhidden_size: 64\nintermediate_size: 96\nnum_hidden_layers: 2\n"
                               "num_attention_heads: 4\nvocab_size: 100\nrms_norm_eps: 1e-5\ntie_word_embeddings: true\n"
                               "rope_scaling: {rope_type: linear, factor: 2}\neos_token_id: [3, 4]\nbos_token_id: null\n";
    static const char bad[] = "model_type: qwen2\nhidden_size: many\n";
    struct model_config c;
    assert_ok(file_replace(path, good, strlen(good), &err), &err);
    assert_ok(model_config_read_file(path, &c, &err), &err);
    assert_true(c.type == MODEL_QWEN2 && c.width == 64 && c.norm_eps == 1e-5f && c.tied && c.rope == ROPE_LINEAR);
    assert_true(c.rope_factor == 2 && c.n_eos == 2 && c.eos[1] == 4 && c.bos == -1);
    assert_ok(file_replace(path, bad, strlen(bad), &err), &err);
    assert_refused(model_config_read_file(path, &c, &err), STATUS_DATA, &err, ".yaml: 'hidden_size' must be an integer");
    assert_int_equal(scratch_remove(folder), 0);
}

/* Written and read again: the same struct, field by field, for members of every kind. */
static void what_we_write_reads_back(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"llama", ""},
        {"llama", "\"rms_norm_eps\":1e-5,\"rope_theta\":12345.678901234567,\"initializer_range\":0.013,\"bos_token_id\":1,\"eos_token_id\":2"},
        {"llama", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5},\"eos_token_id\":[2,7,8],\"tie_word_embeddings\":true"},
        {"llama", "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
                  "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192},\"head_dim\":8"},
        {"qwen2", "\"num_key_value_heads\":1,\"max_position_embeddings\":131072"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_config a, b;
        memset(&a, 0, sizeof a);
        memset(&b, 0, sizeof b);
        assert_ok(parse(cases[i][0], cases[i][1], &a), &err);
        struct text text = {0};
        model_config_write(&a, "float32", &text);
        assert_ok(model_config_parse(text.data, text.size, "written", &b, &err), &err);
        assert_true(a.type == b.type && a.width == b.width && a.hidden == b.hidden && a.layers == b.layers);
        assert_true(a.heads == b.heads && a.kv_heads == b.kv_heads && a.head_dim == b.head_dim && a.vocab == b.vocab);
        assert_true(a.max_positions == b.max_positions && a.norm_eps == b.norm_eps && a.rope_theta == b.rope_theta);
        assert_true(a.rope == b.rope && a.rope_factor == b.rope_factor && a.qkv_bias == b.qkv_bias && a.tied == b.tied);
        assert_true(a.rope_low_freq_factor == b.rope_low_freq_factor && a.rope_high_freq_factor == b.rope_high_freq_factor);
        assert_true(a.rope_original_positions == b.rope_original_positions && a.init_std == b.init_std);
        assert_true(a.bos == b.bos && a.n_eos == b.n_eos && !memcmp(a.eos, b.eos, sizeof a.eos));
        text_free(&text);
    }
}

/* Labels go into config.json and come back; a text without them loses what an earlier one had. */
static void labels_read_back(void **state)
{
    (void)state;
    struct model_config c;
    struct labels labels = {0}, back = {0};
    struct text before = {0}, text = {0}, plain = {0};
    compose(&before, "llama", "\"architectures\":[\"LlamaForCausalLM\"],\"rms_norm_eps\":1e-5,\"other\":{\"list\":[1,null,true,\"x\"]}");
    assert_ok(model_config_parse(before.data, before.size, "config.json", &c, &err), &err);
    assert_true(c.labels == 0 && !c.classifies_only);
    assert_ok(labels_add(&labels, "mood", (char *[]){"bad \"quote\"", "good"}, 2, false, &err), &err);
    c.classifies_only = true;
    assert_ok(config_labels_write(before.data, before.size, &c, &labels, &text, &err), &err);
    assert_non_null(strstr(text.data, "\"architectures\": [\"LlamaForSequenceClassification\"]"));
    assert_non_null(strstr(text.data, "\"id2label\": {\"0\": \"bad \\\"quote\\\"\", \"1\": \"good\"}"));
    assert_non_null(strstr(text.data, "\"label2id\": {\"bad \\\"quote\\\"\": 0, \"good\": 1}"));
    assert_non_null(strstr(text.data, "\"problem_type\": \"single_label_classification\""));
    assert_non_null(strstr(text.data, "\"other\": {\"list\": [1, null, true, \"x\"]}"));
    assert_ok(model_config_parse(text.data, text.size, "config.json", &c, &err), &err);
    assert_true(c.labels == 2 && c.classifies_only && c.norm_eps == 1e-5f);

    assert_ok(labels_add_numbers(&labels, "stars", 3, &err), &err);
    c.classifies_only = false;
    text_clear(&text);
    assert_ok(config_labels_write(before.data, before.size, &c, &labels, &text, &err), &err);
    assert_non_null(strstr(text.data, "\"4\": \"stars/2\""));
    assert_ok(model_config_parse(text.data, text.size, "config.json", &c, &err), &err);
    assert_true(c.labels == 5 && !c.classifies_only);
    assert_ok(config_labels_parse(text.data, text.size, "config.json", &back, &err), &err);
    assert_true(labels_equal(&labels, &back) && back.total == 5 && back.sets[1].first == 2);
    assert_int_equal(label_set_place(&back.sets[1], "2", 1), 2);
    labels_free(&back);

    assert_ok(config_labels_write(text.data, text.size, &c, &back, &plain, &err), &err);
    assert_null(strstr(plain.data, "label"));
    assert_ok(model_config_parse(plain.data, plain.size, "config.json", &c, &err), &err);
    assert_true(c.labels == 0);
    text_free(&before), text_free(&text), text_free(&plain);
    labels_free(&labels);
}

/* Folders that the public code wrote name labels in id2label, or not at all. */
static void labels_of_public_folders(void **state)
{
    (void)state;
    struct model_config c;
    struct labels labels = {0};
    assert_ok(parse("qwen2", "\"architectures\":[\"Qwen2ForSequenceClassification\"]", &c), &err);
    assert_true(c.labels == 2 && c.classifies_only);
    assert_ok(parse("llama", CLASSIFIES "\"num_labels\":4", &c), &err);
    assert_true(c.labels == 4);
    static const char text[] = "{" CLASSIFIES "\"id2label\":{\"1\":\"b\",\"0\":\"a\",\"2\":\"c\"}}";
    assert_ok(config_labels_parse(text, strlen(text), "config.json", &labels, &err), &err);
    assert_true(labels.count == 1 && labels.total == 3 && !strcmp(labels.sets[0].names[1], "b") && !*labels.sets[0].task);
    assert_ptr_equal(labels_find_or_only(&labels, "anything"), labels.sets);
    labels_free(&labels);
    assert_ok(parse("llama", "\"id2label\":{\"0\":\"LABEL_0\",\"1\":\"LABEL_1\"}", &c), &err); /* of no use in a model of text */
    assert_true(c.labels == 0);
}

/* Short memory is an error, and nothing stays behind. */
static void labels_without_memory(void **state)
{
    (void)state;
    struct text before = {0};
    struct labels labels = {0};
    struct model_config c;
    compose(&before, "llama", CLASSIFIES "\"id2label\":{\"0\":\"a\",\"1\":\"b\"}");
    assert_ok(model_config_parse(before.data, before.size, "config.json", &c, &err), &err);
    assert_ok(labels_add_numbers(&labels, "stars", 3, &err), &err);
    long live = mem_live();
    int failures = 0, successes = 0;
    for (long n = 0; successes < 5; n++) {
        struct text out = {0};
        struct labels read = {0};
        mem_fail_after(n, false);
        enum status st = config_labels_parse(before.data, before.size, "config.json", &read, &err);
        if (st == STATUS_OK)
            st = config_labels_write(before.data, before.size, &c, &labels, &out, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK ? read.total == 2 && strstr(out.data, "\"stars\"") : st == STATUS_NOMEM);
        successes = st == STATUS_OK ? successes + 1 : 0;
        failures += st != STATUS_OK;
        labels_free(&read);
        text_free(&out);
        assert_true(mem_live() == live && n < 1000);
    }
    assert_true(failures > 10);
    labels_free(&labels);
    text_free(&before);
}

static void numbers_are_written_shortest(void **state)
{
    (void)state;
    struct text text = {0};
    model_config_real(&text, (double)1e-5f, true);
    text_puts(&text, " ");
    model_config_real(&text, 10000, false);
    text_puts(&text, " ");
    model_config_real(&text, 0.1, false);
    assert_string_equal(text.data, "1e-05 10000.0 0.1");
    text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_read_back), cmocka_unit_test(labels_of_public_folders), cmocka_unit_test(labels_without_memory),
        cmocka_unit_test(defaults_are_those_of_the_public_code), cmocka_unit_test(variants_are_read),
        cmocka_unit_test(unsupported_is_refused_by_name),        cmocka_unit_test(impossible_values_are_refused),
        cmocka_unit_test(public_folders_are_read),               cmocka_unit_test(generation_config_adds_ends),
        cmocka_unit_test(what_we_write_reads_back),              cmocka_unit_test(numbers_are_written_shortest),
        cmocka_unit_test(architecture_files_are_yaml),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
