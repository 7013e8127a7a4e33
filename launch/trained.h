/* What a run trains: from the options to the model's terms, and as a table for people.
 * Must not know: ranks, where values lie. */
#ifndef LAUNCH_TRAINED_H
#define LAUNCH_TRAINED_H

#include "common/options.h"
#include "common/params.h"
#include "common/text.h"
#include "worker/model/training.h"

/* Points into the options, which must live as long. STATUS_USAGE where lora_target names no module. */
enum status trained_read(const struct options *options, struct training *out, struct error *err);
/* One line for each group of tensors that the model has: values in all, how many are trained, and their share. */
void trained_put(const struct params *table, struct text *out);

#endif
