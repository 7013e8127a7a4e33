/* Composition: creates a model, and turns a batch into losses, gradients or logits. */
#include "worker/model/model.h"

#include <math.h>
#include <string.h>

#include "common/memory.h"
#include "worker/model/blocks.h"
#include "worker/model/forward.h"
#include "worker/model/numeric.h"
#include "worker/model/routed.h"
#include "worker/ops/embedding.h"
#include "worker/ops/gemm.h"
#include "worker/ops/heads.h"
#include "worker/ops/rope.h"

void loss_sums_add(struct loss_sums *sum, const struct loss_sums *more)
{
    sum->loss += more->loss;
    sum->weight += more->weight;
    for (int i = 0; i < SPAN_COUNT; i++) {
        sum->span_loss[i] += more->span_loss[i];
        sum->span_count[i] += more->span_count[i];
    }
    sum->correct += more->correct;
    sum->tokens += more->tokens;
}

/* Frequencies of transformers' modeling_rope_utils, in single precision as there. */
static float frequency(const struct model_config *c, int i)
{
    float plain = 1.0f / (float)pow(c->rope_theta, (double)(float)(2 * i) / (double)c->head_dim);
    if (c->rope == ROPE_LINEAR)
        return plain / (float)c->rope_factor;
    if (c->rope == ROPE_PLAIN)
        return plain;
    double wavelength = 2 * 3.14159265358979323846 / plain;
    if (wavelength < c->rope_original_positions / c->rope_high_freq_factor)
        return plain;
    if (wavelength > c->rope_original_positions / c->rope_low_freq_factor)
        return plain / (float)c->rope_factor;
    double smooth = (c->rope_original_positions / wavelength - c->rope_low_freq_factor) /
                    (c->rope_high_freq_factor - c->rope_low_freq_factor);
    return (float)((1 - smooth) * plain / c->rope_factor + smooth * plain);
}

static enum status copy_table(const struct params *table, struct params *out, struct error *err)
{
    for (int i = 0; i < table->count; i++)
        TRY(params_add(out, &table->items[i], NULL, err));
    return STATUS_OK;
}

static enum status model_fill(struct model *m, const struct params *table, struct error *err)
{
    TRY(gemm_init(err));
    TRY(plan_make(&m->config, table, &m->plan, err));
    const struct loar_plan *loar = m->config.loar;
    TRY(counters_create(loar ? m->config.layers : 0, loar ? loar->config.n_tasks : 0, m->config.heads,
                        m->config.labels, &m->counters, err));
    TRY(routing_create(&m->config, &m->routing, err));
    int half = (int)(m->config.head_dim / 2);
    m->table = mem_alloc(1, sizeof *m->table);
    m->frequencies = mem_alloc((size_t)half, sizeof *m->frequencies);
    if (!m->table || !m->frequencies)
        FAIL(err, STATUS_NOMEM, "no memory for a model of %d layers", m->config.layers);
    for (int i = 0; i < half; i++)
        m->frequencies[i] = frequency(&m->config, i);
    return copy_table(table, m->table, err);
}

enum status model_create(const struct model_config *config, const struct params *table,
                         const struct model_options *options, struct threads *pool, struct model **out,
                         struct error *err)
{
    struct model *m = mem_alloc(1, sizeof *m);
    if (!m)
        FAIL(err, STATUS_NOMEM, "no memory for a model of %d layers", config->layers);
    m->config = *config;
    m->options = *options;
    m->pool = pool;
    enum status st = model_fill(m, table, err);
    if (st != STATUS_OK) {
        model_free(m);
        return st;
    }
    *out = m;
    return STATUS_OK;
}

void model_free(struct model *model)
{
    if (!model)
        return;
    workspace_free(&model->workspace);
    routing_free(model->routing, model->config.layers);
    plan_free(&model->plan);
    if (model->table)
        params_free(model->table);
    mem_free(model->table);
    mem_free(model->frequencies);
    counters_free(&model->counters);
    mem_free_aligned(model->attention_scratch);
    mem_free_aligned(model->cosine);
    mem_free_aligned(model->sine);
    mem_free(model);
}

void model_set_schedule(struct model *model, const struct loar_schedule *schedule, int64_t step, uint64_t draw)
{
    struct routing *r = model->routing;
    r->scheduled = schedule != NULL;
    if (schedule)
        r->schedule = *schedule;
    r->step = step;
    r->draw = draw;
}

void model_keep_routing(struct model *model, bool keep)
{
    model->routing->keeps = keep && model->config.loar;
}

struct counters *model_counters(struct model *model)
{
    return &model->counters;
}

enum status model_rope_reserve(struct model *model, int64_t positions, struct error *err)
{
    if (positions <= model->rope_positions)
        return STATUS_OK;
    positions = (positions + 255) / 256 * 256;
    int64_t half = model->config.head_dim / 2;
    float *cosine = mem_alloc_aligned((size_t)(positions * half), sizeof *cosine);
    float *sine = mem_alloc_aligned((size_t)(positions * half), sizeof *sine);
    if (!cosine || !sine) {
        mem_free_aligned(cosine);
        mem_free_aligned(sine);
        FAIL(err, STATUS_NOMEM, "no memory for the rotations of %lld positions", (long long)positions);
    }
    rope_table((int)half, model->frequencies, 0, positions, cosine, sine);
    mem_free_aligned(model->cosine);
    mem_free_aligned(model->sine);
    model->cosine = cosine;
    model->sine = sine;
    model->rope_positions = positions;
    return STATUS_OK;
}

enum status model_attention_reserve(struct model *m, struct attention *a, bool backward, struct error *err)
{
    int threads = threads_count(m->pool);
    size_t values = attention_scratch_values(a, threads, backward);
    if (m->routing->plan || m->routing->picks) { /* projections and attention take turns */
        struct heads heads = {.heads = a->heads, .head_dim = a->head_dim, .width = m->config.width};
        size_t more = heads_scratch_values(&heads, threads);
        values = more > values ? more : values;
    }
    if (values > m->attention_values) {
        mem_free_aligned(m->attention_scratch);
        m->attention_values = 0;
        m->attention_scratch = mem_alloc_aligned(values, sizeof *m->attention_scratch);
        if (!m->attention_scratch)
            FAIL(err, STATUS_NOMEM, "no memory for attention: %zu MiB", values * sizeof *m->attention_scratch >> 20);
        m->attention_values = values;
    }
    a->scratch = m->attention_scratch;
    return STATUS_OK;
}

enum status model_check_words(const struct model *m, struct error *err)
{
    if (m->plan.head < 0)
        FAIL(err, STATUS_USAGE, "the model only classifies: it has no lm_head to write text with");
    return STATUS_OK;
}

/* Tokens of each sequence before the first target that is no prompt's. */
static enum status begin_routing(struct model *m, const struct batch *batch, struct error *err)
{
    int32_t *prompts = mem_alloc((size_t)batch->n_sequences, sizeof *prompts);
    if (!prompts && batch->n_sequences)
        FAIL(err, STATUS_NOMEM, "no memory for %d prompt lengths", batch->n_sequences);
    for (int s = 0; s < batch->n_sequences; s++) {
        int i = batch->starts[s];
        while (i < batch->starts[s + 1] - 1 && batch->target_spans[i] == SPAN_PROMPT)
            i++;
        prompts[s] = i + 1 - batch->starts[s];
    }
    enum status st = routing_begin(m->routing, &m->config, batch->n_sequences, batch->starts, NULL, prompts, batch->tasks, err);
    mem_free(prompts);
    return st;
}

/* Ids, targets and labels must be those that the tensors have room for. */
static enum status check_targets(const struct model *m, const struct batch *batch, struct error *err)
{
    const struct model_config *c = &m->config;
    TRY(forward_check_ids(c, batch->targets, batch->n_tokens, -1, "target id", err));
    for (int s = 0; s < batch->n_sequences; s++) {
        struct row_class class = batch_class(batch, s);
        if (class.count && (class.first < 0 || class.label < 0 || class.label >= class.count || class.first > c->labels - class.count))
            FAIL(err, STATUS_DATA, "label %d of labels %d to %d does not fit the model's %d", class.label, class.first,
                 class.first + class.count - 1, c->labels);
    }
    if (m->plan.head < 0 && batch_count_targets(batch))
        FAIL(err, STATUS_DATA, "the model only classifies (it has no lm_head), but rows of text are to be trained");
    return STATUS_OK;
}

/* supervised: rows that the loss reads; 0: all rows are wanted, without a loss. */
static enum status pass_begin(struct model *m, const struct batch *batch, enum workspace_use use, int64_t supervised,
                              const float *values, float *gradients, struct pass *out, struct error *err)
{
    int64_t head_rows = supervised ? supervised : batch->n_tokens;
    TRY(forward_check_ids(&m->config, batch->tokens, batch->n_tokens, 0, "token id", err));
    int64_t positions = 0;
    for (int s = 0; s < batch->n_sequences; s++) {
        int length = batch->starts[s + 1] - batch->starts[s];
        positions = length > positions ? length : positions;
    }
    TRY(model_rope_reserve(m, positions, err));
    TRY(workspace_reserve(&m->workspace, &m->config, m->options.checkpointing, m->plan.lowest, use, batch->n_tokens,
                          batch->n_sequences, head_rows, err));
    for (int s = 0; s < batch->n_sequences; s++) {
        int first = batch->starts[s], length = batch->starts[s + 1] - first;
        m->workspace.segments[s] = (struct attention_segment){first, first, length, length};
    }
    const struct model_config *c = &m->config;
    *out = (struct pass){
        .config = c,
        .pool = m->pool,
        .workspace = &m->workspace,
        .values = values,
        .label_smoothing = m->options.label_smoothing,
        .noise_alpha = gradients ? m->options.noise_alpha : 0,
        .gradients = gradients,
        .trained = m->table->values,
        .n = batch->n_tokens,
        .positions = batch->positions,
        .cosine = m->cosine,
        .sine = m->sine,
        .attention = {c->heads, c->kv_heads, (int)c->head_dim, batch->n_sequences, m->workspace.segments},
        .routing = m->routing,
        .counters = &m->counters,
    };
    counters_resume(&m->counters);
    TRY(begin_routing(m, batch, err));
    if (supervised) {
        head_choose(batch, &m->workspace);
        TRY(routing_pick(m->routing, c, batch->n_sequences, batch->starts, m->workspace.rows, supervised, &out->n_picked, err));
    }
    counters_lap(&m->counters, MODEL_PART_ROUTER);
    return model_attention_reserve(m, &out->attention, use == WORKSPACE_BACKWARD, err);
}

static void clear_padding(const struct params *table, float *gradients)
{
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->items[i];
        if (p->role == PARAM_TRAINED)
            memset(gradients + p->offset + p->size, 0, (size_t)(-p->size & (PARAM_ALIGN - 1)) * sizeof *gradients);
    }
}

static void backward_layers(struct model *m, const struct pass *pass, model_ready_fn *on_ready, void *context)
{
    const struct architecture *a = architecture_of(m->config.type);
    const struct workspace *w = pass->workspace;
    for (int i = m->config.layers - 1; i >= m->plan.lowest; i--) {
        float *x = w->inputs + i * w->input_stride;
        if (m->options.checkpointing && i < m->config.layers - 1) /* the last layer's are still there */
            a->forward(pass, &m->plan.layers[i], &w->layers[i], x, NULL, NULL);
        a->backward(pass, &m->plan.layers[i], &w->layers[i], x, w->dx);
        if (on_ready)
            on_ready(context, m->plan.layers[i].first);
        counters_resume(&m->counters);
    }
}

static void backward_embedding(struct model *m, const struct pass *pass, const struct batch *batch)
{
    const struct model_config *c = &m->config;
    float *gradient = gradient_of(pass, m->plan.embedding);
    if (!gradient)
        return;
    if (m->plan.head != m->plan.embedding) /* tied: the head has written its part here */
        memset(gradient, 0, (size_t)(c->vocab * c->width) * sizeof *gradient);
    embedding_backward(m->pool, pass->n, c->width, batch->tokens, pass->workspace->dx, gradient);
}

enum status model_gradient(struct model *m, const float *values, const struct batch *batch, float *gradients,
                           model_ready_fn *on_ready, void *context, struct loss_sums *sums, struct error *err)
{
    *sums = (struct loss_sums){.tokens = batch->n_tokens};
    int64_t targets = batch_count_targets(batch), classes = batch_count_classes(batch), supervised = targets + classes;
    if (supervised == 0) {
        memset(gradients, 0, (size_t)m->table->values * sizeof *gradients);
        if (on_ready)
            on_ready(context, 0);
        return STATUS_OK;
    }
    TRY(check_targets(m, batch, err));
    struct pass pass;
    TRY(pass_begin(m, batch, WORKSPACE_BACKWARD, supervised, values, gradients, &pass, err));
    struct stream stream = forward_layers(&pass, m, batch->tokens);
    TRY(routing_end(m->routing, err));
    head_loss(&pass, &m->plan, stream, targets, classes, batch, sums);
    if (!isfinite(sums->loss))
        return numeric_explain(m, values, pass.n, sums->loss, true, err);
    clear_padding(m->table, gradients);
    if (on_ready)
        on_ready(context, m->plan.first);
    counters_resume(&m->counters);
    backward_layers(m, &pass, on_ready, context);
    backward_embedding(m, &pass, batch);
    counters_lap(&m->counters, MODEL_PART_REST);
    TRY(numeric_check_gradient(m, gradients, pass.n, sums->loss, err));
    if (on_ready)
        on_ready(context, 0);
    return STATUS_OK;
}

enum status model_loss(struct model *m, const float *values, const struct batch *batch, struct loss_sums *sums,
                       struct error *err)
{
    *sums = (struct loss_sums){.tokens = batch->n_tokens};
    int64_t targets = batch_count_targets(batch), classes = batch_count_classes(batch), supervised = targets + classes;
    if (supervised == 0)
        return STATUS_OK;
    TRY(check_targets(m, batch, err));
    struct pass pass;
    TRY(pass_begin(m, batch, WORKSPACE_FORWARD, supervised, values, NULL, &pass, err));
    struct stream stream = forward_layers(&pass, m, batch->tokens);
    TRY(routing_end(m->routing, err));
    head_loss(&pass, &m->plan, stream, targets, classes, batch, sums);
    if (!isfinite(sums->loss))
        return numeric_explain(m, values, pass.n, sums->loss, false, err);
    return STATUS_OK;
}

enum status model_logits(struct model *m, const float *values, const struct batch *batch, float *logits,
                         struct error *err)
{
    struct pass pass;
    TRY(model_check_words(m, err));
    TRY(pass_begin(m, batch, WORKSPACE_FORWARD, 0, values, NULL, &pass, err));
    struct stream stream = forward_layers(&pass, m, batch->tokens);
    TRY(routing_end(m->routing, err));
    head_logits(&pass, &m->plan, stream, 0, pass.n, logits);
    return STATUS_OK;
}

enum status model_scores(struct model *m, const float *values, const struct batch *batch, float *scores, struct error *err)
{
    struct pass pass;
    if (!m->config.labels)
        FAIL(err, STATUS_USAGE, "the model has no labels to tell apart (no %s)", MODEL_SCORE_TENSOR);
    TRY(pass_begin(m, batch, WORKSPACE_FORWARD, 0, values, NULL, &pass, err));
    struct stream stream = forward_layers(&pass, m, batch->tokens);
    TRY(routing_end(m->routing, err));
    head_scores(&pass, &m->plan, stream, batch, scores);
    return STATUS_OK;
}

double model_step_flops(const struct model_config *c, const struct batch *batch)
{
    double d = (double)c->width, wide = (double)c->heads * (double)c->head_dim, narrow = (double)c->kv_heads * (double)c->head_dim;
    int64_t targets = batch_count_targets(batch), classes = batch_count_classes(batch), supervised = targets + classes;
    bool picks = routing_picks(supervised, batch->n_tokens);
    double rows = picks ? (double)supervised : batch->n_tokens, pairs = 0, last_pairs = 0; /* of the last layer */
    for (int s = 0; s < batch->n_sequences; s++)
        for (int i = batch->starts[s]; i < batch->starts[s + 1]; i++) {
            pairs += i - batch->starts[s] + 1;
            last_pairs += picks && batch->targets[i] < 0 && !(batch_class(batch, s).count && i == batch->starts[s + 1] - 1)
                              ? 0 : i - batch->starts[s] + 1;
        }
    double computed = (c->layers - 1) * (double)batch->n_tokens + rows;
    double linear = computed * d * (2 * wide + 3 * (double)c->hidden) + c->layers * (double)batch->n_tokens * d * 2 * narrow;
    double head = d * ((double)c->vocab * (double)targets + (double)c->labels * (double)classes);
    return 6 * (linear + head) + 12.0 * wide * ((c->layers - 1) * pairs + last_pairs);
}
