#include "launch/run_rows.h"

#include <string.h>

#include "common/memory.h"
#include "launch/loar_setup.h"
#include "launch/run_labels.h"
#include "launch/sift.h"
#include "worker/data/cache.h"
#include "worker/data/template.h"

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
        .balanced = !strcmp(o->loss_weight_mode, "balanced"),
        .last_turn_only = o->last_turn_only,
        .empty_thoughts = o->ignore_empty_thought,
    };
    truncation_parse(o->truncation, &rules.truncation);
    memcpy(rules.span_weights, run->span_weights, sizeof rules.span_weights);
    return rules;
}

static struct row_columns columns_of(const struct dataset_options *o)
{
    return (struct row_columns){{
        [ROW_QUESTION] = o->question_column, [ROW_INPUT] = o->input_column,       [ROW_THOUGHT] = o->thought_column,
        [ROW_ANSWER] = o->answer_column,     [ROW_SYSTEM] = o->system_column,     [ROW_HISTORY] = o->history_column,
        [ROW_MESSAGES] = o->messages_column, [ROW_TEXT] = o->text_column,         [ROW_LABEL] = o->label_column,
        [ROW_WEIGHT] = o->weight_column,
    }};
}

/* What rows of an entry may be labelled with: as given, or, once the training rows have told, what these are. */
static const struct label_set *labels_for(const struct run *run, const struct labels *given, const struct dataset_options *entry)
{
    const struct label_set *set = labels_find(given, entry->task);
    return set || !run_classifies(run->options, entry) ? set : labels_find_or_only(&run->labels, entry->task);
}

static enum status load_set(struct run *run, const struct dataset_options *o, const struct dataset_rules *rules, int64_t limit,
                            const struct labels *given, struct dataset *out, struct error *err)
{
    struct dataset_spec spec = {.name = o->name, .path = o->path, .format = o->format, .task = o->task,
                                .loss_weight = o->loss_weight, .weight = o->weight, .max_samples = o->max_samples,
                                .columns = columns_of(o), .table = {.header = o->header},
                                .classify = run_classifies(run->options, o), .labels = labels_for(run, given, o)};
    struct dataset_cache cache = {.folder = run->options->dataset_cache_dir, .renew = run->options->overwrite_cache};
    struct text key = {0};
    bool known;
    TRY(table_rules_set(&spec.table, "quoting", o->quoting, &known, err));
    if (limit > 0 && (spec.max_samples < 0 || spec.max_samples > limit))
        spec.max_samples = limit;
    bool cached = cache.folder && !spec.classify && !spec.labels; /* labels are numbered and named by more than the options */
    enum status st = cached ? sift_cache_key(run, o, &key, err) : STATUS_OK;
    cache.key = key.data;
    spec.cache = cached ? &cache : NULL;
    if (st == STATUS_OK)
        st = dataset_load(out, &spec, rules, run->tokenizer, run->pool, err);
    text_free(&key);
    return st;
}

/* Goes on after a set with bad rows, so that all are told of. */
static enum status load_sets(struct run *run, const struct dataset_list *list, int64_t limit, const struct labels *given,
                             struct dataset *out, struct failures *failures, struct error *err)
{
    struct dataset_rules rules = rules_of(run);
    for (size_t i = 0; i < list->count; i++)
        TRY(failures_take(failures, load_set(run, &list->items[i], &rules, limit, given, out, err), err));
    return STATUS_OK;
}

/* Evaluation sets number their tasks as the training sets do, with their own behind. */
static enum status map_tasks(struct run *run, struct error *err)
{
    run->routed_as = mem_alloc((size_t)run->eval.n_tasks, sizeof *run->routed_as);
    if (!run->routed_as)
        FAIL(err, STATUS_NOMEM, "no memory for %d tasks", run->eval.n_tasks);
    for (int i = 0; run->loar && i < run->eval.n_tasks; i++)
        run->routed_as[i] = loar_setup_task_or_default(run->loar, run->eval.tasks[i]);
    return STATUS_OK;
}

enum status run_rows_load_training(struct run *run, struct labels *given, struct failures *failures, struct error *err)
{
    const struct options *o = run->options;
    if (o->max_length > run->config.max_positions)
        FAIL(err, STATUS_USAGE, "max_length is %lld, but the model was made for %lld positions (max_position_embeddings)",
             (long long)o->max_length, (long long)run->config.max_positions);
    run->span_weights[SPAN_PROMPT] = o->completion_only_loss ? 0.0f : 1.0f;
    run->span_weights[SPAN_THOUGHT] = (float)o->thought_loss_weight;
    run->span_weights[SPAN_ANSWER] = run->span_weights[SPAN_END] = (float)o->answer_loss_weight;
    TRY(run_labels_given(run, given, err));
    return load_sets(run, &o->datasets, -1, given, &run->train, failures, err);
}

/* Evaluation rows may have no labels but those of the training rows. */
enum status run_rows_load_evaluation(struct run *run, const struct labels *given, struct failures *failures, struct error *err)
{
    const struct options *o = run->options;
    TRY(dataset_name_tasks(&run->eval, run->train.tasks, run->train.n_tasks, err));
    return load_sets(run, &o->eval_datasets, o->eval_max_samples, given, &run->eval, failures, err);
}

enum status run_rows_settle(struct run *run, struct error *err)
{
    TRY(sift_rows(run, err));
    TRY(run_labels_evaluation(run, err));
    return map_tasks(run, err);
}
