/* The parameter table: every tensor under its Hugging Face name with shape and role, in forward order,
 * laid out in one flat space of floats. Trained tensors live in the flat space that is exchanged, updated
 * and saved; frozen ones have no place in it and never travel: whoever computes with them reads them and keeps them in an
 * array behind the trained ones.
 *
 * A chunk is a fixed-length piece of the flat space, the unit of exchange, summation, update, checksum and
 * shadow copy. Tensors start at multiples of PARAM_ALIGN values; the padding between them stays zero. */
#ifndef COMMON_PARAMS_H
#define COMMON_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/checksum.h"
#include "common/status.h"

enum { PARAM_MAX_DIMS = 4, PARAM_ALIGN = 16 };

enum param_role { PARAM_TRAINED, PARAM_FROZEN };
/* Tensors that are trained beside the model, to an aim of their own, must not change how the model moves: each group is
 * clipped by the norm of its own gradient, and may have a learning rate of its own. */
enum param_group { PARAM_GROUP_MODEL, PARAM_GROUP_ROUTER, PARAM_GROUPS };
enum param_init { INIT_NORMAL, INIT_ONES, INIT_ZEROS, INIT_UNIFORM };

struct param {
    char *name;
    int n_dims;
    int64_t shape[PARAM_MAX_DIMS];
    int64_t size; /* product of shape */
    enum param_role role;
    enum param_group group;
    bool decay; /* weight decay applies (matrices yes; norms and biases no) */
    enum param_init init;
    float init_std; /* of INIT_NORMAL; INIT_UNIFORM: the bound on both sides of zero */
    /* 0: the optimizer trains it. Else it has a place in the flat space, too, but is no parameter of the loss: its last
     * dimension is rows of W values and a count, and what workers send for a row is, over their observations x, the sum of
     * x - v for each value v and the number of observations. The server moves values by this share of the mean of x - v;
     * neither learning rate, weight decay nor clipping touch it. */
    float rate;
    int64_t offset; /* first value in the flat space; of a frozen tensor, among the frozen values */
};

struct params {
    struct param *items;
    int count, capacity;
    int64_t values; /* length of the flat space, padding included, a multiple of PARAM_ALIGN */
    int64_t frozen_values; /* the same of all frozen tensors */
    /* Hash of what the frozen tensors hold, once somebody has read them; "" before, and where there are none. */
    char frozen_digest[DIGEST_HEX_SIZE];
    int64_t trained, frozen; /* number of parameters of each role, padding not counted */
};

/* Appends a tensor and writes its index to `index` (may be NULL). Names must be new; `name` is copied. */
enum status params_add(struct params *table, const struct param *entry, int *index, struct error *err);
/* Index of a name, or -1. */
int params_find(const struct params *table, const char *name);
/* Where a tensor begins in an array [params_room] of the flat space with the frozen values behind it. Trained tensors are
 * those whose place is below table->values. */
int64_t params_place(const struct params *table, int index);
int64_t params_room(const struct params *table);
/* Index of the last trained tensor that starts at or before flat position `value`, or -1. */
int params_at(const struct params *table, int64_t value);
void params_free(struct params *table);

/* Initial values of one tensor, [param->size]: a pure function of (seed, tensor name). */
void param_initialise(const struct param *param, uint64_t seed, float *values);
/* Fills the flat space with them. */
void params_initialise(const struct params *table, uint64_t seed, float *values);

/* Hash of all names, shapes, places, rates (if not 0) and of the frozen values (if any): ranks that agree on it speak of the
 * same flat space and compute with the same frozen tensors. All zeros when memory is short. */
void params_fingerprint(const struct params *table, char hex[DIGEST_HEX_SIZE]);

struct chunks {
    int64_t values;       /* length of the flat space */
    int64_t chunk_values; /* values per chunk; the last one may be shorter */
    int count;
};

struct chunks chunks_make(int64_t values, int64_t chunk_values);
int64_t chunk_begin(const struct chunks *chunks, int chunk);
int64_t chunk_size(const struct chunks *chunks, int chunk); /* in values */

#endif
