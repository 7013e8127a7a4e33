/* What server and workers of a run both need, loaded from the options in one place: model, tokenizer, rows. A run of several
 * stages is the first one's `struct run`, which owns what all share, and one more for each of the others.
 * Must not know: ranks, messages. */
#ifndef LAUNCH_RUN_H
#define LAUNCH_RUN_H

#include "common/options.h"
#include "common/params.h"
#include "common/status.h"
#include "common/text.h"
#include "common/threads.h"
#include "worker/data/dataset.h"
#include "worker/loar/schedule.h"
#include "worker/model/import.h"
#include "worker/model/model.h"
#include "worker/train/loop.h"

struct responder;
struct chat_template;
struct loar_setup;
struct tokenizer;

/* What the template declares, beside the weights that learnt it: in snapshots and in the folders made of them. */
#define RUN_TEMPLATE_FILE "chat_template.yaml"

struct run {
    const struct options *all;     /* of the whole run; borrowed */
    const struct options *options; /* as they hold in this stage: of `held`, or `all` where there are no stages */
    int stage, n_stages;
    const char *name;              /* of the stage; NULL where there are none */
    struct options *held;          /* [n_stages], NULL where there are none; the first stage's `struct run` owns these */
    struct run *later;             /* [n_stages - 1] */
    struct responder *responder;     /* who answers rows of evaluation sets on a worker; borrowed, may be NULL */
    struct threads *pool;          /* borrowed */
    struct model_config config;
    struct text config_json; /* config.json of the model: the folder's own, or made from the architecture file */
    struct loar_setup *loar; /* behind config.loar; NULL in a dense model */
    bool loar_taken_over;    /* it is that of the model's folder, not the options' */
    struct text loar_json;   /* loar_config.json of a routed model */
    struct tokenizer *tokenizer;
    struct chat_template *template;
    struct text template_text; /* as a file declares it */
    struct params table;
    struct chunks chunks;
    struct dataset train, eval; /* parts of eval: one per evaluation set */
    int32_t *routed_as;         /* [eval.n_tasks] task by which rows of a data set's task are routed */
    float span_weights[SPAN_COUNT];
    struct labels labels; /* of classification tasks, as rows of score.weight stand */
    bool scores_anew;     /* the model's folder has no score.weight for them */
    struct order order; /* after run_plan */
    struct loar_schedule routing; /* same */
};

/* Loads all that the options name, checking as it goes. On failure the run is released. */
enum status run_load(const struct options *options, struct threads *pool, struct run *out, struct error *err);
void run_free(struct run *run);

/* Stage `stage` of a loaded run. */
struct run *run_stage(struct run *run, int stage);
/* Lays the rows of all stages out over steps and slots, and routing over steps. */
enum status run_plan(struct run *run, int slots, struct error *err);
/* Steps of the stage: max_steps, or the epochs. */
int64_t run_steps(const struct run *stage);
/* Steps of the run's stages together. */
int64_t run_total_steps(const struct run *run);
/* Rows and batches of one evaluation set. */
int run_eval_rows(const struct run *run, int set);
int run_eval_batches(const struct run *run, int set);
/* Batches as the training loop asks for them; `run` must outlive it. */
struct batch_source run_batches(struct run *run);

/* Fills values[table.values] with the weights of model_name_or_path; routers that it lacks begin anew where the options ask
 * for routing. keep_frozen: values is [params_room] and takes the frozen tensors, too. Notes what they hold in the table. */
enum status run_import(struct run *run, bool keep_frozen, float *values, struct import_report *report, struct error *err);
/* What a person should know about the run's routing, one line each. */
void run_routing_notes(const struct run *run, struct text *notes);

/* Folder whose tokenizer files and config belong to the run's model, for carrying them along. */
const char *run_tokenizer_path(const struct options *options);
/* Threads for this rank: the option, or the cores of the node shared among its ranks. */
int run_threads(int64_t wanted, int ranks_on_node);
/* Model configuration and its config.json from model_name_or_path or model_config alone. */
enum status run_model_config(const struct options *options, const struct tokenizer *tokenizer, struct model_config *out,
                             struct text *json, struct error *err);

#endif
