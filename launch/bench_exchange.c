/* `loar bench exchange`, to be started with mpirun: how much of MPI's own rate the exchange of chunks reaches, how much a
 * step with many ranks on few cores costs beyond its computation, and how little a waiting rank uses. All ratios are
 * taken in one run, with both sides of each ratio in turn.
 * Must not know: models, the server. */
#include "launch/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "common/checksum.h"
#include "common/memory.h"
#include "common/threads.h"
#include "common/timing.h"
#include "proto/exchange.h"
#include "proto/transport_mpi.h"
#include "proto/wait.h"

enum {
    CREDITS = 8,
    LARGEST_CHUNK = 4 << 20, /* as in training: larger payloads are several chunks */
    WAIT_LIMIT_MS = 120000,
    COMPUTE_MS = 20, MOVE_BYTES = 4 << 20, MOVE_CHUNK = 1 << 20, MOVE_CHUNKS = MOVE_BYTES / MOVE_CHUNK,
    MAX_ROUNDS = 300, MAX_COUNT = 64,
};

struct bench {
    struct transport *transport;
    int rank, size;
    struct outbox outbox;
    struct inbox inbox;
    struct checker *checker;
    struct arena arena;
    unsigned char *place; /* where chunk c of rank r goes: place + r * rank_bytes + c * chunk_bytes */
    size_t rank_bytes, chunk_bytes;
    int alive, arrived; /* sign-of-life frames and checked payloads since they were last set to 0 */
};

static enum status take_frame(struct bench *b, const struct arrival *frame, struct error *err)
{
    struct message m;
    arena_reset(&b->arena);
    TRY(frame_decode(frame->bytes, frame->size, frame->source, &b->arena, &m, err));
    if (m.kind == MESSAGE_CHUNK)
        return inbox_expect(&b->inbox, frame->source, &m.chunk,
                            b->place + (size_t)frame->source * b->rank_bytes + (size_t)m.chunk.chunk * b->chunk_bytes, err);
    b->alive++;
    return STATUS_OK;
}

/* Everything that can be done without waiting. */
static enum status turn(struct bench *b, bool *active, struct error *err)
{
    struct parcel parcel;
    *active = false;
    for (bool more = true; more;) {
        struct arrival frame;
        TRY(transport_poll(b->transport, &frame, &more, err));
        if (more)
            TRY(take_frame(b, &frame, err));
        *active = *active || more;
    }
    for (bool more = true; more;) {
        TRY(inbox_collect(&b->inbox, &parcel, &more, err));
        b->arrived += more;
        *active = *active || more;
    }
    while (outbox_collect(&b->outbox, &parcel))
        *active = true;
    return STATUS_OK;
}

/* Until so many frames and payloads have come and, if `all_left`, everything offered has left. */
static enum status await(struct bench *b, int alive, int arrived, bool all_left, struct error *err)
{
    struct wait wait;
    wait_begin(&wait, "the other ranks of the bench", WAIT_LIMIT_MS, NULL, NULL);
    for (;;) {
        bool active;
        TRY(turn(b, &active, err));
        if (b->alive >= alive && b->arrived >= arrived && (!all_left || b->outbox.count == 0))
            return STATUS_OK;
        if (active)
            continue;
        TRY(wait_check(&wait, err));
        transport_idle(b->transport, b->outbox.count > 0 || inbox_is_busy(&b->inbox));
    }
}

static enum status wave(struct bench *b, int to, struct error *err)
{
    return frame_post(b->transport, to, &(struct message){.kind = MESSAGE_ALIVE}, err);
}

/* The first `ranks` ranks come together; rank 0 leaves first, by one frame. The others go on. */
static enum status meet_of(struct bench *b, int ranks, struct error *err)
{
    if (b->rank >= ranks)
        return STATUS_OK;
    if (b->rank != 0) {
        TRY(wave(b, 0, err));
        TRY(await(b, 1, 0, true, err));
        b->alive--;
        return STATUS_OK;
    }
    TRY(await(b, ranks - 1, 0, true, err));
    b->alive -= ranks - 1;
    for (int r = 1; r < ranks; r++)
        TRY(wave(b, r, err));
    return STATUS_OK;
}

static enum status meet(struct bench *b, struct error *err)
{
    return meet_of(b, b->size, err);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct spread {
    double best, median;
};

static struct spread spread_of(double *seconds, int count)
{
    qsort(seconds, (size_t)count, sizeof *seconds, compare);
    return (struct spread){seconds[0], seconds[count / 2]};
}

/* Rank 1 -> rank 0, `total` bytes in chunks. */
static enum status push(struct bench *b, unsigned char *data, size_t total, size_t bytes, struct error *err)
{
    int count = (int)(total / bytes);
    if (b->rank == 0) {
        TRY(await(b, 0, count, true, err));
        b->arrived -= count;
        return STATUS_OK;
    }
    for (int c = 0; c < count; c++) {
        bool active;
        struct message_chunk chunk = {.what = CHUNK_GRADIENT, .chunk = c};
        TRY(outbox_announce(&b->outbox, 0, &chunk, data + (size_t)c * bytes, bytes, NULL, NULL, err));
        TRY(turn(b, &active, err));
    }
    return await(b, 0, 0, true, err);
}

static enum status push_raw(struct bench *b, unsigned char *data, int count, size_t bytes, struct error *err)
{
    void *places[MAX_COUNT];
    for (int c = 0; c < count; c++)
        places[c] = data + (size_t)c * bytes;
    return transport_mpi_raw_exchange(b->transport, 1 - b->rank, b->rank == 0 ? places : NULL,
                                      b->rank == 0 ? NULL : (const void *const *)places, count, bytes, err);
}

/* One row of the table; the two ways take turns. Ranks from 2 on wait for its end, as idle workers do. */
static enum status rate_row(struct bench *b, unsigned char *data, size_t bytes, int count, int rounds, struct error *err)
{
    double raw[MAX_ROUNDS], ours[MAX_ROUNDS];
    size_t total = bytes * (size_t)count, chunk = bytes < LARGEST_CHUNK ? bytes : LARGEST_CHUNK;
    b->place = data;
    b->chunk_bytes = chunk;
    b->rank_bytes = 0;
    for (int i = -1; i < rounds && b->rank < 2; i++) { /* the first one warms up */
        double began;
        TRY(meet_of(b, 2, err));
        began = time_seconds();
        TRY(push_raw(b, data, count, bytes, err));
        if (i >= 0)
            raw[i] = time_seconds() - began;
        TRY(meet_of(b, 2, err));
        began = time_seconds();
        TRY(push(b, data, total, chunk, err));
        if (i >= 0)
            ours[i] = time_seconds() - began;
    }
    TRY(meet(b, err));
    if (b->rank != 0)
        return STATUS_OK;
    struct spread r = spread_of(raw, rounds), o = spread_of(ours, rounds);
    double megabytes = (double)total / 1e6;
    printf("%6zu KiB x %2d   MPI %6.0f (%6.0f) MB/s   in chunks of %4zu KiB %6.0f (%6.0f) MB/s   share %.2f (%.2f)\n",
           bytes / 1024, count, megabytes / r.best, megabytes / r.median, chunk / 1024, megabytes / o.best, megabytes / o.median,
           r.best / o.best, r.median / o.median);
    fflush(stdout);
    return STATUS_OK;
}

static enum status rate_table(struct bench *b, struct error *err)
{
    static const struct {
        size_t bytes;
        int count, rounds;
    } rows[] = {
        {64 << 10, 64, 300}, {256 << 10, 64, 200}, {1 << 20, 64, 80}, {4 << 20, 16, 80}, {16 << 20, 4, 80}, {64 << 20, 2, 40},
    };
    enum status st = STATUS_OK;
    unsigned char *data = NULL;
    if (b->rank < 2 && !(data = mem_alloc_aligned(128 << 20, 1)))
        FAIL(err, STATUS_NOMEM, "no memory for payloads of 128 MiB");
    if (b->rank == 0)
        printf("rate from rank 1 to rank 0, best (and median) of the rounds: MPI_Isend, MPI_Irecv, MPI_Waitall of plain bytes; the "
               "same bytes\nannounced, asked for and checked on both sides\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && st == STATUS_OK; i++)
        st = rate_row(b, data, rows[i].bytes, rows[i].count, rows[i].rounds, err);
    mem_free_aligned(data);
    return st;
}

static double thread_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Uses the processor, not the clock on the wall, for so long. */
static void compute(double ms)
{
    volatile double sink = 1;
    double end = thread_seconds() + ms / 1e3;
    while (thread_seconds() < end)
        for (int i = 0; i < 2000; i++)
            sink = sink * 1.0000001 + 1e-9;
}

/* A worker's step: parts of the gradient are announced while the rest is still being computed; it ends with all the
 * parameters. */
static enum status worker_step(struct bench *b, const unsigned char *gradient, bool exchange, struct error *err)
{
    for (int c = 0; c < MOVE_CHUNKS; c++) {
        bool active;
        struct message_chunk chunk = {.what = CHUNK_GRADIENT, .chunk = c};
        compute((double)COMPUTE_MS / MOVE_CHUNKS);
        if (!exchange)
            continue;
        TRY(outbox_announce(&b->outbox, 0, &chunk, gradient + (size_t)c * MOVE_CHUNK, MOVE_CHUNK, NULL, NULL, err));
        TRY(turn(b, &active, err));
    }
    if (exchange)
        TRY(await(b, 0, MOVE_CHUNKS, true, err));
    b->arrived = 0;
    return STATUS_OK;
}

/* The server's part: takes all gradients in and hands the parameters out; adds up nothing, as the plain exchange is meant. */
static enum status server_step(struct bench *b, const unsigned char *parameters, struct error *err)
{
    TRY(await(b, 0, MOVE_CHUNKS * (b->size - 1), true, err));
    b->arrived = 0;
    for (int c = 0; c < MOVE_CHUNKS; c++) {
        const unsigned char *at = parameters + (size_t)c * MOVE_CHUNK;
        struct message_chunk chunk = {.what = CHUNK_PARAMETERS, .chunk = c};
        uint32_t crc = crc32c(at, MOVE_CHUNK);
        for (int r = 1; r < b->size; r++)
            TRY(outbox_announce(&b->outbox, r, &chunk, at, MOVE_CHUNK, &crc, NULL, err));
    }
    return STATUS_OK;
}

static enum status timed_step(struct bench *b, unsigned char *out, bool exchange, double *seconds, struct error *err)
{
    TRY(meet(b, err));
    double began = time_seconds();
    if (b->rank != 0)
        TRY(worker_step(b, out, exchange, err));
    else if (exchange)
        TRY(server_step(b, out, err));
    TRY(meet(b, err));
    *seconds = time_seconds() - began;
    return STATUS_OK;
}

static enum status crowd(struct bench *b, struct error *err)
{
    enum { ROUNDS = 20 };
    double pure[ROUNDS], full[ROUNDS], warm;
    unsigned char *out = mem_alloc_aligned(MOVE_BYTES, 1);
    unsigned char *in = mem_alloc_aligned((size_t)MOVE_BYTES * (size_t)(b->rank == 0 ? b->size : 1), 1);
    enum status st = out && in ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for the payloads of %d ranks", b->size);
    b->place = in;
    b->rank_bytes = b->rank == 0 ? MOVE_BYTES : 0;
    b->chunk_bytes = MOVE_CHUNK;
    if (st == STATUS_OK)
        st = timed_step(b, out, true, &warm, err);
    for (int i = 0; i < ROUNDS && st == STATUS_OK; i++) {
        st = timed_step(b, out, false, &pure[i], err);
        if (st == STATUS_OK)
            st = timed_step(b, out, true, &full[i], err);
    }
    mem_free_aligned(out);
    mem_free_aligned(in);
    if (st != STATUS_OK || b->rank != 0)
        return st;
    struct spread p = spread_of(pure, ROUNDS), f = spread_of(full, ROUNDS);
    printf("\nstep of %d ranks on %d cores, %d ms of computation per worker, %d MiB each way in chunks of %d MiB\n", b->size,
           threads_cores(), COMPUTE_MS, MOVE_BYTES >> 20, MOVE_CHUNK >> 20);
    printf("    computation alone %.1f ms (median %.1f)   with exchange %.1f ms (median %.1f)   ratio %.2f (median %.2f)\n",
           p.best * 1e3, p.median * 1e3, f.best * 1e3, f.median * 1e3, f.best / p.best, f.median / p.median);
    return STATUS_OK;
}

static double used_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* Rank 1 waits while rank 0 keeps it waiting: first for a frame, then for an offer to be taken up. */
static enum status patience(struct bench *b, unsigned char *chunk, bool offers, struct error *err)
{
    enum { SECONDS = 3 };
    struct message_chunk what = {.what = CHUNK_GRADIENT};
    TRY(meet(b, err));
    if (b->rank == 0) {
        nanosleep(&(struct timespec){.tv_sec = SECONDS}, NULL);
        for (int r = 1; r < b->size; r++)
            TRY(wave(b, r, err));
        TRY(await(b, 0, offers ? 1 : 0, true, err));
    } else {
        double began = time_seconds(), used = used_seconds();
        if (offers && b->rank == 1)
            TRY(outbox_announce(&b->outbox, 0, &what, chunk, MOVE_CHUNK, NULL, NULL, err));
        TRY(await(b, 1, 0, true, err));
        b->alive--;
        double share = (used_seconds() - used) / (time_seconds() - began);
        if (b->rank == 1)
            printf("    rank 1, waiting for %s: %.2f %% of a core over %.1f s\n",
                   offers ? "its offer to be taken up" : "word from rank 0", share * 100, time_seconds() - began);
        fflush(stdout);
    }
    b->arrived = 0;
    return meet(b, err);
}

static enum status bench_all(struct bench *b, struct error *err)
{
    unsigned char *chunk = mem_alloc_aligned(MOVE_CHUNK, 1);
    if (!chunk)
        FAIL(err, STATUS_NOMEM, "no memory for a chunk");
    enum status st = rate_table(b, err);
    if (st == STATUS_OK && b->size > 2)
        st = crowd(b, err);
    b->place = chunk;
    b->rank_bytes = b->chunk_bytes = 0;
    if (st == STATUS_OK && b->rank == 0) {
        printf("\nwaiting\n");
        fflush(stdout);
    }
    if (st == STATUS_OK)
        st = patience(b, chunk, false, err);
    if (st == STATUS_OK)
        st = patience(b, chunk, true, err);
    mem_free_aligned(chunk);
    return st;
}

static const char usage[] =
    "usage: mpirun -n RANKS loar bench exchange\n"
    "\n"
    "Measures the exchange between ranks: share of MPI's own rate by size of the chunks; with more than two ranks, what a\n"
    "step costs beyond its computation; and what a waiting rank uses.\n";

int bench_exchange(int argc, char **argv)
{
    struct error err = {0};
    struct bench b = {0};
    if (argc > 1) {
        bool help = !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h");
        fputs(usage, help ? stdout : stderr);
        return help ? 0 : status_exit_code(STATUS_USAGE);
    }
    enum status st = transport_mpi_create(&argc, &argv, &b.transport, &err);
    if (st == STATUS_OK) {
        b.rank = transport_rank(b.transport);
        b.size = transport_size(b.transport);
        outbox_init(&b.outbox, b.transport);
        st = b.size > 1 ? checker_create(&b.checker, &err)
                        : error_set(&err, STATUS_USAGE, "needs two ranks or more: mpirun -n 2 loar bench exchange");
        inbox_init(&b.inbox, b.transport, b.checker, CREDITS);
        if (st == STATUS_OK)
            st = bench_all(&b, &err);
    }
    if (st != STATUS_OK) {
        fprintf(stderr, "loar bench exchange: %s\n", err.text);
        if (b.size > 1)
            transport_abort(b.transport, status_exit_code(st));
    }
    transport_free(b.transport);
    outbox_free(&b.outbox);
    inbox_free(&b.inbox);
    checker_free(b.checker);
    arena_free(&b.arena);
    return status_exit_code(st);
}
