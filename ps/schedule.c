#include "ps/schedule.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static const double pi = 3.141592653589793;

static const char *const names[] = {
    [SCHEDULE_LINEAR] = "linear",
    [SCHEDULE_COSINE] = "cosine",
    [SCHEDULE_COSINE_WITH_MIN_LR] = "cosine_with_min_lr",
    [SCHEDULE_CONSTANT] = "constant",
    [SCHEDULE_CONSTANT_WITH_WARMUP] = "constant_with_warmup",
    [SCHEDULE_MULTISTEP] = "multistep",
};
enum { N_TYPES = sizeof names / sizeof *names };

enum status schedule_parse(const char *name, enum schedule_type *out, struct error *err)
{
    for (int i = 0; i < N_TYPES; i++)
        if (!strcmp(name, names[i])) {
            *out = (enum schedule_type)i;
            return STATUS_OK;
        }
    FAIL(err, STATUS_USAGE,
         "lr_scheduler_type is '%s'; allowed are linear, cosine, cosine_with_min_lr, constant, constant_with_warmup "
         "and multistep",
         name);
}

const char *schedule_name(enum schedule_type type)
{
    return names[type];
}

static enum status set_floor(const struct schedule_kwargs *kwargs, struct schedule *s, struct error *err)
{
    if (s->type != SCHEDULE_COSINE_WITH_MIN_LR)
        return STATUS_OK;
    bool rate = kwargs->min_lr >= 0, share = kwargs->min_lr_rate >= 0;
    if (rate == share)
        FAIL(err, STATUS_USAGE,
             "lr_scheduler_type cosine_with_min_lr needs either min_lr or min_lr_rate in lr_scheduler_kwargs; %s given",
             rate ? "both are" : "neither is");
    s->min_rate = rate ? kwargs->min_lr / s->base : kwargs->min_lr_rate;
    if (!(s->min_rate >= 0 && s->min_rate <= 1))
        FAIL(err, STATUS_USAGE,
             "lr_scheduler_kwargs asks for a lowest rate of %g times learning_rate; allowed are shares from 0 to 1",
             s->min_rate);
    return STATUS_OK;
}

static enum status set_milestones(const struct schedule_kwargs *kwargs, struct schedule *s, struct error *err)
{
    if (s->type != SCHEDULE_MULTISTEP)
        return STATUS_OK;
    if (kwargs->milestones == 0) {
        /* DeepSeek-LLM (arXiv 2401.02954, section 2.3). */
        s->milestones = 2;
        s->at[0] = 0.8, s->factor[0] = 0.316;
        s->at[1] = 0.9, s->factor[1] = 0.1;
        return STATUS_OK;
    }
    if (kwargs->milestones < 0 || kwargs->milestones > SCHEDULE_MAX_MILESTONES)
        FAIL(err, STATUS_USAGE, "lr_scheduler_kwargs lists %d milestones; allowed are 1 to %d", kwargs->milestones,
             SCHEDULE_MAX_MILESTONES);
    double last = 0;
    for (int i = 0; i < kwargs->milestones; i++) {
        if (!(kwargs->at[i] >= last && kwargs->at[i] <= 1))
            FAIL(err, STATUS_USAGE, "milestone %d of lr_scheduler_kwargs is %g; allowed are growing shares of the run, "
                 "0 to 1", i + 1, kwargs->at[i]);
        if (!(kwargs->factor[i] >= 0) || !isfinite(kwargs->factor[i]))
            FAIL(err, STATUS_USAGE, "factor %d of lr_scheduler_kwargs is %g; allowed are numbers from 0 on", i + 1,
                 kwargs->factor[i]);
        last = s->at[i] = kwargs->at[i];
        s->factor[i] = kwargs->factor[i];
    }
    s->milestones = kwargs->milestones;
    return STATUS_OK;
}

enum status schedule_make(enum schedule_type type, double base, int64_t total, int64_t warmup_steps,
                          double warmup_ratio, const struct schedule_kwargs *kwargs, struct schedule *out,
                          struct error *err)
{
    if (!(base >= 0) || !isfinite(base))
        FAIL(err, STATUS_USAGE, "learning_rate is %g; allowed are numbers from 0 on", base);
    if (base == 0 && type == SCHEDULE_COSINE_WITH_MIN_LR)
        FAIL(err, STATUS_USAGE, "learning_rate is 0; a lowest rate makes no sense with it");
    if (total < 0 || warmup_steps < 0)
        FAIL(err, STATUS_USAGE, "%lld steps with a warm-up of %lld; neither can be negative", (long long)total,
             (long long)warmup_steps);
    if (!(warmup_ratio >= 0 && warmup_ratio <= 1))
        FAIL(err, STATUS_USAGE, "warmup_ratio is %g; allowed are shares from 0 to 1", warmup_ratio);
    struct schedule s = {.type = type, .base = base, .total = total};
    s.warmup = warmup_steps > 0 ? warmup_steps : (int64_t)ceil((double)total * warmup_ratio);
    s.cycles = kwargs->num_cycles >= 0 ? kwargs->num_cycles : 0.5;
    TRY(set_floor(kwargs, &s, err));
    TRY(set_milestones(kwargs, &s, err));
    *out = s;
    return STATUS_OK;
}

static double at_least_one(int64_t steps)
{
    return steps > 1 ? (double)steps : 1;
}

static double cosine(const struct schedule *s, double progress)
{
    double factor = 0.5 * (1 + cos(pi * s->cycles * 2 * progress));
    factor = factor * (1 - s->min_rate) + s->min_rate;
    return factor > 0 ? factor : 0;
}

static double multistep(const struct schedule *s, int64_t step)
{
    double factor = 1;
    for (int i = 0; i < s->milestones; i++)
        if ((double)step >= s->at[i] * (double)s->total)
            factor = s->factor[i];
    return factor;
}

double schedule_rate(const struct schedule *s, int64_t step)
{
    if (s->type == SCHEDULE_CONSTANT)
        return s->base;
    if (step < s->warmup)
        return s->base * ((double)step / at_least_one(s->warmup));
    double decay_steps = at_least_one(s->total - s->warmup);
    switch (s->type) {
    case SCHEDULE_LINEAR:
        return s->base * (step < s->total ? (double)(s->total - step) / decay_steps : 0);
    case SCHEDULE_COSINE:
    case SCHEDULE_COSINE_WITH_MIN_LR:
        return s->base * cosine(s, (double)(step - s->warmup) / decay_steps);
    case SCHEDULE_MULTISTEP:
        return s->base * multistep(s, step);
    case SCHEDULE_CONSTANT:
    case SCHEDULE_CONSTANT_WITH_WARMUP:
        break;
    }
    return s->base;
}
