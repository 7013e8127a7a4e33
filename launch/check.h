/* What `loar validate` says about a run that could start, beyond its options: rows and their lengths, tokens, steps, memory.
 * Must not know: how a run is loaded (start.h does that, with all its checks). */
#ifndef LAUNCH_CHECK_H
#define LAUNCH_CHECK_H

#include "launch/start.h"

/* Appends the facts, a line each. ranks: how many the run would have, 1 for one process. */
enum status check_put(struct start *start, int ranks, struct text *out, struct error *err);

#endif
