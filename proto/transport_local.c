#include "proto/transport_local.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/memory.h"
#include "proto/transport_ops.h"

enum { TAG_LISTS = 64, SHORTEST_SLEEP_US = 1000 };

struct local_transfer {
    struct transfer base;
    struct local_transfer *next;              /* in a list of the world */
    struct local_transfer *before, *after;    /* among all transfers of its endpoint */
    int source, dest;
    uint32_t tag;
    void *data;
    size_t bytes;
};

/* First in, first out. */
struct transfer_list {
    struct local_transfer *head, *tail;
};

struct local_frame {
    struct local_frame *next;
    int source;
    size_t size;
    unsigned char bytes[];
};

struct world;

struct local {
    struct transport base;
    struct world *world;
    pthread_cond_t changed;
    bool open;
    struct local_transfer *all;
    int copies;                                          /* payloads of ours that somebody is copying right now */
    struct local_frame *head, *tail;                     /* arrived frames */
    struct local_frame *current;                         /* the one the caller looks at */
    struct transfer_list finished;                       /* of ours, not yet seen by poll */
    struct transfer_list sends[TAG_LISTS], receives[TAG_LISTS]; /* to this rank, not yet matched */
    char trouble[160];                                   /* why poll fails from now on; "" = it does not */
};

struct world {
    pthread_mutex_t lock; /* guards everything but the bytes of payloads */
    int size, open;
    struct local **ranks;
};

static void list_append(struct transfer_list *list, struct local_transfer *x)
{
    x->next = NULL;
    if (list->tail)
        list->tail->next = x;
    else
        list->head = x;
    list->tail = x;
}

/* Takes the first transfer that agrees in source and tag out of the list. */
static struct local_transfer *list_take(struct transfer_list *list, int source, uint32_t tag)
{
    struct local_transfer *before = NULL;
    for (struct local_transfer *x = list->head; x; before = x, x = x->next)
        if (x->source == source && x->tag == tag) {
            *(before ? &before->next : &list->head) = x->next;
            if (list->tail == x)
                list->tail = before;
            return x;
        }
    return NULL;
}

/* Removes the transfers whose source (or else destination) is `rank` from the list. */
static void list_drop(struct transfer_list *list, int rank, bool by_source)
{
    struct transfer_list kept = {NULL, NULL};
    for (struct local_transfer *x = list->head, *next; x; x = next) {
        next = x->next;
        if ((by_source ? x->source : x->dest) != rank)
            list_append(&kept, x);
    }
    *list = kept;
}

/* Every transfer of an endpoint is known to it, so that a rank that gives up leaks nothing. Only its own thread calls. */
static struct local_transfer *transfer_new(struct local *me)
{
    struct local_transfer *x = mem_alloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->after = me->all;
    if (me->all)
        me->all->before = x;
    me->all = x;
    return x;
}

static void transfer_delete(struct local *me, struct local_transfer *x)
{
    *(x->before ? &x->before->after : &me->all) = x->after;
    if (x->after)
        x->after->before = x->before;
    mem_free(x);
}

static void finish(struct local *owner, struct local_transfer *x)
{
    list_append(&owner->finished, x);
    pthread_cond_signal(&owner->changed);
}

/* Moves a matched payload with the lock released, as nobody else knows of the two transfers any more. */
static void move(struct world *w, struct local_transfer *send, struct local_transfer *receive)
{
    struct local *from = w->ranks[send->source], *to = w->ranks[send->dest];
    if (send->bytes != receive->bytes) {
        snprintf(to->trouble, sizeof to->trouble, "rank %d sent a payload of %zu bytes (tag %u) where %zu were announced",
                 send->source, send->bytes, send->tag, receive->bytes);
        finish(from, send);
        pthread_cond_signal(&to->changed);
        return;
    }
    from->copies++;
    to->copies++;
    pthread_mutex_unlock(&w->lock);
    memcpy(receive->data, send->data, send->bytes);
    pthread_mutex_lock(&w->lock);
    from->copies--;
    to->copies--;
    finish(from, send);
    finish(to, receive);
}

static enum status local_offer(struct transport *t, bool is_send, int source, int dest, uint32_t tag, void *data, size_t bytes,
                               struct transfer **out, struct error *err)
{
    struct world *w = ((struct local *)t)->world;
    struct local_transfer *x = transfer_new((struct local *)t);
    if (!x)
        FAIL(err, STATUS_NOMEM, "no memory for a payload between ranks %d and %d", source, dest);
    x->source = source;
    x->dest = dest;
    x->tag = tag;
    x->data = data;
    x->bytes = bytes;
    pthread_mutex_lock(&w->lock);
    struct local *at = w->ranks[dest];
    struct transfer_list *mine = &(is_send ? at->sends : at->receives)[tag % TAG_LISTS];
    struct transfer_list *theirs = &(is_send ? at->receives : at->sends)[tag % TAG_LISTS];
    struct local_transfer *other = list_take(theirs, source, tag);
    if (other)
        move(w, is_send ? x : other, is_send ? other : x);
    else
        list_append(mine, x);
    pthread_mutex_unlock(&w->lock);
    *out = &x->base;
    return STATUS_OK;
}

static enum status local_send(struct transport *t, int dest, uint32_t tag, const void *data, size_t bytes,
                              struct transfer **out, struct error *err)
{
    return local_offer(t, true, t->rank, dest, tag, (void *)data, bytes, out, err); /* only read from */
}

static enum status local_receive(struct transport *t, int source, uint32_t tag, void *data, size_t bytes,
                                 struct transfer **out, struct error *err)
{
    return local_offer(t, false, source, t->rank, tag, data, bytes, out, err);
}

/* Frames are small, so a copy serves for both forms. */
static enum status local_post(struct transport *t, int dest, const void *bytes, size_t size, struct transfer **out,
                              struct error *err)
{
    struct local *me = (struct local *)t;
    struct world *w = me->world;
    struct local_frame *frame = mem_alloc(1, sizeof *frame + size);
    struct local_transfer *x = frame && out ? transfer_new(me) : NULL;
    if (!frame || (out && !x)) {
        mem_free(frame);
        FAIL(err, STATUS_NOMEM, "no memory for a frame of %zu bytes to rank %d", size, dest);
    }
    frame->source = t->rank;
    frame->size = size;
    memcpy(frame->bytes, bytes, size);
    pthread_mutex_lock(&w->lock);
    if (x) {
        finish(me, x);
        *out = &x->base;
    }
    struct local *to = w->ranks[dest];
    if (!to->open) { /* as with processes: who is gone does not answer */
        mem_free(frame);
    } else {
        if (to->tail)
            to->tail->next = frame;
        else
            to->head = frame;
        to->tail = frame;
        pthread_cond_signal(&to->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return STATUS_OK;
}

static enum status local_poll(struct transport *t, struct arrival *out, bool *arrived, struct error *err)
{
    struct local *me = (struct local *)t;
    struct world *w = me->world;
    enum status st = STATUS_OK;
    pthread_mutex_lock(&w->lock);
    mem_free(me->current);
    me->current = NULL;
    for (struct local_transfer *x = me->finished.head; x; x = x->next)
        x->base.done = t->progressed = true;
    me->finished = (struct transfer_list){NULL, NULL};
    if (me->head) {
        me->current = me->head;
        me->head = me->current->next;
        if (!me->head)
            me->tail = NULL;
        *out = (struct arrival){me->current->bytes, me->current->size, me->current->source};
        *arrived = true;
    } else if (me->trouble[0]) {
        st = error_set(err, STATUS_PEER, "%s", me->trouble);
    }
    pthread_mutex_unlock(&w->lock);
    return st;
}

static void local_release(struct transport *t, struct transfer *transfer)
{
    transfer_delete((struct local *)t, (struct local_transfer *)transfer);
}

/* Whatever there is to poll wakes us up, so the sleep need not be short. */
static void local_sleep(struct transport *t, long us)
{
    struct local *me = (struct local *)t;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (us > SHORTEST_SLEEP_US ? us : SHORTEST_SLEEP_US) * 1000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&me->world->lock);
    while (!me->head && !me->finished.head && !me->trouble[0])
        if (pthread_cond_timedwait(&me->changed, &me->world->lock, &until) == ETIMEDOUT)
            break;
    pthread_mutex_unlock(&me->world->lock);
}

static void world_free(struct world *w)
{
    for (int r = 0; r < w->size; r++)
        if (w->ranks[r]) {
            pthread_cond_destroy(&w->ranks[r]->changed);
            mem_free(w->ranks[r]);
        }
    pthread_mutex_destroy(&w->lock);
    mem_free(w->ranks);
    mem_free(w);
}

/* Tells every other rank why its calls fail from now on, unless it knows of trouble already. */
static void spread(struct world *w, int from, const char *what, int number)
{
    for (int r = 0; r < w->size; r++)
        if (r != from && w->ranks[r]->open && !w->ranks[r]->trouble[0]) {
            snprintf(w->ranks[r]->trouble, sizeof w->ranks[r]->trouble, "rank %d %s (%d)", from, what, number);
            pthread_cond_signal(&w->ranks[r]->changed);
        }
}

/* Nobody touches the memory of our transfers any more; the lock is held. */
static void take_back(struct local *me)
{
    struct world *w = me->world;
    for (int i = 0; i < TAG_LISTS; i++) {
        list_drop(&me->receives[i], me->base.rank, false);
        for (int r = 0; r < w->size; r++)
            list_drop(&w->ranks[r]->sends[i], me->base.rank, true);
    }
    while (me->copies > 0) { /* the copier signals when it has finished */
        struct timespec soon;
        clock_gettime(CLOCK_MONOTONIC, &soon);
        soon.tv_nsec = soon.tv_nsec + 1000000 > 999999999 ? 999999999 : soon.tv_nsec + 1000000;
        pthread_cond_timedwait(&me->changed, &w->lock, &soon);
    }
}

static bool local_withdraw(struct transport *t)
{
    struct local *me = (struct local *)t;
    pthread_mutex_lock(&me->world->lock);
    take_back(me);
    pthread_mutex_unlock(&me->world->lock);
    return true;
}

static void local_close(struct transport *t, bool orderly)
{
    struct local *me = (struct local *)t;
    struct world *w = me->world;
    pthread_mutex_lock(&w->lock);
    take_back(me);
    me->open = false;
    mem_free(me->current);
    for (struct local_frame *frame = me->head, *next; frame; frame = next) {
        next = frame->next;
        mem_free(frame);
    }
    me->current = me->head = me->tail = NULL;
    while (me->all)
        transfer_delete(me, me->all);
    me->finished = (struct transfer_list){NULL, NULL};
    if (!orderly)
        spread(w, t->rank, "gave up", 0);
    bool last = --w->open == 0;
    pthread_mutex_unlock(&w->lock);
    if (last)
        world_free(w);
}

static void local_abort(struct transport *t, int exit_code)
{
    struct local *me = (struct local *)t;
    pthread_mutex_lock(&me->world->lock);
    spread(me->world, t->rank, "ended the run with exit status", exit_code);
    snprintf(me->trouble, sizeof me->trouble, "this rank ended the run with exit status (%d)", exit_code);
    take_back(me);
    pthread_mutex_unlock(&me->world->lock);
}

static const struct transport_ops local_ops = {
    .post = local_post, .send = local_send, .receive = local_receive, .poll = local_poll, .release = local_release,
    .sleep = local_sleep, .close = local_close, .withdraw = local_withdraw, .abort = local_abort,
};

static struct local *endpoint_new(struct world *w, int rank)
{
    struct local *me = mem_alloc(1, sizeof *me);
    if (!me)
        return NULL;
    me->base = (struct transport){.ops = &local_ops, .rank = rank, .size = w->size};
    me->world = w;
    me->open = true;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&me->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return me;
}

enum status transport_local_create(int size, struct transport **endpoints, struct error *err)
{
    struct world *w = mem_alloc(1, sizeof *w);
    if (!w)
        FAIL(err, STATUS_NOMEM, "no memory for %d ranks in one process", size);
    pthread_mutex_init(&w->lock, NULL);
    w->size = w->open = size;
    w->ranks = mem_alloc((size_t)size, sizeof *w->ranks);
    bool complete = w->ranks != NULL;
    if (!complete)
        w->size = 0;
    for (int r = 0; complete && r < size; r++)
        complete = (w->ranks[r] = endpoint_new(w, r)) != NULL;
    if (!complete) {
        world_free(w);
        FAIL(err, STATUS_NOMEM, "no memory for %d ranks in one process", size);
    }
    for (int r = 0; r < size; r++)
        endpoints[r] = &w->ranks[r]->base;
    return STATUS_OK;
}
