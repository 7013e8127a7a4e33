#include "worker/data/labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"

static bool whole_number(const char *text, size_t size, int64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9' || size > 18)
            return false;
        *out = *out * 10 + (text[i] - '0');
    }
    return size > 0;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_value(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    int64_t m, n;
    whole_number(x, strlen(x), &m);
    whole_number(y, strlen(y), &n);
    return m < n ? -1 : m > n ? 1 : strcmp(x, y);
}

void label_names_sort(char **names, int count)
{
    bool numbers = true;
    int64_t value;
    for (int i = 0; i < count; i++)
        numbers = numbers && whole_number(names[i], strlen(names[i]), &value);
    qsort(names, (size_t)count, sizeof *names, numbers ? by_value : by_bytes);
}

static enum status check_names(const char *task, char *const *names, int count, struct error *err)
{
    char **sorted = mem_alloc((size_t)count, sizeof *sorted);
    enum status st = STATUS_OK;
    if (!sorted)
        FAIL(err, STATUS_NOMEM, "no memory for %d labels", count);
    memcpy(sorted, names, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, by_bytes);
    for (int i = 0; i < count && st == STATUS_OK; i++)
        if (!*sorted[i] || (i && !strcmp(sorted[i], sorted[i - 1])))
            st = error_set(err, STATUS_USAGE, "the labels of task '%s' hold '%.60s' %s; labels must differ and say something", task,
                           sorted[i], *sorted[i] ? "twice" : "(an empty text)");
    mem_free(sorted);
    return st;
}

static void set_free(struct label_set *set)
{
    for (int i = 0; set->names && i < set->count; i++)
        mem_free(set->names[i]);
    mem_free(set->names);
    mem_free(set->task);
}

enum status labels_add(struct labels *labels, const char *task, char *const *names, int count, bool by_place, struct error *err)
{
    if (count < 2 || count > LABELS_MOST - labels->total)
        FAIL(err, STATUS_USAGE, "the task '%s' has %d label%s; a classification needs two or more, and at most %d in all", task, count,
             count == 1 ? "" : "s", LABELS_MOST);
    TRY(check_names(task, names, count, err));
    struct label_set *sets = mem_realloc(labels->sets, (size_t)labels->count + 1, sizeof *sets);
    if (!sets)
        FAIL(err, STATUS_NOMEM, "no memory for the labels of task '%s'", task);
    labels->sets = sets;
    struct label_set set = {.task = mem_strdup(task), .names = mem_alloc((size_t)count, sizeof *set.names), .count = count,
                            .first = labels->total, .by_place = by_place};
    bool whole = set.task && set.names;
    for (int i = 0; whole && i < count; i++)
        whole = (set.names[i] = mem_strdup(names[i])) != NULL;
    if (!whole) {
        set_free(&set);
        FAIL(err, STATUS_NOMEM, "no memory for the labels of task '%s'", task);
    }
    labels->sets[labels->count++] = set;
    labels->total += count;
    return STATUS_OK;
}

enum status labels_add_numbers(struct labels *labels, const char *task, int64_t count, struct error *err)
{
    enum { ROOM = 12 };
    if (count > LABELS_MOST)
        FAIL(err, STATUS_USAGE, "num_labels of task '%s' is %lld, more than %d", task, (long long)count, LABELS_MOST);
    char *room = mem_alloc((size_t)count, ROOM), **names = mem_alloc((size_t)count, sizeof *names);
    enum status st = room && names ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for the labels of task '%s'", task);
    for (int i = 0; i < count && st == STATUS_OK; i++) {
        names[i] = room + (size_t)i * ROOM;
        snprintf(names[i], ROOM, "%d", i);
    }
    if (st == STATUS_OK)
        st = labels_add(labels, task, names, (int)count, false, err);
    mem_free(room);
    mem_free(names);
    return st;
}

void labels_free(struct labels *labels)
{
    for (int i = 0; i < labels->count; i++)
        set_free(&labels->sets[i]);
    mem_free(labels->sets);
    *labels = (struct labels){0};
}

const struct label_set *labels_find(const struct labels *labels, const char *task)
{
    for (int i = 0; i < labels->count; i++)
        if (!strcmp(labels->sets[i].task, task))
            return &labels->sets[i];
    return NULL;
}

const struct label_set *labels_find_or_only(const struct labels *labels, const char *task)
{
    const struct label_set *set = labels_find(labels, task);
    return !set && labels->count == 1 ? labels->sets : set;
}

bool labels_equal(const struct labels *a, const struct labels *b)
{
    bool same = a->count == b->count;
    for (int i = 0; same && i < a->count; i++) {
        const struct label_set *x = &a->sets[i], *y = &b->sets[i];
        same = x->count == y->count && !strcmp(x->task, y->task);
        for (int j = 0; same && j < x->count; j++)
            same = !strcmp(x->names[j], y->names[j]);
    }
    return same;
}

int label_set_place(const struct label_set *set, const char *name, size_t size)
{
    int64_t place;
    for (int i = 0; i < set->count; i++)
        if (strlen(set->names[i]) == size && !memcmp(set->names[i], name, size))
            return i;
    return set->by_place && whole_number(name, size, &place) && place < set->count ? (int)place : -1;
}

void label_set_list(const struct label_set *set, struct text *out)
{
    enum { SHOWN = 10 };
    for (int i = 0; i < set->count && i < SHOWN; i++)
        text_printf(out, "%s%.60s", i ? ", " : "", set->names[i]);
    text_puts(out, set->count > SHOWN ? ", ..." : "");
}
