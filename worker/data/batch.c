/* Packing of rows into one flat token stream: growth of the arrays, positions, next-token targets.
 * Must not know: where rows come from, models, ranks. */
#include "worker/data/batch.h"

#include <limits.h>
#include <string.h>

#include "common/memory.h"

const char *span_name(enum span span)
{
    static const char *const names[SPAN_COUNT] = {"prompt", "thought", "answer", "end"};
    return (unsigned)span < SPAN_COUNT ? names[span] : "unknown";
}

void row_free(struct row *row)
{
    mem_free(row->tokens);
    mem_free(row->spans);
    mem_free(row->stretches);
    *row = (struct row){0};
}

static float stretch_factor(struct row_weights *w, int i)
{
    const struct row *row = w->row;
    while (w->at < row->n_stretches && row->stretches[w->at].first <= i)
        w->at++;
    return w->at ? row->stretches[w->at - 1].factor : 1.0f;
}

/* Sums are taken in the order of tokens, in double: a function of the row alone. */
static void balance(struct row_weights *w, const float span_weights[SPAN_COUNT])
{
    const float t = span_weights[SPAN_THOUGHT], a = span_weights[SPAN_ANSWER];
    double factors[2] = {0, 0}, count = 0; /* answer, thought */
    for (int i = 1; i < w->row->n_tokens; i++) {
        enum span span = w->row->spans[i];
        float factor = stretch_factor(w, i);
        if (span == SPAN_PROMPT || !(span_weights[span] * factor > 0.0f))
            continue;
        factors[span == SPAN_THOUGHT] += factor;
        count++;
    }
    w->at = 0;
    double shares = (factors[1] > 0 ? (double)t : 0) + (factors[0] > 0 ? (double)a : 0);
    w->spans[SPAN_THOUGHT] = factors[1] > 0 ? (float)((double)t / shares * count / factors[1]) : 0.0f;
    w->spans[SPAN_ANSWER] = factors[0] > 0 ? (float)((double)a / shares * count / factors[0]) : 0.0f;
    w->spans[SPAN_END] = w->spans[SPAN_ANSWER];
}

struct row_weights row_weights_begin(const struct row *row, const float span_weights[SPAN_COUNT])
{
    struct row_weights w = {.row = row};
    memcpy(w.spans, span_weights, sizeof w.spans);
    if (row->balanced)
        balance(&w, span_weights);
    return w;
}

float row_weights_next(struct row_weights *w, int i)
{
    float weight = w->row->weight * w->spans[w->row->spans[i]];
    return w->row->n_stretches ? weight * stretch_factor(w, i) : weight;
}

void batch_clear(struct batch *batch)
{
    batch->n_tokens = 0;
    batch->n_sequences = 0;
    if (batch->starts)
        batch->starts[0] = 0;
}

void batch_free(struct batch *batch)
{
    mem_free(batch->tokens);
    mem_free(batch->positions);
    mem_free(batch->starts);
    mem_free(batch->targets);
    mem_free(batch->target_spans);
    mem_free(batch->weights);
    mem_free(batch->tasks);
    mem_free(batch->classes);
    *batch = (struct batch){0};
}

/* Grows the array that `array` (the address of a pointer of any type) points to; the old block stays valid when memory
 * is short. */
static bool grow(void *array, size_t count, size_t size)
{
    void *block;
    memcpy(&block, array, sizeof block);
    block = mem_realloc(block, count, size);
    if (block)
        memcpy(array, &block, sizeof block);
    return block;
}

/* Capacities rise only after every array has grown, so a failure half-way leaves a valid batch. */
static enum status reserve(struct batch *batch, int more_tokens, struct error *err)
{
    int64_t tokens = (int64_t)batch->n_tokens + more_tokens;
    if (tokens > INT_MAX / 2 || batch->n_sequences >= INT_MAX / 2)
        FAIL(err, STATUS_DATA, "a batch of %lld tokens is too large; lower per_device_train_batch_size", (long long)tokens);
    if (tokens > batch->capacity) {
        int64_t wanted = (int64_t)batch->capacity * 2;
        size_t n = (size_t)(wanted > tokens ? wanted : tokens);
        if (!grow(&batch->tokens, n, sizeof *batch->tokens) || !grow(&batch->positions, n, sizeof *batch->positions) ||
            !grow(&batch->targets, n, sizeof *batch->targets) ||
            !grow(&batch->target_spans, n, sizeof *batch->target_spans) ||
            !grow(&batch->weights, n, sizeof *batch->weights))
            FAIL(err, STATUS_NOMEM, "no memory for a batch of %zu tokens", n);
        batch->capacity = (int)n;
    }
    if (batch->n_sequences + 1 > batch->sequence_capacity) {
        size_t n = batch->sequence_capacity ? (size_t)batch->sequence_capacity * 2 : 8;
        if (!grow(&batch->tasks, n, sizeof *batch->tasks) || !grow(&batch->starts, n + 1, sizeof *batch->starts) ||
            !grow(&batch->classes, n, sizeof *batch->classes))
            FAIL(err, STATUS_NOMEM, "no memory for a batch of %zu sequences", n);
        batch->sequence_capacity = (int)n;
    }
    return STATUS_OK;
}

enum status batch_append(struct batch *batch, const struct row *row, const float span_weights[SPAN_COUNT],
                         struct error *err)
{
    if (row->n_tokens < 1)
        FAIL(err, STATUS_INTERNAL, "a row without tokens cannot join a batch");
    TRY(reserve(batch, row->n_tokens, err));
    int first = batch->n_tokens;
    struct row_weights weights = row_weights_begin(row, span_weights);
    memcpy(batch->tokens + first, row->tokens, (size_t)row->n_tokens * sizeof *row->tokens);
    bool text = row->class.count == 0;
    for (int i = 0; i < row->n_tokens; i++) {
        enum span span = i + 1 < row->n_tokens ? row->spans[i + 1] : SPAN_PROMPT;
        float weight = text && i + 1 < row->n_tokens ? row_weights_next(&weights, i + 1) : 0.0f;
        batch->positions[first + i] = i;
        batch->targets[first + i] = weight > 0.0f ? row->tokens[i + 1] : -1;
        batch->target_spans[first + i] = (uint8_t)span;
        batch->weights[first + i] = weight > 0.0f ? weight : 0.0f;
    }
    if (!text) {
        batch->weights[first + row->n_tokens - 1] = row->weight;
        batch->target_spans[first + row->n_tokens - 1] = SPAN_ANSWER;
    }
    batch->tasks[batch->n_sequences] = row->task;
    batch->classes[batch->n_sequences] = row->class;
    batch->starts[batch->n_sequences] = first;
    batch->n_sequences++;
    batch->n_tokens = first + row->n_tokens;
    batch->starts[batch->n_sequences] = batch->n_tokens;
    return STATUS_OK;
}

int64_t batch_count_targets(const struct batch *batch)
{
    int64_t n = 0;
    for (int i = 0; i < batch->n_tokens; i++)
        n += batch->targets[i] >= 0;
    return n;
}

int64_t batch_count_classes(const struct batch *batch)
{
    int64_t n = 0;
    for (int s = 0; s < batch->n_sequences; s++)
        n += batch_class(batch, s).count > 0;
    return n;
}
