/* What ranks say to each other, as plain structs; the wire form (proto/loar.proto, proto/frame.h) stays behind
 * frame_post and frame_decode. W = worker, S = server.
 * Must not know: what a step, a slot or a chunk is good for. */
#ifndef PROTO_MESSAGES_H
#define PROTO_MESSAGES_H

#include <stddef.h>
#include <stdint.h>

#include "common/memory.h"
#include "common/status.h"

struct transport;

enum message_kind {
    MESSAGE_HELLO = 1, /* W->S  here I am */
    MESSAGE_WELCOME,   /* S->W  the run you join */
    MESSAGE_ORDER,     /* S->W  what to do next */
    MESSAGE_CHUNK,     /* both  a payload waits for your receive under this tag */
    MESSAGE_SLOT,      /* W->S  numbers of one slot of a training step */
    MESSAGE_EVAL,      /* W->S  numbers of one evaluation batch */
    MESSAGE_SIGNAL,    /* W->S  a signal flag was seen */
    MESSAGE_ALIVE,     /* both  sign of life */
    MESSAGE_FAILURE,   /* both  a rank cannot go on */
    MESSAGE_TEXT,      /* W->S  generated text */
    MESSAGE_COUNTS,    /* W->S  whole numbers about one slot or batch that add up over all of them */
    MESSAGE_BYE,       /* both  last word */
    MESSAGE_KIND_COUNT
};

enum order_action { ORDER_TRAIN = 1, ORDER_EVALUATE, ORDER_GENERATE, ORDER_STOP, ORDER_ABORT, ORDER_ACTION_END };
enum chunk_what { CHUNK_GRADIENT = 1, CHUNK_PARAMETERS, CHUNK_WHAT_END };

struct message_hello {
    const char *version;     /* at most 63 bytes */
    const char *host;        /* at most 255 bytes */
    const char *fingerprint; /* of the parameter table, once it is known; at most 63 bytes */
    int rank, threads, cores;
    int64_t pid;
};

struct message_welcome {
    int workers, worker, slots;
    int64_t first_step;
    const char *session; /* words about the run; at most 255 bytes */
    const void *payload; /* the configuration */
    size_t payload_size;
};

struct message_order {
    enum order_action action;
    int64_t step;          /* steps of the run before this one */
    int set, first, count; /* evaluation: data set and batches; generation: data set and rows */
    int status;            /* enum status: why to stop or abort */
    const char *text;      /* the same in words; at most ERROR_TEXT_SIZE - 1 bytes */
    int stage;             /* whose rows and options */
    int64_t stage_step;    /* steps of that stage before this one */
    int64_t version;       /* parameters to use: CHUNK_PARAMETERS carries it as its step */
};

/* The payload travels beside the message, as one contiguous transfer with `tag`, and may be asked for at any time. */
struct message_chunk {
    enum chunk_what what;
    int64_t step;
    int chunk;
    int level, index; /* node of the slot tree (gradients) */
    uint64_t bytes;   /* 1..TRANSPORT_MAX_BYTES */
    uint32_t crc32c;  /* of the payload */
    uint32_t tag;
};

enum { REPORT_SPANS = 4 };

/* Sums over supervised tokens, as the model counts them, and the time they took. */
struct slot_report {
    double loss, weight;
    double span_loss[REPORT_SPANS];
    int64_t span_count[REPORT_SPANS];
    int64_t correct, tokens;
    int64_t compute_us;
};

struct message_slot {
    int64_t step;
    int slot;
    struct slot_report numbers;
};

struct message_eval {
    int set, batch;
    struct slot_report numbers;
};

struct message_signal {
    int flags; /* bits, the sender's and receiver's business; 0 is refused */
};

struct message_failure {
    int status; /* enum status, not STATUS_OK */
    int rank;   /* where it began */
    const char *text;
};

/* Bytes about one slot of a training step, one batch of an evaluation set, or one of its rows. */
struct message_text {
    int64_t step;
    int set, index;
    const void *payload;
    size_t payload_size;
};

/* Only the member named by `kind` counts; ALIVE and BYE have none. A NULL string is sent as "". */
struct message {
    enum message_kind kind;
    struct message_hello hello;
    struct message_welcome welcome;
    struct message_order order;
    struct message_chunk chunk;
    struct message_slot slot;
    struct message_eval eval;
    struct message_signal signal;
    struct message_failure failure;
    struct message_text text, counts; /* counts: int64_t in the machine's order; the first is the work they took */
};

/* "hello", "chunk", ...; "?" for anything else. */
const char *message_kind_name(enum message_kind kind);

/* Packs the message and posts it to rank `dest`; nothing of it is needed afterwards. Texts that are too long are cut.
 * STATUS_USAGE: payload beyond TRANSPORT_MAX_BYTES. */
enum status frame_post(struct transport *transport, int dest, const struct message *message, struct error *err);

/* Checks a frame from rank `source` (prefix, sizes, CRC32C, every field) and unpacks it. Strings live in `arena`, payloads
 * in `bytes`. Control characters in strings become '?'. STATUS_PEER names the rank and what is wrong. */
enum status frame_decode(const void *bytes, size_t size, int source, struct arena *arena, struct message *out,
                         struct error *err);

#endif
