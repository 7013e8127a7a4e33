/* Scratch memory of a pass: one block, laid out anew for each batch and grown when a batch needs more than any
 * before it. Sizes depend on the model and the batch alone. */
#include <string.h>

#include "common/memory.h"
#include "worker/model/state.h"

/* Logits of one head tile at most; with 100k tokens of vocabulary that is some 300 rows, enough for BLAS. */
enum { TILE_BYTES = 128 << 20, TILE_ROWS_LEAST = 64, TILE_ROWS_MOST = 1024 };

/* Hands out pieces of a block; with base NULL it only counts. */
struct cursor {
    char *base;
    size_t used;
};

static void *take(struct cursor *c, int64_t count, size_t size)
{
    void *piece = c->base ? c->base + c->used : NULL;
    c->used += ((size_t)count * size + 63) / 64 * 64;
    return piece;
}

static float *take_floats(struct cursor *c, int64_t count)
{
    return take(c, count, sizeof(float));
}

struct need {
    const struct model_config *config;
    bool checkpointing;
    int lowest;
    enum workspace_use use;
    int64_t n, sequences, head_rows;
};

static void lay_layer(struct cursor *at, const struct need *need, struct activations *s)
{
    const struct model_config *c = need->config;
    int64_t n = need->n, q = n * c->heads * c->head_dim, kv = n * c->kv_heads * c->head_dim;
    s->rstd1 = take_floats(at, n);
    s->normed1 = take_floats(at, n * c->width);
    s->q = take_floats(at, q);
    s->k = take_floats(at, kv);
    s->v = take_floats(at, kv);
    s->attended = take_floats(at, q);
    s->lse = take_floats(at, n * c->heads);
    s->middle = take_floats(at, n * c->width);
    s->rstd2 = take_floats(at, n);
    s->normed2 = take_floats(at, n * c->width);
    s->gate = take_floats(at, n * c->hidden);
    s->up = take_floats(at, n * c->hidden);
}

static void lay_lora(struct cursor *at, const struct need *need, struct workspace *w)
{
    const struct model_config *c = need->config;
    int64_t wide = c->heads * c->head_dim, widest = c->width > c->hidden ? c->width : c->hidden;
    widest = wide > widest ? wide : widest;
    w->lora_u = take_floats(at, need->n * c->training.lora.rank);
    if (need->use != WORKSPACE_BACKWARD)
        return;
    w->lora_du = take_floats(at, need->n * c->training.lora.rank);
    if (c->training.lora.dropout > 0)
        w->lora_x = take_floats(at, need->n * widest);
}

static void lay_backward(struct cursor *at, const struct need *need, struct workspace *w)
{
    const struct model_config *c = need->config;
    int64_t n = need->n, q = n * c->heads * c->head_dim, kv = n * c->kv_heads * c->head_dim;
    w->dx = take_floats(at, n * c->width);
    w->dnormed = take_floats(at, n * c->width);
    w->dattended = take_floats(at, q);
    w->dq = take_floats(at, q);
    w->dk = take_floats(at, kv);
    w->dv = take_floats(at, kv);
    w->delta = take_floats(at, n * c->heads);
}

static void lay_head(struct cursor *at, const struct need *need, struct workspace *w)
{
    const struct model_config *c = need->config;
    int64_t most = TILE_BYTES / (int64_t)sizeof(float) / c->vocab / TILE_ROWS_LEAST * TILE_ROWS_LEAST;
    most = most > TILE_ROWS_MOST ? TILE_ROWS_MOST : most < TILE_ROWS_LEAST ? TILE_ROWS_LEAST : most;
    w->tile_rows = most; /* not cut to the batch: where tiles end must not depend on what else it holds */
    int64_t rows = need->head_rows < most ? need->head_rows : most;
    w->rows = take(at, need->head_rows, sizeof(int32_t));
    w->targets = take(at, need->head_rows, sizeof(int32_t));
    w->weights = take_floats(at, need->head_rows);
    w->ranges = take(at, c->labels ? need->sequences : 0, sizeof *w->ranges);
    w->tile_rstd = take_floats(at, rows);
    w->tile_loss = take_floats(at, rows);
    w->tile_correct = take(at, rows, 1);
    w->tile_x = take_floats(at, rows * c->width);
    w->tile_normed = take_floats(at, rows * c->width);
    w->tile_logits = take_floats(at, rows * (c->labels > c->vocab ? c->labels : c->vocab));
    if (need->use == WORKSPACE_BACKWARD) {
        w->tile_dx = take_floats(at, rows * c->width);
        w->tile_dnormed = take_floats(at, rows * c->width);
    }
}

static size_t lay(struct workspace *w, const struct need *need)
{
    const struct model_config *c = need->config;
    struct cursor at = {.base = w->block};
    bool keep_inputs = need->use == WORKSPACE_BACKWARD, keep_layers = keep_inputs && !need->checkpointing;
    w->input_stride = keep_inputs ? need->n * c->width : 0;
    w->inputs = take_floats(&at, (keep_inputs ? c->layers + 1 : 1) * need->n * c->width);
    for (int i = 0; i < c->layers; i++) {
        if (i > 0 && (!keep_layers || i < need->lowest))
            w->layers[i] = w->layers[0];
        else
            lay_layer(&at, need, &w->layers[i]);
    }
    w->act = take_floats(&at, need->n * c->hidden);
    w->segments = take(&at, need->sequences, sizeof *w->segments);
    if (need->use == WORKSPACE_BACKWARD)
        lay_backward(&at, need, w);
    if (c->training.kind == TRAIN_ADAPTERS)
        lay_lora(&at, need, w);
    for (int i = 0; i < 3 && need->head_rows < need->n; i++)
        w->picked[i] = i == 0 || need->use == WORKSPACE_BACKWARD ? take_floats(&at, need->head_rows * c->width) : NULL;
    lay_head(&at, need, w);
    return at.used;
}

enum status workspace_reserve(struct workspace *w, const struct model_config *config, bool checkpointing, int lowest,
                              enum workspace_use use, int64_t n, int sequences, int64_t head_rows, struct error *err)
{
    struct need need = {config, checkpointing, lowest, use, n, sequences, head_rows};
    if (!w->layers)
        w->layers = mem_alloc((size_t)config->layers, sizeof *w->layers);
    if (!w->layers)
        FAIL(err, STATUS_NOMEM, "no memory for the activations of %d layers", config->layers);
    struct workspace counted = *w;
    counted.block = NULL;
    size_t bytes = lay(&counted, &need);
    if (bytes > w->block_bytes) {
        mem_free_aligned(w->block);
        w->block_bytes = 0;
        w->block = mem_alloc_aligned(bytes, 1);
        if (!w->block)
            FAIL(err, STATUS_NOMEM,
                 "no memory for the activations of %lld tokens: %zu MiB; use shorter slots%s", (long long)n, bytes >> 20,
                 checkpointing || use == WORKSPACE_FORWARD ? "" : " or set gradient_checkpointing: true");
        w->block_bytes = bytes;
    }
    lay(w, &need);
    return STATUS_OK;
}

void workspace_free(struct workspace *w)
{
    mem_free_aligned(w->block);
    mem_free(w->layers);
    *w = (struct workspace){0};
}
