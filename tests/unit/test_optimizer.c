/* Optimizers against PyTorch's numbers and a plain double reference; the same bits for every cut of the flat space
 * and every number of threads; decay groups, padding, norms, and what is said about NaN. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/rng.h"
#include "ps/optimizer/optimizer.h"

/* ---- numbers from PyTorch 2.13, float32, one tensor of 8 values, 8 steps ---- */

enum { GOLDEN_VALUES = 8, GOLDEN_STEPS = 8 };

static float golden_start(int i)
{
    return (float)(i * 29 % 16 - 7) / 8.0f;
}

static float golden_gradient(int step, int i)
{
    return (float)((i * 37 + step * 101) % 64 - 31) / 32.0f * ldexpf(1, -(i % 5));
}

struct golden {
    const char *optim;
    double rate;
    struct optimizer_options options;
    float parameters[GOLDEN_VALUES], states[2][GOLDEN_VALUES];
};

static const struct golden goldens[] = {
    {"adamw_torch", 0.01, {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1},
     {-0x1.bf6840p-1, 0x1.84aeb0p-1, 0x1.682ddcp-2, 0x1.35dd46p-7, -0x1.8ce8dep-2, -0x1.6ea7acp-1, 0x1.c7d472p-1,
      0x1.e9aa52p-2},
     {{-0x1.a573aep-7, -0x1.36df8ap-5, 0x1.3c7eaep-8, -0x1.dd64b8p-9, 0x1.446572p-8, 0x1.5c9824p-5, -0x1.3b3ec4p-6,
       0x1.4c09ccp-7},
      {0x1.9a730ap-4, 0x1.c1f344p-6, 0x1.b9239ap-8, 0x1.8dea3cp-10, 0x1.09150cp-11, 0x1.9ec304p-4, 0x1.03720cp-5,
       0x1.a1b8dcp-8}}},
    {"adamw", 0.01, {.beta1 = 0.3, .beta2 = 0.99, .epsilon = 1e-6},
     {-0x1.c1fb9ep-1, 0x1.874176p-1, 0x1.77fe26p-2, 0x1.5eb428p-7, -0x1.8c0476p-2, -0x1.7afe7ap-1, 0x1.c3a9f6p-1,
      0x1.f07748p-2},
     {{0x1.9b5d8ep-6, -0x1.8b7ee6p-3, 0x1.32fb6ep-4, -0x1.5c83f6p-7, 0x1.37bd1ep-5, 0x1.cf9c2ep-3, -0x1.ea74fep-3,
       0x1.e6d0f0p-6},
      {0x1.739962p-6, 0x1.9e687ep-8, 0x1.92ea4ep-10, 0x1.73549cp-12, 0x1.e45014p-14, 0x1.7c4e40p-6, 0x1.dc5adcp-8,
       0x1.7ae1e0p-10}}},
    {"sgd", 0.05, {.weight_decay = 0.1},
     {-0x1.ab30aep-1, 0x1.7c0104p-1, 0x1.6c4754p-2, 0x1.2f9f58p-9, -0x1.73aeccp-2, -0x1.74a03ep-1, 0x1.b627d2p-1,
      0x1.e40a96p-2},
     {{0}}},
    {"sgd", 0.05, {.weight_decay = 0.1, .momentum = 0.9},
     {-0x1.7f5b58p-1, 0x1.61cee4p-1, 0x1.329f42p-2, 0x1.cbf91ep-8, -0x1.4f2ba8p-2, -0x1.0cf10ep-1, 0x1.a22b6cp-1,
      0x1.980d4ep-2},
     {{-0x1.33074cp-1, 0x1.215468p-5, 0x1.eaa448p-3, -0x1.23e9a4p-5, -0x1.3bd784p-3, 0x1.4315f0p-4, 0x1.3cb800p-2,
       0x1.7470c4p-2}}},
    {"sgd", 0.05, {.momentum = 0.9, .nesterov = true},
     {-0x1.baab82p-1, 0x1.a14f6ap-1, 0x1.640738p-2, 0x1.1ca39ep-7, -0x1.8778c6p-2, -0x1.47c316p-1, 0x1.e81a0cp-1,
      0x1.da060ap-2},
     {{-0x1.07684cp-3, -0x1.84976cp-2, 0x1.8b9e54p-5, -0x1.2a5ef0p-5, 0x1.957ecep-5, 0x1.b3be32p-2, -0x1.8a0e70p-3,
       0x1.9f0c3ap-4}}},
};

/* Values are of order one, so rounding is of order 1e-7 also where they cancel (PyTorch fuses some additions). */
static void check_close(const char *what, const float *got, const float *wanted)
{
    for (int i = 0; i < GOLDEN_VALUES; i++)
        if (!(fabsf(got[i] - wanted[i]) <= 3e-7f * fmaxf(fabsf(wanted[i]), 0.5f))) {
            print_error("%s, value %d: %a instead of %a\n", what, i, (double)got[i], (double)wanted[i]);
            fail();
        }
}

static void as_pytorch(void **state)
{
    (void)state;
    struct error err;
    for (size_t g = 0; g < sizeof goldens / sizeof *goldens; g++) {
        const struct golden *golden = &goldens[g];
        struct params table = {0};
        struct param p = {.name = "w", .n_dims = 1, .shape = {GOLDEN_VALUES}, .decay = true};
        assert_ok(params_add(&table, &p, NULL, &err), &err);
        struct chunks chunks = chunks_make(table.values, 16);
        struct optimizer *optimizer;
        struct shard *shard;
        assert_ok(optimizer_create(golden->optim, &golden->options, &table, &chunks, &optimizer, &err), &err);
        assert_ok(shard_create(&chunks, optimizer_n_states(optimizer), optimizer_state_names(optimizer), &shard, &err),
                  &err);
        for (int i = 0; i < GOLDEN_VALUES; i++)
            shard->parameters[i] = golden_start(i);
        for (int step = 1; step <= GOLDEN_STEPS; step++) {
            float gradient[16] = {0};
            for (int i = 0; i < GOLDEN_VALUES; i++)
                gradient[i] = golden_gradient(step, i) * 8;
            struct optimizer_scalars scalars = {.pace = {{golden->rate, 1.0 / 8}}, .step = step};
            assert_int_equal(
                optimizer_update(optimizer, &scalars, 0, 16, shard->parameters, shard->states, gradient), -1);
        }
        check_close(golden->optim, shard->parameters, golden->parameters);
        for (int s = 0; s < shard->n_states; s++)
            check_close(shard->state_names[s], shard->states[s], golden->states[s]);
        shard_free(shard);
        optimizer_free(optimizer);
        params_free(&table);
    }
}

/* ---- a larger space: tensors of odd sizes, padding between them, both decay groups, a frozen one ---- */

struct space {
    struct params table;
    struct chunks chunks;
    struct optimizer *optimizer;
    struct shard *shard;
    float *gradient;                 /* [values] */
    const float *by_chunk[64];
};

static void space_open(struct space *space, const char *optim, const struct optimizer_options *options,
                       int64_t chunk_values)
{
    struct error err;
    static const struct param tensors[] = {
        {.name = "embed", .n_dims = 2, .shape = {7, 9}, .decay = true},
        {.name = "norm", .n_dims = 1, .shape = {5}},
        {.name = "frozen", .n_dims = 1, .shape = {100}, .role = PARAM_FROZEN},
        {.name = "up", .n_dims = 3, .shape = {3, 4, 17}, .decay = true},
        {.name = "down", .n_dims = 2, .shape = {16, 16}, .decay = true},
        {.name = "bias", .n_dims = 1, .shape = {33}},
    };
    *space = (struct space){0};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        assert_ok(params_add(&space->table, &tensors[i], NULL, &err), &err);
    space->chunks = chunks_make(space->table.values, chunk_values);
    assert_true(space->chunks.count <= 64);
    assert_ok(optimizer_create(optim, options, &space->table, &space->chunks, &space->optimizer, &err), &err);
    assert_ok(shard_create(&space->chunks, optimizer_n_states(space->optimizer),
                           optimizer_state_names(space->optimizer), &space->shard, &err),
              &err);
    space->gradient = mem_alloc_aligned((size_t)space->table.values, sizeof(float));
    assert_non_null(space->gradient);
    for (int c = 0; c < space->chunks.count; c++)
        space->by_chunk[c] = space->gradient + chunk_begin(&space->chunks, c);
    for (int t = 0; t < space->table.count; t++) {
        const struct param *p = &space->table.items[t];
        for (int64_t i = 0; p->role == PARAM_TRAINED && i < p->size; i++)
            space->shard->parameters[p->offset + i] = (float)rng_normal(5, (uint64_t)t, (uint64_t)i);
    }
}

static void space_close(struct space *space)
{
    mem_free_aligned(space->gradient);
    shard_free(space->shard);
    optimizer_free(space->optimizer);
    params_free(&space->table);
}

/* Also fills the padding, which an update has to leave alone. */
static void space_gradient(struct space *space, int step)
{
    for (int64_t i = 0; i < space->table.values; i++)
        space->gradient[i] = (float)(rng_normal(9, (uint64_t)step, (uint64_t)i) * pow(10, (double)(i % 7) - 4));
}

static const struct optimizer_options adam_options = {
    .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.1};
static const struct optimizer_options sgd_options = {.weight_decay = 0.1, .momentum = 0.9, .nesterov = true};

static void adamw_as_in_double(void **state)
{
    (void)state;
    enum { STEPS = 60 };
    struct error err;
    struct threads *pool;
    assert_ok(threads_create(2, &pool, &err), &err);
    struct space space;
    space_open(&space, "adamw", &adam_options, 48);
    double p[1024], m[1024] = {0}, v[1024] = {0};
    int64_t values = space.table.values;
    for (int64_t i = 0; i < values; i++)
        p[i] = (double)space.shard->parameters[i];
    for (int step = 1; step <= STEPS; step++) {
        double rate = 0.01 * step / STEPS, scale = 1 / 3.0;
        space_gradient(&space, step);
        for (int64_t i = 0; i < values; i++) {
            const struct param *at = &space.table.items[params_at(&space.table, i)];
            if (i >= at->offset + at->size)
                continue;
            double g = (double)space.gradient[i] * scale;
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.999 * v[i] + 0.001 * g * g;
            p[i] -= rate * (at->decay ? 0.1 : 0) * p[i];
            p[i] -= rate * (m[i] / (1 - pow(0.9, step))) / (sqrt(v[i] / (1 - pow(0.999, step))) + 1e-8);
        }
        struct optimizer_scalars scalars = {.pace = {{rate, scale}}, .step = step};
        assert_ok(optimizer_step(space.optimizer, pool, &scalars, space.shard, space.by_chunk, NULL, NULL, &err), &err);
    }
    for (int64_t i = 0; i < values; i++) {
        assert_true(fabs((double)space.shard->parameters[i] - p[i]) <= 5e-6 * fmax(fabs(p[i]), 1));
        assert_true(fabs((double)space.shard->states[0][i] - m[i]) <= 1e-5 * fmax(fabs(m[i]), 1e-6) + 1e-8);
        assert_true(fabs((double)space.shard->states[1][i] - v[i]) <= 1e-5 * v[i] + 1e-30);
    }
    space_close(&space);
    threads_free(pool);
}

static void padding_stays_zero(void **state)
{
    (void)state;
    struct error err;
    struct threads *pool;
    assert_ok(threads_create(1, &pool, &err), &err);
    for (int which = 0; which < 2; which++) {
        struct space space;
        space_open(&space, which ? "sgd" : "adamw", which ? &sgd_options : &adam_options, 32);
        for (int step = 1; step <= 3; step++) {
            space_gradient(&space, step);
            struct optimizer_scalars scalars = {.pace = {{0.1, 1}}, .step = step};
            assert_ok(optimizer_step(space.optimizer, pool, &scalars, space.shard, space.by_chunk, NULL, NULL, &err),
                      &err);
        }
        int padding = 0;
        for (int64_t i = 0; i < space.table.values; i++) {
            const struct param *at = &space.table.items[params_at(&space.table, i)];
            if (i < at->offset + at->size)
                continue;
            padding++;
            assert_true(space.shard->parameters[i] == 0);
            for (int s = 0; s < space.shard->n_states; s++)
                assert_true(space.shard->states[s][i] == 0);
        }
        assert_int_equal(padding, space.table.values - space.table.trained);
        assert_true(padding > 10);
        space_close(&space);
    }
    threads_free(pool);
}

static void decay_only_where_flagged(void **state)
{
    (void)state;
    struct space space;
    space_open(&space, "adamw", &adam_options, 64);
    float start[1024];
    size_t bytes = (size_t)space.table.values * sizeof(float);
    memcpy(start, space.shard->parameters, bytes);
    memset(space.gradient, 0, bytes);
    struct optimizer_scalars scalars = {.pace = {{0.5, 1}}, .step = 1};
    assert_int_equal(optimizer_update(space.optimizer, &scalars, 0, space.table.values, space.shard->parameters,
                                      space.shard->states, space.gradient),
                     -1);
    for (int64_t i = 0; i < space.table.values; i++) {
        bool decay = space.table.items[params_at(&space.table, i)].decay;
        assert_true(space.shard->parameters[i] == start[i] * (decay ? (float)(1 - 0.5 * 0.1) : 1.0f));
    }
    space_close(&space);
}

/* Runs five steps on `threads` threads in chunks of `chunk_values` and hashes everything into `out`. */
static void run_steps(const char *optim, const struct optimizer_options *options, int threads, int64_t chunk_values,
                      float *out)
{
    struct error err;
    struct threads *pool;
    assert_ok(threads_create(threads, &pool, &err), &err);
    struct space space;
    space_open(&space, optim, options, chunk_values);
    for (int step = 1; step <= 5; step++) {
        space_gradient(&space, step);
        struct optimizer_scalars scalars = {.pace = {{0.01, 0.3}}, .step = step};
        assert_ok(optimizer_step(space.optimizer, pool, &scalars, space.shard, space.by_chunk, NULL, NULL, &err), &err);
    }
    size_t values = (size_t)space.table.values;
    memcpy(out, space.shard->parameters, values * sizeof(float));
    for (int s = 0; s < space.shard->n_states; s++)
        memcpy(out + (size_t)(s + 1) * values, space.shard->states[s], values * sizeof(float));
    space_close(&space);
    threads_free(pool);
}

static void threads_and_chunks_change_no_bit(void **state)
{
    (void)state;
    static const struct {
        const char *optim;
        const struct optimizer_options *options;
    } kinds[] = {{"adamw", &adam_options}, {"sgd", &sgd_options}};
    static const int64_t cuts[] = {16, 48, 240, 1024};
    for (int k = 0; k < 2; k++) {
        static float wanted[3 * 1024], got[3 * 1024];
        memset(wanted, 0, sizeof wanted);
        run_steps(kinds[k].optim, kinds[k].options, 1, 64, wanted);
        for (int threads = 1; threads <= 3; threads++)
            for (int c = 0; c < 4; c++) {
                memset(got, 0, sizeof got);
                run_steps(kinds[k].optim, kinds[k].options, threads, cuts[c], got);
                assert_memory_equal(got, wanted, sizeof got);
            }
    }
}

static void any_range_is_allowed(void **state)
{
    (void)state;
    struct space whole, parts;
    space_open(&whole, "adamw", &adam_options, 64);
    space_open(&parts, "adamw", &adam_options, 64);
    space_gradient(&whole, 1);
    struct optimizer_scalars scalars = {.pace = {{0.01, 1}}, .step = 1};
    int64_t values = whole.table.values;
    optimizer_update(whole.optimizer, &scalars, 0, values, whole.shard->parameters, whole.shard->states,
                     whole.gradient);
    for (int64_t begin = 0; begin < values;) {
        int64_t end = begin + 1 + (int64_t)rng_below(3, 4, (uint64_t)begin, 60);
        end = end < values ? end : values;
        optimizer_update(parts.optimizer, &scalars, begin, end, parts.shard->parameters, parts.shard->states,
                         whole.gradient + begin);
        begin = end;
    }
    assert_memory_equal(whole.shard->parameters, parts.shard->parameters, (size_t)values * sizeof(float));
    assert_memory_equal(whole.shard->states[1], parts.shard->states[1], (size_t)values * sizeof(float));
    space_close(&whole);
    space_close(&parts);
}

struct watch {
    struct space *space;
    float start[64];
    int calls[64];
};

static void see_chunk(void *context, int chunk)
{
    struct watch *watch = context;
    watch->calls[chunk]++;
    watch->start[chunk] = watch->space->shard->parameters[chunk_begin(&watch->space->chunks, chunk)];
}

static void chunks_are_announced_before_they_change(void **state)
{
    (void)state;
    struct error err;
    struct threads *pool;
    assert_ok(threads_create(2, &pool, &err), &err);
    struct space space;
    space_open(&space, "sgd", &sgd_options, 64);
    space_gradient(&space, 1);
    struct watch watch = {.space = &space};
    float start[64];
    for (int c = 0; c < space.chunks.count; c++)
        start[c] = space.shard->parameters[chunk_begin(&space.chunks, c)];
    struct optimizer_scalars scalars = {.pace = {{0.1, 1}}, .step = 1};
    assert_ok(optimizer_step(space.optimizer, pool, &scalars, space.shard, space.by_chunk, see_chunk, &watch, &err),
              &err);
    for (int c = 0; c < space.chunks.count; c++) {
        assert_int_equal(watch.calls[c], 1);
        assert_true(watch.start[c] == start[c]);
    }
    assert_true(space.shard->parameters[0] != start[0]);
    space_close(&space);
    threads_free(pool);
}

/* ---- norm, clipping, numbers that are none ---- */

static void norm_and_clip(void **state)
{
    (void)state;
    struct error err;
    struct space space;
    space_open(&space, "adamw", &adam_options, 48);
    space_gradient(&space, 4);
    double plain = 0;
    for (int64_t i = 0; i < space.table.values; i++)
        plain += (double)space.gradient[i] * (double)space.gradient[i];
    double first = 0;
    for (int threads = 1; threads <= 3; threads++) {
        struct threads *pool;
        assert_ok(threads_create(threads, &pool, &err), &err);
        struct gradient_norm norm = gradient_norm(space.optimizer, pool, space.by_chunk, 7);
        assert_int_equal(norm.non_finite, -1);
        assert_true(fabs(norm.norm[PARAM_GROUP_MODEL] - sqrt(plain) / 7) <= 1e-13 * norm.norm[PARAM_GROUP_MODEL]);
        if (threads == 1)
            first = norm.norm[PARAM_GROUP_MODEL];
        assert_true(norm.norm[PARAM_GROUP_MODEL] == first);
        threads_free(pool);
    }
    space_close(&space);
    assert_true(gradient_clip(0.5, 1) == 1 && gradient_clip(5, 0) == 1 && gradient_clip(0, 1) == 1);
    assert_true(gradient_clip(4, 1) == 1 / (4 + 1e-6));
    for (int64_t n = 0; n < 70; n++) {
        float values[70];
        double sum = 0;
        for (int i = 0; i < 70; i++)
            values[i] = (float)(i + 1);
        for (int64_t i = 0; i < n; i++)
            sum += (double)((i + 1) * (i + 1));
        assert_true(gradient_squares(values, n) == sum);
    }
    float large[2] = {3e38f, -3e38f};
    assert_true(isfinite(gradient_squares(large, 2)));
}

/* "up" and "bias" become routers: the norm of each group is its own, and each tensor ends as it does in a space where all
 * tensors go at its group's pace. */
static void groups_go_at_their_own_pace(void **state)
{
    (void)state;
    static const struct optimizer_pace model = {0.01, 0.5}, router = {0.3, 2};
    struct error err;
    struct threads *pool;
    assert_ok(threads_create(2, &pool, &err), &err);
    struct space mixed, slow, fast;
    space_open(&mixed, "adamw", &adam_options, 48);
    space_open(&slow, "adamw", &adam_options, 1024);
    space_open(&fast, "adamw", &adam_options, 64);
    for (int t = 0; t < mixed.table.count; t++)
        if (!strcmp(mixed.table.items[t].name, "up") || !strcmp(mixed.table.items[t].name, "bias"))
            mixed.table.items[t].group = PARAM_GROUP_ROUTER;
    optimizer_free(mixed.optimizer);
    assert_ok(optimizer_create("adamw", &adam_options, &mixed.table, &mixed.chunks, &mixed.optimizer, &err), &err);
    for (int step = 1; step <= 3; step++) {
        space_gradient(&mixed, step);
        space_gradient(&slow, step);
        space_gradient(&fast, step);
        double squares[PARAM_GROUPS] = {0};
        for (int64_t i = 0; i < mixed.table.values; i++) {
            const struct param *at = &mixed.table.items[params_at(&mixed.table, i)];
            bool padding = i >= at->offset + at->size; /* counts for the model, where it is always zero */
            squares[padding ? PARAM_GROUP_MODEL : at->group] += (double)mixed.gradient[i] * (double)mixed.gradient[i];
        }
        struct gradient_norm norm = gradient_norm(mixed.optimizer, pool, mixed.by_chunk, 7);
        for (int g = 0; g < PARAM_GROUPS; g++)
            assert_true(squares[g] > 0 && fabs(norm.norm[g] - sqrt(squares[g]) / 7) <= 1e-13 * norm.norm[g]);
        struct optimizer_scalars scalars = {.pace = {[PARAM_GROUP_MODEL] = model, [PARAM_GROUP_ROUTER] = router}, .step = step};
        assert_ok(optimizer_step(mixed.optimizer, pool, &scalars, mixed.shard, mixed.by_chunk, NULL, NULL, &err), &err);
        assert_ok(optimizer_step(slow.optimizer, pool, &scalars, slow.shard, slow.by_chunk, NULL, NULL, &err), &err);
        scalars.pace[PARAM_GROUP_MODEL] = router;
        assert_ok(optimizer_step(fast.optimizer, pool, &scalars, fast.shard, fast.by_chunk, NULL, NULL, &err), &err);
    }
    for (int t = 0; t < mixed.table.count; t++) {
        const struct param *p = &mixed.table.items[t];
        const struct space *same = p->group == PARAM_GROUP_ROUTER ? &fast : &slow, *other = same == &fast ? &slow : &fast;
        if (p->role != PARAM_TRAINED)
            continue;
        size_t bytes = (size_t)p->size * sizeof(float);
        assert_memory_equal(mixed.shard->parameters + p->offset, same->shard->parameters + p->offset, bytes);
        assert_memory_not_equal(mixed.shard->parameters + p->offset, other->shard->parameters + p->offset, bytes);
    }
    space_close(&mixed);
    space_close(&slow);
    space_close(&fast);
    threads_free(pool);
}

static void bad_gradients_are_located(void **state)
{
    (void)state;
    struct error err;
    struct threads *pool;
    assert_ok(threads_create(2, &pool, &err), &err);
    struct space space;
    space_open(&space, "adamw", &adam_options, 64);
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    const struct param *up = &space.table.items[params_find(&space.table, "up")];
    char place[128];
    for (int b = 0; b < 3; b++) {
        space_gradient(&space, 1);
        int64_t position = up->offset + (2 * 4 + 3) * 17 + 16;
        space.gradient[position] = bad[b];
        space.gradient[position + 40] = bad[b];
        struct gradient_norm norm = gradient_norm(space.optimizer, pool, space.by_chunk, 1);
        assert_int_equal(norm.non_finite, position);
        assert_false(isfinite(norm.norm[PARAM_GROUP_MODEL]));
        optimizer_locate(space.optimizer, position, place, sizeof place);
        assert_string_equal(place, "tensor 'up' [2, 3, 16]");
    }
    optimizer_locate(space.optimizer, 63, place, sizeof place);
    assert_string_equal(place, "padding after tensor 'embed'");
    optimizer_locate(space.optimizer, 64, place, sizeof place);
    assert_string_equal(place, "tensor 'norm' [0]");
    char tiny[8];
    optimizer_locate(space.optimizer, 64, tiny, sizeof tiny);
    assert_string_equal(tiny, "tensor ");
    space_close(&space);
    threads_free(pool);
}

static void bad_parameters_stop_the_run(void **state)
{
    (void)state;
    struct error err;
    struct threads *pool;
    assert_ok(threads_create(2, &pool, &err), &err);
    static const struct optimizer_options plain_sgd = {.momentum = 0};
    static const struct {
        const char *optim;
        const struct optimizer_options *options;
    } kinds[] = {{"adamw", &adam_options}, {"sgd", &sgd_options}, {"sgd", &plain_sgd}};
    for (int k = 0; k < 3; k++) {
        struct space space;
        space_open(&space, kinds[k].optim, kinds[k].options, 64);
        space_gradient(&space, 1);
        const struct param *down = &space.table.items[params_find(&space.table, "down")];
        space.gradient[down->offset + 16 * 3 + 5] = INFINITY;
        struct optimizer_scalars scalars = {.pace = {{0.1, 1}}, .step = 1};
        assert_refused(optimizer_step(space.optimizer, pool, &scalars, space.shard, space.by_chunk, NULL, NULL, &err),
                       STATUS_NUMERIC, &err, "tensor 'down' [3, 5]");
        scalars.step = 0;
        assert_refused(optimizer_step(space.optimizer, pool, &scalars, space.shard, space.by_chunk, NULL, NULL, &err),
                       STATUS_INTERNAL, &err, "does not fit");
        space_close(&space);
    }
    threads_free(pool);
}

/* Sum of squares of all tensors called "grad.*" in a safetensors file (little-endian length, JSON, float32 data). */
static double squares_in_file(const char *path)
{
    struct error err;
    struct file_map map;
    struct json *header;
    uint64_t length;
    double sum = 0;
    int tensors = 0;
    assert_ok(file_map_open(path, &map, &err), &err);
    memcpy(&length, map.data, 8);
    assert_ok(json_parse((const char *)map.data + 8, length, path, &header, &err), &err);
    for (const void *it = json_first(header); it; it = json_next(header, it)) {
        if (strncmp(json_it_key(it, NULL), "grad.", 5))
            continue;
        const struct json *offsets = json_member(json_it_value(it), "data_offsets");
        int64_t begin = json_to_int(json_at(offsets, 0)), end = json_to_int(json_at(offsets, 1));
        float *values = mem_alloc((size_t)(end - begin), 1);
        assert_non_null(values);
        memcpy(values, map.data + 8 + length + begin, (size_t)(end - begin));
        sum += gradient_squares(values, (end - begin) / 4);
        mem_free(values);
        tensors++;
    }
    assert_true(tensors > 10);
    json_free(header);
    file_map_close(&map);
    return sum;
}

static void norms_of_reference_models(void **state)
{
    (void)state;
    static const char *const models[] = {"llama-gqa", "qwen2-untied", "deepseek-v2-aux-batch",
                                         "deepseek-v3-norope-scaling"};
    for (int m = 0; m < 4; m++) {
        char relative[128];
        snprintf(relative, sizeof relative, "models/hf-reference/%s/reference.json", models[m]);
        const char *path = shared_data(relative);
        if (!path)
            skip();
        struct error err;
        struct json *reference;
        double wanted = 0;
        assert_ok(json_read_file(path, &reference, &err), &err);
        assert_ok(json_get_real(reference, "grad_norm", path, &wanted, &err), &err);
        json_free(reference);
        snprintf(relative, sizeof relative, "models/hf-reference/%s/reference.safetensors", models[m]);
        double norm = sqrt(squares_in_file(shared_data(relative)));
        if (!(fabs(norm - wanted) <= 1e-6 * wanted)) {
            print_error("%s: %.9f instead of %.9f\n", models[m], norm, wanted);
            fail();
        }
    }
}

/* ---- creation ---- */

static void bad_options_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct params table = {0};
    struct param p = {.name = "w", .n_dims = 1, .shape = {16}};
    assert_ok(params_add(&table, &p, NULL, &err), &err);
    struct chunks chunks = chunks_make(16, 16), others = chunks_make(32, 16);
    const struct optimizer_options good = OPTIMIZER_OPTIONS_DEFAULT;
    struct optimizer *o = NULL;
    assert_refused(optimizer_create("lion", &good, &table, &chunks, &o, &err), STATUS_USAGE, &err, "adamw");
    assert_refused(optimizer_create("adamw", &good, &table, &others, &o, &err), STATUS_INTERNAL, &err, "32 values");
    struct optimizer_options bad[6];
    static const char *const parts[6] = {"adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "momentum",
                                         "Nesterov"};
    for (int i = 0; i < 6; i++)
        bad[i] = good;
    bad[0].beta1 = 1;
    bad[1].beta2 = NAN;
    bad[2].epsilon = 1e-60;
    bad[3].weight_decay = -1;
    bad[4].momentum = 1;
    bad[5].nesterov = true;
    for (int i = 0; i < 6; i++)
        assert_refused(optimizer_create(i < 4 ? "adamw" : "sgd", &bad[i], &table, &chunks, &o, &err), STATUS_USAGE,
                       &err, parts[i]);
    assert_ok(optimizer_create("adamw_torch", &good, &table, &chunks, &o, &err), &err);
    assert_string_equal(optimizer_name(o), "adamw");
    assert_int_equal(optimizer_n_states(o), 2);
    assert_string_equal(optimizer_state_names(o)[1], "exp_avg_sq");
    optimizer_free(o);
    assert_ok(optimizer_create("sgd", &good, &table, &chunks, &o, &err), &err);
    assert_int_equal(optimizer_n_states(o), 0);
    optimizer_free(o);
    params_free(&table);
}

static void short_memory(void **state)
{
    (void)state;
    struct error err;
    struct params table = {0};
    struct param p = {.name = "w", .n_dims = 1, .shape = {16}};
    assert_ok(params_add(&table, &p, NULL, &err), &err);
    struct chunks chunks = chunks_make(16, 16);
    const struct optimizer_options good = OPTIMIZER_OPTIONS_DEFAULT;
    long before = mem_live();
    for (long n = 0; n < 4; n++) {
        struct optimizer *o;
        mem_fail_after(n, false);
        assert_refused(optimizer_create("adamw", &good, &table, &chunks, &o, &err), STATUS_NOMEM, &err, "no memory");
        mem_fail_after(-1, false);
        assert_int_equal(mem_live(), before);
    }
    struct optimizer *o;
    mem_fail_after(4, false);
    assert_ok(optimizer_create("adamw", &good, &table, &chunks, &o, &err), &err);
    mem_fail_after(-1, false);
    optimizer_free(o);
    params_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_pytorch),
        cmocka_unit_test(adamw_as_in_double),
        cmocka_unit_test(padding_stays_zero),
        cmocka_unit_test(decay_only_where_flagged),
        cmocka_unit_test(threads_and_chunks_change_no_bit),
        cmocka_unit_test(any_range_is_allowed),
        cmocka_unit_test(chunks_are_announced_before_they_change),
        cmocka_unit_test(norm_and_clip),
        cmocka_unit_test(groups_go_at_their_own_pace),
        cmocka_unit_test(bad_gradients_are_located),
        cmocka_unit_test(bad_parameters_stop_the_run),
        cmocka_unit_test(norms_of_reference_models),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
