#include "launch/search_model.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/memory.h"
#include "launch/source.h"
#include "worker/loar/tensors.h"
#include "worker/model/counters.h"
#include "worker/model/import.h"

/* ---- making it ---- */

/* The own tensors come first, so that weights are read as into a dense model. */
static enum status make_tables(struct search_model *m, struct error *err)
{
    struct model_config dense = m->config;
    const struct loar_shape shape = model_shape(&m->config);
    dense.loar = NULL;
    TRY(model_params(&dense, &m->own, err));
    for (int i = 0; i < m->own.count; i++)
        TRY(params_add(&m->table, &m->own.items[i], NULL, err));
    for (int i = 0; i < m->config.layers; i++)
        TRY(loar_list(&m->plan.config, &shape, i, &m->table, err));
    return STATUS_OK;
}

static enum status fill(struct search_model *m, bool checkpointing, struct error *err)
{
    m->layers = mem_alloc((size_t)m->config.layers, sizeof *m->layers);
    if (!m->layers)
        FAIL(err, STATUS_NOMEM, "no memory for the routing of %d layers", m->config.layers);
    for (int i = 0; i < m->config.layers; i++)
        m->layers[i] = (struct loar_layer){.routed = true, .budget = 1};
    m->plan.layers = m->layers;
    TRY(make_tables(m, err));
    m->values = mem_alloc_aligned((size_t)m->table.values, sizeof *m->values);
    if (!m->values)
        FAIL(err, STATUS_NOMEM, "no memory for %lld parameters", (long long)m->table.values);
    return model_create(&m->config, &m->table, &(struct model_options){.checkpointing = checkpointing}, m->pool, &m->model, err);
}

enum status search_model_create(const struct model_config *config, int sinks, bool checkpointing, struct threads *pool,
                                struct search_model *out, struct error *err)
{
    *out = (struct search_model){.config = *config, .plan = *config->loar, .router = config->loar->config.router, .sinks = sinks,
                                 .pool = pool};
    out->config.loar = &out->plan;
    out->config.training = (struct training){.kind = TRAIN_ALL}; /* whatever the run would freeze, nothing is trained here */
    out->plan.config.router = LOAR_STATIC;
    out->plan.config.gate = LOAR_HARD;
    enum status st = fill(out, checkpointing, err);
    if (st != STATUS_OK)
        search_model_free(out);
    return st;
}

void search_model_free(struct search_model *m)
{
    model_free(m->model);
    mem_free_aligned(m->values);
    params_free(&m->table);
    params_free(&m->own);
    mem_free(m->layers);
    *m = (struct search_model){0};
}

/* Copies by name what the model has. */
static enum status take_weights(struct search_model *m, const struct source *source, const char *path, struct error *err)
{
    for (int i = 0; i < m->own.count; i++) {
        const struct param *to = &m->own.items[i];
        int at = params_find(&source->table, to->name);
        const struct param *from = at < 0 ? NULL : &source->table.items[at];
        if (!from || from->n_dims != to->n_dims || memcmp(from->shape, to->shape, (size_t)to->n_dims * sizeof *to->shape))
            FAIL(err, STATUS_USAGE, "'%s' holds %s '%s' as the model of the run file has it; search with the run file of that "
                 "snapshot", path, from ? "a tensor of another shape, not" : "no tensor", to->name);
        memcpy(m->values + to->offset, source->values + params_place(&source->table, at), (size_t)to->size * sizeof *m->values);
    }
    return STATUS_OK;
}

enum status search_model_load(struct search_model *m, const char *folder, const char *snapshot, struct error *err)
{
    if (!snapshot)
        return model_import(folder, &m->config, &m->own, NULL, m->values, NULL, err);
    struct source source;
    TRY(source_open(snapshot, true, NULL, m->pool, &source, err));
    enum status st = model_merge_adapters(&source.config, &source.table, source.values, err); /* where it has some */
    if (st == STATUS_OK)
        st = take_weights(m, &source, snapshot, err);
    source_close(&source);
    return st;
}

/* ---- passes ---- */

static struct loar_layer layer_of(const struct search_model *m, const struct search_option *option)
{
    return (struct loar_layer){.routed = true, .window = option->window, .sinks = option->window ? m->sinks : 0,
                               .budget = option->share};
}

enum status search_model_check(const struct search_model *m, const struct search_space *space, struct error *err)
{
    const struct loar_shape shape = model_shape(&m->config);
    for (int o = 0; o < space->count; o++) {
        struct loar_layer layer = layer_of(m, &space->items[o]);
        if (loar_check(&m->plan.config, &shape, &layer, 1, err) == STATUS_OK)
            continue;
        error_prefix(err, "a layer with window %d and %g of the heads", space->items[o].window, space->items[o].share);
        return STATUS_USAGE;
    }
    return STATUS_OK;
}

void search_model_use(struct search_model *m, const struct search_space *space, const uint8_t *list)
{
    for (int i = 0; i < m->config.layers; i++)
        m->layers[i] = layer_of(m, &space->items[list[i]]);
}

static void use_everywhere(struct search_model *m, const struct search_option *option)
{
    for (int i = 0; i < m->config.layers; i++)
        m->layers[i] = layer_of(m, option);
}

enum status search_model_loss(struct search_model *m, const struct search_rows *rows, double *out, struct error *err)
{
    struct loss_sums sum = {0};
    for (int b = 0; b < rows->count; b++) {
        struct loss_sums more;
        TRY(model_loss(m->model, m->values, &rows->batches[b], &more, err));
        loss_sums_add(&sum, &more);
    }
    *out = sum.loss / sum.weight;
    return STATUS_OK;
}

enum status search_model_skips(struct search_model *m, const struct search_rows *rows, bool *out, struct error *err)
{
    double ignored;
    *out = false;
    counters_clear(model_counters(m->model));
    use_everywhere(m, &(struct search_option){0, 1e-9}); /* one head, or those that always run */
    TRY(search_model_loss(m, rows, &ignored, err));
    struct routing_counts counts = counters_routing(model_counters(m->model));
    for (int task = 0; task < counts.tasks; task++)
        for (int head = 0; head < counts.heads; head++)
            *out = *out || routing_counts_at(&counts, 0, task, head)->rows < routing_counts_at(&counts, 0, task, counts.heads)->rows;
    return STATUS_OK;
}

/* Where routers are fitted the gradient of a head's bias is, summed over decided rows, 1 / H less the head's share of
 * importance, as long as all biases are equal. */
static enum status add_importance(struct search_model *m, const struct search_rows *rows, float *gradients, double *importance,
                                  struct error *err)
{
    const struct loar_shape shape = model_shape(&m->config);
    int heads = m->config.heads;
    for (int b = 0; b < rows->count; b++) {
        struct loss_sums sums;
        TRY(model_gradient(m->model, m->values, &rows->batches[b], gradients, NULL, NULL, &sums, err));
        for (int i = 0; i < m->config.layers; i++) {
            struct loar_places places;
            TRY(loar_find(&m->plan.config, &shape, i, &m->table, &places, err));
            for (int h = 0; h < heads; h++)
                importance[i * heads + h] -= (double)gradients[places.fc2_bias + h];
        }
    }
    return STATUS_OK;
}

/* Scores of routers: the largest magnitude of a layer becomes 1, which keeps their order. */
static enum status set_scores(struct search_model *m, const double *importance, struct error *err)
{
    const struct loar_shape shape = model_shape(&m->config);
    int heads = m->config.heads;
    for (int i = 0; i < m->config.layers; i++) {
        struct loar_places places;
        double largest = 0;
        TRY(loar_find(&m->plan.config, &shape, i, &m->table, &places, err));
        for (int h = 0; h < heads; h++)
            largest = largest > importance[i * heads + h] ? largest : importance[i * heads + h];
        for (int h = 0; h < heads; h++)
            m->values[places.fc2_bias + h] = largest > 0 ? (float)(importance[i * heads + h] / largest) : 0;
    }
    return STATUS_OK;
}

enum status search_model_rank_heads(struct search_model *m, const struct search_rows *rows, struct error *err)
{
    size_t count = (size_t)m->config.layers * (size_t)m->config.heads;
    float *gradients = mem_alloc_aligned((size_t)m->table.values, sizeof *gradients);
    double *importance = mem_alloc(count, sizeof *importance);
    enum status st = gradients && importance ? STATUS_OK
                                             : error_set(err, STATUS_NOMEM, "no memory for the gradient of %lld parameters",
                                                         (long long)m->table.values);
    const struct loar_schedule dense = {.total_steps = 1, .dense_steps = 1};
    if (st == STATUS_OK)
        st = set_scores(m, importance, err); /* all equal */
    use_everywhere(m, &(struct search_option){0, 0.5}); /* what is fitted to; all heads run */
    model_set_schedule(m->model, &dense, 0, 0);
    if (st == STATUS_OK)
        st = add_importance(m, rows, gradients, importance, err);
    model_set_schedule(m->model, NULL, 0, 0);
    if (st == STATUS_OK)
        st = set_scores(m, importance, err);
    mem_free_aligned(gradients);
    mem_free(importance);
    return st;
}

/* ---- time ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *numbers, int count)
{
    qsort(numbers, (size_t)count, sizeof *numbers, by_value);
    return count % 2 ? numbers[count / 2] : (numbers[count / 2 - 1] + numbers[count / 2]) / 2;
}

static enum status time_option(struct search_model *m, const struct search_option *option, const struct search_rows *rows, int batches,
                               float *gradients, double *ms, struct error *err)
{
    struct counters *counters = model_counters(m->model);
    const int64_t *times = counters->items + COUNTERS_TIMES;
    use_everywhere(m, option);
    counters_clear(counters);
    for (int b = 0; b < batches; b++) {
        struct loss_sums sums;
        TRY(model_gradient(m->model, m->values, &rows->batches[b], gradients, NULL, NULL, &sums, err));
    }
    /* A run does not route a layer that computes all heads. */
    int64_t ns = times[MODEL_PART_PROJECTIONS] + times[MODEL_PART_ATTENTION] + (option->share < 1 ? times[MODEL_PART_ROUTER] : 0);
    *ms = (double)(ns > 0 ? ns : 1) * 1e-6 / batches / m->config.layers;
    return STATUS_OK;
}

static enum status time_rounds(struct search_model *m, const struct search_space *space, const struct search_rows *rows, int rounds,
                               float *gradients, double *laps, double *cost, struct error *err)
{
    double ignored;
    for (int o = 0; o < space->count; o++) /* the first passes find their memory */
        TRY(time_option(m, &space->items[o], rows, 1, gradients, &ignored, err));
    for (int round = 0; round < rounds; round++) {
        for (int o = 0; o < space->count; o++)
            TRY(time_option(m, &space->items[o], rows, rows->count, gradients, &laps[o * rounds + round], err));
        log_info("times of attention: round %d of %d", round + 1, rounds);
    }
    for (int o = 0; o < space->count; o++)
        cost[o] = median(laps + o * rounds, rounds);
    return STATUS_OK;
}

enum status search_model_time(struct search_model *m, const struct search_space *space, const struct search_rows *rows, int rounds,
                              double *cost, struct error *err)
{
    float *gradients = mem_alloc_aligned((size_t)m->table.values, sizeof *gradients);
    double *laps = mem_alloc((size_t)space->count * (size_t)rounds, sizeof *laps);
    const struct loar_schedule routed = {.total_steps = 2}; /* the second step is routed and not frozen */
    m->plan.config.router = m->router;
    model_set_schedule(m->model, &routed, 1, 0);
    enum status st = gradients && laps ? time_rounds(m, space, rows, rounds, gradients, laps, cost, err)
                                       : error_set(err, STATUS_NOMEM, "no memory for the gradient of %lld parameters",
                                                   (long long)m->table.values);
    model_set_schedule(m->model, NULL, 0, 0);
    m->plan.config.router = LOAR_STATIC;
    mem_free_aligned(gradients);
    mem_free(laps);
    return st;
}
