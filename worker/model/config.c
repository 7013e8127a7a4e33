#include "worker/model/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/yaml.h"
#include "worker/model/config_labels.h"

/* What an architecture is called in the files, and what differs between their configurations. */
struct family {
    enum model_type type;
    const char *model_type, *architecture, *classifier; /* classes of the public model code */
    int64_t max_positions; /* where max_position_embeddings is absent */
    bool qkv_bias;
};

static const struct family families[] = {
    {MODEL_LLAMA, "llama", "LlamaForCausalLM", "LlamaForSequenceClassification", 2048, false},
    {MODEL_QWEN2, "qwen2", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification", 32768, true},
};
enum { FAMILIES = sizeof families / sizeof *families };

/* Bounds that no real model comes near and that keep every product of two sizes far inside int64. */
enum {
    MAX_WIDTH = 1 << 20,
    MAX_LAYERS = 4096,
    MAX_HEADS = 4096,
    MAX_HEAD_DIM = 4096,
    MAX_VOCAB = 1 << 24,
    MAX_POSITIONS = 1 << 30
};

static enum status get_bounded(const struct json *object, const char *key, const char *where, int64_t low, int64_t high,
                               int64_t *out, struct error *err)
{
    TRY(json_get_int(object, key, where, out, err));
    if (*out < low || *out > high)
        FAIL(err, STATUS_DATA, "%s: '%s' is %lld, allowed are %lld to %lld", where, key, (long long)*out,
             (long long)low, (long long)high);
    return STATUS_OK;
}

static enum status get_required(const struct json *object, const char *key, const char *where, int64_t high,
                                int64_t *out, struct error *err)
{
    if (json_kind(json_member(object, key)) == JSON_KIND_NULL)
        FAIL(err, STATUS_DATA, "%s: '%s' is missing", where, key);
    return get_bounded(object, key, where, 1, high, out, err);
}

/* A positive finite number, at least `low`. */
static enum status get_positive(const struct json *object, const char *key, const char *where, double low, double *out,
                                struct error *err)
{
    TRY(json_get_real(object, key, where, out, err));
    if (!(*out >= low) || !(*out > 0) || !isfinite(*out))
        FAIL(err, STATUS_DATA, "%s: '%s' is %g, it must be a number %s%g", where, key, *out, low > 0 ? ">= " : "> ", low);
    return STATUS_OK;
}

/* The same as a float; what becomes 0 or infinity in it is refused. */
static enum status get_positive_float(const struct json *object, const char *key, const char *where, float *out,
                                      struct error *err)
{
    double value = (double)*out;
    TRY(get_positive(object, key, where, 0, &value, err));
    *out = (float)value;
    if (*out == 0 || isinf(*out))
        FAIL(err, STATUS_DATA, "%s: '%s' is %g, which single precision cannot hold", where, key, value);
    return STATUS_OK;
}

static enum status find_family(const struct json *object, const char *where, const struct family **out, bool *classifies,
                               struct error *err)
{
    const char *name = NULL;
    TRY(json_get_string(object, "model_type", where, &name, err));
    if (!name)
        FAIL(err, STATUS_DATA, "%s: 'model_type' is missing; supported are llama and qwen2", where);
    *out = NULL;
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(name, families[i].model_type))
            *out = &families[i];
    if (!*out)
        FAIL(err, STATUS_DATA, "%s: model_type '%s' is not supported; supported are llama and qwen2", where, name);
    const struct json *architectures = json_member(object, "architectures");
    if (json_kind(architectures) == JSON_KIND_NULL)
        return STATUS_OK;
    const char *architecture = json_to_string(json_at(architectures, 0), NULL);
    if (json_kind(architectures) != JSON_KIND_ARRAY || json_count(architectures) != 1 || !architecture)
        FAIL(err, STATUS_DATA, "%s: 'architectures' must be a list with one name, such as [\"%s\"]", where,
             (*out)->architecture);
    if (strcmp(architecture, (*out)->architecture) && strcmp(architecture, (*out)->classifier))
        FAIL(err, STATUS_DATA, "%s: architecture '%s' is not supported for model_type '%s'; supported are %s and %s", where,
             architecture, name, (*out)->architecture, (*out)->classifier);
    *classifies = !strcmp(architecture, (*out)->classifier);
    return STATUS_OK;
}

static const struct family *family_of(enum model_type type)
{
    const struct family *family = families;
    while (family->type != type)
        family++;
    return family;
}

const char *model_architecture(const struct model_config *c)
{
    return c->classifies_only ? family_of(c->type)->classifier : family_of(c->type)->architecture;
}

bool model_architecture_classifies(const char *name)
{
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(name, families[i].classifier))
            return true;
    return false;
}

/* How many there are; their names are of no interest to the model. */
static enum status count_labels(const struct json *object, const char *where, struct model_config *c, struct error *err)
{
    struct labels labels = {0};
    enum status st = config_labels_read(object, c->classifies_only, where, &labels, err);
    c->labels = labels.total;
    labels_free(&labels);
    return st;
}

static enum status read_sizes(const struct json *object, const char *where, struct model_config *c, struct error *err)
{
    int64_t layers = 0, heads = 0, kv_heads;
    TRY(get_required(object, "hidden_size", where, MAX_WIDTH, &c->width, err));
    TRY(get_required(object, "intermediate_size", where, 4 * MAX_WIDTH, &c->hidden, err));
    TRY(get_required(object, "num_hidden_layers", where, MAX_LAYERS, &layers, err));
    TRY(get_required(object, "num_attention_heads", where, MAX_HEADS, &heads, err));
    TRY(get_required(object, "vocab_size", where, MAX_VOCAB, &c->vocab, err));
    TRY(get_bounded(object, "max_position_embeddings", where, 1, MAX_POSITIONS, &c->max_positions, err));
    kv_heads = heads;
    TRY(get_bounded(object, "num_key_value_heads", where, 1, MAX_HEADS, &kv_heads, err));
    if (heads % kv_heads)
        FAIL(err, STATUS_DATA, "%s: num_attention_heads %lld is not a multiple of num_key_value_heads %lld", where,
             (long long)heads, (long long)kv_heads);
    bool has_head_dim = json_kind(json_member(object, "head_dim")) != JSON_KIND_NULL;
    if (!has_head_dim && c->width % heads)
        FAIL(err, STATUS_DATA, "%s: hidden_size %lld is not a multiple of num_attention_heads %lld and there is no head_dim",
             where, (long long)c->width, (long long)heads);
    c->head_dim = c->width / heads;
    if (has_head_dim)
        TRY(get_bounded(object, "head_dim", where, 1, MAX_HEAD_DIM, &c->head_dim, err));
    if (c->head_dim % 2 || c->head_dim > MAX_HEAD_DIM)
        FAIL(err, STATUS_DATA, "%s: the head size is %lld; rotary positions need an even number up to %d", where,
             (long long)c->head_dim, MAX_HEAD_DIM);
    c->layers = (int)layers;
    c->heads = (int)heads;
    c->kv_heads = (int)kv_heads;
    return STATUS_OK;
}

/* The object of the rotary embedding: rope_scaling, or rope_parameters as newer files call it; NULL if none. */
static enum status find_rope(const struct json *object, const char *where, const struct json **out, struct error *err)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    *out = NULL;
    for (int i = 0; i < 2; i++) {
        const struct json *value = json_member(object, keys[i]);
        if (json_kind(value) == JSON_KIND_NULL)
            continue;
        if (json_kind(value) != JSON_KIND_OBJECT)
            FAIL(err, STATUS_DATA, "%s: '%s' must be null or an object, found %s", where, keys[i],
                 json_kind_name(json_kind(value)));
        *out = value;
    }
    return STATUS_OK;
}

static enum status need_factor(const struct json *rope, const char *key, const char *where, double low, double *out,
                               struct error *err)
{
    if (json_kind(json_member(rope, key)) == JSON_KIND_NULL)
        FAIL(err, STATUS_DATA, "%s: rope_scaling lacks '%s'", where, key);
    return get_positive(rope, key, where, low, out, err);
}

static enum status read_llama3(const struct json *rope, const char *where, struct model_config *c, struct error *err)
{
    c->rope = ROPE_LLAMA3;
    TRY(need_factor(rope, "factor", where, 1, &c->rope_factor, err));
    TRY(need_factor(rope, "low_freq_factor", where, 0, &c->rope_low_freq_factor, err));
    TRY(need_factor(rope, "high_freq_factor", where, 0, &c->rope_high_freq_factor, err));
    int64_t original = 0;
    TRY(get_required(rope, "original_max_position_embeddings", where, MAX_POSITIONS, &original, err));
    c->rope_original_positions = (double)original;
    if (!(c->rope_low_freq_factor < c->rope_high_freq_factor))
        FAIL(err, STATUS_DATA, "%s: rope_scaling: high_freq_factor %g must exceed low_freq_factor %g", where,
             c->rope_high_freq_factor, c->rope_low_freq_factor);
    return STATUS_OK;
}

static enum status read_rope(const struct json *object, const char *where, struct model_config *c, struct error *err)
{
    const struct json *rope;
    const char *type = NULL;
    double partial = 1;
    TRY(find_rope(object, where, &rope, err));
    TRY(get_positive(object, "rope_theta", where, 0, &c->rope_theta, err));
    TRY(get_positive(rope, "rope_theta", where, 0, &c->rope_theta, err));
    TRY(json_get_real(object, "partial_rotary_factor", where, &partial, err));
    TRY(json_get_real(rope, "partial_rotary_factor", where, &partial, err));
    if (partial != 1)
        FAIL(err, STATUS_DATA, "%s: 'partial_rotary_factor' is %g, only 1 is supported", where, partial);
    TRY(json_get_string(rope, "type", where, &type, err));
    TRY(json_get_string(rope, "rope_type", where, &type, err));
    if (rope && !type)
        FAIL(err, STATUS_DATA, "%s: rope_scaling names no 'rope_type'; supported are default, linear and llama3", where);
    if (!type || !strcmp(type, "default"))
        return STATUS_OK;
    if (!strcmp(type, "llama3"))
        return read_llama3(rope, where, c, err);
    if (strcmp(type, "linear"))
        FAIL(err, STATUS_DATA, "%s: rope_scaling of type '%s' is not supported; supported are default, linear and llama3",
             where, type);
    c->rope = ROPE_LINEAR;
    return need_factor(rope, "factor", where, 1, &c->rope_factor, err);
}

/* A switch that must be off. */
static enum status refuse_true(const struct json *object, const char *key, const char *where, const char *why,
                               struct error *err)
{
    bool on = false;
    TRY(json_get_bool(object, key, where, &on, err));
    if (on)
        FAIL(err, STATUS_DATA, "%s: '%s' is true: %s", where, key, why);
    return STATUS_OK;
}

/* Things in the file that would change the numbers and that the model code here does not compute. */
static enum status refuse_unsupported(const struct json *object, const char *where, const struct family *family,
                                      struct error *err)
{
    const char *activation = "silu";
    TRY(json_get_string(object, "hidden_act", where, &activation, err));
    if (strcmp(activation, "silu"))
        FAIL(err, STATUS_DATA, "%s: hidden_act '%s' is not supported; supported is silu", where, activation);
    if (family->type == MODEL_LLAMA) {
        TRY(refuse_true(object, "attention_bias", where, "attention biases of llama models are not supported", err));
        TRY(refuse_true(object, "mlp_bias", where, "biases in the MLP are not supported", err));
    }
    TRY(refuse_true(object, "use_sliding_window", where, "sliding-window attention is not supported", err));
    const struct json *kinds = json_member(object, "layer_types");
    for (size_t i = 0; i < json_count(kinds); i++) {
        const char *kind = json_to_string(json_at(kinds, i), NULL);
        if (!kind || strcmp(kind, "full_attention"))
            FAIL(err, STATUS_DATA, "%s: 'layer_types' gives layer %zu as '%s'; supported is full_attention", where, i,
                 kind ? kind : "not a string");
    }
    if (json_kind(json_member(object, "quantization_config")) != JSON_KIND_NULL)
        FAIL(err, STATUS_DATA, "%s: 'quantization_config': quantized weights are not supported; use F32, F16 or BF16",
             where);
    return STATUS_OK;
}

/* Adds an end token unless it is listed already. */
static enum status add_eos(struct model_config *c, const struct json *id, const char *where, struct error *err)
{
    if (json_kind(id) != JSON_KIND_INT)
        FAIL(err, STATUS_DATA, "%s: 'eos_token_id' must be an integer, a list of integers or null, found %s", where,
             json_kind_name(json_kind(id)));
    int64_t token = json_to_int(id);
    if (token < 0 || token >= c->vocab)
        FAIL(err, STATUS_DATA, "%s: 'eos_token_id' %lld is outside the vocabulary of %lld", where, (long long)token,
             (long long)c->vocab);
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == token)
            return STATUS_OK;
    int limit = (int)(sizeof c->eos / sizeof *c->eos);
    if (c->n_eos == limit)
        FAIL(err, STATUS_DATA, "%s: 'eos_token_id' lists more than %d tokens", where, limit);
    c->eos[c->n_eos++] = (int)token;
    return STATUS_OK;
}

static enum status read_ends(const struct json *object, const char *where, struct model_config *c, struct error *err)
{
    int64_t bos = -1;
    if (json_kind(json_member(object, "bos_token_id")) != JSON_KIND_NULL) {
        TRY(get_bounded(object, "bos_token_id", where, 0, c->vocab - 1, &bos, err));
        c->bos = (int)bos;
    }
    const struct json *eos = json_member(object, "eos_token_id");
    if (json_kind(eos) == JSON_KIND_NULL)
        return STATUS_OK;
    if (json_kind(eos) != JSON_KIND_ARRAY)
        return add_eos(c, eos, where, err);
    for (size_t i = 0; i < json_count(eos); i++)
        TRY(add_eos(c, json_at(eos, i), where, err));
    return STATUS_OK;
}

enum status model_config_from_json(const struct json *object, const char *where, struct model_config *out,
                                   struct error *err)
{
    if (json_kind(object) != JSON_KIND_OBJECT)
        FAIL(err, STATUS_DATA, "%s: a model's configuration must be an object, found %s", where,
             json_kind_name(json_kind(object)));
    const struct family *family = NULL;
    bool classifies = false;
    TRY(find_family(object, where, &family, &classifies, err));
    struct model_config c = {.type = family->type, .max_positions = family->max_positions, .rope_theta = 10000,
                             .rope_factor = 1, .qkv_bias = family->qkv_bias, .norm_eps = 1e-6f, .init_std = 0.02f,
                             .bos = -1, .classifies_only = classifies};
    TRY(refuse_unsupported(object, where, family, err));
    TRY(read_sizes(object, where, &c, err));
    TRY(read_rope(object, where, &c, err));
    TRY(get_positive_float(object, "rms_norm_eps", where, &c.norm_eps, err));
    TRY(get_positive_float(object, "initializer_range", where, &c.init_std, err));
    TRY(json_get_bool(object, "tie_word_embeddings", where, &c.tied, err));
    TRY(read_ends(object, where, &c, err));
    TRY(count_labels(object, where, &c, err));
    *out = c;
    return STATUS_OK;
}

enum status model_config_parse(const char *text, size_t size, const char *where, struct model_config *out,
                               struct error *err)
{
    struct json *object;
    TRY(json_parse(text, size, where, &object, err));
    enum status st = model_config_from_json(object, where, out, err);
    json_free(object);
    return st;
}

static bool is_yaml(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml"));
}

enum status model_config_read_file(const char *path, struct model_config *out, struct error *err)
{
    struct json *object;
    if (is_yaml(path)) {
        struct text text = {0};
        enum status st = yaml_file_to_json_text(path, &text, err);
        if (st == STATUS_OK)
            st = model_config_parse(text.data, text.size, path, out, err);
        text_free(&text);
        return st;
    }
    TRY(json_read_file(path, &object, err));
    enum status st = model_config_from_json(object, path, out, err);
    json_free(object);
    return st;
}

static enum status read_generation(const char *path, struct model_config *c, struct error *err)
{
    struct json *object;
    TRY(json_read_file(path, &object, err));
    enum status st = json_kind(object) == JSON_KIND_OBJECT
                         ? read_ends(object, path, c, err)
                         : error_set(err, STATUS_DATA, "%s: must be an object, found %s", path,
                                     json_kind_name(json_kind(object)));
    json_free(object);
    return st;
}

enum status model_config_read(const char *dir, struct model_config *out, struct error *err)
{
    char *path = path_join(dir, "config.json"), *generation = path_join(dir, "generation_config.json");
    struct model_config c;
    enum status st = STATUS_OK;
    if (!path || !generation)
        st = error_set(err, STATUS_NOMEM, "no memory to read the model folder '%s'", dir);
    if (st == STATUS_OK && !folder_exists(dir))
        st = error_set(err, STATUS_DATA, "the model folder '%s' is not there or not a folder", dir);
    if (st == STATUS_OK && !file_exists(path))
        st = error_set(err, STATUS_DATA, "the model folder '%s' holds no config.json", dir);
    if (st == STATUS_OK)
        st = model_config_read_file(path, &c, err);
    if (st == STATUS_OK && file_exists(generation))
        st = read_generation(generation, &c, err);
    if (st == STATUS_OK)
        *out = c;
    mem_free(path);
    mem_free(generation);
    return st;
}

/* ---- writing ---- */

void model_config_real(struct text *out, double value, bool as_float)
{
    if (value == floor(value) && fabs(value) < 1e15) {
        text_printf(out, "%.1f", value); /* with a point, by which Python tells it from an integer */
        return;
    }
    char digits[40];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (as_float ? strtof(digits, NULL) == (float)value : strtod(digits, NULL) == value)
            break;
    }
    text_puts(out, digits);
}

static void write_number(struct text *out, const char *key, double value, bool as_float)
{
    text_printf(out, "  \"%s\": ", key);
    model_config_real(out, value, as_float);
    text_puts(out, ",\n");
}

static void write_int(struct text *out, const char *key, int64_t value)
{
    text_printf(out, "  \"%s\": %lld,\n", key, (long long)value);
}

static void write_rope(const struct model_config *c, struct text *out)
{
    if (c->rope == ROPE_PLAIN) {
        text_puts(out, "  \"rope_scaling\": null,\n");
        return;
    }
    bool llama3 = c->rope == ROPE_LLAMA3;
    text_puts(out, "  \"rope_scaling\": {\n  ");
    write_number(out, "factor", c->rope_factor, false);
    if (llama3) {
        text_puts(out, "  ");
        write_number(out, "low_freq_factor", c->rope_low_freq_factor, false);
        text_puts(out, "  ");
        write_number(out, "high_freq_factor", c->rope_high_freq_factor, false);
        text_printf(out, "    \"original_max_position_embeddings\": %.0f,\n", c->rope_original_positions);
    }
    text_printf(out, "    \"rope_type\": \"%s\"\n  },\n", llama3 ? "llama3" : "linear");
}

static void write_ends(const struct model_config *c, struct text *out)
{
    if (c->bos >= 0)
        write_int(out, "bos_token_id", c->bos);
    else
        text_puts(out, "  \"bos_token_id\": null,\n");
    if (c->n_eos == 1) {
        write_int(out, "eos_token_id", c->eos[0]);
        return;
    }
    text_puts(out, "  \"eos_token_id\": ");
    if (!c->n_eos)
        text_puts(out, "null");
    for (int i = 0; i < c->n_eos; i++)
        text_printf(out, "%s%d%s", i ? ", " : "[", c->eos[i], i + 1 == c->n_eos ? "]" : "");
    text_puts(out, ",\n");
}

void model_config_write(const struct model_config *c, const char *torch_dtype, struct text *out)
{
    text_printf(out, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n", model_architecture(c),
                family_of(c->type)->model_type);
    if (c->classifies_only)
        write_int(out, "num_labels", c->labels);
    write_int(out, "hidden_size", c->width);
    write_int(out, "intermediate_size", c->hidden);
    write_int(out, "num_hidden_layers", c->layers);
    write_int(out, "num_attention_heads", c->heads);
    write_int(out, "num_key_value_heads", c->kv_heads);
    write_int(out, "head_dim", c->head_dim);
    write_int(out, "vocab_size", c->vocab);
    write_int(out, "max_position_embeddings", c->max_positions);
    write_number(out, "rms_norm_eps", (double)c->norm_eps, true);
    write_number(out, "rope_theta", c->rope_theta, false);
    write_rope(c, out);
    text_puts(out, "  \"hidden_act\": \"silu\",\n");
    if (c->type == MODEL_LLAMA)
        text_puts(out, "  \"attention_bias\": false,\n  \"mlp_bias\": false,\n");
    else
        text_puts(out, "  \"use_sliding_window\": false,\n");
    text_puts(out, "  \"attention_dropout\": 0.0,\n");
    write_number(out, "initializer_range", (double)c->init_std, true);
    text_printf(out, "  \"tie_word_embeddings\": %s,\n", c->tied ? "true" : "false");
    write_ends(c, out);
    text_printf(out, "  \"torch_dtype\": \"%s\",\n  \"use_cache\": true\n}\n", torch_dtype);
}
