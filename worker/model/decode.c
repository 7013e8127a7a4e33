/* Decoding: the layers' keys and values of all earlier tokens are kept, new tokens are appended to them. */
#include <string.h>

#include "common/memory.h"
#include "worker/model/forward.h"
#include "worker/model/routed.h"

/* A layer with a window forgets keys that no later query can see: behind the sinks, rows move down to make room. Positions
 * among the rows that are kept then stand for true ones, and window and sinks are the same ranges in both. */
struct layer_cache {
    float *keys, *values;      /* [capacity][G][C] */
    int sinks, window;         /* 0: all */
    int32_t capacity, length;
};

struct kv_cache {
    int layers, capacity;
    int32_t length;
    int64_t row;       /* values of one position: G * C */
    int piece;         /* tokens that may be appended at once */
    struct layer_cache *layer;    /* [L] */
    struct attention_segment *segments; /* [L] */
    int32_t *positions;   /* [capacity] 0, 1, 2, ... */
    struct loar_memory *memories; /* [L] where the model is routed, else NULL */
    int32_t prompt, task;     /* for routing; prompt 0: the tokens that come first */
};

/* Tokens that a cache with forgetful layers takes at once: few, so that little room is kept for them. */
enum { PIECE = 256 };

static enum status create_layer(const struct model_config *c, int layer, struct kv_cache *cache, struct error *err)
{
    struct layer_cache *l = &cache->layer[layer];
    const struct loar_layer *shape = c->loar ? &c->loar->layers[layer] : NULL;
    l->capacity = cache->capacity;
    if (shape && shape->window > 0 && (int64_t)shape->sinks + shape->window - 1 + PIECE < cache->capacity) {
        l->window = shape->window;
        l->sinks = shape->sinks;
        l->capacity = l->sinks + l->window - 1 + PIECE;
        cache->piece = PIECE;
    }
    l->keys = mem_alloc_aligned((size_t)(l->capacity * cache->row), sizeof *l->keys);
    l->values = mem_alloc_aligned((size_t)(l->capacity * cache->row), sizeof *l->values);
    if (!l->keys || !l->values)
        FAIL(err, STATUS_NOMEM, "no memory for a cache of %d positions in %d layers", l->capacity, c->layers);
    return STATUS_OK;
}

static enum status fill_cache(const struct model *model, struct kv_cache *cache, struct error *err)
{
    const struct model_config *c = &model->config;
    size_t layers = (size_t)c->layers;
    cache->layer = mem_alloc(layers, sizeof *cache->layer);
    cache->segments = mem_alloc(layers, sizeof *cache->segments);
    cache->positions = mem_alloc((size_t)cache->capacity, sizeof *cache->positions);
    cache->memories = model->routing ? mem_alloc(layers, sizeof *cache->memories) : NULL;
    if (!cache->layer || !cache->segments || !cache->positions || (model->routing && !cache->memories))
        FAIL(err, STATUS_NOMEM, "no memory for a cache of %d positions in %d layers", cache->capacity, c->layers);
    for (int i = 0; i < cache->capacity; i++)
        cache->positions[i] = i;
    for (int i = 0; i < c->layers; i++) {
        TRY(create_layer(c, i, cache, err));
        if (model->routing)
            TRY(loar_memory_create(c->width, c->heads, &cache->memories[i], err));
    }
    return STATUS_OK;
}

enum status kv_cache_create(const struct model *model, int max_positions, struct kv_cache **out, struct error *err)
{
    const struct model_config *c = &model->config;
    struct kv_cache *cache = mem_alloc(1, sizeof *cache);
    if (!cache)
        FAIL(err, STATUS_NOMEM, "no memory for a cache of %d positions", max_positions);
    cache->layers = c->layers;
    cache->capacity = cache->piece = max_positions;
    cache->row = c->kv_heads * c->head_dim;
    enum status st = fill_cache(model, cache, err);
    if (st != STATUS_OK) {
        kv_cache_free(cache);
        return st;
    }
    *out = cache;
    return STATUS_OK;
}

void kv_cache_free(struct kv_cache *cache)
{
    if (!cache)
        return;
    for (int i = 0; cache->layer && i < cache->layers; i++) {
        mem_free_aligned(cache->layer[i].keys);
        mem_free_aligned(cache->layer[i].values);
    }
    for (int i = 0; cache->memories && i < cache->layers; i++)
        loar_memory_free(&cache->memories[i]);
    mem_free(cache->memories);
    mem_free(cache->layer);
    mem_free(cache->segments);
    mem_free(cache->positions);
    mem_free(cache);
}

void kv_cache_reset(struct kv_cache *cache)
{
    cache->length = 0;
    cache->prompt = 0;
    for (int i = 0; i < cache->layers; i++)
        cache->layer[i].length = 0;
    for (int i = 0; cache->memories && i < cache->layers; i++)
        loar_memory_reset(&cache->memories[i]);
}

void kv_cache_set_task(struct kv_cache *cache, int prompt, int task)
{
    cache->prompt = prompt;
    cache->task = task;
}

int kv_cache_length(const struct kv_cache *cache)
{
    return cache->length;
}

size_t kv_cache_bytes(const struct kv_cache *cache)
{
    int64_t positions = 0;
    for (int i = 0; i < cache->layers; i++)
        positions += cache->layer[i].capacity;
    return (size_t)(2 * positions * cache->row) * sizeof(float);
}

/* Room for n more rows: what the first of them no longer sees goes. */
static void forget(struct layer_cache *l, int64_t row, int n)
{
    if (l->length + n <= l->capacity)
        return;
    int keep = l->window - 1, from = l->length - keep;
    size_t bytes = (size_t)(keep * row) * sizeof *l->keys;
    memmove(l->keys + l->sinks * row, l->keys + from * row, bytes);
    memmove(l->values + l->sinks * row, l->values + from * row, bytes);
    l->length = l->sinks + keep;
}

/* Each layer writes its n new keys and values behind the old ones and reads all of them. */
static void use_cache(struct workspace *w, struct kv_cache *cache, int n)
{
    for (int i = 0; i < cache->layers; i++) {
        struct layer_cache *l = &cache->layer[i];
        forget(l, cache->row, n);
        w->layers[i].k_seen = l->keys;
        w->layers[i].v_seen = l->values;
        w->layers[i].k = l->keys + l->length * cache->row;
        w->layers[i].v = l->values + l->length * cache->row;
        l->length += n;
        cache->segments[i] = (struct attention_segment){0, 0, n, l->length};
    }
}

/* logits: NULL where more tokens follow. */
static enum status decode_piece(struct model *m, const float *values, struct kv_cache *cache, const int32_t *tokens, int n,
                                float *logits, struct error *err)
{
    const struct model_config *c = &m->config;
    TRY(workspace_reserve(&m->workspace, c, m->options.checkpointing, WORKSPACE_FORWARD, n, 1, 1, err));
    m->workspace.segments[0] = (struct attention_segment){0, 0, n, cache->length + n}; /* the longest that a layer may have */
    struct pass pass = {
        .config = c,
        .pool = m->pool,
        .workspace = &m->workspace,
        .values = values,
        .n = n,
        .positions = cache->positions + cache->length,
        .cosine = m->cosine,
        .sine = m->sine,
        .attention = {c->heads, c->kv_heads, (int)c->head_dim, 1, m->workspace.segments},
        .routing = m->routing,
        .memories = cache->memories,
        .layer_segments = cache->segments,
        .counters = &m->counters,
    };
    counters_resume(&m->counters);
    if (m->routing)
        TRY(routing_begin(m->routing, c, 1, (int32_t[]){0, n}, &cache->length, &cache->prompt, &cache->task, err));
    TRY(model_attention_reserve(m, &pass.attention, false, err));
    use_cache(&m->workspace, cache, n);
    cache->length += n;
    struct stream stream = forward_layers(&pass, m, tokens);
    TRY(routing_end(m->routing, err));
    if (logits)
        head_logits(&pass, &m->plan, stream, n - 1, 1, logits);
    counters_lap(&m->counters, MODEL_PART_HEAD);
    return STATUS_OK;
}

enum status model_decode(struct model *m, const float *values, struct kv_cache *cache, const int32_t *tokens, int n,
                         float *logits, struct error *err)
{
    const struct model_config *c = &m->config;
    if (n < 1)
        FAIL(err, STATUS_INTERNAL, "decoding needs at least one new token, not %d", n);
    if (n > cache->capacity - cache->length)
        FAIL(err, STATUS_USAGE, "%d tokens and %d before them exceed the %d positions of the cache; lower the number of new "
             "tokens", n, cache->length, cache->capacity);
    TRY(forward_check_ids(c, tokens, n, 0, "token id", err));
    TRY(model_rope_reserve(m, cache->length + n, err));
    cache->prompt = cache->length == 0 && cache->prompt == 0 ? n : cache->prompt;
    for (int done = 0; done < n;) {
        int piece = n - done < cache->piece ? n - done : cache->piece;
        TRY(decode_piece(m, values, cache, tokens + done, piece, done + piece == n ? logits : NULL, err));
        done += piece;
    }
    return STATUS_OK;
}
