#include "worker/data/seen_names.h"

#include <string.h>

#include "common/memory.h"
#include "worker/data/labels.h"

static enum status reserve(struct seen_names *s, struct error *err)
{
    if (s->count < s->capacity)
        return STATUS_OK;
    size_t n = s->capacity ? (size_t)s->capacity * 2 : 16;
    char **names = mem_realloc(s->names, n, sizeof *names);
    if (names)
        s->names = names;
    int32_t *sorted = names ? mem_realloc(s->sorted, n, sizeof *sorted) : NULL;
    if (!sorted)
        FAIL(err, STATUS_NOMEM, "no memory for %zu labels", n);
    s->sorted = sorted;
    s->capacity = (int)n;
    return STATUS_OK;
}

enum status seen_names_add(struct seen_names *s, const char *name, int32_t *out, struct error *err)
{
    int low = 0, high = s->count;
    while (low < high) {
        int middle = low + (high - low) / 2, order = strcmp(s->names[s->sorted[middle]], name);
        if (order == 0) {
            *out = s->sorted[middle];
            return STATUS_OK;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (s->count == LABELS_MOST)
        FAIL(err, STATUS_DATA, "the label column holds more than %d different values; it is hardly one of labels (label_column)", LABELS_MOST);
    TRY(reserve(s, err));
    char *copy = mem_strdup(name);
    if (!copy)
        FAIL(err, STATUS_NOMEM, "no memory for the label '%.60s'", name);
    memmove(s->sorted + low + 1, s->sorted + low, (size_t)(s->count - low) * sizeof *s->sorted);
    s->sorted[low] = s->count;
    s->names[s->count] = copy;
    *out = s->count++;
    return STATUS_OK;
}

void seen_names_free(struct seen_names *s)
{
    for (int i = 0; s->names && i < s->count; i++)
        mem_free(s->names[i]);
    mem_free(s->names);
    mem_free(s->sorted);
    *s = (struct seen_names){0};
}
