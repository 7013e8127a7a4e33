#include "launch/loar_setup.h"

#include <string.h>

#include "common/memory.h"

enum status loar_setup_create(int n_layers, struct loar_setup **out, struct error *err)
{
    struct loar_setup *s = mem_alloc(1, sizeof *s);
    struct loar_layer *layers = mem_alloc((size_t)n_layers, sizeof *layers);
    if (!s || !layers) {
        mem_free(s);
        mem_free(layers);
        FAIL(err, STATUS_NOMEM, "no memory for the routing of %d layers", n_layers);
    }
    for (int i = 0; i < n_layers; i++)
        layers[i] = (struct loar_layer){.budget = 1};
    s->plan = (struct loar_plan){LOAR_CONFIG_DEFAULT, layers};
    s->plan.config.n_tasks = 0;
    s->layers = layers;
    s->n_layers = n_layers;
    *out = s;
    return STATUS_OK;
}

void loar_setup_free(struct loar_setup *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->plan.config.n_tasks; i++)
        mem_free(s->tasks[i]);
    mem_free(s->layers);
    mem_free(s);
}

enum status loar_setup_add_task(struct loar_setup *s, const char *name, struct error *err)
{
    int *count = &s->plan.config.n_tasks;
    if (*count == LOAR_MAX_TASKS)
        FAIL(err, STATUS_USAGE, "there are more than %d tasks; routing handles at most that many", LOAR_MAX_TASKS);
    if (!(s->tasks[*count] = mem_strdup(name)))
        FAIL(err, STATUS_NOMEM, "no memory for the task '%.60s'", name);
    ++*count;
    return STATUS_OK;
}

int loar_setup_task(const struct loar_setup *s, const char *name)
{
    for (int i = 0; i < s->plan.config.n_tasks; i++)
        if (!strcmp(s->tasks[i], name))
            return i;
    return -1;
}

int loar_setup_task_or_default(const struct loar_setup *s, const char *name)
{
    int task = loar_setup_task(s, name);
    return task < 0 ? s->default_task : task;
}

bool loar_setup_same_tasks(const struct loar_setup *a, const struct loar_setup *b)
{
    if (a->plan.config.n_tasks != b->plan.config.n_tasks)
        return false;
    for (int i = 0; i < a->plan.config.n_tasks; i++)
        if (strcmp(a->tasks[i], b->tasks[i]))
            return false;
    return true;
}

bool loar_setup_is_routed(const struct loar_setup *s)
{
    return loar_any_routed(s->layers, s->n_layers);
}

void loar_setup_put_tasks(const struct loar_setup *s, struct text *out)
{
    for (int i = 0; i < s->plan.config.n_tasks; i++)
        text_printf(out, "%s%s", i ? ", " : "", s->tasks[i]);
}

static bool same_layer(const struct loar_layer *a, const struct loar_layer *b)
{
    bool budget = !a->routed || a->budget == b->budget;
    return a->routed == b->routed && budget && a->window == b->window && a->sinks == b->sinks;
}

void loar_setup_put_layers(const struct loar_setup *setup, struct text *out)
{
    for (int i = 0, next; i < setup->n_layers; i = next) {
        const struct loar_layer *l = &setup->layers[i];
        for (next = i + 1; next < setup->n_layers && same_layer(l, &setup->layers[next]); next++)
            ;
        text_printf(out, next - i > 1 ? "%slayers %d to %d: " : "%slayer %d: ", i ? "; " : "", i, next - 1);
        if (l->window)
            text_printf(out, "window %d and %d sinks%s", l->window, l->sinks, l->routed ? ", " : "");
        if (l->routed)
            text_printf(out, "%.4g %% of the heads", 100 * l->budget);
        else if (!l->window)
            text_puts(out, "all");
    }
}
