/* Forward attention: one task per sequence, head and tile of queries. */
#include "worker/ops/attention.h"

#include <math.h>

#include "common/compiler.h"
#include "worker/ops/attention_tile.h"
#include "worker/ops/gemm.h"
#include "worker/ops/vector.h"

size_t attention_scratch_values(int threads)
{
    return (size_t)threads * SCRATCH_VALUES;
}

struct forward {
    const struct attention *a;
    const float *q, *k, *v;
    float *out, *lse;
};

typedef int32_t lane_masks __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4), may_alias));

/* Turns `seen` scores of one query into weights relative to the largest score so far, and the rest of the tile's
 * `columns` into zeros. *largest and *sum run over the tiles. Returns the factor for what was summed before. */
MULTIVERSION static float soften_row(float *s, int seen, int columns, float scale, float *largest, float *sum)
{
    float lane[LANES], top = *largest;
    int i = 0;
    if (seen >= LANES) {
        lanes best = *(const lanes *)s;
        for (i = LANES; i + LANES <= seen; i += LANES) {
            lanes x = *(const lanes *)(s + i);
            lane_masks larger = x > best;
            best = (lanes)(((lane_masks)x & larger) | ((lane_masks)best & ~larger));
        }
        memcpy(lane, &best, sizeof lane);
        for (int l = 0; l < LANES; l++)
            top = lane[l] * scale > top ? lane[l] * scale : top;
    }
    for (; i < seen; i++)
        top = s[i] * scale > top ? s[i] * scale : top;

    for (i = 0; i < seen; i++)
        s[i] = exp_fast(s[i] * scale - top);
    for (i = seen; i < columns; i++)
        s[i] = 0.0f;
    lanes added = {0};
    for (i = 0; i + LANES <= columns; i += LANES)
        added += *(const lanes *)(s + i);
    memcpy(lane, &added, sizeof lane);
    for (; i < columns; i++)
        lane[i % LANES] += s[i];

    float correction = exp_fast(*largest - top);
    *sum = *sum * correction + lanes_sum(lane);
    *largest = top;
    return correction;
}

MULTIVERSION static void scale_row(int n, float factor, float *x)
{
    for (int i = 0; i < n; i++)
        x[i] *= factor;
}

static void query_tile(const struct forward *f, const struct attention_segment *seg, int head, int first, float *scratch)
{
    const struct attention *a = f->a;
    int64_t c = a->head_dim, q_row = a->heads * c, k_row = a->kv_heads * c;
    int kv = head / (a->heads / a->kv_heads);
    int rows = smaller(TILE_QUERIES, seg->queries - first);
    int64_t row = seg->query_first + first;
    float scale = 1.0f / sqrtf((float)c);
    float *scores = scratch, *largest = scratch + 2 * TILE_VALUES, *sum = largest + TILE_QUERIES;
    for (int r = 0; r < rows; r++) {
        largest[r] = -INFINITY;
        sum[r] = 0.0f;
    }
    float *out = f->out + row * q_row + head * c;
    int end = keys_seen(seg, first + rows - 1);
    for (int key = 0; key < end; key += TILE_KEYS) {
        int columns = smaller(TILE_KEYS, end - key);
        int64_t at = (seg->key_first + key) * k_row + kv * c;
        gemm_one(&(struct gemm){GEMM_NT, rows, columns, c, f->q + row * q_row + head * c, q_row, f->k + at, k_row, scores,
                                columns, 0.0f},
                 1.0f);
        for (int r = 0; r < rows; r++) {
            int seen = smaller(columns, keys_seen(seg, first + r) - key);
            float factor = soften_row(scores + r * columns, seen > 0 ? seen : 0, columns, scale, &largest[r], &sum[r]);
            if (key > 0 && factor != 1.0f)
                scale_row((int)c, factor, out + r * q_row);
        }
        gemm_one(&(struct gemm){GEMM_NN, rows, c, columns, scores, columns, f->v + at, k_row, out, q_row,
                                key > 0 ? 1.0f : 0.0f},
                 1.0f);
    }
    for (int r = 0; r < rows; r++) {
        scale_row((int)c, 1.0f / sum[r], out + r * q_row);
        f->lse[(row + r) * a->heads + head] = largest[r] + logf(sum[r]);
    }
}

static int tiles_of(const struct attention_segment *seg)
{
    return (seg->queries + TILE_QUERIES - 1) / TILE_QUERIES;
}

static void forward_task(void *context, int task, int thread)
{
    const struct forward *f = context;
    const struct attention_segment *seg = f->a->segments;
    for (; task >= tiles_of(seg) * f->a->heads; seg++)
        task -= tiles_of(seg) * f->a->heads;
    /* The last tile sees the most keys and goes first, so that no long task is left for the end. */
    int tile = tiles_of(seg) - 1 - task / f->a->heads;
    query_tile(f, seg, task % f->a->heads, tile * TILE_QUERIES, f->a->scratch + (size_t)thread * SCRATCH_VALUES);
}

void attention_forward(struct threads *pool, const struct attention *a, const float *q, const float *k, const float *v,
                       float *out, float *lse)
{
    struct forward f = {a, q, k, v, out, lse};
    int tasks = 0;
    for (int s = 0; s < a->n_segments; s++)
        tasks += tiles_of(&a->segments[s]) * a->heads;
    threads_run(pool, tasks, forward_task, &f);
}
