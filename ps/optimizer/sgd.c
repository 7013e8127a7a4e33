/* Stochastic gradient descent with momentum as torch.optim.SGD does it: dampening 0, weight decay added to the
 * gradient. Without momentum it keeps no state.
 * Must not know: chunks, tensors, threads. */
#include "common/compiler.h"
#include "ps/optimizer/optimizer.h"

static int states(const struct optimizer_options *options, const char *names[SHARD_MAX_STATES])
{
    names[0] = "momentum_buffer";
    return options->momentum > 0 ? 1 : 0;
}

static enum status check(const struct optimizer_options *o, struct error *err)
{
    if (!(o->momentum >= 0 && o->momentum < 1))
        FAIL(err, STATUS_USAGE, "momentum is %g; allowed are values from 0 to below 1", o->momentum);
    if (o->nesterov && o->momentum == 0)
        FAIL(err, STATUS_USAGE, "Nesterov's variant needs a momentum above 0; set momentum, usual is 0.9");
    return STATUS_OK;
}

struct factors {
    float scale, decay, momentum, rate;
};

static inline float gradient_of(float gradient, float parameter, const struct factors *f)
{
    return gradient * f->scale + f->decay * parameter;
}

MULTIVERSION static int plain(float *restrict p, const float *restrict gradient, int64_t count,
                              const struct factors *factors)
{
    const struct factors f = *factors;
    int bad = 0;
    for (int64_t i = 0; i < count; i++) {
        p[i] = p[i] + -f.rate * gradient_of(gradient[i], p[i], &f);
        bad |= !(p[i] - p[i] == 0);
    }
    return bad;
}

/* b = momentum * b + g; the step is b, or g + momentum * b for Nesterov's variant. A zero buffer makes the first step
 * b = g. */
MULTIVERSION static int with_momentum(float *restrict p, float *restrict buffer, const float *restrict gradient,
                                      int64_t count, const struct factors *factors, bool nesterov)
{
    const struct factors f = *factors;
    int bad = 0;
    for (int64_t i = 0; i < count; i++) {
        float g = gradient_of(gradient[i], p[i], &f);
        float b = buffer[i] * f.momentum + g;
        float direction = nesterov ? g + f.momentum * b : b;
        float value = p[i] + -f.rate * direction;
        buffer[i] = b;
        p[i] = value;
        bad |= !(value - value == 0);
    }
    return bad;
}

static bool update(const struct optimizer_options *o, int64_t step, const struct optimizer_span *span)
{
    (void)step;
    struct factors factors = {
        .scale = (float)span->pace.scale,
        .decay = (float)span->weight_decay,
        .momentum = (float)o->momentum,
        .rate = (float)span->pace.learning_rate,
    };
    if (o->momentum == 0)
        return !plain(span->parameters, span->gradient, span->count, &factors);
    return !with_momentum(span->parameters, span->states[0], span->gradient, span->count, &factors, o->nesterov);
}

const struct optimizer_ops optimizer_sgd = {.name = "sgd", .states = states, .check = check, .update = update};
