/* The fewest best heads that together hold the budget's share of the softmax, always-on heads first. */
#include "worker/loar/policy.h"
#include "worker/loar/rank.h"

void policy_topp(const struct policy_input *in, uint8_t *on)
{
    int order[LOAR_MAX_HEADS];
    rank_order(in->heads, in->key, order);
    double held = 0;
    for (int i = 0; i < in->heads; i++) {
        on[order[i]] = held < in->budget;
        held += (double)in->p[order[i]];
    }
}
