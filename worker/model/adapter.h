/* Adapters as a folder of their own, in the form that PEFT reads and writes: adapter_config.json says what they are beside,
 * adapter_model.safetensors holds them and the modules that were trained as a whole.
 * Must not know: where values come from, how a model computes. */
#ifndef WORKER_MODEL_ADAPTER_H
#define WORKER_MODEL_ADAPTER_H

#include "common/params.h"
#include "worker/model/export.h"
#include "worker/model/training.h"

#define ADAPTER_CONFIG_FILE "adapter_config.json"

/* What adapter_config.json says. */
struct adapter {
    struct training training; /* modules: owned by what follows */
    char *base;               /* folder or name of the model they belong to; NULL where the file has none */
    char **modules;
    size_t n_modules;
};

/* True where `dir` is an adapter's folder, not a model's. */
bool adapter_is_folder(const char *dir);
/* STATUS_DATA names the file, key and what was found where the adapters are not plain LoRA of the seven linear maps of a layer. */
enum status adapter_read_config(const char *dir, struct adapter *out, struct error *err);
void adapter_free(struct adapter *adapter);
/* Values of all trained tensors of the table (as training_list makes it from the above) into values[table->values]; routers only
 * where the folder holds them. STATUS_DATA names a tensor that is missing, of another shape or belongs to nothing. */
enum status adapter_read(const char *dir, const struct params *table, float *values, struct error *err);

/* Writes the folder: the table's trained tensors (routers only if not options->dense), the `files`, and last the configuration.
 * base: the folder that the model came from. Options and what happens to a folder that holds something are as in model_export. */
enum status adapter_write(const char *dir, const struct training *training, const char *base, const struct export_file *files,
                          size_t n_files, const struct params *table, const float *values, const struct export_options *options,
                          struct error *err);

#endif
