#include "common/rng.h"

#include <math.h>

struct quad {
    uint32_t v[4];
};

/* Philox4x32-10: constants and rounds as in Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3". */
static struct quad philox(uint64_t key, uint64_t high, uint64_t low)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    struct quad c = {{(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32)}};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c.v[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c.v[2];
        c = (struct quad){{(uint32_t)(p1 >> 32) ^ c.v[1] ^ k0, (uint32_t)p1,
                           (uint32_t)(p0 >> 32) ^ c.v[3] ^ k1, (uint32_t)p0}};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t counter)
{
    struct quad r = philox(seed, stream, counter);
    return (uint64_t)r.v[1] << 32 | r.v[0];
}

void rng_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4])
{
    struct quad r = philox(seed, stream, counter);
    for (int i = 0; i < 4; i++)
        out[i] = r.v[i];
}

uint64_t rng_substream(uint64_t stream, uint64_t index)
{
    return rng_u64(0x6c6f6172u, stream, index);
}

static double to_unit(uint32_t high, uint32_t low)
{
    return (double)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53;
}

double rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    struct quad r = philox(seed, stream, counter);
    return to_unit(r.v[1], r.v[0]);
}

double rng_normal(uint64_t seed, uint64_t stream, uint64_t counter)
{
    struct quad r = philox(seed, stream, counter);
    double radius = sqrt(-2.0 * log(1.0 - to_unit(r.v[1], r.v[0])));
    return radius * cos(2.0 * 3.14159265358979323846 * to_unit(r.v[3], r.v[2]));
}

uint64_t rng_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t bound)
{
    /* Multiply-shift: the bias is below bound / 2^64. */
    return (uint64_t)(((unsigned __int128)rng_u64(seed, stream, counter) * bound) >> 64);
}

void rng_permutation(uint64_t seed, uint64_t stream, uint32_t n, uint32_t *order)
{
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)rng_below(seed, stream, i, i);
        uint32_t swapped = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swapped;
    }
}
