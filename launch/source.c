#include "launch/source.h"

#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "launch/loar_block.h"
#include "ps/snapshot.h"
#include "worker/data/tokenizer.h"
#include "worker/model/config.h"
#include "worker/model/import.h"

static enum status allocate(struct source *s, struct error *err)
{
    TRY(model_params(&s->config, &s->table, err));
    s->values = mem_alloc_aligned((size_t)s->table.values, sizeof *s->values);
    if (!s->values)
        FAIL(err, STATUS_NOMEM, "no memory for %lld parameters", (long long)s->table.values);
    return STATUS_OK;
}

/* The options as saved; a snapshot of a later version may hold keys that are not known here, which is an error by name. */
static enum status read_saved_options(struct source *s, const struct snapshot *snapshot, struct error *err)
{
    char *text;
    size_t size;
    TRY(snapshot_text(snapshot, "options", &text, &size, err));
    enum status st = options_parse_text(text, size, "the snapshot's options", 0, NULL, &s->options, NULL, err);
    mem_free(text);
    return st;
}

static enum status load_snapshot(struct source *s, const struct snapshot *snapshot, struct error *err)
{
    char *config = NULL, *json = NULL, *tokenizer_config = NULL;
    size_t config_size, json_size, tokenizer_config_size = 0;
    struct error absent;
    const char *path = snapshot_path(snapshot);
    TRY(read_saved_options(s, snapshot, err));
    enum status st = snapshot_file(snapshot, "config.json", &config, &config_size, err);
    if (st == STATUS_OK)
        st = model_config_parse(config, config_size, path, &s->config, err);
    if (st == STATUS_OK)
        st = loar_block_plan(&s->options, &s->config, err);
    if (st == STATUS_OK)
        st = snapshot_file(snapshot, "tokenizer.json", &json, &json_size, err);
    if (st == STATUS_OK && snapshot_file(snapshot, "tokenizer_config.json", &tokenizer_config, &tokenizer_config_size, &absent) != STATUS_OK)
        tokenizer_config = NULL; /* not every model has one */
    if (st == STATUS_OK)
        st = tokenizer_load_text(json, json_size, tokenizer_config, tokenizer_config_size, path, &s->tokenizer, err);
    if (st == STATUS_OK)
        st = allocate(s, err);
    if (st == STATUS_OK)
        st = snapshot_load(snapshot, &s->table, s->values, 0, NULL, err);
    mem_free(config);
    mem_free(json);
    mem_free(tokenizer_config);
    return st;
}

static enum status load_folder(struct source *s, const char *path, struct error *err)
{
    TRY(options_defaults(&s->options, err));
    TRY(model_config_read(path, &s->config, err));
    TRY(tokenizer_load(path, &s->tokenizer, err));
    TRY(allocate(s, err));
    return model_import(path, &s->config, &s->table, s->values, NULL, err);
}

enum status source_open(const char *path, bool snapshot, struct threads *pool, struct source *out, struct error *err)
{
    *out = (struct source){0};
    enum status st;
    if (snapshot) {
        struct snapshot *file = NULL;
        struct text warnings = {0};
        st = snapshot_open_any(path, &file, &warnings, err);
        if (warnings.size)
            fputs(warnings.data, stderr);
        text_free(&warnings);
        if (st == STATUS_OK)
            st = load_snapshot(out, file, err);
        snapshot_close(file);
    } else {
        st = load_folder(out, path, err);
    }
    if (st == STATUS_OK)
        st = model_create(&out->config, &out->table, &(struct model_options){0}, pool, &out->model, err);
    if (st != STATUS_OK)
        source_close(out);
    return st;
}

void source_close(struct source *s)
{
    model_free(s->model);
    tokenizer_free(s->tokenizer);
    mem_free_aligned(s->values);
    params_free(&s->table);
    loar_block_free(&s->config);
    options_free(&s->options);
    *s = (struct source){0};
}
