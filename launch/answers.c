#include "launch/answers.h"

#include "common/memory.h"
#include "common/threads.h"
#include "worker/data/template.h"

/* Questions that are worked on together: enough that threads seldom wait for the longest answer, few enough that answers come
 * as they are ready. */
enum { PER_THREAD = 4 };

struct item {
    struct answered answered;
    struct token_list prompt;
    enum status status;
    struct error err;
};

/* What one thread answers with. */
struct hand {
    struct threads *alone;
    struct model *model;
    struct generator *generator;
};

struct answers {
    const struct source *source;
    const struct generation *generation;
    struct threads *pool;
    struct hand *hands;  /* [threads] */
    struct item *items;  /* [n_items] */
    int threads, n_items, count;
    int64_t number;
};

static enum status make_hand(const struct answers *a, struct hand *hand, struct error *err)
{
    const struct source *s = a->source;
    TRY(threads_create(1, &hand->alone, err));
    TRY(model_create(&s->config, &s->table, &(struct model_options){0}, hand->alone, &hand->model, err));
    return generator_create(hand->model, &s->config, s->values, s->tokenizer, &a->generation->settings, &hand->generator, err);
}

static void release(struct answers *a)
{
    for (int i = 0; a->hands && i < a->threads; i++) {
        generator_free(a->hands[i].generator);
        model_free(a->hands[i].model);
        threads_free(a->hands[i].alone);
    }
    for (int i = 0; a->items && i < a->n_items; i++) {
        text_free(&a->items[i].answered.question);
        text_free(&a->items[i].answered.expected);
        generated_free(&a->items[i].answered.generated);
        votes_free(&a->items[i].answered.votes);
        token_list_free(&a->items[i].prompt);
    }
    threads_free(a->pool);
    mem_free(a->hands);
    mem_free(a->items);
}

static enum status prepare(struct answers *a, struct error *err)
{
    a->n_items = PER_THREAD * a->threads;
    a->hands = mem_alloc((size_t)a->threads, sizeof *a->hands);
    a->items = mem_alloc((size_t)a->n_items, sizeof *a->items);
    if (!a->hands || !a->items)
        FAIL(err, STATUS_NOMEM, "no memory to answer on %d threads", a->threads);
    TRY(threads_create(a->threads, &a->pool, err));
    for (int i = 0; i < a->threads; i++)
        TRY(make_hand(a, &a->hands[i], err));
    return STATUS_OK;
}

static enum status take(struct answers *a, const struct questions *from, const struct question *q, struct item *item, struct error *err)
{
    struct answered *out = &item->answered;
    text_clear(&out->question);
    text_clear(&out->expected);
    item->prompt.count = 0;
    out->number = a->number++;
    out->sequence = from->time;
    out->sequences = from->times;
    out->has_expected = q->expected != NULL;
    text_append(&out->question, q->asked->content, q->asked->content_size);
    if (q->expected)
        text_append(&out->expected, q->expected->content, q->expected->content_size);
    if (out->question.failed || out->expected.failed)
        FAIL(err, STATUS_NOMEM, "no memory for a question");
    return template_prompt(a->generation->template, a->source->tokenizer, &q->conversation, a->generation->settings.two_stage,
                           &item->prompt, err);
}

/* Fills the items with questions; on failure with those before the one that failed. */
static enum status take_all(struct answers *a, struct questions *questions, int64_t limit, struct error *err)
{
    struct question question;
    bool found = true;
    for (a->count = 0; a->count < a->n_items && (limit < 0 || a->number / questions->times < limit); a->count++) {
        TRY(questions_next(questions, a->source->options.cot_prompt, &question, &found, err));
        if (!found)
            break;
        TRY(take(a, questions, &question, &a->items[a->count], err));
    }
    return STATUS_OK;
}

static void answer_item(void *context, int task, int thread)
{
    struct answers *a = context;
    struct item *item = &a->items[task];
    struct answered *out = &item->answered;
    const struct generate_settings *settings = &a->generation->settings;
    generated_reset(&out->generated);
    votes_reset(&out->votes);
    if (item->prompt.count >= (size_t)a->source->config.max_positions) { /* no room for an answer, which is no reason to stop */
        out->generated.status = GENERATE_NO_ANSWER;
        item->status = STATUS_OK;
    } else {
        item->status = vote_run(a->hands[thread].generator, settings, item->prompt.ids, (int)item->prompt.count, (uint64_t)out->number,
                                NULL, NULL, &out->generated, &out->votes, &item->err);
    }
    out->score = (struct score){0};
    if (item->status == STATUS_OK && out->has_expected)
        score_answer(out->expected.data, out->expected.size, out->generated.answer.data, out->generated.answer.size,
                     out->generated.status, settings->answer_prefix, &out->score);
}

static enum status run_all(struct answers *a, struct questions *questions, int64_t limit, answers_fn *fn, void *context, struct error *err)
{
    for (;;) {
        enum status reading = take_all(a, questions, limit, err);
        threads_run(a->pool, a->count, answer_item, a);
        for (int i = 0; i < a->count; i++) {
            if (a->items[i].status != STATUS_OK) {
                error_set(err, a->items[i].status, "question %lld: %s",
                          (long long)(a->items[i].answered.number / questions->times) + 1, a->items[i].err.text);
                return a->items[i].status;
            }
            TRY(fn(context, &a->items[i].answered, err));
        }
        if (reading != STATUS_OK || a->count < a->n_items)
            return reading;
    }
}

enum status answers_run(const struct source *source, const struct generation *generation, struct questions *questions, int64_t limit,
                        int threads, answers_fn *fn, void *context, struct error *err)
{
    struct answers a = {.source = source, .generation = generation, .threads = threads};
    enum status st = prepare(&a, err);
    if (st == STATUS_OK)
        st = run_all(&a, questions, limit, fn, context, err);
    release(&a);
    return st;
}
