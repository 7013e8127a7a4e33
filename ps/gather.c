#include "ps/gather.h"

#include "common/checksum.h"
#include "common/memory.h"
#include "common/slots.h"
#include "ps/reduce.h"

/* One node sum of one worker: a column of the table of announcements. */
struct piece {
    struct slot_node node;
    int worker;
};

enum entry_state { ENTRY_NONE, ENTRY_ANNOUNCED, ENTRY_MOVING, ENTRY_ARRIVED };

/* One piece of one chunk. */
struct entry {
    enum entry_state state;
    uint32_t tag, crc;
    float *buffer;
    struct transfer *transfer;
};

struct gather {
    struct transport *transport;
    struct chunks chunks;
    int slots, credits;
    struct session *sessions;
    int64_t step;
    struct piece *pieces;
    int n_pieces;
    struct entry *entries; /* [chunks.count][n_pieces] */
    int *due;              /* [chunks.count] next piece to be added */
    struct reduce *sums;   /* [chunks.count] */
    float **roots;         /* [chunks.count] */
    struct buffer_pool *pool;
    int *queue; /* announced entries in order of arrival, a ring of n_entries */
    int queue_head, queue_count;
    int *moving; /* entries on their way */
    int n_moving;
    int n_complete, lead;
    bool discarding;
};

static int entry_count(const struct gather *g)
{
    return g->chunks.count * g->n_pieces;
}

static enum status plan_pieces(struct gather *g, int workers, struct error *err)
{
    g->pieces = mem_alloc((size_t)workers * SLOT_MAX_NODES, sizeof *g->pieces);
    if (!g->pieces)
        FAIL(err, STATUS_NOMEM, "no memory to plan the sums of %d workers", workers);
    for (int w = 0; w < workers; w++) {
        struct slot_node nodes[SLOT_MAX_NODES];
        int n = slot_nodes_of_range(g->sessions[w].slots, g->slots, nodes);
        for (int i = 0; i < n; i++)
            g->pieces[g->n_pieces++] = (struct piece){nodes[i], w};
    }
    return STATUS_OK;
}

enum status gather_create(struct transport *transport, const struct chunks *chunks, int slots, struct session *sessions,
                          int workers, int credits, struct gather **out, struct error *err)
{
    struct gather *g = mem_alloc(1, sizeof *g);
    if (!g)
        FAIL(err, STATUS_NOMEM, "no memory to gather gradients");
    *g = (struct gather){.transport = transport, .chunks = *chunks, .slots = slots, .credits = credits, .sessions = sessions};
    enum status st = plan_pieces(g, workers, err);
    if (st == STATUS_OK) {
        size_t chunk_count = (size_t)chunks->count;
        size_t entries = chunk_count * (size_t)g->n_pieces;
        g->entries = mem_alloc(entries, sizeof *g->entries);
        g->queue = mem_alloc(entries, sizeof *g->queue);
        g->moving = mem_alloc(entries, sizeof *g->moving);
        g->due = mem_alloc(chunk_count, sizeof *g->due);
        g->sums = mem_alloc(chunk_count, sizeof *g->sums);
        g->roots = mem_alloc(chunk_count, sizeof *g->roots);
        if (!g->entries || !g->queue || !g->moving || !g->due || !g->sums || !g->roots)
            st = error_set(err, STATUS_NOMEM, "no memory to gather %zu pieces of gradient", entries);
    }
    if (st == STATUS_OK) {
        /* One root per chunk until the update, the lead's partial sums and its due piece, and the credits. */
        int limit = chunks->count + slot_root_level(slots) + 2 + credits;
        st = buffer_pool_create(chunks->chunk_values, 0, limit, &g->pool, err);
    }
    if (st != STATUS_OK) {
        gather_free(g);
        return st;
    }
    *out = g;
    return STATUS_OK;
}

/* Gives all buffers back. Nothing may be moving. */
static void drop_buffers(struct gather *g)
{
    for (int c = 0; c < g->chunks.count; c++) {
        reduce_drop(&g->sums[c]);
        buffer_pool_give(g->pool, g->roots[c]);
        g->roots[c] = NULL;
    }
    for (int i = 0; i < entry_count(g); i++) {
        buffer_pool_give(g->pool, g->entries[i].buffer);
        g->entries[i] = (struct entry){0};
    }
}

void gather_free(struct gather *g)
{
    if (!g)
        return;
    if (g->pool) {
        drop_buffers(g);
        buffer_pool_free(g->pool);
    }
    mem_free(g->pieces);
    mem_free(g->entries);
    mem_free(g->queue);
    mem_free(g->moving);
    mem_free(g->due);
    mem_free(g->sums);
    mem_free(g->roots);
    mem_free(g);
}

void gather_begin(struct gather *g, int64_t step)
{
    drop_buffers(g);
    for (int c = 0; c < g->chunks.count; c++) {
        reduce_begin(&g->sums[c], g->pool, chunk_size(&g->chunks, c), g->slots);
        g->due[c] = 0;
    }
    g->step = step;
    g->queue_head = g->queue_count = g->n_moving = g->n_complete = 0;
    g->lead = g->chunks.count - 1;
    g->discarding = false;
}

enum status gather_announce(struct gather *g, int worker, const struct message_chunk *m, struct error *err)
{
    int piece = 0;
    while (piece < g->n_pieces && (g->pieces[piece].worker != worker || g->pieces[piece].node.level != m->level ||
                                   g->pieces[piece].node.index != m->index))
        piece++;
    if (piece == g->n_pieces || m->chunk < 0 || m->chunk >= g->chunks.count || m->step != g->step ||
        m->bytes != (uint64_t)chunk_size(&g->chunks, m->chunk) * sizeof(float))
        FAIL(err, STATUS_PEER,
             "rank %d announced a gradient that does not fit: step %lld (now %lld), chunk %d of %d, node %d/%d, %llu bytes",
             g->sessions[worker].rank, (long long)m->step, (long long)g->step, m->chunk, g->chunks.count, m->level, m->index,
             (unsigned long long)m->bytes);
    int index = m->chunk * g->n_pieces + piece;
    struct entry *entry = &g->entries[index];
    if (entry->state != ENTRY_NONE)
        FAIL(err, STATUS_PEER, "rank %d announced chunk %d of node %d/%d twice in step %lld", g->sessions[worker].rank,
             m->chunk, m->level, m->index, (long long)m->step);
    entry->state = ENTRY_ANNOUNCED;
    entry->tag = m->tag;
    entry->crc = m->crc32c;
    g->queue[(g->queue_head + g->queue_count++) % entry_count(g)] = index;
    return STATUS_OK;
}

/* Asks for a payload if a buffer may be used for it. */
static enum status start(struct gather *g, int index, bool *started, struct error *err)
{
    struct entry *entry = &g->entries[index];
    int chunk = index / g->n_pieces;
    *started = false;
    TRY(buffer_pool_take(g->pool, &entry->buffer, err));
    if (!entry->buffer)
        return STATUS_OK;
    struct session *session = &g->sessions[g->pieces[index % g->n_pieces].worker];
    enum status st = transport_receive(g->transport, session->rank, entry->tag, entry->buffer,
                                       (size_t)chunk_size(&g->chunks, chunk) * sizeof(float), &entry->transfer, err);
    if (st != STATUS_OK) {
        buffer_pool_give(g->pool, entry->buffer);
        entry->buffer = NULL;
        return st;
    }
    entry->state = ENTRY_MOVING;
    g->moving[g->n_moving++] = index;
    *started = true;
    return STATUS_OK;
}

static bool lead_is_due(const struct gather *g, int *index)
{
    if (g->lead < 0 || g->due[g->lead] == g->n_pieces)
        return false;
    *index = g->lead * g->n_pieces + g->due[g->lead];
    return g->entries[*index].state == ENTRY_ANNOUNCED;
}

static enum status start_receives(struct gather *g, struct error *err)
{
    bool started;
    int index;
    if (lead_is_due(g, &index))
        TRY(start(g, index, &started, err));
    /* All other pieces in order of arrival, as long as the buffers beyond roots and the lead's own allow. */
    while (g->queue_count > 0) {
        index = g->queue[g->queue_head];
        if (g->entries[index].state == ENTRY_ANNOUNCED) {
            if (buffer_pool_in_use(g->pool) - g->n_complete >= g->credits)
                break;
            TRY(start(g, index, &started, err));
            if (!started)
                break;
        }
        g->queue_head = (g->queue_head + 1) % entry_count(g);
        g->queue_count--;
    }
    return STATUS_OK;
}

/* Adds what is due of a chunk, as far as it has arrived. */
static enum status add_arrived(struct gather *g, int chunk, struct error *err)
{
    while (g->due[chunk] < g->n_pieces) {
        struct entry *entry = &g->entries[chunk * g->n_pieces + g->due[chunk]];
        if (entry->state != ENTRY_ARRIVED)
            return STATUS_OK;
        float *buffer = entry->buffer;
        entry->buffer = NULL;
        TRY(reduce_push(&g->sums[chunk], g->pieces[g->due[chunk]].node, buffer, err));
        g->due[chunk]++;
    }
    if (!reduce_complete(&g->sums[chunk]))
        FAIL(err, STATUS_INTERNAL, "chunk %d: all pieces are in but the sum is not complete", chunk);
    g->roots[chunk] = reduce_take(&g->sums[chunk]);
    g->n_complete++;
    while (g->lead >= 0 && g->due[g->lead] == g->n_pieces)
        g->lead--;
    return STATUS_OK;
}

static enum status take_in(struct gather *g, int index, int64_t now_ms, struct error *err)
{
    struct entry *entry = &g->entries[index];
    int chunk = index / g->n_pieces;
    struct piece *piece = &g->pieces[index % g->n_pieces];
    size_t bytes = (size_t)chunk_size(&g->chunks, chunk) * sizeof(float);
    entry->state = ENTRY_ARRIVED;
    entry->transfer = NULL;
    session_received(&g->sessions[piece->worker], bytes, now_ms);
    session_step_push(&g->sessions[piece->worker], now_ms);
    if (g->discarding) {
        buffer_pool_give(g->pool, entry->buffer);
        entry->buffer = NULL;
        return STATUS_OK;
    }
    uint32_t crc = crc32c(entry->buffer, bytes);
    if (crc != entry->crc)
        FAIL(err, STATUS_PEER, "chunk %d from rank %d arrived damaged: checksum %08x, announced %08x", chunk,
             g->sessions[piece->worker].rank, crc, entry->crc);
    return add_arrived(g, chunk, err);
}

enum status gather_progress(struct gather *g, int64_t now_ms, bool *busy, struct error *err)
{
    for (int i = 0; i < g->n_moving;) {
        int index = g->moving[i];
        if (!transport_done(g->transport, g->entries[index].transfer)) {
            i++;
            continue;
        }
        g->moving[i] = g->moving[--g->n_moving];
        TRY(take_in(g, index, now_ms, err));
    }
    TRY(start_receives(g, err));
    *busy = g->n_moving > 0;
    return STATUS_OK;
}

bool gather_complete(const struct gather *g)
{
    return g->n_complete == g->chunks.count;
}

const float *const *gather_sums(const struct gather *g)
{
    return (const float *const *)g->roots;
}

int gather_waits_for(const struct gather *g)
{
    return g->lead < 0 ? -1 : g->pieces[g->due[g->lead]].worker;
}

void gather_discard(struct gather *g)
{
    g->discarding = true;
    for (int i = 0; i < entry_count(g); i++)
        if (g->entries[i].state == ENTRY_ARRIVED && g->entries[i].buffer) {
            buffer_pool_give(g->pool, g->entries[i].buffer);
            g->entries[i].buffer = NULL;
        }
    for (int c = 0; c < g->chunks.count; c++)
        reduce_drop(&g->sums[c]);
}

bool gather_drained(const struct gather *g)
{
    return g->queue_count == 0 && g->n_moving == 0;
}
