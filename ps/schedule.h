/* The learning rate as a pure function of the step, so that a resumed run needs no scheduler state.
 * Formulas and step counting are those of Hugging Face transformers' get_scheduler (optimization.py): the first
 * update (step 0) uses rate(0), which is 0 when there is a warm-up.
 * Must not know: optimizers, configuration files. */
#ifndef PS_SCHEDULE_H
#define PS_SCHEDULE_H

#include <stdint.h>

#include "common/status.h"

enum schedule_type {
    SCHEDULE_LINEAR,
    SCHEDULE_COSINE,
    SCHEDULE_COSINE_WITH_MIN_LR,
    SCHEDULE_CONSTANT,
    SCHEDULE_CONSTANT_WITH_WARMUP,
    SCHEDULE_MULTISTEP,
};

enum { SCHEDULE_MAX_MILESTONES = 8 };

struct schedule {
    enum schedule_type type;
    double base;            /* learning_rate */
    int64_t warmup, total;  /* in optimizer steps */
    double cycles;          /* cosine types: waves; 0.5 = down once */
    double min_rate;        /* cosine_with_min_lr: lowest rate as a share of base */
    int milestones;         /* multistep: how many */
    double at[SCHEDULE_MAX_MILESTONES];     /* multistep: share of `total` from which on ... */
    double factor[SCHEDULE_MAX_MILESTONES]; /* ... the rate is base * factor */
};

/* Keys of lr_scheduler_kwargs; start from SCHEDULE_KWARGS_DEFAULT. */
struct schedule_kwargs {
    double num_cycles;  /* negative: not given (0.5) */
    double min_lr;      /* negative: not given */
    double min_lr_rate; /* negative: not given */
    int milestones;     /* 0: not given (31.6 % from 80 %, 10 % from 90 %, as DeepSeek-LLM) */
    double at[SCHEDULE_MAX_MILESTONES], factor[SCHEDULE_MAX_MILESTONES];
};
#define SCHEDULE_KWARGS_DEFAULT ((struct schedule_kwargs){.num_cycles = -1, .min_lr = -1, .min_lr_rate = -1})

/* lr_scheduler_type -> type. STATUS_USAGE lists the known names. */
enum status schedule_parse(const char *name, enum schedule_type *out, struct error *err);
const char *schedule_name(enum schedule_type type);

/* Checks and completes a schedule. warmup_steps wins over warmup_ratio (of total, rounded up) when it is > 0.
 * STATUS_USAGE: a value out of bounds, or both / neither of min_lr and min_lr_rate where one is needed. */
enum status schedule_make(enum schedule_type type, double base, int64_t total, int64_t warmup_steps,
                          double warmup_ratio, const struct schedule_kwargs *kwargs, struct schedule *out,
                          struct error *err);

/* Learning rate of the update number `step`, counted from 0. Defined for every step >= 0, also beyond `total`. */
double schedule_rate(const struct schedule *schedule, int64_t step);

#endif
