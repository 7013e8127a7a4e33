/* A head runs when its softmax exceeds c times an equal share: the article's rule is c = H / 2. */
#include "worker/loar/policy.h"

void policy_softmax_rel(const struct policy_input *in, uint8_t *on)
{
    float least = (float)(in->c / in->heads);
    for (int h = 0; h < in->heads; h++)
        on[h] = in->p[h] > least;
}
