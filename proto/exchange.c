#include "proto/exchange.h"

#include <sched.h>
#include <string.h>

#include "common/checksum.h"

static enum status grow(struct parcel **parcels, int *capacity, int count, struct error *err)
{
    if (count < *capacity)
        return STATUS_OK;
    int larger = *capacity ? *capacity * 2 : 16;
    struct parcel *grown = mem_realloc(*parcels, (size_t)larger, sizeof *grown);
    if (!grown)
        FAIL(err, STATUS_NOMEM, "no memory for %d chunks under way", larger);
    *parcels = grown;
    *capacity = larger;
    return STATUS_OK;
}

void outbox_init(struct outbox *box, struct transport *transport)
{
    *box = (struct outbox){.transport = transport};
}

void outbox_free(struct outbox *box)
{
    mem_free(box->parcels);
    *box = (struct outbox){0};
}

enum status outbox_announce(struct outbox *box, int dest, const struct message_chunk *chunk, const void *data, size_t bytes,
                            const uint32_t *crc, void *mark, struct error *err)
{
    TRY(grow(&box->parcels, &box->capacity, box->count, err));
    struct parcel parcel = {.chunk = *chunk, .peer = dest, .place = mark};
    parcel.chunk.bytes = bytes;
    parcel.chunk.crc32c = crc ? *crc : crc32c(data, bytes);
    parcel.chunk.tag = box->next_tag;
    TRY(transport_send(box->transport, dest, parcel.chunk.tag, data, bytes, &parcel.transfer, err));
    box->parcels[box->count++] = parcel; /* from here on the payload is under way, whatever happens */
    box->next_tag = transport_next_tag(box->next_tag);
    struct message m = {.kind = MESSAGE_CHUNK, .chunk = parcel.chunk};
    return frame_post(box->transport, dest, &m, err);
}

bool outbox_collect(struct outbox *box, struct parcel *out)
{
    for (int i = 0; i < box->count; i++)
        if (transport_done(box->transport, box->parcels[i].transfer)) {
            *out = box->parcels[i];
            out->transfer = NULL;
            box->parcels[i] = box->parcels[--box->count];
            return true;
        }
    return false;
}

void inbox_init(struct inbox *box, struct transport *transport, struct checker *checker, int credits)
{
    memset(box, 0, sizeof *box);
    box->transport = transport;
    box->checker = checker;
    box->credits = credits;
}

void inbox_free(struct inbox *box)
{
    for (int i = 0; i < INBOX_CHECKS; i++)
        while (box->busy[i] && !check_done(&box->checks[i]))
            sched_yield();
    mem_free(box->parcels);
    box->parcels = NULL;
    box->moving = box->count = box->capacity = 0;
}

bool inbox_is_busy(const struct inbox *box)
{
    bool busy = box->moving > 0;
    for (int i = 0; i < INBOX_CHECKS; i++)
        busy = busy || box->busy[i];
    return busy;
}

enum status inbox_expect(struct inbox *box, int source, const struct message_chunk *chunk, void *place, struct error *err)
{
    TRY(grow(&box->parcels, &box->capacity, box->count, err));
    box->parcels[box->count++] = (struct parcel){.chunk = *chunk, .peer = source, .place = place};
    return STATUS_OK;
}

static enum status ask(struct inbox *box, struct error *err)
{
    while (box->moving < box->count && box->moving < box->credits) {
        struct parcel *next = &box->parcels[box->moving];
        TRY(transport_receive(box->transport, next->peer, next->chunk.tag, next->place, (size_t)next->chunk.bytes,
                              &next->transfer, err));
        box->moving++;
    }
    return STATUS_OK;
}

/* Takes one payload that is here out of those under way. */
static bool take_arrived(struct inbox *box, struct parcel *out)
{
    for (int i = 0; i < box->moving; i++)
        if (transport_done(box->transport, box->parcels[i].transfer)) {
            *out = box->parcels[i];
            out->transfer = NULL;
            memmove(&box->parcels[i], &box->parcels[i + 1], (size_t)(--box->count - i) * sizeof *box->parcels);
            box->moving--;
            return true;
        }
    return false;
}

/* Gives the payload to the checker, if there is one with a free place. */
static bool hand_over(struct inbox *box, const struct parcel *parcel)
{
    int i = 0;
    while (i < INBOX_CHECKS && box->busy[i])
        i++;
    if (!box->checker || i == INBOX_CHECKS)
        return false;
    box->busy[i] = true;
    box->checking[i] = *parcel;
    box->checks[i].data = parcel->place;
    box->checks[i].bytes = (size_t)parcel->chunk.bytes;
    checker_add(box->checker, &box->checks[i]);
    return true;
}

static bool take_checked(struct inbox *box, struct parcel *out, uint32_t *crc)
{
    for (int i = 0; i < INBOX_CHECKS; i++)
        if (box->busy[i] && check_done(&box->checks[i])) {
            box->busy[i] = false;
            *out = box->checking[i];
            *crc = box->checks[i].crc;
            return true;
        }
    return false;
}

enum status inbox_collect(struct inbox *box, struct parcel *out, bool *arrived, struct error *err)
{
    struct parcel parcel;
    uint32_t crc = 0;
    *arrived = false;
    while (take_arrived(box, &parcel)) {
        TRY(ask(box, err)); /* before the checksum, so that the next payload moves meanwhile */
        if (hand_over(box, &parcel))
            continue;
        *out = parcel;
        *arrived = true;
        crc = crc32c(parcel.place, (size_t)parcel.chunk.bytes);
        break;
    }
    TRY(ask(box, err));
    if (!*arrived)
        *arrived = take_checked(box, out, &crc);
    if (!*arrived && box->checker && box->moving == 0 && checker_help(box->checker))
        *arrived = take_checked(box, out, &crc);
    if (*arrived && crc != out->chunk.crc32c)
        FAIL(err, STATUS_PEER, "chunk %d of step %lld arrived damaged from rank %d: checksum %08x, announced %08x",
             out->chunk.chunk, (long long)out->chunk.step, out->peer, crc, out->chunk.crc32c);
    return STATUS_OK;
}
