#include "launch/best.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum status best_rule_make(const struct options *o, const struct metrics *expected, struct best_rule *out, struct error *err)
{
    const char *name = o->metric_for_best_model;
    *out = (struct best_rule){.threshold = o->early_stopping_threshold, .patience = o->early_stopping_patience};
    snprintf(out->metric, sizeof out->metric, "%s%.180s", strncmp(name, "eval_", 5) ? "eval_" : "", name);
    size_t size = strlen(out->metric);
    bool loss = size >= 4 && !strcmp(out->metric + size - 4, "loss");
    out->greater = strcmp(o->greater_is_better, "auto") ? !strcmp(o->greater_is_better, "true") : !loss;
    if (!expected->count || metrics_find(expected, name))
        return STATUS_OK;
    struct text known = {0};
    metrics_put_names(expected, &known);
    error_set(err, STATUS_USAGE, "metric_for_best_model: no evaluation gives '%.100s'; there will be %s%s", name,
              known.failed || !known.data ? "others" : known.data,
              strstr(name, "exact_match") && !o->predict_with_generate ? "; exact_match needs predict_with_generate: true" : "");
    text_free(&known);
    return STATUS_USAGE;
}

void best_reset(struct snapshot_meta *meta)
{
    meta->best_metric[0] = '\0';
    meta->best_value = 0;
    meta->best_step = -1;
    meta->idle_evaluations = 0;
}

/* How much better than the best so far; infinite for the first. */
static double gain(const struct best_rule *rule, const struct snapshot_meta *meta, double value)
{
    if (meta->best_step < 0)
        return INFINITY;
    return rule->greater ? value - meta->best_value : meta->best_value - value;
}

bool best_take(const struct best_rule *rule, const struct metrics *found, struct snapshot_meta *meta)
{
    const double *value = metrics_find(found, rule->metric);
    if (!value)
        return false;
    double by = isfinite(*value) ? gain(rule, meta, *value) : -INFINITY;
    meta->idle_evaluations = by > rule->threshold ? 0 : meta->idle_evaluations + 1;
    if (!(by > 0))
        return false;
    snprintf(meta->best_metric, sizeof meta->best_metric, "%.120s", rule->metric);
    meta->best_value = *value;
    meta->best_step = meta->step;
    return true;
}

bool best_is_over(const struct best_rule *rule, const struct snapshot_meta *meta)
{
    return rule->patience > 0 && meta->idle_evaluations >= rule->patience;
}
