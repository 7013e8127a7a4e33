/* The router and the gradient of every policy against references in double precision and their finite differences. */
#include "tests/gradient/gradient.h"

#include "worker/loar/policy.h"
#include "worker/loar/products.h"
#include "worker/loar/router.h"

struct shape {
    int m, width, dim, heads, tasks;
    const struct decision *items;
    const float *f, *task_bias; /* task_bias: taken as a constant where it is no input */
    const float *fc1_weight, *fc1_bias;
};

/* inputs: fc1 weight and bias, fc2 weight and bias. z[M][H]; rows of free decisions are zero. */
static void router_reference(const void *shape, double *const *in, double *out)
{
    const struct shape *s = shape;
    for (int m = 0; m < s->m; m++)
        for (int h = 0; h < s->heads; h++) {
            double z = in[3][h] + s->task_bias[s->items[m].task * s->heads + h];
            for (int r = 0; r < s->dim; r++) {
                double sum = in[1][r];
                for (int i = 0; i < s->width; i++)
                    sum += in[0][r * s->width + i] * s->f[m * s->width + i];
                z += in[2][h * s->dim + r] * (sum > 0 ? sum : 0);
            }
            out[m * s->heads + h] = s->items[m].source == DECISION_ROUTED ? z : 0;
        }
}

/* input: the task bias alone, which moves z by itself. */
static void task_reference(const void *shape, double *const *in, double *out)
{
    const struct shape *s = shape;
    for (int m = 0; m < s->m; m++)
        for (int h = 0; h < s->heads; h++)
            out[m * s->heads + h] =
                s->items[m].source == DECISION_ROUTED ? in[0][s->items[m].task * s->heads + h] : 0;
}

static void items_of(struct decision *items, int m, int tasks)
{
    for (int i = 0; i < m; i++)
        items[i] = (struct decision){.first = 3 * i, .end = 3 * i + 1 + i % 3, .reads = 1, .task = i % tasks,
                                     .source = i % 5 == 2 ? DECISION_FREE : DECISION_ROUTED};
}

static void router(void **state)
{
    (void)state;
    const struct shape shapes[] = {{7, 33, 6, 5, 2, 0, 0, 0, 0, 0}, {1, 16, 4, 1, 1, 0, 0, 0, 0, 0},
                                   {70, 20, 9, 3, 3, 0, 0, 0, 0, 0}, {3, 8, 67, 66, 1, 0, 0, 0, 0, 0}};
    for (int i = 0; i < 4; i++)
        for (int threads = 1; threads <= 3; threads++) {
            struct shape s = shapes[i];
            struct decision items[80];
            items_of(items, s.m, s.tasks);
            struct decisions d = {.count = s.m, .items = items};
            const int n_in[] = {s.dim * s.width, s.dim, s.heads * s.dim, s.heads, s.tasks * s.heads};
            float *in[5], *grad[5];
            for (int k = 0; k < 5; k++)
                in[k] = random_floats(n_in[k], k), grad[k] = random_floats(n_in[k], 10);
            float *f = random_floats(s.m * s.width, 20), *cotangent = random_floats(s.m * s.heads, 21);
            float *hidden = random_floats(s.m * s.dim, 22), *z = random_floats(s.m * s.heads, 23);
            for (int m = 0; m < s.m; m++) /* what a policy gives back: nothing for free decisions */
                for (int h = 0; items[m].source == DECISION_FREE && h < s.heads; h++)
                    cotangent[m * s.heads + h] = 0;
            for (int m = 0; m < s.m; m++) /* and what features leave for them */
                for (int k = 0; items[m].source == DECISION_FREE && k < s.width; k++)
                    f[m * s.width + k] = 0;
            s.items = items;
            s.f = f;
            s.task_bias = in[4];
            struct router r = {s.width, s.dim, s.heads, s.tasks, in[0], in[1], in[2], in[3], in[4]};
            struct router_gradient g = {grad[0], grad[1], grad[2], grad[3], grad[4]};
            struct threads *pool = pool_of(threads);
            router_forward(pool, &r, &d, f, hidden, z);
            router_backward(pool, &r, &d, f, hidden, cotangent, &g);
            struct reference whole = {router_reference, &s, 4, {n_in[0], n_in[1], n_in[2], n_in[3]}, s.m * s.heads};
            check(&whole, (const float *const[]){in[0], in[1], in[2], in[3]}, z, cotangent,
                  (const float *const[]){grad[0], grad[1], grad[2], grad[3]}, 2e-6);
            struct reference bias = {task_reference, &s, 1, {n_in[4]}, s.m * s.heads};
            check(&bias, (const float *const[]){in[4]}, NULL, cotangent, (const float *const[]){grad[4]}, 2e-6);
            for (int k = 0; k < 5; k++)
                test_free(in[k]), test_free(grad[k]);
            test_free(f), test_free(cotangent), test_free(hidden), test_free(z);
            threads_free(pool);
        }
}

/* A decision's scores do not depend on how many are computed, nor gradients on threads: to the bit. */
static void same_bits(void **state)
{
    (void)state;
    enum { M = 150, WIDTH = 100, DIM = 64, HEADS = 12 };
    struct decision items[M];
    items_of(items, M, 1);
    float *in[5], *z = random_floats(M * HEADS, 30), *hidden = random_floats(M * DIM, 31), *f = random_floats(M * WIDTH, 32);
    const int n_in[] = {DIM * WIDTH, DIM, HEADS * DIM, HEADS, HEADS};
    float *first[5] = {0}, one[HEADS], one_hidden[DIM];
    for (int k = 0; k < 5; k++)
        in[k] = random_floats(n_in[k], k);
    struct router r = {WIDTH, DIM, HEADS, 1, in[0], in[1], in[2], in[3], in[4]};
    for (int threads = 1; threads <= 3; threads++) {
        struct threads *pool = pool_of(threads);
        struct decisions d = {.count = M, .items = items};
        router_forward(pool, &r, &d, f, hidden, z);
        for (int m = 0; m < M; m++) {
            router_forward(pool, &r, &(struct decisions){.count = 1, .items = &items[m]}, f + m * WIDTH, one_hidden, one);
            assert_memory_equal(one, z + m * HEADS, sizeof one);
        }
        float *grad[5];
        for (int k = 0; k < 5; k++)
            grad[k] = random_floats(n_in[k], 40 + threads);
        router_backward(pool, &r, &d, f, hidden, z, &(struct router_gradient){grad[0], grad[1], grad[2], grad[3], grad[4]});
        for (int k = 0; k < 5; k++) {
            if (threads > 1)
                assert_memory_equal(first[k], grad[k], (size_t)n_in[k] * sizeof(float));
            if (threads == 1)
                first[k] = grad[k];
            else
                test_free(grad[k]);
        }
        threads_free(pool);
    }
    for (int k = 0; k < 5; k++)
        test_free(in[k]), test_free(first[k]);
    test_free(z), test_free(hidden), test_free(f);
}

struct gates {
    int m, heads;
    bool soft, sigmoid;
    const struct decision *items;
    const float *threshold, *multiplier;
    const uint8_t *on;
};

/* Scaled gate values of z, with the choice of heads held fixed; one more output per decision: its priced share. */
static void gates_reference(const void *shape, double *const *in, double *out)
{
    const struct gates *s = shape;
    for (int m = 0; m < s->m; m++) {
        double sum = 0, share = 0;
        const double *z = in[0] + m * s->heads;
        for (int h = 0; h < s->heads; h++)
            sum += exp(z[h]);
        for (int h = 0; h < s->heads; h++) {
            double p = s->sigmoid ? 1 / (1 + exp(s->threshold[h] - z[h])) : exp(z[h]) / sum;
            double gate = p * (s->sigmoid ? 1 : s->heads);
            bool routed = s->items[m].source == DECISION_ROUTED;
            out[m * (s->heads + 1) + h] = !routed ? 1 : s->soft && !s->on[m * s->heads + h] ? 0 : gate;
            share += routed ? p * (s->items[m].end - s->items[m].first) / s->heads : 0;
        }
        out[m * (s->heads + 1) + s->heads] = share;
    }
}

static void policies(void **state)
{
    (void)state;
    enum { M = 40, HEADS = 7 };
    struct error err;
    struct decision items[M];
    items_of(items, M, 2);
    struct decisions d = {.count = M, .n_tokens = 3 * M, .items = items};
    float *z = random_floats(M * HEADS, 1), *dgate = random_floats(M * HEADS, 2), *threshold = random_floats(HEADS, 3);
    float gate[M * HEADS], dz[M * HEADS], first[M * HEADS], cotangent[M * (HEADS + 1)];
    uint8_t on[M * HEADS];
    const float multiplier[] = {0.3f, 0.7f}, zeros[HEADS] = {0};
    for (int i = 0; i < M * HEADS; i++)
        z[i] *= 2;
    for (int policy = 0; policy < LOAR_N_POLICIES; policy++)
        for (int soft = 0; soft < 2; soft++) {
            struct loar_config c = LOAR_CONFIG_DEFAULT;
            c.policy = (enum loar_policy)policy;
            c.gate = soft ? LOAR_SOFT : LOAR_HARD;
            c.n_tasks = 2;
            const struct policy_ops *ops = policy_of(c.policy);
            struct policy_setting settings[2];
            for (int t = 0; t < 2; t++)
                settings[t] = (struct policy_setting){.config = &c, .heads = HEADS, .budget = 0.5,
                                                      .threshold = ops->keeps == KEEPS_THRESHOLD ? threshold : zeros,
                                                      .price = ops->keeps == KEEPS_MULTIPLIER ? multiplier[t] : 0};
            for (int threads = 1; threads <= 3; threads++) {
                struct threads *pool = pool_of(threads);
                assert_ok(policy_choose(pool, settings, &d, z, NULL, on, gate, &err), &err);
                policy_backward(pool, settings, &d, z, on, dgate, dz);
                if (threads == 1)
                    memcpy(first, dz, sizeof dz);
                assert_memory_equal(first, dz, sizeof dz);
                threads_free(pool);
            }
            for (int m = 0; m < M; m++) {
                memcpy(cotangent + m * (HEADS + 1), dgate + m * HEADS, HEADS * sizeof *dgate);
                cotangent[m * (HEADS + 1) + HEADS] = settings[items[m].task].price;
            }
            struct gates s = {M, HEADS, soft, ops->gate == &gate_sigmoid, items, settings->threshold, multiplier, on};
            struct reference r = {gates_reference, &s, 1, {M * HEADS}, M * (HEADS + 1)};
            double *exact = doubles_of(z, M * HEADS), wanted[M * (HEADS + 1)];
            gates_reference(&s, &exact, wanted);
            for (int i = 0; soft && i < M * HEADS; i++)
                assert_true(fabs(gate[i] - wanted[i / HEADS * (HEADS + 1) + i % HEADS]) < 1e-5);
            check(&r, (const float *const[]){z}, NULL, cotangent, (const float *const[]){dz}, 2e-6);
            test_free(exact);
        }
    test_free(z), test_free(dgate), test_free(threshold);
}

/* Heads of routed decisions that are more important than `importance`. */
static int more_important(const struct gates *s, const double *all, double importance)
{
    int count = 0;
    for (int i = 0; i < s->m * s->heads; i++)
        count += s->items[i / s->heads].source == DECISION_ROUTED && all[i] > importance;
    return count;
}

/* The fit's gradient is that of the losses it is named after; sigmoids want two fifths of all heads of all routed decisions. */
static void fit_reference(const void *shape, double *const *in, double *out)
{
    const struct gates *s = shape;
    int routed = 0;
    for (int m = 0; m < s->m; m++)
        routed += s->items[m].source == DECISION_ROUTED;
    for (int m = 0; m < s->m; m++) {
        const double *z = in[0] + m * s->heads, *importance = in[1] + m * s->heads;
        double sum = 0, total = 0, loss = 0;
        for (int h = 0; h < s->heads; h++)
            sum += exp(z[h]), total += importance[h];
        for (int h = 0; h < s->heads; h++) {
            bool wanted = s->sigmoid && more_important(s, in[1], importance[h]) < lround(0.4 * s->heads * routed);
            loss -= s->sigmoid ? (wanted ? -log1p(exp(-z[h])) : -log1p(exp(z[h]))) / s->heads
                               : importance[h] / total * (z[h] - log(sum));
        }
        out[m] = s->items[m].source == DECISION_ROUTED ? loss * (s->items[m].end - s->items[m].first) : 0;
    }
}

static void fits(void **state)
{
    (void)state;
    enum { M = 20, HEADS = 7 };
    struct decision items[M];
    items_of(items, M, 1);
    struct decisions d = {.count = M, .items = items};
    float *z = random_floats(M * HEADS, 1), *importance = random_floats(M * HEADS, 2), dz[M * HEADS], ones[M];
    float room[M * HEADS], levels[HEADS];
    const float zeros[HEADS] = {0};
    for (int i = 0; i < M * HEADS; i++)
        importance[i] = fabsf(importance[i]);
    for (int m = 0; m < M; m++)
        ones[m] = 1;
    for (int policy = 0; policy < LOAR_N_POLICIES; policy++) {
        struct loar_config c = LOAR_CONFIG_DEFAULT;
        c.policy = (enum loar_policy)policy;
        struct policy_setting setting = {.config = &c, .heads = HEADS, .budget = 1, .target = 0.4, .threshold = zeros};
        struct threads *pool = pool_of(2);
        policy_fit(pool, &setting, &d, z, importance, room, levels, dz);
        struct gates s = {.m = M, .heads = HEADS, .sigmoid = policy_of(c.policy)->gate == &gate_sigmoid, .items = items};
        struct reference r = {fit_reference, &s, 2, {M * HEADS, M * HEADS}, M};
        check(&r, (const float *const[]){z, importance}, NULL, ones, (const float *const[]){dz, NULL}, 2e-6);
        threads_free(pool);
    }
    test_free(z), test_free(importance);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(router), cmocka_unit_test(same_bits), cmocka_unit_test(policies), cmocka_unit_test(fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
