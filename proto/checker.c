#include "proto/checker.h"

#include <pthread.h>
#include <sched.h>

#include "common/checksum.h"
#include "common/memory.h"
#include "common/timing.h"

enum { LINGER_US = 100 }; /* looks for the next one that long before it sleeps: waking up takes about as long */

struct checker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t added;
    struct check *head, *tail;
    atomic_int waiting; /* checks in the list */
    bool sleeps, ends;
};

static void linger(struct checker *c)
{
    double until = time_seconds() + LINGER_US * 1e-6;
    while (atomic_load_explicit(&c->waiting, memory_order_relaxed) == 0 && time_seconds() < until)
        sched_yield();
}

/* The first of the list, or NULL; the lock is held. */
static struct check *take(struct checker *c)
{
    struct check *check = c->head;
    if (!check)
        return NULL;
    c->head = check->next;
    if (!c->head)
        c->tail = NULL;
    atomic_fetch_sub_explicit(&c->waiting, 1, memory_order_relaxed);
    return check;
}

/* From its end on the check is the caller's again. */
static void compute(struct check *check)
{
    check->crc = crc32c(check->data, check->bytes);
    atomic_store_explicit(&check->done, true, memory_order_release);
}

static void *work(void *context)
{
    struct checker *c = context;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->head && !c->ends) {
            c->sleeps = true;
            pthread_cond_wait(&c->added, &c->lock);
            c->sleeps = false;
        }
        struct check *check = take(c);
        if (!check)
            break;
        pthread_mutex_unlock(&c->lock);
        compute(check);
        linger(c);
        pthread_mutex_lock(&c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

enum status checker_create(struct checker **out, struct error *err)
{
    struct checker *c = mem_alloc(1, sizeof *c);
    if (!c)
        FAIL(err, STATUS_NOMEM, "no memory for the thread that checks payloads");
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->added, NULL);
    int refused = pthread_create(&c->thread, NULL, work, c);
    if (refused) {
        pthread_cond_destroy(&c->added);
        pthread_mutex_destroy(&c->lock);
        mem_free(c);
        FAIL(err, STATUS_INTERNAL, "the system refused a thread that checks payloads (error %d)", refused);
    }
    *out = c;
    return STATUS_OK;
}

void checker_free(struct checker *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->ends = true;
    pthread_cond_signal(&c->added);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    pthread_cond_destroy(&c->added);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

void checker_add(struct checker *c, struct check *check)
{
    atomic_init(&check->done, false);
    check->next = NULL;
    pthread_mutex_lock(&c->lock);
    *(c->tail ? &c->tail->next : &c->head) = check;
    c->tail = check;
    atomic_fetch_add_explicit(&c->waiting, 1, memory_order_relaxed);
    if (c->sleeps)
        pthread_cond_signal(&c->added);
    pthread_mutex_unlock(&c->lock);
}

bool checker_help(struct checker *c)
{
    if (atomic_load_explicit(&c->waiting, memory_order_relaxed) == 0)
        return false;
    pthread_mutex_lock(&c->lock);
    struct check *check = take(c);
    pthread_mutex_unlock(&c->lock);
    if (check)
        compute(check);
    return check != NULL;
}

bool check_done(const struct check *check)
{
    return atomic_load_explicit(&check->done, memory_order_acquire);
}
