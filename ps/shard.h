/* Chunk storage: the parameters and every optimizer state of the flat space (common/params.h), one aligned
 * array per quantity, chunk c at chunk_begin(c). Also cuts the chunks into shards of equal weight.
 * Must not know: who changes the values, files, messages. */
#ifndef PS_SHARD_H
#define PS_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/params.h"
#include "common/status.h"

enum { SHARD_MAX_STATES = 4 };

struct shard {
    struct chunks chunks;
    float *parameters;                          /* [chunks.values] */
    int n_states;
    const char *state_names[SHARD_MAX_STATES];  /* borrowed, as the optimizer calls them: "exp_avg", ... */
    float *states[SHARD_MAX_STATES];            /* [n_states][chunks.values] */
};

/* Zeroed storage for `chunks` with `n_states` optimizer states. The names must outlive the shard.
 * STATUS_USAGE: the chunk length is not a positive multiple of PARAM_ALIGN, or there is nothing to train. */
enum status shard_create(const struct chunks *chunks, int n_states, const char *const *state_names,
                         struct shard **out, struct error *err);
void shard_free(struct shard *shard);
/* Index of the optimizer state called `name`, or -1. */
int shard_state(const struct shard *shard, const char *name);
/* Zeroes the optimizer states; parameters stay. */
void shard_reset_states(struct shard *shard);

/* CRC32C of chunk `chunk` of a flat array [chunks->values]. */
uint32_t chunk_crc32c(const struct chunks *chunks, int chunk, const float *values);

/* A run of consecutive chunks. */
struct shard_range {
    int first, count;
};

/* Cuts the chunks into `shards` consecutive ranges (out[shards]) whose largest is as small as it can be.
 * STATUS_USAGE: fewer chunks than shards. */
enum status shards_plan(const struct chunks *chunks, int shards, struct shard_range *out, struct error *err);

#endif
