/* The labels of classification tasks in a model's config.json: read, and written into the configuration of a run.
 * Must not know: tensors, rows. */
#ifndef WORKER_MODEL_CONFIG_LABELS_H
#define WORKER_MODEL_CONFIG_LABELS_H

#include "common/json.h"
#include "common/text.h"
#include "worker/data/labels.h"
#include "worker/model/model.h"

/* Appends the sets that config.json names, in order: those of `classification_tasks`, a list of {"task": name, "labels": [names]},
 * which is ours; else, where `classifies` (the architecture is one for classification), one set of the task "" with the names
 * of id2label, or num_labels numbers, or two as the public model code assumes. */
enum status config_labels_read(const struct json *config, bool classifies, const char *where, struct labels *out, struct error *err);
/* The same from text, where the architecture is looked up, too. */
enum status config_labels_parse(const char *text, size_t size, const char *where, struct labels *out, struct error *err);

/* The same from dir/config.json. */
enum status config_labels_of_folder(const char *dir, struct labels *out, struct error *err);

/* Adapters are beside a model whose config.json need not know their labels; then this file, with the same keys, stands beside
 * adapter_config.json. */
#define ADAPTER_LABELS_FILE "loar_labels.json"
/* Puts what the file says, if there is one in `dir`, in the place of the labels that were read before, in both. */
enum status config_labels_of_adapter(const char *dir, struct model_config *config, struct labels *labels, struct error *err);

/* Appends config.json `text` for a model with these labels: architectures, num_labels, id2label, label2id, problem_type and
 * classification_tasks take the place of what was there. Without labels they are left out. With several tasks a label is
 * written task/name in id2label. */
enum status config_labels_write(const char *text, size_t size, const struct model_config *config, const struct labels *labels,
                                struct text *out, struct error *err);

#endif
