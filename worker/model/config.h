/* config.json of a Hugging Face model folder to struct model_config and back. What this program cannot
 * compute exactly as the model's own code does is refused here, by name, before anything is loaded.
 * Must not know: tensors, files other than config.json and generation_config.json. */
#ifndef WORKER_MODEL_CONFIG_H
#define WORKER_MODEL_CONFIG_H

#include "common/json.h"
#include "common/text.h"
#include "worker/model/model.h"

/* Reads dir/config.json, and adds the begin and end tokens of dir/generation_config.json where that file is
 * there: its begin token takes precedence, end tokens are united. STATUS_DATA names file, key, what was found
 * and what is supported. */
enum status model_config_read(const char *dir, struct model_config *out, struct error *err);
/* One file that holds the keys of config.json: JSON, or YAML where the name ends in .yaml or .yml. */
enum status model_config_read_file(const char *path, struct model_config *out, struct error *err);
/* The same from text in memory (JSON), and from a value that was parsed already. */
enum status model_config_parse(const char *text, size_t size, const char *where, struct model_config *out,
                               struct error *err);
enum status model_config_from_json(const struct json *object, const char *where, struct model_config *out,
                                   struct error *err);

/* Appends config.json for this model, as the public model code reads it; torch_dtype: "float32" or
 * "bfloat16". Reading it gives the same struct back. */
void model_config_write(const struct model_config *config, const char *torch_dtype, struct text *out);

/* Name of the public model class with the heads that the model has, such as LlamaForCausalLM. */
const char *model_architecture(const struct model_config *config);
/* Whether that is a class for classification. */
bool model_architecture_classifies(const char *name);

/* Appends the shortest decimal that reads back as the same double (as_float: the same float). */
void model_config_real(struct text *out, double value, bool as_float);

#endif
