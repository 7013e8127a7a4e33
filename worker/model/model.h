/* The model as the rest of the program sees it: a list of parameters, a loss with its gradient, logits.
 * One file per architecture composes it from blocks; everything is fp32.
 * Glossary: N tokens in a packed batch, B sequences, D width, H query heads, G KV heads, C head size,
 * F hidden width of the MLP, V vocabulary, K labels, L layers.
 * Must not know: messages, ranks, options. */
#ifndef WORKER_MODEL_MODEL_H
#define WORKER_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/params.h"
#include "common/status.h"
#include "common/threads.h"
#include "worker/data/batch.h"
#include "worker/loar/loar.h"
#include "worker/loar/schedule.h"
#include "worker/model/training.h"

enum model_type { MODEL_LLAMA, MODEL_QWEN2 };
enum rope_type { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

/* Attention routing of a model; the caller's, and to live as long as what was made from it. */
struct loar_plan {
    struct loar_config config;
    const struct loar_layer *layers; /* [L] windows, sinks and budgets may change between passes */
};

/* What config.json says (reference: formats of Hugging Face folders). */
struct model_config {
    enum model_type type;
    int64_t width;    /* D hidden_size */
    int64_t hidden;   /* F intermediate_size */
    int layers;       /* L num_hidden_layers */
    int heads;        /* H num_attention_heads */
    int kv_heads;     /* G num_key_value_heads */
    int64_t head_dim; /* C */
    int64_t vocab;    /* V vocab_size */
    int64_t max_positions;
    float norm_eps;
    double rope_theta;
    enum rope_type rope;
    double rope_factor, rope_low_freq_factor, rope_high_freq_factor, rope_original_positions;
    bool qkv_bias;
    bool tied; /* tie_word_embeddings */
    float init_std; /* initializer_range, for training from scratch */
    int bos, n_eos, eos[8]; /* -1 / none where the file names none */
    const struct loar_plan *loar; /* NULL: every layer computes all heads and sees all keys */
    struct training training;     /* what is trained; zeros: everything */
    int labels;                   /* K rows of score.weight: the labels of all classification tasks; 0: no such tensor */
    bool classifies_only;         /* there is no lm_head: every row has a class */
};

/* The model as its routers see it. */
static inline struct loar_shape model_shape(const struct model_config *c)
{
    return (struct loar_shape){c->width, c->heads, (int)c->head_dim};
}

/* Sums over the supervised targets of a batch. Weighted sums use the targets' weights. Doubles, added in a
 * fixed order, so that they too are the same for any number of workers and threads. */
struct loss_sums {
    double loss;                 /* sum of weight * cross-entropy */
    double weight;               /* sum of weights */
    double span_loss[SPAN_COUNT];   /* unweighted cross-entropy per span of the target */
    int64_t span_count[SPAN_COUNT]; /* targets per span */
    int64_t correct;             /* targets that are the arg-max */
    int64_t tokens;              /* all tokens that went through the model */
};
void loss_sums_add(struct loss_sums *sum, const struct loss_sums *more);

/* Head of classification: [K][D], without bias. */
#define MODEL_SCORE_TENSOR "score.weight"

struct model; /* scratch memory and composition; the parameters themselves are the caller's */

/* Lists the model's tensors in forward order under their Hugging Face names, those that are not trained as frozen.
 * STATUS_USAGE where config->training fits no tensor. */
enum status model_params(const struct model_config *config, struct params *table, struct error *err);

/* Adds every adapter of the table to its matrix, wherever that lies in values [params_room]. */
enum status model_merge_adapters(const struct model_config *config, const struct params *table, float *values, struct error *err);

struct model_options {
    bool checkpointing;    /* keep only the input of each layer and recompute the rest in backward */
    float label_smoothing; /* in losses and gradients (worker/ops/cross_entropy.h); 0: none */
    float noise_alpha;     /* in gradients alone: uniform noise in +-alpha / sqrt(T D) on the embeddings of a sequence of T */
};
enum status model_create(const struct model_config *config, const struct params *table,
                         const struct model_options *options, struct threads *pool, struct model **out,
                         struct error *err);
void model_free(struct model *model);

/* How far routing has been let in, for all passes from now on: at `step` of a schedule, or, with NULL, as at its end (which
 * is how a model begins). draw: differs for each batch, for exploration and for the noise on embeddings. All but that has no
 * effect on a dense model. */
void model_set_schedule(struct model *model, const struct loar_schedule *schedule, int64_t step, uint64_t draw);

/* While `keep` holds, passes over the batch of the last one repeat its choices of heads and its gates, which makes the loss
 * a smooth function of all other weights: for comparing gradients with differences. No effect on a dense model. */
void model_keep_routing(struct model *model, bool keep);

/* What all passes did since the counters were last cleared. */
struct counters;
struct counters *model_counters(struct model *model);

/* Called during backward, from the calling thread, when all gradients from flat position `first` to the end
 * of the flat space are final. Positions fall from call to call; the last call has first = 0. */
typedef void model_ready_fn(void *context, int64_t first);

/* In all that follows, values holds what the table lists: [params_room], frozen tensors behind the trained ones. */

/* Gradient of the weighted loss sum (not divided by the weights) of what is trained, [table->values]; it is overwritten,
 * padding stays zero. on_ready may be NULL. */
enum status model_gradient(struct model *model, const float *values, const struct batch *batch, float *gradients,
                           model_ready_fn *on_ready, void *context, struct loss_sums *sums, struct error *err);
/* Loss alone. */
enum status model_loss(struct model *model, const float *values, const struct batch *batch, struct loss_sums *sums,
                       struct error *err);
/* Logits of every token, [N][V]; for tests and short prompts only. */
enum status model_logits(struct model *model, const float *values, const struct batch *batch, float *logits,
                         struct error *err);
/* Scores of all labels from the last token of each row, [B][K]. */
enum status model_scores(struct model *model, const float *values, const struct batch *batch, float *scores,
                         struct error *err);

/* Decoding with a KV cache: one sequence, any number of new tokens at a time. */
struct kv_cache;
enum status kv_cache_create(const struct model *model, int max_positions, struct kv_cache **out, struct error *err);
void kv_cache_free(struct kv_cache *cache);
void kv_cache_reset(struct kv_cache *cache);
int kv_cache_length(const struct kv_cache *cache);
/* Memory of its keys and values; layers with a window keep only what later tokens can see. */
size_t kv_cache_bytes(const struct kv_cache *cache);
/* For a routed model, after a reset: how many of the tokens to come are the prompt (0: those of the first call), and the
 * task of the request. */
void kv_cache_set_task(struct kv_cache *cache, int prompt, int task);
/* Appends n tokens and writes the logits of the last one, [V]. */
enum status model_decode(struct model *model, const float *values, struct kv_cache *cache, const int32_t *tokens, int n,
                         float *logits, struct error *err);

/* Model FLOPs of one training step over `batch` by the usual count: 6 per multiply-add weight and token for
 * matrices (head: supervised tokens only), attention by the causal pairs really computed. */
double model_step_flops(const struct model_config *config, const struct batch *batch);

#endif
