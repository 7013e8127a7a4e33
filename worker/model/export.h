/* A trained model as a Hugging Face folder that the public libraries load.
 * Must not know: where the values come from (snapshots, training), tokenizers. */
#ifndef WORKER_MODEL_EXPORT_H
#define WORKER_MODEL_EXPORT_H

#include "common/params.h"
#include "worker/model/safetensors.h"

/* A file that goes along as it is: tokenizer.json, generation_config.json, ... */
struct export_file {
    const char *name; /* a plain file name */
    const void *data;
    size_t size;
};

struct export_options {
    enum safetensors_dtype dtype; /* SAFETENSORS_F32 or SAFETENSORS_BF16 */
    bool overwrite;               /* allow a folder that holds something */
    int64_t shard_bytes;          /* tensor bytes per weights file; 0 = 5 GB as the public writers */
    bool dense;                   /* leave the tensors of routers out */
};

/* How the model routes attention, beside config.json: one of the files that go along. */
#define MODEL_ROUTING_FILE "loar_config.json"

/* True for names that model_export writes itself (config.json, weights and their index). */
bool model_export_owns(const char *name);

/* Writes dir/model.safetensors (or model-0000i-of-0000n.safetensors and their index), the `files`, and last
 * config.json: config_json with its dtype brought up to date. values: [params_room(table)]. Adapters are left
 * out; model_merge_adapters has added them to their matrices. Tensors of
 * routers are written as F32 whatever the dtype, so that heads are chosen as in training; the public libraries leave
 * them aside. A folder that holds something is STATUS_USAGE unless options->overwrite; then weights of an earlier export,
 * and its MODEL_ROUTING_FILE if this one has none, are removed and other files stay. While the call runs or after it failed there is no config.json, so that half a
 * model is never taken for one; files that it wrote are removed again. */
enum status model_export(const char *dir, const char *config_json, size_t config_size, const struct export_file *files,
                         size_t n_files, const struct params *table, const float *values,
                         const struct export_options *options, struct error *err);

#endif
