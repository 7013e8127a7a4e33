/* How bytes get from rank to rank: small frames that arrive at poll, and payloads that stay where they are until the
 * receiver asks for them under an agreed tag (announce, then move). One thread per endpoint makes all calls.
 * Payload order: sends and receives with equal rank and tag match in the order they were made.
 * Must not know: what the bytes mean. */
#ifndef PROTO_TRANSPORT_H
#define PROTO_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum {
    TRANSPORT_MAX_BYTES = 64 << 20, /* longest frame or payload */
    TRANSPORT_TAGS = 1 << 20,       /* payload tags are 0..TRANSPORT_TAGS-1 */
};

struct transport;
struct transfer; /* a payload under way */

struct arrival {
    const void *bytes; /* the frame; valid until the next poll */
    size_t size;
    int source;
};

int transport_rank(const struct transport *t);
int transport_size(const struct transport *t);

/* Sends a frame. Never waits for the receiver; the bytes are copied where needed. Frames from one rank to another keep
 * their order. */
enum status transport_post(struct transport *t, int dest, const void *bytes, size_t size, struct error *err);
/* The same without a copy: the bytes are busy until transport_done. */
enum status transport_post_in_place(struct transport *t, int dest, const void *bytes, size_t size, struct transfer **out,
                                    struct error *err);

/* Offers a payload; it does not move before the receiver asks, and the bytes are busy until transport_done. */
enum status transport_send(struct transport *t, int dest, uint32_t tag, const void *data, size_t bytes,
                           struct transfer **out, struct error *err);
/* Asks for a payload, straight into its place. Another length than `bytes` makes a later poll fail. */
enum status transport_receive(struct transport *t, int source, uint32_t tag, void *data, size_t bytes,
                              struct transfer **out, struct error *err);
/* True once the transfer is complete, and then its handle is gone. Only looks at a flag that transport_poll sets, so that
 * hundreds of transfers cost little. A transfer that failed never completes; poll says why. */
bool transport_done(struct transport *t, struct transfer *transfer);

/* Makes progress, and takes the next frame if there is one. */
enum status transport_poll(struct transport *t, struct arrival *out, bool *arrived, struct error *err);
/* To be called after every poll that brought nothing to do: gives the core away. `moving`: transfers are under way.
 * Waiting for arrival: 20 probes, then sleeps of 20 us doubling to 1 ms. While data moves: yields, then sleeps of 50 us.
 * After 100 ms without anything, either way, sleeps of a hundredth of the wait, 10 ms at most. Any arrival or completion
 * starts it over. */
void transport_idle(struct transport *t, bool moving);

/* The tag after `tag`, for a sender that numbers its payloads. */
uint32_t transport_next_tag(uint32_t tag);

/* Orderly end, after all ranks agreed to it (stop, bye): delivers what was posted, then leaves the world. No transfer may
 * be under way. NULL is allowed. */
void transport_free(struct transport *t);
/* End after a failure: gives posted frames a moment to get out and leaves without waiting for anybody. The process should
 * end right after, without any further clean-up of other libraries (_exit). */
void transport_abandon(struct transport *t);
/* After a failure, before memory is released that transfers may still use: takes back those of this endpoint. False where
 * the other side can still reach that memory, so that it must stay. No transfer of this endpoint completes afterwards. */
bool transport_withdraw(struct transport *t);
/* Ends the whole job with this exit status, at once. Returns only where the ranks are threads of one process: all their
 * calls fail from then on, and transfers of this endpoint are taken back. */
void transport_abort(struct transport *t, int exit_code);

#endif
