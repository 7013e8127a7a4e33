/* The pass through all layers, shared by training, evaluation and decoding. Private to worker/model. */
#ifndef WORKER_MODEL_FORWARD_H
#define WORKER_MODEL_FORWARD_H

#include "worker/model/head.h"

/* Embeds tokens[N] and runs every layer; returns the residual stream after the last. */
struct stream forward_layers(const struct pass *pass, const struct model *model, const int32_t *tokens);

/* STATUS_DATA when an id lies outside the vocabulary. */
enum status forward_check_ids(const struct model_config *config, const int32_t *ids, int64_t count, int32_t least,
                              const char *what, struct error *err);

#endif
