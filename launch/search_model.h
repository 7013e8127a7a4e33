/* The model of a search: every layer has a router that always prefers the same heads, and what each layer sees and computes
 * may change from pass to pass. Its losses, the ranking of its heads, and the time its attention takes.
 * Must not know: which lists are good, how they are found. */
#ifndef LAUNCH_SEARCH_MODEL_H
#define LAUNCH_SEARCH_MODEL_H

#include "common/threads.h"
#include "launch/search_rows.h"
#include "worker/loar/search.h"
#include "worker/model/model.h"

struct search_model {
    struct model_config config; /* its routing is `plan`, so this struct must not move */
    struct loar_plan plan;
    struct loar_layer *layers;    /* [L] what the next pass does */
    enum loar_router_kind router; /* the run's, which is timed; losses are those of a static one */
    int sinks;
    struct params own, table;     /* the model's own tensors; the same and the routers behind them */
    float *values;                /* [table.values] */
    struct model *model;
    struct threads *pool;         /* borrowed */
};

/* config: a run's, with routing in all layers under policy topk. sinks: those of windows. Weights are zero. On failure
 * everything is released. */
enum status search_model_create(const struct model_config *config, int sinks, bool checkpointing, struct threads *pool,
                                struct search_model *out, struct error *err);
void search_model_free(struct search_model *model);

/* Weights from a Hugging Face folder, or from a snapshot of any run of such a model (its routers stay behind). */
enum status search_model_load(struct search_model *model, const char *folder, const char *snapshot, struct error *err);

/* STATUS_USAGE names an option that the model or its routing cannot take. */
enum status search_model_check(const struct search_model *model, const struct search_space *space, struct error *err);

/* One dense pass with gradient: from now on a share of heads means those of most importance, which is the mean of |delta|
 * over the rows that a router decides about, as a share of its layer. */
enum status search_model_rank_heads(struct search_model *model, const struct search_rows *rows, struct error *err);

/* Takes list[L] for the next passes. */
void search_model_use(struct search_model *model, const struct search_space *space, const uint8_t *list);
/* Mean weighted loss. */
enum status search_model_loss(struct search_model *model, const struct search_rows *rows, double *out, struct error *err);
/* Whether routers decide about any token at all: the first tokens of a row always run all heads. */
enum status search_model_skips(struct search_model *model, const struct search_rows *rows, bool *out, struct error *err);

/* cost[O]: ms that a layer with the option takes of a batch, forward and backward, in projections, attention and (where
 * heads are skipped) the router; medians of `rounds` in which the options take turns. */
enum status search_model_time(struct search_model *model, const struct search_space *space, const struct search_rows *rows,
                              int rounds, double *cost, struct error *err);

#endif
