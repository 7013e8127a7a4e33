/* The plan and the end of a run as lines of metrics, so that a page of the run needs nothing but these lines.
 * Must not know: what is printed, what a page shows. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/scalar.h"
#include "launch/report.h"

static void put_key(struct text *json, const char *key)
{
    text_printf(json, "%s\"%s\": ", json->size && json->data[json->size - 1] == '{' ? "" : ", ", key);
}

static void put_int(struct text *json, const char *key, int64_t value)
{
    put_key(json, key);
    text_printf(json, "%" PRId64, value);
}

static void put_real(struct text *json, const char *key, double value)
{
    put_key(json, key);
    scalar_put_json(json, value);
}

/* Nothing for NULL, and nothing for a text that no reader of JSON would take: it must not spoil the line. */
static void put_string(struct text *json, const char *key, const char *value)
{
    if (!value || !scalar_is_utf8(value))
        return;
    put_key(json, key);
    text_json_string(json, value, strlen(value));
}

static void put_time(struct text *json, const char *key)
{
    char text[32] = "";
    struct tm parts;
    time_t now = time(NULL);
    if (gmtime_r(&now, &parts) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts))
        put_string(json, key, text);
}

static void put_data(struct text *json, const struct plan_facts *f)
{
    put_key(json, "data");
    text_puts(json, "[");
    for (int i = 0; i < f->n_data; i++) {
        const struct plan_data *d = &f->data[i];
        text_puts(json, i ? ", {" : "{");
        put_string(json, "name", d->name);
        put_key(json, "evaluation");
        text_puts(json, d->evaluation ? "true" : "false");
        put_int(json, "rows", d->read);
        put_int(json, "used", d->kept);
        put_int(json, "skipped", d->skipped);
        put_int(json, "too_long", d->too_long);
        put_int(json, "longest", d->longest);
        static const char *const spans[REPORT_SPANS] = {"prompt_tokens", "thought_tokens", "answer_tokens", "end_tokens"};
        for (int span = 0; span < REPORT_SPANS; span++)
            put_int(json, spans[span], d->tokens[span]);
        text_puts(json, "}");
    }
    text_puts(json, "]");
}

void report_plan_record(struct report *report, const struct plan_facts *f, const char *run_file, const char *options)
{
    struct text json = {0};
    text_puts(&json, "{");
    put_int(&json, "step", f->first_step);
    put_key(&json, "plan");
    text_puts(&json, "{");
    put_string(&json, "version", LOAR_VERSION);
    put_string(&json, "run_name", f->options->run_name);
    put_time(&json, "started");
    put_int(&json, "ranks", f->ranks);
    put_int(&json, "workers", f->workers);
    put_int(&json, "server_threads", f->server_threads);
    put_int(&json, "worker_threads", f->worker_threads);
    put_string(&json, "hosts", f->hosts);
    put_string(&json, "model", f->model);
    put_int(&json, "parameters", f->parameters);
    put_int(&json, "trained", f->trained);
    put_int(&json, "first_step", f->first_step);
    put_int(&json, "total_steps", f->total_steps);
    put_int(&json, "steps_per_epoch", f->steps_per_epoch);
    put_int(&json, "batch_rows", f->options->ps.slots * f->options->per_device_train_batch_size);
    put_data(&json, f);
    put_string(&json, "resumed_from", f->resumed_from);
    put_string(&json, "notes", f->notes);
    put_string(&json, "run_file", run_file);
    put_string(&json, "options", options);
    text_puts(&json, "}");
    report_line(report, &json);
    text_free(&json);
}

void report_end_record(struct report *report, const struct end_facts *f)
{
    struct text json = {0};
    text_puts(&json, "{");
    put_int(&json, "step", f->step);
    put_key(&json, "end");
    text_puts(&json, "{");
    put_time(&json, "ended");
    put_key(&json, "stopped");
    text_puts(&json, f->stopped ? "true" : "false");
    put_int(&json, "step", f->step);
    put_int(&json, "total_steps", f->total);
    put_real(&json, "epoch", f->epoch);
    put_int(&json, "tokens", f->tokens);
    put_real(&json, "seconds", f->seconds);
    put_string(&json, "digest", f->digest);
    if (f->best_metric && *f->best_metric && f->best_step >= 0) {
        put_string(&json, "best_metric", f->best_metric);
        put_real(&json, "best_value", f->best_value);
        put_int(&json, "best_step", f->best_step);
    }
    text_puts(&json, "}");
    report_line(report, &json);
    text_free(&json);
}
