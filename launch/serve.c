#include "launch/serve.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/timing.h"
#include "launch/evaluate.h"
#include "launch/loar_setup.h"
#include "launch/progress.h"
#include "launch/report.h"
#include "launch/run.h"
#include "launch/saver.h"
#include "launch/scores.h"
#include "launch/start.h"
#include "launch/tally.h"
#include "ps/server.h"

/* The training loop of rank 0: which step comes next, when to print, evaluate, save and stop. */
struct course {
    const struct options *options; /* of the whole run */
    const struct invocation *invocation;
    struct start start; /* model, rows, parameters, optimizer, where to begin */
    const struct stage *stage; /* in work */
    struct server *server;
    struct saver *saver;
    struct report *report;
    struct snapshot_meta meta; /* state of the run after `meta.step` steps */
    double began;              /* time_seconds of this part of the run */
    struct window {            /* since the last line */
        struct slot_report sums;
        double seconds;
        int64_t steps;
    } window;
    struct tally counted, counted_eval; /* in the window; in the evaluation */
    struct metrics metrics;             /* of the last evaluation */
    double warm_seconds;   /* of this part's steps behind its first */
    bool evaluated, saved; /* at the present step */
};

enum { WARM_STEPS = 3 };

/* `step` and `total` are those of the stage. */
static bool due(const char *strategy, int64_t every, int64_t steps_per_epoch, int64_t step, int64_t total)
{
    if (!strcmp(strategy, "no") || !strcmp(strategy, "best"))
        return false;
    if (!strcmp(strategy, "epoch"))
        return step % steps_per_epoch == 0 || step == total;
    return step % every == 0 || step == total;
}

static bool evaluation_is_due(const struct stage *stage, int64_t done, const struct options *o)
{
    return due(o->eval_strategy, o->eval_steps, order_steps_per_epoch(&stage->run->order), done, stage->steps) &&
           (done >= o->eval_delay || done == stage->steps);
}

static void snapshot_done(void *context, const struct writer_result *result)
{
    struct course *c = context;
    report_saved(c->report, result);
}

static enum status save(struct course *c, struct error *err)
{
    if (c->saved)
        return STATUS_OK;
    c->saved = true;
    c->meta.seconds = c->start.meta.seconds + time_seconds() - c->began;
    return saver_begin(c->saver, &c->meta, report_history(c->report), err);
}

static void add_counts(struct course *c, struct tally *to, double imbalance)
{
    size_t count;
    const int64_t *counts = server_counts(c->server, &count);
    tally_add(to, counts, count, imbalance);
}

/* Steps of the stage that are done. */
static int64_t stage_steps_done(const struct course *c)
{
    return c->meta.step - c->meta.stage_step;
}

static enum status evaluate(struct course *c, struct error *err)
{
    const struct run *run = c->stage->run;
    struct slot_report sums;
    double began = time_seconds();
    if (c->evaluated || run->eval.n_parts == 0)
        return STATUS_OK;
    c->evaluated = true;
    struct evaluation evaluation = {.run = run, .server = c->server, .report = c->report, .tally = &c->counted_eval, .step = c->meta.step,
                                    .epoch = c->meta.epoch, .metrics = &c->metrics};
    struct report_extra extra = {0};
    enum status st = evaluate_sets(&evaluation, &sums, &extra, err);
    c->saved = false; /* what is decided now is part of the state */
    c->meta.evaluated = st == STATUS_OK ? c->meta.step + 1 : c->meta.evaluated;
    bool best = st == STATUS_OK && best_take(&c->stage->best, &c->metrics, &c->meta);
    if (st == STATUS_OK)
        evaluate_report(&evaluation, &sums, time_seconds() - began, best, &extra);
    report_extra_free(&extra);
    TRY(st);
    if (best_is_over(&c->stage->best, &c->meta) && stage_steps_done(c) < c->stage->steps) {
        c->meta.stage_done = 1;
        report_early_stop(c->report, &c->meta);
    }
    return best && c->stage->keeps_best ? save(c, err) : STATUS_OK;
}

/* A loss that stays too high for too long ends the run, before it spoils more than it taught. */
static enum status watch_loss(struct course *c, const struct server_step *step, struct error *err)
{
    const struct options *o = c->stage->run->options;
    double loss = step->sums.weight > 0 ? step->sums.loss / step->sums.weight : 0;
    if (o->loss_watchdog_threshold <= 0)
        return STATUS_OK;
    c->meta.high_losses = loss > o->loss_watchdog_threshold ? c->meta.high_losses + 1 : 0;
    if (c->meta.high_losses >= o->loss_watchdog_patience)
        FAIL(err, STATUS_NUMERIC, "the training loss was above loss_watchdog_threshold %g for %lld steps in a row, last %.4f in step %lld; "
             "snapshots of earlier steps stay. Lower learning_rate or max_grad_norm, lengthen the warm-up, or look at the rows of these steps",
             o->loss_watchdog_threshold, (long long)c->meta.high_losses, loss, (long long)c->meta.step);
    return STATUS_OK;
}

/* How long it will take, said after three steps besides the first, which is slower; the first line may be far away. */
static void estimate(struct course *c, double seconds)
{
    int64_t done = c->meta.step - c->start.meta.step, left = start_total_steps(&c->start, &c->meta) - c->meta.step;
    if (done > 1)
        c->warm_seconds += seconds;
    if (done == 1 + WARM_STEPS && left && c->options->logging_steps > done)
        report_estimate(c->report, c->warm_seconds / WARM_STEPS, left);
}

static double seconds_left(const struct course *c, double elapsed, int64_t total)
{
    double per_step = elapsed / (double)(c->meta.step - c->start.meta.step);
    return per_step * (double)(total - c->meta.step);
}

static void show_progress(struct course *c, const struct server_step *step, int64_t total)
{
    struct progress_facts facts = {
        .step = c->meta.step,
        .total = total,
        .loss = step->sums.weight > 0 ? step->sums.loss / step->sums.weight : NAN,
        .tokens_per_second = step->seconds > 0 ? (double)step->sums.tokens / step->seconds : 0,
        .left_s = seconds_left(c, time_seconds() - c->began, total),
    };
    report_progress(c->report, &facts);
}

static void take_step(struct course *c, const struct server_step *step)
{
    c->meta.step = step->step + 1;
    c->meta.epoch = (double)stage_steps_done(c) / (double)order_steps_per_epoch(&c->stage->run->order);
    c->meta.updates = server_updates(c->server);
    c->meta.tokens_seen += step->sums.tokens;
    for (int i = 0; i < REPORT_SPANS; i++)
        c->meta.targets_seen += step->sums.span_count[i];
    slot_report_add(&c->window.sums, &step->sums);
    c->window.seconds += step->seconds;
    c->window.steps++;
    add_counts(c, &c->counted, step->imbalance);
    c->evaluated = c->saved = false;
    estimate(c, step->seconds);
    int64_t total = start_total_steps(&c->start, &c->meta);
    bool first = c->options->logging_first_step && c->meta.step == 1, last = stage_steps_done(c) == c->stage->steps;
    if (!first && c->meta.step % c->options->logging_steps && !last) {
        show_progress(c, step, total);
        return;
    }
    double elapsed = time_seconds() - c->began;
    struct step_facts facts = {
        .step = c->meta.step,
        .total = total,
        .epoch = c->meta.epoch,
        .sums = c->window.sums,
        .learning_rate = step->learning_rate,
        .grad_norm = step->grad_norm,
        .router_grad_norm = step->router_grad_norm,
        .tokens_per_second = c->window.seconds > 0 ? (double)c->window.sums.tokens / c->window.seconds : 0,
        .elapsed_s = elapsed,
        .left_s = seconds_left(c, elapsed, total),
        .tokens_seen = c->meta.tokens_seen,
        .slowest_rank = step->slowest_rank,
        .slowest_lag_ms = step->slowest_lag_ms,
        .median_lag_ms = step->median_lag_ms,
    };
    struct report_extra extra = {0};
    tally_put(&c->counted, "train", c->meta.step, &extra);
    facts.extra = &extra;
    report_step(c->report, &facts);
    report_extra_free(&extra);
    tally_clear(&c->counted);
    c->window = (struct window){0};
}

/* Before the first step of a stage, and where the run was stopped in the middle of an evaluation: so that the best and the end of
 * a stage are found as they would have been. */
static bool evaluation_is_owed(const struct course *c)
{
    const struct options *o = c->stage->run->options;
    int64_t done = stage_steps_done(c);
    if (c->meta.evaluated == c->meta.step + 1 || c->meta.stage_done)
        return false;
    return done ? c->start.resumed_from && c->meta.evaluated && evaluation_is_due(c->stage, done, o) : o->eval_on_start;
}

/* Evaluation and snapshot behind a step, where they are due. STATUS_STOPPED when asked to stop. */
static enum status finish_step(struct course *c, struct error *err)
{
    const struct stage *stage = c->stage;
    const struct options *o = stage->run->options;
    int64_t per_epoch = order_steps_per_epoch(&stage->run->order), done = stage_steps_done(c);
    if (evaluation_is_due(stage, done, o))
        TRY(evaluate(c, err));
    int signals = server_take_signals(c->server);
    if (signals & SERVER_SIGNAL_SAVE || due(o->save_strategy, o->save_steps, per_epoch, done, stage->steps) || done == stage->steps ||
        c->meta.stage_done)
        TRY(save(c, err));
    saver_poll(c->saver, snapshot_done, c);
    if (signals & SERVER_SIGNAL_STOP)
        FAIL(err, STATUS_STOPPED, "asked to stop after step %lld", (long long)c->meta.step);
    return STATUS_OK;
}

/* The steps of the stage that are left. STATUS_STOPPED when asked to stop. */
static enum status run_stage_steps(struct course *c, struct error *err)
{
    const struct stage *stage = c->stage;
    c->evaluated = !evaluation_is_owed(c);
    TRY(stage_steps_done(c) && !c->evaluated ? finish_step(c, err) : evaluate(c, err));
    while (stage_steps_done(c) < stage->steps && !c->meta.stage_done) {
        struct server_step step;
        TRY(server_train_step(c->server, c->meta.step, &step, err));
        take_step(c, &step);
        TRY(watch_loss(c, &step, err));
        TRY(finish_step(c, err));
    }
    return STATUS_OK;
}

/* Parameters, and the optimizer's states if wanted, of an earlier step of this run. */
static enum status go_back(struct course *c, int64_t step, struct error *err)
{
    struct shard *shard = c->start.shard;
    struct snapshot_target targets[SNAPSHOT_MAX_STATES];
    struct snapshot *snapshot;
    char name[SNAPSHOT_STRING_SIZE];
    struct text path = {0};
    saver_finish(c->saver);
    saver_poll(c->saver, snapshot_done, c);
    snapshot_file_name(step, name);
    text_printf(&path, "%s/snapshots/%s", c->options->output_dir, name);
    enum status st = path.failed ? error_set(err, STATUS_NOMEM, "no memory for a path") : snapshot_open(path.data, &snapshot, err);
    text_free(&path);
    if (st != STATUS_OK) {
        error_prefix(err, "the best snapshot of the stage before");
        return st;
    }
    for (int i = 0; i < shard->n_states; i++)
        targets[i] = (struct snapshot_target){shard->state_names[i], shard->states[i]};
    st = snapshot_load(snapshot, &c->start.run.table, shard->parameters, shard->n_states, targets, err);
    if (st == STATUS_OK) {
        c->meta.updates = snapshot_meta(snapshot)->updates;
        server_replaced(c->server, c->meta.updates);
    }
    snapshot_close(snapshot);
    return st;
}

static void empty_states(struct course *c)
{
    struct shard *shard = c->start.shard;
    saver_finish(c->saver); /* it may still be copying them */
    for (int i = 0; i < shard->n_states; i++)
        memset(shard->states[i], 0, (size_t)shard->chunks.values * sizeof *shard->states[i]);
    c->meta.updates = 0;
    server_replaced(c->server, 0);
}

/* What the entry of the stage asks for at its first step. */
static enum status begin_stage(struct course *c, int number, struct error *err)
{
    const struct stage_options *entry = c->options->stages.count ? &c->options->stages.items[number] : NULL;
    int64_t best = c->meta.best_step;
    if (number > 0 && !strcmp(entry->start_from, "best") && best >= 0 && best != c->meta.step)
        TRY(go_back(c, best, err));
    if (number > 0 && entry->reset_optimizer)
        empty_states(c);
    c->meta.stage = number;
    c->meta.stage_step = c->meta.step;
    c->meta.stage_done = 0;
    c->meta.evaluated = -1;
    c->meta.epoch = 0;
    c->meta.high_losses = 0;
    snprintf(c->meta.stage_name, sizeof c->meta.stage_name, "%.120s", entry ? entry->name : "");
    best_reset(&c->meta);
    return STATUS_OK;
}

/* `begins`: anew, and not in a run that goes on in the middle of it. */
static enum status enter_stage(struct course *c, int number, bool begins, struct error *err)
{
    const struct stage *stage = c->stage = &c->start.stages[number];
    const struct options *o = stage->run->options;
    if (begins)
        TRY(begin_stage(c, number, err));
    struct optimizer_options settings = stage_optimizer_options(o);
    TRY(optimizer_set_options(c->start.optimizer, &settings, err));
    c->meta.global_batch = c->start.slots * o->per_device_train_batch_size;
    c->meta.max_steps = start_total_steps(&c->start, &c->meta);
    struct server_stage entered = stage_for_server(stage, c->meta.stage_step);
    server_enter_stage(c->server, &entered);
    if (stage->run->name)
        report_stage(c->report, stage->run->name, c->meta.step, stage->steps, begins);
    return STATUS_OK;
}

static enum status run_stages(struct course *c, struct error *err)
{
    bool anew = c->meta.step == 0;
    c->saved = true;
    for (int number = (int)c->meta.stage; number < c->start.run.n_stages; number++) {
        bool begins = anew || number != c->start.meta.stage;
        TRY(enter_stage(c, number, begins, err));
        TRY(run_stage_steps(c, err));
    }
    return STATUS_OK;
}

/* The run's folder stands for its best snapshot from here on, where the last stage asks for that. */
static enum status prefer_best(struct course *c, bool finished, struct error *err)
{
    char *dir = path_join(c->options->output_dir, "snapshots");
    if (!dir)
        FAIL(err, STATUS_NOMEM, "no memory for a path");
    const struct stage *last = &c->start.stages[c->start.run.n_stages - 1];
    bool best = finished && last->run->options->load_best_model_at_end && c->meta.best_step >= 0;
    if (finished)
        saver_finish(c->saver);
    enum status st = snapshot_prefer(dir, best ? c->meta.best_step : -1, err);
    mem_free(dir);
    return st;
}

/* Asked to stop: the state after the last whole step is what counts; a step half-way done is forgotten. */
static enum status save_and_stop(struct course *c, struct error *err)
{
    struct error failure = {0};
    report_stopping(c->report, err->text);
    if (!c->saved && save(c, &failure) != STATUS_OK)
        log_error("%s", failure.text);
    return STATUS_STOPPED;
}

static enum status open_course(struct course *c, struct transport *transport, struct text *options_text, struct error *err)
{
    const struct options *o = c->options;
    struct start *start = &c->start;
    options_format(o, OPTIONS_ALL, options_text);
    if (options_text->failed)
        FAIL(err, STATUS_NOMEM, "no memory for the options' text");
    c->meta = start->meta;
    const struct loar_setup *loar = start->run.loar; /* its numbers of tasks are those that counts go by */
    const char *const *tasks = loar ? (const char *const *)loar->tasks : NULL;
    int n_tasks = loar ? loar->plan.config.n_tasks : 0;
    TRY(tally_create(&start->run.config, tasks, n_tasks, &c->counted, err));
    TRY(tally_create(&start->run.config, tasks, n_tasks, &c->counted_eval, err));
    TRY(saver_create(&start->run, start->shard, optimizer_name(start->optimizer), options_text->data, &c->saver, err));
    TRY(report_create(o->output_dir, start->history, start->history_size, &c->report, err));
    report_open_board(c->report, start, c->invocation, options_text);
    TRY(start_server(start, transport, options_text, &c->server, err));
    saver_attach(c->saver, c->server);
    return STATUS_OK;
}

static enum status train(struct course *c, struct error *err)
{
    TRY(server_accept(c->server, err));
    report_plan(c->report, &c->start, c->invocation, c->server);
    c->began = time_seconds();
    TRY(prefer_best(c, false, err));
    enum status st = run_stages(c, err);
    if (st == STATUS_OK)
        st = prefer_best(c, true, err);
    return st == STATUS_STOPPED ? save_and_stop(c, err) : st;
}

/* What went wrong; where memory was short, also which keys make a run need less. */
static void tell_failure(enum status st, const struct error *err)
{
    if (st == STATUS_NOMEM)
        log_error("%s. Less memory is needed with a lower per_device_train_batch_size, per_device_eval_batch_size or max_length, with "
                  "gradient_checkpointing: true, or with fewer ranks on a node; loar validate says what takes how much", err->text);
    else
        log_error("%s", err->text);
}

/* Ends the run for all ranks and says how it ended. */
static bool close_course(struct course *c, struct transport *transport, enum status st, struct error *err)
{
    bool clean = c->server ? server_dismiss(c->server, st, err->text) : server_refuse(transport, st, err->text);
    if (c->saver) {
        saver_finish(c->saver);
        if (c->report)
            saver_poll(c->saver, snapshot_done, c);
    }
    if (st == STATUS_OK || st == STATUS_STOPPED)
        report_end(c->report, &c->start, c->invocation, &c->meta, st, time_seconds() - c->began);
    else
        tell_failure(st, err);
    saver_free(c->saver);
    report_free(c->report);
    if (!clean) /* ranks that did not leave may still reach for the server's memory */
        transport_abort(transport, status_exit_code(st));
    server_free(c->server);
    tally_free(&c->counted);
    tally_free(&c->counted_eval);
    metrics_free(&c->metrics);
    start_free(&c->start);
    return clean;
}

int serve(struct transport *transport, const struct invocation *invocation, int ranks_on_node, bool *clean)
{
    struct error err = {0};
    struct options options = {0};
    struct text notes = {0}, options_text = {0};
    struct course course = {.options = &options, .invocation = invocation};
    enum status st = options_load(invocation->run_file, invocation->n_overrides, invocation->overrides, &options, &notes, &err);
    if (notes.size)
        fputs(notes.data, stderr);
    text_free(&notes);
    if (st == STATUS_OK) {
        log_init((enum log_level)log_level_parse(options.log_level), 0);
        st = start_load(&options, transport_size(transport) - 1, ranks_on_node, &course.start, &err);
    }
    if (st == STATUS_OK)
        st = open_course(&course, transport, &options_text, &err);
    if (st == STATUS_OK)
        st = train(&course, &err);
    *clean = close_course(&course, transport, st, &err);
    text_free(&options_text);
    options_free(&options);
    return status_exit_code(st);
}
