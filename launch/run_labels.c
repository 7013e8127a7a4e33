#include "launch/run_labels.h"

#include <string.h>

#include "common/memory.h"
#include "launch/run.h"
#include "ps/snapshot.h"
#include "worker/model/config_labels.h"

bool run_classifies(const struct options *options, const struct dataset_options *entry)
{
    const char *type = strcmp(entry->task_type, "default") ? entry->task_type : options->task_type;
    return !strcmp(type, "seq_cls");
}

static const char *task_of(const struct dataset_options *entry)
{
    return entry->task && *entry->task ? entry->task : entry->name ? entry->name : "";
}

/* Those of the model's folder. A folder of the public code names no task: its labels are those of the only one here. */
static enum status folder_labels(const struct run *run, struct labels *out, struct error *err)
{
    const struct options *o = run->options;
    const char *only = NULL;
    bool several = false;
    if (!o->model_name_or_path)
        return STATUS_OK;
    TRY(config_labels_parse(run->config_json.data, run->config_json.size, "config.json", out, err));
    for (size_t i = 0; i < o->datasets.count; i++)
        if (run_classifies(o, &o->datasets.items[i])) {
            const char *task = task_of(&o->datasets.items[i]);
            several = several || (only && strcmp(only, task));
            only = task;
        }
    if (out->count != 1 || *out->sets[0].task || !only || several)
        return STATUS_OK;
    char *name = mem_strdup(only);
    if (!name)
        FAIL(err, STATUS_NOMEM, "no memory for the task '%s'", only);
    mem_free(out->sets[0].task);
    out->sets[0].task = name;
    return STATUS_OK;
}

static enum status entry_labels(const struct dataset_options *entry, struct labels *out, struct error *err)
{
    int64_t count = (int64_t)entry->labels.count;
    if (count && entry->num_labels > 0 && entry->num_labels != count)
        FAIL(err, STATUS_USAGE, "data set '%s': num_labels is %lld, but labels lists %lld", task_of(entry), (long long)entry->num_labels,
             (long long)count);
    if (count)
        return labels_add(out, task_of(entry), entry->labels.items, (int)(count < LABELS_MOST ? count : LABELS_MOST), true, err);
    return entry->num_labels > 0 ? labels_add_numbers(out, task_of(entry), entry->num_labels, err) : STATUS_OK;
}

/* What an entry says goes before what the folder says, and must be what other entries of its task say. */
static enum status add_given(const struct dataset_options *entry, struct labels *given, struct error *err)
{
    struct labels own = {0}, before = {0};
    enum status st = entry_labels(entry, &own, err);
    const struct label_set *known = labels_find(given, task_of(entry));
    if (st == STATUS_OK && own.count && known) {
        st = labels_add(&before, known->task, known->names, known->count, false, err);
        if (st == STATUS_OK && !labels_equal(&own, &before))
            st = error_set(err, STATUS_USAGE, "two data sets of the task '%s' give different labels (labels, num_labels)", known->task);
    } else if (st == STATUS_OK && own.count) {
        st = labels_add(given, own.sets[0].task, own.sets[0].names, own.sets[0].count, own.sets[0].by_place, err);
    }
    labels_free(&own);
    labels_free(&before);
    return st;
}

/* num_labels at the top of the file is for tasks that nobody else knows the labels of. */
static enum status add_numbers(const struct options *o, struct labels *given, struct error *err)
{
    for (size_t i = 0; o->num_labels > 0 && i < o->datasets.count; i++) {
        const struct dataset_options *entry = &o->datasets.items[i];
        if (run_classifies(o, entry) && !labels_find(given, task_of(entry)))
            TRY(labels_add_numbers(given, task_of(entry), o->num_labels, err));
    }
    return STATUS_OK;
}

enum status run_labels_given(const struct run *run, struct labels *given, struct error *err)
{
    const struct dataset_list *lists[] = {&run->options->datasets, &run->options->eval_datasets};
    struct labels folder = {0};
    for (int l = 0; l < 2; l++)
        for (size_t i = 0; i < lists[l]->count; i++)
            TRY(add_given(&lists[l]->items[i], given, err));
    enum status st = folder_labels(run, &folder, err);
    for (int i = 0; i < folder.count && st == STATUS_OK; i++) {
        const struct label_set *set = &folder.sets[i];
        if (*set->task && !labels_find(given, set->task))
            st = labels_add(given, set->task, set->names, set->count, true, err);
    }
    labels_free(&folder);
    return st == STATUS_OK ? add_numbers(run->options, given, err) : st;
}

static enum status rewrite_config(struct run *run, struct error *err)
{
    struct text text = {0};
    enum status st = config_labels_write(run->config_json.data, run->config_json.size, &run->config, &run->labels, &text, err);
    if (st != STATUS_OK) {
        text_free(&text);
        return st;
    }
    text_free(&run->config_json);
    run->config_json = text;
    return STATUS_OK;
}

enum status run_labels_settle(struct run *run, const struct labels *given, struct error *err)
{
    struct labels folder = {0};
    bool had_labels = run->config.labels > 0;
    for (int stage = 0; stage < run->n_stages; stage++)
        TRY(dataset_collect_labels(&run_stage(run, stage)->train, given, &run->labels, err));
    for (int stage = 0; stage < run->n_stages; stage++)
        TRY(dataset_use_labels(&run_stage(run, stage)->train, &run->labels, err));
    enum status st = folder_labels(run, &folder, err);
    run->scores_anew = !labels_equal(&folder, &run->labels);
    labels_free(&folder);
    TRY(st);
    run->config.labels = run->labels.total;
    run->config.classifies_only = run->labels.count > 0;
    for (int stage = 0; stage < run->n_stages; stage++) {
        const struct dataset *train = &run_stage(run, stage)->train;
        for (int i = 0; i < train->n_parts; i++)
            run->config.classifies_only = run->config.classifies_only && train->parts[i].classify;
    }
    return had_labels || run->labels.count ? rewrite_config(run, err) : STATUS_OK;
}

enum status run_labels_evaluation(struct run *run, struct error *err)
{
    for (int i = 0; i < run->eval.n_parts; i++)
        if (run->config.classifies_only && !run->eval.parts[i].classify)
            FAIL(err, STATUS_USAGE, "the evaluation set '%s' is text, but all training rows have a class and the model gets no head for text; "
                 "give it task_type: seq_cls", run->eval.parts[i].name);
    return dataset_use_labels(&run->eval, &run->labels, err);
}

void run_labels_notes(const struct run *run, struct text *notes)
{
    for (int i = 0; i < run->labels.count; i++) {
        const struct label_set *set = &run->labels.sets[i];
        text_printf(notes, "%d labels of %s: ", set->count, set->task);
        label_set_list(set, notes);
        text_puts(notes, "\n");
    }
}

enum status run_labels_check(const struct run *run, const struct snapshot *snapshot, struct error *err)
{
    char *config = NULL;
    size_t size;
    struct labels saved = {0};
    TRY(snapshot_file(snapshot, "config.json", &config, &size, err));
    enum status st = config_labels_parse(config, size, "config.json of the snapshot", &saved, err);
    if (st == STATUS_OK && run->labels.count && !labels_equal(&saved, &run->labels))
        st = error_set(err, STATUS_USAGE, "cannot resume from '%s': it tells other labels apart than the training rows have now; give the rows "
                       "that the run began with", snapshot_path(snapshot));
    labels_free(&saved);
    mem_free(config);
    return st;
}
