/* What attention forward and backward share: tile sizes, the rows of one head in one sequence, what they see, packed
 * keys. Private to the two. */
#ifndef WORKER_OPS_ATTENTION_TILE_H
#define WORKER_OPS_ATTENTION_TILE_H

#include <math.h>

#include "worker/ops/attention.h"
#include "worker/ops/microkernel.h"

/* Queries and keys of a tile: scores and operands of one stay in the second cache. */
enum { TILE_QUERIES = 64, TILE_KEYS = 128, TILE_VALUES = TILE_QUERIES * TILE_KEYS };

/* Per thread: scores and their gradient, then the running maximum and sum of each query. */
enum { SCRATCH_VALUES = 2 * TILE_VALUES + 2 * TILE_QUERIES };

static inline int smaller(int a, int b)
{
    return a < b ? a : b;
}

static inline int larger(int a, int b)
{
    return a > b ? a : b;
}

/* The rows of one head in one segment. */
struct view {
    const int32_t *rows; /* first of them, or NULL: all */
    int count;
    int shift;           /* position = rows[j] + shift, or j + shift */
    int64_t at, stride;  /* of the first row's values */
};

struct view view_of(const struct attention *a, int segment, int head);

/* Position of row j among the segment's keys. */
static inline int view_position(const struct view *v, int j)
{
    return (v->rows ? v->rows[j] : j) + v->shift;
}

/* First row in [begin, end) at `position` or behind it. */
int view_find(const struct view *v, int begin, int end, int position);

static inline int64_t view_values(const struct view *v, int j)
{
    return v->at + j * v->stride;
}

/* Distance of keys in k and v, and where key `key` of a KV head lies. */
static inline int64_t kv_distance(const struct attention *a)
{
    return a->kv_row ? a->kv_row : (int64_t)a->kv_heads * a->head_dim;
}

static inline int64_t kv_place(const struct attention *a, int64_t key, int kv)
{
    return key * kv_distance(a) + kv * (a->kv_head ? a->kv_head : a->head_dim);
}

/* What the query at `position` sees of the tile of `columns` keys from `key`: [first, end) but [gap, gap_end). */
struct sight {
    int first, end, gap, gap_end;
};
struct sight sight_of(const struct attention *a, int position, int key, int columns);

enum { STRIP_ROWS = 8 };
/* Rows [first, end) of a view and keys [from, to) of a tile that hold all these rows see of it. Where rows see alike, all are one
 * strip; at the diagonal and at the edge of a window, where products over the whole tile would mostly meet zeros, STRIP_ROWS are.
 * `from` is a multiple of PANEL; `to` of STRIP_ROWS, unless it is `columns`. */
struct strip {
    int first, end, from, to;
};
/* The strip that begins at row `first` of [first, last), all of which see one of the keys or more. */
struct strip strip_of(const struct attention *a, const struct view *v, int first, int last, int key, int columns);

/* Products of a query and a key times this are exponents of 2: exp(x / sqrt(C)) = 2^(x log2(e) / sqrt(C)). */
static inline float score_scale(int head_dim)
{
    return 1.44269504f / sqrtf((float)head_dim);
}

/* First key of the window of the query at `position`. */
static inline int window_begin(const struct attention *a, int position)
{
    return a->window > 0 ? larger(0, position - a->window + 1) : 0;
}

/* One past the last position whose query sees a key of [key, key + columns). */
int seen_until(const struct attention *a, int keys, int key, int columns);

/* Keys or values of a segment and KV head, packed for products; as they lie, rows a power of two apart would share the
 * few places that a cache has for them.
 * Across: transposed into panels of [C][PANEL] keys, so key `key` (a multiple of PANEL) lies at + key * C.
 * Along: panels of [keys][PANEL] values of the head, so key `key` lies at + key * PANEL. */
enum packing_form { PACK_ACROSS, PACK_ALONG };
int64_t packed_at(const struct attention *a, enum packing_form form, int segment, int kv);
int64_t packed_values(const struct attention *a, enum packing_form form);
/* Packs x [keys][G][C] of all segments with at least `queries` queries. */
void attention_pack(struct threads *pool, const struct attention *a, enum packing_form form, int queries, const float *x,
                    float *out);

#endif
