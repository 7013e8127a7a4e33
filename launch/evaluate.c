#include "launch/evaluate.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/memory.h"
#include "common/scalar.h"
#include "launch/scores.h"
#include "launch/stage.h"
#include "worker/infer/score.h"

static enum status add_losses(struct metrics *m, const char *set, const struct slot_report *sums, struct error *err)
{
    struct report_means means = report_means_of(sums);
    TRY(metrics_add(m, set, "loss", means.loss, err));
    TRY(metrics_add(m, set, "thought_loss", means.thought, err));
    TRY(metrics_add(m, set, "answer_loss", means.answer, err));
    return metrics_add(m, set, "accuracy", means.accuracy, err);
}

static void put_metric(const char *set, const char *what, double value, struct text *json)
{
    text_printf(json, "%s\"eval_%.150s%s%s\": ", json->size ? ", " : "", set ? set : "", set ? "_" : "", what);
    scalar_put_json(json, value);
}

/* Matches of a set, or with set NULL of all. */
static enum status add_score(const struct evaluation *e, const char *set, const struct score *score, struct report_extra *extra,
                             struct error *err)
{
    const struct {
        const char *what;
        int64_t count;
    } rows[] = {{"exact_match", score->strict}, {"exact_match_flexible", score->flexible}, {"no_answer", score->no_answer},
                {"cut", score->thought_cut + score->answer_cut}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double share = score_share(rows[i].count, score->rows);
        if (i < 2)
            TRY(metrics_add(e->metrics, set, rows[i].what, share, err));
        put_metric(set, rows[i].what, share, &extra->json);
    }
    put_metric(set, "answered_rows", (double)score->rows, &extra->json);
    return STATUS_OK;
}

static void put_passage(const char *label, const struct json *sample, const char *key, struct text *out)
{
    size_t size = 0;
    const char *text = json_to_string(json_member(sample, key), &size);
    if (!text || !size)
        return;
    text_printf(out, "    %-9s", label);
    for (size_t i = 0; i < size; i++)
        text_append(out, text[i] == '\n' || text[i] == '\r' ? " " : &text[i], 1);
    text_puts(out, "\n");
}

/* Question, thought and answer apart, for a person and as a line of metrics. */
static void show_sample(const struct evaluation *e, const struct text *shown, struct text *lines)
{
    struct json *sample;
    struct text record = {0};
    if (!shown->size || json_parse(shown->data, shown->size, "a sample", &sample, NULL) != STATUS_OK)
        return;
    put_passage("question", sample, "prompt", lines);
    put_passage("thought", sample, "thought", lines);
    put_passage(json_to_bool(json_member(sample, "right")) ? "right" : "wrong", sample, "answer", lines);
    put_passage("expected", sample, "expected", lines);
    json_free(sample);
    text_printf(&record, "{\"step\": %lld, \"sample\": ", (long long)e->step);
    text_append(&record, shown->data, shown->size);
    report_line(e->report, &record);
    text_free(&record);
}

static enum status add_answers(const struct evaluation *e, int set, struct score *out, struct report_extra *extra, struct error *err)
{
    const char *name = e->run->eval.parts[set].name;
    struct score score = {0};
    size_t count;
    TRY(server_generate(e->server, e->step, set, run_eval_rows(e->run, set), err));
    const int64_t *counts = server_counts(e->server, &count);
    if (count * sizeof *counts >= sizeof score)
        memcpy(&score, counts, sizeof score);
    *out = score;
    text_puts(&extra->lines, "    ");
    score_put(&score, &extra->lines);
    text_puts(&extra->lines, "\n");
    for (int i = 0; i < e->run->options->num_generation_samples && i < SERVER_SHOWN_ROWS; i++)
        show_sample(e, server_shown(e->server, i), &extra->lines);
    return add_score(e, name, &score, extra, err);
}

static enum status add_classes(const struct evaluation *e, int set, const int64_t *counts, size_t count, struct report_extra *extra,
                               struct error *err)
{
    struct class_scores scores = class_scores_put(&e->tally->sums, &e->run->eval.parts[set], counts, count, extra);
    return metrics_add(e->metrics, e->run->eval.parts[set].name, "f1", scores.macro_f1, err);
}

/* What a set, a task or all sets came to. */
struct outcome {
    struct slot_report sums;
    struct score score;
};

static void outcome_add(struct outcome *sum, const struct outcome *more)
{
    slot_report_add(&sum->sums, &more->sums);
    score_add(&sum->score, &more->score);
}

static enum status evaluate_set(const struct evaluation *e, int set, struct outcome *out, struct error *err)
{
    const char *name = e->run->eval.parts[set].name;
    struct report_extra extra = {0};
    size_t count;
    *out = (struct outcome){0};
    TRY(server_evaluate(e->server, e->step, set, run_eval_batches(e->run, set), &out->sums, err));
    const int64_t *counts = server_counts(e->server, &count);
    tally_add(e->tally, counts, count, 0);
    enum status st = add_losses(e->metrics, name, &out->sums, err);
    if (st == STATUS_OK && e->run->eval.parts[set].classify)
        st = add_classes(e, set, counts, count, &extra, err);
    if (st == STATUS_OK && stage_answers(e->run, set))
        st = add_answers(e, set, &out->score, &extra, err);
    if (st == STATUS_OK)
        report_set(e->report, name, &out->sums, &extra);
    report_extra_free(&extra);
    return st;
}

/* Losses, accuracy and matches of a task over all its sets. */
static enum status add_task(const struct evaluation *e, const char *task, const struct outcome *outcome, struct report_extra *extra,
                            struct error *err)
{
    char name[160];
    struct report_means means = report_means_of(&outcome->sums);
    snprintf(name, sizeof name, "task_%.150s", task);
    TRY(add_losses(e->metrics, name, &outcome->sums, err));
    put_metric(name, "loss", means.loss, &extra->json);
    put_metric(name, "accuracy", means.accuracy, &extra->json);
    return outcome->score.rows ? add_score(e, name, &outcome->score, extra, err) : STATUS_OK;
}

static enum status evaluate_all(const struct evaluation *e, struct outcome *all, struct outcome *tasks, struct report_extra *extra,
                                struct error *err)
{
    const struct dataset *eval = &e->run->eval;
    for (int set = 0; set < eval->n_parts; set++) {
        struct outcome one;
        TRY(evaluate_set(e, set, &one, err));
        outcome_add(all, &one);
        outcome_add(&tasks[eval->parts[set].task], &one);
    }
    for (int task = 0; task < eval->n_tasks && stage_tells_tasks(e->run); task++)
        if (tasks[task].sums.tokens)
            TRY(add_task(e, eval->tasks[task], &tasks[task], extra, err));
    if (all->score.rows) {
        TRY(add_score(e, NULL, &all->score, extra, err));
        text_printf(&extra->words, " exact match %.1f %%", 100 * score_share(all->score.strict, all->score.rows));
    }
    return add_losses(e->metrics, NULL, &all->sums, err);
}

enum status evaluate_sets(const struct evaluation *e, struct slot_report *sums, struct report_extra *extra, struct error *err)
{
    struct outcome all = {0}, *tasks = mem_alloc((size_t)e->run->eval.n_tasks, sizeof *tasks);
    if (!tasks)
        FAIL(err, STATUS_NOMEM, "no memory for the numbers of %d tasks", e->run->eval.n_tasks);
    tally_clear(e->tally);
    metrics_clear(e->metrics);
    enum status st = evaluate_all(e, &all, tasks, extra, err);
    e->tally->steps = 1; /* sums of the whole evaluation, not means over its sets */
    *sums = all.sums;
    mem_free(tasks);
    return st;
}

void evaluate_report(const struct evaluation *e, const struct slot_report *sums, double seconds, bool best, struct report_extra *extra)
{
    tally_put(e->tally, "eval", e->step, extra);
    report_evaluation(e->report, e->step, e->epoch, sums, seconds, best, extra);
}
