/* Frames: every kind there and back, the same length whatever the numbers, payloads in place; and nothing that is damaged,
 * cut, stretched or simply untrue gets through. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/checksum.h"
#include "proto/frame.h"

static struct error err;
static struct arena arena;
static const char config_text[] = "model_name_or_path: models/demo\nlearning_rate: 1.0e-4\n";

static const struct slot_report report = {
    .loss = 12.5, .weight = 3.25, .span_loss = {0, 1.5, 2.5, 3.5}, .span_count = {0, 10, 20, 30}, .correct = 7,
    .tokens = 512, .compute_us = 20000,
};

/* One message of each kind, with nothing at its default. */
static struct message sample(enum message_kind kind)
{
    return (struct message){
        .kind = kind,
        .hello = {"1.2.3", "node7", "0123abcd", 3, 2, 64, 4711},
        .welcome = {15, 3, 240, 1000, "resumed", config_text, sizeof config_text - 1},
        .order = {ORDER_EVALUATE, 17, 1, 2, 3, STATUS_NUMERIC, "loss is NaN", 4, 5, 18},
        .chunk = {CHUNK_GRADIENT, 12, 34, 3, 5, 4194304, 0xDEADBEEF, 77},
        .slot = {12, 3, report},
        .eval = {1, 9, report},
        .signal = {2},
        .failure = {STATUS_DATA, 5, "rows.jsonl:3: empty answer"},
        .text = {12, 1, 4, config_text, sizeof config_text - 1},
        .counts = {-1, 2, 5, config_text, sizeof config_text - 1},
    };
}

enum { ROOM = 8192 };

struct packed {
    unsigned char room[ROOM];
    unsigned char *frame;
    size_t size;
};

/* Where a message keeps its payload; false for kinds without one. */
static bool payload_at(struct message *m, const void ***bytes, size_t *size)
{
    struct message_text *text = m->kind == MESSAGE_TEXT ? &m->text : &m->counts;
    bool welcome = m->kind == MESSAGE_WELCOME;
    *bytes = welcome ? &m->welcome.payload : &text->payload;
    *size = welcome ? m->welcome.payload_size : text->payload_size;
    return welcome || m->kind == MESSAGE_TEXT || m->kind == MESSAGE_COUNTS;
}

static void pack(struct message *m, struct packed *out)
{
    const void **bytes;
    size_t size, head;
    memset(out->room, 0xAA, sizeof out->room);
    if (payload_at(m, &bytes, &size)) {
        memcpy(out->room + FRAME_ROOM, *bytes, size);
        assert_int_equal(frame_encode_around(m, out->room + FRAME_ROOM, &head, &err), STATUS_OK);
        out->frame = out->room + FRAME_ROOM - head;
        out->size = head + size;
    } else {
        assert_int_equal(frame_encode(m, out->room, sizeof out->room, &out->size, &err), STATUS_OK);
        out->frame = out->room;
    }
}

static enum status decode(const unsigned char *frame, size_t size, struct message *out)
{
    /* A block of exactly that size, so that tools see every byte read too many. */
    unsigned char *copy = mem_alloc(size, 1);
    memcpy(copy, frame, size);
    arena_reset(&arena);
    err.text[0] = '\0';
    enum status st = frame_decode(copy, size, 6, &arena, out, &err);
    if (st == STATUS_OK) { /* payloads point into the frame: let them outlive it */
        const void **payload;
        size_t length;
        if (payload_at(out, &payload, &length) && length) {
            assert_true((const unsigned char *)*payload == copy + size - length);
            void *kept = arena_alloc(&arena, 1, length);
            *payload = memcpy(kept, *payload, length);
        }
    }
    mem_free(copy);
    return st;
}

static void must_refuse(const unsigned char *frame, size_t size)
{
    struct message m;
    assert_int_equal(decode(frame, size, &m), STATUS_PEER);
    assert_non_null(strstr(err.text, "rank 6"));
}

static void assert_same_report(const struct slot_report *a, const struct slot_report *b)
{
    assert_memory_equal(a, b, sizeof *a);
}

static void assert_same_bytes(const struct message_text *a, const struct message_text *b)
{
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->set, b->set);
    assert_int_equal(a->index, b->index);
    assert_int_equal(a->payload_size, b->payload_size);
    assert_memory_equal(a->payload, b->payload, a->payload_size);
}

static void assert_same(const struct message *a, const struct message *b)
{
    assert_int_equal(a->kind, b->kind);
    switch (a->kind) {
    case MESSAGE_HELLO:
        assert_string_equal(a->hello.version, b->hello.version);
        assert_string_equal(a->hello.host, b->hello.host);
        assert_string_equal(a->hello.fingerprint, b->hello.fingerprint);
        assert_int_equal(a->hello.rank, b->hello.rank);
        assert_int_equal(a->hello.threads, b->hello.threads);
        assert_int_equal(a->hello.cores, b->hello.cores);
        assert_int_equal(a->hello.pid, b->hello.pid);
        break;
    case MESSAGE_WELCOME:
        assert_int_equal(a->welcome.workers, b->welcome.workers);
        assert_int_equal(a->welcome.worker, b->welcome.worker);
        assert_int_equal(a->welcome.slots, b->welcome.slots);
        assert_int_equal(a->welcome.first_step, b->welcome.first_step);
        assert_string_equal(a->welcome.session, b->welcome.session);
        assert_int_equal(a->welcome.payload_size, b->welcome.payload_size);
        assert_memory_equal(a->welcome.payload, b->welcome.payload, a->welcome.payload_size);
        break;
    case MESSAGE_ORDER:
        assert_int_equal(a->order.action, b->order.action);
        assert_int_equal(a->order.step, b->order.step);
        assert_int_equal(a->order.set, b->order.set);
        assert_int_equal(a->order.first, b->order.first);
        assert_int_equal(a->order.count, b->order.count);
        assert_int_equal(a->order.stage, b->order.stage);
        assert_int_equal(a->order.stage_step, b->order.stage_step);
        assert_int_equal(a->order.version, b->order.version);
        assert_int_equal(a->order.status, b->order.status);
        assert_string_equal(a->order.text, b->order.text);
        break;
    case MESSAGE_CHUNK:
        assert_int_equal(a->chunk.what, b->chunk.what);
        assert_int_equal(a->chunk.step, b->chunk.step);
        assert_int_equal(a->chunk.chunk, b->chunk.chunk);
        assert_int_equal(a->chunk.level, b->chunk.level);
        assert_int_equal(a->chunk.index, b->chunk.index);
        assert_int_equal(a->chunk.bytes, b->chunk.bytes);
        assert_int_equal(a->chunk.crc32c, b->chunk.crc32c);
        assert_int_equal(a->chunk.tag, b->chunk.tag);
        break;
    case MESSAGE_SLOT:
        assert_int_equal(a->slot.step, b->slot.step);
        assert_int_equal(a->slot.slot, b->slot.slot);
        assert_same_report(&a->slot.numbers, &b->slot.numbers);
        break;
    case MESSAGE_EVAL:
        assert_int_equal(a->eval.set, b->eval.set);
        assert_int_equal(a->eval.batch, b->eval.batch);
        assert_same_report(&a->eval.numbers, &b->eval.numbers);
        break;
    case MESSAGE_SIGNAL:
        assert_int_equal(a->signal.flags, b->signal.flags);
        break;
    case MESSAGE_FAILURE:
        assert_int_equal(a->failure.status, b->failure.status);
        assert_int_equal(a->failure.rank, b->failure.rank);
        assert_string_equal(a->failure.text, b->failure.text);
        break;
    case MESSAGE_TEXT:
        assert_same_bytes(&a->text, &b->text);
        break;
    case MESSAGE_COUNTS:
        assert_same_bytes(&a->counts, &b->counts);
        break;
    default:
        break;
    }
}

static void every_kind_there_and_back(void **state)
{
    (void)state;
    for (int kind = MESSAGE_HELLO; kind < MESSAGE_KIND_COUNT; kind++) {
        struct packed p;
        struct message m = sample((enum message_kind)kind), back;
        pack(&m, &p);
        assert_int_equal(decode(p.frame, p.size, &back), STATUS_OK);
        assert_same(&m, &back);
        assert_string_not_equal(message_kind_name(m.kind), "?");
    }
    assert_string_equal(message_kind_name(MESSAGE_KIND_COUNT), "?");
    assert_string_equal(message_kind_name((enum message_kind)0), "?");
}

static void numbers_do_not_change_the_length(void **state)
{
    (void)state;
    static const enum message_kind kinds[] = {MESSAGE_CHUNK, MESSAGE_SLOT, MESSAGE_EVAL, MESSAGE_SIGNAL};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct packed a, b;
        struct message full = sample(kinds[i]), empty = {.kind = kinds[i]};
        pack(&full, &a);
        pack(&empty, &b);
        assert_int_equal(a.size, b.size);
    }
}

static void losses_keep_their_bits(void **state)
{
    (void)state;
    struct message m = sample(MESSAGE_SLOT), back;
    struct packed p;
    m.slot.numbers.loss = NAN;
    m.slot.numbers.weight = INFINITY;
    m.slot.numbers.span_loss[1] = -0.0;
    m.slot.numbers.span_loss[2] = 0x1.fffffffffffffp-1022;
    pack(&m, &p);
    assert_int_equal(decode(p.frame, p.size, &back), STATUS_OK);
    assert_same_report(&m.slot.numbers, &back.slot.numbers);
}

static void payload_stays_where_it_is(void **state)
{
    (void)state;
    struct packed p;
    struct message m = sample(MESSAGE_WELCOME);
    m.welcome.session = "a session description of the greatest length there is: 255 bytes. "
                        "a session description of the greatest length there is: 255 bytes. "
                        "a session description of the greatest length there is: 255 bytes. "
                        "a session description of the greatest length there is: 25";
    assert_int_equal(strlen(m.welcome.session), 255);
    pack(&m, &p);
    assert_memory_equal(p.room + FRAME_ROOM, config_text, sizeof config_text - 1);
    assert_true(p.frame >= p.room && p.frame + p.size == p.room + FRAME_ROOM + sizeof config_text - 1);
    for (unsigned char *at = p.room; at < p.frame; at++)
        assert_int_equal(*at, 0xAA);
    for (unsigned char *at = p.frame + p.size; at < p.room + ROOM; at++)
        assert_int_equal(*at, 0xAA);
}

static void every_flipped_bit_is_refused(void **state)
{
    (void)state;
    for (int kind = MESSAGE_HELLO; kind < MESSAGE_KIND_COUNT; kind++) {
        struct packed p;
        struct message m = sample((enum message_kind)kind);
        pack(&m, &p);
        for (size_t bit = 0; bit < p.size * 8; bit++) {
            p.frame[bit / 8] ^= (unsigned char)(1u << bit % 8);
            must_refuse(p.frame, p.size);
            p.frame[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
        assert_int_equal(decode(p.frame, p.size, &m), STATUS_OK);
    }
}

static void put32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

/* Makes prefix and checksum agree with what lies there, as a peer that lies on purpose would. */
static void reseal(unsigned char *frame, size_t size, uint32_t payload)
{
    put32(frame + 12, (uint32_t)(size - FRAME_PREFIX));
    put32(frame + 16, payload);
    put32(frame, crc32c(frame + 4, size - 4));
}

static void wrong_length_is_refused(void **state)
{
    (void)state;
    for (int kind = MESSAGE_HELLO; kind < MESSAGE_KIND_COUNT; kind++) {
        struct packed p;
        struct message m = sample((enum message_kind)kind);
        pack(&m, &p);
        const void **ignored;
        size_t length;
        uint32_t payload = payload_at(&m, &ignored, &length) ? sizeof config_text - 1 : 0;
        for (size_t size = 0; size < p.size; size++)
            must_refuse(p.frame, size);
        must_refuse(p.frame, p.size + 1);
        /* The same with a checksum that fits what is left. Without required fields nothing is missing. */
        for (size_t size = FRAME_PREFIX; size < p.size; size++) {
            struct packed cut = p;
            cut.frame = cut.room + (p.frame - p.room);
            reseal(cut.frame, size, payload);
            must_refuse(cut.frame, size);
        }
        /* A length that speaks of more or less than there is. */
        for (int delta = -1; delta <= 1; delta += 2) {
            put32(p.frame + 12, (uint32_t)((int)(p.size - FRAME_PREFIX) + delta));
            put32(p.frame, crc32c(p.frame + 4, p.size - 4));
            must_refuse(p.frame, p.size);
        }
    }
}

static void wrong_prefix_is_refused(void **state)
{
    (void)state;
    struct packed p;
    struct message m = sample(MESSAGE_CHUNK);
    static const struct {
        int at, value;
        const char *says;
    } cases[] = {
        {4, 'X', "not a frame"}, {8, 2, "version 2"}, {9, 1, "version 257"}, {10, 0, "kind 0"}, {10, MESSAGE_KIND_COUNT, "kind 13"},
        {11, 1, "kind 260"}, {10, MESSAGE_ORDER, "order"}, {10, MESSAGE_BYE, "unknown fields"}, {16, 1, "payload"}, {19, 0xFF, "payload"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pack(&m, &p);
        p.frame[cases[i].at] = (unsigned char)cases[i].value;
        put32(p.frame, crc32c(p.frame + 4, p.size - 4));
        must_refuse(p.frame, p.size);
        if (!strstr(err.text, cases[i].says))
            fail_msg("'%s' does not say '%s'", err.text, cases[i].says);
    }
}

/* Changes one thing of a sample; the name is what the message must say. */
struct lie {
    enum message_kind kind;
    const char *field;
    void (*tell)(struct message *m);
};

static void lie_workers(struct message *m) { m->welcome.workers = 0; }
static void lie_worker(struct message *m) { m->welcome.worker = 15; }
static void lie_slots(struct message *m) { m->welcome.slots = -1; }
static void lie_first_step(struct message *m) { m->welcome.first_step = -5; }
static void lie_rank(struct message *m) { m->hello.rank = -1; }
static void lie_threads(struct message *m) { m->hello.threads = INT32_MIN; }
static void lie_cores(struct message *m) { m->hello.cores = -1; }
static void lie_pid(struct message *m) { m->hello.pid = -1; }
static void lie_action(struct message *m) { m->order.action = (enum order_action)9; }
static void lie_no_action(struct message *m) { m->order.action = (enum order_action)0; }
static void lie_order_step(struct message *m) { m->order.step = -2; }
static void lie_set(struct message *m) { m->order.set = -1; }
static void lie_first(struct message *m) { m->order.first = -1; }
static void lie_count(struct message *m) { m->order.count = -1; }
static void lie_overflow(struct message *m) { m->order.first = m->order.count = INT32_MAX; }
static void lie_stage(struct message *m) { m->order.stage = -1; }
static void lie_stage_step(struct message *m) { m->order.stage_step = -2; }
static void lie_version(struct message *m) { m->order.version = -2; }
static void lie_status(struct message *m) { m->order.status = 99; }
static void lie_what(struct message *m) { m->chunk.what = (enum chunk_what)3; }
static void lie_chunk(struct message *m) { m->chunk.chunk = -1; }
static void lie_level(struct message *m) { m->chunk.level = 32; }
static void lie_index(struct message *m) { m->chunk.index = -7; }
static void lie_no_bytes(struct message *m) { m->chunk.bytes = 0; }
static void lie_bytes(struct message *m) { m->chunk.bytes = (uint64_t)TRANSPORT_MAX_BYTES + 1; }
static void lie_huge_bytes(struct message *m) { m->chunk.bytes = UINT64_MAX; }
static void lie_tag(struct message *m) { m->chunk.tag = TRANSPORT_TAGS; }
static void lie_chunk_step(struct message *m) { m->chunk.step = INT64_MIN; }
static void lie_slot(struct message *m) { m->slot.slot = -1; }
static void lie_slot_step(struct message *m) { m->slot.step = -1; }
static void lie_correct(struct message *m) { m->slot.numbers.correct = -1; }
static void lie_span_count(struct message *m) { m->slot.numbers.span_count[3] = INT64_MAX; }
static void lie_batch(struct message *m) { m->eval.batch = -1; }
static void lie_eval_set(struct message *m) { m->eval.set = -1; }
static void lie_tokens(struct message *m) { m->eval.numbers.tokens = -1; }
static void lie_flags(struct message *m) { m->signal.flags = 0; }
static void lie_failure_ok(struct message *m) { m->failure.status = STATUS_OK; }
static void lie_failure_rank(struct message *m) { m->failure.rank = -1; }
static void lie_text_step(struct message *m) { m->text.step = -2; }
static void lie_text_index(struct message *m) { m->text.index = -1; }

static void lie_counts_set(struct message *m) { m->counts.set = -1; }

static void untrue_fields_are_refused(void **state)
{
    (void)state;
    static const struct lie lies[] = {
        {MESSAGE_WELCOME, "workers", lie_workers}, {MESSAGE_WELCOME, "worker", lie_worker},
        {MESSAGE_WELCOME, "slots", lie_slots}, {MESSAGE_WELCOME, "first_step", lie_first_step},
        {MESSAGE_HELLO, "rank", lie_rank}, {MESSAGE_HELLO, "threads", lie_threads}, {MESSAGE_HELLO, "cores", lie_cores},
        {MESSAGE_HELLO, "pid", lie_pid}, {MESSAGE_ORDER, "action", lie_action}, {MESSAGE_ORDER, "action", lie_no_action},
        {MESSAGE_ORDER, "step", lie_order_step}, {MESSAGE_ORDER, "set", lie_set}, {MESSAGE_ORDER, "first", lie_first},
        {MESSAGE_ORDER, "count", lie_count}, {MESSAGE_ORDER, "count", lie_overflow}, {MESSAGE_ORDER, "status", lie_status},
        {MESSAGE_ORDER, "stage", lie_stage}, {MESSAGE_ORDER, "stage_step", lie_stage_step}, {MESSAGE_ORDER, "version", lie_version},
        {MESSAGE_CHUNK, "what", lie_what}, {MESSAGE_CHUNK, "chunk", lie_chunk}, {MESSAGE_CHUNK, "level", lie_level},
        {MESSAGE_CHUNK, "index", lie_index}, {MESSAGE_CHUNK, "bytes", lie_no_bytes}, {MESSAGE_CHUNK, "bytes", lie_bytes},
        {MESSAGE_CHUNK, "bytes", lie_huge_bytes}, {MESSAGE_CHUNK, "tag", lie_tag}, {MESSAGE_CHUNK, "step", lie_chunk_step},
        {MESSAGE_SLOT, "slot", lie_slot}, {MESSAGE_SLOT, "step", lie_slot_step}, {MESSAGE_SLOT, "count", lie_correct},
        {MESSAGE_SLOT, "count", lie_span_count}, {MESSAGE_EVAL, "batch", lie_batch}, {MESSAGE_EVAL, "set", lie_eval_set},
        {MESSAGE_EVAL, "count", lie_tokens}, {MESSAGE_SIGNAL, "flags", lie_flags}, {MESSAGE_FAILURE, "status", lie_failure_ok},
        {MESSAGE_FAILURE, "rank", lie_failure_rank}, {MESSAGE_TEXT, "step", lie_text_step},
        {MESSAGE_TEXT, "index", lie_text_index}, {MESSAGE_COUNTS, "set", lie_counts_set},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct packed p;
        char says[64];
        struct message m = sample(lies[i].kind);
        lies[i].tell(&m);
        pack(&m, &p);
        must_refuse(p.frame, p.size);
        snprintf(says, sizeof says, "whose %s is out of range", lies[i].field);
        if (!strstr(err.text, says))
            fail_msg("'%s' does not say '%s'", err.text, says);
    }
}

/* Puts raw bytes behind the header of a message without payload, or replaces the header by them. */
static void refuse_with_bytes(enum message_kind kind, bool replace, const void *bytes, size_t size, uint32_t payload)
{
    struct packed p;
    struct message m = sample(kind);
    m.welcome.payload_size = m.text.payload_size = 0;
    assert_int_equal(frame_encode(&m, p.room, sizeof p.room, &p.size, &err), STATUS_OK);
    size_t at = replace ? FRAME_PREFIX : p.size;
    memcpy(p.room + at, bytes, size);
    reseal(p.room, at + size, payload);
    must_refuse(p.room, at + size);
}

static void well_sealed_rubbish_is_refused(void **state)
{
    (void)state;
    /* a field nobody knows; a broken key; a length beyond the end; a varint that never ends; a group */
    refuse_with_bytes(MESSAGE_BYE, false, "\x08\x01", 2, 0);
    refuse_with_bytes(MESSAGE_CHUNK, false, "\x00\x00", 2, 0);
    refuse_with_bytes(MESSAGE_FAILURE, false, "\x1a\x7f", 2, 0);
    refuse_with_bytes(MESSAGE_ALIVE, false, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11, 0);
    refuse_with_bytes(MESSAGE_ORDER, false, "\x0b\x0c", 2, 0);
    refuse_with_bytes(MESSAGE_FAILURE, true, "\x1a\xff\xff\xff\xff\x0f", 6, 0);
    refuse_with_bytes(MESSAGE_FAILURE, true, "\x1a\xff\xff\xff\xff\x07", 6, 0);
    /* a known field of another wire type */
    refuse_with_bytes(MESSAGE_SIGNAL, true, "\x08\x01", 2, 0);
    /* a payload inside the header; one whose own length disagrees with the prefix */
    refuse_with_bytes(MESSAGE_TEXT, false, "\x7a\x02xy", 4, 0);
    refuse_with_bytes(MESSAGE_TEXT, false, "\x7a\x03xy", 4, 2);
    refuse_with_bytes(MESSAGE_TEXT, false, "\x7a\x02xy", 4, 3);
    refuse_with_bytes(MESSAGE_TEXT, false, "\x7a\x82\x00xy", 5, 2); /* not the shortest form */
    refuse_with_bytes(MESSAGE_FAILURE, false, "\x7a\x02xy", 4, 2); /* a kind without payload */
    /* a text beyond its limit */
    char longer[ERROR_TEXT_SIZE + 16] = "\x0d\x03\x00\x00\x00\x15\x01\x00\x00\x00\x1a\x80\x20";
    memset(longer + 13, 'a', ERROR_TEXT_SIZE);
    refuse_with_bytes(MESSAGE_FAILURE, true, longer, 13 + ERROR_TEXT_SIZE, 0);
}

static void long_header_is_refused(void **state)
{
    (void)state;
    size_t size = FRAME_PREFIX + FRAME_SMALL + 1;
    unsigned char *frame = mem_alloc(size, 1);
    struct message m = sample(MESSAGE_BYE);
    size_t packed;
    assert_int_equal(frame_encode(&m, frame, size, &packed, &err), STATUS_OK);
    reseal(frame, size, 0);
    must_refuse(frame, size);
    mem_free(frame);
}

static void strings_are_cut_and_cleaned(void **state)
{
    (void)state;
    char text[ERROR_TEXT_SIZE + 100];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    memcpy(text + ERROR_TEXT_SIZE - 2, "\xc3\xa4", 2); /* a character across the limit */
    memcpy(text, "\x1b[31m\tred\n\x7f", 11);
    struct message m = sample(MESSAGE_FAILURE), back;
    m.failure.text = text;
    struct packed p;
    pack(&m, &p);
    assert_int_equal(decode(p.frame, p.size, &back), STATUS_OK);
    assert_int_equal(strlen(back.failure.text), ERROR_TEXT_SIZE - 2);
    assert_memory_equal(back.failure.text, "?[31m\tred\n?aaaa", 15);
    m = (struct message){.kind = MESSAGE_HELLO}; /* all strings NULL */
    pack(&m, &p);
    assert_int_equal(decode(p.frame, p.size, &back), STATUS_OK);
    assert_string_equal(back.hello.host, "");
}

static void what_cannot_be_packed_says_so(void **state)
{
    (void)state;
    unsigned char small[64], around[FRAME_ROOM + 1];
    size_t size;
    struct message m = sample(MESSAGE_ORDER);
    assert_int_equal(frame_encode(&m, small, sizeof small, &size, &err), STATUS_USAGE);
    assert_int_equal(frame_encode_around(&m, around + FRAME_ROOM, &size, &err), STATUS_INTERNAL);
    m = sample(MESSAGE_TEXT);
    assert_int_equal(frame_encode(&m, around, sizeof around, &size, &err), STATUS_INTERNAL);
    m.text.payload_size = TRANSPORT_MAX_BYTES;
    assert_int_equal(frame_encode_around(&m, around + FRAME_ROOM, &size, &err), STATUS_USAGE);
    m.kind = (enum message_kind)77;
    assert_int_equal(frame_encode(&m, around, sizeof around, &size, &err), STATUS_INTERNAL);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (int kind = MESSAGE_HELLO; kind < MESSAGE_KIND_COUNT; kind++) {
        struct packed p;
        struct message m = sample((enum message_kind)kind), back;
        pack(&m, &p);
        enum status st = STATUS_NOMEM;
        for (long n = 0; st != STATUS_OK; n++) {
            arena_free(&arena);
            arena.block_bytes = 64; /* so that many allocations reach the heap */
            long live = mem_live();
            mem_fail_after(n, false);
            st = frame_decode(p.frame, p.size, 6, &arena, &back, &err);
            mem_fail_after(-1, false);
            assert_true(st == STATUS_OK || st == STATUS_NOMEM);
            arena_free(&arena);
            assert_int_equal(mem_live(), live);
            assert_true(n < 100);
        }
    }
    arena = (struct arena){0};
}

static int free_arena(void **state)
{
    (void)state;
    arena_free(&arena);
    return mem_live() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_there_and_back),
        cmocka_unit_test(numbers_do_not_change_the_length),
        cmocka_unit_test(losses_keep_their_bits),
        cmocka_unit_test(payload_stays_where_it_is),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(wrong_length_is_refused),
        cmocka_unit_test(wrong_prefix_is_refused),
        cmocka_unit_test(untrue_fields_are_refused),
        cmocka_unit_test(well_sealed_rubbish_is_refused),
        cmocka_unit_test(long_header_is_refused),
        cmocka_unit_test(strings_are_cut_and_cleaned),
        cmocka_unit_test(what_cannot_be_packed_says_so),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, free_arena);
}
