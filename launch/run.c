#include "launch/run.h"

#include <math.h>
#include <string.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/yaml.h"
#include "launch/loar_block.h"
#include "launch/loar_folder.h"
#include "launch/run_labels.h"
#include "launch/run_rows.h"
#include "launch/sift.h"
#include "launch/template_choice.h"
#include "launch/trained.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"
#include "worker/model/config.h"

const char *run_tokenizer_path(const struct options *options)
{
    return options->tokenizer_name_or_path ? options->tokenizer_name_or_path : options->model_name_or_path;
}

int run_threads(int64_t wanted, int ranks_on_node)
{
    if (wanted > 0)
        return (int)wanted;
    int threads = threads_cores() / (ranks_on_node > 0 ? ranks_on_node : 1);
    return threads > 0 ? threads : 1;
}

/* The folder's config.json as it is, so that an export gives back what was read. */
static enum status read_folder_config(const char *folder, struct model_config *out, struct text *json, struct error *err)
{
    TRY(model_config_read(folder, out, err));
    char *path = path_join(folder, "config.json"), *text = NULL;
    size_t size;
    if (!path)
        FAIL(err, STATUS_NOMEM, "no memory for the path of '%s/config.json'", folder);
    enum status st = file_read(path, &text, &size, err);
    if (st == STATUS_OK)
        text_append(json, text, size);
    mem_free(text);
    mem_free(path);
    return st;
}

/* An architecture file holds the keys of config.json; the vocabulary is the tokenizer's unless the file says more. */
static enum status read_architecture(const char *path, const struct tokenizer *tokenizer, struct model_config *out,
                                     struct text *json, struct error *err)
{
    struct text text = {0};
    struct json *object = NULL;
    enum status st = yaml_file_to_json_text(path, &text, err);
    if (st == STATUS_OK && text.failed)
        st = error_set(err, STATUS_NOMEM, "no memory to read '%s'", path);
    if (st == STATUS_OK)
        st = json_parse(text.data, text.size, path, &object, err);
    if (st == STATUS_OK && json_kind(object) != JSON_KIND_OBJECT)
        st = error_set(err, STATUS_DATA, "%s: an architecture file holds the keys of a config.json", path);
    if (st == STATUS_OK && tokenizer && !json_member(object, "vocab_size")) {
        const char *open = strchr(text.data, '{') + 1;
        struct text filled = {0};
        text_printf(&filled, "{\"vocab_size\": %d%s", tokenizer_size(tokenizer), json_count(object) ? ", " : "");
        if (tokenizer_bos(tokenizer) >= 0 && !json_member(object, "bos_token_id"))
            text_printf(&filled, "\"bos_token_id\": %d, ", tokenizer_bos(tokenizer));
        if (tokenizer_eos(tokenizer) >= 0 && !json_member(object, "eos_token_id"))
            text_printf(&filled, "\"eos_token_id\": %d, ", tokenizer_eos(tokenizer));
        text_puts(&filled, open);
        text_free(&text);
        text = filled;
        if (text.failed)
            st = error_set(err, STATUS_NOMEM, "no memory to read '%s'", path);
    }
    if (st == STATUS_OK)
        st = model_config_parse(text.data, text.size, path, out, err);
    if (st == STATUS_OK)
        model_config_write(out, "float32", json);
    json_free(object);
    text_free(&text);
    return st;
}

enum status run_model_config(const struct options *options, const struct tokenizer *tokenizer, struct model_config *out,
                             struct text *json, struct error *err)
{
    TRY(options->model_config ? read_architecture(options->model_config, tokenizer, out, json, err)
                              : read_folder_config(options->model_name_or_path, out, json, err));
    if (json->failed)
        FAIL(err, STATUS_NOMEM, "no memory for config.json");
    return STATUS_OK;
}

/* Rows of per-task tensors belong to tasks by their number alone. */
static enum status check_folder_tasks(const struct run *run, const struct loar_setup *folder, struct error *err)
{
    if (loar_setup_same_tasks(run->loar, folder) || !loar_setup_is_routed(run->loar) || !loar_setup_is_routed(folder))
        return STATUS_OK;
    struct text here = {0}, there = {0};
    loar_setup_put_tasks(run->loar, &here);
    loar_setup_put_tasks(folder, &there);
    error_set(err, STATUS_USAGE,
              "model_name_or_path: the routers in '%s' were trained for the tasks %.300s, the data sets here name %.300s; give the same "
              "tasks in the same order (datasets.0.task ...), or leave the loar block out to take the folder's routing over, or let "
              "loar export --dense write a folder without routers",
              run->options->model_name_or_path, there.failed ? "?" : there.data, here.failed ? "?" : here.data);
    text_free(&here);
    text_free(&there);
    return STATUS_USAGE;
}

/* The run file's routing counts; where it says nothing, that of the model's folder. */
static enum status load_routing(struct run *run, struct error *err)
{
    const struct options *o = run->options;
    struct loar_setup *folder = NULL;
    TRY(loar_block_read(run->all, &run->config, &run->loar, err));
    if (o->model_name_or_path)
        TRY(loar_folder_read(o->model_name_or_path, &run->config, &folder, err));
    enum status st = STATUS_OK;
    if (folder && run->loar) {
        st = check_folder_tasks(run, folder, err);
        loar_setup_free(folder);
    } else if (folder) {
        run->loar = folder;
        run->loar_taken_over = true;
    }
    if (st != STATUS_OK || !run->loar)
        return st;
    run->config.loar = &run->loar->plan;
    loar_folder_write(run->loar, &run->loar_json);
    if (run->loar_json.failed)
        FAIL(err, STATUS_NOMEM, "no memory for the routing of %d layers", run->config.layers);
    return STATUS_OK;
}

void run_routing_notes(const struct run *run, struct text *notes)
{
    const struct loar_setup *loar = run->loar;
    if (run->loar_taken_over)
        text_printf(notes, "attention is routed as '%s' says, for the run file asks for no routing of its own (loar.layers)\n",
                    run->options->model_name_or_path);
    if (loar) {
        const struct loar_config *c = &loar->plan.config;
        text_puts(notes, "attention routing: ");
        loar_setup_put_layers(loar, notes);
        if (loar_setup_is_routed(loar))
            text_printf(notes, "; policy %s, features %s, by %s", loar_policy_names[c->policy], loar_feature_names[c->feature],
                        loar_granularity_names[c->granularity]);
        text_puts(notes, "\n");
    }
    for (int i = 0; loar && i < run->eval.n_tasks; i++) /* the training sets' tasks among them */
        if (loar_setup_task(loar, run->eval.tasks[i]) < 0)
            text_printf(notes, "routing knows no task '%s': its rows are routed as '%s'\n", run->eval.tasks[i],
                        loar->tasks[loar->default_task]);
}

enum status run_import(struct run *run, bool keep_frozen, float *values, struct import_report *report, struct error *err)
{
    struct import_options options = {.new_routers = run->loar && !run->loar_taken_over, .new_scores = run->scores_anew, .seed = (uint64_t)run->options->seed,
                                     .keep_frozen = keep_frozen};
    TRY(model_import(run->options->model_name_or_path, &run->config, &run->table, &options, values, report, err));
    memcpy(run->table.frozen_digest, report->frozen_digest, sizeof run->table.frozen_digest);
    return STATUS_OK;
}

static enum status check_routers(struct run *run, struct error *err)
{
    TRY(trained_read(run->options, &run->config.training, err));
    if (run->config.training.kind == TRAIN_ROUTERS && !(run->loar && loar_setup_is_routed(run->loar)))
        FAIL(err, STATUS_USAGE, "finetuning_type: router trains routers alone, but no layer has one; give loar.layers (for example "
             "layers: article) or a model folder that brings its routing, or finetuning_type: full");
    return STATUS_OK;
}

static enum status list_tensors(struct run *run, struct error *err)
{
    TRY(model_params(&run->config, &run->table, err));
    run->chunks = chunks_make(run->table.values, run->options->ps.chunk_values);
    return STATUS_OK;
}

/* What stays the same in all stages, as far as it does not depend on rows. */
static enum status load_base(struct run *run, struct error *err)
{
    const struct options *o = run->options;
    TRY(template_choose(o, &run->template, err));
    template_declare(run->template, &run->template_text);
    if (run->template_text.failed)
        FAIL(err, STATUS_NOMEM, "no memory for " RUN_TEMPLATE_FILE);
    TRY(tokenizer_load(run_tokenizer_path(o), &run->tokenizer, err));
    TRY(template_check(run->template, run->tokenizer, err));
    TRY(run_model_config(o, run->tokenizer, &run->config, &run->config_json, err));
    TRY(load_routing(run, err));
    return check_routers(run, err);
}

/* A later stage takes what all share from the first one, which keeps it. */
static void share(struct run *first, int stage)
{
    struct run *run = run_stage(first, stage), own = *run;
    if (run == first)
        return;
    *run = *first;
    run->stage = stage;
    run->options = &first->held[stage];
    run->name = first->all->stages.items[stage].name;
    run->train = own.train;
    run->eval = own.eval;
    run->routed_as = own.routed_as;
    memcpy(run->span_weights, own.span_weights, sizeof run->span_weights);
}

/* All rows of all stages: those of training first, for they tell the labels. */
static enum status load_rows(struct run *first, struct labels *given, struct failures *failures, struct error *err)
{
    for (int i = 0; i < first->n_stages; i++) {
        share(first, i);
        TRY(run_rows_load_training(run_stage(first, i), given, failures, err));
    }
    if (!failures->count)
        TRY(run_labels_settle(first, given, err));
    for (int i = 0; i < first->n_stages; i++) {
        share(first, i);
        TRY(run_rows_load_evaluation(run_stage(first, i), given, failures, err));
    }
    TRY(failures_verdict(failures, "data set", err));
    for (int i = 0; i < first->n_stages; i++)
        TRY(run_rows_settle(run_stage(first, i), err));
    TRY(list_tensors(first, err));
    for (int i = 0; i < first->n_stages; i++)
        share(first, i);
    return STATUS_OK;
}

static enum status hold_options(struct run *run, struct error *err)
{
    const struct options *all = run->all;
    run->options = all;
    run->n_stages = (int)options_stages(all);
    if (!all->stages.count)
        return STATUS_OK;
    run->held = mem_alloc((size_t)run->n_stages, sizeof *run->held);
    run->later = mem_alloc((size_t)run->n_stages, sizeof *run->later);
    if (!run->held || !run->later)
        FAIL(err, STATUS_NOMEM, "no memory for the options of %d stages", run->n_stages);
    for (int i = 0; i < run->n_stages; i++)
        TRY(options_of_stage(all, (size_t)i, &run->held[i], err));
    run->options = &run->held[0];
    run->name = all->stages.items[0].name;
    return STATUS_OK;
}

static enum status load(struct run *run, struct error *err)
{
    struct labels given = {0};
    struct failures failures = {0};
    TRY(hold_options(run, err));
    TRY(load_base(run, err));
    enum status st = load_rows(run, &given, &failures, err);
    failures_free(&failures);
    labels_free(&given);
    return st;
}

struct run *run_stage(struct run *run, int stage)
{
    return stage ? &run->later[stage - 1] : run;
}

enum status run_load(const struct options *options, struct threads *pool, struct run *out, struct error *err)
{
    *out = (struct run){.all = options, .pool = pool};
    enum status st = load(out, err);
    if (st != STATUS_OK)
        run_free(out);
    return st;
}

static void free_rows(struct run *run)
{
    order_free(&run->order);
    dataset_free(&run->train);
    dataset_free(&run->eval);
    mem_free(run->routed_as);
}

void run_free(struct run *run)
{
    for (int stage = 1; run->later && stage < run->n_stages; stage++)
        free_rows(run_stage(run, stage));
    free_rows(run);
    for (int i = 0; run->held && i < run->n_stages; i++)
        options_free(&run->held[i]);
    mem_free(run->held);
    mem_free(run->later);
    params_free(&run->table);
    labels_free(&run->labels);
    loar_setup_free(run->loar);
    text_free(&run->loar_json);
    tokenizer_free(run->tokenizer);
    template_free(run->template);
    text_free(&run->template_text);
    text_free(&run->config_json);
    *run = (struct run){0};
}

static enum status plan_stage(struct run *run, int slots, struct error *err)
{
    TRY(sift_order(run, slots, err));
    bool learnt = run->loar_taken_over || (run->loar && run->stage > 0);
    return loar_block_schedule(run->options, learnt, run_steps(run), &run->routing, err);
}

enum status run_plan(struct run *run, int slots, struct error *err)
{
    for (int stage = 0; stage < run->n_stages; stage++)
        if (plan_stage(run_stage(run, stage), slots, err) != STATUS_OK) {
            if (run->name)
                error_prefix(err, "stage '%s'", run_stage(run, stage)->name);
            return err->code;
        }
    return STATUS_OK;
}

int64_t run_steps(const struct run *run)
{
    if (run->options->max_steps > 0)
        return run->options->max_steps;
    return (int64_t)ceil(run->options->num_train_epochs * (double)order_steps_per_epoch(&run->order));
}

int64_t run_total_steps(const struct run *run)
{
    int64_t steps = run_steps(run);
    for (int stage = 1; stage < run->n_stages; stage++)
        steps += run_steps(&run->later[stage - 1]);
    return steps;
}

int run_eval_rows(const struct run *run, int set)
{
    return (int)run->eval.parts[set].stats.kept;
}

int run_eval_batches(const struct run *run, int set)
{
    return (int)dataset_eval_batches(&run->eval.parts[set], (int)run->options->per_device_eval_batch_size);
}
