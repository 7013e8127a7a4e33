#include "proto/transport.h"

#include <sched.h>
#include <time.h>

#include "proto/transport_ops.h"

int transport_rank(const struct transport *t)
{
    return t->rank;
}

int transport_size(const struct transport *t)
{
    return t->size;
}

static enum status check(const struct transport *t, const char *what, int peer, const void *bytes, size_t size,
                         struct error *err)
{
    if (peer < 0 || peer >= t->size || peer == t->rank)
        FAIL(err, STATUS_INTERNAL, "rank %d was to %s rank %d of %d", t->rank, what, peer, t->size);
    if (!bytes || size < 1 || size > TRANSPORT_MAX_BYTES)
        FAIL(err, STATUS_USAGE, "rank %d was to %s rank %d %zu bytes; allowed are 1..%d", t->rank, what, peer, size,
             TRANSPORT_MAX_BYTES);
    return STATUS_OK;
}

enum status transport_post(struct transport *t, int dest, const void *bytes, size_t size, struct error *err)
{
    TRY(check(t, "post to", dest, bytes, size, err));
    return t->ops->post(t, dest, bytes, size, NULL, err);
}

enum status transport_post_in_place(struct transport *t, int dest, const void *bytes, size_t size, struct transfer **out,
                                    struct error *err)
{
    TRY(check(t, "post to", dest, bytes, size, err));
    return t->ops->post(t, dest, bytes, size, out, err);
}

static enum status check_tag(const struct transport *t, uint32_t tag, struct error *err)
{
    if (tag >= TRANSPORT_TAGS)
        FAIL(err, STATUS_USAGE, "rank %d was to move a payload with tag %u; tags are below %d", t->rank, tag, TRANSPORT_TAGS);
    return STATUS_OK;
}

enum status transport_send(struct transport *t, int dest, uint32_t tag, const void *data, size_t bytes,
                           struct transfer **out, struct error *err)
{
    TRY(check(t, "send to", dest, data, bytes, err));
    TRY(check_tag(t, tag, err));
    return t->ops->send(t, dest, tag, data, bytes, out, err);
}

enum status transport_receive(struct transport *t, int source, uint32_t tag, void *data, size_t bytes,
                              struct transfer **out, struct error *err)
{
    TRY(check(t, "receive from", source, data, bytes, err));
    TRY(check_tag(t, tag, err));
    return t->ops->receive(t, source, tag, data, bytes, out, err);
}

bool transport_done(struct transport *t, struct transfer *transfer)
{
    if (!transfer->done)
        return false;
    t->ops->release(t, transfer);
    return true;
}

enum status transport_poll(struct transport *t, struct arrival *out, bool *arrived, struct error *err)
{
    *arrived = false;
    TRY(t->ops->poll(t, out, arrived, err));
    t->progressed = t->progressed || *arrived;
    return STATUS_OK;
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

enum {
    PROBES = 20,            /* without giving anything away */
    ARRIVAL_YIELD_US = 100, /* then giving the core to whoever wants it, and then sleeping */
    MOVING_YIELD_US = 100,
    ARRIVAL_FIRST_US = 20, ARRIVAL_DOUBLINGS = 5, ARRIVAL_US = 1000,
    MOVING_US = 50,
    LONG_AFTER_US = 100000, LONG_SHARE = 100, LONG_US = 10000, /* that long without anything: the peer has other things to do */
};

/* Looking costs tens of microseconds, so sleeps grow with the wait: at most a hundredth of it is added to it. */
static long sleep_us(struct transport *t, bool moving, int64_t idle_us)
{
    if (idle_us > LONG_AFTER_US)
        return idle_us < (int64_t)LONG_SHARE * LONG_US ? (long)(idle_us / LONG_SHARE) : LONG_US;
    if (moving)
        return MOVING_US;
    int doublings = t->sleeps++;
    return doublings > ARRIVAL_DOUBLINGS ? ARRIVAL_US : ARRIVAL_FIRST_US << doublings;
}

void transport_idle(struct transport *t, bool moving)
{
    if (t->progressed) {
        t->progressed = false;
        t->misses = t->sleeps = 0;
    }
    if (++t->misses <= PROBES)
        return;
    int64_t now = now_us();
    if (t->misses == PROBES + 1)
        t->idle_since_us = now;
    int64_t idle_us = now - t->idle_since_us;
    if (idle_us < (moving ? MOVING_YIELD_US : ARRIVAL_YIELD_US))
        sched_yield();
    else
        t->ops->sleep(t, sleep_us(t, moving, idle_us));
}

uint32_t transport_next_tag(uint32_t tag)
{
    return (tag + 1) % TRANSPORT_TAGS;
}

void transport_free(struct transport *t)
{
    if (t)
        t->ops->close(t, true);
}

void transport_abandon(struct transport *t)
{
    if (t)
        t->ops->close(t, false);
}

bool transport_withdraw(struct transport *t)
{
    return t->ops->withdraw && t->ops->withdraw(t);
}

void transport_abort(struct transport *t, int exit_code)
{
    t->ops->abort(t, exit_code);
}
