#include "worker/loar/gate.h"

#include "worker/ops/vector.h"

static float sum_of(int n, const float *x)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static float softmax_scale(int n)
{
    return (float)n;
}

static void softmax_values(int n, const float *z, const float *threshold, float *p)
{
    (void)threshold;
    float largest = z[0];
    for (int i = 1; i < n; i++)
        largest = z[i] > largest ? z[i] : largest;
    for (int i = 0; i < n; i++)
        p[i] = exp_fast(z[i] - largest);
    float sum = sum_of(n, p);
    for (int i = 0; i < n; i++)
        p[i] /= sum;
}

static void softmax_backward(int n, const float *p, const float *dp, float *dz)
{
    float pull = 0;
    for (int i = 0; i < n; i++)
        pull += p[i] * dp[i];
    for (int i = 0; i < n; i++)
        dz[i] = p[i] * (dp[i] - pull);
}

static void softmax_fit(int n, const float *p, const float *wanted, float *dz)
{
    for (int i = 0; i < n; i++)
        dz[i] = p[i] - wanted[i];
}

const struct gate_ops gate_softmax = {softmax_scale, softmax_values, softmax_backward, softmax_fit};

static float sigmoid_scale(int n)
{
    (void)n;
    return 1;
}

static void sigmoid_values(int n, const float *z, const float *threshold, float *p)
{
    for (int i = 0; i < n; i++)
        p[i] = 1.0f / (1.0f + exp_fast(threshold[i] - z[i]));
}

static void sigmoid_backward(int n, const float *p, const float *dp, float *dz)
{
    for (int i = 0; i < n; i++)
        dz[i] = p[i] * (1 - p[i]) * dp[i];
}

static void sigmoid_fit(int n, const float *p, const float *wanted, float *dz)
{
    for (int i = 0; i < n; i++)
        dz[i] = (p[i] - wanted[i]) / (float)n;
}

const struct gate_ops gate_sigmoid = {sigmoid_scale, sigmoid_values, sigmoid_backward, sigmoid_fit};
