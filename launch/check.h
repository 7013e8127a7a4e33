/* The checks of a run that need its files: model, tokenizer, rows. What `loar validate` does beyond the options.
 * Must not know: ranks, messages. */
#ifndef LAUNCH_CHECK_H
#define LAUNCH_CHECK_H

#include "common/options.h"

/* Loads what the options name as a run would, weights included, lets it go again, and appends to `out` what was found,
 * one line each. Fails with the first problem that a run would stop at. */
enum status run_check(const struct options *options, struct text *out, struct error *err);

#endif
