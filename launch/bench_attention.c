/* `loar bench attention`: the share of the machine's own matrix rate that attention reaches in both passes, and how the
 * time of an attention layer (projections of queries, attention, output projection) falls with the share of rows that
 * its heads compute. All in one run, by the best of several rounds.
 * Must not know: models, routers. */
#include "launch/bench.h"
#include "launch/bench_options.h"

#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "common/rng.h"
#include "launch/measure.h"
#include "worker/ops/attention.h"
#include "worker/ops/gemm.h"
#include "worker/ops/heads.h"
#include "worker/ops/microkernel.h"

enum { HEADS = 8, BLOCK = 64, MOST_THREADS = 256, SHORT = 1024 };

static const char usage[] =
    "usage: loar bench attention [--tokens T] [--head_dim C] [--threads N] [--window W] [--rounds R]\n"
    "\n"
    "8 heads, one sequence. Without options: head sizes 64 and 128, 1024 and 4096 tokens, one thread and all cores.\n"
    "First table: share of the rate of OpenBLAS' own products (1024 x 1024). Second: time of the layer relative to the one\n"
    "whose heads compute all rows; rows chosen token by token, or in blocks of 64. The best of R rounds counts: 20 up to\n"
    "1024 tokens, 5 above, unless given.\n";

struct arrays {
    float *x, *dx, *wq, *wo, *dwq, *dwo, *q, *k, *v, *out, *dout, *dq, *dk, *dv, *y, *lse, *delta, *scratch, *heads_scratch;
    int32_t *rows;
    int64_t bounds[HEADS][2];
    void *block;
};

struct bench {
    struct threads *pool;
    struct peak peak;
    struct attention attention;
    struct attention_segment segment;
    struct attention_head layout[HEADS];
    struct heads heads;
    struct arrays m;
    int64_t n, d; /* tokens, width */
    int rounds;
};

static enum status arrays_make(struct bench *b, struct error *err)
{
    struct arrays *m = &b->m;
    size_t nd = (size_t)(b->n * b->d), dd = (size_t)(b->d * b->d), stats = (size_t)b->n * HEADS;
    size_t attention = attention_scratch_values(&b->attention, threads_count(b->pool), true);
    size_t heads = heads_scratch_values(&b->heads, threads_count(b->pool));
    const struct {
        float **at;
        size_t values;
    } pieces[] = {
        {&m->x, nd}, {&m->dx, nd}, {&m->wq, dd}, {&m->wo, dd}, {&m->dwq, dd}, {&m->dwo, dd}, {&m->q, nd}, {&m->k, nd}, {&m->v, nd},
        {&m->out, nd}, {&m->dout, nd}, {&m->dq, nd}, {&m->dk, nd}, {&m->dv, nd}, {&m->y, nd}, {&m->lse, stats}, {&m->delta, stats},
        {&m->scratch, attention}, {&m->heads_scratch, heads},
    };
    enum { PIECES = sizeof pieces / sizeof *pieces };
    size_t all = 0;
    for (int i = 0; i < PIECES; i++)
        all += (pieces[i].values + 15) / 16 * 16;
    m->block = mem_alloc_aligned(all, sizeof(float));
    m->rows = mem_alloc(stats, sizeof *m->rows);
    if (!m->block || !m->rows)
        FAIL(err, STATUS_NOMEM, "no memory for attention over %lld tokens", (long long)b->n);
    float *at = m->block;
    for (int i = 0; i < PIECES; i++) {
        *pieces[i].at = at;
        for (size_t j = 0; j < pieces[i].values; j++)
            at[j] = (float)(2 * rng_uniform(1, RNG_DATA, j * PIECES + (size_t)i) - 1);
        at += (pieces[i].values + 15) / 16 * 16;
    }
    b->attention.scratch = m->scratch;
    b->heads.scratch = m->heads_scratch;
    return STATUS_OK;
}

/* Each head computes `percent` of the rows, chosen in runs of `run` tokens; 100: all. Returns the share drawn. */
static double choose(struct bench *b, int percent, int run)
{
    int64_t at = 0;
    int32_t *next = b->m.rows;
    for (int h = 0; h < HEADS; h++) {
        int32_t *begin = next;
        for (int64_t i = 0; i < b->n; i++)
            if ((int)rng_below(2, RNG_DATA, (uint64_t)(h * b->n + i / run), 100) < percent)
                *next++ = (int32_t)i;
        b->m.bounds[h][0] = 0;
        b->m.bounds[h][1] = next - begin;
        b->layout[h] = (struct attention_head){at, b->attention.head_dim, percent == 100 ? NULL : begin, b->m.bounds[h]};
        at += (next - begin) * (int64_t)b->attention.head_dim;
    }
    return (double)(next - b->m.rows) / (double)(b->n * HEADS);
}

struct times {
    struct lap forward, backward, layer_forward, layer_backward, product;
};

/* One layer there and back; the times of attention alone within it. */
static void once(struct bench *b, struct times *t)
{
    struct arrays *m = &b->m;
    struct lap all = lap_begin();
    heads_gather(b->pool, &b->heads, HEADS_ROWS, m->wq, NULL, m->x, false, m->q);
    struct lap part = lap_begin();
    attention_forward(b->pool, &b->attention, m->q, m->k, m->v, m->out, m->lse);
    lap_keep(&t->forward, lap_end(part));
    heads_scatter(b->pool, &b->heads, HEADS_COLUMNS, m->wo, m->out, false, m->y);
    lap_keep(&t->layer_forward, lap_end(all));

    all = lap_begin();
    heads_gather(b->pool, &b->heads, HEADS_COLUMNS, m->wo, NULL, m->dx, false, m->dout);
    heads_weight_gradient(b->pool, &b->heads, HEADS_COLUMNS, m->out, m->dx, m->dwo);
    part = lap_begin();
    attention_delta(b->pool, &b->attention, m->out, m->dout, m->delta);
    attention_backward(b->pool, &b->attention, m->q, m->k, m->v, m->lse, m->dout, m->delta, m->dq, m->dk, m->dv);
    lap_keep(&t->backward, lap_end(part));
    heads_weight_gradient(b->pool, &b->heads, HEADS_ROWS, m->dq, m->x, m->dwq);
    heads_scatter(b->pool, &b->heads, HEADS_ROWS, m->wq, m->dq, false, m->y);
    lap_keep(&t->layer_backward, lap_end(all));
}

static struct times measure(struct bench *b)
{
    struct times t = {0};
    for (int round = 0; round < b->rounds; round++) {
        struct lap began = lap_begin();
        peak_run(&b->peak, b->pool);
        lap_keep(&t.product, lap_end(began));
        once(b, &t);
    }
    return t;
}

static void show(struct bench *b)
{
    int threads = threads_count(b->pool), c = b->attention.head_dim;
    choose(b, 100, 1);
    struct times warm = measure(b), all = measure(b);
    (void)warm;
    double pairs = attention_pairs(&b->attention), flops = pairs * c, peak = peak_flops(threads) / all.product.wall;
    double cpu_peak = peak_flops(threads) / all.product.cpu;
    printf("head size %3d, %4lld tokens, %d thread%s: products %.0f GFLOP/s; forward %.2f of it (by processor time %.2f), backward "
           "%.2f (%.2f)\n",
           c, (long long)b->n, threads, threads > 1 ? "s" : "", peak * 1e-9, 4 * flops / all.forward.wall / peak,
           4 * flops / all.forward.cpu / cpu_peak, 10 * flops / all.backward.wall / peak, 10 * flops / all.backward.cpu / cpu_peak);
    for (int run = 1; run <= BLOCK; run *= BLOCK)
        for (int percent = 75; percent > 0; percent -= 25) {
            double share = choose(b, percent, run);
            struct times some = measure(b);
            printf("    %s %.2f of the rows, %.2f of the pairs: layer forward %.2f (%.2f), backward %.2f (%.2f); attention alone %.2f, %.2f\n",
                   run == 1 ? "tokens," : "blocks,", share, attention_pairs(&b->attention) / pairs, some.layer_forward.wall / all.layer_forward.wall,
                   some.layer_forward.cpu / all.layer_forward.cpu, some.layer_backward.wall / all.layer_backward.wall,
                   some.layer_backward.cpu / all.layer_backward.cpu, some.forward.wall / all.forward.wall,
                   some.backward.wall / all.backward.wall);
            fflush(stdout);
        }
}

static enum status bench_one(int64_t tokens, int head_dim, int threads, int window, int rounds, struct error *err)
{
    struct bench b = {.n = tokens, .d = (int64_t)HEADS * head_dim, .rounds = rounds, .segment = {0, 0, (int)tokens, (int)tokens}};
    b.attention = (struct attention){.heads = HEADS, .kv_heads = HEADS, .head_dim = head_dim, .n_segments = 1,
                                     .segments = &b.segment, .layout = b.layout, .window = window, .sinks = window ? 64 : 0};
    b.heads = (struct heads){.heads = HEADS, .head_dim = head_dim, .width = b.d, .rows = tokens, .n_segments = 1, .layout = b.layout};
    enum status st;
    TRY_OR(done, st, threads_create(threads, &b.pool, err));
    TRY_OR(done, st, peak_init(&b.peak, threads, err));
    TRY_OR(done, st, arrays_make(&b, err));
    show(&b);
done:
    mem_free_aligned(b.m.block);
    mem_free(b.m.rows);
    peak_free(&b.peak);
    threads_free(b.pool);
    return st;
}

int bench_attention(int argc, char **argv)
{
    struct error err = {0};
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        fputs(usage, stdout);
        return 0;
    }
    int64_t given_tokens = 0, given_dim = 0, given_threads = 0, window = 0, rounds = 0; /* 0: not given */
    const struct bench_option options[] = {
        {"tokens", &given_tokens, 1, 1 << 20},         {"head_dim", &given_dim, 2, 1024}, {"threads", &given_threads, 1, MOST_THREADS},
        {"window", &window, 1, 1 << 20}, {"rounds", &rounds, 1, 1000},
    };
    enum status st = bench_options_read(argc, argv, options, BENCH_COUNT(options), &err);
    if (st == STATUS_OK && (st = gemm_init(&err)) == STATUS_OK)
        printf("kernels: %s; OpenBLAS: %s\n", product_kernels(), gemm_kernels());
    int cores = threads_cores();
    for (int head_dim = 64; head_dim <= 128; head_dim *= 2)
        for (int tokens = 1024; tokens <= 4096; tokens *= 4)
            for (int threads = 1; threads <= cores && st == STATUS_OK; threads += cores > 1 ? cores - 1 : 1) {
                /* What is given takes the place of a loop. */
                if ((given_dim && head_dim > 64) || (given_tokens && tokens > 1024) || (given_threads && threads > 1))
                    continue;
                int64_t n = given_tokens ? given_tokens : tokens;
                st = bench_one(n, given_dim ? (int)given_dim : head_dim, given_threads ? (int)given_threads : threads, (int)window,
                               rounds ? (int)rounds : n <= SHORT ? 20 : 5, &err); /* short laps scatter more */
            }
    if (st != STATUS_OK)
        fprintf(stderr, "loar bench attention: %s\n", err.text);
    return status_exit_code(st);
}
