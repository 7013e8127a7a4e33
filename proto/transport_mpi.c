#include "proto/transport_mpi.h"

#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/timing.h"
#include "proto/launcher.h"
#include "proto/transport_ops.h"

enum {
    INLINE_BYTES = 256,     /* most frames are shorter */
    FRAME_TAG = 0,
    FLUSH_MS = 10000,       /* for posted frames to leave: orderly */
    FLUSH_FAILED_MS = 1000, /* ... and after a failure */
    FINALIZE_S = 30,        /* MPI_Finalize waits for everybody; a rank may have died since it said goodbye */
    FINALIZE_EXIT = 5,
    BATCH = 64,
    TIMER_SLACK_NS = 5000, /* the kernel adds 50 us to every sleep otherwise */
};

struct mpi_transfer {
    struct transfer base;
    struct mpi_transfer *next_free;
    bool posted; /* a copied frame: nobody holds the handle */
    bool receives;
    int peer;
    uint32_t tag;
    size_t bytes;
    void *copy; /* of a longer frame, else NULL */
    unsigned char small[INLINE_BYTES];
};

struct mpi {
    struct transport base;
    MPI_Comm frames, payloads;
    MPI_Request *requests; /* [count] what is under way */
    struct mpi_transfer **owners; /* [count] */
    int count, capacity;
    struct mpi_transfer *unused;
    unsigned char *buffer; /* the frame that arrived last, or is arriving */
    size_t buffer_size;
    bool arriving;
    MPI_Request arrival;
    MPI_Status arrival_status;
};

static enum status fail(struct error *err, int code, const char *what, int peer)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length;
    MPI_Error_string(code, text, &length);
    FAIL(err, STATUS_PEER, "%s rank %d: %s", what, peer, text);
}

/* Room for one more request. */
static enum status reserve(struct mpi *m, struct error *err)
{
    if (m->count < m->capacity)
        return STATUS_OK;
    int capacity = m->capacity ? m->capacity * 2 : 64;
    MPI_Request *requests = mem_realloc(m->requests, (size_t)capacity, sizeof *requests);
    if (requests)
        m->requests = requests;
    struct mpi_transfer **owners = requests ? mem_realloc(m->owners, (size_t)capacity, sizeof *owners) : NULL;
    if (!owners)
        FAIL(err, STATUS_NOMEM, "no memory for %d transfers", capacity);
    m->owners = owners;
    m->capacity = capacity;
    return STATUS_OK;
}

/* NULL when memory is short; room for its request is reserved. */
static struct mpi_transfer *transfer_new(struct mpi *m, int peer, uint32_t tag, size_t bytes, struct error *err)
{
    struct mpi_transfer *x = m->unused;
    if (reserve(m, err) != STATUS_OK)
        return NULL;
    if (x) {
        m->unused = x->next_free;
    } else if (!(x = mem_alloc(1, sizeof *x))) {
        error_set(err, STATUS_NOMEM, "no memory for a transfer of %zu bytes with rank %d", bytes, peer);
        return NULL;
    }
    x->base.done = x->posted = x->receives = false;
    x->copy = NULL;
    x->peer = peer;
    x->tag = tag;
    x->bytes = bytes;
    return x;
}

static void transfer_give(struct mpi *m, struct mpi_transfer *x)
{
    mem_free(x->copy);
    x->copy = NULL;
    x->next_free = m->unused;
    m->unused = x;
}

/* Keeps the request that was just started. */
static enum status track(struct mpi *m, struct mpi_transfer *x, int code, MPI_Request request, const char *what,
                         struct error *err)
{
    if (code != MPI_SUCCESS) {
        int peer = x->peer;
        transfer_give(m, x);
        return fail(err, code, what, peer);
    }
    m->requests[m->count] = request;
    m->owners[m->count++] = x;
    return STATUS_OK;
}

static enum status mpi_post(struct transport *t, int dest, const void *bytes, size_t size, struct transfer **out,
                            struct error *err)
{
    struct mpi *m = (struct mpi *)t;
    struct mpi_transfer *x = transfer_new(m, dest, FRAME_TAG, size, err);
    MPI_Request request;
    if (!x)
        return STATUS_NOMEM;
    const void *from = bytes;
    if (!out) {
        if (size > INLINE_BYTES && !(x->copy = mem_alloc(size, 1))) {
            transfer_give(m, x);
            FAIL(err, STATUS_NOMEM, "no memory for a frame of %zu bytes to rank %d", size, dest);
        }
        x->posted = true;
        from = memcpy(x->copy ? x->copy : x->small, bytes, size);
    }
    int code = MPI_Isend(from, (int)size, MPI_BYTE, dest, FRAME_TAG, m->frames, &request);
    TRY(track(m, x, code, request, "sending a frame to", err));
    if (out)
        *out = &x->base;
    return STATUS_OK;
}

static enum status mpi_send(struct transport *t, int dest, uint32_t tag, const void *data, size_t bytes,
                            struct transfer **out, struct error *err)
{
    struct mpi *m = (struct mpi *)t;
    struct mpi_transfer *x = transfer_new(m, dest, tag, bytes, err);
    MPI_Request request;
    if (!x)
        return STATUS_NOMEM;
    int code = MPI_Isend(data, (int)bytes, MPI_BYTE, dest, (int)tag, m->payloads, &request);
    TRY(track(m, x, code, request, "offering a payload to", err));
    *out = &x->base;
    return STATUS_OK;
}

static enum status mpi_receive(struct transport *t, int source, uint32_t tag, void *data, size_t bytes,
                               struct transfer **out, struct error *err)
{
    struct mpi *m = (struct mpi *)t;
    struct mpi_transfer *x = transfer_new(m, source, tag, bytes, err);
    MPI_Request request;
    if (!x)
        return STATUS_NOMEM;
    x->receives = true;
    int code = MPI_Irecv(data, (int)bytes, MPI_BYTE, source, (int)tag, m->payloads, &request);
    TRY(track(m, x, code, request, "asking for a payload from", err));
    *out = &x->base;
    return STATUS_OK;
}

static enum status complete(struct mpi *m, struct mpi_transfer *x, const MPI_Status *status, bool failed, struct error *err)
{
    if (failed && status->MPI_ERROR != MPI_SUCCESS)
        return fail(err, status->MPI_ERROR, x->receives ? "receiving a payload from" : "sending to", x->peer);
    int got = (int)x->bytes;
    if (x->receives)
        MPI_Get_count(status, MPI_BYTE, &got);
    if ((size_t)got != x->bytes)
        FAIL(err, STATUS_PEER, "rank %d sent a payload of %d bytes (tag %u) where %zu were announced", x->peer, got, x->tag,
             x->bytes);
    m->base.progressed = true;
    if (x->posted)
        transfer_give(m, x);
    else
        x->base.done = true;
    return STATUS_OK;
}

/* Marks what has been completed, BATCH requests of the table at a time, from its end, as the last one fills each gap. */
static enum status progress(struct mpi *m, struct error *err)
{
    int indices[BATCH];
    MPI_Status statuses[BATCH];
    enum status st = STATUS_OK;
    for (int end = m->count; end > 0 && st == STATUS_OK;) {
        int begin = end > BATCH ? end - BATCH : 0, n;
        int code = MPI_Testsome(end - begin, m->requests + begin, &n, indices, statuses);
        if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS)
            return fail(err, code, "testing transfers of", m->base.rank);
        bool gone[BATCH] = {false};
        for (int i = 0; n != MPI_UNDEFINED && i < n; i++) {
            enum status one = complete(m, m->owners[begin + indices[i]], &statuses[i], code == MPI_ERR_IN_STATUS,
                                       st == STATUS_OK ? err : NULL);
            st = st == STATUS_OK ? one : st;
            gone[indices[i]] = true;
        }
        for (int i = end - begin - 1; i >= 0; i--)
            if (gone[i]) {
                m->requests[begin + i] = m->requests[--m->count];
                m->owners[begin + i] = m->owners[m->count];
            }
        end = begin;
    }
    return st;
}

/* Starts to take the next frame in, if one is there. */
static enum status probe(struct mpi *m, struct error *err)
{
    int flag, size;
    MPI_Message message;
    MPI_Status status;
    int code = MPI_Improbe(MPI_ANY_SOURCE, FRAME_TAG, m->frames, &flag, &message, &status);
    if (code != MPI_SUCCESS)
        return fail(err, code, "looking for frames at", m->base.rank);
    if (!flag)
        return STATUS_OK;
    MPI_Get_count(&status, MPI_BYTE, &size);
    if (size < 0 || size > TRANSPORT_MAX_BYTES)
        FAIL(err, STATUS_PEER, "rank %d sent a frame of %d bytes; the limit is %d", status.MPI_SOURCE, size, TRANSPORT_MAX_BYTES);
    if ((size_t)size > m->buffer_size) {
        unsigned char *larger = mem_realloc(m->buffer, (size_t)size, 1);
        if (!larger)
            FAIL(err, STATUS_NOMEM, "no memory for a frame of %d bytes from rank %d", size, status.MPI_SOURCE);
        m->buffer = larger;
        m->buffer_size = (size_t)size;
    }
    code = MPI_Imrecv(m->buffer, size, MPI_BYTE, &message, &m->arrival);
    if (code != MPI_SUCCESS)
        return fail(err, code, "receiving a frame from", status.MPI_SOURCE);
    m->arriving = true;
    return STATUS_OK;
}

static enum status mpi_poll(struct transport *t, struct arrival *out, bool *arrived, struct error *err)
{
    struct mpi *m = (struct mpi *)t;
    if (!m->arriving)
        TRY(probe(m, err));
    if (m->arriving) {
        int flag;
        int code = MPI_Test(&m->arrival, &flag, &m->arrival_status);
        if (code != MPI_SUCCESS)
            return fail(err, code, "receiving a frame from", m->arrival_status.MPI_SOURCE);
        if (flag) {
            int size;
            MPI_Get_count(&m->arrival_status, MPI_BYTE, &size);
            m->arriving = false;
            *out = (struct arrival){m->buffer, (size_t)size, m->arrival_status.MPI_SOURCE};
            *arrived = true;
            return STATUS_OK; /* the table is looked through once the frames are taken in */
        }
    }
    return progress(m, err);
}

static void mpi_release(struct transport *t, struct transfer *transfer)
{
    transfer_give((struct mpi *)t, (struct mpi_transfer *)transfer);
}

static void mpi_sleep(struct transport *t, long us)
{
    (void)t;
    nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
}

/* Lets posted frames out; true when none is left. */
static bool flush(struct mpi *m, int64_t limit_ms)
{
    int64_t began = time_ms();
    for (;;) {
        int posted = 0;
        if (progress(m, NULL) != STATUS_OK)
            return false;
        for (int i = 0; i < m->count; i++)
            posted += m->owners[i]->posted;
        if (!posted)
            return true;
        if (time_ms() - began > limit_ms)
            return false;
        mpi_sleep(&m->base, 200);
    }
}

static void finalize_took_too_long(int signal_number)
{
    static const char text[] = "MPI_Finalize did not come back: another rank died after saying goodbye\n";
    (void)signal_number;
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
    _exit(FINALIZE_EXIT);
}

static void mpi_free(struct mpi *m)
{
    for (struct mpi_transfer *x = m->unused, *next; x; x = next) {
        next = x->next_free;
        mem_free(x);
    }
    mem_free(m->requests);
    mem_free(m->owners);
    mem_free(m->buffer);
    mem_free(m);
}

static void mpi_close(struct transport *t, bool orderly)
{
    struct mpi *m = (struct mpi *)t;
    if (flush(m, orderly ? FLUSH_MS : FLUSH_FAILED_MS) && orderly) {
        struct sigaction action = {.sa_handler = finalize_took_too_long};
        sigaction(SIGALRM, &action, NULL);
        alarm(FINALIZE_S);
        MPI_Comm_free(&m->frames);
        MPI_Comm_free(&m->payloads);
        MPI_Finalize();
        alarm(0);
        mpi_free(m);
        return;
    }
    /* MPI may still read and write what is under way, so that memory stays. */
    if (m->count == 0 && !m->arriving)
        mpi_free(m);
}

static void mpi_abort(struct transport *t, int exit_code)
{
    (void)t;
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}

static const struct transport_ops mpi_ops = {
    .post = mpi_post, .send = mpi_send, .receive = mpi_receive, .poll = mpi_poll, .release = mpi_release,
    .sleep = mpi_sleep, .close = mpi_close, .abort = mpi_abort,
};

static const char *from_environment(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

/* The world is running: errors come back as codes from here on, frames and payloads get a communicator each. */
static enum status join(struct mpi *m, struct error *err)
{
    int *tags, found;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &m->base.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &m->base.size);
    TRY(launcher_check(m->base.size, from_environment, NULL, err));
    int code = MPI_Comm_dup(MPI_COMM_WORLD, &m->frames);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_dup(MPI_COMM_WORLD, &m->payloads);
    if (code != MPI_SUCCESS)
        return fail(err, code, "joining the world as", m->base.rank);
    MPI_Comm_get_attr(m->payloads, MPI_TAG_UB, &tags, &found);
    if (!found || *tags < TRANSPORT_TAGS - 1)
        FAIL(err, STATUS_INTERNAL, "this MPI has tags up to %d only, %d are needed", found ? *tags : 0, TRANSPORT_TAGS - 1);
    return STATUS_OK;
}

enum status transport_mpi_create(int *argc, char ***argv, struct transport **out, struct error *err)
{
    int running = 0, level;
    MPI_Initialized(&running);
    if (running)
        FAIL(err, STATUS_INTERNAL, "MPI can be started only once in a process");
    struct mpi *m = mem_alloc(1, sizeof *m);
    if (!m)
        FAIL(err, STATUS_NOMEM, "no memory for the transport");
    m->base.ops = &mpi_ops;
    int code = MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &level);
    enum status st;
    if (code != MPI_SUCCESS)
        st = fail(err, code, "starting MPI as", -1);
    else
        st = level < MPI_THREAD_FUNNELED ? error_set(err, STATUS_INTERNAL, "this MPI allows no threads at all") : join(m, err);
    if (st != STATUS_OK) {
        mem_free(m);
        return st;
    }
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0); /* advice only: refused, sleeps are a little longer */
    *out = &m->base;
    return STATUS_OK;
}

enum status transport_mpi_raw_exchange(struct transport *t, int peer, void *const *in, const void *const *out, int count,
                                       size_t bytes, struct error *err)
{
    struct mpi *m = (struct mpi *)t;
    MPI_Request *requests = mem_alloc((size_t)count, sizeof *requests);
    MPI_Status *statuses = mem_alloc((size_t)count, sizeof *statuses);
    if (!requests || !statuses) {
        mem_free(requests);
        mem_free(statuses);
        FAIL(err, STATUS_NOMEM, "no memory for %d requests", count);
    }
    int code = MPI_SUCCESS, started = 0;
    for (; started < count && code == MPI_SUCCESS; started++)
        code = in ? MPI_Irecv(in[started], (int)bytes, MPI_BYTE, peer, started, m->payloads, &requests[started])
                  : MPI_Isend(out[started], (int)bytes, MPI_BYTE, peer, started, m->payloads, &requests[started]);
    if (code == MPI_SUCCESS)
        code = MPI_Waitall(count, requests, statuses);
    mem_free(requests);
    mem_free(statuses);
    return code == MPI_SUCCESS ? STATUS_OK : fail(err, code, "exchanging with", peer);
}

void transport_mpi_library(struct text *out)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int size = 0;
    if (MPI_Get_library_version(version, &size) != MPI_SUCCESS)
        return;
    char *end = version + strcspn(version, "\n");
    *end = '\0';
    for (char *at = version; *at; at++) /* MPICH puts tabs between its words */
        if (*at == '\t')
            *at = ' ';
    text_puts(out, version);
}
