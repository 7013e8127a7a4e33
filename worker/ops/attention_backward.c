/* Backward attention: weights are recomputed tile by tile from the stored log-sum-exp. One task per sequence and KV
 * head walks its tiles in a fixed order, so sums over query heads and tiles have one order for any thread count. */
#include "worker/ops/attention.h"

#include <math.h>

#include "common/compiler.h"
#include "worker/ops/attention_tile.h"
#include "worker/ops/gemm.h"
#include "worker/ops/vector.h"

struct backward {
    const struct attention *a;
    const float *q, *k, *v, *out, *lse, *dout;
    float *delta, *dq, *dk, *dv;
};

MULTIVERSION static float dot(int64_t n, const float *x, const float *y)
{
    lanes sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum += *(const lanes *)(x + i) * *(const lanes *)(y + i);
    float lane[LANES];
    memcpy(lane, &sum, sizeof lane);
    for (; i < n; i++)
        lane[i % LANES] += x[i] * y[i];
    return lanes_sum(lane);
}

/* scores -> weights, dweights -> gradient of the scores, of one query; columns beyond `seen` become zero. */
MULTIVERSION static void harden_row(float *restrict scores, float *restrict dweights, int seen, int columns,
                                    float scale, float lse, float delta)
{
    for (int i = 0; i < seen; i++) {
        float weight = exp_fast(scores[i] * scale - lse);
        scores[i] = weight;
        dweights[i] = weight * (dweights[i] - delta) * scale;
    }
    for (int i = seen; i < columns; i++)
        scores[i] = dweights[i] = 0.0f;
}

/* The share of one tile of queries and one of keys in dq, dk and dv. */
static void tile(const struct backward *b, const struct attention_segment *seg, int head, int query, int key,
                 float *scratch)
{
    const struct attention *a = b->a;
    int64_t c = a->head_dim, q_row = a->heads * c, k_row = a->kv_heads * c;
    int rows = smaller(TILE_QUERIES, seg->queries - query);
    int columns = smaller(smaller(TILE_KEYS, seg->keys - key), keys_seen(seg, query + rows - 1) - key);
    int64_t row = seg->query_first + query, q_at = row * q_row + head * c;
    int64_t k_at = (seg->key_first + key) * k_row + head / (a->heads / a->kv_heads) * c;
    float *weights = scratch, *dscores = scratch + TILE_VALUES;
    float scale = 1.0f / sqrtf((float)c);
    gemm_one(&(struct gemm){GEMM_NT, rows, columns, c, b->q + q_at, q_row, b->k + k_at, k_row, weights, columns, 0.0f},
             1.0f);
    gemm_one(&(struct gemm){GEMM_NT, rows, columns, c, b->dout + q_at, q_row, b->v + k_at, k_row, dscores, columns, 0.0f},
             1.0f);
    for (int r = 0; r < rows; r++) {
        int seen = smaller(columns, keys_seen(seg, query + r) - key);
        int64_t at = (row + r) * a->heads + head;
        harden_row(weights + r * columns, dscores + r * columns, seen > 0 ? seen : 0, columns, scale, b->lse[at],
                   b->delta[at]);
    }
    gemm_one(&(struct gemm){GEMM_TN, columns, c, rows, weights, columns, b->dout + q_at, q_row, b->dv + k_at, k_row, 1.0f},
             1.0f);
    gemm_one(&(struct gemm){GEMM_TN, columns, c, rows, dscores, columns, b->q + q_at, q_row, b->dk + k_at, k_row, 1.0f},
             1.0f);
    gemm_one(&(struct gemm){GEMM_NN, rows, c, columns, dscores, columns, b->k + k_at, k_row, b->dq + q_at, q_row, 1.0f},
             1.0f);
}

static void clear_rows(float *x, int rows, int64_t width, int64_t row)
{
    for (int r = 0; r < rows; r++)
        memset(x + r * row, 0, (size_t)width * sizeof *x);
}

static void backward_task(void *context, int task, int thread)
{
    const struct backward *b = context;
    const struct attention *a = b->a;
    const struct attention_segment *seg = &a->segments[task / a->kv_heads];
    int kv = task % a->kv_heads, group = a->heads / a->kv_heads;
    int64_t c = a->head_dim, q_row = a->heads * c, k_row = a->kv_heads * c;
    float *scratch = a->scratch + (size_t)thread * SCRATCH_VALUES;
    clear_rows(b->dk + seg->key_first * k_row + kv * c, seg->keys, c, k_row);
    clear_rows(b->dv + seg->key_first * k_row + kv * c, seg->keys, c, k_row);
    clear_rows(b->dq + seg->query_first * q_row + kv * group * c, seg->queries, group * c, q_row);
    for (int head = kv * group; head < (kv + 1) * group; head++)
        for (int r = 0; r < seg->queries; r++) {
            int64_t at = (seg->query_first + r) * a->heads + head;
            b->delta[at] = dot(c, b->out + at * c, b->dout + at * c);
        }
    int past = seg->keys - seg->queries;
    for (int key = 0; key < seg->keys; key += TILE_KEYS)
        for (int head = kv * group; head < (kv + 1) * group; head++) {
            int first = key > past ? (key - past) / TILE_QUERIES * TILE_QUERIES : 0;
            for (int query = first; query < seg->queries; query += TILE_QUERIES)
                tile(b, seg, head, query, key, scratch);
        }
}

void attention_backward(struct threads *pool, const struct attention *a, const float *q, const float *k,
                        const float *v, const float *out, const float *lse, const float *dout, float *delta, float *dq,
                        float *dk, float *dv)
{
    struct backward b = {a, q, k, v, out, lse, dout, delta, dq, dk, dv};
    threads_run(pool, a->n_segments * a->kv_heads, backward_task, &b);
}
