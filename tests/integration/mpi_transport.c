/* Ranks as processes: run by mpirun with 1, 2, 4, 7 and 16 of them, usually more than there are cores. Frames keep their
 * order, payloads go straight to their place however late they are asked for, waiting costs next to nothing, and whoever
 * fails takes the job down with it.
 * usage: mpirun -n N mpi_transport [abort|die|lie] */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/rng.h"
#include "common/timing.h"
#include "proto/exchange.h"
#include "proto/frame.h"
#include "proto/transport_mpi.h"
#include "proto/wait.h"

enum { FRAMES = 60, LONGEST_FRAME = 100000, NEIGHBOURS = 3, PAYLOADS = 12, LONGEST_PAYLOAD = 3 << 20, LIMIT_MS = 120000 };

static struct transport *t;
static int rank, size;
static struct error err;

static void give_up(const char *what, int line)
{
    fprintf(stderr, "rank %d, line %d: %s: %s\n", rank, line, what, err.text);
    if (t)
        transport_abort(t, 1);
    exit(1);
}

#define demand(truth)                    \
    do {                                 \
        if (!(truth))                    \
            give_up(#truth, __LINE__);   \
    } while (0)
#define must(expr) demand((expr) == STATUS_OK)

/* Frames of the next part of the test that came while this rank was still in the last one. */
static struct arrival early[4096];
static int n_early, n_mets;

static bool is_met(const struct arrival *frame)
{
    return frame->size == 4 && !memcmp(frame->bytes, "met", 4);
}

/* Polls once; idles when there was nothing. */
static bool poll_once(struct arrival *out, bool moving)
{
    bool arrived;
    must(transport_poll(t, out, &arrived, &err));
    if (!arrived)
        transport_idle(t, moving);
    if (!arrived || !is_met(out))
        return arrived;
    n_mets++;
    return false;
}

/* The next frame but for those of meet(); its bytes stay until the next call. */
static bool next(struct arrival *out, bool moving)
{
    static void *last;
    mem_free(last);
    last = NULL;
    if (n_early == 0)
        return poll_once(out, moving);
    *out = early[0];
    last = (void *)out->bytes;
    memmove(early, early + 1, (size_t)--n_early * sizeof *early);
    return true;
}

static void await_mets(int count)
{
    struct arrival frame;
    struct wait wait;
    wait_begin(&wait, "all ranks to meet", LIMIT_MS, NULL, NULL);
    while (n_mets < count) {
        if (poll_once(&frame, false)) {
            void *copy = mem_alloc(frame.size, 1);
            demand(copy != NULL && n_early < (int)(sizeof early / sizeof early[0]));
            early[n_early] = frame;
            early[n_early++].bytes = memcpy(copy, frame.bytes, frame.size);
        }
        must(wait_check(&wait, &err));
    }
    n_mets -= count;
}

/* Everybody tells rank 0, which then tells everybody; no collective calls. */
static void meet(void)
{
    if (rank != 0)
        must(transport_post(t, 0, "met", 4, &err));
    await_mets(rank == 0 ? size - 1 : 1); /* nobody, when alone */
    for (int r = 1; rank == 0 && r < size; r++)
        must(transport_post(t, r, "met", 4, &err));
}

static size_t frame_size(int from, int to, int i)
{
    size_t wanted = 8 + rng_u64(1, (uint64_t)(from * 64 + to), (uint64_t)i) % LONGEST_FRAME;
    return i % 5 ? wanted % 300 + 8 : wanted;
}

static void all_to_all_frames(void)
{
    static unsigned char bytes[8 + LONGEST_FRAME];
    int counts[64] = {0}, awaited = (size - 1) * FRAMES;
    struct arrival frame;
    for (int i = 0; i < FRAMES; i++)
        for (int to = 0; to < size; to++) {
            if (to == rank)
                continue;
            size_t n = frame_size(rank, to, i);
            memset(bytes, i, n);
            must(transport_post(t, to, bytes, n, &err));
            memset(bytes, 0xFF, n); /* ours again at once */
        }
    while (awaited > 0) {
        if (!next(&frame, false))
            continue;
        int i = counts[frame.source]++;
        demand(frame.size == frame_size(frame.source, rank, i));
        for (size_t k = 0; k < frame.size; k++)
            demand(((const unsigned char *)frame.bytes)[k] == (unsigned char)i);
        awaited--;
    }
}

/* Frames whose payload is sent from where it lies, too long to travel eagerly. */
static void frames_in_place(void)
{
    enum { BYTES = 2 << 20 };
    unsigned char *place = mem_alloc(FRAME_ROOM + BYTES, 1);
    struct transfer *sent = NULL;
    struct arena arena = {0};
    struct message m = {.kind = MESSAGE_TEXT, .text = {.step = 7, .payload_size = BYTES}}, back;
    struct arrival frame;
    demand(place != NULL);
    memset(place + FRAME_ROOM, rank + 1, BYTES);
    must(frame_send(t, (rank + 1) % size, &m, place + FRAME_ROOM, &sent, &err));
    for (bool got = false, left = false; !got || !left;) {
        if (next(&frame, true)) {
            must(frame_decode(frame.bytes, frame.size, frame.source, &arena, &back, &err));
            demand(frame.source == (rank + size - 1) % size && back.text.payload_size == BYTES && back.text.step == 7);
            for (size_t k = 0; k < BYTES; k++)
                demand(((const unsigned char *)back.text.payload)[k] == frame.source + 1);
            got = true;
        }
        left = left || transport_done(t, sent);
    }
    arena_free(&arena);
    mem_free(place);
}

static size_t payload_size(int from, int to, int i)
{
    size_t wanted = 1 + rng_u64(2, (uint64_t)(from * 64 + to), (uint64_t)i) % LONGEST_PAYLOAD;
    return i % 3 ? wanted : wanted % 5000 + 1;
}

static uint32_t value(int from, int to, int i)
{
    return (uint32_t)((from * 64 + to) * 64 + i) * 2654435761u;
}

/* Every rank offers payloads to its neighbours; they come through outbox and inbox, a few at a time. */
static void exchange_payloads(void)
{
    struct outbox outbox;
    struct inbox inbox;
    struct checker *checker;
    struct arena arena = {0};
    struct parcel parcel;
    int reach = size - 1 < NEIGHBOURS ? size - 1 : NEIGHBOURS, due = reach * PAYLOADS;
    outbox_init(&outbox, t);
    must(checker_create(&checker, &err));
    inbox_init(&inbox, t, rank % 2 ? checker : NULL, 4);
    for (int i = 0; i < PAYLOADS; i++)
        for (int d = 1; d <= reach; d++) {
            int to = (rank + d) % size;
            size_t n = payload_size(rank, to, i);
            unsigned char *bytes = mem_alloc(n, 1);
            struct message_chunk chunk = {.what = CHUNK_GRADIENT, .chunk = i};
            demand(bytes != NULL);
            memset(bytes, (int)(value(rank, to, i) & 0xFF), n);
            must(outbox_announce(&outbox, to, &chunk, bytes, n, NULL, bytes, &err));
        }
    while (due > 0 || outbox.count > 0) {
        struct arrival frame;
        struct message m;
        if (next(&frame, true)) {
            arena_reset(&arena);
            must(frame_decode(frame.bytes, frame.size, frame.source, &arena, &m, &err));
            demand(m.kind == MESSAGE_CHUNK && m.chunk.bytes == payload_size(frame.source, rank, m.chunk.chunk));
            unsigned char *place = mem_alloc((size_t)m.chunk.bytes, 1);
            demand(place != NULL);
            must(inbox_expect(&inbox, frame.source, &m.chunk, place, &err));
        }
        for (bool more = true; more;) {
            must(inbox_collect(&inbox, &parcel, &more, &err));
            if (!more)
                break;
            for (size_t k = 0; k < parcel.chunk.bytes; k++)
                demand(((unsigned char *)parcel.place)[k] == (value(parcel.peer, rank, parcel.chunk.chunk) & 0xFF));
            mem_free(parcel.place);
            due--;
        }
        while (outbox_collect(&outbox, &parcel))
            mem_free(parcel.place);
    }
    outbox_free(&outbox);
    inbox_free(&inbox);
    checker_free(checker);
    arena_free(&arena);
}

static double used_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* Rank 0 keeps all others waiting, who have an offer out besides. */
static void wait_long(bool moving)
{
    enum { SECONDS = 2 };
    static char data[1 << 20];
    struct arrival frame;
    struct transfer *x = NULL;
    if (rank == 0) {
        sleep(SECONDS);
        for (int r = 1; r < size; r++)
            must(transport_post(t, r, "go", 3, &err));
        for (int r = 1; r < size && moving; r++) {
            must(transport_receive(t, r, 1, data, sizeof data, &x, &err));
            while (!transport_done(t, x))
                demand(!next(&frame, true));
        }
        return;
    }
    double began = time_seconds(), used = used_seconds();
    if (moving)
        must(transport_send(t, 0, 1, data, sizeof data, &x, &err));
    while (!next(&frame, moving))
        ;
    double share = (used_seconds() - used) / (time_seconds() - began);
    if (!(share < 0.05))
        fprintf(stderr, "rank %d used %.1f %% of a core while it waited\n", rank, share * 100);
    demand(share < 0.05);
    while (moving && !transport_done(t, x))
        demand(!next(&frame, true));
}

/* A payload of another length than was asked for: the receiver's poll says so, the others go on. */
static void length_lie(size_t sent)
{
    static char data[4096];
    struct transfer *x = NULL;
    struct arrival frame;
    bool arrived;
    if (rank == 1) {
        must(transport_send(t, 0, 9, data, sent, &x, &err));
        while (!transport_done(t, x))
            demand(!next(&frame, true));
    } else if (rank == 0) {
        enum status st;
        must(transport_receive(t, 1, 9, data, 1000, &x, &err));
        while ((st = transport_poll(t, &frame, &arrived, &err)) == STATUS_OK)
            transport_idle(t, true);
        demand(st == STATUS_PEER && strstr(err.text, "rank 1") && !transport_done(t, x));
    }
}

static void fail_as_told(const char *how)
{
    struct arrival frame;
    if (rank == size - 1 && !strcmp(how, "abort"))
        transport_abort(t, 4);
    if (rank == size - 1 && !strcmp(how, "die"))
        raise(SIGKILL);
    for (;;) /* the launcher ends us */
        demand(!next(&frame, false));
}

int main(int argc, char **argv)
{
    enum status st = transport_mpi_create(&argc, &argv, &t, &err);
    if (st != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return status_exit_code(st);
    }
    rank = transport_rank(t);
    size = transport_size(t);
    struct transport *second;
    demand(transport_mpi_create(&argc, &argv, &second, &err) == STATUS_INTERNAL);
    if (argc > 1 && strcmp(argv[1], "lie") != 0)
        fail_as_told(argv[1]);
    if (argc > 1) {
        meet();
        length_lie(500);
        meet();
        length_lie(2000);
        meet();
        transport_abandon(t); /* one transfer each has failed and stays open */
        _exit(0);
    }
    all_to_all_frames();
    meet();
    if (size > 1) {
        frames_in_place();
        meet();
        exchange_payloads();
        meet();
        wait_long(false);
        meet();
        wait_long(true);
        meet();
    }
    transport_free(t);
    if (mem_live() != 0)
        fprintf(stderr, "rank %d leaks %ld blocks\n", rank, mem_live());
    return mem_live() != 0;
}
