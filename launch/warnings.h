/* What is allowed but probably not meant, seen once rows and schedule are known: rules between keys alone are in
 * common/options_check.c.
 * Must not know: how it is shown. */
#ifndef LAUNCH_WARNINGS_H
#define LAUNCH_WARNINGS_H

#include "launch/start.h"

/* Appends one line each. */
void warnings_put(const struct start *start, struct text *out);

#endif
