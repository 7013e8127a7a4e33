#include "ps/shard.h"

#include <string.h>

#include "common/checksum.h"
#include "common/memory.h"

enum status shard_create(const struct chunks *chunks, int n_states, const char *const *state_names,
                         struct shard **out, struct error *err)
{
    if (chunks->values <= 0)
        FAIL(err, STATUS_USAGE, "there is nothing to train: every tensor is frozen; free some (finetuning_type)");
    if (chunks->chunk_values <= 0 || chunks->chunk_values % PARAM_ALIGN)
        FAIL(err, STATUS_USAGE, "a chunk of %lld values is not possible; allowed are positive multiples of %d",
             (long long)chunks->chunk_values, PARAM_ALIGN);
    if (n_states < 0 || n_states > SHARD_MAX_STATES)
        FAIL(err, STATUS_INTERNAL, "%d optimizer states; at most %d are possible", n_states, SHARD_MAX_STATES);
    struct shard *shard = mem_alloc(1, sizeof *shard);
    if (!shard)
        FAIL(err, STATUS_NOMEM, "no memory for the parameters of the server");
    shard->chunks = *chunks;
    shard->n_states = n_states;
    shard->parameters = mem_alloc_aligned((size_t)chunks->values, sizeof(float));
    bool complete = shard->parameters;
    for (int s = 0; s < n_states; s++) {
        shard->state_names[s] = state_names[s];
        shard->states[s] = mem_alloc_aligned((size_t)chunks->values, sizeof(float));
        complete = complete && shard->states[s];
    }
    if (!complete) {
        shard_free(shard);
        FAIL(err, STATUS_NOMEM,
             "no memory for %lld parameters and %d optimizer states of the same size (%lld MiB in all); train fewer "
             "tensors (finetuning_type) or use a larger machine for the server",
             (long long)chunks->values, n_states, (long long)(chunks->values * 4 * (n_states + 1) >> 20));
    }
    *out = shard;
    return STATUS_OK;
}

void shard_free(struct shard *shard)
{
    if (!shard)
        return;
    mem_free_aligned(shard->parameters);
    for (int s = 0; s < shard->n_states; s++)
        mem_free_aligned(shard->states[s]);
    mem_free(shard);
}

int shard_state(const struct shard *shard, const char *name)
{
    for (int s = 0; s < shard->n_states; s++)
        if (!strcmp(shard->state_names[s], name))
            return s;
    return -1;
}

void shard_reset_states(struct shard *shard)
{
    for (int s = 0; s < shard->n_states; s++)
        memset(shard->states[s], 0, (size_t)shard->chunks.values * sizeof(float));
}

uint32_t chunk_crc32c(const struct chunks *chunks, int chunk, const float *values)
{
    return crc32c(values + chunk_begin(chunks, chunk), (size_t)chunk_size(chunks, chunk) * sizeof(float));
}

enum status shards_plan(const struct chunks *chunks, int shards, struct shard_range *out, struct error *err)
{
    if (shards < 1 || shards > chunks->count)
        FAIL(err, STATUS_USAGE,
             "%d servers cannot share %d chunks of parameters; allowed are 1 to %d servers (ps.servers), more with "
             "shorter chunks",
             shards, chunks->count, chunks->count);
    /* All chunks weigh the same but the last, which may be lighter. So the shards that get one chunk more than
     * the others come last: then the heaviest is as light as possible. */
    int each = chunks->count / shards, plain = shards - chunks->count % shards;
    int first = 0;
    for (int s = 0; s < shards; s++) {
        out[s] = (struct shard_range){first, each + (s >= plain)};
        first += out[s].count;
    }
    return STATUS_OK;
}
