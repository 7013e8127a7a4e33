/* A model to generate with, from a Hugging Face folder or from a snapshot (which carries its tokenizer, its
 * configuration and the options it was trained with).
 * Must not know: what is generated. */
#ifndef LAUNCH_SOURCE_H
#define LAUNCH_SOURCE_H

#include "common/options.h"
#include "common/params.h"
#include "common/status.h"
#include "common/threads.h"
#include "launch/loar_setup.h"
#include "worker/model/adapter.h"
#include "worker/data/labels.h"
#include "worker/model/model.h"

/* Files of a model folder that travel inside a snapshot and along with an export. */
enum { SOURCE_CARRIED = 5 };
extern const char *const source_carried[SOURCE_CARRIED];

struct snapshot;
struct tokenizer;

struct source {
    struct options options; /* of the run behind a snapshot, or defaults */
    bool knows_template;    /* the options have the chat template that the model was trained with */
    struct model_config config;
    struct adapter adapter; /* of an adapter's folder; behind config.training */
    struct labels labels;    /* of its classification tasks */
    struct loar_setup *loar; /* behind config.loar; NULL in a dense model */
    struct params table;
    float *values; /* [params_room(&table)] */
    struct tokenizer *tokenizer;
    struct model *model;
};

/* Options, configuration, routing, parameters and their values alone, of a snapshot. Frozen tensors are read from the folder
 * `base`, or, where it is NULL, from the one they were in during training. On failure everything is released. */
enum status source_of_snapshot(const struct snapshot *snapshot, const char *base, struct source *out, struct error *err);
/* STATUS_DATA when the folder's frozen tensors are not those that the snapshot was trained beside. option: what names
 * another folder. */
enum status source_check_base(const struct snapshot *snapshot, const char *folder, const char *frozen_digest, const char *option,
                              struct error *err);
/* `path`: a snapshot, a run's folder or a folder of snapshots with `snapshot` set, else a model folder. On failure
 * everything is released. A model folder with routers routes as its loar_config.json says. base: as above; a folder that holds
 * adapters alone (adapter_config.json) is completed by the model in it. */
enum status source_open(const char *path, bool snapshot, const char *base, struct threads *pool, struct source *out,
                        struct error *err);
void source_close(struct source *source);

#endif
