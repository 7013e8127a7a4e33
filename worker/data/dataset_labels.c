/* From the labels that rows name to places among the labels of their tasks.
 * Must not know: where rows come from. */
#include <string.h>

#include "common/memory.h"
#include "worker/data/dataset.h"
#include "worker/data/seen_names.h"

/* All names of one task, whatever file they came from. */
static enum status collect_task(const struct dataset *dataset, int task, struct labels *labels, struct error *err)
{
    struct seen_names seen = {0};
    int32_t number;
    enum status st = STATUS_OK;
    for (int i = 0; i < dataset->n_parts && st == STATUS_OK; i++) {
        const struct dataset_part *part = &dataset->parts[i];
        for (int j = 0; part->classify && part->task == task && j < part->n_label_names && st == STATUS_OK; j++)
            st = seen_names_add(&seen, part->label_names[j], &number, err);
    }
    if (st == STATUS_OK) {
        label_names_sort(seen.names, seen.count);
        st = labels_add(labels, dataset->tasks[task], seen.names, seen.count, false, err);
    }
    seen_names_free(&seen);
    return st;
}

enum status dataset_collect_labels(const struct dataset *dataset, const struct labels *given, struct labels *labels,
                                   struct error *err)
{
    for (int i = 0; i < dataset->n_parts; i++) {
        const struct dataset_part *part = &dataset->parts[i];
        const char *task = dataset->tasks[part->task];
        const struct label_set *set = labels_find(given, task);
        if (!part->classify || labels_find(labels, task))
            continue;
        TRY(set ? labels_add(labels, task, set->names, set->count, set->by_place, err) : collect_task(dataset, part->task, labels, err));
    }
    return STATUS_OK;
}

static enum status use_labels(struct dataset *dataset, struct dataset_part *part, const struct label_set *set, int32_t *places,
                              struct error *err)
{
    for (int i = 0; i < part->n_label_names; i++) {
        places[i] = label_set_place(set, part->label_names[i], strlen(part->label_names[i]));
        if (places[i] < 0)
            FAIL(err, STATUS_DATA, "data set '%s' has rows with the label '%.60s', which is not among the %d of task '%s'", part->name,
                 part->label_names[i], set->count, set->task);
    }
    for (int64_t row = part->first_row; row < part->first_row + part->stats.kept; row++)
        dataset->labels[row] = places[dataset->labels[row]];
    part->classes_first = set->first;
    part->classes_count = set->count;
    return STATUS_OK;
}

enum status dataset_use_labels(struct dataset *dataset, const struct labels *labels, struct error *err)
{
    for (int i = 0; i < dataset->n_parts; i++) {
        struct dataset_part *part = &dataset->parts[i];
        if (!part->classify || part->classes_count)
            continue; /* text, or rows held out of those that have their places */
        const struct label_set *set = labels_find_or_only(labels, dataset->tasks[part->task]);
        if (!set)
            FAIL(err, STATUS_USAGE, "data set '%s': no data set of training has a class for the task '%s'; let task name one that has",
                 part->name, dataset->tasks[part->task]);
        int32_t *places = mem_alloc((size_t)part->n_label_names, sizeof *places);
        if (!places)
            FAIL(err, STATUS_NOMEM, "no memory for %d labels", part->n_label_names);
        enum status st = use_labels(dataset, part, set, places, err);
        mem_free(places);
        TRY(st);
    }
    return STATUS_OK;
}
