/* What of a model is trained: all of it, its routers alone, chosen layers and modules, or low-rank adapters beside frozen
 * matrices (LoRA, Hu et al. 2021). Turns the tensors of an architecture into the table of a run, where the others are frozen.
 * Routers are always trained.
 * Must not know: options, how the model computes. */
#ifndef WORKER_MODEL_TRAINING_H
#define WORKER_MODEL_TRAINING_H

#include <stdbool.h>
#include <stddef.h>

#include "common/params.h"
#include "common/text.h"

enum training_kind { TRAIN_ALL, TRAIN_ROUTERS, TRAIN_CHOSEN, TRAIN_ADAPTERS };

/* Linear maps of a layer that may have an adapter. */
enum lora_module { LORA_Q, LORA_K, LORA_V, LORA_O, LORA_GATE, LORA_UP, LORA_DOWN, LORA_MODULES };

/* y = W x + scale B A dropout(x): A [rank][in], B [out][rank]. */
struct lora {
    int rank;
    double alpha, dropout;
    bool rslora;      /* scale: alpha / sqrt(rank) (Kalajdzievski 2023) in the place of alpha / rank */
    unsigned targets; /* bit 1 << module for each that has one */
};

struct words {
    char *const *items; /* each may hold several, with commas between */
    size_t count;
};

struct training {
    enum training_kind kind;
    int layers;           /* TRAIN_CHOSEN: > 0 the last ones, < 0 the first ones; 0: not chosen by layer */
    struct words frozen;  /* TRAIN_CHOSEN: regular expressions; tensors in whose names one of them is found are frozen */
    struct words modules; /* TRAIN_CHOSEN, TRAIN_ADAPTERS: modules that are trained besides, as a whole */
    bool modules_by_end;  /* they are all whose names end so, as PEFT means it: norm is input_layernorm, too */
    struct lora lora;     /* TRAIN_ADAPTERS */
};

/* The tensors of `listed` that `training` leaves trained or freezes, in the same order, each adapter behind the matrix that it
 * is added to. STATUS_USAGE names the key when a pattern, module or layer matches nothing (with what there is), when nothing is
 * left to train, or nothing frozen. `layers` and `width`: of the model. */
enum status training_list(const struct training *training, int layers, int64_t width, const struct params *listed, struct params *out,
                          struct error *err);

/* Reads names of modules, or "all", into lora->targets. No words: all. STATUS_USAGE names what there is. */
enum status lora_set_targets(struct lora *lora, const struct words *words, struct error *err);
const char *lora_module_name(enum lora_module module); /* "q_proj" */
bool lora_is_tensor(const char *name);
double lora_scale(const struct lora *lora);
/* "model.layers.2.mlp.up_proj.lora_A.weight", and part B. The name of the matrix is a format for the layer; room: 128 bytes. */
void lora_tensor_name(char room[128], int layer, enum lora_module module, char part);

/* Sets of tensors as people speak of them. */
enum training_group { GROUP_EMBEDDING, GROUP_ATTENTION, GROUP_MLP, GROUP_NORMS, GROUP_HEAD, GROUP_ROUTERS, GROUP_ADAPTERS, GROUP_COUNT };
enum training_group training_group_of(const char *tensor);
const char *training_group_name(enum training_group group);
/* First layer that holds something trained; 0 where the embedding is. The number of layers where none does. */
int training_lowest(const struct params *table, int layers);

#endif
