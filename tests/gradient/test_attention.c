/* Attention with windows, sinks and heads that compute only some rows, and the projections of such heads, against plain
 * references in double precision; the same bits for any number of threads; every kernel of this machine. */
#include "tests/gradient/gradient.h"

#include "worker/ops/attention.h"
#include "worker/ops/heads.h"
#include "worker/ops/microkernel.h"

struct shape {
    int heads, kv_heads, c, window, sinks, n_segments;
    const struct attention_segment *segments;
    int share; /* percent of rows that a head computes; 100: all, without lists */
};

enum { MAX_HEADS = 8, MAX_SEGMENTS = 8 };

/* Random rows per head, packed behind each other. */
struct lists {
    struct attention_head layout[MAX_HEADS];
    int32_t *rows;
    int64_t bounds[MAX_HEADS][MAX_SEGMENTS + 1];
    int64_t values;
    bool *computed; /* [rows][H] */
    int n;
};

static void lists_make(struct lists *l, const struct shape *s)
{
    l->n = (int)s->segments[s->n_segments - 1].query_first + s->segments[s->n_segments - 1].queries;
    l->rows = test_malloc((size_t)(s->heads * l->n) * sizeof *l->rows);
    l->computed = test_calloc((size_t)(s->heads * l->n), sizeof *l->computed);
    int64_t at = 0;
    int32_t *next = l->rows;
    for (int h = 0; h < s->heads; h++) {
        bool all = s->share == 100 || (h == 1 && s->share > 0);
        l->layout[h] = (struct attention_head){at, s->c, all ? NULL : next, l->bounds[h]};
        int32_t *begin = next;
        for (int g = 0; g < s->n_segments; g++) {
            l->bounds[h][g] = next - begin;
            for (int i = 0; i < s->segments[g].queries; i++) {
                int row = (int)s->segments[g].query_first + i;
                if (!all && (int)rng_below(3, RNG_DATA, (uint64_t)(h * 100000 + row), 100) >= s->share)
                    continue;
                *next++ = row;
                l->computed[row * s->heads + h] = true;
            }
        }
        l->bounds[h][s->n_segments] = next - begin;
        at += (int64_t)(all ? l->n : next - begin) * s->c;
    }
    l->values = at;
}

static void lists_free(struct lists *l)
{
    test_free(l->rows);
    test_free(l->computed);
}

/* Where row `row` of head h lies; the head computes it. */
static int64_t place(const struct lists *l, int h, int row)
{
    const struct attention_head *a = &l->layout[h];
    if (!a->rows)
        return a->offset + row * a->stride;
    int j = 0;
    while (a->rows[j] != row)
        j++;
    return a->offset + j * a->stride;
}

static bool sees(const struct shape *s, int query, int key)
{
    return key <= query && (s->window == 0 || query - key < s->window || key < s->sinks);
}

/* One head and row: output, and with `dout` the shares in the gradients. All in double, from packed singles. */
static void reference_row(const struct shape *s, const struct attention_segment *g, int position, int kv, const float *q,
                          const float *k, const float *v, double *out, const float *dout, double *dq, double *dk, double *dv,
                          double *delta)
{
    int c = s->c, row = s->kv_heads * c;
    double *w = test_calloc((size_t)g->keys, sizeof *w), sum = 0, scale = 1 / sqrt(c);
    for (int j = 0; j <= position; j++) {
        if (!sees(s, position, j))
            continue;
        double dot = 0;
        for (int i = 0; i < c; i++)
            dot += (double)q[i] * k[(g->key_first + j) * row + kv * c + i];
        sum += w[j] = exp(dot * scale);
    }
    for (int i = 0; i < c; i++)
        out[i] = 0;
    for (int j = 0; j <= position; j++) {
        w[j] /= sum;
        for (int i = 0; i < c; i++)
            out[i] += w[j] * v[(g->key_first + j) * row + kv * c + i];
    }
    *delta = 0;
    for (int i = 0; i < c; i++)
        *delta += out[i] * dout[i];
    for (int j = 0; j <= position; j++) {
        int64_t at = (g->key_first + j) * row + kv * c;
        double dw = 0;
        for (int i = 0; i < c; i++) {
            dw += (double)dout[i] * v[at + i];
            dv[at + i] += w[j] * dout[i];
        }
        double ds = w[j] * (dw - *delta) * scale;
        for (int i = 0; i < c; i++) {
            dq[i] += ds * k[at + i];
            dk[at + i] += ds * q[i];
        }
    }
    test_free(w);
}

static void check_shape(const struct shape *s)
{
    struct lists l;
    lists_make(&l, s);
    const struct attention_segment *last = &s->segments[s->n_segments - 1];
    int nk = (int)(last->key_first + last->keys) * s->kv_heads * s->c, nq = (int)l.values, stats = nq / s->c;
    float *q = random_floats(nq, 1), *k = random_floats(nk, 2), *v = random_floats(nk, 3), *dout = random_floats(nq, 4);
    for (int i = 0; i < nq; i++)
        q[i] *= 4;
    double *out = test_calloc((size_t)nq, sizeof *out), *dq = test_calloc((size_t)nq, sizeof *dq);
    double *dk = test_calloc((size_t)nk, sizeof *dk), *dv = test_calloc((size_t)nk, sizeof *dv);
    double *delta = test_calloc((size_t)stats, sizeof *delta), pairs = 0;
    for (int h = 0; h < s->heads; h++)
        for (int g = 0; g < s->n_segments; g++)
            for (int i = 0; i < s->segments[g].queries; i++) {
                const struct attention_segment *seg = &s->segments[g];
                int row = (int)seg->query_first + i, position = seg->keys - seg->queries + i;
                if (l.layout[h].rows && !l.computed[row * s->heads + h])
                    continue;
                int64_t at = place(&l, h, row);
                reference_row(s, seg, position, h / (s->heads / s->kv_heads), q + at, k, v, out + at, dout + at, dq + at, dk, dv,
                              delta + at / s->c);
                for (int j = 0; j <= position; j++)
                    pairs += sees(s, position, j);
            }
    float *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        struct threads *pool = pool_of(threads);
        struct attention a = {.heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->c, .n_segments = s->n_segments,
                              .segments = s->segments, .layout = l.layout, .window = s->window, .sinks = s->sinks};
        a.scratch = test_malloc(attention_scratch_values(&a, threads, true) * sizeof *a.scratch);
        memset(a.scratch, 0xFF, attention_scratch_values(&a, threads, true) * sizeof *a.scratch);
        size_t all = (size_t)(2 * nq + 2 * nk + 2 * stats);
        float *found = test_malloc(all * sizeof *found);
        memset(found, 0xFF, all * sizeof *found);
        float *f_dq = found + nq, *f_dk = f_dq + nq, *f_dv = f_dk + nk, *lse = f_dv + nk, *f_delta = lse + stats;
        attention_forward(pool, &a, q, k, v, found, lse);
        attention_delta(pool, &a, found, dout, f_delta);
        attention_backward(pool, &a, q, k, v, lse, dout, f_delta, f_dq, f_dk, f_dv);
        if (first) {
            assert_memory_equal(found, first, all * sizeof *found);
            test_free(found);
        } else {
            assert_near("out", found, out, nq, 3e-6);
            assert_near("dq", f_dq, dq, nq, 5e-6);
            assert_near("dk", f_dk, dk, nk, 5e-6);
            assert_near("dv", f_dv, dv, nk, 5e-6);
            assert_near("delta", f_delta, delta, stats, 5e-6);
            assert_true(attention_pairs(&a) == pairs);
            first = found;
        }
        test_free(a.scratch);
        threads_free(pool);
    }
    test_free(first);
    test_free(q), test_free(k), test_free(v), test_free(dout), test_free(out), test_free(dq), test_free(dk), test_free(dv);
    test_free(delta);
    lists_free(&l);
}

static const char *const kernels[] = {"avx512", "avx2", "c"};

static void masks_and_rows(void **state)
{
    (void)state;
    const struct attention_segment packed[] = {{0, 0, 5, 5}, {5, 5, 1, 1}, {6, 6, 150, 150}};
    const struct attention_segment tiles[] = {{0, 0, 300, 300}, {300, 300, 70, 70}}, cache[] = {{0, 0, 3, 290}, {3, 290, 90, 400}};
    for (size_t kernel = 0; kernel < sizeof kernels / sizeof *kernels; kernel++) {
        if (!product_choose(kernels[kernel]))
            continue;
        for (int share = 0; share <= 100; share += 25) {
            check_shape(&(struct shape){4, 2, 6, 0, 0, 3, packed, share});
            check_shape(&(struct shape){2, 1, 40, 64, 10, 2, tiles, share});
            check_shape(&(struct shape){2, 2, 16, 100, 0, 2, tiles, share});
            check_shape(&(struct shape){3, 3, 8, 1, 130, 2, tiles, share});
            check_shape(&(struct shape){2, 1, 32, 0, 0, 2, cache, share});
            check_shape(&(struct shape){2, 2, 32, 150, 20, 2, cache, share});
        }
    }
    if (!product_choose(kernels[0]))
        product_choose(kernels[1]);
}

/* Keys cut into parts, each with its own dq. */
static void long_sequences(void **state)
{
    (void)state;
    const struct attention_segment one[] = {{0, 0, 2100, 2100}}, beside[] = {{0, 0, 30, 30}, {30, 30, 2050, 2050}};
    check_shape(&(struct shape){1, 1, 4, 0, 0, 1, one, 100});
    check_shape(&(struct shape){2, 1, 4, 256, 64, 2, beside, 30});
    check_shape(&(struct shape){2, 2, 4, 300, 0, 1, one, 60});
}

static void linear_maps_of_heads(void **state)
{
    (void)state;
    enum { N = 200, D = 70, H = 3, C = 36, W = H * C };
    const struct attention_segment segments[] = {{0, 0, 130, 130}, {130, 130, 70, 70}};
    for (int share = 0; share <= 100; share += 20)
        for (int form = HEADS_ROWS; form <= HEADS_COLUMNS; form++) {
            struct lists l;
            lists_make(&l, &(struct shape){H, H, C, 0, 0, 2, segments, share});
            float *weight = random_floats(W * D, 1), *x = random_floats(N * D, 2), *in = random_floats((int)l.values, 3);
            float *bias = random_floats(W, 4), *base = random_floats(N * D, 5);
            double *out = test_calloc((size_t)l.values, sizeof *out), *dx = doubles_of(base, N * D);
            double *dw = test_calloc(W * D, sizeof *dw), *db = test_calloc(W, sizeof *db);
            for (int h = 0; h < H; h++)
                for (int n = 0; n < N; n++) {
                    int64_t at = l.layout[h].rows && !l.computed[n * H + h] ? -1 : place(&l, h, n);
                    for (int c = 0; at >= 0 && c < C; c++) {
                        out[at + c] = bias[h * C + c];
                        db[h * C + c] += in[at + c];
                        for (int d = 0; d < D; d++) {
                            int w = form == HEADS_ROWS ? (h * C + c) * D + d : d * W + h * C + c;
                            out[at + c] += (double)x[n * D + d] * weight[w];
                            dx[n * D + d] += (double)in[at + c] * weight[w];
                            dw[w] += (double)in[at + c] * x[n * D + d];
                        }
                    }
                }
            float *first = NULL;
            for (int threads = 1; threads <= 3; threads++) {
                struct threads *pool = pool_of(threads);
                struct heads heads = {H, C, D, N, 2, l.layout, NULL};
                heads.scratch = test_malloc(heads_scratch_values(&heads, threads) * sizeof *heads.scratch);
                size_t all = (size_t)l.values + N * D + W * D + W;
                float *found = test_malloc(all * sizeof *found), *f_dx = found + l.values, *f_dw = f_dx + N * D, *f_db = f_dw + W * D;
                memcpy(f_dx, base, N * D * sizeof *f_dx);
                heads_gather(pool, &heads, (enum heads_weight)form, weight, bias, x, false, found);
                heads_scatter(pool, &heads, (enum heads_weight)form, weight, in, true, f_dx);
                heads_weight_gradient(pool, &heads, (enum heads_weight)form, in, x, f_dw);
                heads_bias_gradient(&heads, in, f_db);
                if (first) {
                    assert_memory_equal(found, first, all * sizeof *found);
                    test_free(found);
                } else {
                    assert_near("gathered", found, out, (int)l.values, 3e-6);
                    assert_near("scattered", f_dx, dx, N * D, 3e-6);
                    assert_near("weight", f_dw, dw, W * D, 3e-6);
                    assert_near("bias", f_db, db, W, 3e-6);
                    first = found;
                }
                test_free(heads.scratch);
                threads_free(pool);
            }
            test_free(first), test_free(weight), test_free(x), test_free(in), test_free(bias), test_free(base);
            test_free(out), test_free(dx), test_free(dw), test_free(db);
            lists_free(&l);
        }
}

/* A row's result does not depend on the rows beside it: a head that computes some rows has the bits of one that computes all. */
static void rows_do_not_depend_on_each_other(void **state)
{
    (void)state;
    enum { T = 400, C = 32 };
    const struct attention_segment one[] = {{0, 0, T, T}};
    struct lists some, all;
    struct threads *pool = pool_of(1);
    lists_make(&some, &(struct shape){1, 1, C, 0, 0, 1, one, 50});
    lists_make(&all, &(struct shape){1, 1, C, 0, 0, 1, one, 100});
    float *q = random_floats(T * C, 1), *k = random_floats(T * C, 2), *v = random_floats(T * C, 3), lse[T];
    float *out_all = random_floats(T * C, 4), *out = random_floats(T * C, 5), *few = random_floats(T * C, 6);
    int count = (int)some.layout[0].bounds[1];
    for (int j = 0; j < count; j++)
        memcpy(few + j * C, q + some.rows[j] * C, C * sizeof *q);
    struct attention a = {.heads = 1, .kv_heads = 1, .head_dim = C, .n_segments = 1, .segments = one, .layout = all.layout};
    a.scratch = test_malloc(attention_scratch_values(&a, 1, false) * sizeof *a.scratch);
    attention_forward(pool, &a, q, k, v, out_all, lse);
    a.layout = some.layout;
    attention_forward(pool, &a, few, k, v, out, lse);
    assert_true(count > 100 && count < 300);
    for (int j = 0; j < count; j++)
        assert_memory_equal(out + j * C, out_all + some.rows[j] * C, C * sizeof *out);
    test_free(q), test_free(k), test_free(v), test_free(out_all), test_free(out), test_free(few), test_free(a.scratch);
    lists_free(&some);
    lists_free(&all);
    threads_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_and_rows),
        cmocka_unit_test(long_sequences),
        cmocka_unit_test(linear_maps_of_heads),
        cmocka_unit_test(rows_do_not_depend_on_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
