#include "worker/loar/products.h"

#include <string.h>

#include "common/compiler.h"
#include "worker/ops/vector.h"

/* A tile is what the registers hold. Tiles at an edge compute some rows twice instead of having code of their own. */
enum { TILE_A = 2, TILE_B = 4 };

static inline int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

MULTIVERSION static void dot_tile(int64_t k, const float *const *a, const float *const *b, float out[TILE_A][TILE_B])
{
    lanes sum[TILE_A][TILE_B];
    for (int r = 0; r < TILE_A; r++)
        for (int c = 0; c < TILE_B; c++)
            sum[r][c] = (lanes){0};
    int64_t i = 0;
    for (; i + LANES <= k; i += LANES)
        for (int r = 0; r < TILE_A; r++)
            for (int c = 0; c < TILE_B; c++)
                sum[r][c] += *(const lanes *)(a[r] + i) * *(const lanes *)(b[c] + i);
    for (int r = 0; r < TILE_A; r++)
        for (int c = 0; c < TILE_B; c++) {
            float lane[LANES];
            memcpy(lane, &sum[r][c], sizeof lane);
            for (int64_t j = i; j < k; j++)
                lane[j - i] += a[r][j] * b[c][j];
            out[r][c] = lanes_sum(lane);
        }
}

void products_rows(int rows, const float *const *a, int64_t n, int64_t k, const float *b, float *const *out)
{
    for (int64_t column = 0; column < n; column += TILE_B)
        for (int row = 0; row < rows; row += TILE_A) {
            const float *left[TILE_A], *right[TILE_B];
            float tile[TILE_A][TILE_B];
            for (int r = 0; r < TILE_A; r++)
                left[r] = a[smaller(row + r, rows - 1)];
            for (int c = 0; c < TILE_B; c++)
                right[c] = b + smaller(column + c, n - 1) * k;
            dot_tile(k, left, right, tile);
            for (int r = 0; r < smaller(TILE_A, rows - row); r++)
                for (int c = 0; c < smaller(TILE_B, n - column); c++)
                    out[row + r][column + c] = tile[r][c];
        }
}

/* A task is a panel of columns of b. Rows are summed in blocks first, which keeps rounding small for many rows. */
enum { PANEL = 2 * LANES, SUM_ROWS = 64 };

struct outer {
    int64_t n, p, q;
    const float *a, *b;
    float *out;
};

/* out[4][PANEL]: sums over one block, of four columns of a that `column` names. */
MULTIVERSION static void outer_tile(int rows, int64_t p, const float *a, const int64_t column[TILE_B],
                                    const float *b, float (*out)[PANEL])
{
    lanes sum[TILE_B][2] = {{{0}}};
    for (int row = 0; row < rows; row++)
        for (int c = 0; c < TILE_B; c++) {
            float factor = a[row * p + column[c]];
            sum[c][0] += factor * *(const lanes *)(b + row * PANEL);
            sum[c][1] += factor * *(const lanes *)(b + row * PANEL + LANES);
        }
    memcpy(out, sum, sizeof sum);
}

static void outer_panel(void *context, int task, int thread)
{
    (void)thread;
    const struct outer *o = context;
    int64_t first = task * (int64_t)PANEL, width = smaller(PANEL, o->q - first);
    float packed[SUM_ROWS * PANEL] = {0}, tile[TILE_B][PANEL];
    for (int64_t i = 0; i < o->p; i++)
        memset(o->out + i * o->q + first, 0, (size_t)width * sizeof *o->out);
    for (int64_t block = 0; block < o->n; block += SUM_ROWS) {
        int rows = (int)smaller(SUM_ROWS, o->n - block);
        for (int row = 0; row < rows; row++)
            memcpy(packed + row * PANEL, o->b + (block + row) * o->q + first, (size_t)width * sizeof *packed);
        for (int64_t i = 0; i < o->p; i += TILE_B) {
            int64_t column[TILE_B];
            for (int c = 0; c < TILE_B; c++)
                column[c] = smaller(i + c, o->p - 1);
            outer_tile(rows, o->p, o->a + block * o->p, column, packed, tile);
            for (int c = 0; c < smaller(TILE_B, o->p - i); c++)
                for (int64_t j = 0; j < width; j++)
                    o->out[(i + c) * o->q + first + j] += tile[c][j];
        }
    }
}

void products_outer(struct threads *pool, int64_t n, int64_t p, int64_t q, const float *a, const float *b, float *out)
{
    struct outer o = {n, p, q, a, b, out};
    threads_run(pool, (int)((q + PANEL - 1) / PANEL), outer_panel, &o);
}
