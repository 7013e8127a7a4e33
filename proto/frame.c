#include "proto/frame.h"

#include <loar.pb-c.h>
#include <stdbool.h>
#include <string.h>

#include "common/checksum.h"

enum {
    FRAME_MAGIC = 0x52416F4C, /* "LoAR" in memory */
    PAYLOAD_KEY = 15 << 3 | 2, /* field 15, length-delimited */
    MAX_VERSION = 63, MAX_HOST = 255, MAX_SESSION = 255,
    MAX_LEVEL = 31,
};

/* Room for any of the generated structs. */
union wire {
    ProtobufCMessage base;
    Loar__Hello hello;
    Loar__Welcome welcome;
    Loar__Order order;
    Loar__Chunk chunk;
    Loar__Report report;
    Loar__Signal signal;
    Loar__Failure failure;
    Loar__Text text;
};

/* Copies of strings that had to be cut. */
struct scratch {
    char bytes[ERROR_TEXT_SIZE + MAX_VERSION + MAX_HOST + MAX_SESSION + 4];
    size_t used;
};

static char *cut(struct scratch *scratch, const char *text, size_t max)
{
    size_t size = text ? strnlen(text, max + 1) : 0;
    if (size <= max)
        return (char *)(text ? text : ""); /* the generated structs do not say const; packing only reads */
    for (size = max; size > 0 && ((unsigned char)text[size] & 0xC0) == 0x80;)
        size--; /* not in the middle of a UTF-8 character */
    char *copy = scratch->bytes + scratch->used;
    memcpy(copy, text, size);
    copy[size] = '\0';
    scratch->used += size + 1;
    return copy;
}

/* What a field was refused for. */
struct reader {
    int source;
    const char *kind;
    struct error *err;
    enum status status;
};

static void need(struct reader *r, bool holds, const char *field, int64_t value)
{
    if (!holds && r->status == STATUS_OK)
        r->status = error_set(r->err, STATUS_PEER, "rank %d sent a %s message whose %s is out of range: %lld", r->source, r->kind,
                              field, (long long)value);
}

/* The string in the arena, made safe to print. */
static const char *clean(struct reader *r, char *text, size_t max, const char *field)
{
    size_t size = strlen(text);
    need(r, size <= max, field, (int64_t)size);
    for (char *at = text; *at; at++)
        if (((unsigned char)*at < 0x20 && *at != '\n' && *at != '\t') || *at == 0x7F)
            *at = '?';
    return text;
}

static void hello_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    const struct message_hello *from = &m->hello;
    w->hello.version = cut(scratch, from->version, MAX_VERSION);
    w->hello.host = cut(scratch, from->host, MAX_HOST);
    w->hello.fingerprint = cut(scratch, from->fingerprint, MAX_VERSION);
    w->hello.rank = from->rank;
    w->hello.threads = from->threads;
    w->hello.cores = from->cores;
    w->hello.pid = from->pid;
}

static void hello_read(union wire *w, struct reader *r, struct message *m)
{
    const Loar__Hello *from = &w->hello;
    need(r, from->rank >= 0, "rank", from->rank);
    need(r, from->threads >= 0, "threads", from->threads);
    need(r, from->cores >= 0, "cores", from->cores);
    need(r, from->pid >= 0, "pid", from->pid);
    m->hello = (struct message_hello){
        .version = clean(r, from->version, MAX_VERSION, "version length"),
        .host = clean(r, from->host, MAX_HOST, "host length"),
        .fingerprint = clean(r, from->fingerprint, MAX_VERSION, "fingerprint length"),
        .rank = from->rank, .threads = from->threads, .cores = from->cores, .pid = from->pid,
    };
}

static void welcome_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    const struct message_welcome *from = &m->welcome;
    w->welcome.workers = from->workers;
    w->welcome.worker = from->worker;
    w->welcome.slots = from->slots;
    w->welcome.first_step = from->first_step;
    w->welcome.session = cut(scratch, from->session, MAX_SESSION);
}

static void welcome_read(union wire *w, struct reader *r, struct message *m)
{
    const Loar__Welcome *from = &w->welcome;
    need(r, from->workers >= 1, "workers", from->workers);
    need(r, from->worker >= 0 && from->worker < from->workers, "worker", from->worker);
    need(r, from->slots >= 1, "slots", from->slots);
    need(r, from->first_step >= 0, "first_step", from->first_step);
    need(r, !from->has_payload, "payload", 0); /* a real one is not part of what was unpacked */
    m->welcome = (struct message_welcome){
        .workers = from->workers, .worker = from->worker, .slots = from->slots, .first_step = from->first_step,
        .session = clean(r, from->session, MAX_SESSION, "session length"),
    };
}

static void order_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    const struct message_order *from = &m->order;
    w->order.action = (int32_t)from->action;
    w->order.step = from->step;
    w->order.set = from->set;
    w->order.first = from->first;
    w->order.count = from->count;
    w->order.status = from->status;
    w->order.text = cut(scratch, from->text, ERROR_TEXT_SIZE - 1);
    w->order.stage = from->stage;
    w->order.stage_step = from->stage_step;
    w->order.version = from->version;
}

static void order_read(union wire *w, struct reader *r, struct message *m)
{
    const Loar__Order *from = &w->order;
    need(r, from->action >= ORDER_TRAIN && from->action < ORDER_ACTION_END, "action", from->action);
    need(r, from->step >= -1, "step", from->step);
    need(r, from->set >= 0, "set", from->set);
    need(r, from->first >= 0, "first", from->first);
    need(r, from->count >= 0 && (int64_t)from->first + from->count <= INT32_MAX, "count", from->count);
    need(r, from->status >= STATUS_OK && from->status <= STATUS_STOPPED, "status", from->status);
    need(r, from->stage >= 0, "stage", from->stage);
    need(r, from->stage_step >= -1, "stage_step", from->stage_step);
    need(r, from->version >= -1, "version", from->version);
    m->order = (struct message_order){
        .action = (enum order_action)from->action, .step = from->step, .set = from->set, .first = from->first,
        .count = from->count, .status = from->status, .text = clean(r, from->text, ERROR_TEXT_SIZE - 1, "text length"),
        .stage = from->stage, .stage_step = from->stage_step, .version = from->version,
    };
}

static void chunk_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    (void)scratch;
    const struct message_chunk *from = &m->chunk;
    w->chunk.what = (int32_t)from->what;
    w->chunk.step = from->step;
    w->chunk.chunk = from->chunk;
    w->chunk.level = from->level;
    w->chunk.index = from->index;
    w->chunk.bytes = from->bytes;
    w->chunk.crc32c = from->crc32c;
    w->chunk.tag = from->tag;
}

static void chunk_read(union wire *w, struct reader *r, struct message *m)
{
    const Loar__Chunk *from = &w->chunk;
    need(r, from->what >= CHUNK_GRADIENT && from->what < CHUNK_WHAT_END, "what", from->what);
    need(r, from->step >= -1, "step", from->step);
    need(r, from->chunk >= 0, "chunk", from->chunk);
    need(r, from->level >= 0 && from->level <= MAX_LEVEL, "level", from->level);
    need(r, from->index >= 0, "index", from->index);
    need(r, from->bytes >= 1 && from->bytes <= TRANSPORT_MAX_BYTES, "bytes", (int64_t)from->bytes);
    need(r, from->tag < TRANSPORT_TAGS, "tag", from->tag);
    m->chunk = (struct message_chunk){
        .what = (enum chunk_what)from->what, .step = from->step, .chunk = from->chunk, .level = from->level,
        .index = from->index, .bytes = from->bytes, .crc32c = from->crc32c, .tag = from->tag,
    };
}

static void report_pack(const struct slot_report *from, Loar__Report *to)
{
    to->loss = from->loss;
    to->weight = from->weight;
    to->span_loss_0 = from->span_loss[0];
    to->span_loss_1 = from->span_loss[1];
    to->span_loss_2 = from->span_loss[2];
    to->span_loss_3 = from->span_loss[3];
    to->span_count_0 = from->span_count[0];
    to->span_count_1 = from->span_count[1];
    to->span_count_2 = from->span_count[2];
    to->span_count_3 = from->span_count[3];
    to->correct = from->correct;
    to->tokens = from->tokens;
    to->compute_us = from->compute_us;
}

/* Losses may be NaN or infinite: that is a finding of training, not of the wire. */
static struct slot_report report_read(const Loar__Report *from, struct reader *r)
{
    struct slot_report to = {
        .loss = from->loss, .weight = from->weight,
        .span_loss = {from->span_loss_0, from->span_loss_1, from->span_loss_2, from->span_loss_3},
        .span_count = {from->span_count_0, from->span_count_1, from->span_count_2, from->span_count_3},
        .correct = from->correct, .tokens = from->tokens, .compute_us = from->compute_us,
    };
    int64_t counts[] = {to.correct, to.tokens, to.compute_us, to.span_count[0], to.span_count[1], to.span_count[2],
                        to.span_count[3]};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) /* below 2^53: sums over ranks cannot overflow */
        need(r, counts[i] >= 0 && counts[i] < INT64_C(1) << 53, "count", counts[i]);
    return to;
}

static void slot_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    (void)scratch;
    report_pack(&m->slot.numbers, &w->report);
    w->report.step = m->slot.step;
    w->report.index = m->slot.slot;
}

static void slot_read(union wire *w, struct reader *r, struct message *m)
{
    need(r, w->report.step >= 0, "step", w->report.step);
    need(r, w->report.index >= 0, "slot", w->report.index);
    m->slot = (struct message_slot){w->report.step, w->report.index, report_read(&w->report, r)};
}

static void eval_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    (void)scratch;
    report_pack(&m->eval.numbers, &w->report);
    w->report.set = m->eval.set;
    w->report.index = m->eval.batch;
}

static void eval_read(union wire *w, struct reader *r, struct message *m)
{
    need(r, w->report.set >= 0, "set", w->report.set);
    need(r, w->report.index >= 0, "batch", w->report.index);
    m->eval = (struct message_eval){w->report.set, w->report.index, report_read(&w->report, r)};
}

static void signal_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    (void)scratch;
    w->signal.flags = m->signal.flags;
}

static void signal_read(union wire *w, struct reader *r, struct message *m)
{
    need(r, w->signal.flags > 0, "flags", w->signal.flags);
    m->signal.flags = w->signal.flags;
}

static void failure_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    w->failure.status = m->failure.status;
    w->failure.rank = m->failure.rank;
    w->failure.text = cut(scratch, m->failure.text, ERROR_TEXT_SIZE - 1);
}

static void failure_read(union wire *w, struct reader *r, struct message *m)
{
    const Loar__Failure *from = &w->failure;
    need(r, from->status > STATUS_OK && from->status <= STATUS_STOPPED, "status", from->status);
    need(r, from->rank >= 0, "rank", from->rank);
    m->failure = (struct message_failure){from->status, from->rank,
                                          clean(r, from->text, ERROR_TEXT_SIZE - 1, "text length")};
}

static void bytes_pack(const struct message_text *from, Loar__Text *to)
{
    to->step = from->step;
    to->set = from->set;
    to->index = from->index;
}

static struct message_text bytes_read(const Loar__Text *from, struct reader *r)
{
    need(r, from->step >= -1, "step", from->step);
    need(r, from->set >= 0, "set", from->set);
    need(r, from->index >= 0, "index", from->index);
    need(r, !from->has_payload, "payload", 0);
    return (struct message_text){.step = from->step, .set = from->set, .index = from->index};
}

static void text_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    (void)scratch;
    bytes_pack(&m->text, &w->text);
}

static void text_read(union wire *w, struct reader *r, struct message *m)
{
    m->text = bytes_read(&w->text, r);
}

static void counts_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    (void)scratch;
    bytes_pack(&m->counts, &w->text);
}

static void counts_read(union wire *w, struct reader *r, struct message *m)
{
    m->counts = bytes_read(&w->text, r);
}

static void nothing_pack(const struct message *m, union wire *w, struct scratch *scratch)
{
    (void)m, (void)w, (void)scratch;
}

static void nothing_read(union wire *w, struct reader *r, struct message *m)
{
    (void)w, (void)r, (void)m;
}

/* One row per kind of message. */
static const struct codec {
    const char *name;
    const ProtobufCMessageDescriptor *form;
    void (*pack)(const struct message *, union wire *, struct scratch *);
    void (*read)(union wire *, struct reader *, struct message *);
} codecs[MESSAGE_KIND_COUNT] = {
    [MESSAGE_HELLO] = {"hello", &loar__hello__descriptor, hello_pack, hello_read},
    [MESSAGE_WELCOME] = {"welcome", &loar__welcome__descriptor, welcome_pack, welcome_read},
    [MESSAGE_ORDER] = {"order", &loar__order__descriptor, order_pack, order_read},
    [MESSAGE_CHUNK] = {"chunk", &loar__chunk__descriptor, chunk_pack, chunk_read},
    [MESSAGE_SLOT] = {"slot", &loar__report__descriptor, slot_pack, slot_read},
    [MESSAGE_EVAL] = {"eval", &loar__report__descriptor, eval_pack, eval_read},
    [MESSAGE_SIGNAL] = {"signal", &loar__signal__descriptor, signal_pack, signal_read},
    [MESSAGE_ALIVE] = {"alive", &loar__alive__descriptor, nothing_pack, nothing_read},
    [MESSAGE_FAILURE] = {"failure", &loar__failure__descriptor, failure_pack, failure_read},
    [MESSAGE_TEXT] = {"text", &loar__text__descriptor, text_pack, text_read},
    [MESSAGE_COUNTS] = {"counts", &loar__text__descriptor, counts_pack, counts_read},
    [MESSAGE_BYE] = {"bye", &loar__bye__descriptor, nothing_pack, nothing_read},
};

static bool kind_exists(unsigned kind)
{
    return kind < MESSAGE_KIND_COUNT && codecs[kind].form;
}

const char *message_kind_name(enum message_kind kind)
{
    return kind_exists((unsigned)kind) ? codecs[kind].name : "?";
}

/* Where the plain struct keeps its payload; false for kinds that have none. */
static bool payload_place(struct message *m, const void ***payload, size_t **size)
{
    struct message_text *bytes = m->kind == MESSAGE_TEXT ? &m->text : &m->counts;
    *payload = m->kind == MESSAGE_WELCOME ? &m->welcome.payload : &bytes->payload;
    *size = m->kind == MESSAGE_WELCOME ? &m->welcome.payload_size : &bytes->payload_size;
    return m->kind == MESSAGE_WELCOME || m->kind == MESSAGE_TEXT || m->kind == MESSAGE_COUNTS;
}

static bool payload_of(const struct message *m, const void **payload, size_t *size)
{
    const void **place;
    size_t *size_place;
    bool any = payload_place((struct message *)m, &place, &size_place);
    *payload = any ? *place : NULL;
    *size = any ? *size_place : 0;
    return any;
}

static void payload_set(struct message *m, const void *payload, size_t size)
{
    const void **place;
    size_t *size_place;
    if (!payload_place(m, &place, &size_place))
        return;
    *place = payload;
    *size_place = size;
}

static void put16(unsigned char *at, unsigned value)
{
    at[0] = (unsigned char)value;
    at[1] = (unsigned char)(value >> 8);
}

static void put32(unsigned char *at, uint32_t value)
{
    put16(at, value & 0xFFFF);
    put16(at + 2, value >> 16);
}

static unsigned get16(const unsigned char *at)
{
    return at[0] | (unsigned)at[1] << 8;
}

static uint32_t get32(const unsigned char *at)
{
    return get16(at) | (uint32_t)get16(at + 2) << 16;
}

/* Key and length of the payload field as protobuf writes them; returns how many bytes. */
static size_t payload_key(size_t payload, unsigned char out[8])
{
    size_t used = 0;
    out[used++] = PAYLOAD_KEY;
    for (; payload >= 0x80; payload >>= 7)
        out[used++] = (unsigned char)(payload | 0x80);
    out[used++] = (unsigned char)payload;
    return used;
}

/* Writes prefix and header, the key of a payload included, to `out`. The checksum comes last, in seal(). */
static enum status head_pack(const struct message *m, size_t payload, unsigned char *out, size_t capacity, size_t *size,
                             struct error *err)
{
    union wire wire;
    struct scratch scratch;
    unsigned char key[8];
    scratch.used = 0;
    if (!kind_exists((unsigned)m->kind))
        FAIL(err, STATUS_INTERNAL, "there is no message of kind %d", (int)m->kind);
    const struct codec *codec = &codecs[m->kind];
    codec->form->message_init(&wire.base);
    codec->pack(m, &wire, &scratch);
    size_t header = protobuf_c_message_get_packed_size(&wire.base);
    size_t key_size = payload ? payload_key(payload, key) : 0;
    if (FRAME_PREFIX + header + key_size > capacity || FRAME_PREFIX + header + key_size + payload > TRANSPORT_MAX_BYTES)
        FAIL(err, STATUS_USAGE, "a %s message of %zu bytes with a payload of %zu bytes is too long to be sent (limit %d)",
             codec->name, header, payload, TRANSPORT_MAX_BYTES);
    protobuf_c_message_pack(&wire.base, out + FRAME_PREFIX);
    memcpy(out + FRAME_PREFIX + header, key, key_size);
    put32(out + 4, FRAME_MAGIC);
    put16(out + 8, FRAME_VERSION);
    put16(out + 10, (unsigned)m->kind);
    put32(out + 12, (uint32_t)(header + key_size + payload));
    put32(out + 16, (uint32_t)payload);
    *size = FRAME_PREFIX + header + key_size;
    return STATUS_OK;
}

static void seal(unsigned char *frame, size_t size)
{
    put32(frame, crc32c(frame + 4, size - 4));
}

enum status frame_encode(const struct message *message, void *out, size_t capacity, size_t *size, struct error *err)
{
    const void *payload;
    size_t payload_size;
    if (payload_of(message, &payload, &payload_size) && payload_size)
        FAIL(err, STATUS_INTERNAL, "a %s message with a payload was to be packed without it", message_kind_name(message->kind));
    TRY(head_pack(message, 0, out, capacity, size, err));
    seal(out, *size);
    return STATUS_OK;
}

enum status frame_encode_around(const struct message *message, void *payload_place, size_t *head, struct error *err)
{
    unsigned char room[FRAME_ROOM];
    const void *ignored;
    size_t payload;
    if (!payload_of(message, &ignored, &payload))
        FAIL(err, STATUS_INTERNAL, "a %s message has no payload", message_kind_name(message->kind));
    TRY(head_pack(message, payload, room, sizeof room, head, err));
    unsigned char *frame = (unsigned char *)payload_place - *head;
    memcpy(frame, room, *head);
    seal(frame, *head + payload);
    return STATUS_OK;
}

enum status frame_send(struct transport *transport, int dest, const struct message *message, void *payload_place,
                       struct transfer **out, struct error *err)
{
    const void *ignored;
    size_t head, payload;
    TRY(frame_encode_around(message, payload_place, &head, err));
    payload_of(message, &ignored, &payload);
    return transport_post_in_place(transport, dest, (unsigned char *)payload_place - head, head + payload, out, err);
}

enum status frame_post(struct transport *transport, int dest, const struct message *message, struct error *err)
{
    const void *payload;
    size_t payload_size, size;
    if (!payload_of(message, &payload, &payload_size) || !payload_size) {
        unsigned char small[ERROR_TEXT_SIZE + FRAME_ROOM];
        TRY(frame_encode(message, small, sizeof small, &size, err));
        return transport_post(transport, dest, small, size, err);
    }
    if (payload_size > TRANSPORT_MAX_BYTES)
        FAIL(err, STATUS_USAGE, "the payload of a %s message has %zu bytes, more than %d", message_kind_name(message->kind),
             payload_size, TRANSPORT_MAX_BYTES);
    unsigned char *room = mem_alloc(FRAME_ROOM + payload_size, 1);
    if (!room)
        FAIL(err, STATUS_NOMEM, "no memory for a %s message of %zu bytes", message_kind_name(message->kind), payload_size);
    memcpy(room + FRAME_ROOM, payload, payload_size);
    enum status st = frame_encode_around(message, room + FRAME_ROOM, &size, err);
    if (st == STATUS_OK)
        st = transport_post(transport, dest, room + FRAME_ROOM - size, size + payload_size, err);
    mem_free(room);
    return st;
}

/* What the prefix says, once it was found to be true. */
struct envelope {
    const struct codec *codec;
    enum message_kind kind;
    const unsigned char *header;
    size_t header_size; /* without the payload's key */
    const unsigned char *payload;
    size_t payload_size;
};

static enum status open_envelope(const unsigned char *frame, size_t size, int source, struct envelope *out, struct error *err)
{
    if (size < FRAME_PREFIX || get32(frame + 4) != FRAME_MAGIC)
        FAIL(err, STATUS_PEER, "rank %d sent %zu bytes that are not a frame; do all ranks run the same program?", source, size);
    if (get16(frame + 8) != FRAME_VERSION)
        FAIL(err, STATUS_PEER, "rank %d speaks version %u of the protocol, this rank version %d; start all ranks with the same "
             "program", source, get16(frame + 8), FRAME_VERSION);
    uint32_t crc = crc32c(frame + 4, size - 4);
    if (crc != get32(frame))
        FAIL(err, STATUS_PEER, "a frame of %zu bytes from rank %d arrived damaged: checksum %08x, announced %08x", size, source, crc,
             get32(frame));
    unsigned kind = get16(frame + 10);
    size_t length = get32(frame + 12), payload = get32(frame + 16);
    if (!kind_exists(kind))
        FAIL(err, STATUS_PEER, "rank %d sent a message of kind %u, which does not exist", source, kind);
    struct message probe = {.kind = (enum message_kind)kind};
    const void *ignored;
    size_t ignored_size;
    if (length != size - FRAME_PREFIX || payload > length || length - payload > FRAME_SMALL ||
        (payload && !payload_of(&probe, &ignored, &ignored_size)))
        FAIL(err, STATUS_PEER, "rank %d sent a %s frame of %zu bytes that claims %zu bytes, %zu of them payload", source,
             codecs[kind].name, size - FRAME_PREFIX, length, payload);
    unsigned char key[8];
    size_t header = length - payload, key_size = payload ? payload_key(payload, key) : 0;
    if (header < key_size || memcmp(frame + FRAME_PREFIX + header - key_size, key, key_size) != 0)
        FAIL(err, STATUS_PEER, "rank %d sent a %s frame whose payload of %zu bytes is not its last field", source,
             codecs[kind].name, payload);
    *out = (struct envelope){&codecs[kind], (enum message_kind)kind, frame + FRAME_PREFIX, header - key_size,
                             frame + FRAME_PREFIX + header, payload};
    return STATUS_OK;
}

/* protobuf-c allocates in the caller's arena and never frees. */
struct arena_source {
    struct arena *arena;
    bool failed;
};

static void *arena_source_alloc(void *context, size_t size)
{
    struct arena_source *from = context;
    void *block = arena_alloc(from->arena, 1, size);
    from->failed = from->failed || !block;
    return block;
}

static void arena_source_free(void *context, void *block)
{
    (void)context, (void)block;
}

enum status frame_decode(const void *bytes, size_t size, int source, struct arena *arena, struct message *out,
                         struct error *err)
{
    struct envelope e = {0};
    TRY(open_envelope(bytes, size, source, &e, err));
    struct arena_source from = {arena, false};
    ProtobufCAllocator allocator = {arena_source_alloc, arena_source_free, &from};
    ProtobufCMessage *wire = protobuf_c_message_unpack(e.codec->form, &allocator, e.header_size, e.header);
    if (!wire && from.failed)
        FAIL(err, STATUS_NOMEM, "no memory for a %s message of %zu bytes from rank %d", e.codec->name, size, source);
    if (!wire || wire->n_unknown_fields)
        FAIL(err, STATUS_PEER, "rank %d sent a %s message of %zu bytes that is broken or has %s fields", source, e.codec->name,
             e.header_size, wire ? "unknown" : "missing");
    struct reader reader = {source, e.codec->name, err, STATUS_OK};
    *out = (struct message){.kind = e.kind};
    e.codec->read((union wire *)wire, &reader, out);
    if (e.payload_size)
        payload_set(out, e.payload, e.payload_size);
    return reader.status;
}
