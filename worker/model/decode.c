/* Decoding: the layers' keys and values of all earlier tokens are kept, new tokens are appended to them. */
#include "common/memory.h"
#include "worker/model/forward.h"
#include "worker/model/routed.h"

struct kv_cache {
    int layers, capacity;
    int32_t length;
    int64_t row;       /* values of one position: G * C */
    float *keys, *values; /* [L][capacity][G][C] */
    int32_t *positions;   /* [capacity] 0, 1, 2, ... */
    struct loar_memory *memories; /* [L] where the model is routed, else NULL */
    int32_t prompt, task;     /* for routing; prompt 0: the tokens that come first */
};

enum status kv_cache_create(const struct model *model, int max_positions, struct kv_cache **out, struct error *err)
{
    const struct model_config *c = &model->config;
    struct kv_cache *cache = mem_alloc(1, sizeof *cache);
    if (!cache)
        FAIL(err, STATUS_NOMEM, "no memory for a cache of %d positions", max_positions);
    cache->layers = c->layers;
    cache->capacity = max_positions;
    cache->row = c->kv_heads * c->head_dim;
    size_t values = (size_t)c->layers * (size_t)max_positions * (size_t)cache->row;
    cache->keys = mem_alloc_aligned(values, sizeof *cache->keys);
    cache->values = mem_alloc_aligned(values, sizeof *cache->values);
    cache->positions = mem_alloc((size_t)max_positions, sizeof *cache->positions);
    if (!cache->keys || !cache->values || !cache->positions) {
        kv_cache_free(cache);
        FAIL(err, STATUS_NOMEM, "no memory for a cache of %d positions in %d layers", max_positions, c->layers);
    }
    for (int i = 0; i < max_positions; i++)
        cache->positions[i] = i;
    if (model->routing) {
        cache->memories = mem_alloc((size_t)c->layers, sizeof *cache->memories);
        enum status st = cache->memories ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for the routing of a cache");
        for (int i = 0; st == STATUS_OK && i < c->layers; i++)
            st = loar_memory_create(c->width, c->heads, &cache->memories[i], err);
        if (st != STATUS_OK) {
            kv_cache_free(cache);
            return st;
        }
    }
    *out = cache;
    return STATUS_OK;
}

void kv_cache_free(struct kv_cache *cache)
{
    if (!cache)
        return;
    for (int i = 0; cache->memories && i < cache->layers; i++)
        loar_memory_free(&cache->memories[i]);
    mem_free(cache->memories);
    mem_free_aligned(cache->keys);
    mem_free_aligned(cache->values);
    mem_free(cache->positions);
    mem_free(cache);
}

void kv_cache_reset(struct kv_cache *cache)
{
    cache->length = 0;
    cache->prompt = 0;
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

/* Each layer writes its new keys and values behind the old ones and reads all of them. */
static void use_cache(struct workspace *w, const struct kv_cache *cache)
{
    for (int i = 0; i < cache->layers; i++) {
        int64_t layer = (int64_t)i * cache->capacity * cache->row, behind = layer + cache->length * cache->row;
        w->layers[i].k_seen = cache->keys + layer;
        w->layers[i].v_seen = cache->values + layer;
        w->layers[i].k = cache->keys + behind;
        w->layers[i].v = cache->values + behind;
    }
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
    TRY(workspace_reserve(&m->workspace, c, m->options.checkpointing, WORKSPACE_FORWARD, n, 1, 1, err));
    m->workspace.segments[0] = (struct attention_segment){0, 0, n, cache->length + n};
    use_cache(&m->workspace, cache);
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
    };
    if (m->routing) {
        cache->prompt = cache->length == 0 && cache->prompt == 0 ? n : cache->prompt;
        TRY(routing_begin(m->routing, c, 1, (int32_t[]){0, n}, &cache->length, &cache->prompt, &cache->task, err));
    }
    TRY(model_attention_reserve(m, &pass.attention, false, err));
    struct stream stream = forward_layers(&pass, m, tokens);
    TRY(routing_end(m->routing, err));
    head_logits(&pass, &m->plan, stream, n - 1, 1, logits);
    cache->length += n;
    return STATUS_OK;
}
