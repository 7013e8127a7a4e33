/* Weights of a Hugging Face model folder into the flat space of a parameter table.
 * Must not know: how the model computes, where the values go afterwards. */
#ifndef WORKER_MODEL_IMPORT_H
#define WORKER_MODEL_IMPORT_H

#include "common/params.h"
#include "worker/model/model.h"

struct import_options {
    bool new_routers; /* tensors of routers that are not there begin as they do in a new run, all heads on */
    bool new_scores;  /* the head of classification begins anew, whatever is there */
    uint64_t seed;    /* for these, and for adapters, which begin with no effect */
    bool keep_frozen; /* values is [params_room(table)]: frozen tensors go behind the trained ones */
};

/* What was in the files besides the model's own tensors. */
struct import_report {
    int tensors;         /* read */
    int new_routers;     /* tensors of routers that were not there */
    int left_routers;    /* those that were there, but have no use in this model */
    int known_extras;    /* left out as usual: rotary_emb.inv_freq, a head that is tied or has no use, layers beyond num_hidden_layers */
    int unknown_extras;  /* left out although nobody knows what they are */
    char example[256];   /* name of the first unknown one, "" if none */
    char frozen_digest[DIGEST_HEX_SIZE]; /* hash of the frozen tensors' names, shapes and values; "" if none */
};

/* Fills values[table->values] with the weights in `dir` (a folder or one safetensors file), padding zeroed.
 * Every tensor of the table must be there (but for new routers) with its shape, as F32, F16 or BF16, without NaN or
 * infinity; frozen ones are checked alike, but only kept where options say so. STATUS_DATA or STATUS_NUMERIC name file,
 * tensor, what was expected and found. options, report may be NULL. */
enum status model_import(const char *dir, const struct model_config *config, const struct params *table,
                         const struct import_options *options, float *values, struct import_report *report,
                         struct error *err);

#endif
