/* Time since an arbitrary start, for waits and rates; never for anything that decides a result. */
#ifndef COMMON_TIMING_H
#define COMMON_TIMING_H

#include <stdint.h>

/* A loop that has not looked at the clock for so long stood still itself (a suspended job, Ctrl-Z) or was busy: what it missed
 * is not held against those it waits for. */
enum { TIME_ASLEEP_MS = 5000 };

int64_t time_ms(void);
int64_t time_ns(void);
double time_seconds(void);

#endif
