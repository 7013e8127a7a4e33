/* The wire form of a message: a fixed little-endian prefix, then protobuf bytes whose last field is the payload, if
 * there is one. The prefix and the protobuf header are written into free room right in front of the payload, so that
 * the frame is contiguous and the payload is never copied. frame.c is the only includer of the code generated from loar.proto.
 * Must not know: who sends what when.
 *
 * Prefix: crc32c of all that follows it (u32), "LoAR" (u32), version (u16), kind (u16), bytes behind the prefix (u32),
 * of them payload (u32). */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include "proto/messages.h"
#include "proto/transport.h"

enum {
    FRAME_PREFIX = 20,
    FRAME_ROOM = 512,          /* free bytes in front of a payload that hold any prefix and header */
    FRAME_SMALL = 64 * 1024,   /* most bytes of a frame without its payload */
    FRAME_VERSION = 1,
};

/* Packs a message without payload into `out`; *size gets its length. STATUS_USAGE when it does not fit. */
enum status frame_encode(const struct message *message, void *out, size_t capacity, size_t *size, struct error *err);

/* Packs a message whose payload (WELCOME, TEXT) lies at `payload_place`, with FRAME_ROOM bytes before it that are ours to
 * write. The frame is then the `*head` bytes before the payload plus the payload. */
enum status frame_encode_around(const struct message *message, void *payload_place, size_t *head, struct error *err);

/* frame_encode_around and one contiguous send without any copy; the place is busy until transport_done. */
enum status frame_send(struct transport *transport, int dest, const struct message *message, void *payload_place,
                       struct transfer **out, struct error *err);

#endif
