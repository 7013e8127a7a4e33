#include "launch/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/threads.h"

enum { BLOCK_BYTES = 1 << 20, TASK_BYTES = 1 << 14, TASKS_MAX = BLOCK_BYTES / TASK_BYTES + 1 };

/* Neighbouring lines, worked on by one thread. */
struct task {
    const char *text;
    size_t size;
    int64_t line; /* number of the first one */
    struct text out;
    enum status status;
    struct error err;
};

struct run {
    const char *name;
    int fd;
    line_fn *fn;
    void *context;
    struct threads *pool;
    struct task *tasks; /* [TASKS_MAX] */
    char *buffer;
    size_t size, capacity; /* bytes that are there; room */
    int64_t line;          /* number of the first line in the buffer */
};

static void work(void *context, int number, int thread)
{
    (void)thread;
    const struct run *run = context;
    struct task *task = &run->tasks[number];
    const char *end = task->text + task->size;
    int64_t line = task->line;
    char where[512];
    task->status = STATUS_OK;
    text_clear(&task->out);
    for (const char *at = task->text; at < end && task->status == STATUS_OK; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((stop ? stop : end) - at), before = task->out.size;
        snprintf(where, sizeof where, "%.480s:%lld", run->name, (long long)line);
        task->status = run->fn(run->context, at, size, where, &task->out, &task->err);
        if (task->status != STATUS_OK)
            task->out.size = before;
        else if (task->out.failed)
            task->status = error_set(&task->err, STATUS_NOMEM, "%s: no memory for the result", where);
        at += size + 1;
    }
}

/* Cuts whole lines into tasks of about TASK_BYTES each. */
static int cut_tasks(struct run *run, size_t size)
{
    int count = 0;
    for (size_t at = 0; at < size; count++) {
        size_t end = at + TASK_BYTES < size && count + 1 < TASKS_MAX ? at + TASK_BYTES : size;
        const char *stop = end < size ? memchr(run->buffer + end, '\n', size - end) : NULL;
        end = stop ? (size_t)(stop - run->buffer) + 1 : size;
        struct task *task = &run->tasks[count];
        task->text = run->buffer + at;
        task->size = end - at;
        task->line = run->line;
        for (const char *p = task->text; (p = memchr(p, '\n', (size_t)(task->text + task->size - p))); p++)
            run->line++;
        at = end;
    }
    return count;
}

static enum status work_off(struct run *run, size_t size, struct error *err)
{
    int count = cut_tasks(run, size);
    threads_run(run->pool, count, work, run);
    for (int i = 0; i < count; i++) {
        const struct task *task = &run->tasks[i];
        if (task->out.size && fwrite(task->out.data, 1, task->out.size, stdout) != task->out.size)
            FAIL(err, STATUS_IO, "cannot write to standard output: %s", strerror(errno));
        if (task->status != STATUS_OK) {
            fflush(stdout);
            return error_set(err, task->status, "%s", task->err.text);
        }
    }
    if (fflush(stdout))
        FAIL(err, STATUS_IO, "cannot write to standard output: %s", strerror(errno));
    memmove(run->buffer, run->buffer + size, run->size - size);
    run->size -= size;
    return STATUS_OK;
}

static enum status run_all(struct run *run, struct error *err)
{
    for (;;) {
        if (run->size == run->capacity) { /* one line fills the buffer */
            char *grown = mem_realloc(run->buffer, run->capacity * 2, 1);
            if (!grown)
                FAIL(err, STATUS_NOMEM, "%s:%lld: no memory for a line of more than %zu bytes", run->name, (long long)run->line,
                     run->capacity);
            run->buffer = grown;
            run->capacity *= 2;
        }
        ssize_t got = read(run->fd, run->buffer + run->size, run->capacity - run->size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            FAIL(err, STATUS_IO, "cannot read '%s': %s", run->name, strerror(errno));
        if (!got)
            return run->size ? work_off(run, run->size, err) : STATUS_OK;
        const char *last = memrchr(run->buffer + run->size, '\n', (size_t)got);
        run->size += (size_t)got;
        if (last)
            TRY(work_off(run, (size_t)(last - run->buffer) + 1, err));
    }
}

enum status lines_run(const char *path, int threads, line_fn *fn, void *context, struct error *err)
{
    bool standard = !path || !strcmp(path, "-");
    struct run run = {.name = standard ? "standard input" : path, .fn = fn, .context = context, .line = 1, .capacity = BLOCK_BYTES,
                      .fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC)};
    if (run.fd < 0)
        FAIL(err, STATUS_DATA, "cannot open '%s': %s", path, strerror(errno));
    run.tasks = mem_alloc(TASKS_MAX, sizeof *run.tasks);
    run.buffer = mem_alloc(run.capacity, 1);
    enum status st = run.tasks && run.buffer ? threads_create(threads, &run.pool, err)
                                             : error_set(err, STATUS_NOMEM, "no memory to read '%s'", run.name);
    if (st == STATUS_OK) {
        st = run_all(&run, err);
        threads_free(run.pool);
    }
    for (int i = 0; run.tasks && i < TASKS_MAX; i++)
        text_free(&run.tasks[i].out);
    mem_free(run.tasks);
    mem_free(run.buffer);
    if (!standard)
        close(run.fd);
    return st;
}
