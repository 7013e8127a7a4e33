/* Small pieces for the inner loops of operators, written so that the compiler turns them into vector code of any
 * width with the same result: no branches, no sums whose order depends on the width.
 * Must not know: operators. */
#ifndef WORKER_OPS_VECTOR_H
#define WORKER_OPS_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Sums run in this many lanes, added in one fixed order at the end, whatever the machine's vectors hold. */
enum { LANES = 16 };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

static inline float lanes_sum(const float *lane)
{
    float half[LANES / 2];
    for (int i = 0; i < LANES / 2; i++)
        half[i] = lane[i] + lane[i + LANES / 2];
    return ((half[0] + half[4]) + (half[2] + half[6])) + ((half[1] + half[5]) + (half[3] + half[7]));
}

/* Sum of x[i] * y[i]. */
static inline float lanes_dot(int n, const float *x, const float *y)
{
    lanes sum = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        sum += *(const lanes *)(x + i) * *(const lanes *)(y + i);
    float lane[LANES];
    memcpy(lane, &sum, sizeof lane);
    for (; i < n; i++)
        lane[i % LANES] += x[i] * y[i];
    return lanes_sum(lane);
}

/* exp(x) within 2 units in the last place for x >= -86.9 (0 below), infinity above 88.72, NaN for NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) by the polynomial of Cephes' expf (Moshier). */
static inline float exp_fast(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    float y = x < -87.0f ? -87.0f : x;
    y = y > 89.0f ? 89.0f : y;
    float shifted = y * 1.44269504f + magic;
    float n = shifted - magic;
    float r = y - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4b400000u + 126u) << 23; /* 2^(n - 1): n reaches 128 */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    float e = p * scale * 2.0f;
    e = x < -86.9f ? 0.0f : e;
    return x > 88.72f ? INFINITY : e;
}

/* 2^x within 2 units in the last place for -125 <= x <= 126, 0 below, NaN for NaN; above 126 anything. Half the work of
 * exp_fast: for weights of a softmax, whose exponents are at most 0 and can be had in base 2 for nothing.
 * x = n + r with |r| <= 1/2; 2^r by a polynomial that is 1 at 0, fitted for the smallest relative error. */
static inline float exp2_fast(float x)
{
    const float magic = 12582912.0f; /* as above; shifted left by 23, only n is left of its bits */
    float shifted = x + magic;
    float r = x - (shifted - magic);
    float p = 1.326472731e-3f;
    p = p * r + 9.671512991e-3f;
    p = p * r + 5.550733581e-2f;
    p = p * r + 2.402224243e-1f;
    p = p * r + 6.931470037e-1f;
    p = p * r + 1.0f;
    uint32_t bits, power;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&power, &shifted, sizeof power);
    bits += power << 23;
    memcpy(&p, &bits, sizeof p);
    return x < -125.0f ? 0.0f : p;
}

#endif
