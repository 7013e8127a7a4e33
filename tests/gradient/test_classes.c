/* Rows with a class beside rows of text: gradients agree with differences of the loss, for any packing, with recomputation,
 * routing and smoothed labels; noise on embeddings is the same for any threads; scores are those that the loss is taken of. */
#include "tests/gradient/gradient.h"

#include "common/memory.h"
#include "worker/model/counters.h"
#include "worker/model/model.h"

enum { LABELS = 7, VOCAB = 50, MAX_TOKENS = 400 };

struct kind {
    enum model_type type;
    bool tied, classifies_only, checkpointing;
    float smoothing, noise;
};

static const struct kind kinds[] = {
    {MODEL_LLAMA, false, false, false, 0, 0},    {MODEL_LLAMA, true, false, true, 0.1f, 0},
    {MODEL_QWEN2, false, true, false, 0, 0},     {MODEL_LLAMA, true, true, true, 0.2f, 0},
    {MODEL_LLAMA, false, false, true, 0, 3},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct fixture {
    struct kind kind;
    struct params table;
    struct threads *pool;
    struct model *model;
    float *values, *gradients;
};

static struct model_config config_of(const struct kind *k)
{
    return (struct model_config){.type = k->type, .width = 24, .hidden = 40, .layers = 3, .heads = 4, .kv_heads = 2, .head_dim = 8,
                                 .vocab = VOCAB, .max_positions = 512, .norm_eps = 1e-5f, .rope_theta = 1e4, .rope_factor = 1,
                                 .qkv_bias = k->type == MODEL_QWEN2, .tied = k->tied, .init_std = 0.2f, .bos = -1,
                                 .labels = LABELS, .classifies_only = k->classifies_only};
}

static void fixture_open_routed(struct fixture *f, const struct kind *kind, int threads, const struct loar_plan *loar)
{
    struct error err;
    struct model_config config = config_of(kind);
    config.loar = loar;
    *f = (struct fixture){.kind = *kind, .pool = pool_of(threads)};
    assert_ok(model_params(&config, &f->table, &err), &err);
    struct model_options options = {.checkpointing = kind->checkpointing, .label_smoothing = kind->smoothing, .noise_alpha = kind->noise};
    assert_ok(model_create(&config, &f->table, &options, f->pool, &f->model, &err), &err);
    f->values = mem_alloc_aligned((size_t)f->table.values, sizeof *f->values);
    f->gradients = mem_alloc_aligned((size_t)f->table.values, sizeof *f->gradients);
    params_initialise(&f->table, 3, f->values);
    for (int64_t i = 0; i < f->table.values; i++)
        f->gradients[i] = NAN;
}

static void fixture_open(struct fixture *f, const struct kind *kind, int threads)
{
    fixture_open_routed(f, kind, threads, NULL);
}

static void fixture_close(struct fixture *f)
{
    model_free(f->model);
    mem_free_aligned(f->values);
    mem_free_aligned(f->gradients);
    params_free(&f->table);
    threads_free(f->pool);
}

/* Of three rows one is text, the others belong to two tasks with 3 and 4 labels. */
static void add_row(struct batch *batch, int r, bool text, int longest)
{
    struct error err;
    int32_t tokens[MAX_TOKENS];
    uint8_t spans[MAX_TOKENS];
    int n = 2 + (int)rng_below(2, RNG_DATA, (uint64_t)r, (uint64_t)longest - 1);
    for (int i = 0; i < n; i++) {
        tokens[i] = (int32_t)rng_below(9, RNG_DATA, (uint64_t)(r * 1000 + i), VOCAB);
        spans[i] = text && i >= n / 2 ? SPAN_ANSWER : SPAN_PROMPT;
    }
    struct row_class class = r % 2 ? (struct row_class){0, 3, r % 3} : (struct row_class){3, 4, r % 4};
    struct row row = {.tokens = tokens, .spans = spans, .n_tokens = n, .weight = 0.5f + (float)(r % 3), .class = text ? (struct row_class){0} : class};
    assert_ok(batch_append(batch, &row, (const float[SPAN_COUNT]){0, 1, 1, 1}, &err), &err);
}

static struct batch rows_of(const struct kind *kind, int first, int count, int longest)
{
    struct batch batch = {0};
    for (int r = first; r < first + count; r++)
        add_row(&batch, r, r % 3 == 0 && !kind->classifies_only, longest);
    return batch;
}

static void gradient(struct fixture *f, const struct batch *batch, struct loss_sums *sums)
{
    struct error err;
    assert_ok(model_gradient(f->model, f->values, batch, f->gradients, NULL, NULL, sums, &err), &err);
}

/* Differences of the loss that the gradient itself comes with: noise is in that one alone. */
static void compare(struct fixture *f, const struct batch *batch, bool pass_again)
{
    struct error err;
    struct loss_sums sums, above, below;
    gradient(f, batch, &sums);
    float *found = test_malloc((size_t)f->table.values * sizeof *found);
    memcpy(found, f->gradients, (size_t)f->table.values * sizeof *found);
    for (int i = 0; i < f->table.count; i++) {
        const struct param *p = &f->table.items[i];
        for (int pick = 0; pick < 4 && strncmp(p->name, "loar.", 5); pick++) { /* routers have a gradient of their own kind */
            int64_t at = p->offset + (int64_t)rng_below(4, RNG_DATA, (uint64_t)(i * 4 + pick), (uint64_t)p->size);
            float value = f->values[at];
            const float step = 4e-3f;
            for (int side = 0; side < 2; side++) {
                struct loss_sums *out = side ? &below : &above;
                f->values[at] = side ? value - step : value + step;
                if (pass_again)
                    gradient(f, batch, out);
                else
                    assert_ok(model_loss(f->model, f->values, batch, out, &err), &err);
            }
            double width = (double)(value + step) - (double)(value - step);
            f->values[at] = value;
            double wanted = (above.loss - below.loss) / width, error = fabs(wanted - found[at]);
            if (!(error <= 3e-3 + 3e-3 * fabs(wanted))) {
                print_error("%s: found %g, wanted %g\n", p->name, (double)found[at], wanted);
                fail();
            }
        }
    }
    test_free(found);
}

static void differences_of_the_loss(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++)
        for (int batch_kind = 0; batch_kind < 2; batch_kind++) {
            struct fixture f;
            fixture_open(&f, &kinds[k], 1);
            /* Batch 1 holds rows with a class alone: the words' head then has a gradient of zero. */
            struct batch batch = rows_of(&kinds[k], batch_kind, batch_kind ? 2 : 6, 12);
            compare(&f, &batch, kinds[k].noise > 0);
            batch_free(&batch);
            fixture_close(&f);
        }
}

static int place_of(const struct params *table, const char *name)
{
    int i = params_find(table, name);
    assert_true(i >= 0);
    return i;
}

static bool all_zero(const struct fixture *f, const char *name)
{
    const struct param *p = &f->table.items[place_of(&f->table, name)];
    for (int64_t i = 0; i < p->size; i++)
        if (!(f->gradients[p->offset + i] == 0))
            return false;
    return true;
}

static void heads_without_rows_have_no_gradient(void **state)
{
    (void)state;
    struct fixture f;
    struct loss_sums sums;
    fixture_open(&f, &kinds[0], 1);
    struct batch classes = {0}, text = {0};
    add_row(&classes, 1, false, 9);
    add_row(&text, 3, true, 9);
    gradient(&f, &classes, &sums);
    assert_true(all_zero(&f, "lm_head.weight") && !all_zero(&f, "score.weight"));
    assert_true(sums.weight == 1.5 && sums.span_count[SPAN_ANSWER] == 1 && fabs(sums.span_loss[SPAN_ANSWER] * 1.5 - sums.loss) < 1e-9);
    gradient(&f, &text, &sums);
    assert_true(!all_zero(&f, "lm_head.weight") && all_zero(&f, "score.weight"));
    batch_free(&classes);
    batch_free(&text);
    fixture_close(&f);
}

static void packed_is_unpacked(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS - 1; k++) { /* noise depends on the place in the batch */
        struct fixture all, one;
        fixture_open(&all, &kinds[k], 2);
        fixture_open(&one, &kinds[k], 1);
        struct batch batch = rows_of(&kinds[k], 0, 9, 40);
        struct loss_sums sums, part, total = {0};
        gradient(&all, &batch, &sums);
        double *wanted = test_calloc((size_t)all.table.values, sizeof *wanted);
        for (int r = 0; r < 9; r++) {
            struct batch row = rows_of(&kinds[k], r, 1, 40);
            gradient(&one, &row, &part);
            loss_sums_add(&total, &part);
            for (int64_t i = 0; i < all.table.values; i++)
                wanted[i] += one.gradients[i];
            batch_free(&row);
        }
        assert_near("gradient", all.gradients, wanted, (int)all.table.values, 4e-6);
        assert_true(fabs(sums.loss - total.loss) <= 1e-6 * total.loss && sums.weight == total.weight);
        assert_int_equal(sums.correct, total.correct);
        test_free(wanted);
        batch_free(&batch);
        fixture_close(&all);
        fixture_close(&one);
    }
}

/* Bits for one thread, three threads, and with layers recomputed. */
static void threads_and_recomputation_change_nothing(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        struct kind other = kinds[k];
        struct fixture a, b;
        struct loss_sums first, second;
        other.checkpointing = !other.checkpointing;
        fixture_open(&a, &kinds[k], 1);
        fixture_open(&b, &other, 3);
        struct batch batch = rows_of(&kinds[k], 0, 9, 60);
        model_set_schedule(a.model, NULL, 0, 5);
        model_set_schedule(b.model, NULL, 0, 5);
        gradient(&a, &batch, &first);
        gradient(&b, &batch, &second);
        assert_memory_equal(a.gradients, b.gradients, (size_t)a.table.values * sizeof *a.gradients);
        assert_true(first.loss == second.loss);
        model_set_schedule(b.model, NULL, 0, 6); /* another draw: other noise, else nothing */
        gradient(&b, &batch, &second);
        assert_true((first.loss == second.loss) == (kinds[k].noise == 0));
        batch_free(&batch);
        fixture_close(&a);
        fixture_close(&b);
    }
}

static void noise_is_left_out_of_evaluation(void **state)
{
    (void)state;
    struct error err;
    struct fixture quiet, noisy;
    struct kind without = kinds[KINDS - 1];
    struct loss_sums a, b, c;
    without.noise = 0;
    fixture_open(&quiet, &without, 1);
    fixture_open(&noisy, &kinds[KINDS - 1], 1);
    struct batch batch = rows_of(&without, 0, 6, 20);
    assert_ok(model_loss(quiet.model, quiet.values, &batch, &a, &err), &err);
    assert_ok(model_loss(noisy.model, noisy.values, &batch, &b, &err), &err);
    gradient(&noisy, &batch, &c);
    assert_true(a.loss == b.loss && c.loss != a.loss);
    batch_free(&batch);
    fixture_close(&quiet);
    fixture_close(&noisy);
}

/* Scores by themselves give the loss and the counts. */
static void scores_and_counts(void **state)
{
    (void)state;
    struct error err;
    struct fixture f;
    struct loss_sums sums;
    fixture_open(&f, &kinds[2], 2);
    struct batch batch = rows_of(&kinds[2], 0, 12, 30);
    float scores[12][LABELS];
    struct class_count wanted[LABELS] = {{0}};
    double loss = 0;
    counters_clear(model_counters(f.model));
    assert_ok(model_loss(f.model, f.values, &batch, &sums, &err), &err);
    const struct class_count *found = counters_classes(model_counters(f.model));
    assert_ok(model_scores(f.model, f.values, &batch, scores[0], &err), &err);
    int right = 0;
    for (int s = 0; s < 12; s++) {
        struct row_class class = batch.classes[s];
        double sum = 0;
        int best = class.first;
        for (int i = class.first; i < class.first + class.count; i++) {
            sum += exp((double)scores[s][i]);
            best = scores[s][i] > scores[s][best] ? i : best;
        }
        loss += (0.5 + s % 3) * (log(sum) - scores[s][class.first + class.label]);
        wanted[class.first + class.label].rows++;
        wanted[best].chosen++;
        wanted[best].right += best == class.first + class.label;
        right += best == class.first + class.label;
    }
    assert_true(fabs(loss - sums.loss) < 1e-5);
    assert_memory_equal(found, wanted, sizeof wanted);
    assert_int_equal(sums.correct, right);
    batch_free(&batch);
    fixture_close(&f);
}

static void routed_heads_learn_classes(void **state)
{
    (void)state;
    const struct loar_layer layers[] = {{true, 70, 8, 0.5}, {true, 0, 0, 0.5}, {true, 0, 0, 0.75}};
    struct loar_plan plan = {LOAR_CONFIG_DEFAULT, layers};
    plan.config.router_dim = 12;
    plan.config.n_tasks = 1;
    struct fixture f, g;
    struct loss_sums a, b;
    struct kind other = kinds[0];
    other.checkpointing = true;
    fixture_open_routed(&f, &kinds[0], 1, &plan);
    fixture_open_routed(&g, &other, 3, &plan);
    struct batch batch = rows_of(&kinds[0], 0, 9, 200);
    gradient(&f, &batch, &a);
    gradient(&g, &batch, &b);
    assert_true(isfinite(a.loss) && a.loss == b.loss);
    assert_memory_equal(f.gradients, g.gradients, (size_t)f.table.values * sizeof *f.gradients);
    assert_false(all_zero(&f, "score.weight"));
    struct batch few = rows_of(&kinds[0], 0, 4, 90);
    gradient(&f, &few, &a);
    model_keep_routing(f.model, true);
    compare(&f, &few, false);
    batch_free(&few);
    batch_free(&batch);
    fixture_close(&f);
    fixture_close(&g);
}

static void refused(void **state)
{
    (void)state;
    struct error err;
    struct fixture f;
    struct loss_sums sums;
    float logits[VOCAB * 9];
    fixture_open(&f, &kinds[2], 1);
    struct batch batch = {0}, text = {0};
    add_row(&batch, 1, false, 9);
    batch.classes[0] = (struct row_class){LABELS - 1, 2, 0};
    assert_refused(model_loss(f.model, f.values, &batch, &sums, &err), STATUS_DATA, &err, "does not fit the model's 7");
    batch.classes[0] = (struct row_class){0, 2, 2};
    assert_refused(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &sums, &err), STATUS_DATA, &err, "label 2");
    add_row(&text, 3, true, 8);
    assert_refused(model_loss(f.model, f.values, &text, &sums, &err), STATUS_DATA, &err, "only classifies");
    assert_refused(model_logits(f.model, f.values, &text, logits, &err), STATUS_USAGE, &err, "only classifies");
    batch_free(&batch);
    batch_free(&text);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(differences_of_the_loss), cmocka_unit_test(heads_without_rows_have_no_gradient),
        cmocka_unit_test(packed_is_unpacked), cmocka_unit_test(threads_and_recomputation_change_nothing),
        cmocka_unit_test(noise_is_left_out_of_evaluation), cmocka_unit_test(scores_and_counts),
        cmocka_unit_test(routed_heads_learn_classes), cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests_name("classes", tests, NULL, NULL);
}
