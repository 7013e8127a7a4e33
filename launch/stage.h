/* What a stage of a run is to rank 0: its steps, learning rates, and the rule by which its best evaluation is known.
 * Must not know: messages, files. */
#ifndef LAUNCH_STAGE_H
#define LAUNCH_STAGE_H

#include "launch/best.h"
#include "launch/run.h"
#include "ps/optimizer/optimizer.h"
#include "ps/schedule.h"
#include "ps/server.h"

struct stage {
    const struct run *run; /* its rows and options */
    int64_t steps;
    struct schedule schedule; /* by steps of the stage */
    struct best_rule best;
    bool keeps_best; /* a snapshot is written at every new best */
};

/* Settings of the optimizer that may differ from stage to stage. */
struct optimizer_options stage_optimizer_options(const struct options *options);
/* What the server is to know of the stage, which begins behind first_step steps of the run. */
struct server_stage stage_for_server(const struct stage *stage, int64_t first_step);

/* Plans all stages of a run whose rows are laid out (run_plan): stages[run->n_stages]. STATUS_USAGE names the stage. */
enum status stages_plan(struct run *run, struct stage *stages, struct error *err);

/* The metrics that an evaluation in this stage is going to give. */
enum status stage_expect_metrics(const struct run *run, struct metrics *out, struct error *err);
/* Whether tasks have numbers of their own, as eval_task_<task>_loss, besides those of the sets. */
bool stage_tells_tasks(const struct run *run);
/* Whether the model answers rows of this evaluation set, so that they can be matched. */
bool stage_answers(const struct run *run, int set);

#endif
