/* Any bytes at all as a frame: refused with a message, or a message that, packed again, reads back the same. The first byte
 * chooses whether prefix and checksum are made to fit, as a peer that lies on purpose would; then also the kind. */
#include <stdlib.h>
#include <string.h>

#include "common/checksum.h"
#include "proto/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

static void put32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

/* Wraps the bytes: "LoAR", version 1, a kind, the true length; the payload is the last `payload` bytes. */
static void seal(unsigned char *frame, size_t size, unsigned kind, size_t payload)
{
    memcpy(frame + 4, "LoAR\1", 6);
    frame[9] = 0;
    frame[10] = (unsigned char)kind;
    frame[11] = 0;
    put32(frame + 12, (uint32_t)(size - FRAME_PREFIX));
    put32(frame + 16, (uint32_t)payload);
    put32(frame, crc32c(frame + 4, size - 4));
}

/* Packs the message; returns the frame inside the new block *room. */
static unsigned char *pack(const struct message *m, unsigned char **room, size_t *size)
{
    struct error err;
    const struct message_text *text = m->kind == MESSAGE_TEXT ? &m->text : &m->counts;
    bool has = m->kind == MESSAGE_TEXT || m->kind == MESSAGE_COUNTS;
    const void *payload = m->kind == MESSAGE_WELCOME ? m->welcome.payload : text->payload;
    size_t bytes = m->kind == MESSAGE_WELCOME ? m->welcome.payload_size : has ? text->payload_size : 0;
    *room = mem_alloc(FRAME_ROOM + ERROR_TEXT_SIZE + bytes, 1);
    if (!bytes) {
        demand(frame_encode(m, *room, FRAME_ROOM + ERROR_TEXT_SIZE, size, &err) == STATUS_OK);
        return *room;
    }
    memcpy(*room + FRAME_ROOM, payload, bytes);
    demand(frame_encode_around(m, *room + FRAME_ROOM, size, &err) == STATUS_OK);
    unsigned char *frame = *room + FRAME_ROOM - *size;
    *size += bytes;
    return frame;
}

static void check(const unsigned char *frame, size_t size)
{
    struct error err = {0};
    struct arena arena = {.block_bytes = 4096};
    struct message first, second;
    enum status st = frame_decode(frame, size, 3, &arena, &first, &err);
    if (st != STATUS_OK) {
        demand(st == STATUS_PEER && strstr(err.text, "rank 3") != NULL);
    } else {
        unsigned char *rooms[2];
        size_t sizes[2];
        unsigned char *once = pack(&first, &rooms[0], &sizes[0]);
        demand(frame_decode(once, sizes[0], 3, &arena, &second, &err) == STATUS_OK);
        unsigned char *twice = pack(&second, &rooms[1], &sizes[1]);
        demand(sizes[0] == sizes[1] && !memcmp(once, twice, sizes[0]));
        mem_free(rooms[0]);
        mem_free(rooms[1]);
    }
    arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    long live = mem_live();
    if (size < 2)
        return 0;
    if (data[0] % 4 == 0) {
        unsigned char *copy = mem_alloc(size - 1, 1); /* exactly that long, for the tools */
        memcpy(copy, data + 1, size - 1);
        check(copy, size - 1);
        mem_free(copy);
    } else {
        size_t total = FRAME_PREFIX + size - 2;
        unsigned char *frame = mem_alloc(total, 1);
        memcpy(frame + FRAME_PREFIX, data + 2, size - 2);
        seal(frame, total, data[1] % (MESSAGE_KIND_COUNT + 1), data[0] % 4 == 1 ? 0 : (size_t)(data[0] >> 2));
        check(frame, total);
        mem_free(frame);
    }
    demand(mem_live() == live);
    return 0;
}
