#include "launch/report.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/scalar.h"
#include "launch/board.h"
#include "launch/invocation.h"
#include "launch/screen.h"

enum { SPAN_THOUGHT_INDEX = 1, SPAN_ANSWER_INDEX = 2, SPAN_END_INDEX = 3 }; /* places in slot_report, as enum span */

struct report {
    struct screen screen;
    char *output_dir, *path; /* of metrics.jsonl */
    int fd;
    bool warned;          /* that metrics.jsonl cannot be written */
    struct board *board;  /* NULL: none */
    struct text history;
    pthread_mutex_t hearing;
    struct text heard; /* warnings and errors of the program as JSON lines that wait for the next line; guarded by hearing */
    int64_t step;      /* of the newest line */
    struct text set_lines, set_json; /* evaluation sets since the last block */
    int sets;
    int64_t saved_step; /* newest snapshot on disk; -1: none yet */
    char *stage;        /* the one in work; NULL: the run has none */
};

/* Anything on standard error takes the progress line away. Warnings and errors become lines of metrics, too; not at once, as any
 * thread may log at any moment. */
static void hear(void *context, enum log_level level, const char *text, size_t size)
{
    struct report *report = context;
    struct text line = {0};
    screen_clear(&report->screen);
    if (level > LOG_WARN)
        return;
    pthread_mutex_lock(&report->hearing);
    text_printf(&line, "{\"step\": %lld, \"%s\": ", (long long)report->step, level == LOG_ERROR ? "error" : "warning");
    text_json_string(&line, text, size);
    text_puts(&line, "}\n");
    if (!line.failed && scalar_is_utf8(text)) /* a path may be anything, and no reader of JSON would take the line */
        text_append(&report->heard, line.data, line.size);
    pthread_mutex_unlock(&report->hearing);
    text_free(&line);
}

enum status report_create(const char *output_dir, const char *history, size_t history_size, struct report **out,
                          struct error *err)
{
    struct report *report = mem_alloc(1, sizeof *report);
    if (!report)
        FAIL(err, STATUS_NOMEM, "no memory for the report");
    *report = (struct report){.fd = -1, .saved_step = -1};
    pthread_mutex_init(&report->hearing, NULL);
    screen_open(&report->screen, stdout);
    report->output_dir = mem_strdup(output_dir);
    report->path = path_join(output_dir, "metrics.jsonl");
    text_append(&report->history, history ? history : "", history ? history_size : 0);
    enum status st = STATUS_OK;
    if (!report->path || !report->output_dir || report->history.failed)
        st = error_set(err, STATUS_NOMEM, "no memory for the report");
    if (st == STATUS_OK)
        st = file_replace(report->path, report->history.data, report->history.size, err);
    if (st == STATUS_OK && (report->fd = open(report->path, O_WRONLY | O_APPEND | O_CLOEXEC)) < 0)
        st = error_set(err, STATUS_IO, "cannot open '%s': %s", report->path, strerror(errno));
    if (st != STATUS_OK) {
        report_free(report);
        return st;
    }
    log_listen(hear, report);
    *out = report;
    return STATUS_OK;
}

static void write_heard(struct report *report);

void report_free(struct report *report)
{
    if (!report)
        return;
    log_listen(NULL, NULL);
    screen_close(&report->screen);
    if (report->fd >= 0)
        write_heard(report);
    pthread_mutex_destroy(&report->hearing);
    text_free(&report->heard);
    if (report->fd >= 0)
        close(report->fd);
    board_free(report->board);
    mem_free(report->output_dir);
    mem_free(report->path);
    mem_free(report->stage);
    text_free(&report->history);
    text_free(&report->set_lines);
    text_free(&report->set_json);
    mem_free(report);
}

void report_print_to(struct report *report, FILE *file)
{
    report->screen.out = file;
}

void report_show_on(struct report *report, struct board *board)
{
    board_free(report->board);
    report->board = board;
}

const struct text *report_history(const struct report *report)
{
    return &report->history;
}

void report_text(struct report *report, const struct text *text)
{
    screen_text(&report->screen, text);
}

void report_allow_progress(struct report *report, bool allowed)
{
    screen_allow_progress(&report->screen, allowed);
}

void report_progress(struct report *report, const struct progress_facts *facts)
{
    screen_progress(&report->screen, facts);
}

/* ---- JSON lines ---- */

static void put_key(struct text *json, const char *key)
{
    text_puts(json, json->size && json->data[json->size - 1] != '{' ? ", " : "");
    text_json_string(json, key, strlen(key));
    text_puts(json, ": ");
}

static void put_real(struct text *json, const char *key, double value)
{
    put_key(json, key);
    scalar_put_json(json, value);
}

static void put_int(struct text *json, const char *key, int64_t value)
{
    put_key(json, key);
    text_printf(json, "%lld", (long long)value);
}

/* To the file in one write, and to the history. */
static void write_text(struct report *report, const char *lines, size_t size)
{
    text_append(&report->history, lines, size);
    if (write(report->fd, lines, size) != (ssize_t)size && !report->warned) {
        report->warned = true;
        log_warn("cannot write '%s': %s; the run goes on", report->path, strerror(errno));
    }
}

/* What was heard so far; the lock is free again before anything is logged. */
static void write_heard(struct report *report)
{
    pthread_mutex_lock(&report->hearing);
    struct text heard = report->heard;
    report->heard = (struct text){0};
    pthread_mutex_unlock(&report->hearing);
    if (heard.size && !heard.failed)
        write_text(report, heard.data, heard.size);
    text_free(&heard);
}

void report_line(struct report *report, struct text *json)
{
    write_heard(report);
    text_puts(json, "}\n");
    if (json->failed) {
        log_warn("no memory for a line of metrics");
        return;
    }
    write_text(report, json->data, json->size);
    if (report->board)
        board_line(report->board, json->data, json->size);
}

/* Where the run is, for warnings to come. */
static void note_step(struct report *report, int64_t step)
{
    pthread_mutex_lock(&report->hearing);
    report->step = step;
    pthread_mutex_unlock(&report->hearing);
}

/* ---- numbers ---- */

static double ratio(double sum, double count)
{
    return count > 0 ? sum / count : NAN;
}

struct report_means report_means_of(const struct slot_report *s)
{
    int64_t answers = s->span_count[SPAN_ANSWER_INDEX] + s->span_count[SPAN_END_INDEX];
    int64_t targets = 0;
    for (int span = 0; span < REPORT_SPANS; span++)
        targets += s->span_count[span];
    return (struct report_means){
        .loss = ratio(s->loss, s->weight),
        .thought = ratio(s->span_loss[SPAN_THOUGHT_INDEX], (double)s->span_count[SPAN_THOUGHT_INDEX]),
        .answer = ratio(s->span_loss[SPAN_ANSWER_INDEX] + s->span_loss[SPAN_END_INDEX], (double)answers),
        .accuracy = ratio((double)s->correct, (double)targets),
    };
}

/* "1.234"; "-" where there was nothing to take a mean of. NaN that was computed prints as nan. */
static const char *shown(char text[32], double value, bool any, int digits)
{
    if (!any)
        return "-";
    snprintf(text, 32, "%.*f", digits, value);
    return text;
}

/* "loss 1.234 (thought 1.301 answer 0.642) acc 0.71" */
static void put_losses(struct text *out, const struct slot_report *s)
{
    struct report_means m = report_means_of(s);
    char a[32], b[32], c[32], d[32];
    bool thoughts = s->span_count[SPAN_THOUGHT_INDEX] > 0;
    bool answers = s->span_count[SPAN_ANSWER_INDEX] + s->span_count[SPAN_END_INDEX] > 0;
    text_printf(out, "loss %s (thought %s answer %s) acc %s", shown(a, m.loss, s->weight > 0, 3),
                shown(b, m.thought, thoughts, 3), shown(c, m.answer, answers, 3), shown(d, m.accuracy, thoughts || answers, 2));
}

static void put_stage(const struct report *report, struct text *json)
{
    if (!report->stage)
        return;
    put_key(json, "stage");
    text_json_string(json, report->stage, strlen(report->stage));
}

static void put_losses_json(struct text *json, const char *prefix, const struct slot_report *s)
{
    const struct report_means m = report_means_of(s);
    const struct {
        const char *name;
        double value;
    } rows[] = {{"loss", m.loss}, {"thought_loss", m.thought}, {"answer_loss", m.answer}, {"accuracy", m.accuracy}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char key[256];
        snprintf(key, sizeof key, "%s%s", prefix, rows[i].name);
        put_real(json, key, rows[i].value);
    }
}

/* "02:10", "1:02:10". */
static const char *clock_text(char text[32], double seconds)
{
    if (!(seconds >= 0) || seconds > 1e9)
        return "-";
    long long s = llround(seconds);
    if (s >= 3600)
        snprintf(text, 32, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, 32, "%02lld:%02lld", s / 60, s % 60);
    return text;
}

/* "12.3 MB" */
static const char *bytes_text(char text[32], int64_t bytes)
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1000 && unit < 4; unit++)
        value /= 1000;
    snprintf(text, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

void report_extra_free(struct report_extra *extra)
{
    text_free(&extra->words);
    text_free(&extra->lines);
    text_free(&extra->json);
    text_free(&extra->record);
}

static const char *extra_text(const struct text *text)
{
    return text->size && !text->failed ? text->data : "";
}

/* The JSON members of a line, and the line behind it. */
static void put_extra_json(struct text *json, const struct report_extra *extra)
{
    if (extra && *extra_text(&extra->json))
        text_printf(json, ", %s", extra->json.data);
}

static void write_record(struct report *report, struct report_extra *extra)
{
    if (extra && *extra_text(&extra->record))
        report_line(report, &extra->record);
}

/* ---- the parts ---- */

void report_step(struct report *report, const struct step_facts *f)
{
    struct text line = {0}, json = {0};
    char elapsed[32], left[32];
    text_printf(&line, "step %lld/%lld epoch %.2f ", (long long)f->step, (long long)f->total, f->epoch);
    put_losses(&line, &f->sums);
    text_printf(&line, " lr %.1e gnorm %.2f tok/s %.0f elapsed %s left %s", f->learning_rate, f->grad_norm, f->tokens_per_second,
                clock_text(elapsed, f->elapsed_s), clock_text(left, f->left_s));
    /* Worth a word only where it costs: later than the others by half of their time and by more than noise. */
    if (f->slowest_rank >= 0 && f->slowest_lag_ms > 1.5 * f->median_lag_ms + 100)
        text_printf(&line, " slow rank %d (+%.0f ms)", f->slowest_rank, f->slowest_lag_ms - f->median_lag_ms);
    text_puts(&line, f->extra ? extra_text(&f->extra->words) : "");
    text_puts(&line, "\n");
    report_text(report, &line);

    note_step(report, f->step);
    text_puts(&json, "{");
    put_int(&json, "step", f->step);
    put_int(&json, "total_steps", f->total);
    put_real(&json, "epoch", f->epoch);
    put_stage(report, &json);
    put_losses_json(&json, "", &f->sums);
    put_real(&json, "learning_rate", f->learning_rate);
    put_real(&json, "grad_norm", f->grad_norm);
    if (f->router_grad_norm != 0)
        put_real(&json, "router_grad_norm", f->router_grad_norm);
    put_int(&json, "tokens", f->sums.tokens);
    put_int(&json, "num_input_tokens_seen", f->tokens_seen);
    put_real(&json, "tokens_per_second", f->tokens_per_second);
    put_real(&json, "elapsed_s", f->elapsed_s);
    put_real(&json, "left_s", f->left_s);
    if (f->slowest_rank >= 0) {
        put_int(&json, "slowest_rank", f->slowest_rank);
        put_real(&json, "slowest_lag_ms", f->slowest_lag_ms);
        put_real(&json, "median_lag_ms", f->median_lag_ms);
    }
    put_extra_json(&json, f->extra);
    report_line(report, &json);
    write_record(report, f->extra);
    text_free(&line);
    text_free(&json);
}

void report_estimate(struct report *report, double seconds_per_step, int64_t steps_left)
{
    char left[32];
    screen_printf(&report->screen, "about %.2g s a step, %s for the %lld steps that are left\n", seconds_per_step,
          clock_text(left, seconds_per_step * (double)steps_left), (long long)steps_left);
}

void report_stage(struct report *report, const char *name, int64_t step, int64_t steps, bool begins)
{
    struct text json = {0};
    mem_free(report->stage);
    report->stage = mem_strdup(name);
    screen_printf(&report->screen, "stage '%s' %s: %lld steps\n", name, begins ? "begins" : "goes on", (long long)steps);
    if (!begins)
        return;
    text_puts(&json, "{");
    put_int(&json, "step", step);
    put_stage(report, &json);
    put_key(&json, "begins");
    text_puts(&json, "true");
    put_int(&json, "stage_steps", steps);
    report_line(report, &json);
    text_free(&json);
}

void report_set(struct report *report, const char *name, const struct slot_report *sums, const struct report_extra *extra)
{
    char prefix[200];
    text_printf(&report->set_lines, "  %-20s ", name);
    put_losses(&report->set_lines, sums);
    text_puts(&report->set_lines, extra ? extra_text(&extra->words) : "");
    text_puts(&report->set_lines, "\n");
    text_puts(&report->set_lines, extra ? extra_text(&extra->lines) : "");
    snprintf(prefix, sizeof prefix, "eval_%.150s_", name);
    put_losses_json(&report->set_json, prefix, sums);
    put_extra_json(&report->set_json, extra);
    report->sets += 1 + (extra && extra->lines.size + extra->words.size > 0); /* what one set has to say is in no other line */
}

void report_early_stop(struct report *report, const struct snapshot_meta *meta)
{
    struct text json = {0};
    screen_printf(&report->screen, "no gain in %lld evaluations: ended early after step %lld; the best was %s %.4f at step %lld\n",
          (long long)meta->idle_evaluations, (long long)meta->step, meta->best_metric, meta->best_value, (long long)meta->best_step);
    text_puts(&json, "{");
    put_int(&json, "step", meta->step);
    put_stage(report, &json);
    put_key(&json, "early_stop");
    text_puts(&json, "true");
    put_int(&json, "best_step", meta->best_step);
    put_real(&json, meta->best_metric, meta->best_value);
    report_line(report, &json);
    text_free(&json);
}

void report_evaluation(struct report *report, int64_t step, double epoch, const struct slot_report *sums, double seconds, bool best,
                       struct report_extra *extra)
{
    struct text line = {0}, json = {0};
    put_losses(&line, sums);
    text_puts(&line, extra ? extra_text(&extra->words) : "");
    if (!line.failed)
        screen_printf(&report->screen, "eval step %lld epoch %.2f %s in %.1f s%s\n", (long long)step, epoch, line.data, seconds,
              best ? ", best so far" : "");
    if (report->sets > 1)
        report_text(report, &report->set_lines);
    if (extra)
        report_text(report, &extra->lines);

    text_puts(&json, "{");
    put_int(&json, "step", step);
    put_real(&json, "epoch", epoch);
    put_stage(report, &json);
    put_losses_json(&json, "eval_", sums);
    if (report->sets && !report->set_json.failed)
        text_printf(&json, ", %s", report->set_json.data);
    put_real(&json, "eval_runtime_s", seconds);
    put_key(&json, "best");
    text_puts(&json, best ? "true" : "false");
    put_extra_json(&json, extra);
    report_line(report, &json);
    write_record(report, extra);
    text_free(&line);
    text_free(&json);
    text_clear(&report->set_lines);
    text_clear(&report->set_json);
    report->sets = 0;
}

void report_saved(struct report *report, const struct writer_result *result)
{
    char name[SNAPSHOT_STRING_SIZE], size[32], removed[48] = "";
    long long step = result->written.step;
    struct text json = {0};
    if (result->status != STATUS_OK) {
        log_warn("the snapshot of step %lld was not written: %s; the run goes on, earlier snapshots stay", step, result->text);
        return;
    }
    snapshot_file_name(result->written.step, name);
    report->saved_step = result->written.step;
    if (result->removed)
        snprintf(removed, sizeof removed, ", %d older removed", result->removed);
    screen_printf(&report->screen, "saved %s/snapshots/%s (%s in %.2f s)%s\n", report->output_dir, name, bytes_text(size, result->written.bytes),
          result->written.seconds, removed);
    if (result->text[0])
        log_warn("%s", result->text);
    text_puts(&json, "{");
    put_int(&json, "step", step);
    put_key(&json, "snapshot");
    text_json_string(&json, name, strlen(name));
    put_key(&json, "digest");
    text_json_string(&json, result->written.digest, strlen(result->written.digest));
    put_int(&json, "bytes", result->written.bytes);
    put_real(&json, "write_s", result->written.seconds);
    report_line(report, &json);
    text_free(&json);
}

void report_stopping(struct report *report, const char *text)
{
    screen_printf(&report->screen, "%s; writing a snapshot\n", text);
}

/* TensorBoard is pointed at the folder of all runs, or at the one that logging_dir names. */
static void put_board(struct report *report, const char *output_dir)
{
    const char *path = board_path(report->board), *slash = strrchr(path, '/');
    struct text usual = {0}, folder = {0}, word = {0};
    text_printf(&usual, "%s/runs", output_dir);
    text_append(&folder, path, (size_t)(slash - path));
    if (!usual.failed && !folder.failed)
        invocation_put_word(!strncmp(folder.data, usual.data, usual.size) ? usual.data : folder.data, &word);
    if (!word.failed && word.size)
        screen_command(&report->screen, "  tensorboard --logdir %s", word.data);
    text_free(&usual);
    text_free(&folder);
    text_free(&word);
}

/* Commands to look at the result and to go on, ready to be copied. */
static void put_next(struct report *report, const struct end_facts *f, const char *snapshot)
{
    struct text loar = {0}, dir = {0}, resume = {0};
    invocation_put_sibling(f->invocation, "loar", &loar);
    invocation_put_word(f->output_dir, &dir);
    invocation_put_resume(f->invocation, &resume);
    if (!loar.failed && !dir.failed && !resume.failed) {
        screen_printf(&report->screen, "Next\n");
        screen_command(&report->screen, "  %s generate --snapshot %s --prompt \"...\"", loar.data, dir.data);
        screen_command(&report->screen, "  %s inspect %s/snapshots/%s --digest", loar.data, dir.data, snapshot);
        screen_command(&report->screen, "  h5dump -H %s/snapshots/%s", dir.data, snapshot);
        screen_command(&report->screen, "  %s report %s", loar.data, dir.data);
        if (report->board)
            put_board(report, f->output_dir);
        if (f->stopped || !f->staged) /* a run whose stages are done has nowhere to go on to */
            screen_command(&report->screen, "  %s%s", resume.data, f->stopped ? "" : " --max_steps N");
    }
    text_free(&loar);
    text_free(&dir);
    text_free(&resume);
}

void report_end_facts(struct report *report, const struct end_facts *f)
{
    char elapsed[32], name[SNAPSHOT_STRING_SIZE];
    screen_printf(&report->screen, "\n%s after step %lld of %lld (epoch %.2f, %lld tokens) in %s\n", f->stopped ? "Stopped" : "Finished",
          (long long)f->step, (long long)f->total, f->epoch, (long long)f->tokens, clock_text(elapsed, f->seconds));
    screen_printf(&report->screen, "  digest      %s\n", f->digest);
    if (f->best_metric && *f->best_metric && f->best_step >= 0)
        screen_printf(&report->screen, "  best        %s %.4f at step %lld%s\n", f->best_metric, f->best_value, (long long)f->best_step,
                      f->stands_for_best ? ", which the run's folder stands for" : "");
    if (report->saved_step >= 0) {
        snapshot_file_name(report->saved_step, name);
        screen_printf(&report->screen, "  snapshot    %s/snapshots/%s\n", f->output_dir, name);
    }
    screen_printf(&report->screen, "  metrics     %s\n", report->path);
    if (f->picture)
        screen_printf(&report->screen, "  picture     %s\n", f->picture);
    if (report->saved_step >= 0)
        put_next(report, f, name);
}
