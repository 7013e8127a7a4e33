#include "ps/reduce.h"

#include <pthread.h>

#include "common/compiler.h"
#include "common/memory.h"

enum { BUFFER_ALIGN = 64 };

struct buffer_pool {
    pthread_mutex_t lock;
    int64_t values;
    size_t headroom;  /* in front of each buffer, a multiple of BUFFER_ALIGN */
    int limit;
    int in_use, peak, n_free;
    float **free;     /* [limit] */
};

enum status buffer_pool_create(int64_t values, size_t headroom, int limit, struct buffer_pool **out,
                               struct error *err)
{
    if (values < 1 || limit < 1)
        FAIL(err, STATUS_INTERNAL, "a pool of %d buffers of %lld values makes no sense", limit, (long long)values);
    struct buffer_pool *pool = mem_alloc(1, sizeof *pool);
    float **list = mem_alloc((size_t)limit, sizeof *list);
    if (!pool || !list) {
        mem_free(pool);
        mem_free(list);
        FAIL(err, STATUS_NOMEM, "no memory for a list of %d buffers", limit);
    }
    pthread_mutex_init(&pool->lock, NULL);
    pool->values = values;
    pool->headroom = (headroom + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
    pool->limit = limit;
    pool->free = list;
    *out = pool;
    return STATUS_OK;
}

/* Start of the block that a buffer lies in. */
static void *block_of(const struct buffer_pool *pool, float *buffer)
{
    return (char *)buffer - pool->headroom;
}

void buffer_pool_free(struct buffer_pool *pool)
{
    if (!pool)
        return;
    for (int i = 0; i < pool->n_free; i++)
        mem_free_aligned(block_of(pool, pool->free[i]));
    pthread_mutex_destroy(&pool->lock);
    mem_free(pool->free);
    mem_free(pool);
}

enum status buffer_pool_take(struct buffer_pool *pool, float **buffer, struct error *err)
{
    *buffer = NULL;
    pthread_mutex_lock(&pool->lock);
    bool room = pool->in_use < pool->limit;
    bool reuse = room && pool->n_free > 0;
    if (reuse)
        *buffer = pool->free[--pool->n_free];
    if (room && ++pool->in_use > pool->peak)
        pool->peak = pool->in_use;
    pthread_mutex_unlock(&pool->lock);
    if (!room || reuse)
        return STATUS_OK;

    size_t bytes = pool->headroom + (size_t)pool->values * sizeof(float);
    char *block = mem_alloc_aligned(bytes, 1);
    if (!block) {
        pthread_mutex_lock(&pool->lock);
        int others = --pool->in_use;
        pthread_mutex_unlock(&pool->lock);
        FAIL(err, STATUS_NOMEM, "no memory for a buffer of %zu bytes to receive gradients in (%d of %d are in use)",
             bytes, others, pool->limit);
    }
    *buffer = (float *)(block + pool->headroom);
    return STATUS_OK;
}

void buffer_pool_give(struct buffer_pool *pool, float *buffer)
{
    if (!buffer)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->free[pool->n_free++] = buffer;
    pool->in_use--;
    pthread_mutex_unlock(&pool->lock);
}

static int read_locked(const struct buffer_pool *pool, const int *number)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&pool->lock;
    pthread_mutex_lock(lock);
    int value = *number;
    pthread_mutex_unlock(lock);
    return value;
}

int buffer_pool_in_use(const struct buffer_pool *pool)
{
    return read_locked(pool, &pool->in_use);
}

int buffer_pool_peak(const struct buffer_pool *pool)
{
    return read_locked(pool, &pool->peak);
}

bool buffer_pool_has_room(const struct buffer_pool *pool)
{
    return buffer_pool_in_use(pool) < pool->limit;
}

void reduce_begin(struct reduce *r, struct buffer_pool *pool, int64_t values, int slots)
{
    reduce_drop(r);
    r->pool = pool;
    r->values = values;
    r->slots = slots;
    r->next = 0;
}

int reduce_expects(const struct reduce *r)
{
    return r->next;
}

MULTIVERSION void reduce_add(float *restrict left, const float *restrict right, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        left[i] = left[i] + right[i];
}

/* Joins the last two sums while they are siblings. A node whose right sibling would be empty stands for its
 * parent as it is. */
static void merge(struct reduce *r)
{
    int root = slot_root_level(r->slots);
    for (;;) {
        struct slot_node *top = &r->nodes[r->depth - 1];
        if (top->level == root)
            return;
        struct slot_node parent = {top->level + 1, top->index / 2};
        if (top->index % 2) {
            r->depth--;
            reduce_add(r->sums[r->depth - 1], r->sums[r->depth], r->values);
            buffer_pool_give(r->pool, r->sums[r->depth]);
            r->nodes[r->depth - 1] = parent;
        } else if (!slot_node_has_right(parent, r->slots)) {
            *top = parent;
        } else {
            return;
        }
    }
}

enum status reduce_push(struct reduce *r, struct slot_node node, float *buffer, struct error *err)
{
    bool possible = node.level >= 0 && node.level <= slot_root_level(r->slots) && node.index >= 0;
    struct slot_range covered = possible ? slot_node_range(node, r->slots) : (struct slot_range){0, 0};
    if (covered.count < 1 || covered.first != r->next) {
        buffer_pool_give(r->pool, buffer);
        if (covered.count < 1)
            FAIL(err, STATUS_PEER, "a sum came for node %d of level %d, which does not exist with %d slots",
                 node.index, node.level, r->slots);
        FAIL(err, STATUS_PEER, "the sum of slots %d to %d came while that from slot %d on was due", covered.first,
             covered.first + covered.count - 1, r->next);
    }
    /* Every node on the stack is complete and wider than a node that may follow it, so the left sibling of an odd
     * node is always the one on top. */
    r->nodes[r->depth] = node;
    r->sums[r->depth] = buffer;
    r->depth++;
    r->next += covered.count;
    merge(r);
    return STATUS_OK;
}

bool reduce_complete(const struct reduce *r)
{
    return r->slots > 0 && r->next == r->slots && r->depth == 1;
}

float *reduce_take(struct reduce *r)
{
    if (!reduce_complete(r))
        return NULL;
    r->depth = 0;
    return r->sums[0];
}

void reduce_drop(struct reduce *r)
{
    while (r->depth > 0)
        buffer_pool_give(r->pool, r->sums[--r->depth]);
    r->next = 0;
}
