/* A run as the training loop asks for it: batches, answers to rows, how far routing has been let in, names of rows. */
#include "launch/responder.h"
#include "launch/run.h"
#include "worker/data/row_names.h"

static void route_rows(const struct run *run, struct batch *batch)
{
    for (int i = 0; i < batch->n_sequences; i++)
        batch->tasks[i] = run->routed_as[batch->tasks[i]];
}

static enum status train_batch(void *context, int stage, int64_t step, int slot, struct batch *out, struct error *err)
{
    struct run *run = run_stage(context, stage);
    TRY(dataset_slot_batch(&run->train, &run->order, step, slot, run->span_weights, out, err));
    route_rows(run, out);
    return STATUS_OK;
}

static enum status check_set(const struct run *run, int set, struct error *err)
{
    if (set < 0 || set >= run->eval.n_parts)
        FAIL(err, STATUS_PEER, "evaluation set %d of %d was asked for", set, run->eval.n_parts);
    return STATUS_OK;
}

static enum status eval_batch(void *context, int stage, int set, int64_t index, struct batch *out, struct error *err)
{
    struct run *run = run_stage(context, stage);
    TRY(check_set(run, set, err));
    TRY(dataset_eval_batch(&run->eval, &run->eval.parts[set], (int)run->options->per_device_eval_batch_size, index,
                           run->span_weights, out, err));
    route_rows(run, out);
    return STATUS_OK;
}

static const struct loar_schedule *routing_of(void *context, int stage)
{
    return &run_stage(context, stage)->routing;
}

static enum status answer_row(void *context, int stage, int set, int64_t index, struct answer_report *out, struct error *err)
{
    struct run *run = context;
    TRY(check_set(run_stage(run, stage), set, err));
    return responder_answer(run->responder, stage, set, index, out, err);
}

static void name_rows(void *context, int stage, int set, int64_t step, int64_t index, struct text *out)
{
    struct run *run = run_stage(context, stage);
    if (set < 0)
        row_names_of_slot(&run->train, &run->order, step, (int)index, out);
    else if (set < run->eval.n_parts)
        row_names_of_batch(&run->eval, &run->eval.parts[set], (int)run->options->per_device_eval_batch_size, index, out);
}

struct batch_source run_batches(struct run *run)
{
    return (struct batch_source){run, train_batch, eval_batch, run->responder ? answer_row : NULL, routing_of, name_rows};
}
