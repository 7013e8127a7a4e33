#include "launch/check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "launch/estimate.h"
#include "launch/sift.h"
#include "launch/trained.h"

static int by_length(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The smallest length that so many percent of the rows do not exceed (nearest rank). */
static int64_t percentile(const int64_t *sorted, int64_t count, int percent)
{
    return sorted[(count * percent + 99) / 100 - 1];
}

static enum status put_lengths(const struct dataset *dataset, const struct dataset_part *part, struct text *out, struct error *err)
{
    int64_t n = part->stats.kept, sum = 0, *lengths = mem_alloc((size_t)n, sizeof *lengths);
    if (!lengths)
        FAIL(err, STATUS_NOMEM, "no memory for the lengths of %" PRId64 " rows", n);
    for (int64_t i = 0; i < n; i++) {
        lengths[i] = dataset->starts[part->first_row + i + 1] - dataset->starts[part->first_row + i];
        sum += lengths[i];
    }
    qsort(lengths, (size_t)n, sizeof *lengths, by_length);
    text_printf(out, "  tokens of a row: min %" PRId64 ", mean %.1f, p50 %" PRId64 ", p95 %" PRId64 ", max %" PRId64 "\n", lengths[0],
                (double)sum / (double)n, percentile(lengths, n, 50), percentile(lengths, n, 95), lengths[n - 1]);
    mem_free(lengths);
    return STATUS_OK;
}

static void put_tokens(const int64_t tokens[SPAN_COUNT], struct text *out)
{
    int64_t all = 0;
    for (int span = 0; span < SPAN_COUNT; span++)
        all += tokens[span];
    text_printf(out, "%" PRId64, all);
    for (int span = 0; span < SPAN_COUNT; span++)
        text_printf(out, "%s %s %" PRId64, span ? "," : ":", span_name((enum span)span), tokens[span]);
    text_puts(out, "\n");
}

static enum status put_set(const struct dataset *dataset, int index, const char *what, struct text *out, struct error *err)
{
    const struct dataset_part *part = &dataset->parts[index];
    const struct dataset_stats *s = &part->stats;
    text_printf(out, "%s %s: %" PRId64 " rows read, %" PRId64 " used, %" PRId64 " skipped, %" PRId64 " too long", what, part->name, s->read,
                s->kept, s->skipped, s->too_long);
    if (s->masked)
        text_printf(out, ", %" PRId64 " without a token that takes loss", s->masked);
    if (s->shortened)
        text_printf(out, ", %" PRId64 " with a shortened thought", s->shortened);
    if (s->repeated)
        text_printf(out, ", %" PRId64 " repeated", s->repeated);
    if (s->held_out)
        text_printf(out, ", %" PRId64 " held out", s->held_out);
    text_printf(out, "; %" PRId64 " with a thought; format %s\n", s->thoughts, part->format);
    if (part->problems && *part->problems)
        text_printf(out, "%s\n", part->problems);
    if (s->special_text)
        text_printf(out, "  %" PRId64 " rows spell a special token; it is read as plain text\n", s->special_text);
    if (!s->kept)
        return STATUS_OK;
    TRY(put_lengths(dataset, part, out, err));
    text_puts(out, "  tokens in all: ");
    put_tokens(s->tokens, out);
    return STATUS_OK;
}

static void put_steps(const struct start *s, int stage, int workers, struct text *out)
{
    const struct run *run = s->stages[stage].run;
    int64_t tokens[SPAN_COUNT] = {0};
    for (int i = 0; i < run->train.n_parts; i++)
        for (int span = 0; span < SPAN_COUNT; span++)
            tokens[span] += (int64_t)((double)run->train.parts[i].stats.tokens[span] * sift_passes(run, i) + 0.5);
    text_puts(out, "tokens per epoch: ");
    put_tokens(tokens, out);
    text_printf(out, "steps: %" PRId64 " (%" PRId64 " per epoch of %u rows), %d micro-batches x %d rows each, shared by %d worker%s\n",
                s->stages[stage].steps, order_steps_per_epoch(&run->order), run->order.rows, s->slots, run->order.slot_rows, workers,
                workers == 1 ? "" : "s");
}

static enum status put_stage(const struct start *s, int stage, int workers, struct text *out, struct error *err)
{
    const struct run *run = s->stages[stage].run;
    if (run->name)
        text_printf(out, "stage '%s'\n", run->name);
    for (int i = 0; i < run->train.n_parts; i++)
        TRY(put_set(&run->train, i, "datasets", out, err));
    for (int i = 0; i < run->eval.n_parts; i++)
        TRY(put_set(&run->eval, i, "eval_datasets", out, err));
    put_steps(s, stage, workers, out);
    return STATUS_OK;
}

static enum status put_memory(struct start *s, struct text *out, struct error *err)
{
    struct plan_memory m = estimate_memory(s);
    int64_t step, tokens, node = estimate_machine_bytes(), worker = estimate_worker_bytes(&m);
    TRY(estimate_longest_batch(&s->run, &step, &tokens, err));
    text_printf(out, "longest micro-batch of the first epoch: %" PRId64 " tokens, in step %" PRId64 "\n", tokens, step + 1);
    text_printf(out, "memory: about %.1f MB per worker (weights %.1f, gradients %.1f, activations %.1f), %.1f MB on the server", (double)worker / 1e6,
                (double)m.weights / 1e6, (double)m.gradients / 1e6, (double)m.activations / 1e6, (double)m.server / 1e6);
    if (m.frozen)
        text_printf(out, ", %.1f MB that the workers of a node share (frozen weights)", (double)m.frozen / 1e6);
    if (node && m.server + m.frozen < node)
        text_printf(out, "; this node's %.1f GB hold the server and %" PRId64 " workers", (double)node / 1e9, (node - m.server - m.frozen) / (worker + 1));
    else if (node)
        text_printf(out, "; this node's %.1f GB do not hold the server", (double)node / 1e9);
    text_puts(out, "\n");
    return STATUS_OK;
}

/* Every line behind a word. */
static void put_notes(const char *notes, struct text *out)
{
    while (notes && *notes) {
        int size = (int)strcspn(notes, "\n");
        text_printf(out, "note: %.*s\n", size, notes);
        notes += size + (notes[size] == '\n');
    }
}

enum status check_put(struct start *start, int ranks, struct text *out, struct error *err)
{
    const struct run *run = &start->run;
    text_printf(out, "model: %" PRId64 " parameters, of which %" PRId64 " are trained\n", run->table.trained + run->table.frozen,
                run->table.trained);
    trained_put(&run->table, out);
    for (int stage = 0; stage < run->n_stages; stage++)
        TRY(put_stage(start, stage, ranks > 1 ? ranks - 1 : 1, out, err));
    TRY(put_memory(start, out, err));
    put_notes(start->notes.data, out);
    if (out->failed)
        FAIL(err, STATUS_NOMEM, "no memory for the report of the check");
    return STATUS_OK;
}
