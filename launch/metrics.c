#include "launch/metrics.h"

#include <stdio.h>
#include <string.h>

#include "common/memory.h"

static const struct {
    enum metrics_kind kind;
    const char *what;
} rows[] = {
    {METRICS_LOSSES, "loss"},         {METRICS_LOSSES, "thought_loss"},          {METRICS_LOSSES, "answer_loss"},
    {METRICS_LOSSES, "accuracy"},     {METRICS_ANSWERS, "exact_match"},          {METRICS_ANSWERS, "exact_match_flexible"},
    {METRICS_CLASSES, "f1"},
};

void metrics_free(struct metrics *m)
{
    mem_free(m->items);
    *m = (struct metrics){0};
}

void metrics_clear(struct metrics *m)
{
    m->count = 0;
}

enum status metrics_add(struct metrics *m, const char *set, const char *what, double value, struct error *err)
{
    struct metric *grown = mem_realloc(m->items, (size_t)m->count + 1, sizeof *grown);
    if (!grown)
        FAIL(err, STATUS_NOMEM, "no memory for the metric %s", what);
    m->items = grown;
    struct metric *new = &grown[m->count++];
    snprintf(new->name, sizeof new->name, "eval_%.150s%s%s", set ? set : "", set ? "_" : "", what);
    new->value = value;
    return STATUS_OK;
}

const double *metrics_find(const struct metrics *m, const char *name)
{
    for (int i = 0; i < m->count; i++)
        if (!strcmp(m->items[i].name, name) || !strcmp(m->items[i].name + strlen("eval_"), name))
            return &m->items[i].value;
    return NULL;
}

void metrics_put_names(const struct metrics *m, struct text *out)
{
    for (int i = 0; i < m->count; i++)
        text_printf(out, "%s%s", i ? ", " : "", m->items[i].name + strlen("eval_"));
}

enum status metrics_expect(struct metrics *m, const char *set, int kinds, struct error *err)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (kinds & (int)rows[i].kind)
            TRY(metrics_add(m, set, rows[i].what, 0, err));
    return STATUS_OK;
}
