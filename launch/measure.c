#include "launch/measure.h"

#include <time.h>

#include "common/memory.h"
#include "common/timing.h"
#include "worker/ops/gemm.h"

enum { PEAK_SIDE = 1024, PEAK_REPEATS = 8 };

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct lap lap_begin(void)
{
    return (struct lap){time_seconds(), cpu_seconds()};
}

struct lap lap_end(struct lap began)
{
    return (struct lap){time_seconds() - began.wall, cpu_seconds() - began.cpu};
}

void lap_keep(struct lap *best, struct lap now)
{
    best->wall = best->wall == 0 || now.wall < best->wall ? now.wall : best->wall;
    best->cpu = best->cpu == 0 || now.cpu < best->cpu ? now.cpu : best->cpu;
}

enum status peak_init(struct peak *peak, int threads, struct error *err)
{
    size_t values = (size_t)threads * 3 * PEAK_SIDE * PEAK_SIDE;
    TRY(gemm_init(err));
    *peak = (struct peak){mem_alloc_aligned(values, sizeof *peak->matrices), threads};
    if (!peak->matrices)
        FAIL(err, STATUS_NOMEM, "no memory for the products of %d threads", threads);
    for (size_t i = 0; i < values; i++)
        peak->matrices[i] = (float)(i % 17) - 8;
    return STATUS_OK;
}

void peak_free(struct peak *peak)
{
    mem_free_aligned(peak->matrices);
    peak->matrices = NULL;
}

static void peak_task(void *context, int task, int thread)
{
    (void)thread;
    float *a = ((struct peak *)context)->matrices + (size_t)task * 3 * PEAK_SIDE * PEAK_SIDE;
    float *b = a + PEAK_SIDE * PEAK_SIDE, *c = b + PEAK_SIDE * PEAK_SIDE;
    struct gemm job = {GEMM_NT, PEAK_SIDE, PEAK_SIDE, PEAK_SIDE, a, PEAK_SIDE, b, PEAK_SIDE, c, PEAK_SIDE, 0.0f};
    for (int i = 0; i < PEAK_REPEATS; i++)
        gemm_one(&job, 1.0f);
}

void peak_run(struct peak *peak, struct threads *pool)
{
    threads_run(pool, peak->threads, peak_task, peak);
}

double peak_flops(int threads)
{
    return 2.0 * PEAK_SIDE * PEAK_SIDE * PEAK_SIDE * PEAK_REPEATS * threads;
}
