#include "launch/row_losses.h"

#include "common/memory.h"
#include "common/threads.h"
#include "launch/report.h"

struct hand {
    struct threads *alone;
    struct model *model;
};

struct losses {
    const struct source *source;
    const struct dataset *dataset;
    int batch_rows, threads;
    struct threads *pool;
    struct hand *hands; /* [threads] */
    int64_t batches;
    struct loss_sums *sums; /* [batches] */
    enum status *statuses;  /* [batches] */
    struct error *errors;   /* [threads] the last one of each */
};

static void work(void *context, int task, int thread)
{
    static const float span_weights[SPAN_COUNT] = {[SPAN_THOUGHT] = 1, [SPAN_ANSWER] = 1, [SPAN_END] = 1};
    struct losses *l = context;
    struct batch batch = {0};
    struct error *err = &l->errors[thread];
    enum status st = dataset_eval_batch(l->dataset, &l->dataset->parts[0], l->batch_rows, task, span_weights, &batch, err);
    if (st == STATUS_OK && batch_count_targets(&batch) > 0)
        st = model_loss(l->hands[thread].model, l->source->values, &batch, &l->sums[task], err);
    l->statuses[task] = st;
    batch_free(&batch);
}

static enum status prepare(struct losses *l, struct error *err)
{
    const struct source *s = l->source;
    l->hands = mem_alloc((size_t)l->threads, sizeof *l->hands);
    l->errors = mem_alloc((size_t)l->threads, sizeof *l->errors);
    l->sums = mem_alloc((size_t)l->batches, sizeof *l->sums);
    l->statuses = mem_alloc((size_t)l->batches, sizeof *l->statuses);
    if (!l->hands || !l->errors || !l->sums || !l->statuses)
        FAIL(err, STATUS_NOMEM, "no memory for the losses of %lld batches", (long long)l->batches);
    TRY(threads_create(l->threads, &l->pool, err));
    for (int i = 0; i < l->threads; i++) {
        TRY(threads_create(1, &l->hands[i].alone, err));
        TRY(model_create(&s->config, &s->table, &(struct model_options){0}, l->hands[i].alone, &l->hands[i].model, err));
    }
    return STATUS_OK;
}

static enum status add_up(const struct losses *l, struct loss_sums *out, struct error *err)
{
    *out = (struct loss_sums){0};
    for (int64_t i = 0; i < l->batches; i++) {
        for (int t = 0; t < l->threads && l->statuses[i] != STATUS_OK; t++)
            if (l->errors[t].code == l->statuses[i])
                return error_set(err, l->statuses[i], "%s", l->errors[t].text);
        loss_sums_add(out, &l->sums[i]);
    }
    return STATUS_OK;
}

/* As evaluation during training takes them. */
static struct row_means means_of(const struct loss_sums *s)
{
    struct slot_report sums = {.loss = s->loss, .weight = s->weight, .correct = s->correct, .tokens = s->tokens};
    for (int i = 0; i < SPAN_COUNT; i++) {
        sums.span_loss[i] = s->span_loss[i];
        sums.span_count[i] = s->span_count[i];
    }
    struct report_means m = report_means_of(&sums);
    return (struct row_means){m.loss, m.thought, m.answer, m.accuracy};
}

static void release(struct losses *l)
{
    for (int i = 0; l->hands && i < l->threads; i++) {
        model_free(l->hands[i].model);
        threads_free(l->hands[i].alone);
    }
    threads_free(l->pool);
    mem_free(l->hands);
    mem_free(l->errors);
    mem_free(l->sums);
    mem_free(l->statuses);
}

enum status row_losses(const struct source *source, const struct dataset *dataset, int batch_rows, int threads,
                       struct row_means *out, struct error *err)
{
    struct loss_sums sums;
    struct losses l = {.source = source, .dataset = dataset, .batch_rows = batch_rows, .threads = threads,
                       .batches = dataset->n_parts ? dataset_eval_batches(&dataset->parts[0], batch_rows) : 0};
    enum status st = prepare(&l, err);
    if (st == STATUS_OK) {
        threads_run(l.pool, (int)l.batches, work, &l);
        st = add_up(&l, &sums, err);
    }
    if (st == STATUS_OK)
        *out = means_of(&sums);
    release(&l);
    return st;
}
