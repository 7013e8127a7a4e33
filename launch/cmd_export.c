/* `loar export SNAPSHOT DIR`: a snapshot as a Hugging Face model folder. Everything it needs lies in the snapshot. */
#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "launch/commands.h"
#include "launch/loar_folder.h"
#include "launch/merge.h"
#include "launch/source.h"
#include "ps/snapshot.h"
#include "worker/loar/tensors.h"
#include "worker/model/adapter.h"
#include "worker/model/config_labels.h"
#include "worker/model/export.h"

static const char usage[] =
    "usage: loar export SNAPSHOT DIR [--dtype f32|bf16] [--dense] [--adapter]\n"
    "                                [--base DIR] [--overwrite]\n"
    "\n"
    "Writes the model of a snapshot as a folder that the Hugging Face libraries load: weights as safetensors,\n"
    "config.json, and the tokenizer files of the model it was trained from. Where attention is routed, the folder\n"
    "holds the routers, too, and loar_config.json: loar generate and further training route by them, while the\n"
    "Hugging Face libraries leave them aside and compute all heads.\n"
    "\n"
    "  SNAPSHOT      a snapshot file, or a folder of snapshots or of a run: the newest good one; or a folder of adapters\n"
    "                (adapter_config.json), which are merged into their model\n"
    "  DIR           the folder to make; it must be empty or absent\n"
    "  --dtype       f32 (default, exact) or bf16 (half the size, rounded to nearest even); routers are always f32\n"
    "  --dense       leave the routers and loar_config.json out\n"
    "  --adapter     of a run with finetuning_type: lora only the adapters, in the form of PEFT; without this they are\n"
    "                merged into the matrices that they are added to\n"
    "  --base        folder of the model that a snapshot without frozen tensors (finetuning_type: lora, freeze, router)\n"
    "                belongs to; default: where it was in training\n"
    "  --overwrite   write into a folder that holds something: its config.json and weights are replaced\n";

struct request {
    const char *snapshot, *dir, *base;
    bool adapter;
    struct export_options options;
};

static enum status parse_dtype(const char *name, enum safetensors_dtype *out, struct error *err)
{
    static const struct {
        const char *name;
        enum safetensors_dtype dtype;
    } names[] = {{"f32", SAFETENSORS_F32}, {"bf16", SAFETENSORS_BF16}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (name && !strcmp(name, names[i].name)) {
            *out = names[i].dtype;
            return STATUS_OK;
        }
    FAIL(err, STATUS_USAGE, "--dtype must be f32 or bf16, found %s", name ? name : "nothing");
}

static enum status parse_arguments(int argc, char **argv, struct request *out, struct error *err)
{
    out->options.dtype = SAFETENSORS_F32;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--overwrite"))
            out->options.overwrite = true;
        else if (!strcmp(argv[i], "--adapter"))
            out->adapter = true;
        else if (!strcmp(argv[i], "--dense"))
            out->options.dense = true;
        else if (!strcmp(argv[i], "--dtype"))
            TRY(parse_dtype(i + 1 < argc ? argv[++i] : NULL, &out->options.dtype, err));
        else if (!strncmp(argv[i], "--dtype=", 8))
            TRY(parse_dtype(argv[i] + 8, &out->options.dtype, err));
        else if (!strcmp(argv[i], "--base") && i + 1 < argc)
            out->base = argv[++i];
        else if (!strncmp(argv[i], "--base=", 7))
            out->base = argv[i] + 7;
        else if (argv[i][0] == '-')
            FAIL(err, STATUS_USAGE, "unknown option '%s'; see loar export --help", argv[i]);
        else if (!out->snapshot)
            out->snapshot = argv[i];
        else if (!out->dir)
            out->dir = argv[i];
        else
            FAIL(err, STATUS_USAGE, "too many arguments: '%s'; see loar export --help", argv[i]);
    }
    if (!out->dir)
        FAIL(err, STATUS_USAGE, "a snapshot and a folder are needed; see loar export --help");
    return STATUS_OK;
}

/* The files of the snapshot; config.json apart, the others to go along. */
struct carried {
    char *config;
    size_t config_size;
    struct export_file *files; /* [count]; data is owned */
    size_t count;
};

static void carried_free(struct carried *carried)
{
    for (size_t i = 0; i < carried->count; i++)
        mem_free((void *)carried->files[i].data);
    mem_free(carried->files);
    mem_free(carried->config);
}

static bool has_routing_file(const struct snapshot *snapshot)
{
    for (int i = 0; i < snapshot_files(snapshot); i++)
        if (!strcmp(snapshot_file_at(snapshot, i), MODEL_ROUTING_FILE))
            return true;
    return false;
}

/* Snapshots of earlier versions leave how they route to their options. */
static enum status carried_add_routing(const struct snapshot *snapshot, struct carried *out, struct error *err)
{
    struct source source;
    struct text text = {0};
    TRY(source_of_snapshot(snapshot, NULL, &source, err));
    if (source.loar)
        loar_folder_write(source.loar, &text);
    source_close(&source);
    if (text.failed) {
        text_free(&text);
        FAIL(err, STATUS_NOMEM, "no memory for " MODEL_ROUTING_FILE);
    }
    if (text.data)
        out->files[out->count++] = (struct export_file){MODEL_ROUTING_FILE, text.data, text.size};
    return STATUS_OK;
}

static enum status carried_read(const struct snapshot *snapshot, bool dense, struct carried *out, struct error *err)
{
    int count = snapshot_files(snapshot);
    const struct params *table = snapshot_params(snapshot);
    bool routed = false;
    if (!(out->files = mem_alloc((size_t)count + 1, sizeof *out->files)))
        FAIL(err, STATUS_NOMEM, "no memory for the files of '%s'", snapshot_path(snapshot));
    TRY(snapshot_file(snapshot, "config.json", &out->config, &out->config_size, err));
    for (int i = 0; i < count; i++) {
        const char *name = snapshot_file_at(snapshot, i);
        if (model_export_owns(name) || (dense && !strcmp(name, MODEL_ROUTING_FILE)))
            continue;
        char *data;
        struct export_file *file = &out->files[out->count];
        TRY(snapshot_file(snapshot, name, &data, &file->size, err));
        file->name = name;
        file->data = data;
        out->count++;
    }
    for (int i = 0; i < table->count; i++)
        routed = routed || loar_is_tensor(table->items[i].name);
    return routed && !dense && !has_routing_file(snapshot) ? carried_add_routing(snapshot, out, err) : STATUS_OK;
}

/* How much of the table was written. */
static void say(const struct snapshot *snapshot, const struct request *request, const struct params *table, size_t n_files)
{
    int tensors = 0;
    int64_t parameters = 0;
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->items[i];
        bool part = request->adapter ? p->role == PARAM_TRAINED : !lora_is_tensor(p->name);
        if (part && !(request->options.dense && loar_is_tensor(p->name))) {
            tensors++;
            parameters += p->size;
        }
    }
    printf("exported %sstep %lld of '%s' to '%s': %d tensors, %lld parameters, %s, %zu other file%s\n",
           request->adapter ? "the adapters of " : "", (long long)snapshot_meta(snapshot)->step, snapshot_path(snapshot), request->dir, tensors,
           (long long)parameters, safetensors_dtype_name(request->options.dtype), n_files, n_files == 1 ? "" : "s");
}

/* The whole model. A snapshot without frozen tensors is completed by the model that it belongs to. */
struct loaded {
    struct source source;
    const struct params *table;
    float *values; /* [params_room(table)] */
};

static enum status loaded_read(const struct snapshot *snapshot, const char *base, struct loaded *out, struct error *err)
{
    if (*snapshot_meta(snapshot)->base_digest) {
        TRY(source_of_snapshot(snapshot, base, &out->source, err));
        out->table = &out->source.table;
        out->values = out->source.values;
        return STATUS_OK;
    }
    out->table = snapshot_params(snapshot);
    out->values = mem_alloc_aligned((size_t)out->table->values, sizeof *out->values);
    if (!out->values)
        FAIL(err, STATUS_NOMEM, "no memory for the %lld values of '%s'", (long long)out->table->values, snapshot_path(snapshot));
    return snapshot_load(snapshot, out->table, out->values, 0, NULL, err);
}

static void loaded_free(struct loaded *loaded)
{
    if (loaded->values != loaded->source.values)
        mem_free_aligned(loaded->values);
    source_close(&loaded->source);
}

/* Adapters go into their matrices first. */
static enum status write_model(const struct request *request, const struct carried *carried, const struct loaded *model, struct error *err)
{
    const struct model_config *config = &model->source.config;
    if (config->training.kind == TRAIN_ADAPTERS)
        TRY(model_merge_adapters(config, model->table, model->values, err));
    return model_export(request->dir, carried->config, carried->config_size, carried->files, carried->count, model->table, model->values,
                        &request->options, err);
}

/* Of the files that go along, only how attention is routed; and what the labels are, if there are any. */
static enum status write_adapter(const struct snapshot *snapshot, const struct request *request, const struct carried *carried,
                                 const struct loaded *model, size_t *n_files, struct error *err)
{
    const struct source *source = &model->source;
    const struct training *training = &source->config.training;
    struct export_file files[2];
    struct text labels = {0};
    char *saved = NULL;
    size_t size, count = 0;
    if (training->kind != TRAIN_ADAPTERS)
        FAIL(err, STATUS_USAGE, "--adapter: '%s' has no adapters: its run had another finetuning_type than lora", snapshot_path(snapshot));
    for (size_t i = 0; i < carried->count; i++)
        if (!strcmp(carried->files[i].name, MODEL_ROUTING_FILE))
            files[count++] = carried->files[i];
    if (!request->base)
        TRY(snapshot_text(snapshot, "base", &saved, &size, err));
    enum status st = source->labels.count ? config_labels_write("{}", 2, &source->config, &source->labels, &labels, err) : STATUS_OK;
    if (labels.data)
        files[count++] = (struct export_file){ADAPTER_LABELS_FILE, labels.data, labels.size};
    if (st == STATUS_OK)
        st = adapter_write(request->dir, training, request->base ? request->base : saved, files, count, model->table, model->values,
                           &request->options, err);
    text_free(&labels);
    mem_free(saved);
    *n_files = 1 + count;
    return st;
}

static enum status export_snapshot(const struct snapshot *snapshot, const struct request *request, struct error *err)
{
    struct carried carried = {0};
    struct loaded model = {0};
    size_t n_files = 0;
    enum status st = carried_read(snapshot, request->options.dense, &carried, err);
    if (st == STATUS_OK)
        st = loaded_read(snapshot, request->base, &model, err);
    if (st == STATUS_OK && request->adapter)
        st = write_adapter(snapshot, request, &carried, &model, &n_files, err);
    else if (st == STATUS_OK)
        st = write_model(request, &carried, &model, err);
    if (st == STATUS_OK)
        say(snapshot, request, model.table, request->adapter ? n_files : carried.count + 1);
    carried_free(&carried);
    loaded_free(&model);
    return st;
}

static enum status merge_folder(const struct request *request, struct error *err)
{
    struct text said = {0};
    if (request->adapter)
        FAIL(err, STATUS_USAGE, "--adapter: '%s' is a folder of adapters already", request->snapshot);
    enum status st = merge_adapter(request->snapshot, request->base, request->dir, &request->options, &said, err);
    if (st == STATUS_OK && said.data)
        fputs(said.data, stdout);
    text_free(&said);
    return st;
}

int cmd_export(int argc, char **argv)
{
    struct request request = {0};
    struct snapshot *snapshot = NULL;
    struct text warnings = {0};
    struct error err;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            return 0;
        }
    enum status st = parse_arguments(argc, argv, &request, &err);
    bool merging = st == STATUS_OK && adapter_is_folder(request.snapshot);
    if (merging)
        st = merge_folder(&request, &err);
    else if (st == STATUS_OK)
        st = snapshot_open_any(request.snapshot, &snapshot, &warnings, &err);
    if (warnings.size)
        fputs(warnings.data, stderr);
    text_free(&warnings);
    if (st == STATUS_OK && !merging) {
        st = export_snapshot(snapshot, &request, &err);
        snapshot_close(snapshot);
    }
    if (st != STATUS_OK)
        fprintf(stderr, "loar export: %s\n", err.text);
    return status_exit_code(st);
}
