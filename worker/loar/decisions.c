#include "worker/loar/decisions.h"

#include <string.h>

#include "common/memory.h"

/* Tokens of a document, by their true index. */
struct extent {
    int64_t begin, end;
};

/* The tokens that share a decision with `token`. seq_mean cannot keep a decision from piece to piece: what it looks
 * at has changed. */
static struct extent extent_of(const struct loar_config *c, int64_t token, int64_t earlier, int64_t prompt)
{
    if (c->feature == LOAR_SEQ_MEAN)
        return (struct extent){earlier, INT64_MAX};
    if (c->feature == LOAR_PROMPT_MEAN)
        return token < prompt ? (struct extent){0, prompt} : (struct extent){prompt, INT64_MAX};
    int64_t size = c->granularity == LOAR_BY_BLOCK ? c->block : 1;
    int64_t begin = token - token % size;
    return (struct extent){begin, begin + size};
}

/* How many of the document's first tokens a decision that begins at `begin` reads; the piece ends at `end`. */
static int64_t reads_of(const struct loar_config *c, int64_t begin, int64_t end, int64_t prompt)
{
    switch (c->feature) {
    case LOAR_TOKEN: return begin + 1;
    case LOAR_PROMPT_MEAN: return begin < prompt ? 0 : prompt;
    case LOAR_SEQ_MEAN: return end;
    default: return begin;
    }
}

/* Grows the array that `array` (the address of a pointer of any type) points to. */
static enum status grow(void *array, int count, size_t size, struct error *err)
{
    void *block;
    memcpy(&block, array, sizeof block);
    block = mem_realloc(block, (size_t)count, size);
    if (!block)
        FAIL(err, STATUS_NOMEM, "no memory for %d entries of routing decisions", count);
    memcpy(array, &block, sizeof block);
    return STATUS_OK;
}

static enum status reserve(struct decisions *d, int tokens, int sequences, struct error *err)
{
    if (sequences > d->sequence_capacity || !d->starts) {
        TRY(grow(&d->of_sequence, sequences + 1, sizeof *d->of_sequence, err));
        TRY(grow(&d->starts, sequences + 1, sizeof *d->starts, err));
        TRY(grow(&d->earlier, sequences + 1, sizeof *d->earlier, err));
        d->sequence_capacity = sequences;
    }
    if (tokens > d->token_capacity) {
        TRY(grow(&d->of_token, tokens, sizeof *d->of_token, err));
        d->token_capacity = tokens;
    }
    return STATUS_OK;
}

static enum status append(struct decisions *d, struct decision decision, struct error *err)
{
    if (d->count == d->capacity) {
        int capacity = d->capacity ? 2 * d->capacity : 64;
        TRY(grow(&d->items, capacity, sizeof *d->items, err));
        d->capacity = capacity;
    }
    for (int32_t row = decision.first; row < decision.end; row++)
        d->of_token[row] = d->count;
    d->items[d->count++] = decision;
    return STATUS_OK;
}

static enum status decide_sequence(const struct loar_config *c, int sequence, int64_t prompt, int32_t task,
                                   struct decisions *d, struct error *err)
{
    int64_t earlier = d->earlier[sequence], first = d->starts[sequence];
    int64_t end = earlier + d->starts[sequence + 1] - first;
    for (int64_t token = earlier; token < end;) {
        struct extent extent = extent_of(c, token, earlier, prompt);
        int64_t stop = extent.end < end ? extent.end : end, reads = reads_of(c, extent.begin, end, prompt);
        TRY(append(d, (struct decision){
            .sequence = sequence,
            .first = (int32_t)(first + token - earlier),
            .end = (int32_t)(first + stop - earlier),
            .reads = (int32_t)reads,
            .task = task,
            .source = extent.begin < earlier ? DECISION_KEPT : reads ? DECISION_ROUTED : DECISION_FREE,
        }, err));
        token = stop;
    }
    return STATUS_OK;
}

enum status decisions_make(const struct loar_config *c, int n_sequences, const int32_t *starts, const int32_t *earlier,
                           const int32_t *prompts, const int32_t *tasks, struct decisions *d, struct error *err)
{
    TRY(reserve(d, starts[n_sequences], n_sequences, err));
    d->count = 0;
    d->n_tokens = starts[n_sequences];
    d->n_sequences = n_sequences;
    for (int b = 0; b <= n_sequences; b++)
        d->starts[b] = starts[b];
    for (int b = 0; b < n_sequences; b++) {
        if (tasks[b] < 0 || tasks[b] >= c->n_tasks)
            FAIL(err, STATUS_INTERNAL, "sequence %d has task %d; the router knows 0 to %d", b, tasks[b], c->n_tasks - 1);
        d->earlier[b] = earlier ? earlier[b] : 0;
        d->of_sequence[b] = d->count;
        TRY(decide_sequence(c, b, c->feature == LOAR_PROMPT_MEAN ? prompts[b] : 0, tasks[b], d, err));
    }
    d->of_sequence[n_sequences] = d->count;
    return STATUS_OK;
}

void decisions_free(struct decisions *d)
{
    mem_free(d->items);
    mem_free(d->of_token);
    mem_free(d->of_sequence);
    mem_free(d->starts);
    mem_free(d->earlier);
    *d = (struct decisions){0};
}
