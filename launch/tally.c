#include "launch/tally.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/scalar.h"

enum status tally_create(const struct model_config *config, const char *const *tasks, int n_tasks, struct tally *out,
                         struct error *err)
{
    *out = (struct tally){.config = config, .tasks = tasks, .n_tasks = n_tasks};
    return counters_create(config->loar ? config->layers : 0, config->loar ? config->loar->config.n_tasks : 0, config->heads,
                           config->labels, &out->sums, err);
}

void tally_free(struct tally *t)
{
    counters_free(&t->sums);
}

void tally_clear(struct tally *t)
{
    counters_clear(&t->sums);
    t->steps = 0;
    t->imbalance = 0;
}

void tally_add(struct tally *t, const int64_t *counts, size_t count, double imbalance)
{
    for (size_t i = 0; count == t->sums.count && i < count; i++)
        t->sums.items[i] += counts[i];
    t->steps++;
    t->imbalance += imbalance;
}

static bool is_routed(const struct tally *t, int layer)
{
    return t->config->loar && t->config->loar->layers[layer].routed;
}

/* Rows of a task in a routed layer, and how many of its heads ran in them. */
static void add_rows(const struct tally *t, int layer, int task, int64_t *all, int64_t *ran)
{
    struct routing_counts counts = counters_routing(&t->sums);
    *all += routing_counts_at(&counts, layer, task, counts.heads)->rows * counts.heads;
    for (int h = 0; h < counts.heads; h++)
        *ran += routing_counts_at(&counts, layer, task, h)->rows;
}

double tally_active(const struct tally *t, int layer)
{
    int64_t all = 0, ran = 0;
    if (!is_routed(t, layer))
        return 1;
    for (int task = 0; task < t->sums.tasks; task++)
        add_rows(t, layer, task, &all, &ran);
    return all ? (double)ran / (double)all : NAN;
}

static double mean_active(const struct tally *t)
{
    double sum = 0;
    for (int i = 0; i < t->config->layers; i++)
        sum += tally_active(t, i);
    return sum / t->config->layers;
}

static void put_number(struct text *json, const char *key, double value)
{
    text_printf(json, "%s\"%s\": ", json->size ? ", " : "", key);
    scalar_put_json(json, value);
}

static void put_numbers(const struct tally *t, struct text *json)
{
    const int64_t *items = t->sums.items;
    double steps = t->steps > 0 ? (double)t->steps : 1;
    put_number(json, "attention_gflop", (double)items[COUNTERS_FLOPS] * 1e-9 / steps);
    put_number(json, "attention_share", (double)items[COUNTERS_FLOPS] / (double)items[COUNTERS_DENSE_FLOPS]);
    if (t->config->loar)
        put_number(json, "active_heads", mean_active(t));
    if (t->imbalance > 0)
        put_number(json, "imbalance", t->imbalance / steps);
    text_puts(json, json->size ? ", \"loss_by_quarter\": [" : "\"loss_by_quarter\": [");
    for (int q = 0; q < 4; q++) {
        const int64_t *quarter = items + COUNTERS_QUARTERS + 2 * q;
        text_puts(json, q ? ", " : "");
        if (quarter[1])
            text_printf(json, "%.5f", (double)quarter[0] / COUNTERS_LOSS_UNIT / (double)quarter[1]);
        else
            text_puts(json, "null");
    }
    text_puts(json, "]");
    for (int part = 0; part < MODEL_N_PARTS; part++) {
        char key[64];
        snprintf(key, sizeof key, "%s_ms", model_part_names[part]);
        put_number(json, key, (double)items[COUNTERS_TIMES + part] * 1e-6 / steps);
    }
}

static void put_layer(const struct tally *t, int layer, int task, struct text *json)
{
    struct routing_counts counts = counters_routing(&t->sums);
    for (int h = 0; h < counts.heads; h++) {
        double all = (double)routing_counts_at(&counts, layer, task, counts.heads)->rows;
        text_puts(json, h ? ", " : "[");
        if (is_routed(t, layer))
            text_printf(json, "%.4f", (double)routing_counts_at(&counts, layer, task, h)->rows / all);
        else
            text_puts(json, "1");
    }
    text_puts(json, "]");
}

/* Layers by heads of a task, or null where it had no rows. */
static void put_task(const struct tally *t, int task, struct text *json)
{
    int64_t all = 0, ran = 0;
    for (int i = 0; i < t->config->layers; i++)
        if (is_routed(t, i))
            add_rows(t, i, task, &all, &ran);
    if (!all) {
        text_puts(json, "null");
        return;
    }
    for (int i = 0; i < t->config->layers; i++) {
        text_puts(json, i ? ", " : "[");
        put_layer(t, i, task, json);
    }
    text_puts(json, "]");
}

static bool any_routed(const struct tally *t)
{
    return t->config->loar && loar_any_routed(t->config->loar->layers, t->config->layers);
}

static void put_record(const struct tally *t, const char *kind, int64_t step, struct text *json)
{
    text_printf(json, "{\"step\": %" PRId64 ", \"routing\": \"%s\", \"tasks\": [", step, kind);
    for (int i = 0; i < t->sums.tasks; i++) {
        const char *name = i < t->n_tasks ? t->tasks[i] : "";
        text_puts(json, i ? ", " : "");
        text_json_string(json, name, strlen(name));
    }
    text_puts(json, "], \"active\": [");
    for (int i = 0; i < t->sums.tasks; i++) {
        text_puts(json, i ? ", " : "");
        put_task(t, i, json);
    }
    text_puts(json, "]");
}

/* "  heads that ran: 0.62 1 0.48 ... (layers 0 to 7)" and where time went. */
static void put_lines(const struct tally *t, struct text *out)
{
    const int64_t *items = t->sums.items;
    if (any_routed(t)) {
        text_puts(out, "  heads that ran, by layer:");
        for (int i = 0; i < t->config->layers; i++)
            text_printf(out, " %.2f", tally_active(t, i));
        text_printf(out, "; attention %.2f GFLOP, %.0f %% of dense\n", (double)items[COUNTERS_FLOPS] * 1e-9,
                    100.0 * (double)items[COUNTERS_FLOPS] / (double)items[COUNTERS_DENSE_FLOPS]);
    }
    if (!t->config->loar)
        return;
    text_puts(out, "  ms of all batches:");
    for (int part = 0; part < MODEL_N_PARTS; part++)
        text_printf(out, " %s %.0f", model_part_names[part], (double)items[COUNTERS_TIMES + part] * 1e-6);
    text_puts(out, "\n");
}

void tally_put(const struct tally *t, const char *kind, int64_t step, struct report_extra *out)
{
    if (!t->sums.items[COUNTERS_DENSE_FLOPS])
        return;
    put_numbers(t, &out->json);
    put_lines(t, &out->lines);
    if (!any_routed(t))
        return;
    text_printf(&out->words, " heads %.2f", mean_active(t));
    put_record(t, kind, step, &out->record);
}
