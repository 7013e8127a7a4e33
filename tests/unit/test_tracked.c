/* Tensors that are moved by a rule instead of trained: the rule by hand, rows that chunks cut, what the optimizer, the
 * clip factor and the norm leave alone, and that models without such tensors keep their bits. */
#include "tests/support/cmocka_all.h"

#include <math.h>
#include <unistd.h>

#include "common/memory.h"
#include "ps/optimizer/optimizer.h"
#include "ps/snapshot.h"
#include "tests/support/scratch.h"

enum { MAX_VALUES = 4096 };

/* ---- a table, its storage, and gradients of whole numbers and halves, the same on every machine ---- */

struct space {
    struct params table;
    struct chunks chunks;
    struct optimizer *optimizer;
    struct shard *shard;
    struct threads *pool;
    float *gradient;
    const float *by_chunk[MAX_VALUES / PARAM_ALIGN];
};

static const struct optimizer_options settings = {
    .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .weight_decay = 0.1, .momentum = 0.5};

static void space_open(struct space *s, const char *optim, const struct param *tensors, int count, int64_t chunk_values,
                       int threads)
{
    struct error err;
    *s = (struct space){0};
    for (int i = 0; i < count; i++)
        assert_ok(params_add(&s->table, &tensors[i], NULL, &err), &err);
    assert_true(s->table.values <= MAX_VALUES);
    s->chunks = chunks_make(s->table.values, chunk_values);
    assert_ok(threads_create(threads, &s->pool, &err), &err);
    assert_ok(optimizer_create(optim, &settings, &s->table, &s->chunks, &s->optimizer, &err), &err);
    assert_ok(shard_create(&s->chunks, optimizer_n_states(s->optimizer), optimizer_state_names(s->optimizer), &s->shard, &err),
              &err);
    s->gradient = mem_alloc_aligned((size_t)s->table.values, sizeof *s->gradient);
    assert_non_null(s->gradient);
    for (int c = 0; c < s->chunks.count; c++)
        s->by_chunk[c] = s->gradient + chunk_begin(&s->chunks, c);
}

static void space_close(struct space *s)
{
    mem_free_aligned(s->gradient);
    shard_free(s->shard);
    optimizer_free(s->optimizer);
    threads_free(s->pool);
    params_free(&s->table);
}

static float mixed(int64_t i, int64_t step)
{
    return (float)((i * 37 + step * 101 + i * i * step % 13) % 64 - 31) / 2;
}

static void space_fill(struct space *s)
{
    for (int t = 0; t < s->table.count; t++)
        for (int64_t i = 0; s->table.items[t].role == PARAM_TRAINED && i < s->table.items[t].size; i++)
            s->shard->parameters[s->table.items[t].offset + i] = mixed(i, s->table.items[t].size) / 16;
}

/* Sums for every tensor; padding stays zero. A row's count is 0 in every third row, else 1 to 4. What a trained tensor gets
 * depends on its size alone, not on its place. */
static void space_gradient(struct space *s, int64_t step)
{
    for (int t = 0; t < s->table.count; t++) {
        const struct param *p = &s->table.items[t];
        int64_t width = p->shape[p->n_dims - 1];
        for (int64_t i = 0; p->role == PARAM_TRAINED && i < p->size; i++) {
            int64_t row = i / width + step;
            bool count = p->rate > 0 && i % width == width - 1;
            s->gradient[p->offset + i] = count ? (float)(row % 3 ? row % 4 + 1 : 0) : mixed(i + 7 * p->size, step);
        }
    }
}

static void space_step(struct space *s, int64_t step, double scale, optimizer_chunk_fn *before, void *context)
{
    struct error err;
    struct optimizer_scalars scalars = {.pace = {{0.01, scale}}, .step = step};
    assert_ok(optimizer_step(s->optimizer, s->pool, &scalars, s->shard, s->by_chunk, before, context, &err), &err);
}

static void space_digest(const struct space *s, char hex[DIGEST_HEX_SIZE])
{
    struct error err;
    struct snapshot_state states[SHARD_MAX_STATES];
    for (int i = 0; i < s->shard->n_states; i++)
        states[i] = (struct snapshot_state){s->shard->state_names[i], s->shard->states[i]};
    assert_ok(snapshot_digest(&s->table, s->shard->parameters, s->shard->n_states, states, hex, &err), &err);
}

/* ---- models without such tensors ---- */

static const struct param dense[] = {
    {.name = "embed", .n_dims = 2, .shape = {7, 9}, .decay = true},
    {.name = "norm", .n_dims = 1, .shape = {5}},
    {.name = "frozen", .n_dims = 1, .shape = {100}, .role = PARAM_FROZEN},
    {.name = "down", .n_dims = 2, .shape = {21, 16}, .decay = true},
    {.name = "bias", .n_dims = 1, .shape = {33}},
};
enum { N_DENSE = sizeof dense / sizeof *dense };

/* Constants from before there were such tensors. */
static void dense_models_keep_their_bits(void **state)
{
    (void)state;
    static const struct {
        const char *optim, *digest;
    } known[] = {{"adamw", "552dd4d437b522663cc7cb603ed3a80d"}, {"sgd", "c1744f1fd83b7549cc0d33025d71642c"}};
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        struct space s;
        char hex[DIGEST_HEX_SIZE];
        double norms = 0;
        space_open(&s, known[k].optim, dense, N_DENSE, 48, 2);
        params_fingerprint(&s.table, hex);
        assert_string_equal(hex, "b2d4c2a62cbbbd375b08861965c79520");
        space_fill(&s);
        for (int64_t step = 1; step <= 5; step++) {
            space_gradient(&s, step);
            for (int64_t i = 0; i < s.table.values; i++)
                s.gradient[i] /= 3;
            struct gradient_norm norm = gradient_norm(s.optimizer, s.pool, s.by_chunk, 7);
            norms += norm.norm[PARAM_GROUP_MODEL];
            space_step(&s, step, gradient_clip(norm.norm[PARAM_GROUP_MODEL], 1) / 7, NULL, NULL);
        }
        space_digest(&s, hex);
        assert_string_equal(hex, known[k].digest);
        assert_true(norms == 0x1.6eb1a3905195dp+5);
        space_close(&s);
    }
}

/* ---- the rule ---- */

/* Rows of 11 values and a count behind a tensor of 13 values: in chunks of 16, rows 1 and 2 are cut and row 0 is not. */
static const struct param rows[] = {
    {.name = "w", .n_dims = 1, .shape = {13}, .decay = true},
    {.name = "state", .n_dims = 2, .shape = {3, 12}, .decay = true, .rate = 0.25f},
};
enum { AT = 16, WIDTH = 12 };

static void by_hand(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        struct space s;
        space_open(&s, "adamw", rows, 2, 16, threads);
        float *v = s.shard->parameters + AT, *sum = s.gradient + AT;
        for (int i = 0; i < WIDTH - 1; i++) {
            v[i] = 5, sum[i] = 7; /* nothing was seen, so whatever the sums are, nothing moves */
            v[WIDTH + i] = (float)i, sum[WIDTH + i] = 16 * (float)i;
            v[2 * WIDTH + i] = 1, sum[2 * WIDTH + i] = -8;
        }
        sum[2 * WIDTH - 1] = 4;
        sum[3 * WIDTH - 1] = 8;
        v[3 * WIDTH - 1] = 100;
        space_step(&s, 1, 0.125, NULL, NULL);
        for (int i = 0; i < WIDTH - 1; i++) {
            assert_true(v[i] == 5);
            assert_true(v[WIDTH + i] == 2 * (float)i); /* i + 1/4 * 16 i / 4 */
            assert_true(v[2 * WIDTH + i] == 0.75f);    /* 1 + 1/4 * -8 / 8 */
        }
        assert_true(v[WIDTH - 1] == 0 && v[2 * WIDTH - 1] == 4 && v[3 * WIDTH - 1] == 108);
        space_step(&s, 2, 0.125, NULL, NULL);
        assert_true(v[2 * WIDTH + 10] == 0.5f && v[WIDTH + 2] == 6 && v[0] == 5);
        assert_true(v[WIDTH - 1] == 0 && v[2 * WIDTH - 1] == 8 && v[3 * WIDTH - 1] == 116);
        /* A count that is full stays so, and its values go on moving. */
        sum[3 * WIDTH - 1] = 1;
        v[3 * WIDTH - 1] = 0x1p24f;
        space_step(&s, 3, 0.125, NULL, NULL);
        assert_true(v[3 * WIDTH - 1] == 0x1p24f && v[2 * WIDTH] == 0.5f - 2);
        for (int i = 0; i < s.shard->n_states; i++)
            for (int64_t j = 13; j < s.table.values; j++)
                assert_true(s.shard->states[i][j] == 0);
        space_close(&s);
    }
}

/* ---- beside tensors that are trained ---- */

static const struct param both[] = {
    {.name = "scores", .n_dims = 2, .shape = {1, 7}, .rate = 0.05f},
    {.name = "embed", .n_dims = 2, .shape = {7, 9}, .decay = true},
    {.name = "norm", .n_dims = 1, .shape = {5}},
    {.name = "average", .n_dims = 2, .shape = {9, 65}, .rate = 0.3f, .decay = true},
    {.name = "frozen", .n_dims = 1, .shape = {100}, .role = PARAM_FROZEN},
    {.name = "price", .n_dims = 2, .shape = {20, 2}, .rate = 0.02f},
    {.name = "down", .n_dims = 2, .shape = {21, 16}, .decay = true},
    {.name = "bias", .n_dims = 1, .shape = {33}},
    {.name = "long", .n_dims = 2, .shape = {2, 200}, .rate = 0.7f},
};
enum { N_BOTH = sizeof both / sizeof *both };
static const char *const optims[] = {"adamw", "sgd"};

/* Five steps with clipping; the norms of such gradients are sums without rounding, so they depend on no cut. */
static void five_steps(struct space *s)
{
    space_fill(s);
    for (int64_t step = 1; step <= 5; step++) {
        space_gradient(s, step);
        double norm = gradient_norm(s->optimizer, s->pool, s->by_chunk, 7).norm[PARAM_GROUP_MODEL];
        assert_true(gradient_clip(norm, 1) < 1);
        space_step(s, step, gradient_clip(norm, 1) / 7, NULL, NULL);
    }
}

static void threads_and_chunks_change_no_bit(void **state)
{
    (void)state;
    static const int64_t cuts[] = {16, 32, 48, 64, 80, 208, 256, 592, 1024, 4096};
    for (int k = 0; k < 2; k++) {
        char wanted[DIGEST_HEX_SIZE] = "", found[DIGEST_HEX_SIZE];
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++)
            for (int threads = 1; threads <= 3; threads++) {
                struct space s;
                space_open(&s, optims[k], both, N_BOTH, cuts[c], threads);
                five_steps(&s);
                space_digest(&s, found);
                if (!wanted[0])
                    memcpy(wanted, found, sizeof wanted);
                assert_string_equal(found, wanted);
                space_close(&s);
            }
    }
}

static void trained_tensors_do_not_notice(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct space with, without;
        space_open(&with, optims[k], both, N_BOTH, 48, 2);
        space_open(&without, optims[k], dense, N_DENSE, 48, 2);
        five_steps(&with);
        five_steps(&without);
        int seen = 0, moved = 0;
        for (int t = 0; t < with.table.count; t++) {
            const struct param *p = &with.table.items[t];
            size_t bytes = (size_t)p->size * sizeof(float);
            if (p->role != PARAM_TRAINED)
                continue;
            for (int i = 0; p->rate > 0 && i < with.shard->n_states; i++)
                for (int64_t j = 0; j < p->size; j++)
                    assert_true(with.shard->states[i][p->offset + j] == 0);
            for (int64_t j = 0; p->rate > 0 && j < p->size; j++)
                moved += with.shard->parameters[p->offset + j] != mixed(j, p->size) / 16;
            if (p->rate > 0)
                continue;
            const struct param *q = &without.table.items[params_find(&without.table, p->name)];
            assert_memory_equal(with.shard->parameters + p->offset, without.shard->parameters + q->offset, bytes);
            for (int i = 0; i < with.shard->n_states; i++)
                assert_memory_equal(with.shard->states[i] + p->offset, without.shard->states[i] + q->offset, bytes);
            seen++;
        }
        assert_true(seen == 4 && moved > 900);
        space_close(&with);
        space_close(&without);
    }
}

/* Neither decay nor the step size show where nothing was observed. */
static void only_observations_move(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct space s;
        float start[MAX_VALUES];
        space_open(&s, optims[k], both, N_BOTH, 64, 2);
        space_fill(&s);
        memcpy(start, s.shard->parameters, (size_t)s.table.values * sizeof *start);
        memset(s.gradient, 0, (size_t)s.table.values * sizeof *s.gradient);
        space_step(&s, 1, 1, NULL, NULL);
        for (int t = 0; t < s.table.count; t++) {
            const struct param *p = &s.table.items[t];
            if (p->role == PARAM_TRAINED)
                assert_int_equal(!memcmp(s.shard->parameters + p->offset, start + p->offset, (size_t)p->size * sizeof *start),
                                 p->rate > 0 || !p->decay);
        }
        space_close(&s);
    }
}

struct copies {
    const struct space *space;
    float values[MAX_VALUES];
};

static void copy_chunk(void *context, int chunk)
{
    struct copies *copies = context;
    const struct chunks *chunks = &copies->space->chunks;
    int64_t begin = chunk_begin(chunks, chunk);
    memcpy(copies->values + begin, copies->space->shard->parameters + begin, (size_t)chunk_size(chunks, chunk) * sizeof(float));
}

/* A copy that is made when a chunk is announced holds what was there before the step, whatever the order of chunks. */
static void chunks_are_announced_before_they_change(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        struct space s;
        static float start[MAX_VALUES];
        static struct copies copies;
        space_open(&s, "sgd", both, N_BOTH, 16, threads);
        space_fill(&s);
        space_gradient(&s, 1);
        size_t bytes = (size_t)s.table.values * sizeof *start;
        memcpy(start, s.shard->parameters, bytes);
        copies.space = &s;
        space_step(&s, 1, 1, copy_chunk, &copies);
        assert_memory_equal(copies.values, start, bytes);
        assert_memory_not_equal(s.shard->parameters, start, bytes);
        space_close(&s);
    }
}

/* ---- norm, numbers that are none ---- */

static void norm_leaves_them_out(void **state)
{
    (void)state;
    static const int64_t cuts[] = {16, 48, 592, 4096};
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++)
        for (int threads = 1; threads <= 3; threads++) {
            struct space s;
            double squares = 0;
            space_open(&s, "adamw", both, N_BOTH, cuts[c], threads);
            space_gradient(&s, 3);
            for (int t = 0; t < s.table.count; t++)
                for (int64_t i = 0; i < s.table.items[t].size && s.table.items[t].role == PARAM_TRAINED; i++) {
                    float *g = &s.gradient[s.table.items[t].offset + i];
                    if (s.table.items[t].rate > 0)
                        *g *= 1e30f;
                    else
                        squares += (double)*g * (double)*g;
                }
            struct gradient_norm norm = gradient_norm(s.optimizer, s.pool, s.by_chunk, 8);
            assert_int_equal(norm.non_finite, -1);
            assert_true(squares > 0 && norm.norm[PARAM_GROUP_MODEL] == sqrt(squares) / 8);
            space_close(&s);
        }
}

static void bad_sums_are_located(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const int64_t cuts[] = {16, 208, 4096};
    for (int b = 0; b < 3; b++)
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++)
            for (int count = 0; count < 2; count++) {
                struct error err;
                struct space s;
                char place[128], wanted[128];
                space_open(&s, "adamw", both, N_BOTH, cuts[c], 2);
                space_fill(&s);
                space_gradient(&s, 1);
                /* Row 4 of 65 is one that has observations. */
                const struct param *p = &s.table.items[params_find(&s.table, "average")];
                int64_t position = p->offset + 4 * 65 + (count ? 64 : 3);
                snprintf(wanted, sizeof wanted, "tensor 'average' [4, %d]", count ? 64 : 3);
                s.gradient[position] = bad[b];
                s.gradient[s.table.items[s.table.count - 1].offset] = NAN; /* later */
                struct gradient_norm norm = gradient_norm(s.optimizer, s.pool, s.by_chunk, 1);
                assert_int_equal(norm.non_finite, position);
                optimizer_locate(s.optimizer, norm.non_finite, place, sizeof place);
                assert_string_equal(place, wanted);
                struct optimizer_scalars scalars = {.pace = {{0.01, 1}}, .step = 1};
                assert_refused(optimizer_step(s.optimizer, s.pool, &scalars, s.shard, s.by_chunk, NULL, NULL, &err),
                               STATUS_NUMERIC, &err, "tensor 'average' [4, ");
                space_close(&s);
            }
}

/* The first position is named, be it of a trained tensor or not. */
static void the_first_bad_value_is_named(void **state)
{
    (void)state;
    for (int first = 0; first < 2; first++) {
        struct error err;
        struct space s;
        space_open(&s, "sgd", both, N_BOTH, 4096, 1);
        space_gradient(&s, 1);
        s.gradient[s.table.items[params_find(&s.table, first ? "scores" : "norm")].offset + 2] = NAN;
        s.gradient[s.table.items[params_find(&s.table, first ? "embed" : "average")].offset + 65 + 2] = NAN;
        struct optimizer_scalars scalars = {.pace = {{0.01, 1}}, .step = 1};
        assert_refused(optimizer_step(s.optimizer, s.pool, &scalars, s.shard, s.by_chunk, NULL, NULL, &err), STATUS_NUMERIC,
                       &err, first ? "tensor 'scores' [0, 2]" : "tensor 'norm' [2]");
        space_close(&s);
    }
}

/* ---- snapshots ---- */

/* True as well where there is no h5dump. */
static bool says_role(const char *path, const char *tensor, const char *role)
{
    char command[512];
    snprintf(command, sizeof command, "! command -v h5dump >/dev/null || h5dump -a /model/%s/role %s | grep -q '\"%s'", tensor,
             path, role);
    return system(command) == 0;
}

/* Values come back, zeros for the states; a file from a table without rates is read as well. */
static void snapshots_hold_them(void **state)
{
    (void)state;
    char folder[SCRATCH_SIZE], path[sizeof folder + SNAPSHOT_STRING_SIZE + 1], name[SNAPSHOT_STRING_SIZE];
    assert_non_null(scratch_folder(folder, "tracked"));
    for (int older = 0; older < 2; older++) {
        struct error err;
        struct space s, read;
        struct snapshot *snapshot;
        struct snapshot_target targets[2];
        char wanted[DIGEST_HEX_SIZE], found[DIGEST_HEX_SIZE];
        space_open(&s, "adamw", both, N_BOTH, 48, 1);
        five_steps(&s);
        for (int t = 0; older && t < s.table.count; t++)
            s.table.items[t].rate = 0;
        struct snapshot_view view = {.table = &s.table, .values = s.shard->parameters, .n_states = 2, .meta = {.step = 5 + older}};
        strcpy(view.meta.optimizer, "adamw");
        for (int i = 0; i < 2; i++)
            view.states[i] = (struct snapshot_state){s.shard->state_names[i], s.shard->states[i]};
        assert_ok(snapshot_write(folder, &view, NULL, &err), &err);
        snapshot_file_name(5 + older, name);
        snprintf(path, sizeof path, "%s/%s", folder, name);
        assert_ok(snapshot_open(path, &snapshot, &err), &err);
        assert_true(says_role(path, "scores", older ? "trained" : "tracked") && says_role(path, "embed", "trained"));
        unlink(path);
        space_open(&read, "adamw", both, N_BOTH, 64, 1);
        space_fill(&read);
        for (int i = 0; i < 2; i++)
            targets[i] = (struct snapshot_target){read.shard->state_names[i], read.shard->states[i]};
        assert_ok(snapshot_load(snapshot, &read.table, read.shard->parameters, 2, targets, &err), &err);
        space_digest(&s, wanted);
        space_digest(&read, found);
        assert_string_equal(found, wanted);
        assert_string_equal(snapshot_meta(snapshot)->digest, wanted);
        snapshot_close(snapshot);
        space_close(&read);
        space_close(&s);
    }
    snprintf(path, sizeof path, "%s/latest", folder);
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
}

/* ---- the table ---- */

static void rates_are_checked(void **state)
{
    (void)state;
    struct error err;
    struct params table = {0};
    const struct param bad[] = {
        {.name = "x", .n_dims = 2, .shape = {2, 3}, .rate = -0.1f},
        {.name = "x", .n_dims = 2, .shape = {2, 3}, .rate = 1.1f},
        {.name = "x", .n_dims = 2, .shape = {2, 3}, .rate = NAN},
        {.name = "x", .n_dims = 2, .shape = {2, 3}, .rate = 0.1f, .role = PARAM_FROZEN},
        {.name = "x", .n_dims = 2, .shape = {3, 1}, .rate = 0.1f},
        {.name = "x", .n_dims = 0, .rate = 0.1f},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(params_add(&table, &bad[i], NULL, &err), STATUS_INTERNAL, &err, "'x' cannot be moved at rate");
    assert_int_equal(table.count, 0);
    params_free(&table);
}

static void fingerprints_know_rates(void **state)
{
    (void)state;
    static const float rates[] = {0, 0.25f, 0.5f, 1};
    char hex[4][DIGEST_HEX_SIZE];
    for (int i = 0; i < 4; i++) {
        struct error err;
        struct params table = {0};
        struct param p = {.name = "x", .n_dims = 2, .shape = {2, 3}, .rate = rates[i]};
        assert_ok(params_add(&table, &p, NULL, &err), &err);
        params_fingerprint(&table, hex[i]);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(hex[i], hex[j]);
        params_free(&table);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_models_keep_their_bits),
        cmocka_unit_test(by_hand),
        cmocka_unit_test(threads_and_chunks_change_no_bit),
        cmocka_unit_test(trained_tensors_do_not_notice),
        cmocka_unit_test(only_observations_move),
        cmocka_unit_test(chunks_are_announced_before_they_change),
        cmocka_unit_test(norm_leaves_them_out),
        cmocka_unit_test(bad_sums_are_located),
        cmocka_unit_test(the_first_bad_value_is_named),
        cmocka_unit_test(snapshots_hold_them),
        cmocka_unit_test(rates_are_checked),
        cmocka_unit_test(fingerprints_know_rates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
