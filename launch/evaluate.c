#include "launch/evaluate.h"

#include <string.h>

#include "common/json.h"
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

static enum status add_answers(const struct evaluation *e, int set, struct score *all, struct report_extra *extra, struct error *err)
{
    const char *name = e->run->eval.parts[set].name;
    struct score score = {0};
    size_t count;
    TRY(server_generate(e->server, e->step, set, run_eval_rows(e->run, set), err));
    const int64_t *counts = server_counts(e->server, &count);
    if (count * sizeof *counts >= sizeof score)
        memcpy(&score, counts, sizeof score);
    score_add(all, &score);
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

static enum status evaluate_set(const struct evaluation *e, int set, struct slot_report *all, struct score *score, struct error *err)
{
    const char *name = e->run->eval.parts[set].name;
    struct slot_report sums;
    struct report_extra extra = {0};
    size_t count;
    TRY(server_evaluate(e->server, e->step, set, run_eval_batches(e->run, set), &sums, err));
    const int64_t *counts = server_counts(e->server, &count);
    tally_add(e->tally, counts, count, 0);
    slot_report_add(all, &sums);
    enum status st = add_losses(e->metrics, name, &sums, err);
    if (st == STATUS_OK && e->run->eval.parts[set].classify)
        st = add_classes(e, set, counts, count, &extra, err);
    if (st == STATUS_OK && stage_answers(e->run, set))
        st = add_answers(e, set, score, &extra, err);
    if (st == STATUS_OK)
        report_set(e->report, name, &sums, &extra);
    report_extra_free(&extra);
    return st;
}

enum status evaluate_sets(const struct evaluation *e, struct slot_report *sums, struct report_extra *extra, struct error *err)
{
    struct score score = {0};
    *sums = (struct slot_report){0};
    tally_clear(e->tally);
    metrics_clear(e->metrics);
    for (int set = 0; set < e->run->eval.n_parts; set++)
        TRY(evaluate_set(e, set, sums, &score, err));
    e->tally->steps = 1; /* sums of the whole evaluation, not means over its sets */
    if (score.rows) {
        TRY(add_score(e, NULL, &score, extra, err));
        text_printf(&extra->words, " exact match %.1f %%", 100 * score_share(score.strict, score.rows));
    }
    return add_losses(e->metrics, NULL, sums, err);
}

void evaluate_report(const struct evaluation *e, const struct slot_report *sums, double seconds, bool best, struct report_extra *extra)
{
    tally_put(e->tally, "eval", e->step, extra);
    report_evaluation(e->report, e->step, e->epoch, sums, seconds, best, extra);
}
