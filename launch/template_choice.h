/* The chat template that options ask for, and whether another one than a model was trained with is asked for.
 * Must not know: rows, ranks. */
#ifndef LAUNCH_TEMPLATE_CHOICE_H
#define LAUNCH_TEMPLATE_CHOICE_H

#include "common/options.h"
#include "common/status.h"
#include "worker/data/template.h"

/* STATUS_USAGE or STATUS_DATA naming what is wrong; template_free releases it. */
enum status template_choose(const struct options *options, struct chat_template **out, struct error *err);
/* Sets chat_template on a command line; of a file the text, too. */
enum status template_choice_set(struct options *options, const char *value, struct error *err);
/* Hash of the options' template. */
enum status template_choice_hash(const struct options *options, char out[TEMPLATE_HASH_SIZE], struct error *err);
/* STATUS_USAGE where the options' template is not that of the hash, with which the model in `path` was trained. */
enum status template_choice_check(const char *trained, const struct options *options, const char *path, struct error *err);

#endif
