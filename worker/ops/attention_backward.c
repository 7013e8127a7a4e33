/* Backward attention: weights are recomputed tile by tile from the stored log-sum-exp. One task per sequence, KV head and
 * part of its keys walks its tiles in a fixed order. The tasks of one head add to the same dq, so each part has its own,
 * added up in order at the end. How keys are cut depends on their number alone, so no bit depends on the threads. */
#include "worker/ops/attention.h"

#include <math.h>

#include "common/compiler.h"
#include "worker/ops/attention_tile.h"
#include "worker/ops/vector.h"

/* Keys are cut into parts of this many or more, so that few long sequences or few active heads still make enough tasks. */
enum { PART_KEYS = 1024, MAX_PARTS = 4, DELTA_ROWS = 256 };

struct backward {
    const struct attention *a;
    const float *q, *k, *v, *lse, *dout, *delta;
    float *dq, *dk, *dv;
    const float *packed_k, *packed_v, *along_k;
    float *parts;       /* dq of parts 1, 2, ...: [MAX_PARTS - 1][rows][H][C] */
    int64_t part_values;
    float *scratch;     /* per thread */
};

static int parts_of(const struct attention_segment *s)
{
    int parts = s->keys / PART_KEYS;
    return parts < 1 ? 1 : parts > MAX_PARTS ? MAX_PARTS : parts;
}

static int part_begin(const struct attention_segment *s, int part)
{
    int each = (s->keys / parts_of(s) + TILE_KEYS - 1) / TILE_KEYS * TILE_KEYS;
    return part == parts_of(s) ? s->keys : part * each;
}

static int64_t rows_of(const struct attention *a)
{
    const struct attention_segment *last = &a->segments[a->n_segments - 1];
    return a->n_segments ? last->query_first + last->queries : 0;
}

static int most_parts(const struct attention *a)
{
    int most = 1;
    for (int s = 0; s < a->n_segments; s++)
        most = larger(most, parts_of(&a->segments[s]));
    return most;
}

size_t attention_scratch_values(const struct attention *a, int threads, bool backward)
{
    int64_t each = (int64_t)threads * SCRATCH_VALUES, parts = (most_parts(a) - 1) * rows_of(a) * a->heads * a->head_dim;
    int64_t across = packed_values(a, PACK_ACROSS), along = packed_values(a, PACK_ALONG);
    return (size_t)(across + along + each + (backward ? across + parts : 0));
}

MULTIVERSION static float dot(int n, const float *x, const float *y)
{
    return lanes_dot(n, x, y);
}

static int delta_blocks(const struct attention *a)
{
    int blocks = 0;
    for (int s = 0; s < a->n_segments; s++)
        blocks += (a->segments[s].queries + DELTA_ROWS - 1) / DELTA_ROWS;
    return blocks;
}

struct deltas {
    const struct attention *a;
    const float *out, *dout;
    float *delta;
};

static void delta_task(void *context, int task, int thread)
{
    (void)thread;
    const struct deltas *d = context;
    const struct attention *a = d->a;
    int head = task % a->heads, block = task / a->heads, segment = 0, c = a->head_dim;
    for (int blocks; block >= (blocks = (a->segments[segment].queries + DELTA_ROWS - 1) / DELTA_ROWS); segment++)
        block -= blocks;
    struct view v = view_of(a, segment, head);
    for (int j = block * DELTA_ROWS; j < smaller(v.count, (block + 1) * DELTA_ROWS); j++) {
        int64_t at = view_values(&v, j);
        d->delta[at / c] = dot(c, d->out + at, d->dout + at);
    }
}

void attention_delta(struct threads *pool, const struct attention *a, const float *out, const float *dout, float *delta)
{
    struct deltas d = {a, out, dout, delta};
    threads_run(pool, delta_blocks(a) * a->heads, delta_task, &d);
}

/* scores -> weights, dweights -> gradient of the scores, of one query; columns outside [first, end) become zero.
 * scale: C^-1/2; exponent: score_scale(C). */
MULTIVERSION static void harden_row(float *restrict scores, float *restrict dweights, int first, int end, int columns,
                                    float scale, float exponent, float lse, float delta)
{
    for (int i = 0; i < first; i++)
        scores[i] = dweights[i] = 0.0f;
    for (int i = first; i < end; i++) {
        float weight = exp2_fast(scores[i] * exponent - lse);
        scores[i] = weight;
        dweights[i] = weight * (dweights[i] - delta) * scale;
    }
    for (int i = end; i < columns; i++)
        scores[i] = dweights[i] = 0.0f;
}

/* Rows [first, last) of a head that meet one tile of keys. */
struct meeting {
    const struct backward *b;
    const struct view *view;
    int segment, kv, first, last, key, columns;
    float *weights, *dscores, *dq; /* of row `first` on, TILE_KEYS apart; dq of the part */
};

/* Weights and gradients of the scores of one strip, and its share in dq. */
static void strip_rows(const struct meeting *t, const struct strip *s)
{
    const struct backward *b = t->b;
    const struct attention *a = b->a;
    int c = a->head_dim, columns = s->to - s->from, key = t->key + s->from;
    int64_t packed = packed_at(a, PACK_ACROSS, t->segment, t->kv) + (int64_t)key * c, at = view_values(t->view, s->first);
    int64_t place = (int64_t)(s->first - t->first) * TILE_KEYS + s->from;
    float *weights = t->weights + place, *dscores = t->dscores + place;
    float scale = 1.0f / sqrtf((float)c), exponent = score_scale(c);
    struct product scores = {.m = s->end - s->first, .n = columns, .k = c, .a = b->q + at, .a_row = t->view->stride, .a_step = 1,
                             .b = b->packed_k + packed, .b_step = PANEL, .b_panel = (int64_t)PANEL * c, .c = weights,
                             .c_row = TILE_KEYS};
    product_run(&scores);
    scores.a = b->dout + at;
    scores.b = b->packed_v + packed;
    scores.c = dscores;
    product_run(&scores);
    for (int r = s->first; r < s->end; r++, weights += TILE_KEYS, dscores += TILE_KEYS) {
        struct sight see = sight_of(a, view_position(t->view, r), t->key, t->columns);
        int64_t stat = view_values(t->view, r) / c;
        harden_row(weights, dscores, see.first - s->from, see.end - s->from, columns, scale, exponent, b->lse[stat],
                   b->delta[stat]);
        for (int j = see.gap - s->from; j < see.gap_end - s->from; j++)
            weights[j] = dscores[j] = 0.0f;
    }
    product_run(&(struct product){.m = s->end - s->first, .n = c, .k = columns, .a = t->dscores + place, .a_row = TILE_KEYS,
                                  .a_step = 1, .b = b->along_k + packed_at(a, PACK_ALONG, t->segment, t->kv) + (int64_t)key * PANEL,
                                  .b_step = PANEL, .b_panel = (int64_t)a->segments[t->segment].keys * PANEL, .c = t->dq + at,
                                  .c_row = t->view->stride, .add = true});
}

/* The share of rows [first, last) in dk and dv of the `columns` keys from `column` of the tile. */
static void strip_keys(const struct meeting *t, int first, int last, int column, int columns)
{
    const struct backward *b = t->b;
    const struct attention *a = b->a;
    int c = a->head_dim;
    int64_t k_row = (int64_t)a->kv_heads * c, at = view_values(t->view, first);
    int64_t k_at = (a->segments[t->segment].key_first + t->key + column) * k_row + (int64_t)t->kv * c;
    int64_t place = (int64_t)(first - t->first) * TILE_KEYS + column;
    struct product keys = {.m = columns, .n = c, .k = last - first, .a = t->weights + place, .a_row = 1, .a_step = TILE_KEYS,
                           .b = b->dout + at, .b_step = t->view->stride, .b_panel = PANEL, .c = b->dv + k_at, .c_row = k_row,
                           .add = true};
    product_run(&keys);
    keys.a = t->dscores + place;
    keys.b = b->q + at;
    keys.c = b->dk + k_at;
    product_run(&keys);
}

static void meet(const struct meeting *t)
{
    const struct attention *a = t->b->a;
    struct strip s = {0, t->first, 0, 0};
    while (s.end < t->last) {
        s = strip_of(a, t->view, s.end, t->last, t->key, t->columns);
        strip_rows(t, &s);
    }
    if (s.first == t->first) { /* one strip holds all rows */
        strip_keys(t, t->first, t->last, s.from, s.to - s.from);
        return;
    }
    for (int j = 0; j < t->columns; j += STRIP_ROWS) {
        int columns = smaller(STRIP_ROWS, t->columns - j), keys = a->segments[t->segment].keys;
        int first = view_find(t->view, t->first, t->last, t->key + j);
        int last = view_find(t->view, first, t->last, seen_until(a, keys, t->key + j, columns));
        if (first < last)
            strip_keys(t, first, last, j, columns);
    }
}

static void clear_rows(float *x, int rows, int width, int64_t row)
{
    for (int r = 0; r < rows; r++)
        memset(x + r * row, 0, (size_t)width * sizeof *x);
}

/* Rows of a view that part `part` of the keys has a share in: [*begin, *end). Part 0 takes all, to clear them. */
static void part_rows(const struct attention *a, int segment, int part, const struct view *v, int *begin, int *end)
{
    const struct attention_segment *s = &a->segments[segment];
    int key = part_begin(s, part), keys = part_begin(s, part + 1) - key;
    *begin = part ? view_find(v, 0, v->count, key) : 0;
    *end = part ? view_find(v, *begin, v->count, seen_until(a, s->keys, key, keys)) : v->count;
}

static float *part_dq(const struct backward *b, int part)
{
    return part ? b->parts + (part - 1) * b->part_values : b->dq;
}

static void backward_task(void *context, int task, int thread)
{
    const struct backward *b = context;
    const struct attention *a = b->a;
    int segment = 0, c = a->head_dim, group = a->heads / a->kv_heads;
    for (; task >= parts_of(&a->segments[segment]) * a->kv_heads; segment++)
        task -= parts_of(&a->segments[segment]) * a->kv_heads;
    const struct attention_segment *s = &a->segments[segment];
    int part = task / a->kv_heads, kv = task % a->kv_heads; /* the first keys are seen by the most queries */
    int64_t k_row = (int64_t)a->kv_heads * c;
    float *scratch = b->scratch + (size_t)thread * SCRATCH_VALUES, *dq = part_dq(b, part);
    int begin, end, from = part_begin(s, part), to = part_begin(s, part + 1);
    clear_rows(b->dk + (s->key_first + from) * k_row + (int64_t)kv * c, to - from, c, k_row);
    clear_rows(b->dv + (s->key_first + from) * k_row + (int64_t)kv * c, to - from, c, k_row);
    for (int head = kv * group; head < (kv + 1) * group; head++) {
        struct view v = view_of(a, segment, head);
        part_rows(a, segment, part, &v, &begin, &end);
        clear_rows(dq + view_values(&v, begin), end - begin, c, v.stride);
    }
    for (int key = from; key < to; key += TILE_KEYS) {
        int columns = smaller(TILE_KEYS, to - key);
        for (int head = kv * group; head < (kv + 1) * group; head++) {
            struct view v = view_of(a, segment, head);
            int first = view_find(&v, 0, v.count, key);
            int last = view_find(&v, first, v.count, seen_until(a, s->keys, key, columns));
            for (; first < last; first += TILE_QUERIES)
                meet(&(struct meeting){b, &v, segment, kv, first, smaller(last, first + TILE_QUERIES), key, columns, scratch,
                                       scratch + TILE_VALUES, dq});
        }
    }
}

static void gather_task(void *context, int task, int thread)
{
    (void)thread;
    const struct backward *b = context;
    const struct attention *a = b->a;
    int segment = task / a->heads, c = a->head_dim;
    struct view v = view_of(a, segment, task % a->heads);
    for (int part = 1; part < parts_of(&a->segments[segment]); part++) {
        int begin, end;
        part_rows(a, segment, part, &v, &begin, &end);
        const float *from = part_dq(b, part);
        for (int j = begin; j < end; j++) {
            int64_t at = view_values(&v, j);
            for (int i = 0; i < c; i++)
                b->dq[at + i] += from[at + i];
        }
    }
}

void attention_backward(struct threads *pool, const struct attention *a, const float *q, const float *k,
                        const float *v, const float *lse, const float *dout, const float *delta, float *dq, float *dk,
                        float *dv)
{
    int64_t across = packed_values(a, PACK_ACROSS);
    float *packed_k = a->scratch, *packed_v = packed_k + across, *along_k = packed_v + across;
    float *scratch = along_k + packed_values(a, PACK_ALONG), *parts = scratch + (int64_t)threads_count(pool) * SCRATCH_VALUES;
    struct backward b = {a, q, k, v, lse, dout, delta, dq, dk, dv, packed_k, packed_v, along_k, parts,
                         rows_of(a) * a->heads * a->head_dim, scratch};
    attention_pack(pool, a, PACK_ACROSS, 0, k, packed_k);
    attention_pack(pool, a, PACK_ACROSS, 0, v, packed_v);
    attention_pack(pool, a, PACK_ALONG, 0, k, along_k);
    int tasks = 0;
    for (int s = 0; s < a->n_segments; s++)
        tasks += parts_of(&a->segments[s]) * a->kv_heads;
    threads_run(pool, tasks, backward_task, &b);
    if (most_parts(a) > 1)
        threads_run(pool, a->n_segments * a->heads, gather_task, &b);
}
