/* Learning rates against values that transformers' get_scheduler gave, and against the formulas. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "ps/schedule.h"

static const int64_t probes[10] = {0, 1, 2, 3, 4, 9, 15, 19, 20, 23};

struct golden {
    const char *type;
    double base;
    int64_t warmup, total;
    double cycles, min_lr, min_lr_rate; /* negative: not given */
    double rates[10];                   /* at `probes` */
};

/* transformers 5, get_scheduler(type, SGD(lr=base), warmup, total, kwargs), rate in use at each step. */
static const struct golden goldens[] = {
    {"linear", 5e-5, 3, 20, -1, -1, -1,
     {0, 0x1.179ec9cbd821ep-16, 0x1.179ec9cbd821ep-15, 0x1.a36e2eb1c432dp-15, 0x1.8ac20dd47c6c1p-15,
      0x1.0f656982158a5p-15, 0x1.ed7291499b871p-17, 0x1.8ac20dd47c6c1p-19, 0, 0}},
    {"cosine", 5e-5, 3, 20, -1, -1, -1,
     {0, 0x1.179ec9cbd821ep-16, 0x1.179ec9cbd821ep-15, 0x1.a36e2eb1c432dp-15, 0x1.9fdc0ec2246d8p-15,
      0x1.2f317ca946173p-15, 0x1.4d558fe389dbcp-17, 0x1.c90ff7cfe2acep-22, 0, 0x1.f696802e6eb4bp-19}},
    {"cosine", 5e-5, 0, 20, 1.5, -1, -1,
     {0x1.a36e2eb1c432dp-15, 0x1.8c92a3c4f1fb7p-15, 0x1.4cfb925761c01p-15, 0x1.e50b3486dd6efp-16,
      0x1.21d1bc3b64eeep-16, 0x1.ca06a5b87afb5p-17, 0x1.660198f276ad4p-15, 0x1.6db8aecd23781p-19, 0,
      0x1.61d128dcaaf62p-16}},
    {"cosine_with_min_lr", 5e-5, 3, 20, -1, -1, 0.1,
     {0, 0x1.179ec9cbd821ep-16, 0x1.179ec9cbd821ep-15, 0x1.a36e2eb1c432dp-15, 0x1.a037785a1ace0p-15,
      0x1.3ad1281085e6cp-15, 0x1.d3c5e0fa4a8d5p-17, 0x1.69410b4b81b59p-18, 0x1.4f8b588e368f1p-18,
      0x1.18dabc518dc9dp-17}},
    {"cosine_with_min_lr", 5e-5, 3, 20, -1, 1e-5, -1,
     {0, 0x1.179ec9cbd821ep-16, 0x1.179ec9cbd821ep-15, 0x1.a36e2eb1c432dp-15, 0x1.a092e1f2112eap-15,
      0x1.4670d377c5b65p-15, 0x1.2d1b1908859f7p-16, 0x1.5af88b8d02a03p-17, 0x1.4f8b588e368f1p-17,
      0x1.b40fd8977fe67p-17}},
    {"constant", 5e-5, 3, 20, -1, -1, -1, {5e-5, 5e-5, 5e-5, 5e-5, 5e-5, 5e-5, 5e-5, 5e-5, 5e-5, 5e-5}},
    {"constant_with_warmup", 5e-5, 4, 20, -1, -1, -1,
     {0, 0x1.a36e2eb1c432dp-17, 0x1.a36e2eb1c432dp-16, 0x1.3a92a30553262p-15, 5e-5, 5e-5, 5e-5, 5e-5, 5e-5, 5e-5}},
    {"linear", 1e-3, 7, 5, -1, -1, -1,
     {0, 0x1.2b97d835d548dp-13, 0x1.2b97d835d548dp-12, 0x1.c163c450bfed4p-12, 0x1.2b97d835d548dp-11, 0, 0, 0, 0, 0}},
};

static void as_transformers(void **state)
{
    (void)state;
    struct error err;
    for (size_t g = 0; g < sizeof goldens / sizeof *goldens; g++) {
        const struct golden *golden = &goldens[g];
        enum schedule_type type;
        assert_ok(schedule_parse(golden->type, &type, &err), &err);
        assert_string_equal(schedule_name(type), golden->type);
        struct schedule_kwargs kwargs = SCHEDULE_KWARGS_DEFAULT;
        kwargs.num_cycles = golden->cycles;
        kwargs.min_lr = golden->min_lr;
        kwargs.min_lr_rate = golden->min_lr_rate;
        struct schedule schedule;
        assert_ok(schedule_make(type, golden->base, golden->total, golden->warmup, 0, &kwargs, &schedule, &err), &err);
        for (int i = 0; i < 10; i++) {
            double rate = schedule_rate(&schedule, probes[i]);
            if (!(fabs(rate - golden->rates[i]) <= 1e-15 * golden->base)) {
                print_error("%s (row %zu), step %lld: %a instead of %a\n", golden->type, g, (long long)probes[i], rate,
                            golden->rates[i]);
                fail();
            }
        }
    }
}

static void multistep(void **state)
{
    (void)state;
    struct error err;
    struct schedule_kwargs kwargs = SCHEDULE_KWARGS_DEFAULT;
    struct schedule s;
    assert_ok(schedule_make(SCHEDULE_MULTISTEP, 2.0, 100, 10, 0, &kwargs, &s, &err), &err);
    static const struct {
        int64_t step;
        double rate;
    } steps[] = {{0, 0}, {5, 1}, {10, 2}, {79, 2}, {80, 0.632}, {89, 0.632}, {90, 0.2}, {100, 0.2}, {1000, 0.2}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        assert_true(fabs(schedule_rate(&s, steps[i].step) - steps[i].rate) < 1e-12);

    kwargs.milestones = 3;
    kwargs.at[0] = 0.25, kwargs.at[1] = 0.5, kwargs.at[2] = 0.5;
    kwargs.factor[0] = 0.5, kwargs.factor[1] = 0.75, kwargs.factor[2] = 0;
    assert_ok(schedule_make(SCHEDULE_MULTISTEP, 2.0, 10, 0, 0, &kwargs, &s, &err), &err);
    assert_true(schedule_rate(&s, 2) == 2 && schedule_rate(&s, 3) == 1 && schedule_rate(&s, 5) == 0);
}

static void warmup_of_a_share(void **state)
{
    (void)state;
    struct error err;
    struct schedule_kwargs kwargs = SCHEDULE_KWARGS_DEFAULT;
    struct schedule s;
    assert_ok(schedule_make(SCHEDULE_LINEAR, 1, 101, 0, 0.03, &kwargs, &s, &err), &err);
    assert_int_equal(s.warmup, 4);
    assert_ok(schedule_make(SCHEDULE_LINEAR, 1, 101, 9, 0.03, &kwargs, &s, &err), &err);
    assert_int_equal(s.warmup, 9);
    assert_ok(schedule_make(SCHEDULE_LINEAR, 1, 0, 0, 0, &kwargs, &s, &err), &err);
    assert_true(schedule_rate(&s, 0) == 0);
}

static void bad_values_are_refused(void **state)
{
    (void)state;
    struct error err;
    enum schedule_type type = SCHEDULE_LINEAR;
    assert_refused(schedule_parse("polynomial", &type, &err), STATUS_USAGE, &err, "multistep");
    struct schedule_kwargs none = SCHEDULE_KWARGS_DEFAULT, both = none, high = none, unsorted = none, many = none;
    struct schedule s;
    both.min_lr = both.min_lr_rate = 0.1;
    high.min_lr = 2;
    unsorted.milestones = 2, unsorted.at[0] = 0.5, unsorted.at[1] = 0.4;
    many.milestones = SCHEDULE_MAX_MILESTONES + 1;
    enum schedule_type floor_type = SCHEDULE_COSINE_WITH_MIN_LR;
    assert_refused(schedule_make(floor_type, 1, 9, 0, 0, &none, &s, &err), STATUS_USAGE, &err, "neither");
    assert_refused(schedule_make(floor_type, 1, 9, 0, 0, &both, &s, &err), STATUS_USAGE, &err, "both");
    assert_refused(schedule_make(floor_type, 1, 9, 0, 0, &high, &s, &err), STATUS_USAGE, &err, "shares");
    assert_refused(schedule_make(floor_type, 0, 9, 0, 0, &high, &s, &err), STATUS_USAGE, &err, "learning_rate is 0");
    assert_refused(schedule_make(SCHEDULE_MULTISTEP, 1, 9, 0, 0, &unsorted, &s, &err), STATUS_USAGE, &err, "growing");
    assert_refused(schedule_make(SCHEDULE_MULTISTEP, 1, 9, 0, 0, &many, &s, &err), STATUS_USAGE, &err, "1 to 8");
    assert_refused(schedule_make(type, -1, 9, 0, 0, &none, &s, &err), STATUS_USAGE, &err, "learning_rate");
    assert_refused(schedule_make(type, NAN, 9, 0, 0, &none, &s, &err), STATUS_USAGE, &err, "learning_rate");
    assert_refused(schedule_make(type, 1, -9, 0, 0, &none, &s, &err), STATUS_USAGE, &err, "negative");
    assert_refused(schedule_make(type, 1, 9, 0, 1.5, &none, &s, &err), STATUS_USAGE, &err, "warmup_ratio");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_transformers),
        cmocka_unit_test(multistep),
        cmocka_unit_test(warmup_of_a_share),
        cmocka_unit_test(bad_values_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
