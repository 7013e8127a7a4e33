/* Every operator beside a plain reference in double precision, forward and backward. */
#include "tests/gradient/gradient.h"

#include "worker/ops/attention.h"
#include "worker/ops/bias.h"
#include "worker/ops/cross_entropy.h"
#include "worker/ops/embedding.h"
#include "worker/ops/norm.h"
#include "worker/ops/rope.h"
#include "worker/ops/rows.h"
#include "worker/ops/swiglu.h"
#include "worker/ops/vector.h"

static struct threads *pool;

static int start(void **state)
{
    (void)state;
    pool = pool_of(2);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    threads_free(pool);
    return 0;
}

/* Every `step` from `from` on, the relative error stays within 2 units in the last place. */
static void check_power(const char *name, float (*power)(float), double (*exact)(double), double from, double to, double step)
{
    double worst = 0;
    for (double x = from; x < to; x += step) {
        double wanted = exact((double)(float)x), found = power((float)x), error = fabs(found - wanted) / wanted;
        assert_true(error <= 2.5e-7);
        worst = error > worst ? error : worst;
    }
    print_message("%s: largest relative error %.3g\n", name, worst);
}

static void exponential(void **state)
{
    (void)state;
    check_power("exp_fast", exp_fast, exp, -86.8, 88.7, 0.00037);
    assert_true(exp_fast(0.0f) == 1.0f && exp_fast(-0.0f) == 1.0f);
    assert_true(exp_fast(-INFINITY) == 0.0f && exp_fast(-1000.0f) == 0.0f);
    assert_true(exp_fast(INFINITY) == INFINITY && exp_fast(89.0f) == INFINITY);
    assert_true(isnan(exp_fast(NAN)));
}

static void power_of_two(void **state)
{
    (void)state;
    check_power("exp2_fast", exp2_fast, exp2, -124.9, 126, 0.00053);
    for (int n = -125; n <= 126; n++)
        assert_true(exp2_fast((float)n) == ldexpf(1.0f, n));
    assert_true(exp2_fast(-INFINITY) == 0.0f && exp2_fast(-125.1f) == 0.0f && exp2_fast(-1e30f) == 0.0f);
    assert_true(isnan(exp2_fast(NAN)));
}

struct product_shape {
    enum gemm_form form;
    int m, n, k;
};

static void product_reference(const void *shape, double *const *in, double *out)
{
    const struct product_shape *s = shape;
    for (int i = 0; i < s->m; i++)
        for (int j = 0; j < s->n; j++) {
            double sum = 0;
            for (int l = 0; l < s->k; l++)
                sum += in[0][s->form == GEMM_TN ? l * s->m + i : i * s->k + l] *
                       in[1][s->form == GEMM_NT ? j * s->k + l : l * s->n + j];
            out[i * s->n + j] = sum;
        }
}

/* All forms, sizes with one and several tiles, one row, beta, and guard values behind each row of C. */
static void products(void **state)
{
    (void)state;
    const int sizes[][3] = {{1, 1, 1}, {1, 300, 70}, {5, 3, 9}, {130, 257, 33}, {600, 40, 20}, {17, 1100, 8}};
    for (int form = GEMM_NT; form <= GEMM_TN; form++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct product_shape s = {(enum gemm_form)form, sizes[i][0], sizes[i][1], sizes[i][2]};
            float *a = random_floats(s.m * s.k, 1), *b = random_floats(s.n * s.k, 2);
            float *c = test_malloc((size_t)(s.m * (s.n + 3)) * sizeof *c), *packed = test_malloc((size_t)(s.m * s.n) * sizeof *c);
            double *wanted = test_malloc((size_t)(s.m * s.n) * sizeof *wanted);
            double *exact[] = {doubles_of(a, s.m * s.k), doubles_of(b, s.n * s.k)};
            product_reference(&s, exact, wanted);
            for (int round = 0; round < 2; round++) { /* the second adds to the first */
                if (round == 0)
                    for (int j = 0; j < s.m * (s.n + 3); j++)
                        c[j] = NAN;
                struct gemm job = {s.form, s.m, s.n, s.k, a, form == GEMM_TN ? s.m : s.k, b, form == GEMM_NT ? s.k : s.n,
                                   c, s.n + 3, (float)round};
                gemm_run(pool, &job, 1);
                for (int row = 0; row < s.m; row++)
                    for (int j = 0; j < s.n + 3; j++)
                        if (j < s.n)
                            packed[row * s.n + j] = c[row * (s.n + 3) + j] / (float)(round + 1);
                        else
                            assert_true(isnan(c[row * (s.n + 3) + j]));
                assert_near("product", packed, wanted, s.m * s.n, 1e-6);
            }
            test_free(a), test_free(b), test_free(c), test_free(packed), test_free(wanted);
            test_free(exact[0]), test_free(exact[1]);
        }
}

struct rows_shape {
    int n, width;
};

static void norm_reference(const void *shape, double *const *in, double *out)
{
    const struct rows_shape *s = shape;
    for (int r = 0; r < s->n; r++) {
        double square = 0;
        for (int i = 0; i < s->width; i++) {
            double x = in[0][r * s->width + i] + in[1][r * s->width + i];
            square += x * x;
        }
        for (int i = 0; i < s->width; i++)
            out[r * s->width + i] = (in[0][r * s->width + i] + in[1][r * s->width + i]) / sqrt(square / s->width + 1e-3) * in[2][i];
    }
}

static void norm(void **state)
{
    (void)state;
    const struct rows_shape shapes[] = {{1, 2}, {3, 16}, {70, 21}, {5, 200}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        struct rows_shape s = shapes[k];
        int n = s.n * s.width;
        struct reference r = {norm_reference, &s, 3, {n, n, s.width}, n};
        float *x = random_floats(n, 1), *delta = random_floats(n, 2), *weight = random_floats(s.width, 3);
        float *cotangent = random_floats(n, 4), *sum = random_floats(n, 5), *out = random_floats(n, 6);
        float *rstd = random_floats(s.n, 7), *dweight = random_floats(s.width, 8), *dx = test_calloc((size_t)n, sizeof *dx);
        norm_forward(pool, s.n, s.width, x, delta, weight, 1e-3f, sum, rstd, out);
        norm_backward(pool, s.n, s.width, sum, rstd, weight, cotangent, dx, dweight, false);
        check(&r, (const float *[]){x, delta, weight}, out, cotangent, (const float *[]){dx, dx, dweight}, 2e-6);

        /* Without delta, adding to what is there: twice the gradient; delta in place gives the same sum. */
        float *again = test_malloc((size_t)n * sizeof *again);
        norm_forward(pool, s.n, s.width, sum, NULL, weight, 1e-3f, NULL, rstd, again);
        assert_memory_equal(again, out, (size_t)n * sizeof *out);
        norm_forward(pool, s.n, s.width, x, delta, weight, 1e-3f, delta, rstd, again);
        assert_memory_equal(delta, sum, (size_t)n * sizeof *sum);
        double *twice = doubles_of(dx, n), *twice_weight = doubles_of(dweight, s.width);
        norm_backward(pool, s.n, s.width, sum, rstd, weight, cotangent, dx, dweight, true);
        for (int i = 0; i < n; i++)
            twice[i] *= 2;
        for (int i = 0; i < s.width; i++)
            twice_weight[i] *= 2;
        assert_near("dx twice", dx, twice, n, 1e-6);
        assert_near("dweight twice", dweight, twice_weight, s.width, 1e-6);
        test_free(x), test_free(delta), test_free(weight), test_free(cotangent), test_free(sum), test_free(out);
        test_free(rstd), test_free(dweight), test_free(dx), test_free(again), test_free(twice), test_free(twice_weight);
    }
}

static void swiglu_reference(const void *shape, double *const *in, double *out)
{
    for (int i = 0; i < *(const int *)shape; i++)
        out[i] = in[0][i] / (1 + exp(-in[0][i])) * in[1][i];
}

static void swiglu(void **state)
{
    (void)state;
    const int sizes[] = {1, 37, 400};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int n = sizes[k];
        struct reference r = {swiglu_reference, &n, 2, {n, n}, n};
        float *gate = random_floats(n, 1), *up = random_floats(n, 2), *cotangent = random_floats(n, 3), *act = random_floats(n, 4);
        for (int i = 0; i < n; i++)
            gate[i] *= 8;
        float *dgate = random_floats(n, 5), *dup = random_floats(n, 6), *back = random_floats(n, 7);
        memcpy(dgate, gate, (size_t)n * sizeof *gate);
        memcpy(dup, up, (size_t)n * sizeof *up);
        memcpy(back, cotangent, (size_t)n * sizeof *back);
        swiglu_forward(pool, n, gate, up, act);
        swiglu_backward(pool, n, dgate, dup, back);
        assert_memory_equal(back, act, (size_t)n * sizeof *act);
        check(&r, (const float *[]){gate, up}, act, cotangent, (const float *[]){dgate, dup}, 1e-6);
        test_free(gate), test_free(up), test_free(cotangent), test_free(act), test_free(dgate), test_free(dup), test_free(back);
    }
    float far[] = {-1e4f, 1e4f}, one[] = {1, 1}, act[2];
    swiglu_forward(pool, 2, far, one, act);
    assert_true(act[0] == 0 && act[1] == 1e4f);
}

struct rope_shape {
    int n, heads, head_dim;
    const int32_t *positions;
};

static void rope_reference(const void *shape, double *const *in, double *out)
{
    const struct rope_shape *s = shape;
    int half = s->head_dim / 2;
    for (int row = 0; row < s->n * s->heads; row++)
        for (int i = 0; i < half; i++) {
            double angle = s->positions[row / s->heads] * pow(100, -2.0 * i / s->head_dim);
            double a = in[0][row * s->head_dim + i], b = in[0][row * s->head_dim + i + half];
            out[row * s->head_dim + i] = a * cos(angle) - b * sin(angle);
            out[row * s->head_dim + i + half] = b * cos(angle) + a * sin(angle);
        }
}

static void rope(void **state)
{
    (void)state;
    const int32_t positions[] = {0, 1, 2, 0, 1, 5, 9};
    struct rope_shape s = {7, 3, 10, positions};
    int n = s.n * s.heads * s.head_dim;
    float frequencies[5], cosine[10 * 5], sine[10 * 5];
    for (int i = 0; i < 5; i++)
        frequencies[i] = (float)pow(100, -2.0 * i / s.head_dim);
    rope_table(5, frequencies, 0, 10, cosine, sine);
    struct reference r = {rope_reference, &s, 1, {n}, n};
    float *x = random_floats(n, 1), *turned = random_floats(n, 1), *cotangent = random_floats(n, 2), *dx = random_floats(n, 2);
    rope_apply(pool, s.n, s.heads, s.head_dim, positions, cosine, sine, 1, turned);
    rope_apply(pool, s.n, s.heads, s.head_dim, positions, cosine, sine, -1, dx);
    check(&r, (const float *[]){x}, turned, cotangent, (const float *[]){dx}, 1e-6);
    test_free(x), test_free(turned), test_free(cotangent), test_free(dx);
}

struct attention_shape {
    int heads, kv_heads, head_dim, n_segments, query_rows, key_rows;
    const struct attention_segment *segments;
};

static void attention_reference(const void *shape, double *const *in, double *out)
{
    const struct attention_shape *s = shape;
    double scores[512];
    for (int g = 0; g < s->n_segments; g++)
        for (int i = 0; i < s->segments[g].queries; i++)
            for (int h = 0; h < s->heads; h++) {
                const struct attention_segment *seg = &s->segments[g];
                int64_t row = (seg->query_first + i) * s->heads + h;
                int kv = h / (s->heads / s->kv_heads), seen = seg->keys - seg->queries + i + 1;
                double sum = 0;
                for (int j = 0; j < seen; j++) {
                    int64_t key = (seg->key_first + j) * s->kv_heads + kv;
                    double dot = 0;
                    for (int c = 0; c < s->head_dim; c++)
                        dot += in[0][row * s->head_dim + c] * in[1][key * s->head_dim + c];
                    sum += scores[j] = exp(dot / sqrt(s->head_dim));
                }
                for (int c = 0; c < s->head_dim; c++) {
                    double value = 0;
                    for (int j = 0; j < seen; j++)
                        value += scores[j] / sum * in[2][((seg->key_first + j) * s->kv_heads + kv) * s->head_dim + c];
                    out[row * s->head_dim + c] = value;
                }
            }
}

static void check_attention(const struct attention_shape *s, bool gradients)
{
    int nq = s->query_rows * s->heads * s->head_dim, nk = s->key_rows * s->kv_heads * s->head_dim;
    struct reference r = {attention_reference, s, 3, {nq, nk, nk}, nq};
    float *q = random_floats(nq, 1), *k = random_floats(nk, 2), *v = random_floats(nk, 3), *cotangent = random_floats(nq, 4);
    for (int i = 0; i < nq; i++)
        q[i] *= 6; /* sharp weights too */
    float *out = random_floats(nq, 5), *lse = random_floats(s->query_rows * s->heads, 6);
    float *delta = random_floats(s->query_rows * s->heads, 7);
    float *dq = random_floats(nq, 8), *dk = random_floats(nk, 9), *dv = random_floats(nk, 10);
    struct attention a = {.heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim, .n_segments = s->n_segments,
                          .segments = s->segments};
    a.scratch = test_malloc(attention_scratch_values(&a, 2, true) * sizeof(float));
    attention_forward(pool, &a, q, k, v, out, lse);
    attention_delta(pool, &a, out, cotangent, delta);
    attention_backward(pool, &a, q, k, v, lse, cotangent, delta, dq, dk, dv);
    check(&r, (const float *[]){q, k, v}, out, cotangent,
          gradients ? (const float *[]){dq, dk, dv} : (const float *[]){NULL, NULL, NULL}, 3e-6);
    test_free(q), test_free(k), test_free(v), test_free(cotangent), test_free(out), test_free(lse), test_free(delta);
    test_free(dq), test_free(dk), test_free(dv), test_free(a.scratch);
}

static void attention(void **state)
{
    (void)state;
    /* Several sequences, grouped heads; then a cache with more keys than queries; then more than one tile. */
    const struct attention_segment packed[] = {{0, 0, 5, 5}, {5, 5, 1, 1}, {6, 6, 11, 11}};
    check_attention(&(struct attention_shape){4, 2, 6, 3, 17, 17, packed}, true);
    check_attention(&(struct attention_shape){3, 3, 2, 3, 17, 17, packed}, true);
    check_attention(&(struct attention_shape){4, 1, 4, 3, 17, 17, packed}, true);
    const struct attention_segment cached[] = {{0, 0, 3, 19}};
    check_attention(&(struct attention_shape){2, 1, 8, 1, 3, 19, cached}, true);
    const struct attention_segment tiles[] = {{0, 0, 141, 141}};
    check_attention(&(struct attention_shape){1, 1, 2, 1, 141, 141, tiles}, true);
    const struct attention_segment three[] = {{0, 0, 270, 270}, {270, 270, 40, 333}};
    check_attention(&(struct attention_shape){2, 1, 4, 2, 310, 603, three}, false);
}

/* The gradient over several tiles equals the reference's by linearity in the cotangent: rows beyond a tile are zero. */
static void attention_backward_over_tiles(void **state)
{
    (void)state;
    enum { T = 300, C = 4, N = T * C };
    const struct attention_segment segment[] = {{0, 0, T, T}};
    struct attention_shape s = {1, 1, C, 1, T, T, segment};
    float *q = random_floats(N, 1), *k = random_floats(N, 2), *v = random_floats(N, 3), *cotangent = random_floats(N, 4);
    float out[N], lse[T], delta[T], dq[N], dk[N], dv[N];
    struct attention a = {.heads = 1, .kv_heads = 1, .head_dim = C, .n_segments = 1, .segments = segment};
    a.scratch = test_malloc(attention_scratch_values(&a, 2, true) * sizeof(float));
    attention_forward(pool, &a, q, k, v, out, lse);
    attention_delta(pool, &a, out, cotangent, delta);
    attention_backward(pool, &a, q, k, v, lse, cotangent, delta, dq, dk, dv);
    struct reference r = {attention_reference, &s, 3, {N, N, N}, N};
    double *exact[] = {doubles_of(q, N), doubles_of(k, N), doubles_of(v, N)}, *room = test_malloc(N * sizeof *room);
    const float *found[] = {dq, dk, dv};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < N; j += 37) { /* a sample in every tile */
            double at = exact[i][j];
            exact[i][j] = at + 1e-5;
            double above = weighed(&r, exact, cotangent, room);
            exact[i][j] = at - 1e-5;
            double below = weighed(&r, exact, cotangent, room);
            exact[i][j] = at;
            double error = fabs((above - below) / 2e-5 - found[i][j]);
            assert_true(error <= 3e-6);
        }
    for (int i = 0; i < 3; i++)
        test_free(exact[i]);
    test_free(room), test_free(a.scratch), test_free(q), test_free(k), test_free(v), test_free(cotangent);
}

struct loss_shape {
    int n, vocab;
    const int32_t *targets;
};

static void loss_reference(const void *shape, double *const *in, double *out)
{
    const struct loss_shape *s = shape;
    for (int r = 0; r < s->n; r++) {
        double sum = 0;
        for (int i = 0; i < s->vocab; i++)
            sum += exp(in[0][r * s->vocab + i]);
        out[r] = log(sum) - in[0][r * s->vocab + s->targets[r]];
    }
}

static void entropy(int n, int vocab, float *logits, const int32_t *targets, const float *weights, bool gradient, float *losses,
                    uint8_t *correct)
{
    cross_entropy(pool, &(struct cross_entropy){.n = n, .columns = vocab, .logits = logits, .targets = targets, .weights = weights,
                                                .gradient = gradient, .loss = losses, .correct = correct});
}

static void loss(void **state)
{
    (void)state;
    const int32_t targets[] = {0, 3, 40, 17, 2};
    struct loss_shape s = {5, 41, targets};
    int n = s.n * s.vocab;
    struct reference r = {loss_reference, &s, 1, {n}, s.n};
    float *logits = random_floats(n, 1), *gradient = random_floats(n, 1), *weights = random_floats(s.n, 2), losses[5];
    uint8_t correct[5];
    for (int i = 0; i < n; i++)
        gradient[i] = logits[i] *= 5;
    logits[3 * s.vocab + 17] = gradient[3 * s.vocab + 17] = 50; /* a sure one */
    logits[4 * s.vocab + 2] = gradient[4 * s.vocab + 2] = logits[4 * s.vocab + 9] = gradient[4 * s.vocab + 9] = 60;
    entropy(s.n, s.vocab, gradient, targets, weights, true, losses, correct);
    check(&r, (const float *[]){logits}, losses, weights, (const float *[]){gradient}, 1e-6);
    assert_true(correct[3] && correct[4]); /* of two equal ones the first counts */
    const int32_t second[] = {0, 3, 40, 17, 9};
    float without[5];
    entropy(s.n, s.vocab, logits, second, weights, false, without, correct);
    assert_false(correct[4]);
    assert_memory_equal(without, losses, sizeof without);
    test_free(logits), test_free(gradient), test_free(weights);

    float bad[] = {1, NAN, 2, INFINITY, 0, 0};
    entropy(2, 3, bad, (const int32_t[]){0, 1}, (const float[]){1, 1}, true, losses, correct);
    assert_true(isnan(losses[0]) && !isfinite(losses[1]));
}

struct smooth_shape {
    int n, columns;
    const int32_t *targets;
    const struct column_range *ranges;
    double smoothing;
};

/* (1 - e) nll + e mean(-log p), as the trainers' label smoothing has it. */
static void smooth_reference(const void *shape, double *const *in, double *out)
{
    const struct smooth_shape *s = shape;
    for (int r = 0; r < s->n; r++) {
        const double *x = in[0] + r * s->columns + s->ranges[r].first;
        double sum = 0, mean = 0;
        for (int i = 0; i < s->ranges[r].count; i++)
            sum += exp(x[i]);
        for (int i = 0; i < s->ranges[r].count; i++)
            mean += (log(sum) - x[i]) / s->ranges[r].count;
        out[r] = (1 - s->smoothing) * (log(sum) - x[s->targets[r]]) + s->smoothing * mean;
    }
}

/* Smoothed labels, and rows that choose among some of the columns only. */
static void smoothed_loss_over_ranges(void **state)
{
    (void)state;
    const int32_t targets[] = {0, 3, 40, 1, 2};
    const struct column_range all[] = {{0, 41}, {0, 41}, {0, 41}, {0, 41}, {0, 41}}, some[] = {{0, 41}, {37, 4}, {0, 41}, {0, 2}, {5, 3}};
    for (int turn = 0; turn < 4; turn++) {
        struct smooth_shape s = {5, 41, targets, turn & 1 ? some : all, turn & 2 ? (double)0.1f : 0};
        int n = s.n * s.columns;
        struct reference r = {smooth_reference, &s, 1, {n}, s.n};
        float *logits = random_floats(n, 1), *gradient = random_floats(n, 1), *weights = random_floats(s.n, 2), losses[5];
        uint8_t correct[5];
        for (int i = 0; i < n; i++)
            gradient[i] = logits[i] *= 5;
        gradient[1 * 41 + 0] = logits[1 * 41 + 0] = 70; /* outside the range of row 1 where there is one */
        gradient[1 * 41 + 40] = logits[1 * 41 + 40] = 60;
        struct cross_entropy job = {.n = s.n, .columns = s.columns, .logits = gradient, .targets = targets, .weights = weights,
                                    .ranges = turn & 1 ? some : NULL, .smoothing = (float)s.smoothing, .gradient = true,
                                    .loss = losses, .correct = correct};
        cross_entropy(pool, &job);
        check(&r, (const float *[]){logits}, losses, weights, (const float *[]){gradient}, 1e-6);
        assert_int_equal(correct[1], turn & 1);
        assert_true(!(turn & 1) || (gradient[1 * 41 + 0] == 0 && gradient[3 * 41 + 40] == 0));
        test_free(logits), test_free(gradient), test_free(weights);
    }
}

/* Noise is bounded, different in every place, and the same for any threads and any order of calls. */
static void embedding_noise_is_of_its_place(void **state)
{
    (void)state;
    enum { N = 150, D = 48 };
    float *once = random_floats(N * D, 1), *parts = random_floats(N * D, 1), *before = random_floats(N * D, 1);
    struct threads *alone = pool_of(1);
    double sum = 0, squares = 0;
    embedding_noise(pool, 0, N, D, 0.5f, 77, once);
    embedding_noise(alone, 90, N - 90, D, 0.5f, 77, parts);
    embedding_noise(alone, 0, 90, D, 0.5f, 77, parts);
    assert_memory_equal(once, parts, sizeof *once * N * D);
    for (int i = 0; i < N * D; i++) {
        double noise = (double)once[i] - before[i];
        assert_true(fabs(noise) <= 0.5 + 1e-6);
        sum += noise;
        squares += noise * noise;
    }
    assert_true(fabs(sum / (N * D)) < 0.02 && fabs(squares / (N * D) - 0.25 / 3) < 0.004); /* of a uniform distribution */
    embedding_noise(pool, 0, N, D, 0.5f, 78, before);
    assert_memory_not_equal(before, once, sizeof *once * N * D);
    threads_free(alone);
    test_free(once), test_free(parts), test_free(before);
}

static void bias(void **state)
{
    (void)state;
    enum { N = 150, W = 70 };
    float *y = random_floats(N * W, 1), *before = random_floats(N * W, 1), *b = random_floats(W, 2), db[W];
    bias_forward(pool, N, W, b, y);
    for (int i = 0; i < N * W; i++)
        assert_true(y[i] == before[i] + b[i % W]);
    bias_backward(pool, N, W, y, db);
    double wanted[W] = {0};
    for (int i = 0; i < N * W; i++)
        wanted[i % W] += y[i];
    assert_near("bias", db, wanted, W, 1e-6);
    test_free(y), test_free(before), test_free(b);
}

static void rows_and_embedding(void **state)
{
    (void)state;
    enum { V = 9, N = 200, D = 70 };
    float *table = random_floats(V * D, 1), *dout = random_floats(N * D, 2), *dtable = random_floats(V * D, 3);
    double *wanted = doubles_of(dtable, V * D);
    float *out = random_floats(N * D, 4), *x = random_floats(N * D, 5);
    int32_t tokens[N], chosen[N / 2];
    for (int i = 0; i < N; i++)
        tokens[i] = (int32_t)rng_below(1, RNG_DATA, (uint64_t)i, V - 1); /* the last row stays as it is */
    embedding_forward(pool, N, D, tokens, table, out);
    embedding_backward(pool, N, D, tokens, dout, dtable);
    for (int i = 0; i < N * D; i++) {
        assert_true(out[i] == table[tokens[i / D] * D + i % D]);
        wanted[tokens[i / D] * D + i % D] += dout[i];
    }
    assert_near("table", dtable, wanted, V * D, 1e-6);

    for (int i = 0; i < N / 2; i++)
        chosen[i] = 2 * i + 1;
    rows_gather_sum(pool, N / 2, D, chosen, x, dout, out);
    for (int i = 0; i < N / 2 * D; i++)
        assert_true(out[i] == x[chosen[i / D] * D + i % D] + dout[chosen[i / D] * D + i % D]);
    float *scattered = random_floats(N * D, 5);
    rows_scatter(pool, N / 2, D, chosen, out, scattered);
    for (int i = 0; i < N * D; i++)
        assert_true(scattered[i] == (i / D % 2 ? out[i / D / 2 * D + i % D] : x[i]));
    test_free(table), test_free(dout), test_free(dtable), test_free(wanted), test_free(out), test_free(x), test_free(scattered);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential), cmocka_unit_test(power_of_two),
        cmocka_unit_test(products),
        cmocka_unit_test(norm),
        cmocka_unit_test(swiglu),
        cmocka_unit_test(rope),
        cmocka_unit_test(attention),
        cmocka_unit_test(attention_backward_over_tiles),
        cmocka_unit_test(loss), cmocka_unit_test(smoothed_loss_over_ranges), cmocka_unit_test(embedding_noise_is_of_its_place),
        cmocka_unit_test(bias),
        cmocka_unit_test(rows_and_embedding),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
