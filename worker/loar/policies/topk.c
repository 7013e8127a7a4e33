/* The best heads, as many as the budget buys, always-on heads counted: the same work in every decision. */
#include "worker/loar/policy.h"
#include "worker/loar/rank.h"

void policy_topk(const struct policy_input *in, uint8_t *on)
{
    int rank[LOAR_MAX_HEADS], k = loar_heads_of(in->budget, in->heads);
    rank_heads(in->heads, in->key, rank);
    for (int h = 0; h < in->heads; h++)
        on[h] = rank[h] < k;
}
