/* Announce, then move: the two ends of the exchange of chunks. The outbox computes the checksum, announces and offers; the
 * inbox asks for at most `credits` payloads at a time, in the order of their announcements, and checks them.
 *
 * Sender:    outbox_announce(...) per chunk; after every round of transport_poll: outbox_collect.
 * Receiver:  for each CHUNK frame: inbox_expect(...) with the place it shall go to; after every round of transport_poll:
 *            inbox_collect, until it brings nothing.
 * Must not know: what a chunk is for, who waits for it. */
#ifndef PROTO_EXCHANGE_H
#define PROTO_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/checker.h"
#include "proto/messages.h"
#include "proto/transport.h"

/* A payload under way, or not yet asked for. */
struct parcel {
    struct message_chunk chunk;
    int peer;
    void *place; /* where it goes to; for the sender: the caller's own mark */
    struct transfer *transfer;
};

struct outbox {
    struct transport *transport;
    struct parcel *parcels;
    int count, capacity;
    uint32_t next_tag;
};

enum { INBOX_CHECKS = 8 };

/* Must stay where it is while payloads are being checked. */
struct inbox {
    struct transport *transport;
    struct checker *checker;
    int credits;
    struct parcel *parcels; /* [count]: the first `moving` were asked for, the others wait in order */
    int moving, count, capacity;
    struct parcel checking[INBOX_CHECKS]; /* in the checker's hands, as far as `busy` says */
    struct check checks[INBOX_CHECKS];
    bool busy[INBOX_CHECKS];
};

void outbox_init(struct outbox *box, struct transport *transport);
void outbox_free(struct outbox *box);
/* Announces `bytes` bytes to rank `dest` and offers them; they are busy until outbox_collect returns them. `chunk` says what,
 * step, chunk, level and index; the rest is filled in. crc: checksum if it is known already, else NULL. */
enum status outbox_announce(struct outbox *box, int dest, const struct message_chunk *chunk, const void *data, size_t bytes,
                            const uint32_t *crc, void *mark, struct error *err);
/* Takes out one parcel that has left, if there is one. */
bool outbox_collect(struct outbox *box, struct parcel *out);

/* `checker` computes the checksums, beside the next transfer; NULL: inbox_collect does it. */
void inbox_init(struct inbox *box, struct transport *transport, struct checker *checker, int credits);
/* Waits for checks that are not finished. */
void inbox_free(struct inbox *box);
/* True while a payload is on its way or being checked: transport_idle's `moving`. */
bool inbox_is_busy(const struct inbox *box);
/* Queues an announced payload; `place` has room for chunk->bytes. */
enum status inbox_expect(struct inbox *box, int source, const struct message_chunk *chunk, void *place, struct error *err);
/* Asks for as many payloads as credits allow, then takes out one that has arrived, if there is one. STATUS_PEER when its
 * checksum is wrong. */
enum status inbox_collect(struct inbox *box, struct parcel *out, bool *arrived, struct error *err);

#endif
