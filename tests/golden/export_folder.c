/* Imports a model folder and exports it again, for tests/golden/export_transformers.py.
 * usage: export_folder MODEL OUT f32|bf16 SHARD_BYTES   (0: one file)
 *        export_folder --loss MODEL ROWS.json           mean loss over every next token, one line for each [ids]
 *        export_folder --scores MODEL ROWS.json         scores of all labels from the last token, one line for each [ids]
 *        export_folder --scratch CONFIG.json OUT       new weights, config.json written by this program
 *        export_folder --routed CONFIG.json OUT        the same weights and routers in every layer */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/text.h"
#include "worker/model/config.h"
#include "worker/model/export.h"
#include "worker/model/import.h"

static enum status write_out(const char *out, const char *config_json, size_t size, const struct params *table,
                             const float *values, enum safetensors_dtype dtype, int64_t shard_bytes, struct error *err)
{
    struct export_options options = {.dtype = dtype, .overwrite = true, .shard_bytes = shard_bytes};
    return model_export(out, config_json, size, NULL, 0, table, values, &options, err);
}

static enum status copy_model(const char *dir, const char *out, enum safetensors_dtype dtype, int64_t shard_bytes,
                              struct error *err)
{
    struct model_config config;
    struct params table = {0};
    TRY(model_config_read(dir, &config, err));
    TRY(model_params(&config, &table, err));
    float *values = mem_alloc_aligned((size_t)table.values, sizeof *values);
    char *path = path_join(dir, "config.json"), *text = NULL;
    size_t size = 0;
    enum status st = values && path ? file_read(path, &text, &size, err) : error_set(err, STATUS_NOMEM, "no memory");
    if (st == STATUS_OK)
        st = model_import(dir, &config, &table, NULL, values, NULL, err);
    if (st == STATUS_OK)
        st = write_out(out, text, size, &table, values, dtype, shard_bytes, err);
    mem_free(path);
    mem_free(text);
    mem_free_aligned(values);
    params_free(&table);
    return st;
}

static enum status print_scores(struct model *model, const float *values, const struct batch *batch, int labels, struct error *err)
{
    float *scores = mem_alloc((size_t)labels, sizeof *scores);
    enum status st = scores ? model_scores(model, values, batch, scores, err) : error_set(err, STATUS_NOMEM, "no memory");
    for (int i = 0; i < labels && st == STATUS_OK; i++)
        printf("%.9g%c", (double)scores[i], i + 1 < labels ? ' ' : '\n');
    mem_free(scores);
    return st;
}

/* Mean loss of one row by our own forward pass; labels > 0: their scores instead. */
static enum status print_loss(struct model *model, const float *values, const struct json *ids, int labels, struct error *err)
{
    static const float span_weights[SPAN_COUNT] = {1, 1, 1, 1};
    int n = (int)json_count(ids);
    struct row row = {.n_tokens = n, .weight = 1};
    row.tokens = mem_alloc((size_t)n, sizeof *row.tokens);
    row.spans = mem_alloc((size_t)n, sizeof *row.spans);
    enum status st = row.tokens && row.spans ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory");
    for (int i = 0; i < n && st == STATUS_OK; i++) {
        row.tokens[i] = (int32_t)json_to_int(json_at(ids, (size_t)i));
        row.spans[i] = SPAN_ANSWER;
    }
    struct batch batch = {0};
    struct loss_sums sums = {0};
    if (st == STATUS_OK)
        st = batch_append(&batch, &row, span_weights, err);
    if (st == STATUS_OK)
        st = labels ? print_scores(model, values, &batch, labels, err) : model_loss(model, values, &batch, &sums, err);
    if (st == STATUS_OK && !labels)
        printf("%.9g\n", sums.loss / sums.weight);
    batch_free(&batch);
    mem_free(row.tokens);
    mem_free(row.spans);
    return st;
}

static enum status print_losses(const char *dir, const char *rows_path, bool scores, struct error *err)
{
    struct model_config config;
    struct params table = {0};
    struct model_options options = {0};
    struct threads *pool = NULL;
    struct model *model = NULL;
    struct json *rows = NULL;
    TRY(model_config_read(dir, &config, err));
    TRY(model_params(&config, &table, err));
    float *values = mem_alloc_aligned((size_t)table.values, sizeof *values);
    enum status st = values ? json_read_file(rows_path, &rows, err) : error_set(err, STATUS_NOMEM, "no memory");
    if (st == STATUS_OK)
        st = model_import(dir, &config, &table, NULL, values, NULL, err);
    if (st == STATUS_OK)
        st = threads_create(1, &pool, err);
    if (st == STATUS_OK)
        st = model_create(&config, &table, &options, pool, &model, err);
    for (size_t i = 0; i < json_count(rows) && st == STATUS_OK; i++)
        st = print_loss(model, values, json_at(rows, i), scores ? config.labels : 0, err);
    model_free(model);
    if (pool)
        threads_free(pool);
    json_free(rows);
    mem_free_aligned(values);
    params_free(&table);
    return st;
}

static enum status new_model(const char *config_path, const char *out, bool routed, struct error *err)
{
    enum { LAYERS = 64 };
    static struct loar_layer layers[LAYERS];
    static struct loar_plan plan = {.layers = layers};
    struct model_config config;
    struct params table = {0};
    struct text text = {0};
    TRY(model_config_read_file(config_path, &config, err));
    plan.config = LOAR_CONFIG_DEFAULT;
    for (int i = 0; i < LAYERS; i++)
        layers[i] = (struct loar_layer){.routed = true, .budget = 0.5};
    if (routed && config.layers <= LAYERS)
        config.loar = &plan;
    TRY(model_params(&config, &table, err));
    model_config_write(&config, "float32", &text);
    float *values = mem_alloc_aligned((size_t)table.values, sizeof *values);
    enum status st = values && !text.failed ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory");
    if (st == STATUS_OK) {
        params_initialise(&table, 1, values);
        st = write_out(out, text.data, text.size, &table, values, SAFETENSORS_F32, 0, err);
    }
    text_free(&text);
    mem_free_aligned(values);
    params_free(&table);
    return st;
}

int main(int argc, char **argv)
{
    struct error err;
    enum status st;
    if (argc == 4 && !strcmp(argv[1], "--scratch"))
        st = new_model(argv[2], argv[3], false, &err);
    else if (argc == 4 && !strcmp(argv[1], "--routed"))
        st = new_model(argv[2], argv[3], true, &err);
    else if (argc == 4 && (!strcmp(argv[1], "--loss") || !strcmp(argv[1], "--scores")))
        st = print_losses(argv[2], argv[3], !strcmp(argv[1], "--scores"), &err);
    else if (argc == 5)
        st = copy_model(argv[1], argv[2], strcmp(argv[3], "bf16") ? SAFETENSORS_F32 : SAFETENSORS_BF16,
                        strtoll(argv[4], NULL, 10), &err);
    else
        st = error_set(&err, STATUS_USAGE, "usage: export_folder MODEL OUT f32|bf16 SHARD_BYTES | --loss | --scores MODEL ROWS.json | "
                                         "--scratch | --routed CONFIG.json OUT");
    if (st != STATUS_OK)
        fprintf(stderr, "export_folder: %s\n", err.text);
    return status_exit_code(st);
}
