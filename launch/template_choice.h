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
/* STATUS_USAGE where prompts of the options would not look as those of `trained`, the options of the run behind `path`. */
enum status template_choice_check(const struct options *trained, const struct options *options, const char *path, struct error *err);

#endif
