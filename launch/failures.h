/* Several failures as one: what is wrong with each data set of a run, told at once.
 * Must not know: what failed. */
#ifndef LAUNCH_FAILURES_H
#define LAUNCH_FAILURES_H

#include "common/status.h"
#include "common/text.h"

struct failures {
    struct text texts; /* end to end, each with its NUL */
    int count, tried; /* count > 0: something failed */
};

/* Keeps the failure and lets the caller go on where it is one of the data; else returns it. */
enum status failures_take(struct failures *failures, enum status st, const struct error *err);
/* STATUS_OK where there is none; else all of them, each with its share of the room where there are many. */
enum status failures_verdict(const struct failures *failures, const char *noun, struct error *err);
void failures_free(struct failures *failures);

#endif
