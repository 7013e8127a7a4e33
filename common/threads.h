/* A small thread pool. Work is cut into tasks whose number and content never depend on the number of
 * threads, so results do not either; idle threads sleep, so ranks may outnumber cores. */
#ifndef COMMON_THREADS_H
#define COMMON_THREADS_H

#include "common/status.h"

struct threads;

/* task: 0..count-1. thread: 0..threads_count-1, for scratch memory. */
typedef void threads_task_fn(void *context, int task, int thread);

/* `count` threads in all, the caller included; count >= 1. */
enum status threads_create(int count, struct threads **out, struct error *err);
void threads_free(struct threads *pool);
int threads_count(const struct threads *pool);
/* Runs fn for every task and returns when all are done. The caller works too. Not re-entrant. */
void threads_run(struct threads *pool, int tasks, threads_task_fn *fn, void *context);

/* Cores this process may run on (affinity and cgroup limits as the kernel reports them by affinity). */
int threads_cores(void);

#endif
