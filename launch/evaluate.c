#include "launch/evaluate.h"

#include "launch/scores.h"
#include "launch/stage.h"

static enum status add_losses(struct metrics *m, const char *set, const struct slot_report *sums, struct error *err)
{
    struct report_means means = report_means_of(sums);
    TRY(metrics_add(m, set, "loss", means.loss, err));
    TRY(metrics_add(m, set, "thought_loss", means.thought, err));
    TRY(metrics_add(m, set, "answer_loss", means.answer, err));
    return metrics_add(m, set, "accuracy", means.accuracy, err);
}

static enum status add_classes(const struct evaluation *e, int set, const int64_t *counts, size_t count, struct report_extra *extra,
                               struct error *err)
{
    struct class_scores scores = class_scores_put(&e->tally->sums, &e->run->eval.parts[set], counts, count, extra);
    return metrics_add(e->metrics, e->run->eval.parts[set].name, "f1", scores.macro_f1, err);
}

static enum status evaluate_set(const struct evaluation *e, int set, struct slot_report *all, struct error *err)
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
    if (st == STATUS_OK)
        report_set(e->report, name, &sums, &extra);
    report_extra_free(&extra);
    return st;
}

enum status evaluate_sets(const struct evaluation *e, struct slot_report *sums, struct error *err)
{
    *sums = (struct slot_report){0};
    tally_clear(e->tally);
    metrics_clear(e->metrics);
    for (int set = 0; set < e->run->eval.n_parts; set++)
        TRY(evaluate_set(e, set, sums, err));
    e->tally->steps = 1; /* sums of the whole evaluation, not means over its sets */
    return add_losses(e->metrics, NULL, sums, err);
}

void evaluate_report(const struct evaluation *e, const struct slot_report *sums, double seconds, bool best)
{
    struct report_extra extra = {0};
    tally_put(e->tally, "eval", e->step, &extra);
    report_evaluation(e->report, e->step, e->epoch, sums, seconds, best, &extra);
    report_extra_free(&extra);
}
