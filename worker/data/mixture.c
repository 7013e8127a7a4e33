#include "worker/data/mixture.h"

#include <math.h>
#include <string.h>

#include "common/rng.h"

bool mix_strategy_parse(const char *name, enum mix_strategy *out)
{
    static const char *const names[] = {"concat", "interleave_under", "interleave_over"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(names[i], name)) {
            *out = (enum mix_strategy)i;
            return true;
        }
    return false;
}

static double time_of(const struct mix_set *set, uint32_t row)
{
    return ((double)row + 0.5) / set->share;
}

enum status mixture_count(enum mix_strategy strategy, struct mix_set *sets, int n_sets, int64_t *rows, struct error *err)
{
    double end = strategy == MIX_INTERLEAVE_UNDER ? INFINITY : 0, all = 0;
    for (int i = 0; i < n_sets; i++) {
        double last = sets[i].rows ? time_of(&sets[i], sets[i].rows - 1) : end;
        end = strategy == MIX_INTERLEAVE_UNDER ? fmin(end, last) : fmax(end, last);
    }
    for (int i = 0; i < n_sets; i++)
        all += sets[i].rows ? end * sets[i].share + 1 : 0;
    if (!(all < UINT32_MAX))
        FAIL(err, STATUS_DATA, "with these weights an epoch would have about %.3g rows, at most %u are possible; bring the weights of the "
             "data sets closer to their sizes, or take mix_strategy: interleave_under", all, UINT32_MAX);
    *rows = 0;
    for (int i = 0; i < n_sets; i++) {
        struct mix_set *set = &sets[i];
        set->count = set->rows ? (uint32_t)floor(end * set->share + 0.5) : 0;
        /* The division above may round; the times decide. */
        while (set->count && time_of(set, set->count - 1) > end)
            set->count--;
        while (set->rows && time_of(set, set->count) <= end)
            set->count++;
        *rows += set->count;
    }
    return STATUS_OK;
}

/* The set whose next row comes first; of equal ones the first. */
static struct mix_set *next_set(struct mix_set *sets, int n_sets)
{
    struct mix_set *best = NULL;
    for (int i = 0; i < n_sets; i++)
        if (sets[i].taken < sets[i].count && (!best || time_of(&sets[i], sets[i].taken) < time_of(best, best->taken)))
            best = &sets[i];
    return best;
}

void mixture_epoch(struct mix_set *sets, int n_sets, uint64_t seed, int64_t epoch, bool shuffle, uint32_t *scratch, uint32_t *out)
{
    uint64_t stream = rng_substream(RNG_MIXTURE, (uint64_t)epoch);
    for (int i = 0; i < n_sets; i++)
        sets[i].taken = 0;
    for (struct mix_set *set; (set = next_set(sets, n_sets)); set->taken++) {
        uint32_t *order = scratch + set->first, row = set->taken % set->rows;
        if (shuffle && row == 0) {
            uint64_t own = rng_substream(stream, (uint64_t)(set - sets));
            rng_permutation(seed, rng_substream(own, set->taken / set->rows), set->rows, order);
        }
        *out++ = set->first + (shuffle ? order[row] : row);
    }
}
