/* The routing of a model together with the names that people know its tasks by, wherever it came from.
 * Must not know: options, files. */
#ifndef LAUNCH_LOAR_SETUP_H
#define LAUNCH_LOAR_SETUP_H

#include "common/status.h"
#include "common/text.h"
#include "worker/model/model.h"

struct loar_setup {
    struct loar_plan plan; /* for model_config.loar; layers are `layers` below */
    struct loar_layer *layers; /* [n_layers] */
    int n_layers;
    char *tasks[LOAR_MAX_TASKS]; /* names, [plan.config.n_tasks] */
    int default_task;            /* for rows and requests of other tasks */
};

/* All layers dense, no tasks yet. */
enum status loar_setup_create(int n_layers, struct loar_setup **out, struct error *err);
void loar_setup_free(struct loar_setup *setup);

/* Appends a task; STATUS_USAGE when there are too many. */
enum status loar_setup_add_task(struct loar_setup *setup, const char *name, struct error *err);
/* Number of a task, or -1. */
int loar_setup_task(const struct loar_setup *setup, const char *name);
/* The same; where it is not known, the default task. */
int loar_setup_task_or_default(const struct loar_setup *setup, const char *name);
/* True where both have the same tasks in the same order. */
bool loar_setup_same_tasks(const struct loar_setup *a, const struct loar_setup *b);
/* Whether any layer has a router. */
bool loar_setup_is_routed(const struct loar_setup *setup);
/* "layers 0 to 4: window 256 and 64 sinks, 50 % of the heads; layers 5 to 7: all". */
void loar_setup_put_layers(const struct loar_setup *setup, struct text *out);
/* "qa, sums" */
void loar_setup_put_tasks(const struct loar_setup *setup, struct text *out);

#endif
