#include "worker/model/export.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/text.h"
#include "worker/loar/tensors.h"
#include "worker/model/config.h"
#include "worker/model/training.h"

static const char config_name[] = "config.json", index_name[] = "model.safetensors.index.json";
enum { NAME_SIZE = 64 };

/* What one export is and how far it came; the counts of what was written let a failure remove it. */
struct export {
    const char *dir;
    const struct params *table;
    const float *values;
    const struct export_options *options;
    int64_t shard_bytes;
    int *shard_of; /* [table->count]; -1: left out */
    int shards, shards_written;
    size_t files_written;
};

static bool is_weights(const char *name)
{
    const char *dot = strrchr(name, '.');
    return !strncmp(name, "model", 5) && dot && !strcmp(dot, ".safetensors");
}

bool model_export_owns(const char *name)
{
    return !strcmp(name, config_name) || !strcmp(name, index_name) || is_weights(name);
}

/* Routers keep every bit: scores that are rounded would turn some heads on or off. */
static enum safetensors_dtype dtype_of(const struct export *x, int tensor)
{
    return loar_is_tensor(x->table->items[tensor].name) ? SAFETENSORS_F32 : x->options->dtype;
}

static int64_t bytes_of(const struct export *x, int tensor)
{
    return x->table->items[tensor].size * (dtype_of(x, tensor) == SAFETENSORS_F32 ? 4 : 2);
}

/* Fills shards in forward order; a tensor that exceeds the limit alone gets a file of its own. */
static void plan_shards(struct export *x)
{
    int64_t filled = 0;
    x->shards = 1;
    for (int i = 0; i < x->table->count; i++) {
        int64_t bytes = bytes_of(x, i);
        x->shard_of[i] = -1;
        if (lora_is_tensor(x->table->items[i].name) || (x->options->dense && loar_is_tensor(x->table->items[i].name)))
            continue;
        if (filled && filled + bytes > x->shard_bytes) {
            x->shards++;
            filled = 0;
        }
        filled += bytes;
        x->shard_of[i] = x->shards - 1;
    }
}

static void shard_name(const struct export *x, int shard, char name[NAME_SIZE])
{
    if (x->shards == 1)
        snprintf(name, NAME_SIZE, "model.safetensors");
    else
        snprintf(name, NAME_SIZE, "model-%05d-of-%05d.safetensors", shard + 1, x->shards);
}

static enum status write_shard(struct export *x, int shard, struct error *err)
{
    struct safetensors_tensor *tensors = mem_alloc((size_t)x->table->count, sizeof *tensors);
    char name[NAME_SIZE];
    shard_name(x, shard, name);
    char *path = path_join(x->dir, name);
    enum status st = STATUS_OK;
    size_t count = 0;
    if (!tensors || !path)
        st = error_set(err, STATUS_NOMEM, "no memory to write '%s' in '%s'", name, x->dir);
    for (int i = 0; i < x->table->count && st == STATUS_OK; i++) {
        const struct param *p = &x->table->items[i];
        if (x->shard_of[i] == shard)
            tensors[count++] = (struct safetensors_tensor){p->name, dtype_of(x, i), p->n_dims, p->shape, x->values + params_place(x->table, i)};
    }
    if (st == STATUS_OK)
        st = safetensors_write(path, tensors, count, err);
    mem_free(tensors);
    mem_free(path);
    return st;
}

static int by_name(const void *a, const void *b)
{
    const struct param *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* {"metadata": {"total_size": bytes}, "weight_map": {tensor: file}} in order of the tensors' names. */
static enum status write_index(const struct export *x, struct error *err)
{
    const struct param **order = mem_alloc((size_t)x->table->count, sizeof *order);
    if (!order)
        FAIL(err, STATUS_NOMEM, "no memory for the index in '%s'", x->dir);
    struct text text = {0};
    int64_t total = 0;
    int count = 0;
    for (int i = 0; i < x->table->count; i++)
        if (x->shard_of[i] >= 0) {
            order[count++] = &x->table->items[i];
            total += bytes_of(x, i);
        }
    qsort(order, (size_t)count, sizeof *order, by_name);
    text_printf(&text, "{\n  \"metadata\": {\n    \"total_size\": %lld\n  },\n  \"weight_map\": {", (long long)total);
    for (int i = 0; i < count; i++) {
        char name[NAME_SIZE];
        shard_name(x, x->shard_of[order[i] - x->table->items], name);
        text_puts(&text, i ? ",\n    " : "\n    ");
        text_json_string(&text, order[i]->name, strlen(order[i]->name));
        text_printf(&text, ": \"%s\"", name);
    }
    text_puts(&text, "\n  }\n}\n");
    mem_free(order);
    enum status st = text.failed ? error_set(err, STATUS_NOMEM, "no memory for the index in '%s'", x->dir)
                                 : file_replace_in(x->dir, index_name, text.data, text.size, err);
    text_free(&text);
    return st;
}

/* ---- config.json ---- */

static void write_json(const struct json *value, int indent, struct text *out);

static void write_members(const struct json *value, int indent, bool object, struct text *out)
{
    const void *it = object ? json_first(value) : NULL;
    for (size_t i = 0; i < json_count(value); i++) {
        text_printf(out, "%s\n%*s", i ? "," : "", indent + 2, "");
        if (object) {
            size_t size;
            const char *key = json_it_key(it, &size);
            text_json_string(out, key, size);
            text_puts(out, ": ");
        }
        write_json(object ? json_it_value(it) : json_at(value, i), indent + 2, out);
        if (object)
            it = json_next(value, it);
    }
    if (json_count(value))
        text_printf(out, "\n%*s", indent, "");
}

static void write_json(const struct json *value, int indent, struct text *out)
{
    size_t size;
    switch (json_kind(value)) {
    case JSON_KIND_NULL: text_puts(out, "null"); return;
    case JSON_KIND_BOOL: text_puts(out, json_to_bool(value) ? "true" : "false"); return;
    case JSON_KIND_INT: text_printf(out, "%lld", (long long)json_to_int(value)); return;
    case JSON_KIND_REAL: model_config_real(out, json_to_real(value), false); return;
    case JSON_KIND_STRING: {
        const char *string = json_to_string(value, &size);
        text_json_string(out, string, size);
        return;
    }
    case JSON_KIND_ARRAY:
    case JSON_KIND_OBJECT: {
        bool object = json_kind(value) == JSON_KIND_OBJECT;
        text_puts(out, object ? "{" : "[");
        write_members(value, indent, object, out);
        text_puts(out, object ? "}" : "]");
    }
    }
}

/* The configuration as it was, except for the element type of the weights, which older files call torch_dtype and newer
 * ones dtype. */
static void write_config(const struct json *config, enum safetensors_dtype dtype, struct text *out)
{
    const char *name = dtype == SAFETENSORS_F32 ? "float32" : "bfloat16";
    bool named = false;
    text_puts(out, "{");
    for (const void *it = json_first(config); it; it = json_next(config, it)) {
        size_t size;
        const char *key = json_it_key(it, &size);
        bool is_dtype = !strcmp(key, "torch_dtype") || !strcmp(key, "dtype");
        named |= is_dtype;
        text_puts(out, it == json_first(config) ? "\n  " : ",\n  ");
        text_json_string(out, key, size);
        text_puts(out, ": ");
        if (is_dtype)
            text_printf(out, "\"%s\"", name);
        else
            write_json(json_it_value(it), 2, out);
    }
    if (!named)
        text_printf(out, "%s\n  \"torch_dtype\": \"%s\"", json_count(config) ? "," : "", name);
    text_puts(out, "\n}\n");
}

static enum status make_config(const char *text, size_t size, enum safetensors_dtype dtype, struct text *out,
                               struct error *err)
{
    struct json *config;
    TRY(json_parse(text, size, config_name, &config, err));
    enum status st = STATUS_OK;
    if (json_kind(config) != JSON_KIND_OBJECT)
        st = error_set(err, STATUS_DATA, "%s to export must be an object, found %s", config_name,
                       json_kind_name(json_kind(config)));
    else
        write_config(config, dtype, out);
    json_free(config);
    if (st == STATUS_OK && out->failed)
        st = error_set(err, STATUS_NOMEM, "no memory for %s", config_name);
    return st;
}

/* ---- the folder ---- */

static enum status check_request(const struct export_file *files, size_t n_files, const struct export_options *options,
                                 struct error *err)
{
    if (options->dtype != SAFETENSORS_F32 && options->dtype != SAFETENSORS_BF16)
        FAIL(err, STATUS_USAGE, "a model can be exported as F32 or BF16, not as %s", safetensors_dtype_name(options->dtype));
    for (size_t i = 0; i < n_files; i++)
        if (!*files[i].name || *files[i].name == '.' || strchr(files[i].name, '/') || model_export_owns(files[i].name))
            FAIL(err, STATUS_DATA,
                 "'%s' cannot go along with an exported model: not a plain file name, or one that the export writes itself",
                 files[i].name);
    return STATUS_OK;
}

/* Makes the folder, or makes sure that it may be used; takes an old config.json away first. */
static enum status prepare_folder(const struct export *x, struct error *err)
{
    if (!folder_is_empty(x->dir)) {
        if (!folder_exists(x->dir))
            FAIL(err, STATUS_USAGE, "cannot export to '%s': it is not a folder, or cannot be read", x->dir);
        if (!x->options->overwrite)
            FAIL(err, STATUS_USAGE, "the folder '%s' is not empty; name another one, or give --overwrite", x->dir);
    }
    TRY(folder_make(x->dir, err));
    file_remove_in(x->dir, config_name);
    return STATUS_OK;
}

/* Weights of an earlier export that are not part of this one would be read in place of the new ones, or waste the disk; its
 * routing would be taken for that of this model. */
static enum status remove_stale(const struct export *x, const struct export_file *files, size_t n_files, struct error *err)
{
    bool routed = false;
    for (size_t i = 0; i < n_files; i++)
        routed = routed || !strcmp(files[i].name, MODEL_ROUTING_FILE);
    if (!routed)
        file_remove_in(x->dir, MODEL_ROUTING_FILE);
    DIR *dir = opendir(x->dir);
    if (!dir)
        FAIL(err, STATUS_IO, "cannot list the folder '%s': %s", x->dir, strerror(errno));
    for (struct dirent *e; (e = readdir(dir));) {
        bool ours = x->shards > 1 && !strcmp(e->d_name, index_name);
        for (int i = 0; i < x->shards && !ours; i++) {
            char name[NAME_SIZE];
            shard_name(x, i, name);
            ours = !strcmp(e->d_name, name);
        }
        if (!ours && model_export_owns(e->d_name))
            file_remove_in(x->dir, e->d_name);
    }
    closedir(dir);
    return STATUS_OK;
}

static enum status write_folder(struct export *x, const struct text *config, const struct export_file *files,
                                size_t n_files, struct error *err)
{
    for (; x->shards_written < x->shards; x->shards_written++)
        TRY(write_shard(x, x->shards_written, err));
    if (x->shards > 1)
        TRY(write_index(x, err));
    if (x->options->overwrite)
        TRY(remove_stale(x, files, n_files, err));
    for (; x->files_written < n_files; x->files_written++) {
        const struct export_file *file = &files[x->files_written];
        TRY(file_replace_in(x->dir, file->name, file->data, file->size, err));
    }
    return file_replace_in(x->dir, config_name, config->data, config->size, err);
}

/* The file at which it stopped may be there too, when only flushing the folder failed. In a folder that was empty it is
 * ours; when overwriting, it may be the old one and stays, harmless without a config.json. */
static void remove_written(const struct export *x, const struct export_file *files, size_t n_files)
{
    int unfinished = !x->options->overwrite;
    for (int i = 0; i < x->shards_written + unfinished && i < x->shards; i++) {
        char name[NAME_SIZE];
        shard_name(x, i, name);
        file_remove_in(x->dir, name);
    }
    for (size_t i = 0; i < x->files_written + (size_t)unfinished && i < n_files; i++)
        file_remove_in(x->dir, files[i].name);
    file_remove_in(x->dir, index_name);
    file_remove_in(x->dir, config_name);
}

enum status model_export(const char *dir, const char *config_json, size_t config_size, const struct export_file *files,
                         size_t n_files, const struct params *table, const float *values,
                         const struct export_options *options, struct error *err)
{
    TRY(check_request(files, n_files, options, err));
    struct export x = {.dir = dir, .table = table, .values = values, .options = options,
                       .shard_bytes = options->shard_bytes ? options->shard_bytes : INT64_C(5000000000)};
    struct text config = {0};
    enum status st = make_config(config_json, config_size, options->dtype, &config, err);
    if (st == STATUS_OK && !(x.shard_of = mem_alloc((size_t)table->count, sizeof *x.shard_of)))
        st = error_set(err, STATUS_NOMEM, "no memory to export %d tensors", table->count);
    if (st == STATUS_OK) {
        plan_shards(&x);
        st = prepare_folder(&x, err);
    }
    if (st == STATUS_OK) {
        st = write_folder(&x, &config, files, n_files, err);
        if (st != STATUS_OK)
            remove_written(&x, files, n_files);
    }
    mem_free(x.shard_of);
    text_free(&config);
    return st;
}
