/* The routed attention block: which rows each head computes, and the pieces of the block that depend on it.
 * Private to worker/model. Must not know: where parameters come from, who moves what routing keeps. */
#ifndef WORKER_MODEL_ROUTED_H
#define WORKER_MODEL_ROUTED_H

#include "worker/model/state.h"

enum status routing_create(const struct model_config *config, struct routing **out, struct error *err);
void routing_free(struct routing *routing, int layers);
/* Decisions of a batch whose segments are in place; earlier: tokens of each sequence that are cached already. Nothing to do
 * where nothing is routed. */
enum status routing_begin(struct routing *routing, const struct model_config *config, int n_sequences, const int32_t *starts,
                          const int32_t *earlier, const int32_t *prompts, const int32_t *tasks, struct error *err);
/* Whether so many of n rows are few enough: lists cost something, too. */
static inline bool routing_picks(int64_t count, int64_t n)
{
    return count * 10 <= n * 9;
}
/* Only the `count` rows will be read of the last layer's output: it computes no others, unless they are nearly all. Returns
 * how many it computes, or 0 for all. After routing_begin. */
enum status routing_pick(struct routing *routing, const struct model_config *config, int n_sequences, const int32_t *starts,
                         const int32_t *rows, int64_t count, int64_t *picked, struct error *err);

/* After the forward pass: the first choice that failed in one of its layers. */
enum status routing_end(const struct routing *routing, struct error *err);

/* What the layer's attention sees: window, sinks, and rows where the layer is routed. */
struct attention routed_attention(const struct pass *pass, const struct layer_places *places);

/* Chooses the rows of heads, by the normed input where the layer is routed. NULL: every head computes all, or the choice
 * failed (routing->status) and the layer runs as a dense one. Where the result says `all`, it runs as a dense one, too. */
struct layer_routing *routed_choose(const struct pass *pass, const struct layer_places *places, const float *normed);
/* What routed_choose returned in the layer's forward. */
struct layer_routing *routed_chosen(const struct pass *pass, const struct layer_places *places);
/* q of the chosen rows, turned by RoPE. */
void routed_queries(const struct pass *pass, const struct layer_places *places, struct layer_routing *r, const float *normed,
                    float *q);
/* out[N][D] from the attended rows, which are multiplied by soft gates on the way. */
void routed_output(const struct pass *pass, const struct layer_places *places, struct layer_routing *r, float *attended,
                   float *out);

/* dy [N][D]: gradient of the block's output. Writes dattended and the output projection's gradient; delta, placed as lse. */
void routed_output_backward(const struct pass *pass, const struct layer_places *places, struct layer_routing *r,
                            const struct attention *attention, const float *attended, const float *dy, float *dattended,
                            float *delta);
/* Gradients of the query projection, and dnormed[N][D] from it; dq is turned back by RoPE. */
void routed_queries_backward(const struct pass *pass, const struct layer_places *places, struct layer_routing *r,
                             const float *normed, float *dq, float *dnormed);
/* Gradients of the router and what routing keeps; none where the layer is not routed. r: what routed_choose returned. attended, delta: as
 * the layer computed them; dy: gradient of the block's output. */
void routed_router_backward(const struct pass *pass, const struct layer_places *places, const struct layer_routing *r,
                            const float *attended, const float *delta, const float *dy);

#endif
