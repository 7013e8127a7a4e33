/* What is trained: adapters beside frozen matrices compute and learn as the matrices with them merged do, whatever is routed;
 * dropped values are the same for any number of threads and when recomputed; chosen layers and modules get the gradients
 * that they have in a model that is trained as a whole, to the bit. */
#include "tests/gradient/gradient.h"

#include "common/memory.h"
#include "worker/model/lora.h"
#include "worker/model/model.h"
#include "worker/ops/dropout.h"

enum { LAYERS = 3, HEADS = 4, VOCAB = 40, ALL = (1 << LORA_MODULES) - 1 };

static const struct loar_layer layers[LAYERS] = {{true, 0, 0, 0.5}, {false, 70, 8, 1}, {true, 64, 4, 0.75}};

struct fixture {
    struct loar_plan plan;
    struct model_config config;
    struct params table;
    struct threads *pool;
    struct model *model;
    float *values, *gradients;
};

static bool tied; /* of the models to come */

static struct training adapters(unsigned targets, double dropout)
{
    return (struct training){.kind = TRAIN_ADAPTERS, .lora = {.rank = 5, .alpha = 3, .dropout = dropout, .targets = targets}};
}

static struct model_config config_of(const struct training *training, const struct loar_plan *plan, int kv_heads)
{
    return (struct model_config){.type = MODEL_QWEN2, .width = 24, .hidden = 40, .layers = LAYERS, .heads = HEADS, .kv_heads = kv_heads,
                                 .head_dim = 8, .vocab = VOCAB, .max_positions = 512, .norm_eps = 1e-5f, .rope_theta = 1e4, .rope_factor = 1,
                                 .qkv_bias = true, .init_std = 0.2f, .bos = -1, .tied = tied, .loar = plan, .training = *training};
}

static void fixture_open(struct fixture *f, const struct training *training, const struct loar_config *routing, int kv_heads, int threads,
                         bool checkpointing)
{
    struct error err;
    *f = (struct fixture){.pool = pool_of(threads)};
    if (routing)
        f->plan = (struct loar_plan){*routing, layers};
    f->config = config_of(training, routing ? &f->plan : NULL, kv_heads);
    assert_ok(model_params(&f->config, &f->table, &err), &err);
    assert_ok(model_create(&f->config, &f->table, &(struct model_options){.checkpointing = checkpointing}, f->pool, &f->model, &err), &err);
    f->values = mem_alloc_aligned((size_t)params_room(&f->table), sizeof *f->values);
    f->gradients = mem_alloc_aligned((size_t)f->table.values, sizeof *f->gradients);
    for (int i = 0; i < f->table.count; i++) {
        struct param p = f->table.items[i];
        bool tells = strstr(p.name, "router.fc2") || strstr(p.name, "lora_B") || strstr(p.name, "state.average");
        if (tells) /* routers that tell heads apart, and adapters that do something */
            p.init = INIT_NORMAL, p.init_std = strstr(p.name, "fc2") ? 1.0f : 0.2f;
        param_initialise(&p, 3, f->values + params_place(&f->table, i));
    }
}

static void fixture_close(struct fixture *f)
{
    model_free(f->model);
    mem_free_aligned(f->values);
    mem_free_aligned(f->gradients);
    params_free(&f->table);
    threads_free(f->pool);
}

static void append(struct batch *batch, int row, int n)
{
    struct error err;
    int32_t tokens[512];
    uint8_t spans[512];
    for (int i = 0; i < n; i++) {
        tokens[i] = (int32_t)rng_below(9, RNG_DATA, (uint64_t)(row * 1000 + i), VOCAB);
        spans[i] = i < n / 3 ? SPAN_PROMPT : SPAN_ANSWER;
    }
    assert_ok(batch_append(batch, &(struct row){.tokens = tokens, .spans = spans, .n_tokens = n, .weight = 1}, (const float[SPAN_COUNT]){0, 1, 1, 1}, &err), &err);
}

static struct batch rows(void)
{
    struct batch batch = {0};
    append(&batch, 1, 90);
    append(&batch, 2, 20);
    append(&batch, 3, 140);
    return batch;
}

/* NULL, a policy by sequence, by token with soft gates. */
static const struct loar_config *routing_of(int variant, struct loar_config *room)
{
    *room = LOAR_CONFIG_DEFAULT;
    room->n_tasks = 1;
    room->router_dim = 12;
    room->policy = LOAR_POLICY_topk;
    room->feature = variant == 2 ? LOAR_TOKEN : LOAR_PROMPT_MEAN;
    room->granularity = variant == 2 ? LOAR_BY_TOKEN : LOAR_BY_SEQUENCE;
    room->gate = variant == 2 ? LOAR_SOFT : LOAR_HARD;
    return variant ? room : NULL;
}

static const float *tensor(const struct fixture *f, const char *name, const float *values)
{
    int i = params_find(&f->table, name);
    assert_true(i >= 0);
    return values + params_place(&f->table, i);
}

/* The same model with what the adapters add in its matrices, trained as a whole. */
static void merge_into(const struct fixture *f, struct fixture *full)
{
    struct error err;
    float *merged = mem_alloc_aligned((size_t)params_room(&f->table), sizeof *merged);
    memcpy(merged, f->values, (size_t)params_room(&f->table) * sizeof *merged);
    assert_ok(model_merge_adapters(&f->config, &f->table, merged, &err), &err);
    for (int i = 0; i < full->table.count; i++)
        memcpy(full->values + full->table.items[i].offset, tensor(f, full->table.items[i].name, merged),
               (size_t)full->table.items[i].size * sizeof *merged);
    mem_free_aligned(merged);
}

/* From the gradient G of a whole matrix follow those of its parts: scale B^T G and scale G A^T. */
static void check_adapter(const struct fixture *f, const struct fixture *full, int layer, enum lora_module module)
{
    char a[128], b[128], weight[128];
    lora_tensor_name(a, layer, module, 'A');
    lora_tensor_name(b, layer, module, 'B');
    snprintf(weight, sizeof weight, "%.*s.weight", (int)(strstr(a, ".lora_") - a), a);
    const struct param *pa = &f->table.items[params_find(&f->table, a)], *pb = &f->table.items[params_find(&f->table, b)];
    int in = (int)pa->shape[1], r = (int)pa->shape[0], out = (int)pb->shape[0];
    const float *g = tensor(full, weight, full->gradients), *va = tensor(f, a, f->values), *vb = tensor(f, b, f->values);
    double *da = test_calloc((size_t)(r * in), sizeof *da), *db = test_calloc((size_t)(out * r), sizeof *db);
    double scale = lora_scale(&f->config.training.lora);
    for (int i = 0; i < r; i++)
        for (int o = 0; o < out; o++)
            for (int j = 0; j < in; j++) {
                da[i * in + j] += scale * (double)vb[o * r + i] * g[o * in + j];
                db[o * r + i] += scale * (double)g[o * in + j] * va[i * in + j];
            }
    assert_near(a, f->gradients + pa->offset, da, r * in, 3e-5);
    assert_near(b, f->gradients + pb->offset, db, out * r, 3e-5);
    test_free(da), test_free(db);
}

static void adapters_learn_as_their_merged_matrices(void **state)
{
    (void)state;
    struct batch batch = rows();
    for (int variant = 0; variant < 6; variant++) {
        struct loar_config room;
        const struct loar_config *routing = routing_of(variant % 3, &room);
        struct training training = adapters(ALL, 0), whole = {.kind = TRAIN_ALL};
        training.lora.rslora = variant == 1;
        struct fixture f, full;
        struct error err;
        struct loss_sums mine, theirs;
        fixture_open(&f, &training, routing, variant < 3 ? 2 : HEADS, 2, variant == 2);
        fixture_open(&full, &whole, routing, variant < 3 ? 2 : HEADS, 2, false);
        merge_into(&f, &full);
        assert_ok(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &mine, &err), &err);
        assert_ok(model_gradient(full.model, full.values, &batch, full.gradients, NULL, NULL, &theirs, &err), &err);
        assert_true(fabs(mine.loss - theirs.loss) <= 1e-6 * theirs.loss);
        for (int layer = 0; layer < LAYERS; layer++)
            for (int m = 0; m < LORA_MODULES; m++)
                check_adapter(&f, &full, layer, (enum lora_module)m);
        for (int i = 0; i < f.table.count; i++) {
            const struct param *p = &f.table.items[i];
            assert_int_equal(p->role == PARAM_TRAINED, strstr(p->name, "loar.") || lora_is_tensor(p->name));
            if (!strstr(p->name, "router"))
                continue;
            double *wanted = doubles_of(tensor(&full, p->name, full.gradients), (int)p->size);
            assert_near(p->name, f.gradients + p->offset, wanted, (int)p->size, 1e-4);
            test_free(wanted);
        }
        fixture_close(&f);
        fixture_close(&full);
    }
    batch_free(&batch);
}

/* With dropout the same draw gives the same function, so differences of its loss are its gradient. */
static void dropout_gradients_are_differences(void **state)
{
    (void)state;
    struct batch batch = rows();
    for (int variant = 0; variant < 3; variant++) {
        struct loar_config room;
        const struct loar_config *routing = routing_of(variant, &room);
        const struct loar_schedule schedule = {100, 0, 0, 1, false};
        struct training training = adapters(ALL, 0.3);
        struct fixture f;
        struct error err;
        struct loss_sums sums, above, below;
        fixture_open(&f, &training, routing, 2, 2, false);
        float *unused = test_malloc((size_t)f.table.values * sizeof *unused);
        model_set_schedule(f.model, &schedule, 50, 77);
        assert_ok(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &sums, &err), &err);
        model_keep_routing(f.model, true);
        for (int i = 0; i < f.table.count; i++) {
            const struct param *p = &f.table.items[i];
            if (!lora_is_tensor(p->name))
                continue;
            int64_t at = p->offset + (int64_t)rng_below(4, RNG_DATA, (uint64_t)i, (uint64_t)p->size);
            float value = f.values[at];
            const float step = 2e-3f;
            f.values[at] = value + step;
            assert_ok(model_gradient(f.model, f.values, &batch, unused, NULL, NULL, &above, &err), &err);
            f.values[at] = value - step;
            assert_ok(model_gradient(f.model, f.values, &batch, unused, NULL, NULL, &below, &err), &err);
            double wanted = (above.loss - below.loss) / ((double)(value + step) - (double)(value - step));
            f.values[at] = value;
            if (!(fabs(wanted - f.gradients[at]) <= 2e-2 + 4e-3 * fabs(wanted))) {
                print_error("%s: found %g, wanted %g\n", p->name, (double)f.gradients[at], wanted);
                fail();
            }
        }
        test_free(unused);
        fixture_close(&f);
    }
    batch_free(&batch);
}

/* Threads and recomputation change nothing; another draw does; and without gradients nothing is dropped. */
static void dropped_values_are_the_draws(void **state)
{
    (void)state;
    struct batch batch = rows();
    struct loss_sums first = {0}, plain = {0};
    for (int variant = 0; variant < 3; variant++) {
        struct loar_config room;
        const struct loar_config *routing = routing_of(variant, &room);
        struct training training = adapters(ALL, 0.25);
        float *kept = NULL;
        for (int threads = 1; threads <= 4; threads++) {
            struct fixture f;
            struct error err;
            struct loss_sums sums, other, whole;
            fixture_open(&f, &training, routing, 2, threads, threads % 2 == 0);
            const struct loar_schedule schedule = {100, 0, 0, 1, false};
            model_set_schedule(f.model, &schedule, 50, 78);
            assert_ok(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &other, &err), &err);
            assert_ok(model_loss(f.model, f.values, &batch, &whole, &err), &err);
            model_set_schedule(f.model, &schedule, 50, 77);
            assert_ok(model_gradient(f.model, f.values, &batch, f.gradients, NULL, NULL, &sums, &err), &err);
            size_t bytes = (size_t)f.table.values * sizeof *kept;
            if (!kept) {
                kept = test_malloc(bytes);
                memcpy(kept, f.gradients, bytes);
                first = sums, plain = whole;
            }
            assert_memory_equal(kept, f.gradients, bytes);
            assert_memory_equal(&first, &sums, sizeof sums);
            assert_memory_equal(&plain, &whole, sizeof whole);
            assert_true(sums.loss != other.loss && sums.loss != whole.loss && fabs(sums.loss - whole.loss) < 0.3 * whole.loss);
            fixture_close(&f);
        }
        test_free(kept);
    }
    batch_free(&batch);
}

static void decoding_has_adapters(void **state)
{
    (void)state;
    for (int variant = 0; variant < 3; variant++) {
        struct loar_config room;
        const struct loar_config *routing = routing_of(variant, &room);
        struct training training = adapters(ALL, 0.5);
        struct fixture f;
        struct error err;
        struct kv_cache *cache;
        struct batch batch = {0};
        float last[VOCAB], *all = test_malloc(100 * VOCAB * sizeof *all);
        fixture_open(&f, &training, routing, 2, 2, false);
        append(&batch, 5, 100);
        for (int i = 0; i < 100; i++)
            batch.target_spans[i] = i < 36 ? SPAN_PROMPT : SPAN_ANSWER;
        assert_ok(model_logits(f.model, f.values, &batch, all, &err), &err);
        assert_ok(kv_cache_create(f.model, 100, &cache, &err), &err);
        kv_cache_set_task(cache, 37, 0);
        const int pieces[] = {37, 1, 1, 30, 1, 30};
        for (size_t i = 0, at = 0; i < sizeof pieces / sizeof *pieces; i++) {
            assert_ok(model_decode(f.model, f.values, cache, batch.tokens + at, pieces[i], last, &err), &err);
            at += (size_t)pieces[i];
            double *wanted = doubles_of(all + (at - 1) * VOCAB, VOCAB);
            assert_near("logits", last, wanted, VOCAB, 1e-5);
            test_free(wanted);
        }
        kv_cache_free(cache);
        test_free(all);
        batch_free(&batch);
        fixture_close(&f);
    }
}

/* As many are dropped as asked, the others scaled; a row is known by its number, a head's values by their columns. */
static void dropout_is_a_function_of_places(void **state)
{
    (void)state;
    enum { N = 400, WIDTH = 42, C = 14, HEADS_ = 3 };
    struct threads *pool = pool_of(2);
    const struct dropout d = {5, 6, 0.3, WIDTH};
    float *x = random_floats(N * WIDTH, 1), *all = test_malloc(N * WIDTH * sizeof *all), *some = test_malloc(N * WIDTH * sizeof *some);
    int32_t odd[N / 2];
    for (int i = 0; i < N / 2; i++)
        odd[i] = 2 * i + 1;
    dropout_rows(pool, &d, N, NULL, x, false, all);
    int dropped = 0;
    for (int i = 0; i < N * WIDTH; i++) {
        dropped += all[i] == 0;
        assert_true(all[i] == 0 || all[i] == x[i] * (float)(1 / 0.7));
    }
    assert_true(fabs(dropped / (double)(N * WIDTH) - 0.3) < 0.015);
    dropout_rows(pool, &d, N / 2, odd, x, false, some); /* rows 0, 1, ... of x, dropped as rows 1, 3, ... */
    for (int i = 0; i < N / 2; i++)
        for (int j = 0; j < WIDTH; j++)
            assert_int_equal(some[i * WIDTH + j] == 0, all[odd[i] * WIDTH + j] == 0);
    /* The first head has all rows, the others the odd ones, packed behind each other. */
    const int64_t bounds[] = {0, N / 2};
    const struct attention_head layout[HEADS_] = {{0, C, NULL, bounds}, {N * C, C, odd, bounds}, {N * C + N / 2 * C, C, odd, bounds}};
    memset(some, 0, N * WIDTH * sizeof *some);
    dropout_heads(pool, &d, HEADS_, C, N, 1, layout, x, true, some);
    for (int h = 0; h < HEADS_; h++)
        for (int i = 0; i < (h ? N / 2 : N); i++)
            for (int j = 0; j < C; j++)
                assert_int_equal(some[layout[h].offset + i * C + j] == 0, all[(h ? odd[i] : i) * WIDTH + h * C + j] == 0);
    test_free(x), test_free(all), test_free(some);
    threads_free(pool);
}

struct readiness {
    int64_t last;
    int calls;
};

static void note_ready(void *context, int64_t first)
{
    struct readiness *r = context;
    assert_true(first >= 0 && first <= r->last);
    r->last = first;
    r->calls++;
}

static struct words words(char **items)
{
    struct words w = {items, 0};
    while (items[w.count])
        w.count++;
    return w;
}

static const struct chosen {
    int layers;
    char *frozen[3], *modules[3];
    int backwards; /* layers that a backward pass visits */
    int trained;   /* tensors */
} choices[] = {
    {1, {NULL}, {NULL}, 1, 12},
    {-1, {NULL}, {NULL}, 3, 12},
    {2, {"self_attn"}, {"lm_head,norm"}, 2, 2 * 5 + 2},
    {0, {"layers.[01]", "embed"}, {NULL}, 1, 12 + 2},
    {0, {NULL}, {"lm_head", "norm"}, 0, 2},
    {0, {NULL}, {"layers.1.mlp"}, 2, 3},
    {0, {NULL}, {"layers.1.self_attn.o_proj"}, 2, 1},
    {0, {NULL}, {"layers.1.self_attn.k_proj"}, 2, 2},
    {0, {"^(?!model.embed)"}, {NULL}, 3, 1},
    {0, {"_proj\\.weight$"}, {NULL}, 3, LAYERS * 5 + 3},
};

static const struct chosen tied_choices[] = {
    {0, {NULL}, {"embed_tokens"}, 3, 1},
    {1, {NULL}, {NULL}, 1, 12},
    {0, {"embed"}, {NULL}, 3, LAYERS * 12 + 1},
};

/* Chosen tensors have the gradients that they have in the whole model, for as few layers as that takes. */
static void compare_choices(const struct chosen *all, size_t count)
{
    struct batch batch = rows();
    for (size_t i = 0; i < 2 * count; i++) {
        struct chosen c = all[i / 2];
        struct training training = {.kind = TRAIN_CHOSEN, .layers = c.layers, .frozen = words(c.frozen), .modules = words(c.modules)},
                        whole = {.kind = TRAIN_ALL};
        struct fixture some, full;
        struct error err;
        struct loss_sums a, b;
        fixture_open(&some, &training, NULL, 2, 2, i % 2);
        fixture_open(&full, &whole, NULL, 2, 1, false);
        struct readiness ready = {.last = some.table.values};
        memset(some.gradients, 0xFF, (size_t)some.table.values * sizeof *some.gradients);
        assert_ok(model_gradient(some.model, some.values, &batch, some.gradients, note_ready, &ready, &b, &err), &err);
        assert_ok(model_gradient(full.model, full.values, &batch, full.gradients, NULL, NULL, &a, &err), &err);
        assert_memory_equal(&a, &b, sizeof a);
        assert_int_equal(ready.calls, 2 + c.backwards);
        assert_int_equal(ready.last, 0);
        assert_int_equal(training_lowest(&some.table, LAYERS), LAYERS - c.backwards);
        int trained = 0;
        for (int k = 0; k < full.table.count; k++) {
            const struct param *p = &full.table.items[k], *q = &some.table.items[k];
            assert_string_equal(p->name, q->name);
            trained += q->role == PARAM_TRAINED;
            if (q->role == PARAM_TRAINED)
                assert_memory_equal(full.gradients + p->offset, some.gradients + q->offset, (size_t)p->size * sizeof *full.gradients);
        }
        assert_int_equal(trained, c.trained);
        assert_true(some.table.trained + some.table.frozen == full.table.trained);
        fixture_close(&some);
        fixture_close(&full);
    }
    batch_free(&batch);
}

static void the_chosen_learn_as_in_the_whole(void **state)
{
    (void)state;
    compare_choices(choices, sizeof choices / sizeof *choices);
    tied = true;
    compare_choices(tied_choices, sizeof tied_choices / sizeof *tied_choices);
    tied = false;
}

static void expect_refusal(const struct training *training, const char *wanted)
{
    struct error err;
    struct params table = {0};
    struct model_config config = config_of(training, NULL, 2);
    assert_refused(model_params(&config, &table, &err), STATUS_USAGE, &err, wanted);
    params_free(&table);
}

static void bad_choices_are_refused(void **state)
{
    (void)state;
    char *none[] = {NULL}, *nowhere[] = {"q_prok", NULL}, *everywhere[] = {"weight|bias", NULL}, *broken[] = {"q_proj(", NULL},
         *both[] = {"embed|layers", "norm|head", NULL}, *module[] = {"head", NULL}, *target[] = {"o_proj", NULL};
    struct training t = {.kind = TRAIN_CHOSEN, .layers = 4, .frozen = words(none), .modules = words(none)};
    expect_refusal(&t, "4 layers are to be trained, but the model has 3");
    t.layers = 0, t.frozen = words(nowhere);
    expect_refusal(&t, "'q_prok' is found in the name of none of the model's tensors; they are called model.embed_tokens.weight, "
                       "model.layers.0.input_layernorm.weight, model.layers.0.self_attn.q_proj.weight");
    t.frozen = words(everywhere);
    expect_refusal(&t, "'weight|bias' is found in the names of all");
    t.frozen = words(broken);
    expect_refusal(&t, "freeze_parameters");
    t.frozen = words(both);
    expect_refusal(&t, "nothing of the model is left to train");
    t.frozen = words(none), t.modules = words(module);
    expect_refusal(&t, "no module of the model is called 'head'; there are embed_tokens, input_layernorm, q_proj, k_proj, v_proj, o_proj");
    char *whole[] = {"model", "lm_head", NULL};
    t.modules = words(whole);
    expect_refusal(&t, "nothing is frozen; give finetuning_type: full");
    tied = true, t.modules.items = &whole[1], t.modules.count = 1;
    expect_refusal(&t, "this model has no lm_head of its own (tie_word_embeddings); name embed_tokens");
    tied = false;
    t = adapters(1 << LORA_O, 0);
    t.modules = words(target);
    expect_refusal(&t, "trains 'model.layers.0.self_attn.o_proj.weight' as a whole, to which lora_target gives an adapter");
    t = adapters(ALL, 0);
    t.lora.rank = 25;
    expect_refusal(&t, "lora_rank: 25 is not below the model's width of 24");
}

static void targets_are_read(void **state)
{
    (void)state;
    struct error err;
    struct lora lora = {0};
    char *none[] = {NULL}, *two[] = {"q_proj, v_proj", NULL}, *list[] = {"up_proj", "down_proj", NULL}, *all[] = {"all", NULL},
         *other[] = {"q_proj,lm_head", NULL}, *blank[] = {" , ", NULL};
    const struct {
        char **items;
        unsigned targets;
    } good[] = {{none, ALL}, {two, 1 << LORA_Q | 1 << LORA_V}, {list, 1 << LORA_UP | 1 << LORA_DOWN}, {all, ALL}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct words w = words(good[i].items);
        assert_ok(lora_set_targets(&lora, &w, &err), &err);
        assert_int_equal(lora.targets, good[i].targets);
    }
    struct words w = words(other);
    assert_refused(lora_set_targets(&lora, &w, &err), STATUS_USAGE, &err, "is called 'lm_head'; there are q_proj, k_proj");
    w = words(blank);
    assert_refused(lora_set_targets(&lora, &w, &err), STATUS_USAGE, &err, "names no module");
}

/* A begins within 1 / sqrt(in) of zero, B at zero: the model begins as it was. */
static void adapters_begin_without_effect(void **state)
{
    (void)state;
    struct training training = adapters(ALL, 0);
    struct model_config config = config_of(&training, NULL, 2);
    struct params table = {0};
    struct error err;
    assert_ok(model_params(&config, &table, &err), &err);
    for (int i = 0; i < table.count; i++) {
        const struct param *p = &table.items[i];
        if (!lora_is_tensor(p->name))
            continue;
        float *values = test_malloc((size_t)p->size * sizeof *values), largest = 0;
        param_initialise(p, 1, values);
        for (int64_t j = 0; j < p->size; j++)
            largest = fabsf(values[j]) > largest ? fabsf(values[j]) : largest;
        double bound = strstr(p->name, "lora_B") ? 0 : 1 / sqrt((double)p->shape[1]);
        assert_true(largest <= bound * 1.000001 && largest >= bound * 0.9);
        test_free(values);
    }
    params_free(&table);
}

static void short_memory_is_reported(void **state)
{
    (void)state;
    char *frozen[] = {"embed", NULL};
    struct training kinds[] = {adapters(ALL, 0.1), {.kind = TRAIN_CHOSEN, .frozen = words(frozen)}};
    for (int kind = 0; kind < 2; kind++) {
        struct model_config config = config_of(&kinds[kind], NULL, 2);
        long before = mem_live(), n = 0;
        for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
            struct params table = {0};
            struct error err;
            mem_fail_after(n, false);
            st = model_params(&config, &table, &err);
            mem_fail_after(-1, false);
            params_free(&table);
            assert_int_equal(mem_live(), before);
            assert_true(st == STATUS_OK || (st == STATUS_NOMEM && strstr(err.text, "no memory")));
        }
        assert_true(n > 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_learn_as_their_merged_matrices), cmocka_unit_test(dropout_gradients_are_differences),
        cmocka_unit_test(dropped_values_are_the_draws),            cmocka_unit_test(decoding_has_adapters),
        cmocka_unit_test(dropout_is_a_function_of_places),
        cmocka_unit_test(the_chosen_learn_as_in_the_whole),        cmocka_unit_test(bad_choices_are_refused),
        cmocka_unit_test(targets_are_read),                        cmocka_unit_test(adapters_begin_without_effect),
        cmocka_unit_test(short_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
