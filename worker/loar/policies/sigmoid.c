/* A head runs when its sigmoid exceeds a half; a price per task and layer holds the budget (track.h). */
#include "worker/loar/policy.h"

void policy_sigmoid(const struct policy_input *in, uint8_t *on)
{
    for (int h = 0; h < in->heads; h++)
        on[h] = in->z[h] > 0;
}
