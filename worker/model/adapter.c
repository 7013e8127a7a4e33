#include "worker/model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/text.h"
#include "worker/loar/tensors.h"
#include "worker/model/config_labels.h"
#include "worker/model/model.h"

static const char config_name[] = ADAPTER_CONFIG_FILE, weights_name[] = "adapter_model.safetensors", prefix[] = "base_model.model.";
enum { NAME_SIZE = 256 };

static char *path_in(const char *dir, const char *name, struct error *err)
{
    char *path = path_join(dir, name);
    if (!path)
        error_set(err, STATUS_NOMEM, "no memory for the path of '%s' in '%s'", name, dir);
    return path;
}

bool adapter_is_folder(const char *dir)
{
    char *config = path_join(dir, config_name), *model = path_join(dir, "config.json");
    bool is = config && model && file_exists(config) && !file_exists(model);
    mem_free(config);
    mem_free(model);
    return is;
}

/* ---- reading adapter_config.json ---- */

/* Keys that change what adapters compute, with the only value that is understood: null, false or empty. */
static enum status check_plain(const struct json *config, const char *where, struct error *err)
{
    static const char *const keys[] = {"use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "layers_to_transform", "layer_replication",
                                       "lora_bias", "trainable_token_indices", "target_parameters", "exclude_modules", "alora_invocation_tokens"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct json *value = json_member(config, keys[i]);
        enum json_kind kind = json_kind(value);
        bool plain = kind == JSON_KIND_NULL || (kind == JSON_KIND_BOOL && !json_to_bool(value)) ||
                     ((kind == JSON_KIND_OBJECT || kind == JSON_KIND_ARRAY) && !json_count(value));
        if (!plain)
            FAIL(err, STATUS_DATA, "%s: '%s' is set: only plain LoRA is understood; merge the adapter with PEFT (merge_and_unload) and "
                 "use the whole model", where, keys[i]);
    }
    const char *type = "", *bias = "none";
    TRY(json_get_string(config, "peft_type", where, &type, err));
    TRY(json_get_string(config, "bias", where, &bias, err));
    if (strcmp(type, "LORA") || strcmp(bias, "none"))
        FAIL(err, STATUS_DATA, "%s: peft_type is '%s' and bias '%s'; LORA and none are understood", where, type, bias);
    return STATUS_OK;
}

/* A list of names, or one; "all-linear" is every linear map. Copies go behind those of `out`. */
static enum status read_words(const struct json *value, const char *key, const char *where, struct adapter *out, struct error *err)
{
    bool single = json_kind(value) == JSON_KIND_STRING;
    size_t count = single ? 1 : json_count(value);
    if (!single && json_kind(value) != JSON_KIND_ARRAY && json_kind(value) != JSON_KIND_NULL)
        FAIL(err, STATUS_DATA, "%s: '%s' must be a list of names, found %s", where, key, json_kind_name(json_kind(value)));
    for (size_t i = 0; i < count; i++) {
        const char *name = json_to_string(single ? value : json_at(value, i), NULL);
        if (!name)
            FAIL(err, STATUS_DATA, "%s: '%s' must be a list of names", where, key);
        char **grown = mem_realloc(out->modules, out->n_modules + 1, sizeof *grown);
        if (!grown)
            FAIL(err, STATUS_NOMEM, "%s: no memory for the names in '%s'", where, key);
        out->modules = grown;
        if (!(grown[out->n_modules] = mem_strdup(strcmp(name, "all-linear") ? name : "all")))
            FAIL(err, STATUS_NOMEM, "%s: no memory for the names in '%s'", where, key);
        out->n_modules++;
    }
    return STATUS_OK;
}

static enum status read_scale(const struct json *config, const char *where, struct lora *out, struct error *err)
{
    int64_t rank = 8;
    *out = (struct lora){.alpha = 8};
    TRY(json_get_int(config, "r", where, &rank, err));
    TRY(json_get_real(config, "lora_alpha", where, &out->alpha, err));
    TRY(json_get_real(config, "lora_dropout", where, &out->dropout, err));
    TRY(json_get_bool(config, "use_rslora", where, &out->rslora, err));
    if (rank < 1 || rank > 65536 || !isfinite(out->alpha) || !(out->dropout >= 0 && out->dropout < 1))
        FAIL(err, STATUS_DATA, "%s: r is %lld, lora_alpha %g, lora_dropout %g; 1 to 65536, a finite number, and 0 to below 1 are allowed", where,
             (long long)rank, out->alpha, out->dropout);
    out->rank = (int)rank;
    return STATUS_OK;
}

static enum status read_config(const struct json *config, const char *where, struct adapter *out, struct error *err)
{
    if (json_kind(config) != JSON_KIND_OBJECT)
        FAIL(err, STATUS_DATA, "%s: must be an object, found %s", where, json_kind_name(json_kind(config)));
    struct training *training = &out->training;
    training->kind = TRAIN_ADAPTERS;
    TRY(check_plain(config, where, err));
    TRY(read_scale(config, where, &training->lora, err));
    TRY(read_words(json_member(config, "target_modules"), "target_modules", where, out, err));
    size_t targets = out->n_modules;
    TRY(read_words(json_member(config, "modules_to_save"), "modules_to_save", where, out, err));
    const struct words words = {out->modules, targets};
    enum status st = targets ? lora_set_targets(&training->lora, &words, err) : error_set(err, STATUS_USAGE, "target_modules is missing");
    if (st != STATUS_OK) {
        error_prefix(err, "%s", where);
        return STATUS_DATA;
    }
    training->modules_by_end = true;
    training->modules = (struct words){out->modules + targets, out->n_modules - targets};
    const char *base = NULL;
    TRY(json_get_string(config, "base_model_name_or_path", where, &base, err));
    if (base && !(out->base = mem_strdup(base)))
        FAIL(err, STATUS_NOMEM, "%s: no memory for base_model_name_or_path", where);
    return STATUS_OK;
}

enum status adapter_read_config(const char *dir, struct adapter *out, struct error *err)
{
    struct json *config = NULL;
    char *path = path_in(dir, config_name, err);
    *out = (struct adapter){0};
    if (!path)
        return STATUS_NOMEM;
    enum status st = json_read_file(path, &config, err);
    if (st == STATUS_OK)
        st = read_config(config, path, out, err);
    json_free(config);
    mem_free(path);
    if (st != STATUS_OK)
        adapter_free(out);
    return st;
}

void adapter_free(struct adapter *adapter)
{
    for (size_t i = 0; i < adapter->n_modules; i++)
        mem_free(adapter->modules[i]);
    mem_free(adapter->modules);
    mem_free(adapter->base);
    *adapter = (struct adapter){0};
}

/* ---- reading adapter_model.safetensors ---- */

static void saved_name(const char *tensor, char out[NAME_SIZE])
{
    snprintf(out, NAME_SIZE, "%s%s", prefix, tensor);
}

static enum status read_tensor(const struct safetensors *set, const char *dir, const struct param *p, float *values, struct error *err)
{
    char name[NAME_SIZE], found[128], wanted[128];
    saved_name(p->name, name);
    const struct safetensors_entry *entry = safetensors_find(set, name);
    if (!entry && loar_is_tensor(p->name))
        return STATUS_OK;
    if (!entry)
        FAIL(err, STATUS_DATA, "'%s' lacks the tensor '%s' that its " ADAPTER_CONFIG_FILE " and the model ask for", dir, name);
    if (entry->n_dims != p->n_dims || memcmp(entry->shape, p->shape, (size_t)p->n_dims * sizeof *p->shape)) {
        safetensors_shape_text(entry->shape, entry->n_dims, found, sizeof found);
        safetensors_shape_text(p->shape, p->n_dims, wanted, sizeof wanted);
        FAIL(err, STATUS_DATA, "%s: tensor '%s' has the shape %s, " ADAPTER_CONFIG_FILE " and the model ask for %s", entry->file, name, found, wanted);
    }
    TRY(safetensors_to_float(entry, values, err));
    for (int64_t i = 0; i < p->size; i++)
        if (!isfinite(values[i]))
            FAIL(err, STATUS_NUMERIC, "%s: tensor '%s' holds %g at index %lld: the adapter is damaged", entry->file, name, (double)values[i],
                 (long long)i);
    return STATUS_OK;
}

/* Where input and output embeddings are one tensor, PEFT has to be given both: it keeps copies of saved modules apart. */
static const struct param *tied_embedding(const struct params *table)
{
    int at = params_find(table, "model.embed_tokens.weight");
    bool tied = at >= 0 && table->items[at].role == PARAM_TRAINED && params_find(table, "lm_head.weight") < 0;
    return tied ? &table->items[at] : NULL;
}

static const char tied_head[] = "base_model.model.lm_head.weight";

static enum status check_tied(const struct safetensors_entry *entry, const char *dir, const struct param *embedding, const float *values,
                              struct error *err)
{
    float *head = entry->count == embedding->size ? mem_alloc((size_t)entry->count, sizeof *head) : NULL;
    if (!head && entry->count == embedding->size)
        FAIL(err, STATUS_NOMEM, "'%s': no memory to check '%s'", dir, tied_head);
    enum status st = head ? safetensors_to_float(entry, head, err) : STATUS_OK;
    if (st == STATUS_OK && (!head || memcmp(head, values + embedding->offset, (size_t)embedding->size * sizeof *head)))
        st = error_set(err, STATUS_DATA, "'%s' holds the tensor '%s', which differs from embed_tokens, while the model's config.json says that both "
                       "are one (tie_word_embeddings)", dir, tied_head);
    mem_free(head);
    return st;
}

static enum status read_all(const struct safetensors *set, const char *dir, const struct params *table, float *values, struct error *err)
{
    const struct param *tied = tied_embedding(table);
    for (int i = 0; i < table->count; i++)
        if (table->items[i].role == PARAM_TRAINED)
            TRY(read_tensor(set, dir, &table->items[i], values + table->items[i].offset, err));
    for (size_t i = 0; i < safetensors_count(set); i++) {
        const char *name = safetensors_at(set, i)->name;
        bool named = !strncmp(name, prefix, sizeof prefix - 1);
        int at = named ? params_find(table, name + sizeof prefix - 1) : -1;
        if (tied && !strcmp(name, tied_head))
            TRY(check_tied(safetensors_at(set, i), dir, tied, values, err));
        else if (at < 0 || table->items[at].role != PARAM_TRAINED)
            FAIL(err, STATUS_DATA, "'%s' holds the tensor '%s', which is no adapter or saved module that its " ADAPTER_CONFIG_FILE " names for "
                 "this model", dir, name);
    }
    return STATUS_OK;
}

enum status adapter_read(const char *dir, const struct params *table, float *values, struct error *err)
{
    struct safetensors *set;
    char *path = path_in(dir, weights_name, err);
    if (!path)
        return STATUS_NOMEM;
    enum status st = safetensors_open(path, &set, err);
    mem_free(path);
    TRY(st);
    st = read_all(set, dir, table, values, err);
    safetensors_close(set);
    return st;
}

/* ---- writing ---- */

/* Whole paths of the modules, for PEFT takes every module whose name ends with one that is listed: "norm" would be all norms. */
static void put_modules(struct text *out, const struct params *table)
{
    const char *separator = "[", *last = "";
    size_t last_size = 0;
    size_t begin = out->size;
    for (int i = 0; i < table->count; i++) {
        const char *name = table->items[i].name, *end = strrchr(name, '.');
        size_t size = end ? (size_t)(end - name) : strlen(name);
        bool again = size == last_size && !memcmp(name, last, size); /* the bias behind its weight */
        if (table->items[i].role != PARAM_TRAINED || lora_is_tensor(name) || loar_is_tensor(name) || again)
            continue;
        text_puts(out, separator);
        text_json_string(out, name, size);
        separator = ", ";
        last = name;
        last_size = size;
    }
    if (tied_embedding(table))
        text_printf(out, "%s\"lm_head\"", separator);
    text_puts(out, out->size > begin ? "]" : "null");
}

static void put_config(struct text *out, const struct training *t, const struct params *table, const char *base)
{
    const char *separator = "";
    text_printf(out, "{\n  \"peft_type\": \"LORA\",\n  \"task_type\": \"%s\",\n  \"base_model_name_or_path\": ",
                params_find(table, MODEL_SCORE_TENSOR) < 0 ? "CAUSAL_LM" : "SEQ_CLS");
    text_json_string(out, base, strlen(base));
    text_printf(out, ",\n  \"r\": %d,\n  \"lora_alpha\": %.17g,\n  \"lora_dropout\": %.17g,\n  \"use_rslora\": %s,\n  \"target_modules\": [",
                t->lora.rank, t->lora.alpha, t->lora.dropout, t->lora.rslora ? "true" : "false");
    for (int m = 0; m < LORA_MODULES; m++)
        if (t->lora.targets & 1u << m) {
            text_printf(out, "%s\"%s\"", separator, lora_module_name((enum lora_module)m));
            separator = ", ";
        }
    text_puts(out, "],\n  \"modules_to_save\": ");
    put_modules(out, table);
    text_puts(out, ",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n  \"init_lora_weights\": true,\n  \"inference_mode\": true\n}\n");
}

static enum status write_weights(const char *dir, const struct params *table, const float *values, const struct export_options *options,
                                 struct error *err)
{
    struct safetensors_tensor *tensors = mem_alloc((size_t)table->count + 1, sizeof *tensors);
    const struct param *tied = tied_embedding(table);
    char(*names)[NAME_SIZE] = mem_alloc((size_t)table->count, sizeof *names), *path = path_in(dir, weights_name, err);
    enum status st = tensors && names && path ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory to write '%s' in '%s'", weights_name, dir);
    size_t count = 0;
    for (int i = 0; i < table->count && st == STATUS_OK; i++) {
        const struct param *p = &table->items[i];
        bool router = loar_is_tensor(p->name);
        if (p->role != PARAM_TRAINED || (router && options->dense))
            continue;
        saved_name(p->name, names[count]);
        tensors[count] = (struct safetensors_tensor){names[count], router ? SAFETENSORS_F32 : options->dtype, p->n_dims, p->shape,
                                                     values + p->offset};
        count++;
    }
    if (st == STATUS_OK && tied)
        tensors[count++] = (struct safetensors_tensor){tied_head, options->dtype, tied->n_dims, tied->shape, values + tied->offset};
    if (st == STATUS_OK)
        st = safetensors_write(path, tensors, count, err);
    mem_free(tensors);
    mem_free(names);
    mem_free(path);
    return st;
}

static enum status write_folder(const char *dir, const struct text *config, const struct export_file *files, size_t n_files,
                                const struct params *table, const float *values, const struct export_options *options, struct error *err)
{
    TRY(write_weights(dir, table, values, options, err));
    for (size_t i = 0; i < n_files; i++)
        TRY(file_replace_in(dir, files[i].name, files[i].data, files[i].size, err));
    return file_replace_in(dir, config_name, config->data, config->size, err);
}

/* An old configuration goes first and the new one comes last, so that half an adapter is never taken for one. */
enum status adapter_write(const char *dir, const struct training *training, const char *base, const struct export_file *files,
                          size_t n_files, const struct params *table, const float *values, const struct export_options *options,
                          struct error *err)
{
    struct text config = {0};
    if (!folder_is_empty(dir) && !options->overwrite)
        FAIL(err, STATUS_USAGE, "the folder '%s' is not empty; name another one, or give --overwrite", dir);
    put_config(&config, training, table, base);
    enum status st = config.failed ? error_set(err, STATUS_NOMEM, "no memory for " ADAPTER_CONFIG_FILE) : folder_make(dir, err);
    if (st == STATUS_OK) {
        file_remove_in(dir, config_name);
        file_remove_in(dir, MODEL_ROUTING_FILE);
        file_remove_in(dir, ADAPTER_LABELS_FILE);
        st = write_folder(dir, &config, files, n_files, table, values, options, err);
        if (st != STATUS_OK) /* it is there when only flushing the folder failed */
            file_remove_in(dir, config_name);
    }
    text_free(&config);
    return st;
}
