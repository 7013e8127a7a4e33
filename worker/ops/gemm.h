/* Matrix products, all of the program's: the only file that knows a BLAS library.
 * A product is cut into tiles of C that depend on its shape alone; each tile is one single-threaded BLAS call over
 * the whole inner dimension. So the number of threads never changes a bit, which the library's own threads do.
 * Must not know: what the matrices mean. */
#ifndef WORKER_OPS_GEMM_H
#define WORKER_OPS_GEMM_H

#include <stdint.h>

#include "common/status.h"
#include "common/threads.h"

/* All matrices are row-major; ld* is the distance between rows in values. */
enum gemm_form {
    GEMM_NT, /* C[m][n] = A[m][k] B[n][k]^T: a linear layer */
    GEMM_NN, /* C[m][n] = A[m][k] B[k][n]: the gradient of its input */
    GEMM_TN, /* C[m][n] = A[k][m]^T B[k][n]: the gradient of its weight */
};

struct gemm {
    enum gemm_form form;
    int64_t m, n, k;
    const float *a;
    int64_t lda;
    const float *b;
    int64_t ldb;
    float *c;
    int64_t ldc;
    float beta; /* C = A B + beta C */
};

/* Loads the library, once per process; the other functions may be used after it returned STATUS_OK. Calls after the
 * first cost nothing. STATUS_INTERNAL when the library is not there. */
enum status gemm_init(struct error *err);
/* Name of the kernels in use ("SkylakeX"), for reports. */
const char *gemm_kernels(void);

/* The library and how it was built, for reports. */
const char *gemm_library(void);

/* Computes independent products side by side; no C may overlap another job's matrices. */
void gemm_run(struct threads *pool, const struct gemm *jobs, int n_jobs);
/* One product in the calling thread, times alpha: for use inside a task. */
void gemm_one(const struct gemm *job, float alpha);

#endif
