/* The labels of classification tasks: their names, task by task, and the place of each among all that a run tells apart.
 * Must not know: rows, files, models. */
#ifndef WORKER_DATA_LABELS_H
#define WORKER_DATA_LABELS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

/* More different values than this are no labels. */
enum { LABELS_MOST = 65536 };

struct label_set {
    char *task;    /* "" where nobody named it */
    char **names;  /* [count] */
    int count;
    int first;     /* its labels are first .. first + count - 1 of all */
    bool by_place; /* a whole number that is no name counts as a place in the list */
};

struct labels {
    struct label_set *sets; /* in order of `first` */
    int count;
    int total; /* labels of all sets */
};

/* Appends a set; the names are copied. STATUS_USAGE for names that are empty, come twice or are too many. */
enum status labels_add(struct labels *labels, const char *task, char *const *names, int count, bool by_place, struct error *err);
/* The same with the names 0 .. count - 1. */
enum status labels_add_numbers(struct labels *labels, const char *task, int64_t count, struct error *err);
void labels_free(struct labels *labels);

/* NULL where no set is of this task. */
const struct label_set *labels_find(const struct labels *labels, const char *task);
/* The same, but the only set there is serves any task: an evaluation set need not repeat the name. */
const struct label_set *labels_find_or_only(const struct labels *labels, const char *task);
/* Same tasks with the same names in the same order. */
bool labels_equal(const struct labels *a, const struct labels *b);

/* Place of a label in its set by its name, or by its number; -1: it is none. */
int label_set_place(const struct label_set *set, const char *name, size_t size);
/* Appends "neg, neutral, pos", at most some of them. */
void label_set_list(const struct label_set *set, struct text *out);

/* Sorts names as people do: by value where all are whole numbers, else by their bytes. */
void label_names_sort(char **names, int count);

#endif
