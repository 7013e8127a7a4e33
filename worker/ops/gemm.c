#include "worker/ops/gemm.h"

#include <cblas.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

enum {
    TILE = 512,      /* longest side of a tile: BLAS reaches its full rate, and two of them fit a shared cache */
    TILE_LEAST = 128, /* below this BLAS spends its time on packing */
    TILES_WANTED = 16, /* enough for several threads to end at about the same time */
    MAX_JOBS = 8,
};

static struct {
    __typeof__(&cblas_sgemm) sgemm;
    __typeof__(&cblas_sgemv) sgemv;
    __typeof__(&openblas_get_corename) corename;
    __typeof__(&openblas_get_config) config;
    enum status status;
    struct error err;
} blas;
static pthread_once_t blas_once = PTHREAD_ONCE_INIT;

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (!found && blas.status == STATUS_OK)
        blas.status = error_set(&blas.err, STATUS_INTERNAL, "OpenBLAS lacks the function '%s'; install libopenblas0",
                                name);
    return found;
}

/* Loaded by hand, so that programs that multiply nothing do without it, and so that it finds this setting in time: it
 * starts a thread per core while it is being loaded, which every rank of a node would do for nothing. Which kernels it
 * takes for the processor is left to it (and to OPENBLAS_CORETYPE). */
static void load(void)
{
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    void *library = dlopen(LOAR_OPENBLAS_FILE, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        blas.status = error_set(&blas.err, STATUS_INTERNAL, "cannot load OpenBLAS (%s); install libopenblas0", dlerror());
        return;
    }
    *(void **)&blas.sgemm = symbol(library, "cblas_sgemm");
    *(void **)&blas.sgemv = symbol(library, "cblas_sgemv");
    *(void **)&blas.corename = symbol(library, "openblas_get_corename");
    *(void **)&blas.config = symbol(library, "openblas_get_config");
    __typeof__(&openblas_set_num_threads) set_threads;
    *(void **)&set_threads = symbol(library, "openblas_set_num_threads");
    if (blas.status == STATUS_OK)
        set_threads(1);
}

enum status gemm_init(struct error *err)
{
    pthread_once(&blas_once, load);
    if (blas.status != STATUS_OK && err)
        *err = blas.err;
    return blas.status;
}

const char *gemm_kernels(void)
{
    return blas.corename();
}

const char *gemm_library(void)
{
    return blas.config();
}

void gemm_one(const struct gemm *job, float alpha)
{
    bool vector = job->form == GEMM_NT && job->m == 1 && job->ldc >= job->n;
    if (vector) { /* one token: reading B once beats packing it */
        blas.sgemv(CblasRowMajor, CblasNoTrans, (int)job->n, (int)job->k, alpha, job->b, (int)job->ldb, job->a, 1,
                   job->beta, job->c, 1);
        return;
    }
    blas.sgemm(CblasRowMajor, job->form == GEMM_TN ? CblasTrans : CblasNoTrans,
               job->form == GEMM_NT ? CblasTrans : CblasNoTrans, (int)job->m, (int)job->n, (int)job->k, alpha, job->a,
               (int)job->lda, job->b, (int)job->ldb, job->beta, job->c, (int)job->ldc);
}

/* How one side is cut: equal parts, rounded up so that all but the last fill whole vectors. */
struct cut {
    int64_t length, part;
    int count;
};

static struct cut cut_make(int64_t length, int64_t part)
{
    int64_t count = (length + part - 1) / part;
    int64_t even = ((length + count - 1) / count + 15) / 16 * 16;
    return (struct cut){length, even, (int)((length + even - 1) / even)};
}

static int64_t cut_size(const struct cut *cut, int index)
{
    int64_t left = cut->length - index * cut->part;
    return left < cut->part ? left : cut->part;
}

struct tiling {
    struct cut rows, columns;
};

static struct tiling tiling_make(int64_t m, int64_t n)
{
    int64_t tall = TILE, wide = TILE;
    for (;;) {
        struct tiling t = {cut_make(m, tall), cut_make(n, wide)};
        bool cut_rows = t.rows.part >= t.columns.part;
        int64_t longer = cut_rows ? t.rows.part : t.columns.part;
        if (t.rows.count * t.columns.count >= TILES_WANTED || longer < 2 * TILE_LEAST)
            return t;
        if (cut_rows)
            tall = longer / 2;
        else
            wide = longer / 2;
    }
}

struct run {
    const struct gemm *jobs;
    int n_jobs;
    struct tiling tilings[MAX_JOBS];
};

static void run_tile(void *context, int task, int thread)
{
    (void)thread;
    const struct run *run = context;
    int j = 0;
    while (task >= run->tilings[j].rows.count * run->tilings[j].columns.count) {
        task -= run->tilings[j].rows.count * run->tilings[j].columns.count;
        j++;
    }
    const struct tiling *t = &run->tilings[j];
    int row = task % t->rows.count, column = task / t->rows.count;
    int64_t first_row = row * t->rows.part, first_column = column * t->columns.part;
    struct gemm tile = run->jobs[j];
    tile.a += tile.form == GEMM_TN ? first_row : first_row * tile.lda;
    tile.b += tile.form == GEMM_NT ? first_column * tile.ldb : first_column;
    tile.c += first_row * tile.ldc + first_column;
    tile.m = cut_size(&t->rows, row);
    tile.n = cut_size(&t->columns, column);
    gemm_one(&tile, 1.0f);
}

void gemm_run(struct threads *pool, const struct gemm *jobs, int n_jobs)
{
    for (int first = 0; first < n_jobs; first += MAX_JOBS) {
        struct run run = {.jobs = jobs + first, .n_jobs = n_jobs - first < MAX_JOBS ? n_jobs - first : MAX_JOBS};
        int tasks = 0;
        for (int j = 0; j < run.n_jobs; j++) {
            run.tilings[j] = tiling_make(run.jobs[j].m, run.jobs[j].n);
            tasks += run.tilings[j].rows.count * run.tilings[j].columns.count;
        }
        threads_run(pool, tasks, run_tile, &run);
    }
}
