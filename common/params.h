/* The parameter table: every tensor under its Hugging Face name with shape and role, in forward order,
 * laid out in one flat space of floats. Trained tensors live in the flat space that is exchanged, updated
 * and saved; frozen ones have no place in it and never travel.
 *
 * A chunk is a fixed-length piece of the flat space, the unit of exchange, summation, update, checksum and
 * shadow copy. Tensors start at multiples of PARAM_ALIGN values; the padding between them stays zero. */
#ifndef COMMON_PARAMS_H
#define COMMON_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

enum { PARAM_MAX_DIMS = 4, PARAM_ALIGN = 16 };

enum param_role { PARAM_TRAINED, PARAM_FROZEN };
enum param_init { INIT_NORMAL, INIT_ONES, INIT_ZEROS };

struct param {
    char *name;
    int n_dims;
    int64_t shape[PARAM_MAX_DIMS];
    int64_t size; /* product of shape */
    enum param_role role;
    bool decay; /* weight decay applies (matrices yes; norms and biases no) */
    enum param_init init;
    float init_std;
    /* 0: the optimizer trains it. Else it has a place in the flat space, too, but is no parameter of the loss: its last
     * dimension is rows of W values and a count, and what workers send for a row is, over their observations x, the sum of
     * x - v for each value v and the number of observations. The server moves values by this share of the mean of x - v;
     * neither learning rate, weight decay nor clipping touch it. */
    float rate;
    int64_t offset; /* first value in the flat space; -1 when frozen */
};

struct params {
    struct param *items;
    int count, capacity;
    int64_t values; /* length of the flat space, padding included, a multiple of PARAM_ALIGN */
    int64_t trained, frozen; /* number of parameters of each role, padding not counted */
};

/* Appends a tensor and writes its index to `index` (may be NULL). Names must be new; `name` is copied. */
enum status params_add(struct params *table, const struct param *entry, int *index, struct error *err);
/* Index of a name, or -1. */
int params_find(const struct params *table, const char *name);
/* Index of the last trained tensor that starts at or before flat position `value`, or -1. */
int params_at(const struct params *table, int64_t value);
void params_free(struct params *table);

/* Initial values of one tensor, [param->size]: a pure function of (seed, tensor name). */
void param_initialise(const struct param *param, uint64_t seed, float *values);
/* Fills the flat space with them. */
void params_initialise(const struct params *table, uint64_t seed, float *values);

/* Hash of all names, shapes, places and rates (if not 0): ranks that agree on it speak of the same flat space. hex:
 * DIGEST_HEX_SIZE of common/checksum.h; all zeros when memory is short. */
void params_fingerprint(const struct params *table, char hex[33]);

struct chunks {
    int64_t values;       /* length of the flat space */
    int64_t chunk_values; /* values per chunk; the last one may be shorter */
    int count;
};

struct chunks chunks_make(int64_t values, int64_t chunk_values);
int64_t chunk_begin(const struct chunks *chunks, int chunk);
int64_t chunk_size(const struct chunks *chunks, int chunk); /* in values */

#endif
