#include "launch/source.h"

#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/log.h"
#include "common/memory.h"
#include "launch/loar_block.h"
#include "launch/loar_folder.h"
#include "launch/trained.h"
#include "launch/run.h"
#include "launch/template_choice.h"
#include "ps/snapshot.h"
#include "worker/data/tokenizer.h"
#include "worker/model/config.h"
#include "worker/model/config_labels.h"
#include "worker/model/export.h"
#include "worker/model/import.h"

const char *const source_carried[SOURCE_CARRIED] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                                    "generation_config.json", "chat_template.jinja"};

static enum status allocate(struct source *s, struct error *err)
{
    TRY(model_params(&s->config, &s->table, err));
    s->values = mem_alloc_aligned((size_t)params_room(&s->table), sizeof *s->values);
    if (!s->values)
        FAIL(err, STATUS_NOMEM, "no memory for %lld parameters", (long long)params_room(&s->table));
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

static enum status use_routing(struct source *s, enum status st)
{
    if (st == STATUS_OK && s->loar)
        s->config.loar = &s->loar->plan;
    return st;
}

/* As the snapshot's own loar_config.json says; those of earlier versions have none, and follow from the options. */
static enum status read_saved_routing(struct source *s, const struct snapshot *snapshot, struct error *err)
{
    char *text = NULL;
    size_t size;
    bool there = false;
    for (int i = 0; i < snapshot_files(snapshot); i++)
        there = there || !strcmp(snapshot_file_at(snapshot, i), MODEL_ROUTING_FILE);
    if (!there)
        return use_routing(s, loar_block_read(&s->options, &s->config, &s->loar, err));
    TRY(snapshot_file(snapshot, MODEL_ROUTING_FILE, &text, &size, err));
    enum status st = loar_folder_parse(text, size, MODEL_ROUTING_FILE " of the snapshot", &s->config, &s->loar, err);
    mem_free(text);
    return use_routing(s, st);
}

enum status source_check_base(const struct snapshot *snapshot, const char *folder, const char *frozen_digest, const char *option,
                              struct error *err)
{
    const char *wanted = snapshot_meta(snapshot)->base_digest;
    if (!strcmp(wanted, frozen_digest))
        return STATUS_OK;
    FAIL(err, STATUS_DATA, "'%s' was trained beside another model than that in '%s': its frozen tensors have the digest %s, the folder's "
         "%s; let %s name the right folder", snapshot_path(snapshot), folder, *wanted ? wanted : "(none)", frozen_digest, option);
}

/* Puts the frozen tensors behind the trained ones. */
static enum status read_base(struct source *s, const struct snapshot *snapshot, const char *base, struct error *err)
{
    struct import_options how = {.new_routers = true, .new_scores = true, .keep_frozen = true}; /* the snapshot has its own */
    struct import_report report;
    char *saved = NULL;
    size_t size;
    if (!s->table.frozen)
        return STATUS_OK;
    if (!base)
        TRY(snapshot_text(snapshot, "base", &saved, &size, err));
    const char *folder = base ? base : saved;
    enum status st = model_import(folder, &s->config, &s->table, &how, s->values, &report, err);
    if (st != STATUS_OK)
        error_prefix(err, "'%s' holds only what was trained; the model that it belongs to (--base names its folder)", snapshot_path(snapshot));
    else
        st = source_check_base(snapshot, folder, report.frozen_digest, "--base", err);
    mem_free(saved);
    return st;
}

static enum status read_snapshot(struct source *s, const struct snapshot *snapshot, const char *base, struct error *err)
{
    char *config;
    size_t size;
    TRY(read_saved_options(s, snapshot, err));
    TRY(snapshot_file(snapshot, "config.json", &config, &size, err));
    enum status st = model_config_parse(config, size, snapshot_path(snapshot), &s->config, err);
    if (st == STATUS_OK)
        st = config_labels_parse(config, size, snapshot_path(snapshot), &s->labels, err);
    mem_free(config);
    TRY(st);
    TRY(read_saved_routing(s, snapshot, err));
    TRY(trained_read(&s->options, &s->config.training, err));
    TRY(allocate(s, err));
    TRY(read_base(s, snapshot, base, err));
    return snapshot_load(snapshot, &s->table, s->values, 0, NULL, err);
}

enum status source_of_snapshot(const struct snapshot *snapshot, const char *base, struct source *out, struct error *err)
{
    *out = (struct source){0};
    enum status st = read_snapshot(out, snapshot, base, err);
    if (st != STATUS_OK)
        source_close(out);
    return st;
}

static enum status load_snapshot(struct source *s, const struct snapshot *snapshot, const char *base, struct error *err)
{
    char *json = NULL, *tokenizer_config = NULL;
    size_t json_size, tokenizer_config_size = 0;
    struct error absent;
    TRY(read_snapshot(s, snapshot, base, err));
    s->knows_template = true;
    TRY(snapshot_file(snapshot, "tokenizer.json", &json, &json_size, err));
    if (snapshot_file(snapshot, "tokenizer_config.json", &tokenizer_config, &tokenizer_config_size, &absent) != STATUS_OK)
        tokenizer_config = NULL; /* not every model has one */
    enum status st = tokenizer_load_text(json, json_size, tokenizer_config, tokenizer_config_size, snapshot_path(snapshot),
                                         &s->tokenizer, err);
    mem_free(json);
    mem_free(tokenizer_config);
    return st;
}

/* Which folder holds the model: the one given, or, beside adapters, the one they belong to. */
static enum status find_model(struct source *s, const char *path, const char *base, const char **model, struct error *err)
{
    *model = path;
    if (!base && !adapter_is_folder(path))
        return STATUS_OK;
    TRY(adapter_read_config(path, &s->adapter, err));
    *model = base ? base : s->adapter.base;
    if (!*model || !folder_exists(*model))
        FAIL(err, STATUS_DATA, "'%s' holds adapters alone, and the model that they belong to is not in '%s'; let --base name its folder", path,
             *model ? *model : "(no base_model_name_or_path)");
    return STATUS_OK;
}

/* Routing goes with what was trained last. */
static enum status read_folder_routing(struct source *s, const char *path, const char *model, struct error *err)
{
    TRY(loar_folder_read(path, &s->config, &s->loar, err));
    return use_routing(s, s->loar || path == model ? STATUS_OK : loar_folder_read(model, &s->config, &s->loar, err));
}

/* A folder that was made of a snapshot says how its model was trained. */
static enum status use_folder_template(struct source *s, const char *folder, struct error *err)
{
    char *path = path_join(folder, RUN_TEMPLATE_FILE);
    if (!path)
        FAIL(err, STATUS_NOMEM, "no memory for the path of '%s/" RUN_TEMPLATE_FILE "'", folder);
    s->knows_template = file_exists(path);
    enum status st = s->knows_template ? template_choice_set(&s->options, path, err) : STATUS_OK;
    mem_free(path);
    return st;
}

/* Labels come with our own adapters, or with the model; PEFT's name none. */
static enum status read_labels(struct source *s, const char *path, const char *model, struct error *err)
{
    TRY(config_labels_of_folder(model, &s->labels, err));
    if (path != model)
        TRY(config_labels_of_adapter(path, &s->config, &s->labels, err));
    for (size_t i = 0; i < s->adapter.n_modules && !s->labels.count; i++)
        if (!strcmp(s->adapter.modules[i], "score"))
            FAIL(err, STATUS_DATA, "'%s' holds a head for classification (score), but neither a " ADAPTER_LABELS_FILE " in it nor the config.json of "
                 "'%s' names its labels; write {\"classification_tasks\": [{\"task\": \"mood\", \"labels\": [\"neg\", \"pos\"]}]} into the "
                 "former", path, model);
    return STATUS_OK;
}

static enum status load_folder(struct source *s, const char *path, const char *base, struct error *err)
{
    struct import_report report;
    const char *model;
    TRY(options_defaults(&s->options, err));
    TRY(find_model(s, path, base, &model, err));
    TRY(use_folder_template(s, path, err));
    TRY(model_config_read(model, &s->config, err));
    TRY(read_labels(s, path, model, err));
    s->config.training = s->adapter.training;
    TRY(read_folder_routing(s, path, model, err));
    TRY(tokenizer_load(model, &s->tokenizer, err));
    TRY(allocate(s, err));
    const struct import_options how = {.new_routers = path != model, .new_scores = path != model, .keep_frozen = true};
    TRY(model_import(model, &s->config, &s->table, &how, s->values, &report, err));
    if (path != model)
        TRY(adapter_read(path, &s->table, s->values, err));
    if (report.left_routers && !s->loar)
        log_warn("'%s' holds %d tensors of routers but no " MODEL_ROUTING_FILE ": all heads run", model, report.left_routers);
    return STATUS_OK;
}

enum status source_open(const char *path, bool snapshot, const char *base, struct threads *pool, struct source *out,
                        struct error *err)
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
            st = load_snapshot(out, file, base, err);
        snapshot_close(file);
    } else {
        st = load_folder(out, path, base, err);
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
    loar_setup_free(s->loar);
    adapter_free(&s->adapter);
    labels_free(&s->labels);
    options_free(&s->options);
    *s = (struct source){0};
}
