#include "worker/loar/schedule.h"

#include <math.h>

static int64_t steps_of(const struct loar_schedule *s, double share)
{
    return llround(share * (double)s->total_steps);
}

enum status loar_schedule_check(const struct loar_schedule *s, struct error *err)
{
    if (s->dense_steps < 0)
        FAIL(err, STATUS_USAGE, "dense_steps is %lld; it must not be negative", (long long)s->dense_steps);
    if (!(s->anneal_share >= 0 && s->anneal_share <= 1))
        FAIL(err, STATUS_USAGE, "anneal_share is %g; it is a share of the steps, 0 to 1 (0.25 is usual)", s->anneal_share);
    if (!(s->frozen_share >= 0 && s->frozen_share <= 1))
        FAIL(err, STATUS_USAGE, "frozen_share is %g; it is a share of the steps, 0 to 1 (0.1 is usual)", s->frozen_share);
    int64_t anneal = steps_of(s, s->anneal_share), frozen = steps_of(s, s->frozen_share);
    if (s->dense_steps > s->total_steps - anneal - frozen)
        FAIL(err, STATUS_USAGE, "%lld dense, %lld annealing and %lld frozen steps do not fit into %lld steps; shorten "
             "dense_steps, anneal_share or frozen_share, or train longer", (long long)s->dense_steps, (long long)anneal,
             (long long)frozen, (long long)s->total_steps);
    return STATUS_OK;
}

struct loar_moment loar_schedule_at(const struct loar_schedule *s, int64_t step, double target)
{
    int64_t anneal = steps_of(s, s->anneal_share), frozen = steps_of(s, s->frozen_share);
    int64_t routed = step - s->dense_steps; /* steps since routing began */
    if (routed < 0)
        return (struct loar_moment){LOAR_STAGE_DENSE, 1};
    if (routed < anneal || (routed == 0 && !s->let_in)) /* the first one is still dense */
        return (struct loar_moment){LOAR_STAGE_ANNEAL, 1 - (1 - target) * (double)routed / (double)(anneal > 0 ? anneal : 1)};
    return (struct loar_moment){step < s->total_steps - frozen ? LOAR_STAGE_ROUTED : LOAR_STAGE_FROZEN, target};
}
