/* Finds out whether this process is one of several that a foreign launcher started, each a world of its own.
 * Must not know: MPI. */
#ifndef PROTO_LAUNCHER_H
#define PROTO_LAUNCHER_H

#include "common/status.h"

/* Value of an environment variable or NULL; getenv has this form but for the context. */
typedef const char *launcher_lookup(void *context, const char *name);

/* `size`: ranks in this world. STATUS_USAGE when it is 1 although the environment speaks of several processes: they would
 * be that many silent copies of the run. */
enum status launcher_check(int size, launcher_lookup *lookup, void *context, struct error *err);

#endif
