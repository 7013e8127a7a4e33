#include "worker/ops/microkernel.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Rows of a register tile; of any m, the last tile has what is left. */
enum { TILE_ROWS = 8 };

/* One register tile: up to TILE_ROWS rows, each with its place in A and C, up to PANEL columns. */
struct tile {
    int m, n, k;
    const float *a[TILE_ROWS];
    int64_t a_step;
    const float *b;
    int64_t b_step;
    float *c[TILE_ROWS];
    bool add;
};
typedef void tile_fn(const struct tile *t);

static void tile_c(const struct tile *t)
{
    for (int i = 0; i < t->m; i++) {
        float sum[PANEL] = {0}, *c = t->c[i];
        for (int k = 0; k < t->k; k++) {
            float x = t->a[i][k * t->a_step];
            for (int j = 0; j < t->n; j++)
                sum[j] += x * t->b[k * t->b_step + j];
        }
        for (int j = 0; j < t->n; j++)
            c[j] = t->add ? c[j] + sum[j] : sum[j];
    }
}

#if defined(__x86_64__)
/* The body for a constant number of rows: the loops over i are unrolled, sums and row addresses stay in registers. */
__attribute__((target("avx512f"), always_inline)) static inline void avx512_rows(const struct tile *t, const int m, __mmask16 low,
                                                                                 __mmask16 high)
{
    __m512 left[TILE_ROWS], right[TILE_ROWS];
    const float *a[TILE_ROWS], *b = t->b;
#pragma GCC unroll 8
    for (int i = 0; i < m; i++) {
        a[i] = t->a[i];
        left[i] = right[i] = _mm512_setzero_ps();
    }
    const int64_t step = t->a_step, b_step = t->b_step;
    int64_t at = 0;
    for (int k = t->k; k > 0; k--) {
        __m512 b0 = _mm512_maskz_loadu_ps(low, b), b1 = _mm512_maskz_loadu_ps(high, b + 16);
#pragma GCC unroll 8
        for (int i = 0; i < m; i++) {
            __m512 x = _mm512_set1_ps(a[i][at]);
            left[i] = _mm512_fmadd_ps(x, b0, left[i]);
            right[i] = _mm512_fmadd_ps(x, b1, right[i]);
        }
        at += step;
        b += b_step;
    }
    const bool add = t->add;
#pragma GCC unroll 8
    for (int i = 0; i < m; i++) {
        float *c = t->c[i];
        if (add) {
            left[i] = _mm512_add_ps(_mm512_maskz_loadu_ps(low, c), left[i]);
            right[i] = _mm512_add_ps(_mm512_maskz_loadu_ps(high, c + 16), right[i]);
        }
        _mm512_mask_storeu_ps(c, low, left[i]);
        _mm512_mask_storeu_ps(c + 16, high, right[i]);
    }
}

__attribute__((target("avx512f"))) static void tile_avx512(const struct tile *t)
{
    int n = t->n;
    if (t->m == TILE_ROWS && n == PANEL) {
        avx512_rows(t, TILE_ROWS, 0xFFFF, 0xFFFF);
        return;
    }
    __mmask16 low = n >= 16 ? 0xFFFF : (__mmask16)((1u << n) - 1);
    __mmask16 high = n >= 32 ? 0xFFFF : n > 16 ? (__mmask16)((1u << (n - 16)) - 1) : 0;
    switch (t->m) {
#define ROWS(count) \
    case count: avx512_rows(t, count, low, high); break;
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8)
#undef ROWS
    }
}

/* Four rows of two vectors from row `first` and column `j` on: eight sums, two of B and one of A fit the sixteen
 * registers. */
__attribute__((target("avx2,fma"), always_inline)) static inline void avx2_rows(const struct tile *t, const int m, int first, int j)
{
    __m256i columns = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i low = _mm256_cmpgt_epi32(_mm256_set1_epi32(t->n - j), columns);
    __m256i high = _mm256_cmpgt_epi32(_mm256_set1_epi32(t->n - j - 8), columns);
    __m256 left[4], right[4];
    const float *a[4], *b = t->b + j;
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        a[i] = t->a[first + i];
        left[i] = right[i] = _mm256_setzero_ps();
    }
    const int64_t step = t->a_step, b_step = t->b_step;
    int64_t at = 0;
    for (int k = t->k; k > 0; k--) {
        __m256 b0 = _mm256_maskload_ps(b, low), b1 = _mm256_maskload_ps(b + 8, high);
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) {
            __m256 x = _mm256_set1_ps(a[i][at]);
            left[i] = _mm256_fmadd_ps(x, b0, left[i]);
            right[i] = _mm256_fmadd_ps(x, b1, right[i]);
        }
        at += step;
        b += b_step;
    }
    const bool add = t->add;
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        float *c = t->c[first + i] + j;
        if (add) {
            left[i] = _mm256_add_ps(_mm256_maskload_ps(c, low), left[i]);
            right[i] = _mm256_add_ps(_mm256_maskload_ps(c + 8, high), right[i]);
        }
        _mm256_maskstore_ps(c, low, left[i]);
        _mm256_maskstore_ps(c + 8, high, right[i]);
    }
}

__attribute__((target("avx2,fma"))) static void tile_avx2(const struct tile *t)
{
    for (int j = 0; j < t->n; j += 16) {
        int i = 0;
        for (; i + 4 <= t->m; i += 4)
            avx2_rows(t, 4, i, j);
        switch (t->m - i) {
#define ROWS(count) \
    case count: avx2_rows(t, count, i, j); break;
            ROWS(1) ROWS(2) ROWS(3)
#undef ROWS
        }
    }
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

static bool always(void)
{
    return true;
}

/* Best first. */
static const struct kernels {
    const char *name;
    tile_fn *tile;
    bool (*present)(void);
} all[] = {
#if defined(__x86_64__)
    {"avx512", tile_avx512, has_avx512},
    {"avx2", tile_avx2, has_avx2},
#endif
    {"c", tile_c, always},
};

static const struct kernels *chosen;

/* Called from several threads at first; all find the same. */
static const struct kernels *kernels(void)
{
    const struct kernels *k = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (k)
        return k;
    for (k = all; !k->present();)
        k++;
    __atomic_store_n(&chosen, k, __ATOMIC_RELAXED);
    return k;
}

const char *product_kernels(void)
{
    return kernels()->name;
}

bool product_choose(const char *name)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, name) && all[i].present()) {
            __atomic_store_n(&chosen, &all[i], __ATOMIC_RELAXED);
            return true;
        }
    return false;
}

void product_run(const struct product *p)
{
    tile_fn *run = kernels()->tile;
    struct tile t = {.k = p->k, .a_step = p->a_step, .b_step = p->b_step, .add = p->add};
    for (int j = 0; j < p->n; j += PANEL) {
        t.b = p->b + j / PANEL * p->b_panel;
        t.n = p->n - j < PANEL ? p->n - j : PANEL;
        for (int first = 0; first < p->m; first += TILE_ROWS) {
            t.m = p->m - first < TILE_ROWS ? p->m - first : TILE_ROWS;
            for (int i = 0; i < t.m; i++) {
                t.a[i] = p->a + (p->a_rows ? p->a_rows[first + i] : first + i) * p->a_row;
                t.c[i] = p->c + (p->c_rows ? p->c_rows[first + i] : first + i) * p->c_row + j;
            }
            run(&t);
        }
    }
}

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

/* Four values of each of four rows, transposed. */
static void transpose_4x4(const float *x, int64_t x_row, float *out)
{
    four r0 = *(const four *)x, r1 = *(const four *)(x + x_row), r2 = *(const four *)(x + 2 * x_row),
         r3 = *(const four *)(x + 3 * x_row);
    four low0 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), high0 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
    four low1 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5), high1 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
    *(four *)out = __builtin_shufflevector(low0, low1, 0, 1, 4, 5);
    *(four *)(out + PANEL) = __builtin_shufflevector(low0, low1, 2, 3, 6, 7);
    *(four *)(out + 2 * PANEL) = __builtin_shufflevector(high0, high1, 0, 1, 4, 5);
    *(four *)(out + 3 * PANEL) = __builtin_shufflevector(high0, high1, 2, 3, 6, 7);
}

void panel_pack_transposed(int rows, int k, const float *x, int64_t x_row, float *out)
{
    for (int first = 0; first < rows; first += PANEL, out += (int64_t)k * PANEL) {
        int n = rows - first < PANEL ? rows - first : PANEL, whole = n / 4 * 4, steps = k / 4 * 4;
        const float *from = x + first * x_row;
        if (n < PANEL)
            memset(out, 0, (size_t)k * PANEL * sizeof *out);
        for (int i = 0; i < steps; i += 4)
            for (int j = 0; j < whole; j += 4)
                transpose_4x4(from + j * x_row + i, x_row, out + (int64_t)i * PANEL + j);
        for (int i = 0; i < k; i++)
            for (int j = i < steps ? whole : 0; j < n; j++)
                out[i * PANEL + j] = from[j * x_row + i];
    }
}

void panel_pack(int rows, int columns, const float *x, int64_t x_row, const int32_t *which, float *out)
{
    for (int first = 0; first < columns; first += PANEL, out += (int64_t)rows * PANEL) {
        size_t n = columns - first < PANEL ? (size_t)(columns - first) : PANEL;
        for (int r = 0; r < rows; r++) {
            float *to = out + (int64_t)r * PANEL;
            memcpy(to, x + (which ? which[r] : r) * x_row + first, n * sizeof *to);
            memset(to + n, 0, (PANEL - n) * sizeof *to);
        }
    }
}
