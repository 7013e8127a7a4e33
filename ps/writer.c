#include "ps/writer.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "common/memory.h"

/* ---- Shadow -------------------------------------------------------------------------------------------------- */

enum { OWED, COPYING, COPIED };

struct shadow {
    struct chunks chunks;
    int arrays; /* values, then states */
    float *copies[1 + SNAPSHOT_MAX_STATES];
    const float *sources[1 + SNAPSHOT_MAX_STATES];
    atomic_uchar *chunk_state; /* [chunks.count] */
    atomic_int copied;         /* chunks in state COPIED */
    atomic_int next;           /* where shadow_copy_next looks first */
};

enum status shadow_create(const struct chunks *chunks, int n_states, struct shadow **out, struct error *err)
{
    *out = NULL;
    if (n_states < 0 || n_states > SNAPSHOT_MAX_STATES)
        FAIL(err, STATUS_INTERNAL, "a shadow of %d optimizer states; at most %d", n_states, SNAPSHOT_MAX_STATES);
    struct shadow *shadow = mem_alloc(1, sizeof *shadow);
    if (!shadow)
        FAIL(err, STATUS_NOMEM, "no memory for the shadow copy");
    shadow->chunks = *chunks;
    shadow->arrays = 1 + n_states;
    shadow->chunk_state = mem_alloc((size_t)chunks->count, sizeof *shadow->chunk_state);
    bool good = shadow->chunk_state;
    for (int i = 0; good && i < shadow->arrays; i++)
        good = (shadow->copies[i] = mem_alloc_aligned((size_t)chunks->values, sizeof(float)));
    if (!good) {
        shadow_free(shadow);
        FAIL(err, STATUS_NOMEM,
             "no memory for the shadow copy of parameters and optimizer states (%d arrays of %.3f GB)", 1 + n_states,
             (double)chunks->values * 4e-9);
    }
    for (int i = 0; i < chunks->count; i++)
        atomic_init(&shadow->chunk_state[i], COPIED);
    atomic_init(&shadow->copied, chunks->count);
    atomic_init(&shadow->next, chunks->count);
    *out = shadow;
    return STATUS_OK;
}

void shadow_free(struct shadow *shadow)
{
    if (!shadow)
        return;
    for (int i = 0; i < shadow->arrays; i++)
        mem_free_aligned(shadow->copies[i]);
    mem_free(shadow->chunk_state);
    mem_free(shadow);
}

void shadow_begin(struct shadow *shadow, const float *values, const float *const *states)
{
    shadow->sources[0] = values;
    for (int i = 1; i < shadow->arrays; i++)
        shadow->sources[i] = states[i - 1];
    atomic_store(&shadow->copied, 0);
    for (int i = 0; i < shadow->chunks.count; i++)
        atomic_store(&shadow->chunk_state[i], OWED);
    atomic_store(&shadow->next, 0);
}

/* True when this call was the one to copy the chunk. */
static bool copy_if_owed(struct shadow *shadow, int chunk)
{
    unsigned char owed = OWED;
    if (!atomic_compare_exchange_strong(&shadow->chunk_state[chunk], &owed, COPYING))
        return false;
    int64_t first = chunk_begin(&shadow->chunks, chunk), size = chunk_size(&shadow->chunks, chunk);
    for (int i = 0; i < shadow->arrays; i++)
        memcpy(shadow->copies[i] + first, shadow->sources[i] + first, (size_t)size * sizeof(float));
    atomic_store(&shadow->chunk_state[chunk], COPIED);
    atomic_fetch_add(&shadow->copied, 1);
    return true;
}

void shadow_copy_chunk(struct shadow *shadow, int chunk)
{
    if (!copy_if_owed(shadow, chunk))
        while (atomic_load(&shadow->chunk_state[chunk]) != COPIED)
            sched_yield(); /* another thread is in the middle of this one chunk: some milliseconds at most */
}

bool shadow_copy_next(struct shadow *shadow)
{
    for (;;) {
        int chunk = atomic_fetch_add(&shadow->next, 1);
        if (chunk >= shadow->chunks.count) {
            atomic_store(&shadow->next, shadow->chunks.count); /* so that it never wraps */
            return false;
        }
        if (copy_if_owed(shadow, chunk))
            return true;
    }
}

void shadow_copy_rest(struct shadow *shadow)
{
    for (int i = 0; i < shadow->chunks.count; i++)
        shadow_copy_chunk(shadow, i);
}

bool shadow_complete(const struct shadow *shadow)
{
    return atomic_load(&((struct shadow *)shadow)->copied) == shadow->chunks.count;
}

const float *shadow_values(const struct shadow *shadow)
{
    return shadow->copies[0];
}

const float *shadow_state(const struct shadow *shadow, int state)
{
    return shadow->copies[1 + state];
}

/* ---- Writer -------------------------------------------------------------------------------------------------- */

struct writer {
    char *dir;
    struct retention retention;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool busy, leave, seen;
    struct snapshot_view view; /* its small parts lie in the arena */
    struct arena arena;
    struct writer_result result;
};

static void write_one(struct writer *writer, struct writer_result *result)
{
    struct error err = {0};
    const struct snapshot_meta *meta = &writer->view.meta;
    *result = (struct writer_result){.any = true, .written.step = meta->step};
    result->status = snapshot_write(writer->dir, &writer->view, &result->written, &err);
    if (result->status == STATUS_OK &&
        retention_prune(&writer->retention, writer->dir, meta->step, meta->best_metric[0] ? meta->best_step : -1,
                        &result->removed, &err) != STATUS_OK)
        error_prefix(&err, "the snapshot was written, but old ones could not be pruned");
    snprintf(result->text, sizeof result->text, "%s", err.text);
}

/* Computing threads wait for each other: an equal third on their cores holds all of them up for as long as it writes.
 * At a tenth of their weight the writer lives on what they leave, and when the server waits for it, they leave all.
 * On Linux 0 means the calling thread; a refusal costs speed, nothing else. */
static void give_way(void)
{
    enum { NICE = 10 };
    setpriority(PRIO_PROCESS, 0, NICE);
}

static void *writer_main(void *context)
{
    struct writer *writer = context;
    give_way();
    pthread_mutex_lock(&writer->mutex);
    for (;;) {
        while (!writer->busy && !writer->leave)
            pthread_cond_wait(&writer->changed, &writer->mutex);
        if (!writer->busy)
            break;
        pthread_mutex_unlock(&writer->mutex);
        struct writer_result result;
        write_one(writer, &result);
        pthread_mutex_lock(&writer->mutex);
        result.number = writer->result.number + 1;
        writer->result = result;
        writer->busy = writer->seen = false;
        pthread_cond_broadcast(&writer->changed);
    }
    pthread_mutex_unlock(&writer->mutex);
    return NULL;
}

enum status writer_create(const char *dir, const struct retention *retention, struct writer **out, struct error *err)
{
    struct writer *writer = mem_alloc(1, sizeof *writer);
    *out = NULL;
    if (!writer || !(writer->dir = mem_strdup(dir))) {
        mem_free(writer);
        FAIL(err, STATUS_NOMEM, "no memory for the snapshot writer");
    }
    writer->retention = *retention;
    writer->seen = true;
    pthread_mutex_init(&writer->mutex, NULL);
    pthread_cond_init(&writer->changed, NULL);
    /* Signals are for the threads that look at the flags. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&writer->thread, NULL, writer_main, writer);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
        pthread_cond_destroy(&writer->changed);
        pthread_mutex_destroy(&writer->mutex);
        mem_free(writer->dir);
        mem_free(writer);
        FAIL(err, STATUS_IO, "cannot start the snapshot writer's thread: %s", strerror(failed));
    }
    *out = writer;
    return STATUS_OK;
}

void writer_free(struct writer *writer)
{
    if (!writer)
        return;
    pthread_mutex_lock(&writer->mutex);
    writer->leave = true;
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->mutex);
    pthread_join(writer->thread, NULL);
    pthread_cond_destroy(&writer->changed);
    pthread_mutex_destroy(&writer->mutex);
    arena_free(&writer->arena);
    mem_free(writer->dir);
    mem_free(writer);
}

/* A copy with a NUL after it, or NULL. */
static char *keep(struct arena *arena, const char *data, size_t size)
{
    char *copy = arena_alloc(arena, size + 1, 1);
    if (copy) {
        if (size)
            memcpy(copy, data, size);
        copy[size] = '\0';
    }
    return copy;
}

static bool keep_texts(struct arena *arena, const struct snapshot_text **texts, int count)
{
    struct snapshot_text *copies = arena_alloc(arena, (size_t)count, sizeof *copies);
    for (int i = 0; copies && i < count; i++) {
        const struct snapshot_text *text = &(*texts)[i];
        copies[i] = (struct snapshot_text){keep(arena, text->name, strlen(text->name)),
                                           keep(arena, text->data, text->size), text->size};
        if (!copies[i].name || !copies[i].data)
            return false;
    }
    *texts = copies;
    return copies != NULL;
}

static bool keep_view(struct arena *arena, struct snapshot_view *view)
{
    for (int i = 0; i < view->n_states; i++)
        if (!(view->states[i].name = keep(arena, view->states[i].name, strlen(view->states[i].name))))
            return false;
    if (view->shards) {
        struct snapshot_shard *shards = arena_alloc(arena, (size_t)view->n_shards, sizeof *shards);
        if (!shards)
            return false;
        memcpy(shards, view->shards, (size_t)view->n_shards * sizeof *shards);
        view->shards = shards;
    }
    return keep_texts(arena, &view->texts, view->n_texts) && keep_texts(arena, &view->files, view->n_files);
}

enum status writer_submit(struct writer *writer, const struct snapshot_view *view, struct error *err)
{
    if (view->n_states > SNAPSHOT_MAX_STATES || writer_busy(writer))
        FAIL(err, STATUS_INTERNAL, "the snapshot writer cannot take step %lld now", (long long)view->meta.step);
    /* The thread is idle and touches nothing. */
    arena_reset(&writer->arena);
    writer->view = *view;
    if (!keep_view(&writer->arena, &writer->view))
        FAIL(err, STATUS_NOMEM, "no memory for the texts of the snapshot of step %lld", (long long)view->meta.step);
    pthread_mutex_lock(&writer->mutex);
    writer->busy = true;
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->mutex);
    return STATUS_OK;
}

bool writer_busy(const struct writer *writer)
{
    struct writer *w = (struct writer *)writer;
    pthread_mutex_lock(&w->mutex);
    bool busy = w->busy;
    pthread_mutex_unlock(&w->mutex);
    return busy;
}

bool writer_poll(struct writer *writer, struct writer_result *out)
{
    pthread_mutex_lock(&writer->mutex);
    *out = writer->result;
    bool fresh = !writer->seen;
    writer->seen = true;
    pthread_mutex_unlock(&writer->mutex);
    return fresh;
}

void writer_wait(struct writer *writer)
{
    pthread_mutex_lock(&writer->mutex);
    while (writer->busy)
        pthread_cond_wait(&writer->changed, &writer->mutex);
    pthread_mutex_unlock(&writer->mutex);
}
