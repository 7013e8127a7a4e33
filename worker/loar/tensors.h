/* The tensors of a routed layer, under `loar.layers.<n>.`: their names, shapes and first values, listed once. Every policy
 * begins with all heads on: scores are equal and above every threshold.
 * Must not know: the model's other tensors, values. */
#ifndef WORKER_LOAR_TENSORS_H
#define WORKER_LOAR_TENSORS_H

#include "common/params.h"
#include "worker/loar/loar.h"
#include "worker/loar/router.h"

/* Places in the flat space; -1 for what the configuration has no use for. */
struct loar_places {
    int64_t fc1_weight, fc1_bias, fc2_weight, fc2_bias, task_bias; /* router */
    int64_t threshold, multiplier, average; /* state, moved by the rule of track.h: these have a rate in the table */
};

/* True for names of tensors that are routing's, not the model's own. */
bool loar_is_tensor(const char *name);
/* Appends the layer's tensors. */
enum status loar_list(const struct loar_config *config, const struct loar_shape *shape, int layer, struct params *table,
                      struct error *err);
/* STATUS_DATA when one is missing or has another shape. */
enum status loar_find(const struct loar_config *config, const struct loar_shape *shape, int layer,
                      const struct params *table, struct loar_places *out, struct error *err);

/* The router's view of the flat space, and its gradient's. */
struct router loar_router(const struct loar_config *config, const struct loar_shape *shape,
                          const struct loar_places *places, const float *values);
struct router_gradient loar_router_gradient(const struct loar_places *places, float *gradients);

#endif
