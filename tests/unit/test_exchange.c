/* Ranks as threads of one process that exchange chunks, with and without faults: the right values arrive, or an error says why
 * not; nobody waits for ever, nothing leaks. */
#include "tests/support/cmocka_all.h"

#include <pthread.h>

#include "common/memory.h"
#include "proto/exchange.h"
#include "proto/frame.h"
#include "proto/transport_faulty.h"
#include "proto/transport_local.h"
#include "proto/wait.h"

static struct error err;

/* A small run: rank 0 collects chunks of all others, then sends each of them one back. */
enum { RANKS = 4, CHUNKS = 12, CHUNK_VALUES = 3000, STEPS = 5 };

struct party {
    struct transport *transport;
    struct outbox outbox;
    struct inbox inbox;
    struct arena arena;
    uint32_t *values; /* [RANKS][CHUNKS][CHUNK_VALUES] of what arrives */
    uint32_t *own;    /* [CHUNKS][CHUNK_VALUES] of what is sent */
    int arrived, byes;
    int limit_ms;
    enum status status;
    struct error err;
};

static enum status party_turn(struct party *p, bool *active)
{
    struct parcel parcel;
    *active = false;
    for (bool more = true; more;) {
        struct arrival frame;
        struct message m;
        TRY(transport_poll(p->transport, &frame, &more, &p->err));
        if (!more)
            break;
        *active = true;
        arena_reset(&p->arena);
        TRY(frame_decode(frame.bytes, frame.size, frame.source, &p->arena, &m, &p->err));
        if (m.kind == MESSAGE_CHUNK && (m.chunk.chunk >= CHUNKS || m.chunk.bytes != CHUNK_VALUES * sizeof(uint32_t)))
            FAIL(&p->err, STATUS_PEER, "a chunk that does not fit");
        if (m.kind == MESSAGE_CHUNK)
            TRY(inbox_expect(&p->inbox, frame.source, &m.chunk,
                             p->values + (frame.source * CHUNKS + m.chunk.chunk) * CHUNK_VALUES, &p->err));
        p->byes += m.kind == MESSAGE_BYE;
    }
    for (bool more = true; more;) {
        TRY(inbox_collect(&p->inbox, &parcel, &more, &p->err));
        p->arrived += more;
        *active = *active || more;
    }
    while (outbox_collect(&p->outbox, &parcel))
        *active = true;
    return STATUS_OK;
}

static enum status party_await(struct party *p, int arrived, int byes)
{
    struct wait wait;
    wait_begin(&wait, "the other threads", p->limit_ms, NULL, NULL);
    for (;;) {
        bool active;
        TRY(party_turn(p, &active));
        if (p->arrived >= arrived && p->byes >= byes && p->outbox.count == 0)
            return STATUS_OK;
        if (active) {
            wait_heard(&wait);
            continue;
        }
        TRY(wait_check(&wait, &p->err));
        transport_idle(p->transport, p->outbox.count > 0 || inbox_is_busy(&p->inbox));
    }
}

static uint32_t expected(int rank, int step, int chunk, int i)
{
    return (uint32_t)(((rank * 31 + step) * 31 + chunk) * 31 + i) * 2654435761u;
}

static enum status party_check(const struct party *p, int from, int step, struct error *e)
{
    for (int c = 0; c < CHUNKS; c++)
        for (int i = 0; i < CHUNK_VALUES; i++)
            if (p->values[(from * CHUNKS + c) * CHUNK_VALUES + i] != expected(from, step, c, i))
                FAIL(e, STATUS_INTERNAL, "wrong value %d of chunk %d from rank %d in step %d", i, c, from, step);
    return STATUS_OK;
}

static enum status party_send(struct party *p, int step)
{
    int rank = transport_rank(p->transport), size = transport_size(p->transport);
    for (int c = CHUNKS - 1; c >= 0; c--)
        for (int i = 0; i < CHUNK_VALUES; i++)
            p->own[c * CHUNK_VALUES + i] = expected(rank, step, c, i);
    for (int c = CHUNKS - 1; c >= 0; c--)
        for (int to = rank ? 0 : 1; to < (rank ? 1 : size); to++) {
            bool active;
            struct message_chunk chunk = {.what = rank ? CHUNK_GRADIENT : CHUNK_PARAMETERS, .step = step, .chunk = c};
            TRY(outbox_announce(&p->outbox, to, &chunk, p->own + c * CHUNK_VALUES, CHUNK_VALUES * sizeof(uint32_t), NULL, NULL,
                                &p->err));
            TRY(party_turn(p, &active));
        }
    return STATUS_OK;
}

static enum status party_run(struct party *p)
{
    int rank = transport_rank(p->transport), size = transport_size(p->transport), due = 0;
    for (int step = 0; step < STEPS; step++) {
        if (rank != 0)
            TRY(party_send(p, step));
        due += CHUNKS * (rank ? 1 : size - 1);
        TRY(party_await(p, due, 0));
        for (int from = rank ? 0 : 1; from < (rank ? 1 : size); from++)
            TRY(party_check(p, from, step, &p->err));
        if (rank == 0)
            TRY(party_send(p, step));
    }
    TRY(party_await(p, due, 0));
    for (int to = rank ? 0 : 1; to < (rank ? 1 : size); to++)
        TRY(frame_post(p->transport, to, &(struct message){.kind = MESSAGE_BYE}, &p->err));
    return party_await(p, due, rank ? 1 : size - 1);
}

static void *party_thread(void *context)
{
    struct party *p = context;
    p->status = party_run(p);
    if (p->status == STATUS_OK)
        transport_free(p->transport);
    else
        transport_abandon(p->transport);
    return NULL;
}

/* Runs one thread per rank; rank r has faults[r] (NULL: none). */
static void run_parties(struct party parties[RANKS], const struct faults *const faults[RANKS], int limit_ms)
{
    struct transport *t[RANKS];
    pthread_t threads[RANKS];
    struct checker *checker;
    assert_ok(transport_local_create(RANKS, t, &err), &err);
    assert_ok(checker_create(&checker, &err), &err);
    for (int r = 0; r < RANKS; r++) {
        struct party *p = &parties[r];
        *p = (struct party){.limit_ms = limit_ms, .transport = t[r]};
        if (faults && faults[r])
            assert_ok(transport_faulty_create(t[r], faults[r], &p->transport, &err), &err);
        outbox_init(&p->outbox, p->transport);
        inbox_init(&p->inbox, p->transport, r % 2 ? checker : NULL, 3);
        p->values = mem_alloc(RANKS * CHUNKS * CHUNK_VALUES, sizeof *p->values);
        p->own = mem_alloc(CHUNKS * CHUNK_VALUES, sizeof *p->own);
    }
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(pthread_create(&threads[r], NULL, party_thread, &parties[r]), 0);
    for (int r = 0; r < RANKS; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < RANKS; r++) {
        outbox_free(&parties[r].outbox);
        inbox_free(&parties[r].inbox);
        arena_free(&parties[r].arena);
        mem_free(parties[r].values);
        mem_free(parties[r].own);
    }
    checker_free(checker);
    assert_int_equal(mem_live(), 0);
}

static void threads_exchange_chunks(void **state)
{
    (void)state;
    struct party parties[RANKS];
    run_parties(parties, NULL, 20000);
    for (int r = 0; r < RANKS; r++)
        assert_ok(parties[r].status, &parties[r].err);
}

static void delays_and_reordering_change_nothing(void **state)
{
    (void)state;
    struct party parties[RANKS];
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct faults late = {.seed = seed, .delay_polls = 9};
        const struct faults *faults[RANKS] = {&late, &late, NULL, &late};
        run_parties(parties, faults, 20000);
        for (int r = 0; r < RANKS; r++)
            assert_ok(parties[r].status, &parties[r].err);
    }
}

/* At least one rank ends with `code` and `says`; nobody ends well who should not, nobody hangs. */
static void assert_somebody_says(const struct party parties[RANKS], enum status code, const char *says)
{
    int found = 0;
    for (int r = 0; r < RANKS; r++)
        found += parties[r].status == code && strstr(parties[r].err.text, says);
    if (!found)
        for (int r = 0; r < RANKS; r++)
            print_error("rank %d: %s: %s\n", r, status_name(parties[r].status), parties[r].err.text);
    assert_true(found > 0);
}

static void flipped_bits_are_noticed(void **state)
{
    (void)state;
    struct party parties[RANKS];
    struct faults data = {.seed = 5, .corrupt_data = 0.05}, frames = {.seed = 6, .corrupt_frame = 0.05};
    run_parties(parties, (const struct faults *const[RANKS]){&data}, 20000);
    assert_somebody_says(parties, STATUS_PEER, "arrived damaged from rank");
    run_parties(parties, (const struct faults *const[RANKS]){NULL, NULL, &frames}, 20000);
    assert_somebody_says(parties, STATUS_PEER, "rank 2");
}

static void lost_frames_end_in_a_deadline(void **state)
{
    (void)state;
    struct party parties[RANKS];
    struct faults lossy = {.seed = 7, .drop = 0.2};
    run_parties(parties, (const struct faults *const[RANKS]){NULL, &lossy}, 300);
    assert_somebody_says(parties, STATUS_TIMEOUT, "while waiting for the other threads");
}

static void death_at_any_call_ends_the_run(void **state)
{
    (void)state;
    struct party parties[RANKS];
    for (long n = 1; n < 4000; n = n < 20 ? n + 1 : n * 2)
        for (int rank = 0; rank < 2; rank++) {
            struct faults deadly = {.seed = 8, .die_at = n};
            const struct faults *faults[RANKS] = {NULL};
            faults[rank] = &deadly;
            run_parties(parties, faults, 20000);
            if (parties[rank].status != STATUS_OK) { /* a late death may come after the end of the run */
                assert_int_equal(parties[rank].status, STATUS_INTERNAL);
                for (int r = 0; r < RANKS; r++)
                    if (r != rank && parties[r].status != STATUS_OK)
                        assert_int_equal(parties[r].status, STATUS_PEER);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_exchange_chunks),
        cmocka_unit_test(delays_and_reordering_change_nothing),
        cmocka_unit_test(flipped_bits_are_noticed),
        cmocka_unit_test(lost_frames_end_in_a_deadline),
        cmocka_unit_test(death_at_any_call_ends_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
