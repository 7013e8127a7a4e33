#include "ps/optimizer/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/compiler.h"
#include "common/memory.h"
#include "ps/optimizer/track.h"

/* The values of one tensor. */
struct extent {
    int64_t begin, end;
    bool decay;
    enum param_group group;
    const struct param *tracked; /* moved by track.h; NULL: trained */
};

/* Sums of squares of a chunk. */
struct squares {
    double trained[PARAM_GROUPS], tracked;
};

struct optimizer {
    const struct optimizer_ops *ops;
    struct optimizer_options options;
    const struct params *table;
    struct chunks chunks;
    int n_states;
    const char *state_names[SHARD_MAX_STATES];
    struct extent *extents; /* in flat order */
    int n_extents;
    struct squares *squares; /* [chunks.count] */
    int64_t *bad;           /* [chunks.count] flat position or -1 */
};

static const struct {
    const char *name;
    const struct optimizer_ops *ops;
} known[] = {{"adamw", &optimizer_adamw}, {"adamw_torch", &optimizer_adamw}, {"sgd", &optimizer_sgd}};

static const struct optimizer_ops *find_ops(const char *name, struct error *err)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name))
            return known[i].ops;
    error_set(err, STATUS_USAGE, "optim is '%s'; allowed are adamw (also written adamw_torch) and sgd", name);
    return NULL;
}

static void list_extents(struct optimizer *o)
{
    for (int i = 0; i < o->table->count; i++) {
        const struct param *p = &o->table->items[i];
        if (p->role == PARAM_TRAINED && p->size > 0)
            o->extents[o->n_extents++] = (struct extent){p->offset, p->offset + p->size, p->decay, p->group,
                                                            p->rate > 0 ? p : NULL};
    }
}

static enum status check_options(const struct optimizer_ops *ops, const struct optimizer_options *options, struct error *err)
{
    TRY(ops->check(options, err));
    if (!(options->weight_decay >= 0 && options->weight_decay <= 1))
        FAIL(err, STATUS_USAGE, "weight_decay is %g; allowed are values from 0 to 1", options->weight_decay);
    return STATUS_OK;
}

enum status optimizer_set_options(struct optimizer *o, const struct optimizer_options *options, struct error *err)
{
    TRY(check_options(o->ops, options, err));
    o->options = *options;
    return STATUS_OK;
}

enum status optimizer_create(const char *name, const struct optimizer_options *options, const struct params *table,
                             const struct chunks *chunks, struct optimizer **out, struct error *err)
{
    const struct optimizer_ops *ops = find_ops(name, err);
    if (!ops)
        return STATUS_USAGE;
    TRY(check_options(ops, options, err));
    if (chunks->values != table->values)
        FAIL(err, STATUS_INTERNAL, "chunks over %lld values for a table of %lld", (long long)chunks->values,
             (long long)table->values);
    struct optimizer *o = mem_alloc(1, sizeof *o);
    if (!o)
        FAIL(err, STATUS_NOMEM, "no memory for the optimizer");
    *o = (struct optimizer){.ops = ops, .options = *options, .table = table, .chunks = *chunks};
    o->extents = mem_alloc((size_t)table->count, sizeof *o->extents);
    o->squares = mem_alloc((size_t)chunks->count, sizeof *o->squares);
    o->bad = mem_alloc((size_t)chunks->count, sizeof *o->bad);
    if (!o->extents || !o->squares || !o->bad) {
        optimizer_free(o);
        FAIL(err, STATUS_NOMEM, "no memory for an optimizer over %d tensors in %d chunks", table->count,
             chunks->count);
    }
    list_extents(o);
    o->n_states = ops->states(options, o->state_names);
    *out = o;
    return STATUS_OK;
}

void optimizer_free(struct optimizer *o)
{
    if (!o)
        return;
    mem_free(o->extents);
    mem_free(o->squares);
    mem_free(o->bad);
    mem_free(o);
}

const char *optimizer_name(const struct optimizer *o)
{
    return o->ops->name;
}

int optimizer_n_states(const struct optimizer *o)
{
    return o->n_states;
}

const char *const *optimizer_state_names(const struct optimizer *o)
{
    return o->state_names;
}

/* Index of the first tensor that ends behind `position`. */
static int first_extent(const struct optimizer *o, int64_t position)
{
    int low = 0, high = o->n_extents;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (o->extents[middle].end > position)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The part of an extent that lies in [begin, end). */
static void overlap(const struct extent *extent, int64_t begin, int64_t end, int64_t *first, int64_t *last)
{
    *first = extent->begin > begin ? extent->begin : begin;
    *last = extent->end < end ? extent->end : end;
}

int64_t optimizer_update(const struct optimizer *o, const struct optimizer_scalars *scalars, int64_t begin,
                         int64_t end, float *parameters, float *const *states, const float *gradient)
{
    int64_t bad = -1;
    for (int e = first_extent(o, begin); e < o->n_extents && o->extents[e].begin < end; e++) {
        if (o->extents[e].tracked)
            continue;
        int64_t first, last;
        overlap(&o->extents[e], begin, end, &first, &last);
        struct optimizer_span span = {
            .parameters = parameters + first,
            .gradient = gradient + (first - begin),
            .count = last - first,
            .weight_decay = o->extents[e].decay ? o->options.weight_decay : 0,
            .pace = scalars->pace[o->extents[e].group],
        };
        for (int s = 0; s < o->n_states; s++)
            span.states[s] = states[s] + first;
        if (!o->ops->update(&o->options, scalars->step, &span) && bad < 0)
            bad = first + first_non_finite(parameters + first, last - first);
    }
    return bad;
}

struct step_job {
    struct optimizer *optimizer;
    const struct optimizer_scalars *scalars;
    struct shard *shard;
    const float *const *gradients;
    optimizer_chunk_fn *before;
    void *context;
};

/* What of a chunk belongs to tensors with a rate. Returns the first position that became NaN or infinite, or -1. */
static int64_t track_chunk(const struct optimizer *o, int64_t begin, int64_t end, const float *const *gradients,
                           float *parameters)
{
    int64_t bad = -1;
    for (int e = first_extent(o, begin); e < o->n_extents && o->extents[e].begin < end; e++) {
        if (!o->extents[e].tracked)
            continue;
        int64_t first, last;
        overlap(&o->extents[e], begin, end, &first, &last);
        int64_t at = track_update(o->extents[e].tracked, &o->chunks, gradients, first, last, parameters);
        bad = bad < 0 ? at : bad;
    }
    return bad;
}

static void step_chunk(void *context, int chunk, int thread)
{
    (void)thread;
    const struct step_job *job = context;
    struct optimizer *o = job->optimizer;
    if (job->before)
        job->before(job->context, chunk);
    int64_t begin = chunk_begin(&o->chunks, chunk), end = begin + chunk_size(&o->chunks, chunk);
    int64_t trained = optimizer_update(o, job->scalars, begin, end, job->shard->parameters, job->shard->states,
                                       job->gradients[chunk]);
    int64_t tracked = track_chunk(o, begin, end, job->gradients, job->shard->parameters);
    o->bad[chunk] = trained < 0 || (tracked >= 0 && tracked < trained) ? tracked : trained;
}

static int64_t first_bad(const struct optimizer *o)
{
    for (int c = 0; c < o->chunks.count; c++)
        if (o->bad[c] >= 0)
            return o->bad[c];
    return -1;
}

enum status optimizer_step(struct optimizer *o, struct threads *pool, const struct optimizer_scalars *scalars,
                           struct shard *shard, const float *const *gradients, optimizer_chunk_fn *before,
                           void *context, struct error *err)
{
    if (shard->chunks.values != o->chunks.values || shard->chunks.count != o->chunks.count ||
        shard->n_states != o->n_states || scalars->step < 1)
        FAIL(err, STATUS_INTERNAL, "optimizer %s: update %lld does not fit the stored parameters", o->ops->name,
             (long long)scalars->step);
    struct step_job job = {o, scalars, shard, gradients, before, context};
    threads_run(pool, o->chunks.count, step_chunk, &job);
    int64_t bad = first_bad(o);
    if (bad < 0)
        return STATUS_OK;
    char place[256];
    optimizer_locate(o, bad, place, sizeof place);
    FAIL(err, STATUS_NUMERIC,
         "the update made a parameter %g: %s (learning rate %g); lower learning_rate or max_grad_norm, or lengthen "
         "the warm-up, and go on from the last snapshot",
         (double)shard->parameters[bad], place, scalars->pace[PARAM_GROUP_MODEL].learning_rate);
}

enum { LANES = 16 };

MULTIVERSION double gradient_squares(const float *gradient, int64_t count)
{
    /* Lane j adds values j, j + 16, j + 32, ...; the lanes are added in order at the end. */
    double lanes[LANES] = {0};
    int64_t whole = count - count % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) {
            double g = gradient[i + j];
            lanes[j] += g * g;
        }
    for (int64_t i = whole; i < count; i++) {
        double g = gradient[i];
        lanes[i - whole] += g * g;
    }
    double sum = 0;
    for (int j = 0; j < LANES; j++)
        sum += lanes[j];
    return sum;
}

int64_t first_non_finite(const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return i;
    return -1;
}

struct norm_job {
    struct optimizer *optimizer;
    const float *const *gradients;
};

/* Sums of squares of [begin, end). What lies between the tensors of other sums counts for the model, in one piece. */
static struct squares squares_of(const struct optimizer *o, int64_t begin, int64_t end, const float *gradient)
{
    struct squares sum = {0};
    int64_t from = begin;
    for (int e = first_extent(o, begin); e < o->n_extents && o->extents[e].begin < end; e++) {
        const struct extent *extent = &o->extents[e];
        if (!extent->tracked && extent->group == PARAM_GROUP_MODEL)
            continue;
        int64_t first, last;
        overlap(extent, begin, end, &first, &last);
        sum.trained[PARAM_GROUP_MODEL] += gradient_squares(gradient + (from - begin), first - from);
        *(extent->tracked ? &sum.tracked : &sum.trained[extent->group]) += gradient_squares(gradient + (first - begin), last - first);
        from = last;
    }
    sum.trained[PARAM_GROUP_MODEL] += gradient_squares(gradient + (from - begin), end - from);
    return sum;
}

static void square_chunk(void *context, int chunk, int thread)
{
    (void)thread;
    const struct norm_job *job = context;
    struct optimizer *o = job->optimizer;
    int64_t begin = chunk_begin(&o->chunks, chunk), size = chunk_size(&o->chunks, chunk);
    struct squares *sum = &o->squares[chunk];
    *sum = squares_of(o, begin, begin + size, job->gradients[chunk]);
    /* Squares of floats cannot overflow a double, so only a NaN or an infinity makes a sum one. */
    double all = sum->tracked;
    for (int g = 0; g < PARAM_GROUPS; g++)
        all += sum->trained[g];
    o->bad[chunk] = isfinite(all) ? -1 : begin + first_non_finite(job->gradients[chunk], size);
}

struct gradient_norm gradient_norm(struct optimizer *o, struct threads *pool, const float *const *gradients,
                                   double weight)
{
    struct norm_job job = {o, gradients};
    threads_run(pool, o->chunks.count, square_chunk, &job);
    struct gradient_norm norm = {.non_finite = first_bad(o)};
    for (int g = 0; g < PARAM_GROUPS; g++) {
        double sum = 0;
        for (int c = 0; c < o->chunks.count; c++)
            sum += o->squares[c].trained[g];
        norm.norm[g] = sqrt(sum) / weight;
    }
    return norm;
}

double gradient_clip(double norm, double max_norm)
{
    if (max_norm <= 0)
        return 1;
    double factor = max_norm / (norm + 1e-6);
    return factor < 1 ? factor : 1;
}

void optimizer_locate(const struct optimizer *o, int64_t position, char *text, size_t size)
{
    int index = params_at(o->table, position);
    if (index < 0) {
        snprintf(text, size, "flat position %lld", (long long)position);
        return;
    }
    const struct param *p = &o->table->items[index];
    int64_t rest = position - p->offset;
    if (rest >= p->size) {
        snprintf(text, size, "padding after tensor '%s'", p->name);
        return;
    }
    int64_t at[PARAM_MAX_DIMS];
    for (int d = p->n_dims - 1; d >= 0; d--) {
        at[d] = rest % p->shape[d];
        rest /= p->shape[d];
    }
    int used = snprintf(text, size, "tensor '%s' [", p->name);
    for (int d = 0; d < p->n_dims && used >= 0 && (size_t)used < size; d++)
        used += snprintf(text + used, size - (size_t)used, "%s%lld", d ? ", " : "", (long long)at[d]);
    if (used >= 0 && (size_t)used < size)
        snprintf(text + used, size - (size_t)used, "]");
}
