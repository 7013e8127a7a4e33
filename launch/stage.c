#include "launch/stage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct optimizer_options stage_optimizer_options(const struct options *o)
{
    return (struct optimizer_options){.beta1 = o->adam_beta1, .beta2 = o->adam_beta2, .epsilon = o->adam_epsilon,
                                      .weight_decay = o->weight_decay, .momentum = o->momentum, .nesterov = o->nesterov};
}

/* A router's input has the width's length and entries near 1: with Adam, whose steps have the size of the rate, this moves a
 * hidden value by about 2 a step, whatever the width. */
static double fit_rate(const struct run *run)
{
    double given = run->options->loar.fit_learning_rate;
    return given > 0 ? given : fmin(2 / (double)run->config.width, 0.01);
}

struct server_stage stage_for_server(const struct stage *stage, int64_t first_step)
{
    return (struct server_stage){.number = stage->run->stage, .first_step = first_step, .schedule = stage->schedule,
                                 .max_grad_norm = stage->run->options->max_grad_norm,
                                 .router_steps = stage->run->routing.dense_steps, .router_rate = fit_rate(stage->run)};
}

bool stage_answers(const struct run *run, int set)
{
    return run->options->predict_with_generate && !run->eval.parts[set].classify;
}

bool stage_tells_tasks(const struct run *run)
{
    return run->eval.n_parts > 1;
}

/* A task's kinds are those of any of its sets; 0: it has none. */
static int kinds_of_task(const struct run *run, int task)
{
    int kinds = 0;
    for (int set = 0; set < run->eval.n_parts; set++)
        if (run->eval.parts[set].task == task)
            kinds |= METRICS_LOSSES | (stage_answers(run, set) ? METRICS_ANSWERS : 0);
    return kinds;
}

static int kinds_of(const struct run *run, int set)
{
    return METRICS_LOSSES | (stage_answers(run, set) ? METRICS_ANSWERS : 0) | (run->eval.parts[set].classify ? METRICS_CLASSES : 0);
}

enum status stage_expect_metrics(const struct run *run, struct metrics *out, struct error *err)
{
    int all = 0;
    for (int set = 0; set < run->eval.n_parts; set++)
        all |= kinds_of(run, set);
    TRY(metrics_expect(out, NULL, all & ~METRICS_CLASSES, err)); /* f1 is a set's alone */
    for (int set = 0; set < run->eval.n_parts; set++)
        TRY(metrics_expect(out, run->eval.parts[set].name, kinds_of(run, set), err));
    for (int task = 0; task < run->eval.n_tasks && stage_tells_tasks(run); task++) {
        char name[160];
        snprintf(name, sizeof name, "task_%.150s", run->eval.tasks[task]);
        TRY(metrics_expect(out, name, kinds_of_task(run, task), err));
    }
    return STATUS_OK;
}

static enum status make_schedule(const struct options *o, int64_t steps, struct schedule *out, struct error *err)
{
    enum schedule_type type;
    struct schedule_kwargs kwargs = {.num_cycles = o->lr_num_cycles, .min_lr = o->min_lr, .min_lr_rate = o->min_lr_rate};
    if (o->lr_milestones.count != o->lr_factors.count || o->lr_milestones.count > SCHEDULE_MAX_MILESTONES)
        FAIL(err, STATUS_USAGE, "lr_milestones and lr_factors must have the same length, at most %d; found %zu and %zu",
             SCHEDULE_MAX_MILESTONES, o->lr_milestones.count, o->lr_factors.count);
    kwargs.milestones = (int)o->lr_milestones.count;
    for (int i = 0; i < kwargs.milestones; i++) {
        kwargs.at[i] = o->lr_milestones.items[i];
        kwargs.factor[i] = o->lr_factors.items[i];
    }
    TRY(schedule_parse(o->lr_scheduler_type, &type, err));
    return schedule_make(type, o->learning_rate, steps, o->warmup_steps, o->warmup_ratio, &kwargs, out, err);
}

static bool next_starts_from_best(const struct run *run)
{
    const struct stage_list *list = &run->all->stages;
    return (size_t)run->stage + 1 < list->count && !strcmp(list->items[run->stage + 1].start_from, "best");
}

static enum status plan(const struct run *run, struct stage *out, struct error *err)
{
    const struct options *o = run->options;
    struct metrics expected = {0};
    if (o->predict_with_generate && run->config.loar && loar_is_leaky(&run->config.loar->config) && !o->loar.allow_leaky_routing)
        FAIL(err, STATUS_USAGE, "predict_with_generate: heads are chosen by the whole text (loar.features: seq_mean), which is not there yet when an "
             "answer is written, so matches would say little; choose other features, or confirm with loar.allow_leaky_routing: true");
    if (o->predict_with_generate)
        TRY(options_check_generation(o, NULL, err));
    *out = (struct stage){.run = run, .steps = run_steps(run)};
    out->keeps_best = o->load_best_model_at_end || !strcmp(o->save_strategy, "best") || next_starts_from_best(run);
    enum status st = stage_expect_metrics(run, &expected, err);
    if (st == STATUS_OK)
        st = best_rule_make(o, &expected, &out->best, err);
    metrics_free(&expected);
    return st == STATUS_OK ? make_schedule(o, out->steps, &out->schedule, err) : st;
}

enum status stages_plan(struct run *run, struct stage *stages, struct error *err)
{
    for (int i = 0; i < run->n_stages; i++) {
        enum status st = plan(run_stage(run, i), &stages[i], err);
        if (st != STATUS_OK && run->name)
            error_prefix(err, "stage '%s'", run_stage(run, i)->name);
        TRY(st);
    }
    return STATUS_OK;
}
