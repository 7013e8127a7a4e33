/* Decoding: the layers' keys and values of all earlier tokens are kept, new tokens are appended to them. */
#include <string.h>

#include "common/memory.h"
#include "worker/model/forward.h"
#include "worker/model/routed.h"

/* A layer with a window forgets keys that no later query can see: behind the sinks, rows move down to make room. Positions
 * among the rows that are kept then stand for true ones, and window and sinks are the same ranges in both. */
struct layer_cache {
    int sinks, window; /* 0: all */
    int length;        /* rows that are kept */
};

struct kv_cache {
    int layers, capacity;
    int32_t length;
    int kv_heads;
    int64_t head_dim;
    int piece;         /* tokens that may be appended at once */
    struct layer_cache *layer;    /* [L] */
    struct cached_layer *cached;  /* [L] */
    int32_t *positions;   /* [capacity] 0, 1, 2, ... */
    struct loar_memory *memories; /* [L] where the model is routed, else NULL */
    int32_t prompt, task;     /* for routing; prompt 0: the tokens that come first */
};

/* Tokens that a cache with forgetful layers takes at once: few, so that little room is kept for them. */
enum { PIECE = 256 };

static enum status create_layer(const struct model_config *c, int layer, struct kv_cache *cache, struct error *err)
{
    struct layer_cache *l = &cache->layer[layer];
    struct cached_layer *rows = &cache->cached[layer];
    const struct loar_layer *shape = c->loar ? &c->loar->layers[layer] : NULL;
    rows->capacity = cache->capacity;
    if (shape && shape->window > 0 && (int64_t)shape->sinks + shape->window - 1 + PIECE < cache->capacity) {
        l->window = shape->window;
        l->sinks = shape->sinks;
        rows->capacity = l->sinks + l->window - 1 + PIECE;
        cache->piece = PIECE;
    }
    size_t values = (size_t)(rows->capacity * cache->kv_heads * cache->head_dim);
    rows->keys = mem_alloc_aligned(values, sizeof *rows->keys);
    rows->values = mem_alloc_aligned(values, sizeof *rows->values);
    if (!rows->keys || !rows->values)
        FAIL(err, STATUS_NOMEM, "no memory for a cache of %d positions in %d layers", cache->capacity, c->layers);
    return STATUS_OK;
}

static enum status fill_cache(const struct model *model, struct kv_cache *cache, struct error *err)
{
    const struct model_config *c = &model->config;
    size_t layers = (size_t)c->layers;
    cache->layer = mem_alloc(layers, sizeof *cache->layer);
    cache->cached = mem_alloc(layers, sizeof *cache->cached);
    cache->positions = mem_alloc((size_t)cache->capacity, sizeof *cache->positions);
    cache->memories = c->loar ? mem_alloc(layers, sizeof *cache->memories) : NULL;
    if (!cache->layer || !cache->cached || !cache->positions || (c->loar && !cache->memories))
        FAIL(err, STATUS_NOMEM, "no memory for a cache of %d positions in %d layers", cache->capacity, c->layers);
    for (int i = 0; i < cache->capacity; i++)
        cache->positions[i] = i;
    for (int i = 0; i < c->layers; i++) {
        TRY(create_layer(c, i, cache, err));
        if (c->loar)
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
    cache->kv_heads = c->kv_heads;
    cache->head_dim = c->head_dim;
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
    for (int i = 0; cache->cached && i < cache->layers; i++) {
        mem_free_aligned(cache->cached[i].keys);
        mem_free_aligned(cache->cached[i].values);
    }
    for (int i = 0; cache->memories && i < cache->layers; i++)
        loar_memory_free(&cache->memories[i]);
    mem_free(cache->memories);
    mem_free(cache->layer);
    mem_free(cache->cached);
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
        positions += cache->cached[i].capacity;
    return (size_t)(2 * positions * cache->kv_heads * cache->head_dim) * sizeof(float);
}

/* Room for n more rows: what the first of them no longer sees goes. */
static void forget(const struct kv_cache *cache, struct layer_cache *l, const struct cached_layer *rows, int n)
{
    if (l->length + n <= rows->capacity)
        return;
    int keep = l->window - 1, from = l->length - keep;
    size_t bytes = (size_t)(keep * cache->head_dim) * sizeof *rows->keys;
    for (int g = 0; g < cache->kv_heads; g++) {
        int64_t head = g * rows->capacity * cache->head_dim, to = head + l->sinks * cache->head_dim;
        memmove(rows->keys + to, rows->keys + head + from * cache->head_dim, bytes);
        memmove(rows->values + to, rows->values + head + from * cache->head_dim, bytes);
    }
    l->length = l->sinks + keep;
}

/* Each layer appends n new keys and values and reads all of them. */
static void use_cache(struct kv_cache *cache, int n)
{
    for (int i = 0; i < cache->layers; i++) {
        struct layer_cache *l = &cache->layer[i];
        struct cached_layer *rows = &cache->cached[i];
        forget(cache, l, rows, n);
        rows->at = l->length;
        l->length += n;
        rows->segment = (struct attention_segment){0, 0, n, l->length};
    }
}

/* logits: NULL where more tokens follow. */
static enum status decode_piece(struct model *m, const float *values, struct kv_cache *cache, const int32_t *tokens, int n,
                                float *logits, struct error *err)
{
    const struct model_config *c = &m->config;
    TRY(workspace_reserve(&m->workspace, c, m->options.checkpointing, 0, WORKSPACE_FORWARD, n, 1, 1, err));
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
        .cached = cache->cached,
        .counters = &m->counters,
    };
    counters_resume(&m->counters);
    TRY(routing_begin(m->routing, c, 1, (int32_t[]){0, n}, &cache->length, &cache->prompt, &cache->task, err));
    TRY(model_attention_reserve(m, &pass.attention, false, err));
    use_cache(cache, n);
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
    TRY(model_check_words(m, err));
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
