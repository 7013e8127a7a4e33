/* AdamW (Loshchilov & Hutter, ICLR 2019) with the order of operations of torch.optim.AdamW in float32, so that curves
 * of runs in PyTorch can be laid over ours. One pass over memory: 16 bytes read and 12 written per value.
 * Must not know: chunks, tensors, threads. */
#include <math.h>

#include "common/compiler.h"
#include "ps/optimizer/optimizer.h"

static int states(const struct optimizer_options *options, const char *names[SHARD_MAX_STATES])
{
    (void)options;
    names[0] = "exp_avg";
    names[1] = "exp_avg_sq";
    return 2;
}

static enum status check(const struct optimizer_options *o, struct error *err)
{
    if (!(o->beta1 >= 0 && o->beta1 < 1))
        FAIL(err, STATUS_USAGE, "adam_beta1 is %g; allowed are values from 0 to below 1", o->beta1);
    if (!(o->beta2 >= 0 && o->beta2 < 1))
        FAIL(err, STATUS_USAGE, "adam_beta2 is %g; allowed are values from 0 to below 1", o->beta2);
    /* A parameter that never saw a gradient divides 0 by epsilon, so zero (or what rounds to it) must not pass. */
    if (!((float)o->epsilon > 0 && o->epsilon < 1))
        FAIL(err, STATUS_USAGE, "adam_epsilon is %g; allowed are values between 0 and 1, usual is 1e-8", o->epsilon);
    return STATUS_OK;
}

struct factors {
    float scale, decay, beta2, one_beta1, one_beta2, root2, epsilon, step_size;
};

/* m = lerp(m, g, 1 - beta1); v = v * beta2 + (1 - beta2) * g * g;
 * p = p * (1 - lr * decay) - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps). */
MULTIVERSION static int adamw(float *restrict p, float *restrict m, float *restrict v, const float *restrict gradient,
                              int64_t count, const struct factors *factors)
{
    const struct factors f = *factors;
    int bad = 0;
    for (int64_t i = 0; i < count; i++) {
        float g = gradient[i] * f.scale;
        float first = m[i] + f.one_beta1 * (g - m[i]);
        float second = v[i] * f.beta2 + f.one_beta2 * g * g;
        float denominator = sqrtf(second) / f.root2 + f.epsilon;
        float value = p[i] * f.decay + -f.step_size * first / denominator;
        m[i] = first;
        v[i] = second;
        p[i] = value;
        bad |= !(value - value == 0);
    }
    return bad;
}

static bool update(const struct optimizer_options *o, int64_t step, const struct optimizer_span *span)
{
    /* Factors in double, rounded once, as PyTorch does it. */
    struct factors factors = {
        .scale = (float)span->pace.scale,
        .decay = (float)(1 - span->pace.learning_rate * span->weight_decay),
        .beta2 = (float)o->beta2,
        .one_beta1 = (float)(1 - o->beta1),
        .one_beta2 = (float)(1 - o->beta2),
        .root2 = (float)sqrt(1 - pow(o->beta2, (double)step)),
        .epsilon = (float)o->epsilon,
        .step_size = (float)(span->pace.learning_rate / (1 - pow(o->beta1, (double)step))),
    };
    return !adamw(span->parameters, span->states[0], span->states[1], span->gradient, span->count, &factors);
}

const struct optimizer_ops optimizer_adamw = {.name = "adamw", .states = states, .check = check, .update = update};
