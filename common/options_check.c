/* Rules between keys. One row each: the keys it is about (the first one gives the place), whether breaking it stops the
 * run, and a function that says what is wrong. */
#include <math.h>
#include <string.h>

#include "common/options_read.h"

enum { RULE_KEYS = 3 };

/* Appends what is wrong, or nothing. */
typedef void rule_fn(const struct options *o, struct text *wrong);

static bool is(const char *value, const char *word)
{
    return !strcmp(value, word);
}

static bool given(const struct options *o, enum option_id id)
{
    return o->sources[id].origin != ORIGIN_DEFAULT;
}

static void one_model(const struct options *o, struct text *wrong)
{
    if (!o->model_name_or_path && !o->model_config)
        text_puts(wrong, "missing; name a Hugging Face folder, or model_config to train from scratch");
    if (o->model_name_or_path && o->model_config)
        text_puts(wrong, "given together with model_config; keep one: a folder to fine-tune, or an architecture to train from scratch");
}

static void something_to_freeze(const struct options *o, struct text *wrong)
{
    if (!is(o->finetuning_type, "full") && o->model_config)
        text_printf(wrong, "%s, but model_config trains from scratch: there is no model yet that could stay as it is; give "
                    "model_name_or_path instead, or finetuning_type: full", o->finetuning_type);
}

static void freeze_says_what(const struct options *o, struct text *wrong)
{
    if (is(o->finetuning_type, "freeze") && !o->freeze_trainable_layers && !o->freeze_parameters.count && !o->modules_to_save.count)
        text_puts(wrong, "freeze, but nothing says what is trained; give freeze_trainable_layers, freeze_parameters or modules_to_save");
}

static void unused_freeze(const struct options *o, struct text *wrong)
{
    if ((o->freeze_trainable_layers || o->freeze_parameters.count) && !is(o->finetuning_type, "freeze"))
        text_printf(wrong, "%s: freeze_trainable_layers and freeze_parameters are not used", o->finetuning_type);
}

static void unused_modules(const struct options *o, struct text *wrong)
{
    if (o->modules_to_save.count && !is(o->finetuning_type, "freeze") && !is(o->finetuning_type, "lora"))
        text_printf(wrong, "%s: modules_to_save is not used", o->finetuning_type);
}

static void unused_lora(const struct options *o, struct text *wrong)
{
    static const enum option_id keys[] = {OPTION_lora_rank, OPTION_lora_alpha, OPTION_lora_dropout, OPTION_lora_target, OPTION_use_rslora};
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !wrong->size; i++)
        if (given(o, keys[i]) && !is(o->finetuning_type, "lora"))
            text_printf(wrong, "%s: %s is not used", o->finetuning_type, option_name(keys[i]));
}

static void tokenizer_for_scratch(const struct options *o, struct text *wrong)
{
    if (o->model_config && !o->tokenizer_name_or_path)
        text_puts(wrong, "missing; training from scratch (model_config) needs a folder that holds tokenizer.json");
}

static void check_entries(const struct dataset_list *list, struct text *wrong)
{
    const char *separator = "";
    for (size_t i = 0; i < list->count; i++) {
        const struct dataset_options *entry = &list->items[i];
        if (!entry->path) {
            text_printf(wrong, "%sentry %zu%s%.60s has no path", separator, i, entry->name ? " " : "", entry->name ? entry->name : "");
            separator = "; ";
        }
        for (size_t k = 0; k < i; k++)
            if (entry->name && list->items[k].name && is(entry->name, list->items[k].name)) {
                text_printf(wrong, "%sentries %zu and %zu are both named '%.60s'; give one another name", separator, k, i, entry->name);
                separator = "; ";
                break;
            }
    }
}

static void data_to_train_on(const struct options *o, struct text *wrong)
{
    if (!o->datasets.count)
        text_puts(wrong, "missing; wanted a list such as [{name: gsm, path: train.jsonl, format: gsm8k}]");
    check_entries(&o->datasets, wrong);
}

static void data_to_evaluate_on(const struct options *o, struct text *wrong)
{
    check_entries(&o->eval_datasets, wrong);
}

static bool evaluates(const struct options *o)
{
    return o->eval_datasets.count || o->val_size > 0;
}

static void evaluation_has_data(const struct options *o, struct text *wrong)
{
    if (!evaluates(o) && !is(o->eval_strategy, "no"))
        text_printf(wrong, "%s, but eval_datasets is missing (or val_size, to hold training rows out)", o->eval_strategy);
    else if (!evaluates(o) && o->eval_on_start)
        text_puts(wrong, "eval_on_start is true, but eval_datasets is missing (or val_size, to hold training rows out)");
}

static void one_held_out_set(const struct options *o, struct text *wrong)
{
    if (o->val_size > 0 && o->eval_datasets.count)
        text_puts(wrong, "given together with eval_datasets; keep one: rows held out of training, or sets of their own");
    else if (o->val_size >= 1 && (o->val_size != floor(o->val_size) || o->val_size > 4294967295.0))
        text_printf(wrong, "%g; wanted a share below 1, or a whole number of rows", o->val_size);
}

static void resume_or_overwrite(const struct options *o, struct text *wrong)
{
    if (o->overwrite_output_dir && !is(o->resume_from_checkpoint, "false"))
        text_puts(wrong, "given together with overwrite_output_dir: true; keep one");
}

static void something_to_learn(const struct options *o, struct text *wrong)
{
    if (o->thought_loss_weight == 0 && o->answer_loss_weight == 0)
        text_puts(wrong, "0, and so is answer_loss_weight: nothing would be learned");
}

/* Of the last stage alone: training losses of such a run look perfect, and nothing ever gets an answer. */
static void answers_are_learnt(const struct options *o, struct text *wrong)
{
    if (o->answer_loss_weight == 0 && !o->allow_zero_answer_loss)
        text_puts(wrong, "0 at the end of the run: the model would not learn to give an answer, however good its losses look; raise it, "
                         "or confirm with allow_zero_answer_loss: true");
}

static void best_needs_evaluations(const struct options *o, struct text *wrong)
{
    if (!is(o->eval_strategy, "no"))
        return;
    if (o->load_best_model_at_end)
        text_puts(wrong, "no, but load_best_model_at_end is true; wanted steps or epoch");
    else if (is(o->save_strategy, "best"))
        text_puts(wrong, "no, but save_strategy is best; wanted steps or epoch");
    else if (o->early_stopping_patience > 0)
        text_puts(wrong, "no, but early_stopping_patience is given; wanted steps or epoch");
}

static void answers_have_rows(const struct options *o, struct text *wrong)
{
    if (o->predict_with_generate && !evaluates(o))
        text_puts(wrong, "true, but eval_datasets is missing");
}

static void both_tags(const struct options *o, struct text *wrong)
{
    if (!o->thought_open != !o->thought_close)
        text_puts(wrong, "thought_open and thought_close belong together; give both or none");
}

static void endless_model(const struct options *o, struct text *wrong)
{
    if (is(o->train_on_eos, "none"))
        text_puts(wrong, "none: no end token is learnt, so the model will not stop by itself");
}

static void minimum_rate(const struct options *o, struct text *wrong)
{
    bool min_lr = o->min_lr >= 0, share = o->min_lr_rate >= 0;
    if (is(o->lr_scheduler_type, "cosine_with_min_lr") && min_lr == share)
        text_printf(wrong, "cosine_with_min_lr needs min_lr or min_lr_rate; found %s", min_lr ? "both" : "neither");
    else if (is(o->lr_scheduler_type, "cosine_with_min_lr") && o->min_lr > o->learning_rate)
        text_printf(wrong, "min_lr %g is above learning_rate %g", o->min_lr, o->learning_rate);
}

static void milestones(const struct options *o, struct text *wrong)
{
    const struct real_list *at = &o->lr_milestones, *factors = &o->lr_factors;
    if (at->count != factors->count)
        text_printf(wrong, "%zu milestones, but lr_factors has %zu; wanted one factor for each", at->count, factors->count);
    for (size_t i = 1; i < at->count; i++)
        if (at->items[i] <= at->items[i - 1]) {
            text_printf(wrong, "%s%g after %g; wanted rising shares of the run", wrong->size ? "; " : "", at->items[i], at->items[i - 1]);
            return;
        }
}

static void nesterov_needs_momentum(const struct options *o, struct text *wrong)
{
    if (o->nesterov && o->momentum == 0)
        text_puts(wrong, "true, but momentum is 0");
}

static void tasks_have_names(const struct options *o, struct text *wrong)
{
    const struct task_list *list = &o->loar.tasks;
    for (size_t i = 0; i < list->count; i++) {
        if (!list->items[i].task)
            text_printf(wrong, "%sentry %zu names no task", wrong->size ? "; " : "", i);
        for (size_t k = 0; k < i; k++)
            if (list->items[i].task && list->items[k].task && is(list->items[i].task, list->items[k].task))
                text_printf(wrong, "%sentries %zu and %zu are both about '%.60s'; keep one", wrong->size ? "; " : "", k, i,
                            list->items[i].task);
    }
}

/* Doubtful, but allowed. */

static void unused_routing(const struct options *o, struct text *wrong)
{
    if (o->loar.layers.count)
        return;
    /* What comes with a model's folder is let in and frozen as the keys behind say. */
    enum option_id last = o->model_name_or_path ? OPTION_loar_explore : OPTION_loar_allow_leaky_routing;
    for (enum option_id id = OPTION_loar_layers + 1; id <= last; id++)
        if (given(o, id)) {
            text_printf(wrong, "missing, so %s is not used: the model is dense%s; say for example layers: article", option_name(id),
                        o->model_name_or_path ? ", or routes as its folder says" : "");
            return;
        }
}

static void leaky_routing(const struct options *o, struct text *wrong)
{
    if (is(o->loar.features, "seq_mean"))
        text_puts(wrong, "seq_mean: heads are chosen by tokens still to come, labels among them; training losses look too good, and "
                         "generation cannot decide the same way");
}

static void warmup_ends(const struct options *o, struct text *wrong)
{
    if (o->max_steps > 0 && o->warmup_steps >= o->max_steps)
        text_printf(wrong, "%lld of %lld steps: the run ends before the learning rate reaches its height", (long long)o->warmup_steps,
                    (long long)o->max_steps);
}

static void dead_rate(const struct options *o, struct text *wrong)
{
    if (o->learning_rate == 0)
        text_puts(wrong, "0: nothing will be learned");
}

static void unused_eval_data(const struct options *o, struct text *wrong)
{
    if (o->eval_datasets.count && is(o->eval_strategy, "no") && !o->eval_on_start)
        text_puts(wrong, "not used: eval_strategy is no");
}

static void unused_val_size(const struct options *o, struct text *wrong)
{
    if (o->val_size > 0 && is(o->eval_strategy, "no") && !o->eval_on_start)
        text_puts(wrong, "rows are held out of training, but eval_strategy is no: nothing looks at them");
}

static void unused_cache(const struct options *o, struct text *wrong)
{
    if (o->overwrite_cache && !o->dataset_cache_dir)
        text_puts(wrong, "not used: dataset_cache_dir is not given");
}

static void unused_eval_steps(const struct options *o, struct text *wrong)
{
    if (given(o, OPTION_eval_steps) && !is(o->eval_strategy, "steps"))
        text_printf(wrong, "not used: eval_strategy is %s", o->eval_strategy);
}

static void unused_save_steps(const struct options *o, struct text *wrong)
{
    if (given(o, OPTION_save_steps) && !is(o->save_strategy, "steps"))
        text_printf(wrong, "not used: save_strategy is %s", o->save_strategy);
}

static void unused_bad_rows(const struct options *o, struct text *wrong)
{
    if (given(o, OPTION_max_bad_rows) && o->strict)
        text_puts(wrong, "not used: strict is true, the first bad row stops the run");
}

static void unused_minimum(const struct options *o, struct text *wrong)
{
    if ((o->min_lr >= 0 || o->min_lr_rate >= 0) && !is(o->lr_scheduler_type, "cosine_with_min_lr"))
        text_printf(wrong, "%s does not use min_lr or min_lr_rate; did you mean cosine_with_min_lr?", o->lr_scheduler_type);
}

static void unused_milestones(const struct options *o, struct text *wrong)
{
    if (o->lr_milestones.count && !is(o->lr_scheduler_type, "multistep"))
        text_printf(wrong, "not used: lr_scheduler_type is %s", o->lr_scheduler_type);
}

static void unused_momentum(const struct options *o, struct text *wrong)
{
    if (o->momentum != 0 && !is(o->optim, "sgd"))
        text_printf(wrong, "not used: optim is %s", o->optim);
}

static void unused_shares(const struct options *o, struct text *wrong)
{
    if (!is(o->mix_strategy, "concat")) {
        if (o->datasets.count == 1)
            text_printf(wrong, "mix_strategy %s has one data set to take rows from: the same as concat, but for the order", o->mix_strategy);
        return;
    }
    for (size_t i = 0; i < o->datasets.count; i++)
        if (o->datasets.items[i].weight != 1) {
            text_puts(wrong, "weight is not used: mix_strategy is concat, every row of every set comes once; loss_weight is used");
            return;
        }
}

static void evaluating_on_training_rows(const struct options *o, struct text *wrong)
{
    for (size_t i = 0; i < o->eval_datasets.count; i++)
        for (size_t k = 0; k < o->datasets.count; k++)
            if (o->eval_datasets.items[i].path && o->datasets.items[k].path && is(o->eval_datasets.items[i].path, o->datasets.items[k].path)) {
                text_printf(wrong, "'%.100s' is also trained on", o->datasets.items[k].path);
                return;
            }
}

static void thoughts_have_room(const struct options *o, struct text *wrong)
{
    if (o->min_thinking_tokens > o->max_thinking_tokens)
        text_printf(wrong, "%lld, but max_thinking_tokens is %lld; a thought cannot be longer than its limit",
                    (long long)o->min_thinking_tokens, (long long)o->max_thinking_tokens);
}

static void votes_are_drawn(const struct options *o, struct text *wrong)
{
    if (o->self_consistency > 1 && !o->do_sample)
        text_printf(wrong, "%lld answers, all the same while do_sample is false; give do_sample: true (and a temperature)",
                    (long long)o->self_consistency);
}

static void unused_minimum_of_thoughts(const struct options *o, struct text *wrong)
{
    if (o->min_thinking_tokens && !o->two_stage)
        text_puts(wrong, "not used: two_stage is false");
}

static void unused_sampling(const struct options *o, struct text *wrong)
{
    if (!o->do_sample && (given(o, OPTION_temperature) || given(o, OPTION_top_p) || given(o, OPTION_top_k)))
        text_puts(wrong, "false: temperature, top_p and top_k are not used");
}

#define ERROR true
#define WARNING false
#define KEYS(...) {__VA_ARGS__, OPTION_COUNT}
static const struct rule {
    bool stops;
    rule_fn *check;
    enum option_id keys[RULE_KEYS + 1]; /* ended by OPTION_COUNT */
} rules[] = {
    {ERROR, one_model, KEYS(OPTION_model_name_or_path, OPTION_model_config)},
    {ERROR, something_to_freeze, KEYS(OPTION_finetuning_type, OPTION_model_config)},
    {ERROR, freeze_says_what, KEYS(OPTION_finetuning_type, OPTION_freeze_trainable_layers, OPTION_freeze_parameters)},
    {ERROR, tokenizer_for_scratch, KEYS(OPTION_tokenizer_name_or_path, OPTION_model_config)},
    {ERROR, data_to_train_on, KEYS(OPTION_datasets)},
    {ERROR, data_to_evaluate_on, KEYS(OPTION_eval_datasets)},
    {ERROR, evaluation_has_data, KEYS(OPTION_eval_strategy, OPTION_eval_datasets, OPTION_val_size)},
    {ERROR, one_held_out_set, KEYS(OPTION_val_size, OPTION_eval_datasets)},
    {ERROR, resume_or_overwrite, KEYS(OPTION_resume_from_checkpoint, OPTION_overwrite_output_dir)},
    {ERROR, something_to_learn, KEYS(OPTION_thought_loss_weight, OPTION_answer_loss_weight)},
    {ERROR, answers_are_learnt, KEYS(OPTION_answer_loss_weight, OPTION_allow_zero_answer_loss)},
    {ERROR, best_needs_evaluations, KEYS(OPTION_eval_strategy, OPTION_load_best_model_at_end, OPTION_save_strategy)},
    {ERROR, answers_have_rows, KEYS(OPTION_predict_with_generate, OPTION_eval_datasets)},
    {ERROR, both_tags, KEYS(OPTION_thought_open, OPTION_thought_close)},
    {ERROR, minimum_rate, KEYS(OPTION_lr_scheduler_type, OPTION_min_lr, OPTION_min_lr_rate)},
    {ERROR, milestones, KEYS(OPTION_lr_milestones, OPTION_lr_factors)},
    {ERROR, nesterov_needs_momentum, KEYS(OPTION_nesterov, OPTION_momentum)},
    {ERROR, tasks_have_names, KEYS(OPTION_loar_tasks)},
    {ERROR, thoughts_have_room, KEYS(OPTION_min_thinking_tokens, OPTION_max_thinking_tokens)},
    {ERROR, votes_are_drawn, KEYS(OPTION_self_consistency, OPTION_do_sample)},
    {WARNING, unused_freeze, KEYS(OPTION_finetuning_type, OPTION_freeze_trainable_layers)},
    {WARNING, unused_modules, KEYS(OPTION_finetuning_type, OPTION_modules_to_save)},
    {WARNING, unused_lora, KEYS(OPTION_finetuning_type, OPTION_lora_rank)},
    {WARNING, endless_model, KEYS(OPTION_train_on_eos)},
    {WARNING, unused_routing, KEYS(OPTION_loar_layers)},
    {WARNING, leaky_routing, KEYS(OPTION_loar_features)},
    {WARNING, warmup_ends, KEYS(OPTION_warmup_steps, OPTION_max_steps)},
    {WARNING, dead_rate, KEYS(OPTION_learning_rate)},
    {WARNING, unused_eval_data, KEYS(OPTION_eval_datasets, OPTION_eval_strategy)},
    {WARNING, unused_val_size, KEYS(OPTION_val_size, OPTION_eval_strategy)},
    {WARNING, unused_cache, KEYS(OPTION_overwrite_cache, OPTION_dataset_cache_dir)},
    {WARNING, unused_eval_steps, KEYS(OPTION_eval_steps, OPTION_eval_strategy)},
    {WARNING, unused_save_steps, KEYS(OPTION_save_steps, OPTION_save_strategy)},
    {WARNING, unused_bad_rows, KEYS(OPTION_max_bad_rows, OPTION_strict)},
    {WARNING, unused_minimum, KEYS(OPTION_lr_scheduler_type, OPTION_min_lr, OPTION_min_lr_rate)},
    {WARNING, unused_milestones, KEYS(OPTION_lr_milestones, OPTION_lr_scheduler_type)},
    {WARNING, unused_momentum, KEYS(OPTION_momentum, OPTION_optim)},
    {WARNING, unused_shares, KEYS(OPTION_datasets, OPTION_mix_strategy)},
    {WARNING, evaluating_on_training_rows, KEYS(OPTION_eval_datasets, OPTION_datasets)},
    {WARNING, unused_sampling, KEYS(OPTION_do_sample)},
    {WARNING, unused_minimum_of_thoughts, KEYS(OPTION_min_thinking_tokens, OPTION_two_stage)},
};

static bool all_good(const struct option_reader *reader, const enum option_id *keys)
{
    for (; *keys != OPTION_COUNT; keys++)
        if (reader->bad[*keys])
            return false;
    return true;
}

void option_rules(struct option_reader *reader, bool last)
{
    struct text wrong = {0};
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const struct rule *rule = &rules[i];
        if (!all_good(reader, rule->keys) || (rule->check == answers_are_learnt && !last))
            continue;
        text_clear(&wrong);
        rule->check(reader->options, &wrong);
        if (wrong.failed)
            reader->problems.failed = true;
        if (!wrong.size || wrong.failed)
            continue;
        const struct option_source *source = &reader->options->sources[rule->keys[0]];
        (rule->stops ? option_problem : option_note)(reader, source, option_rows[rule->keys[0]].name, "%s", wrong.data);
    }
    text_free(&wrong);
}

enum status options_check_generation(const struct options *options, struct text *notes, struct error *err)
{
    struct text wrong = {0};
    enum status st = STATUS_OK;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0] && st == STATUS_OK; i++) {
        const struct option_row *key = &option_rows[rules[i].keys[0]];
        if (key->group != OPTION_GROUP_GENERATE)
            continue;
        text_clear(&wrong);
        rules[i].check(options, &wrong);
        if (wrong.failed)
            st = error_set(err, STATUS_NOMEM, "no memory to check the options");
        else if (wrong.size && rules[i].stops)
            st = error_set(err, STATUS_USAGE, "%s: %s", key->name, wrong.data);
        else if (wrong.size && notes)
            text_printf(notes, "%s: %s\n", key->name, wrong.data);
    }
    text_free(&wrong);
    return st;
}
