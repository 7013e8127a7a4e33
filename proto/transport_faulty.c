#include "proto/transport_faulty.h"

#include <string.h>

#include "common/memory.h"
#include "common/rng.h"
#include "proto/transport_ops.h"

struct faulty_transfer {
    struct transfer base;
    struct faulty_transfer *next;
    struct transfer *inner; /* NULL once it is complete */
    unsigned char *received; /* NULL for what is sent */
    size_t bytes;
    int wait; /* polls until completion shows */
};

struct held_frame {
    struct held_frame *next;
    int dest, wait;
    size_t size;
    unsigned char bytes[];
};

struct faulty {
    struct transport base;
    struct transport *inner;
    struct faults faults;
    uint64_t draws;
    long calls, done;
    struct faulty_transfer *all;    /* until they are released */
    int pending;                    /* of them not yet shown as done */
    struct held_frame *head, *tail; /* frames that leave later, in order */
};

static double draw(struct faulty *f)
{
    return (double)(rng_u64(f->faults.seed, (uint64_t)f->base.rank, f->draws++) >> 11) * 0x1p-53;
}

static bool hits(struct faulty *f, double share)
{
    if (!(share > 0) || draw(f) >= share)
        return false;
    f->done++;
    return true;
}

static int delay(struct faulty *f)
{
    int polls = f->faults.delay_polls > 0 ? (int)(draw(f) * (f->faults.delay_polls + 1)) : 0;
    f->done += polls > 0;
    return polls;
}

static void flip(struct faulty *f, unsigned char *bytes, size_t size)
{
    size_t bit = (size_t)(draw(f) * (double)(size * 8));
    bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
}

static enum status call(struct faulty *f, struct error *err)
{
    f->calls++;
    if (f->faults.die_at > 0 && f->calls >= f->faults.die_at)
        FAIL(err, STATUS_INTERNAL, "rank %d died at call %ld, as it was told", f->base.rank, f->calls);
    return STATUS_OK;
}

/* NULL when memory is short. */
static struct faulty_transfer *faulty_wrap(void *received, size_t bytes, struct error *err)
{
    struct faulty_transfer *x = mem_alloc(1, sizeof *x);
    if (!x) {
        error_set(err, STATUS_NOMEM, "no memory for a transfer of %zu bytes", bytes);
        return NULL;
    }
    x->received = received;
    x->bytes = bytes;
    return x;
}

static void faulty_open(struct faulty *f, struct faulty_transfer *x, struct transfer **out)
{
    x->wait = delay(f);
    x->next = f->all;
    f->all = x;
    f->pending++;
    *out = &x->base;
}

static enum status faulty_post(struct transport *t, int dest, const void *bytes, size_t size, struct transfer **out,
                               struct error *err)
{
    struct faulty *f = (struct faulty *)t;
    TRY(call(f, err));
    struct faulty_transfer *x = out ? faulty_wrap(NULL, size, err) : NULL;
    if (out && !x)
        return STATUS_NOMEM;
    struct held_frame *frame = mem_alloc(1, sizeof *frame + size);
    if (!frame) {
        mem_free(x);
        FAIL(err, STATUS_NOMEM, "no memory for a frame of %zu bytes to rank %d", size, dest);
    }
    if (hits(f, f->faults.drop)) {
        mem_free(frame);
    } else {
        frame->dest = dest;
        frame->size = size;
        memcpy(frame->bytes, bytes, size);
        if (hits(f, f->faults.corrupt_frame))
            flip(f, frame->bytes, size);
        frame->wait = delay(f);
        *(f->tail ? &f->tail->next : &f->head) = frame;
        f->tail = frame;
    }
    if (x)
        faulty_open(f, x, out);
    return STATUS_OK;
}

static enum status faulty_send(struct transport *t, int dest, uint32_t tag, const void *data, size_t bytes,
                               struct transfer **out, struct error *err)
{
    struct faulty *f = (struct faulty *)t;
    TRY(call(f, err));
    struct faulty_transfer *x = faulty_wrap(NULL, bytes, err);
    if (!x)
        return STATUS_NOMEM;
    enum status st = transport_send(f->inner, dest, tag, data, bytes, &x->inner, err);
    if (st == STATUS_OK)
        faulty_open(f, x, out);
    else
        mem_free(x);
    return st;
}

static enum status faulty_receive(struct transport *t, int source, uint32_t tag, void *data, size_t bytes,
                                  struct transfer **out, struct error *err)
{
    struct faulty *f = (struct faulty *)t;
    TRY(call(f, err));
    struct faulty_transfer *x = faulty_wrap(data, bytes, err);
    if (!x)
        return STATUS_NOMEM;
    enum status st = transport_receive(f->inner, source, tag, data, bytes, &x->inner, err);
    if (st == STATUS_OK)
        faulty_open(f, x, out);
    else
        mem_free(x);
    return st;
}

/* Lets the frames go whose time has come; one that must wait holds up those behind it. */
static enum status let_go(struct faulty *f, struct error *err)
{
    while (f->head && f->head->wait-- <= 0) {
        struct held_frame *frame = f->head;
        f->head = frame->next;
        if (!f->head)
            f->tail = NULL;
        enum status st = transport_post(f->inner, frame->dest, frame->bytes, frame->size, err);
        mem_free(frame);
        TRY(st);
    }
    return STATUS_OK;
}

static void complete(struct faulty *f)
{
    for (struct faulty_transfer *x = f->all; x; x = x->next) {
        if (x->base.done)
            continue;
        if (x->inner && transport_done(f->inner, x->inner))
            x->inner = NULL;
        if (x->inner || x->wait-- > 0)
            continue;
        if (x->received && hits(f, f->faults.corrupt_data))
            flip(f, x->received, x->bytes);
        f->pending--;
        x->base.done = f->base.progressed = true;
    }
}

static enum status faulty_poll(struct transport *t, struct arrival *out, bool *arrived, struct error *err)
{
    struct faulty *f = (struct faulty *)t;
    TRY(call(f, err));
    TRY(let_go(f, err));
    enum status st = transport_poll(f->inner, out, arrived, err);
    complete(f);
    return st;
}

static void faulty_release(struct transport *t, struct transfer *transfer)
{
    struct faulty_transfer **at = &((struct faulty *)t)->all;
    while (&(*at)->base != transfer)
        at = &(*at)->next;
    *at = (*at)->next;
    mem_free(transfer);
}

/* What is held back must leave soon, so the inner transport may not sleep until something arrives. */
static void faulty_sleep(struct transport *t, long us)
{
    struct faulty *f = (struct faulty *)t;
    if (!f->head && !f->pending)
        f->inner->ops->sleep(f->inner, us);
}

static void faulty_close(struct transport *t, bool orderly)
{
    struct faulty *f = (struct faulty *)t;
    bool died = f->faults.die_at > 0 && f->calls >= f->faults.die_at;
    for (struct held_frame *frame = f->head; frame; frame = frame->next)
        frame->wait = 0;
    if (died || let_go(f, NULL) != STATUS_OK)
        orderly = false;
    for (struct held_frame *frame = f->head, *next; frame; frame = next) {
        next = frame->next;
        mem_free(frame);
    }
    for (struct faulty_transfer *x = f->all, *next; x; x = next) {
        next = x->next;
        mem_free(x);
    }
    f->inner->ops->close(f->inner, orderly);
    mem_free(f);
}

static bool faulty_withdraw(struct transport *t)
{
    return transport_withdraw(((struct faulty *)t)->inner);
}

static void faulty_abort(struct transport *t, int exit_code)
{
    transport_abort(((struct faulty *)t)->inner, exit_code);
}

static const struct transport_ops faulty_ops = {
    .post = faulty_post, .send = faulty_send, .receive = faulty_receive, .poll = faulty_poll, .release = faulty_release,
    .sleep = faulty_sleep, .close = faulty_close, .withdraw = faulty_withdraw, .abort = faulty_abort,
};

enum status transport_faulty_create(struct transport *inner, const struct faults *faults, struct transport **out,
                                    struct error *err)
{
    struct faulty *f = mem_alloc(1, sizeof *f);
    if (!f) {
        transport_abandon(inner);
        FAIL(err, STATUS_NOMEM, "no memory for a faulty transport");
    }
    f->base = (struct transport){.ops = &faulty_ops, .rank = inner->rank, .size = inner->size};
    f->inner = inner;
    f->faults = *faults;
    *out = &f->base;
    return STATUS_OK;
}

long transport_faulty_count(const struct transport *t)
{
    return ((const struct faulty *)t)->done;
}
