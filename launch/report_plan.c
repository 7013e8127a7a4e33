/* The block before the first step: what will run on what, what the rows hold, and where settings come from; and one
 * decoded row as training sees it. */
#include <string.h>

#include "launch/report.h"

enum { LABEL = 12, LINE = 100 };

static void put_label(struct text *out, const char *label)
{
    text_printf(out, "  %-*s ", LABEL, label);
}

static void put_bytes(struct text *out, int64_t bytes)
{
    if (bytes >= 1000000000)
        text_printf(out, "%.1f GB", (double)bytes / 1e9);
    else
        text_printf(out, "%.1f MB", (double)bytes / 1e6);
}

/* Lines of a text, each behind the label's room. */
static void put_lines(struct text *out, const char *label, const char *lines)
{
    while (lines && *lines) {
        int size = (int)strcspn(lines, "\n");
        put_label(out, label);
        text_printf(out, "%.*s\n", size, lines);
        lines += size + (lines[size] == '\n');
        label = "";
    }
}

static void put_data(struct text *out, const struct plan_data *d)
{
    put_label(out, d->evaluation ? "eval rows" : "rows");
    text_printf(out, "%s: %lld read, %lld used, %lld skipped, %lld too long", d->name, (long long)d->read, (long long)d->kept,
                (long long)d->skipped, (long long)d->too_long);
    if (d->masked)
        text_printf(out, ", %lld without a token that takes loss", (long long)d->masked);
    if (d->shortened)
        text_printf(out, ", %lld with a shortened thought", (long long)d->shortened);
    if (d->repeated)
        text_printf(out, ", %lld repeated", (long long)d->repeated);
    if (d->held_out)
        text_printf(out, ", %lld held out", (long long)d->held_out);
    text_printf(out, " (format %s, longest %d tokens)\n", d->format, d->longest);
    if (d->special_text)
        text_printf(out, "  %-*s %lld rows spell a special token; it is read as plain text\n", LABEL, "",
                    (long long)d->special_text);
    put_lines(out, "", d->problems);
}

static void put_tokens(struct text *out, const struct plan_facts *f)
{
    int64_t tokens[REPORT_SPANS] = {0}, total = 0;
    for (int i = 0; i < f->n_data; i++)
        for (int span = 0; span < REPORT_SPANS && !f->data[i].evaluation; span++) {
            tokens[span] += f->data[i].tokens[span];
            total += f->data[i].tokens[span];
        }
    put_label(out, "tokens");
    text_printf(out, "%lld per epoch: prompt %lld, thought %lld, answer %lld, end %lld\n", (long long)total, (long long)tokens[0],
                (long long)tokens[1], (long long)tokens[2], (long long)tokens[3]);
}

static void put_steps(struct text *out, const struct plan_facts *f)
{
    const struct options *o = f->options;
    put_label(out, "steps");
    text_printf(out, "%lld (%lld per epoch)", (long long)f->total_steps, (long long)f->steps_per_epoch);
    if (f->first_step)
        text_printf(out, ", going on after step %lld", (long long)f->first_step);
    text_puts(out, "\n");
    put_lines(out, "stages", f->stages);
    put_label(out, "batch");
    text_printf(out, "%lld rows = %lld micro-batches x %lld rows, shared by %d worker%s\n",
                (long long)(o->ps.slots * o->per_device_train_batch_size), (long long)o->ps.slots,
                (long long)o->per_device_train_batch_size, f->workers, f->workers == 1 ? "" : "s");
    put_label(out, "optimizer");
    text_printf(out, "%s, learning rate %g, %s, warm-up %lld step%s, ", o->optim, o->learning_rate, o->lr_scheduler_type,
                (long long)f->warmup_steps, f->warmup_steps == 1 ? "" : "s");
    text_printf(out, o->max_grad_norm > 0 ? "clipped at %g\n" : "not clipped\n", o->max_grad_norm);
}

static void put_memory(struct text *out, const struct plan_facts *f)
{
    const struct plan_memory *m = &f->memory;
    put_label(out, "memory");
    text_puts(out, "about ");
    put_bytes(out, m->weights + m->gradients + m->activations);
    text_puts(out, " per worker (weights ");
    put_bytes(out, m->weights);
    text_puts(out, ", gradients ");
    put_bytes(out, m->gradients);
    text_puts(out, ", activations ");
    put_bytes(out, m->activations);
    text_puts(out, "), ");
    put_bytes(out, m->server);
    text_puts(out, " on the server");
    if (m->frozen) {
        text_puts(out, ", ");
        put_bytes(out, m->frozen);
        text_puts(out, " that the workers of a node share (frozen weights)");
    }
    if (f->machine_bytes) {
        text_puts(out, "; this node has ");
        put_bytes(out, f->machine_bytes);
    }
    text_puts(out, "\n");
}

/* Keys that are not at their default, each with the place it was set in. */
static void put_options(struct text *out, const struct options *o)
{
    struct text given = {0}, source = {0};
    options_format(o, OPTIONS_GIVEN, &given);
    if (given.failed) {
        text_free(&given);
        return;
    }
    const char *line = given.data ? given.data : "";
    text_puts(out, "Options that are not at their default\n");
    while (*line) {
        int size = (int)strcspn(line, "\n"), key = (int)strcspn(line, ":");
        char name[64];
        snprintf(name, sizeof name, "%.*s", key, line);
        text_clear(&source);
        options_source_text(o, options_id(name), &source); /* every line begins with a key */
        bool cut = size > LINE;
        text_printf(out, "  %.*s%s  [%s]\n", cut ? LINE - 4 : size, line, cut ? " ..." : "", source.data ? source.data : "");
        line += size + (line[size] == '\n');
    }
    text_free(&given);
    text_free(&source);
}

void report_plan_facts(struct report *report, const struct plan_facts *f)
{
    struct text out = {0};
    text_printf(&out, "LoAR %s%s%s\n", LOAR_VERSION, f->options->run_name ? ": " : "", f->options->run_name ? f->options->run_name : "");
    put_label(&out, "ranks");
    if (f->ranks)
        text_printf(&out, "%d (1 server, %d worker%s) on %s\n", f->ranks, f->workers, f->workers == 1 ? "" : "s", f->hosts);
    else
        text_printf(&out, "1 process, server and worker in one, on %s\n", f->hosts);
    put_label(&out, "threads");
    text_printf(&out, "%d on the server, %d per worker; OpenBLAS with one thread per call\n", f->server_threads, f->worker_threads);
    put_label(&out, "model");
    text_printf(&out, "%s\n", f->model);
    put_label(&out, "parameters");
    text_printf(&out, "%lld, of which %lld are trained (%.1f %%)\n", (long long)f->parameters, (long long)f->trained,
                f->parameters ? 100.0 * (double)f->trained / (double)f->parameters : 0.0);
    put_lines(&out, "", f->groups);
    for (int i = 0; i < f->n_data; i++)
        put_data(&out, &f->data[i]);
    put_tokens(&out, f);
    put_steps(&out, f);
    put_memory(&out, f);
    if (f->resumed_from)
        put_lines(&out, "resumed from", f->resumed_from);
    put_lines(&out, "note", f->notes);
    put_options(&out, f->all);
    report_text(report, &out);
    text_free(&out);
}

void report_row(struct report *report, const char *dataset, const struct row_piece *pieces, int count)
{
    struct text out = {0};
    text_printf(&out, "One row of %s as it is trained on (span, tokens, loss weight, text)\n", dataset);
    for (int i = 0; i < count; i++) {
        text_printf(&out, "  %-8s %5d %6g  ", pieces[i].span, pieces[i].tokens, pieces[i].weight);
        text_json_string(&out, pieces[i].text, pieces[i].size); /* quoted: line breaks and blanks at the ends show */
        text_puts(&out, "\n");
    }
    text_puts(&out, "\n");
    report_text(report, &out);
    text_free(&out);
}
