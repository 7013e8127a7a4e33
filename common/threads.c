#include "common/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/memory.h"

struct helper {
    struct threads *pool;
    int thread; /* its number: 1, 2, ... */
    pthread_t handle;
};

struct threads {
    int count;
    struct helper *helpers; /* count - 1 of them */
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    /* One round of work, guarded by `lock` except for the task counter. */
    unsigned long round;
    int running; /* helpers still inside the round */
    bool stopping;
    threads_task_fn *fn;
    void *context;
    int tasks;
    atomic_int next;
};

static void work(struct threads *pool, int thread)
{
    for (;;) {
        int task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (task >= pool->tasks)
            return;
        pool->fn(pool->context, task, thread);
    }
}

static void *helper_main(void *argument)
{
    const struct helper *helper = argument;
    struct threads *pool = helper->pool;
    unsigned long seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->round == seen && !pool->stopping)
            pthread_cond_wait(&pool->start, &pool->lock);
        if (pool->stopping)
            break;
        seen = pool->round;
        pthread_mutex_unlock(&pool->lock);
        work(pool, helper->thread);
        pthread_mutex_lock(&pool->lock);
        if (--pool->running == 0)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

enum status threads_create(int count, struct threads **out, struct error *err)
{
    struct threads *pool = mem_alloc(1, sizeof *pool);
    struct helper *helpers = mem_alloc((size_t)count, sizeof *helpers);
    if (!pool || !helpers) {
        mem_free(pool);
        mem_free(helpers);
        FAIL(err, STATUS_NOMEM, "no memory for a pool of %d threads", count);
    }
    pool->helpers = helpers;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->start, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->count = 1;
    for (int i = 1; i < count; i++) {
        helpers[i - 1] = (struct helper){.pool = pool, .thread = i};
        if (pthread_create(&helpers[i - 1].handle, NULL, helper_main, &helpers[i - 1])) {
            threads_free(pool);
            FAIL(err, STATUS_NOMEM, "cannot start thread %d of %d; lower the number of threads", i + 1, count);
        }
        pool->count++;
    }
    *out = pool;
    return STATUS_OK;
}

void threads_free(struct threads *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 1; i < pool->count; i++)
        pthread_join(pool->helpers[i - 1].handle, NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->start);
    pthread_cond_destroy(&pool->done);
    mem_free(pool->helpers);
    mem_free(pool);
}

int threads_count(const struct threads *pool)
{
    return pool->count;
}

void threads_run(struct threads *pool, int tasks, threads_task_fn *fn, void *context)
{
    if (pool->count == 1 || tasks <= 1) {
        for (int i = 0; i < tasks; i++)
            fn(context, i, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->fn = fn;
    pool->context = context;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->running = pool->count - 1;
    pool->round++;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    work(pool, 0);
    pthread_mutex_lock(&pool->lock);
    while (pool->running > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

int threads_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}
