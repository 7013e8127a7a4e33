#include "worker/loar/tensors.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "worker/loar/policy.h"
#include "worker/loar/track.h"

enum { N_TENSORS = 8, NAME_SIZE = 96 };

/* By which share of what a step saw the state moves (common/params.h, `rate`): about 1 / rate steps are remembered. Prices
 * are slower than thresholds, since what they do shows only once the router has learnt from it. */
static const float THRESHOLD_RATE = 0.1f, MULTIPLIER_RATE = 0.02f, AVERAGE_RATE = 0.05f;

struct tensor {
    const char *name;
    size_t place; /* in loar_places */
    bool used, decay;
    int n_dims;
    int64_t shape[2];
    enum param_init init;
    float init_std, rate;
};

static void tensors_of(const struct loar_config *c, const struct loar_shape *s, struct tensor out[N_TENSORS])
{
#define PLACE(member) offsetof(struct loar_places, member)
    bool keeps[] = {[KEEPS_NOTHING] = false, [KEEPS_THRESHOLD] = false, [KEEPS_MULTIPLIER] = false};
    for (int task = 0; task < c->n_tasks; task++)
        keeps[policy_of(loar_task_policy(c, task))->keeps] = true;
    /* A random router's scores must differ by text; its first values are its last. */
    enum param_init fc2 = c->router == LOAR_RANDOM ? INIT_NORMAL : INIT_ZEROS;
    float fc2_std = c->router == LOAR_RANDOM ? 1 / sqrtf((float)c->router_dim) : 0;
    bool decay = c->router == LOAR_LEARNED;
    int64_t r = c->router_dim, h = s->heads, t = c->n_tasks;
    const struct tensor all[N_TENSORS] = {
        {"router.fc1.weight", PLACE(fc1_weight), true, decay, 2, {r, s->width}, INIT_NORMAL, 1 / sqrtf((float)s->width), 0},
        {"router.fc1.bias", PLACE(fc1_bias), true, false, 1, {r}, INIT_ZEROS, 0, 0},
        {"router.fc2.weight", PLACE(fc2_weight), true, decay, 2, {h, r}, fc2, fc2_std, 0},
        {"router.fc2.bias", PLACE(fc2_bias), true, false, 1, {h}, INIT_ONES, 0, 0}, /* sigmoids begin above a half */
        {"router.task_bias", PLACE(task_bias), true, false, 2, {t, h}, INIT_ZEROS, 0, 0},
        {"state.threshold", PLACE(threshold), keeps[KEEPS_THRESHOLD], false, 2,
         {t, track_threshold_width(c, s->heads) + 1}, INIT_ZEROS, 0, THRESHOLD_RATE},
        {"state.multiplier", PLACE(multiplier), keeps[KEEPS_MULTIPLIER], false, 2, {t, 2}, INIT_ZEROS, 0,
         MULTIPLIER_RATE},
        {"state.average", PLACE(average), c->stand_in == LOAR_AVERAGE, false, 2, {h, s->head_dim + 1},
         INIT_ZEROS, 0, AVERAGE_RATE},
    };
#undef PLACE
    memcpy(out, all, sizeof all);
}

static const char *named(char room[NAME_SIZE], int layer, const struct tensor *tensor)
{
    snprintf(room, NAME_SIZE, "loar.layers.%d.%s", layer, tensor->name);
    return room;
}

bool loar_is_tensor(const char *name)
{
    return !strncmp(name, "loar.", sizeof "loar." - 1);
}

enum status loar_list(const struct loar_config *config, const struct loar_shape *shape, int layer, struct params *table,
                      struct error *err)
{
    struct tensor tensors[N_TENSORS];
    tensors_of(config, shape, tensors);
    for (const struct tensor *t = tensors; t < tensors + N_TENSORS; t++) {
        char room[NAME_SIZE];
        struct param p = {.name = room, .n_dims = t->n_dims, .shape = {t->shape[0], t->shape[1]}, .init = t->init,
                          .init_std = t->init_std, .decay = t->decay, .rate = t->rate, .group = PARAM_GROUP_ROUTER};
        named(room, layer, t);
        if (t->used)
            TRY(params_add(table, &p, NULL, err));
    }
    return STATUS_OK;
}

enum status loar_find(const struct loar_config *config, const struct loar_shape *shape, int layer,
                      const struct params *table, struct loar_places *out, struct error *err)
{
    struct tensor tensors[N_TENSORS];
    tensors_of(config, shape, tensors);
    for (const struct tensor *t = tensors; t < tensors + N_TENSORS; t++) {
        char room[NAME_SIZE];
        int64_t *place = (int64_t *)(void *)((char *)out + t->place);
        *place = -1;
        if (!t->used)
            continue;
        int index = params_find(table, named(room, layer, t));
        if (index < 0)
            FAIL(err, STATUS_DATA, "tensor '%s' is missing; the layer is routed, so its router must be there", room);
        const struct param *p = &table->items[index];
        if (p->n_dims != t->n_dims || memcmp(p->shape, t->shape, (size_t)t->n_dims * sizeof *t->shape))
            FAIL(err, STATUS_DATA, "tensor '%s' has %lld x %lld values; this model and its loar options want %lld x %lld", room,
                 (long long)p->shape[0], (long long)(p->n_dims > 1 ? p->shape[1] : 1), (long long)t->shape[0],
                 (long long)(t->n_dims > 1 ? t->shape[1] : 1));
        if (p->role != PARAM_TRAINED)
            FAIL(err, STATUS_INTERNAL, "tensor '%s' is frozen; routers are always trained", room);
        *place = p->offset;
    }
    return STATUS_OK;
}

struct router loar_router(const struct loar_config *config, const struct loar_shape *shape,
                          const struct loar_places *places, const float *values)
{
    return (struct router){
        .width = shape->width, .dim = config->router_dim, .heads = shape->heads, .tasks = config->n_tasks,
        .fc1_weight = values + places->fc1_weight, .fc1_bias = values + places->fc1_bias,
        .fc2_weight = values + places->fc2_weight, .fc2_bias = values + places->fc2_bias,
        .task_bias = values + places->task_bias,
    };
}

struct router_gradient loar_router_gradient(const struct loar_places *places, float *gradients)
{
    return (struct router_gradient){gradients + places->fc1_weight, gradients + places->fc1_bias,
                                    gradients + places->fc2_weight, gradients + places->fc2_bias,
                                    gradients + places->task_bias};
}
