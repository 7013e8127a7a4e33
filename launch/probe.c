#include "launch/probe.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>

#include "common/timing.h"
#include "launch/estimate.h"
#include "launch/sift.h"
#include "launch/work.h"
#include "proto/transport_local.h"
#include "ps/server.h"

static void *work_beside(void *context)
{
    work(context, 1);
    return NULL;
}

static double evaluations(const struct stage *stage)
{
    const struct options *o = stage->run->options;
    double per_epoch = (double)order_steps_per_epoch(&stage->run->order);
    if (!strcmp(o->eval_strategy, "no"))
        return o->eval_on_start;
    double every = strcmp(o->eval_strategy, "epoch") ? (double)o->eval_steps : per_epoch;
    return ceil((double)stage->steps / every) + o->eval_on_start;
}

static enum status take_steps(struct start *start, struct server *server, struct probe *out, struct error *err)
{
    TRY(server_accept(server, err));
    for (int i = 0; i < PROBE_STEPS; i++) {
        struct server_step step;
        TRY(server_train_step(server, out->first_step + i, &step, err));
        out->seconds[i] = step.seconds;
        out->tokens[i] = step.sums.tokens;
        out->loss[i] = step.sums.weight > 0 ? step.sums.loss / step.sums.weight : NAN;
    }
    for (int set = 0; set < start->run.eval.n_parts && evaluations(&start->stages[0]) > 0; set++) {
        struct slot_report sums;
        double began = time_seconds();
        TRY(server_evaluate(server, out->first_step + PROBE_STEPS, set, 1, &sums, err));
        out->eval_seconds += time_seconds() - began;
        out->eval_tokens += sums.tokens;
    }
    return STATUS_OK;
}

/* A new run is put right before the step that needs most memory. */
static enum status place(struct start *start, struct probe *out, struct error *err)
{
    int64_t longest, tokens;
    out->first_step = start->meta.step;
    if (start->resumed_from)
        return STATUS_OK;
    TRY(estimate_longest_batch(&start->run, &longest, &tokens, err));
    out->first_step = longest > PROBE_STEPS - 1 ? longest - (PROBE_STEPS - 1) : 0;
    start->meta.step = start->meta.updates = out->first_step;
    return STATUS_OK;
}

static int64_t peak_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (int64_t)usage.ru_maxrss * 1024;
}

enum status probe_run(struct start *start, struct probe *out, struct error *err)
{
    struct transport *ends[2];
    struct server *server = NULL;
    struct text options_text = {0};
    pthread_t thread;
    *out = (struct probe){0};
    TRY(place(start, out, err));
    TRY(transport_local_create(2, ends, err));
    enum status st = STATUS_OK;
    options_format(start->run.options, OPTIONS_ALL, &options_text);
    if (options_text.failed)
        st = error_set(err, STATUS_NOMEM, "no memory for the options' text");
    if (st == STATUS_OK)
        st = start_server(start, ends[0], &options_text, &server, err);
    if (st == STATUS_OK && pthread_create(&thread, NULL, work_beside, ends[1]))
        st = error_set(err, STATUS_NOMEM, "cannot start a thread for the worker");
    else if (st == STATUS_OK) {
        st = take_steps(start, server, out, err);
        server_dismiss(server, st, st == STATUS_OK ? "" : err->text);
        pthread_join(thread, NULL);
    }
    out->peak_bytes = peak_bytes();
    server_free(server);
    transport_free(ends[1]);
    transport_free(ends[0]);
    text_free(&options_text);
    return st;
}

/* Of all rows, each taken as often as an epoch does. */
static double tokens_of(const struct run *run, const struct dataset *dataset)
{
    double tokens = 0;
    for (int i = 0; i < dataset->n_parts; i++)
        for (int span = 0; span < SPAN_COUNT; span++)
            tokens += (double)dataset->parts[i].stats.tokens[span] * (dataset == &run->train ? sift_passes(run, i) : 1);
    return tokens;
}

double probe_estimate(const struct probe *probe, const struct start *start, int workers)
{
    double all = 0, seconds = 0, tokens = 0, most = ceil((double)start->slots / workers) / start->slots;
    for (int i = 1; i < PROBE_STEPS; i++) { /* the first one also fills caches */
        seconds += probe->seconds[i];
        tokens += (double)probe->tokens[i];
    }
    for (int i = 0; i < start->run.n_stages; i++) {
        const struct stage *stage = &start->stages[i];
        const struct run *run = stage->run;
        double epochs = (double)stage->steps / (double)order_steps_per_epoch(&run->order);
        double training = tokens > 0 ? seconds / tokens * tokens_of(run, &run->train) * epochs : 0;
        double evaluating = probe->eval_tokens ? probe->eval_seconds / (double)probe->eval_tokens * tokens_of(run, &run->eval) : 0;
        all += training * most + evaluating * evaluations(stage) / workers;
    }
    return all;
}
