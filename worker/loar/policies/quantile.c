/* A head runs when its score exceeds a threshold that follows a quantile of past scores (track.h). */
#include "worker/loar/policy.h"

void policy_quantile(const struct policy_input *in, uint8_t *on)
{
    for (int h = 0; h < in->heads; h++)
        on[h] = in->z[h] > in->threshold[h];
}
