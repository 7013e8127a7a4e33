#include "launch/warnings.h"

#include <string.h>

#include "launch/estimate.h"

/* Appends what is doubtful as one line, or nothing. */
typedef void warning_fn(const struct start *s, const struct stage *stage, struct text *out);

static void warmup_ends(const struct start *s, const struct stage *stage, struct text *out)
{
    (void)s;
    const struct options *o = stage->run->options;
    bool told = o->max_steps > 0 && o->warmup_steps >= o->max_steps; /* by the options' own rules */
    if (stage->schedule.warmup >= stage->steps && stage->schedule.base > 0 && !told)
        text_printf(out, "warmup_steps, warmup_ratio: the warm-up takes %lld steps and the run has %lld, so the learning rate never reaches "
                    "its height; lower them or train longer\n", (long long)stage->schedule.warmup, (long long)stage->steps);
}

static void rate_lives(const struct start *s, const struct stage *stage, struct text *out)
{
    (void)s;
    bool warm = stage->schedule.warmup < stage->steps;
    if (stage->schedule.base > 0 && warm && schedule_rate(&stage->schedule, stage->schedule.warmup) <= 0)
        text_puts(out, "learning_rate: it is 0 right behind the warm-up; nothing will be learned from there on\n");
}

static void epoch_fills_a_batch(const struct start *s, const struct stage *stage, struct text *out)
{
    int64_t rows = stage->run->order.rows, batch = (int64_t)s->slots * stage->run->order.slot_rows;
    if (rows < batch)
        text_printf(out, "ps.slots, per_device_train_batch_size: an epoch has %lld rows, fewer than the %lld of a global batch (%d "
                    "micro-batches x %d rows), so every step is short; lower one of them\n", (long long)rows, (long long)batch, s->slots,
                    stage->run->order.slot_rows);
}

static void sets_have_rows(const struct start *s, const struct stage *stage, struct text *out)
{
    (void)s;
    for (int i = 0; i < stage->run->train.n_parts; i++)
        if (!stage->run->train.parts[i].stats.kept)
            text_printf(out, "datasets: no row of '%s' is left to train on\n", stage->run->train.parts[i].name);
}

static void rows_end(const struct start *s, const struct stage *stage, struct text *out)
{
    (void)s;
    for (int i = 0; i < stage->run->train.n_parts; i++)
        if (stage->run->train.parts[i].stats.kept && !stage->run->train.parts[i].classify && !stage->run->train.parts[i].stats.tokens[SPAN_END])
            text_printf(out, "datasets: no row of '%s' ends with an end token; a model trained on it would not stop\n",
                        stage->run->train.parts[i].name);
}

static void parts_take_loss(const struct start *s, const struct stage *stage, struct text *out)
{
    (void)s;
    const struct options *o = stage->run->options;
    int64_t thoughts = 0;
    for (int i = 0; i < stage->run->train.n_parts; i++)
        thoughts += stage->run->train.parts[i].stats.thoughts;
    if (o->answer_loss_weight == 0)
        text_puts(out, "answer_loss_weight: 0, so answers and end tokens are never learned, however low the loss\n");
    if (o->thought_loss_weight == 0 && thoughts)
        text_puts(out, "thought_loss_weight: 0, so the model never learns to write the thoughts that its answers stand behind\n");
}

static void memory_suffices(const struct start *s, const struct stage *stage, struct text *out)
{
    (void)stage;
    struct plan_memory memory = estimate_memory(s);
    int64_t node = estimate_machine_bytes(), worker = estimate_worker_bytes(&memory);
    if (node && memory.server + memory.frozen + worker > node)
        text_printf(out, "memory: the server needs about %.1f GB and a worker %.1f GB, and this node has %.1f GB; %s\n", (double)memory.server / 1e9,
                    (double)(worker + memory.frozen) / 1e9, (double)node / 1e9,
                    memory.activations > worker / 2 ? "lower per_device_train_batch_size or max_length, or set gradient_checkpointing: true"
                                                    : "put the server on a node of its own");
}

/* Lines that were said of an earlier stage are not said again. */
static void put_new(const char *lines, const struct stage *stage, struct text *out)
{
    for (int size; *lines; lines += size + (lines[size] == '\n')) {
        size = (int)strcspn(lines, "\n");
        struct text line = {0};
        text_printf(&line, "%.*s\n", size, lines);
        if (line.failed || (out->data && strstr(out->data, line.data))) {
            out->failed |= line.failed;
        } else {
            if (stage->run->stage > 0)
                text_printf(out, "stage '%s': ", stage->run->name);
            text_puts(out, line.data);
        }
        text_free(&line);
    }
}

void warnings_put(const struct start *start, struct text *out)
{
    static warning_fn *const warnings[] = {warmup_ends, rate_lives, epoch_fills_a_batch, sets_have_rows, rows_end,
                                           parts_take_loss, memory_suffices};
    for (int stage = 0; stage < start->run.n_stages; stage++)
        for (size_t i = 0; i < sizeof warnings / sizeof *warnings; i++) {
            struct text lines = {0};
            warnings[i](start, &start->stages[stage], &lines);
            out->failed |= lines.failed;
            if (lines.size && !lines.failed)
                put_new(lines.data, &start->stages[stage], out);
            text_free(&lines);
        }
}
