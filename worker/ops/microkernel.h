/* Small matrix products inside a task: operands that lie in the second cache, read where they are, with strides that
 * serve A and its transpose alike. Vector code for AVX-512 and AVX2 is chosen at run time, plain C elsewhere.
 * Every row of C is summed over k in order, whatever rows stand beside it, so a result never depends on how rows are
 * grouped. Must not know: what the matrices mean, threads. */
#ifndef WORKER_OPS_MICROKERNEL_H
#define WORKER_OPS_MICROKERNEL_H

#include <stdbool.h>
#include <stdint.h>

/* Columns of a packed panel of B: two AVX-512 vectors. */
enum { PANEL = 32 };

/* C[m][n] = A B, or C += A B. A[i][k] is a[row(i) * a_row + k * a_step], where row(i) is a_rows[i], or i where a_rows is
 * NULL; C[i][j] is c[row(i) * c_row + j] likewise with c_rows. Column j of B at k is
 * b[j / PANEL * b_panel + k * b_step + j % PANEL]: a row-major B has b_panel = PANEL and b_step = its row; a packed one
 * has b_step = PANEL and b_panel = k * PANEL. */
struct product {
    int m, n, k;
    const float *a;
    int64_t a_row, a_step;
    const float *b;
    int64_t b_step, b_panel;
    float *c;
    int64_t c_row;
    bool add;
    const int32_t *a_rows, *c_rows;
};

void product_run(const struct product *p);

/* Packs the transpose of `rows` rows of x (row length k, distance x_row) into panels: out[rows / PANEL up][k][PANEL], the
 * columns behind the last row zero. */
void panel_pack_transposed(int rows, int k, const float *x, int64_t x_row, float *out);
/* Packs x as it is, x[rows][columns] with distance x_row: out[columns / PANEL up][rows][PANEL]. which: its rows in x, or
 * NULL for the first ones. */
void panel_pack(int rows, int columns, const float *x, int64_t x_row, const int32_t *which, float *out);
/* Values that panel_pack_transposed(rows, k) and panel_pack(k, rows) write. */
static inline int64_t panel_values(int64_t rows, int64_t k)
{
    return (rows + PANEL - 1) / PANEL * PANEL * k;
}

/* "avx512", "avx2" or "c": what product_run uses on this machine. */
const char *product_kernels(void);
/* Takes the named ones from now on, for tests and comparisons; false where this machine lacks them. */
bool product_choose(const char *name);

#endif
