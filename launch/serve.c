#include "launch/serve.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/timing.h"
#include "launch/flags.h"
#include "launch/loar_setup.h"
#include "launch/report.h"
#include "launch/run.h"
#include "launch/saver.h"
#include "launch/start.h"
#include "launch/tally.h"
#include "ps/server.h"

/* The training loop of rank 0: which step comes next, when to print, evaluate, save and stop. */
struct course {
    const struct options *options;
    const struct invocation *invocation;
    struct start start; /* model, rows, parameters, optimizer, where to begin */
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
    double warm_seconds;   /* of this part's steps behind its first */
    bool evaluated, saved; /* at the present step */
};

enum { WARM_STEPS = 3 };

static bool due(const char *strategy, int64_t every, int64_t steps_per_epoch, int64_t step, int64_t total)
{
    if (!strcmp(strategy, "no"))
        return false;
    if (!strcmp(strategy, "epoch"))
        return step % steps_per_epoch == 0 || step == total;
    return step % every == 0 || step == total;
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

static enum status evaluate(struct course *c, struct error *err)
{
    struct slot_report all = {0};
    double began = time_seconds();
    if (c->evaluated || c->start.run.eval.n_parts == 0)
        return STATUS_OK;
    c->evaluated = true;
    tally_clear(&c->counted_eval);
    for (int set = 0; set < c->start.run.eval.n_parts; set++) {
        struct slot_report sums;
        TRY(server_evaluate(c->server, c->meta.step, set, run_eval_batches(&c->start.run, set), &sums, err));
        add_counts(c, &c->counted_eval, 0);
        report_evaluation(c->report, c->start.run.eval.parts[set].name, c->meta.step, c->meta.epoch, &sums, 0, NULL);
        slot_report_add(&all, &sums);
    }
    bool best = all.weight > 0 && (c->meta.best_step < 0 || all.loss / all.weight < c->meta.best_value);
    if (best) {
        snprintf(c->meta.best_metric, sizeof c->meta.best_metric, "eval_loss");
        c->meta.best_value = all.loss / all.weight;
        c->meta.best_step = c->meta.step;
    }
    c->counted_eval.steps = 1; /* sums of the whole evaluation, not means over its sets */
    struct report_extra extra = {0};
    tally_put(&c->counted_eval, "eval", c->meta.step, &extra);
    report_evaluation(c->report, NULL, c->meta.step, c->meta.epoch, &all, time_seconds() - began, &extra);
    report_extra_free(&extra);
    return STATUS_OK;
}

/* How long it will take, said after three steps besides the first, which is slower; the first line may be far away. */
static void estimate(struct course *c, double seconds)
{
    int64_t done = c->meta.step - c->start.meta.step, left = c->start.total_steps - c->meta.step;
    if (done > 1)
        c->warm_seconds += seconds;
    if (done == 1 + WARM_STEPS && left && c->options->logging_steps > done)
        report_estimate(c->report, c->warm_seconds / WARM_STEPS, left);
}

static void take_step(struct course *c, const struct server_step *step)
{
    c->meta.step = step->step + 1;
    c->meta.epoch = (double)c->meta.step / (double)order_steps_per_epoch(&c->start.run.order);
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
    bool first = c->options->logging_first_step && c->meta.step == 1;
    if (!first && c->meta.step % c->options->logging_steps && c->meta.step != c->start.total_steps)
        return;
    double elapsed = time_seconds() - c->began;
    double per_step = elapsed / (double)(c->meta.step - c->start.meta.step);
    struct step_facts facts = {
        .step = c->meta.step,
        .total = c->start.total_steps,
        .epoch = c->meta.epoch,
        .sums = c->window.sums,
        .learning_rate = step->learning_rate,
        .grad_norm = step->grad_norm,
        .tokens_per_second = c->window.seconds > 0 ? (double)c->window.sums.tokens / c->window.seconds : 0,
        .elapsed_s = elapsed,
        .left_s = per_step * (double)(c->start.total_steps - c->meta.step),
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

/* All steps that are left. STATUS_STOPPED when asked to stop. */
static enum status run_steps(struct course *c, struct error *err)
{
    const struct options *o = c->options;
    int64_t per_epoch = order_steps_per_epoch(&c->start.run.order), total = c->start.total_steps;
    c->evaluated = !(o->eval_on_start && c->meta.step == 0);
    c->saved = true;
    TRY(evaluate(c, err));
    while (c->meta.step < total) {
        struct server_step step;
        TRY(server_train_step(c->server, c->meta.step, &step, err));
        take_step(c, &step);
        if (due(o->eval_strategy, o->eval_steps, per_epoch, c->meta.step, total))
            TRY(evaluate(c, err));
        int signals = server_take_signals(c->server);
        if (signals & SERVER_SIGNAL_SAVE || due(o->save_strategy, o->save_steps, per_epoch, c->meta.step, total) ||
            c->meta.step == total)
            TRY(save(c, err));
        saver_poll(c->saver, snapshot_done, c);
        if (signals & SERVER_SIGNAL_STOP)
            FAIL(err, STATUS_STOPPED, "asked to stop after step %lld", (long long)c->meta.step);
    }
    return STATUS_OK;
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
    struct server_config config = {
        .transport = transport,
        .table = &start->run.table,
        .shard = start->shard,
        .slots = start->slots,
        .pool = start->run.pool,
        .optimizer = start->optimizer,
        .schedule = start->schedule,
        .max_grad_norm = o->max_grad_norm,
        .credits = (int)o->ps.credits,
        .timeout_ms = (int64_t)(o->timeout_s * 1e3),
        .first_step = start->meta.step,
        .updates = start->meta.updates,
        .config_text = options_text->data,
        .config_size = options_text->size,
        .signals = flags_of_signals,
    };
    TRY(server_create(&config, &c->server, err));
    saver_attach(c->saver, c->server);
    return STATUS_OK;
}

static enum status train(struct course *c, struct error *err)
{
    TRY(server_accept(c->server, err));
    report_plan(c->report, &c->start, c->invocation, c->server);
    c->began = time_seconds();
    enum status st = run_steps(c, err);
    return st == STATUS_STOPPED ? save_and_stop(c, err) : st;
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
        log_error("%s", err->text);
    saver_free(c->saver);
    report_free(c->report);
    if (!clean) /* ranks that did not leave may still reach for the server's memory */
        transport_abort(transport, status_exit_code(st));
    server_free(c->server);
    tally_free(&c->counted);
    tally_free(&c->counted_eval);
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
