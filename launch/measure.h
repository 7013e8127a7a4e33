/* What the benches of computation share: time on the wall and on the processor, and the rate of plain matrix products,
 * which is measured in the same run because other work on the machine slows both.
 * Must not know: what is measured. */
#ifndef LAUNCH_MEASURE_H
#define LAUNCH_MEASURE_H

#include "common/status.h"
#include "common/threads.h"

/* The clock on the wall, and the time that all threads spent on a core, which other programs do not lengthen. */
struct lap {
    double wall, cpu;
};
struct lap lap_begin(void);
struct lap lap_end(struct lap began);
/* Keeps the shorter one of each. */
void lap_keep(struct lap *best, struct lap now);

/* One product of 1024 x 1024 matrices per thread, all at once; each has its own matrices. */
struct peak {
    float *matrices; /* three per thread */
    int threads;
};
enum status peak_init(struct peak *peak, int threads, struct error *err);
void peak_free(struct peak *peak);
/* Runs the products once; they take peak_flops(). */
void peak_run(struct peak *peak, struct threads *pool);
double peak_flops(int threads);

#endif
