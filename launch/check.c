#include "launch/check.h"

#include <inttypes.h>

#include "common/memory.h"
#include "launch/run.h"
#include "launch/trained.h"

/* Reads every weight into memory that is given back at once: names, shapes, types, NaN. */
static enum status check_weights(struct run *run, struct text *out, struct error *err)
{
    const struct options *o = run->options;
    if (o->model_config)
        return STATUS_OK;
    struct import_report report;
    float *values = mem_alloc_aligned((size_t)run->table.values, sizeof *values);
    if (!values)
        FAIL(err, STATUS_NOMEM, "no memory for the %" PRId64 " parameters of '%s'", run->table.values, o->model_name_or_path);
    enum status st = run_import(run, false, values, &report, err);
    mem_free_aligned(values);
    if (st == STATUS_OK)
        text_printf(out, "weights: %d tensors\n", report.tensors);
    if (st == STATUS_OK && report.new_routers)
        text_printf(out, "weights: %d tensors of routers are not there and would begin anew\n", report.new_routers);
    if (st == STATUS_OK && report.unknown_extras)
        text_printf(out, "weights: %d tensors that the model does not have, such as '%s'\n", report.unknown_extras, report.example);
    return st;
}

static void put_data(const struct dataset *dataset, const char *what, struct text *out)
{
    for (int i = 0; i < dataset->n_parts; i++) {
        const struct dataset_part *part = &dataset->parts[i];
        const struct dataset_stats *s = &part->stats;
        text_printf(out, "%s %s: %" PRId64 " rows read, %" PRId64 " used, %" PRId64 " skipped, %" PRId64 " too long; longest %d tokens\n",
                    what, part->name, s->read, s->kept, s->skipped, s->too_long, s->longest);
        text_puts(out, part->problems ? part->problems : "");
        if (s->tokens[SPAN_END] == 0 && s->kept)
            text_printf(out, "%s %s: no row ends with an end token; a model trained on it would not stop\n", what, part->name);
    }
}

static enum status check_rows(struct run *run, struct text *out, struct error *err)
{
    const struct options *o = run->options;
    put_data(&run->train, "datasets", out);
    put_data(&run->eval, "eval_datasets", out);
    /* Without ps.slots there are as many as workers; one is the least. */
    TRY(run_plan(run, o->ps.slots > 0 ? (int)o->ps.slots : 1, err));
    if (o->ps.slots > 0)
        text_printf(out, "steps: %" PRId64 "\n", run_total_steps(run));
    return STATUS_OK;
}

enum status run_check(const struct options *options, struct text *out, struct error *err)
{
    struct threads *pool = NULL;
    struct run run = {0};
    TRY(threads_create(run_threads(options->threads, 1), &pool, err));
    enum status st = run_load(options, pool, &run, err);
    if (st == STATUS_OK) {
        text_printf(out, "model: %" PRId64 " parameters\n", run.table.trained + run.table.frozen);
        trained_put(&run.table, out);
        run_routing_notes(&run, out);
        st = check_weights(&run, out, err);
        if (st == STATUS_OK)
            st = check_rows(&run, out, err);
        if (st == STATUS_OK && out->failed)
            st = error_set(err, STATUS_NOMEM, "no memory for the report of the check");
        run_free(&run);
    }
    threads_free(pool);
    return st;
}
