/* Time since an arbitrary start, for waits and rates; never for anything that decides a result. */
#ifndef COMMON_TIMING_H
#define COMMON_TIMING_H

#include <stdint.h>

int64_t time_ms(void);
int64_t time_ns(void);
double time_seconds(void);

#endif
