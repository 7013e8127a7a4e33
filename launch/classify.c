#include "launch/classify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "launch/class_scores.h"
#include "worker/data/records.h"
#include "worker/data/rows.h"
#include "launch/template_choice.h"
#include "worker/data/template.h"

enum { BEST_SHOWN = 5 };

struct session {
    const struct classify_request *request;
    struct source *source;
    const struct label_set *set;
    struct chat_template *template;
    struct batch batch;
    float *scores;              /* [K] */
    double *shares;             /* [labels of the set] */
    struct class_count *counts; /* same */
    int task;                   /* as routing numbers it */
    int64_t rows, scored;
};

bool classify_is_meant(const struct source *source, const char *task)
{
    return source->config.labels && (source->config.classifies_only || (task && labels_find(&source->labels, task)));
}

static enum status choose_set(struct session *s, struct error *err)
{
    const struct labels *labels = &s->source->labels;
    const char *task = s->request->task;
    s->set = task ? labels_find_or_only(labels, task) : labels->count == 1 ? labels->sets : NULL;
    if (s->set)
        return STATUS_OK;
    struct text names = {0};
    for (int i = 0; i < labels->count; i++)
        text_printf(&names, "%s%s", i ? ", " : "", labels->sets[i].task);
    error_set(err, STATUS_USAGE, "the model tells labels apart for the tasks %s; --task must name one of them",
              names.failed || !names.data ? "?" : names.data);
    text_free(&names);
    return STATUS_USAGE;
}

/* Probabilities of the set's labels; returns the likeliest. */
static enum status score(struct session *s, const char *text, size_t size, int *best, struct error *err)
{
    struct row row = {0};
    batch_clear(&s->batch);
    TRY(template_encode_text(s->template, s->source->tokenizer, text, size, &row, err));
    row.task = s->task;
    enum status st = row.n_tokens <= s->source->config.max_positions
                         ? batch_append(&s->batch, &row, (const float[SPAN_COUNT]){0}, err)
                         : error_set(err, STATUS_DATA, "a text of %d tokens is longer than the %lld positions of the model", row.n_tokens,
                                     (long long)s->source->config.max_positions);
    row_free(&row);
    if (st == STATUS_OK)
        st = model_scores(s->source->model, s->source->values, &s->batch, s->scores, err);
    TRY(st);
    const float *x = s->scores + s->set->first;
    double sum = 0;
    *best = 0;
    for (int i = 1; i < s->set->count; i++)
        *best = x[i] > x[*best] ? i : *best;
    for (int i = 0; i < s->set->count; i++)
        sum += s->shares[i] = exp((double)x[i] - x[*best]);
    if (!isfinite(sum))
        FAIL(err, STATUS_NUMERIC, "the scores of the labels are not finite; the model is damaged");
    for (int i = 0; i < s->set->count; i++)
        s->shares[i] /= sum;
    return STATUS_OK;
}

/* "label: pos 0.9731, neu 0.0203, ...", the likeliest first. */
static void print_best(struct session *s)
{
    int before = -1;
    for (int shown = 0; shown < s->set->count && shown < BEST_SHOWN; shown++) {
        int next = -1;
        for (int i = 0; i < s->set->count; i++) {
            bool left = before < 0 || s->shares[i] < s->shares[before] || (s->shares[i] == s->shares[before] && i > before);
            if (left && (next < 0 || s->shares[i] > s->shares[next]))
                next = i;
        }
        if (next < 0)
            break;
        printf("%s%s %.4f", shown ? ", " : "label: ", s->set->names[next], s->shares[next]);
        before = next;
    }
    printf("\n");
}

static enum status classify_row(struct session *s, const struct conversation *c, const char *where, struct error *err)
{
    const struct classify_request *r = s->request;
    const struct message *text = &c->messages[0], *label = c->count > 1 ? &c->messages[c->count - 1] : NULL;
    bool print = r->rows < 0 || s->rows < r->rows;
    int place = label ? label_set_place(s->set, label->content, label->content_size) : -1, best;
    if (label && place < 0)
        FAIL(err, STATUS_DATA, "%s: the label '%.*s' is none of the %d of task '%s'", where, (int)label->content_size, label->content,
             s->set->count, s->set->task);
    if (score(s, text->content, text->content_size, &best, err) != STATUS_OK)
        return error_prefix(err, "%s", where);
    if (print) {
        printf("\ntext: %.*s\n", (int)text->content_size, text->content);
        print_best(s);
    }
    if (print && label)
        printf("expected: %s  %s\n", s->set->names[place], best == place ? "(right)" : "(wrong)");
    if (label && s->rows < r->score) {
        s->scored++;
        s->counts[place].rows++;
        s->counts[best].chosen++;
        s->counts[place].right += best == place;
    }
    return STATUS_OK;
}

/* The next row; *found is false at the end. */
static enum status next_row(struct session *s, struct records *reader, const struct row_format **format, bool *found, struct error *err)
{
    const struct classify_request *r = s->request;
    const struct row_options options = {.columns = r->columns, .labels = s->set};
    struct jsonl_record record;
    struct json *row;
    struct arena arena = {0};
    struct conversation conversation;
    char where[512];
    TRY(records_next(reader, &record, found, err));
    if (!*found)
        return STATUS_OK;
    TRY(records_parse(reader, &record, &row, err));
    snprintf(where, sizeof where, "%.400s:%lld", r->file, (long long)record.line);
    enum status st = *format ? STATUS_OK : row_format_detect(row, r->file, record.line, &options, format, err);
    if (st == STATUS_OK)
        st = row_read(*format, row, r->file, record.line, &options, &arena, &conversation, err);
    if (st == STATUS_OK && !conversation.plain && !row_format_has_label(*format))
        st = error_set(err, STATUS_DATA, "%s: rows of format %s have no text to be labelled; wanted classification or text", where,
                       row_format_name(*format));
    if (st == STATUS_OK)
        st = classify_row(s, &conversation, where, err);
    arena_free(&arena);
    json_free(row);
    return st;
}

static enum status classify_file(struct session *s, struct records *reader, struct error *err)
{
    const struct classify_request *r = s->request;
    const struct row_format *format = NULL;
    bool found = true;
    if (r->format && strcmp(r->format, "auto")) {
        TRY(row_format_find(r->format, &format, err));
        TRY(row_format_check(format, &r->columns, err));
    }
    for (s->rows = 0; found && (r->rows < 0 || s->rows < r->rows || s->rows < r->score); s->rows++)
        TRY(next_row(s, reader, &format, &found, err));
    if (!s->scored)
        return STATUS_OK;
    struct class_scores scores = class_scores_of(s->counts, s->set->count);
    printf("\naccuracy %lld of %lld (%.1f %%), macro F1 %.4f\n", (long long)llround(scores.accuracy * (double)scores.rows),
           (long long)scores.rows, 100.0 * scores.accuracy, scores.macro_f1);
    return STATUS_OK;
}

static enum status run(struct session *s, struct error *err)
{
    struct source *source = s->source;
    int best;
    TRY(choose_set(s, err));
    if (source->loar)
        s->task = s->request->task ? loar_setup_task_or_default(source->loar, s->request->task) : loar_setup_task_or_default(source->loar, s->set->task);
    TRY(template_choose(&source->options, &s->template, err));
    TRY(template_check(s->template, source->tokenizer, err));
    s->scores = mem_alloc((size_t)source->config.labels, sizeof *s->scores);
    s->shares = mem_alloc((size_t)s->set->count, sizeof *s->shares);
    s->counts = mem_alloc((size_t)s->set->count, sizeof *s->counts);
    if (!s->scores || !s->shares || !s->counts)
        FAIL(err, STATUS_NOMEM, "no memory for the scores of %d labels", source->config.labels);
    if (s->request->file) {
        struct records reader;
        TRY(records_open(s->request->file, &s->request->table, &reader, err));
        enum status st = classify_file(s, &reader, err);
        records_close(&reader);
        return st;
    }
    TRY(score(s, s->request->prompt, strlen(s->request->prompt), &best, err));
    print_best(s);
    return STATUS_OK;
}

enum status classify(const struct classify_request *request, struct source *source, struct error *err)
{
    struct session s = {.request = request, .source = source};
    enum status st = run(&s, err);
    template_free(s.template);
    batch_free(&s.batch);
    mem_free(s.scores);
    mem_free(s.shares);
    mem_free(s.counts);
    return st;
}
