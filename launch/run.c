#include "launch/run.h"

#include <math.h>
#include <string.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/yaml.h"
#include "launch/loar_block.h"
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

static struct dataset_rules rules_of(const struct run *run)
{
    const struct options *o = run->options;
    struct dataset_rules rules = {
        .template = run->template,
        .max_length = (int)o->max_length,
        .strict = o->strict,
        .max_bad_rows = o->max_bad_rows,
        .keep_calculator_marks = o->keep_calculator_marks,
        .cot_prompt = o->cot_prompt,
        .answer_prefix = o->answer_prefix,
        .vocab = run->config.vocab,
    };
    truncation_parse(o->truncation, &rules.truncation);
    memcpy(rules.span_weights, run->span_weights, sizeof rules.span_weights);
    return rules;
}

static enum status load_sets(struct run *run, const struct dataset_list *list, int64_t limit, struct dataset *out,
                             struct error *err)
{
    struct dataset_rules rules = rules_of(run);
    for (size_t i = 0; i < list->count; i++) {
        const struct dataset_options *o = &list->items[i];
        struct dataset_spec spec = {.name = o->name, .path = o->path, .format = o->format, .task = o->task,
                                    .loss_weight = o->loss_weight, .weight = o->weight, .max_samples = o->max_samples};
        if (limit > 0 && (spec.max_samples < 0 || spec.max_samples > limit))
            spec.max_samples = limit;
        TRY(dataset_load(out, &spec, &rules, run->tokenizer, run->pool, err));
    }
    return STATUS_OK;
}

static enum status load(struct run *run, struct error *err)
{
    const struct options *o = run->options;
    run->template = template_find(o->chat_template);
    if (!run->template)
        FAIL(err, STATUS_USAGE, "chat_template: '%s' is not known", o->chat_template);
    TRY(tokenizer_load(run_tokenizer_path(o), &run->tokenizer, err));
    TRY(template_check(run->template, run->tokenizer, err));
    TRY(run_model_config(o, run->tokenizer, &run->config, &run->config_json, err));
    TRY(loar_block_plan(o, &run->config, err));
    TRY(model_params(&run->config, &run->table, err));
    run->chunks = chunks_make(run->table.values, o->ps.chunk_values);
    if (o->max_length > run->config.max_positions)
        FAIL(err, STATUS_USAGE, "max_length is %lld, but the model was made for %lld positions (max_position_embeddings)",
             (long long)o->max_length, (long long)run->config.max_positions);
    run->span_weights[SPAN_PROMPT] = o->completion_only_loss ? 0.0f : 1.0f;
    run->span_weights[SPAN_THOUGHT] = (float)o->thought_loss_weight;
    run->span_weights[SPAN_ANSWER] = run->span_weights[SPAN_END] = (float)o->answer_loss_weight;
    TRY(load_sets(run, &o->datasets, -1, &run->train, err));
    TRY(dataset_name_tasks(&run->eval, run->train.tasks, run->train.n_tasks, err));
    return load_sets(run, &o->eval_datasets, o->eval_max_samples, &run->eval, err);
}

enum status run_load(const struct options *options, struct threads *pool, struct run *out, struct error *err)
{
    *out = (struct run){.options = options, .pool = pool};
    enum status st = load(out, err);
    if (st != STATUS_OK)
        run_free(out);
    return st;
}

void run_free(struct run *run)
{
    order_free(&run->order);
    dataset_free(&run->train);
    dataset_free(&run->eval);
    params_free(&run->table);
    loar_block_free(&run->config);
    tokenizer_free(run->tokenizer);
    text_free(&run->config_json);
    *run = (struct run){0};
}

enum status run_plan(struct run *run, int slots, struct error *err)
{
    const struct options *o = run->options;
    uint64_t seed = (uint64_t)(o->data_seed >= 0 ? o->data_seed : o->seed);
    order_free(&run->order);
    TRY(order_create(seed, run->train.rows, slots, (int)o->per_device_train_batch_size, o->shuffle_dataset, &run->order, err));
    return loar_block_schedule(o, run_total_steps(run), &run->routing, err);
}

int64_t run_total_steps(const struct run *run)
{
    if (run->options->max_steps > 0)
        return run->options->max_steps;
    return (int64_t)ceil(run->options->num_train_epochs * (double)order_steps_per_epoch(&run->order));
}

int run_eval_batches(const struct run *run, int set)
{
    return (int)dataset_eval_batches(&run->eval.parts[set], (int)run->options->per_device_eval_batch_size);
}

static enum status train_batch(void *context, int64_t step, int slot, struct batch *out, struct error *err)
{
    struct run *run = context;
    return dataset_slot_batch(&run->train, &run->order, step, slot, run->span_weights, out, err);
}

static enum status eval_batch(void *context, int set, int64_t index, struct batch *out, struct error *err)
{
    struct run *run = context;
    if (set < 0 || set >= run->eval.n_parts)
        FAIL(err, STATUS_PEER, "evaluation set %d of %d was asked for", set, run->eval.n_parts);
    TRY(dataset_eval_batch(&run->eval, &run->eval.parts[set], (int)run->options->per_device_eval_batch_size, index,
                           run->span_weights, out, err));
    for (int i = 0; i < out->n_sequences; i++) /* of a task that was not trained: routed as the default one */
        if (out->tasks[i] >= run->train.n_tasks)
            out->tasks[i] = loar_block_default_task(run->options);
    return STATUS_OK;
}

struct batch_source run_batches(struct run *run)
{
    return (struct batch_source){run, train_batch, eval_batch};
}
