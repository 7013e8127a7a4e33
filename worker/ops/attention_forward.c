/* Forward attention: one task per sequence, head and tile of queries. */
#include "worker/ops/attention.h"

#include <math.h>

#include "common/compiler.h"
#include "worker/ops/attention_tile.h"
#include "worker/ops/vector.h"

/* Fewer queries of a segment than this read the keys where they lie: packing them would cost more. */
enum { FEW_QUERIES = 8 };

struct forward {
    const struct attention *a;
    const float *q, *k, *v, *packed_k, *packed_v;
    float *out, *lse;
    float *scratch; /* per thread */
};

typedef int32_t lane_masks __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4), may_alias));

/* Turns scores [first, end) of one query into weights relative to the largest score so far, and the rest of the tile's
 * `columns` into zeros. *largest and *sum run over the tiles. Returns the factor for what was summed before. */
MULTIVERSION static float soften_row(float *s, int first, int end, int columns, float scale, float *largest, float *sum)
{
    float lane[LANES], top = *largest;
    int i = first;
    if (end - first >= LANES) {
        lanes best = *(const lanes *)(s + first);
        for (i = first + LANES; i + LANES <= end; i += LANES) {
            lanes x = *(const lanes *)(s + i);
            lane_masks higher = x > best;
            best = (lanes)(((lane_masks)x & higher) | ((lane_masks)best & ~higher));
        }
        memcpy(lane, &best, sizeof lane);
        for (int l = 0; l < LANES; l++)
            top = lane[l] * scale > top ? lane[l] * scale : top;
    }
    for (; i < end; i++)
        top = s[i] * scale > top ? s[i] * scale : top;

    for (i = 0; i < first; i++)
        s[i] = 0.0f;
    for (i = first; i < end; i++)
        s[i] = exp2_fast(s[i] * scale - top);
    for (i = end; i < columns; i++)
        s[i] = 0.0f;
    lanes added = {0};
    for (i = 0; i + LANES <= columns; i += LANES)
        added += *(const lanes *)(s + i);
    memcpy(lane, &added, sizeof lane);
    for (; i < columns; i++)
        lane[i % LANES] += s[i];

    float correction = exp2_fast(*largest - top);
    *sum = *sum * correction + lanes_sum(lane);
    *largest = top;
    return correction;
}

MULTIVERSION static void scale_row(int n, float factor, float *x)
{
    for (int i = 0; i < n; i++)
        x[i] *= factor;
}

MULTIVERSION static void dot_rows(int c, const float *q, int columns, const float *k, int64_t k_row, float *scores)
{
    for (int j = 0; j < columns; j++)
        scores[j] = lanes_dot(c, q, k + j * k_row);
}

/* One tile of queries: rows [first, first + rows) of the view. */
struct tile {
    const struct forward *f;
    struct view view;
    int segment, kv, first, rows;
    float *scores, *largest, *sum;
};

/* Scores of rows [r, end) of the view against the `columns` keys from `key`. */
static void score(const struct tile *t, int r, int end, int key, int columns, float *scores)
{
    const struct attention *a = t->f->a;
    const struct attention_segment *s = &a->segments[t->segment];
    int c = a->head_dim;
    const float *q = t->f->q + view_values(&t->view, r);
    if (s->queries >= FEW_QUERIES) {
        const float *packed = t->f->packed_k + packed_at(a, PACK_ACROSS, t->segment, t->kv) + (int64_t)key * c;
        product_run(&(struct product){.m = end - r, .n = columns, .k = c, .a = q, .a_row = t->view.stride, .a_step = 1,
                                      .b = packed, .b_step = PANEL, .b_panel = (int64_t)PANEL * c,
                                      .c = scores, .c_row = TILE_KEYS});
        return;
    }
    int64_t k_row = kv_distance(a);
    const float *k = t->f->k + kv_place(a, s->key_first + key, t->kv);
    for (; r < end; r++, q += t->view.stride, scores += TILE_KEYS)
        dot_rows(c, q, columns, k, k_row, scores);
}

/* Adds the values of the `columns` keys from `key`, weighed, to rows [r, end) of the output. */
static void weigh(const struct tile *t, int r, int end, int key, int columns, const float *weights)
{
    const struct forward *f = t->f;
    const struct attention *a = f->a;
    const struct attention_segment *s = &a->segments[t->segment];
    struct product p = {.m = end - r, .n = a->head_dim, .k = columns, .a = weights, .a_row = TILE_KEYS, .a_step = 1,
                        .c = f->out + view_values(&t->view, r), .c_row = t->view.stride, .add = true};
    if (s->queries >= FEW_QUERIES) {
        p.b = f->packed_v + packed_at(a, PACK_ALONG, t->segment, t->kv) + (int64_t)key * PANEL;
        p.b_step = PANEL;
        p.b_panel = (int64_t)s->keys * PANEL;
    } else {
        p.b = f->v + kv_place(a, s->key_first + key, t->kv);
        p.b_step = kv_distance(a);
        p.b_panel = PANEL;
    }
    product_run(&p);
}

/* Keys [key, key + columns) for the rows of the tile that see any of them. */
static void key_tile(const struct tile *t, int key, int columns)
{
    const struct forward *f = t->f;
    const struct attention *a = f->a;
    int c = a->head_dim, keys = a->segments[t->segment].keys, last = t->first + t->rows;
    int r = view_find(&t->view, t->first, last, key);
    int end = view_find(&t->view, r, last, seen_until(a, keys, key, columns));
    float scale = score_scale(c);
    while (r < end) {
        struct strip s = strip_of(a, &t->view, r, end, key, columns);
        score(t, r, s.end, key + s.from, s.to - s.from, t->scores);
        float *row = t->scores;
        for (; r < s.end; r++, row += TILE_KEYS) {
            struct sight see = sight_of(a, view_position(&t->view, r), key, columns);
            for (int j = see.gap; j < see.gap_end; j++)
                row[j - s.from] = -INFINITY;
            int stat = r - t->first;
            float factor = soften_row(row, see.first - s.from, see.end - s.from, s.to - s.from, scale, &t->largest[stat],
                                      &t->sum[stat]);
            if (factor != 1.0f)
                scale_row(c, factor, f->out + view_values(&t->view, r));
        }
        weigh(t, s.first, s.end, key + s.from, s.to - s.from, t->scores);
    }
}

static void query_tile(const struct tile *t)
{
    const struct forward *f = t->f;
    const struct attention *a = f->a;
    int c = a->head_dim;
    for (int r = 0; r < t->rows; r++) {
        t->largest[r] = -INFINITY;
        t->sum[r] = 0.0f;
        memset(f->out + view_values(&t->view, t->first + r), 0, (size_t)c * sizeof *f->out);
    }
    int end = view_position(&t->view, t->first + t->rows - 1) + 1;
    int begin = window_begin(a, view_position(&t->view, t->first)) / TILE_KEYS * TILE_KEYS;
    int sinks = a->window > 0 ? smaller(a->sinks, begin) : 0;
    for (int key = 0; key < sinks; key += TILE_KEYS)
        key_tile(t, key, smaller(TILE_KEYS, end - key));
    for (int key = begin; key < end; key += TILE_KEYS)
        key_tile(t, key, smaller(TILE_KEYS, end - key));
    for (int r = 0; r < t->rows; r++) {
        int64_t at = view_values(&t->view, t->first + r);
        scale_row(c, 1.0f / t->sum[r], f->out + at);
        f->lse[at / c] = t->largest[r] + log2f(t->sum[r]);
    }
}

static int tiles_of(const struct attention_segment *s)
{
    return (s->queries + TILE_QUERIES - 1) / TILE_QUERIES;
}

static void forward_task(void *context, int task, int thread)
{
    const struct forward *f = context;
    const struct attention *a = f->a;
    int segment = 0;
    for (; task >= tiles_of(&a->segments[segment]) * a->heads; segment++)
        task -= tiles_of(&a->segments[segment]) * a->heads;
    /* The last tile sees the most keys and goes first, so that no long task is left for the end. */
    int tile = tiles_of(&a->segments[segment]) - 1 - task / a->heads, head = task % a->heads;
    float *scratch = f->scratch + (size_t)thread * SCRATCH_VALUES;
    struct tile t = {f, view_of(a, segment, head), segment, head / (a->heads / a->kv_heads), tile * TILE_QUERIES, 0,
                     scratch, scratch + 2 * TILE_VALUES, scratch + 2 * TILE_VALUES + TILE_QUERIES};
    t.rows = smaller(TILE_QUERIES, t.view.count - t.first);
    if (t.rows > 0)
        query_tile(&t);
}

void attention_forward(struct threads *pool, const struct attention *a, const float *q, const float *k, const float *v,
                       float *out, float *lse)
{
    float *packed_k = a->scratch, *packed_v = packed_k + packed_values(a, PACK_ACROSS);
    struct forward f = {a, q, k, v, packed_k, packed_v, out, lse, packed_v + packed_values(a, PACK_ALONG)};
    attention_pack(pool, a, PACK_ACROSS, FEW_QUERIES, k, packed_k);
    attention_pack(pool, a, PACK_ALONG, FEW_QUERIES, v, packed_v);
    int tasks = 0;
    for (int s = 0; s < a->n_segments; s++)
        tasks += tiles_of(&a->segments[s]) * a->heads;
    threads_run(pool, tasks, forward_task, &f);
}
