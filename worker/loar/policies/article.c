/* The article's rule: a head runs when it holds more than half of the softmax, so one head runs or none passes. */
#include "worker/loar/policy.h"

void policy_article(const struct policy_input *in, uint8_t *on)
{
    for (int h = 0; h < in->heads; h++)
        on[h] = in->p[h] > 0.5f;
}
