/* Comparing operators with plain references in double precision, and their gradients with finite differences of those
 * references along every input, weighed by a random cotangent. */
#ifndef TESTS_GRADIENT_GRADIENT_H
#define TESTS_GRADIENT_GRADIENT_H

#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/rng.h"
#include "common/threads.h"
#include "worker/ops/gemm.h"

enum { MAX_INPUTS = 4 };

/* A function of several arrays in double precision: out[n_out]. */
struct reference {
    void (*run)(const void *shape, double *const *inputs, double *out);
    const void *shape;
    int n_inputs, sizes[MAX_INPUTS], n_out;
};

static inline double *doubles_of(const float *x, int n)
{
    double *out = test_malloc((size_t)(n ? n : 1) * sizeof *out);
    for (int i = 0; i < n; i++)
        out[i] = x[i];
    return out;
}

/* New random values in [-1, 1], different for each `stream`. */
static inline float *random_floats(int n, int stream)
{
    float *out = test_malloc((size_t)(n ? n : 1) * sizeof *out);
    for (int i = 0; i < n; i++)
        out[i] = (float)(2 * rng_uniform(11, rng_substream(RNG_DATA, (uint64_t)stream), (uint64_t)i) - 1);
    return out;
}

/* Largest difference relative to the largest value; NaN fails. */
static inline void assert_near(const char *what, const float *found, const double *wanted, int n, double tolerance)
{
    double largest = 1e-30;
    for (int i = 0; i < n; i++)
        largest = fabs(wanted[i]) > largest ? fabs(wanted[i]) : largest;
    for (int i = 0; i < n; i++) {
        double error = fabs(found[i] - wanted[i]) / largest;
        if (!(error <= tolerance)) {
            print_error("%s[%d]: found %.9g, wanted %.9g, error %.3g of the largest value\n", what, i, (double)found[i],
                        wanted[i], error);
            fail();
        }
    }
}

static inline double weighed(const struct reference *r, double *const *inputs, const float *cotangent, double *room)
{
    r->run(r->shape, inputs, room);
    double sum = 0;
    for (int i = 0; i < r->n_out; i++)
        sum += cotangent[i] * room[i];
    return sum;
}

/* out: the operator's output; gradients[i]: its gradient of input i for this cotangent, NULL to leave one out. */
static inline void check(const struct reference *r, const float *const *inputs, const float *out, const float *cotangent,
                         const float *const *gradients, double tolerance)
{
    double *exact[MAX_INPUTS], *room = test_malloc((size_t)r->n_out * sizeof *room);
    for (int i = 0; i < r->n_inputs; i++)
        exact[i] = doubles_of(inputs[i], r->sizes[i]);
    r->run(r->shape, exact, room);
    if (out)
        assert_near("output", out, room, r->n_out, tolerance);
    for (int i = 0; i < r->n_inputs; i++) {
        if (!gradients[i])
            continue;
        double *wanted = test_malloc((size_t)r->sizes[i] * sizeof *wanted);
        for (int j = 0; j < r->sizes[i]; j++) {
            const double step = 1e-5, at = exact[i][j];
            exact[i][j] = at + step;
            double above = weighed(r, exact, cotangent, room);
            exact[i][j] = at - step;
            double below = weighed(r, exact, cotangent, room);
            exact[i][j] = at;
            wanted[j] = (above - below) / (2 * step);
        }
        char what[32];
        snprintf(what, sizeof what, "gradient %d", i);
        assert_near(what, gradients[i], wanted, r->sizes[i], tolerance);
        test_free(wanted);
    }
    for (int i = 0; i < r->n_inputs; i++)
        test_free(exact[i]);
    test_free(room);
}

static inline struct threads *pool_of(int count)
{
    struct error err;
    struct threads *pool = NULL;
    assert_ok(threads_create(count, &pool, &err), &err);
    assert_ok(gemm_init(&err), &err);
    return pool;
}

#endif
