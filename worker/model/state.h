/* What the files that make up the model share: where tensors lie, scratch memory, and the state of one pass.
 * Private to worker/model; everybody else includes model.h. */
#ifndef WORKER_MODEL_STATE_H
#define WORKER_MODEL_STATE_H

#include "worker/model/counters.h"
#include "worker/model/model.h"
#include "worker/loar/decisions.h"
#include "worker/loar/memory.h"
#include "worker/loar/policy.h"
#include "worker/loar/row_lists.h"
#include "worker/loar/tensors.h"
#include "worker/ops/attention.h"
#include "worker/ops/cross_entropy.h"

/* An adapter's matrices; a -1 where there is none. */
struct lora_places {
    int64_t a, b;    /* [R][in], [out][R] */
    int64_t in, out;
};

/* Places in the flat space; -1 where the model has no such tensor. */
struct layer_places {
    int64_t norm1, q, q_bias, k, k_bias, v, v_bias, o; /* attention block */
    int64_t norm2, gate, up, down;                     /* MLP block */
    int layer;
    struct lora_places lora[LORA_MODULES];
    struct loar_places router; /* where the layer is routed */
    int64_t first; /* from here on all gradients are final after the layer's backward */
    bool is_end;   /* nothing before its output projection and router is trained, here or in the layers below: backward ends there */
    bool is_mlp_end; /* nor are these: it ends before attention */
};

/* Places are those of params_place: frozen tensors lie behind the trained ones. */
struct plan {
    int64_t embedding, norm, head; /* head = embedding when tied */
    int64_t score;                 /* of labels */
    int64_t first;                 /* as in layers, after the head */
    int lowest;                    /* layer in which backward ends; L where none of them is trained */
    struct layer_places *layers;   /* [L] */
};

enum status plan_make(const struct model_config *config, const struct params *table, struct plan *out,
                      struct error *err);
void plan_free(struct plan *plan);

/* What a layer leaves for its backward. */
struct activations {
    float *rstd1, *normed1;     /* [N], [N][D] first norm */
    float *q, *k, *v;           /* [N][H][C], [N][G][C] twice; turned by RoPE; the new rows */
    float *attended, *lse;      /* [N][H][C], [N][H] */
    float *middle;              /* [N][D] residual stream between the two blocks */
    float *rstd2, *normed2;     /* [N], [N][D] second norm */
    float *gate, *up;           /* [N][F] */
};

/* Memory of one pass, carved from one block. */
struct workspace {
    float *inputs;             /* input of each layer, then output of the last without its residual */
    int64_t input_stride;      /* values between them; 0 where only the latest is kept */
    struct activations *layers; /* [L]; all the same where layers share their memory */
    float *act;                /* [N][F] */
    float *dx, *dnormed;       /* [N][D] */
    float *dattended, *dq, *dk, *dv, *delta;
    float *lora_x, *lora_u, *lora_du; /* [N][widest input] with dropout, [N][R] twice: of the adapter in work */
    float *picked[3];          /* [rows of the head][D] of the last layer's MLP */
    struct attention_segment *segments; /* [B] */
    /* Head, in tiles of tile_rows tokens. */
    int64_t tile_rows;
    int32_t *rows, *targets;   /* [tokens that take part] those with a target first, then last tokens of rows with a class */
    float *weights;            /* same */
    struct column_range *ranges; /* [rows with a class] labels of their tasks */
    float *tile_x, *tile_normed, *tile_dx, *tile_dnormed; /* [tile_rows][D] */
    float *tile_rstd, *tile_loss;                         /* [tile_rows] */
    uint8_t *tile_correct;
    float *tile_logits;        /* [tile_rows][V or K, whichever is more] */
    void *block;
    size_t block_bytes;
};

enum workspace_use { WORKSPACE_FORWARD, WORKSPACE_BACKWARD };

/* Makes room for N tokens, B sequences and a head over `heads_rows` tokens. Keeps and reuses what is there. lowest: layer in
 * which backward ends; those below keep nothing for it. */
enum status workspace_reserve(struct workspace *w, const struct model_config *config, bool checkpointing, int lowest,
                              enum workspace_use use, int64_t n, int sequences, int64_t head_rows, struct error *err);
void workspace_free(struct workspace *w);

/* What a routed layer decided in forward, for its backward. M decisions, B sequences. */
struct layer_routing {
    float *f, *hidden, *z; /* [M][D], [M][R], [M][H] */
    float *gate;           /* [M][H] */
    uint8_t *on;           /* [M][H] */
    size_t capacity;       /* M that there is room for */
    struct row_lists lists;
    struct attention_head *layout; /* [H] of the compact rows */
    bool all;              /* every head computes every row: the layer runs as a dense one */
    bool gated;            /* gates are factors */
};

/* Which rows the heads of each layer compute: what routers decided about the batch in work, and in the last layer only those
 * whose result the loss reads. Also scratch that layers share. */
struct routing {
    const struct loar_plan *plan; /* NULL: nothing is routed */
    uint8_t *wanted;             /* [N] the last layer's rows that are read; where `picks` holds */
    bool picks;
    struct loar_schedule schedule;
    int64_t step;
    uint64_t draw;               /* exploration */
    bool keeps;                  /* choices of the last pass stand */
    bool scheduled;              /* else as at the schedule's end */
    struct decisions decisions;
    struct layer_routing *layers; /* [L] */
    int32_t *positions;          /* [H * N] of the compact rows */
    float *delta, *dgate, *dz;   /* [N][H], [M][H] twice */
    float *stand_in, *vectors, *sums; /* [M][H], [H][D], [M][D] */
    float *threshold, *multiplier, *levels; /* [T][H], [T], [T][H] of the layer in work */
    struct policy_setting *settings; /* [T] of the layer in work */
    double *budgets;                 /* [T] the same */
    int64_t *offsets;              /* [H] */
    size_t tokens, count;        /* what there is room for */
    enum status status;          /* of the first failure in a pass */
    struct error err;
};

struct model {
    struct model_config config;
    struct model_options options;
    struct params *table; /* own copy, for names in messages */
    struct plan plan;
    struct threads *pool;
    struct workspace workspace;
    struct routing *routing;
    struct counters counters;
    float *attention_scratch; /* [attention_values] */
    size_t attention_values;
    float *frequencies;      /* [C/2] RoPE */
    float *cosine, *sine;    /* [rope_positions][C/2] */
    int64_t rope_positions;
};

/* Makes the RoPE tables reach at least `positions`. */
enum status model_rope_reserve(struct model *model, int64_t positions, struct error *err);

/* STATUS_USAGE for a model that only classifies. */
enum status model_check_words(const struct model *model, struct error *err);

/* Gives attention its scratch memory; its segments must be in place. */
enum status model_attention_reserve(struct model *model, struct attention *attention, bool backward, struct error *err);

/* Where a layer's keys and values go and are read while decoding: [G][capacity][C], so that what a head reads lies together
 * and heads that do not run cost no memory traffic. */
struct cached_layer {
    float *keys, *values;
    int64_t capacity, at; /* at: place of the first new row */
    struct attention_segment segment;
};

/* One pass over N tokens, as the blocks see it. */
struct pass {
    const struct model_config *config;
    struct threads *pool;
    const struct workspace *workspace;
    const float *values;
    float label_smoothing;
    float noise_alpha; /* 0: none */
    float *gradients; /* NULL in a forward pass */
    int64_t trained;  /* values that gradients has room for */
    int64_t n;
    const int32_t *positions;
    const float *cosine, *sine;
    struct attention attention;
    struct routing *routing;
    int64_t n_picked;               /* rows that the last layer computes, workspace->rows; 0: all */
    const struct cached_layer *cached; /* [L] while decoding, else NULL */
    struct counters *counters;
    struct loar_memory *memories;   /* [L] of the one sequence that goes on; NULL where all sequences begin */
};

/* Where the gradient of a tensor goes; NULL where the model has no such tensor, or it is frozen: then there is nothing to
 * compute. */
static inline float *gradient_of(const struct pass *pass, int64_t place)
{
    return place >= 0 && place < pass->trained ? pass->gradients + place : NULL;
}

#endif
