/* Counter-based random numbers: value = f(seed, stream, counter), no hidden state, so any value can be
 * computed by any rank at any time. Philox4x32-10 (Salmon et al., SC'11). */
#ifndef COMMON_RNG_H
#define COMMON_RNG_H

#include <stdint.h>

/* Streams keep users of one seed apart. */
enum rng_stream {
    RNG_SHUFFLE = 1, /* order of rows in an epoch */
    RNG_INIT,        /* initial weights */
    RNG_SAMPLE,      /* sampling while generating */
    RNG_DATA,        /* generated demo rows */
    RNG_MIXTURE,     /* choice of data set */
    RNG_EXPLORE,     /* heads that run to see what they are good for */
    RNG_SEARCH,      /* lists of layers drawn to compare with */
    RNG_DROPOUT,     /* values that adapters do not see */
    RNG_NOISE,       /* added to embeddings in training */
};

/* stream: an rng_stream, possibly combined with further numbers by rng_substream. */
uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t counter);
/* All 128 bits of a counter at once: four independent uniform numbers. */
void rng_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);
/* A stream that depends on (stream, index), for example one per tensor or epoch. */
uint64_t rng_substream(uint64_t stream, uint64_t index);
/* Uniform in [0, 1) with 53 random bits. */
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter);
/* Standard normal by Box-Muller from one counter. */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t counter);
/* Uniform integer in [0, bound), bound >= 1. */
uint64_t rng_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t bound);
/* Fills order[0..n) with a permutation of 0..n-1 (Fisher-Yates). */
void rng_permutation(uint64_t seed, uint64_t stream, uint32_t n, uint32_t *order);

#endif
