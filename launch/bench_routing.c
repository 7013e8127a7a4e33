/* `loar bench routing`: what attention routing saves of a whole training step, dense and routed models taking turns in one
 * run, beside what counting FLOPs predicts. The heads are chosen by random routers under policy topk, so that exactly the
 * budget runs; random text is as good as any other here.
 * Must not know: ranks, optimizers, quality. */
#include "launch/bench.h"
#include "launch/bench_options.h"
#include "launch/measure.h"

#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "common/rng.h"
#include "common/threads.h"
#include "worker/model/counters.h"
#include "worker/model/model.h"
#include "worker/ops/gemm.h"

enum { MAX_LAYERS = 256, LENGTHS = 3 };

struct shape {
    int64_t layers, width, hidden, heads, vocab, tokens, window, sinks, windowed, percent, threads, rounds;
};

static const char usage[] =
    "usage: loar bench routing [options]\n"
    "\n"
    "  --layers 8 --width 512 --hidden 1408 --heads 8 --vocab 8192   the model, random weights\n"
    "  --tokens 0      one sequence of so many; 0: 2048, 4096 and 8192, one after the other\n"
    "  --percent 50    of the heads run, in every layer\n"
    "  --window 256 --sinks 64 --windowed -1   keys behind a query in the lowest `windowed` layers; -1: two thirds of them\n"
    "  --threads 0     0: all cores\n"
    "  --rounds 3      steps timed of each model, in turns; the best counts\n";

static enum status parse(int argc, char **argv, struct shape *s, struct error *err)
{
    enum { MOST = INT32_MAX };
    const struct bench_option options[] = {
        {"layers", &s->layers, 1, MAX_LAYERS}, {"width", &s->width, 2, MOST},     {"hidden", &s->hidden, 1, MOST},
        {"heads", &s->heads, 1, MOST},         {"vocab", &s->vocab, 2, MOST},     {"tokens", &s->tokens, 0, MOST},
        {"window", &s->window, 0, MOST},       {"sinks", &s->sinks, 0, MOST},     {"percent", &s->percent, 1, 100},
        {"threads", &s->threads, 0, 4096},     {"rounds", &s->rounds, 1, MOST},   {"windowed", &s->windowed, -1, MAX_LAYERS},
    };
    TRY(bench_options_read(argc, argv, options, BENCH_COUNT(options), err));
    if (s->windowed < 0)
        s->windowed = s->layers * 2 / 3;
    s->windowed = s->windowed < s->layers ? s->windowed : s->layers;
    return bench_check_heads(s->width, s->heads, s->heads, err);
}

/* A model with its own parameters. */
struct side {
    struct params table;
    struct model *model;
    float *values, *gradients;
    struct lap best;
};

static enum status side_open(struct side *side, const struct model_config *config, struct threads *pool, struct error *err)
{
    TRY(model_params(config, &side->table, err));
    TRY(model_create(config, &side->table, &(struct model_options){0}, pool, &side->model, err));
    side->values = mem_alloc_aligned((size_t)side->table.values, sizeof *side->values);
    side->gradients = mem_alloc_aligned((size_t)side->table.values, sizeof *side->gradients);
    if (!side->values || !side->gradients)
        FAIL(err, STATUS_NOMEM, "no memory for a model of %lld parameters", (long long)side->table.trained);
    params_initialise(&side->table, 1, side->values);
    return STATUS_OK;
}

static void side_close(struct side *side)
{
    mem_free_aligned(side->values);
    mem_free_aligned(side->gradients);
    model_free(side->model);
    params_free(&side->table);
}

static enum status side_step(struct side *side, const struct batch *batch, struct error *err)
{
    struct loss_sums sums;
    struct lap began = lap_begin();
    counters_clear(model_counters(side->model));
    TRY(model_gradient(side->model, side->values, batch, side->gradients, NULL, NULL, &sums, err));
    lap_keep(&side->best, lap_end(began));
    return STATUS_OK;
}

static enum status fill_batch(const struct shape *s, struct batch *batch, struct error *err)
{
    const float weights[SPAN_COUNT] = {[SPAN_ANSWER] = 1};
    struct row row = {.n_tokens = (int)s->tokens, .weight = 1};
    row.tokens = mem_alloc((size_t)s->tokens, sizeof *row.tokens);
    row.spans = mem_alloc((size_t)s->tokens, sizeof *row.spans);
    enum status st = row.tokens && row.spans ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for a row");
    for (int64_t i = 0; i < s->tokens && st == STATUS_OK; i++) {
        row.tokens[i] = (int32_t)rng_below(1, RNG_DATA, (uint64_t)i, (uint64_t)s->vocab);
        row.spans[i] = i ? SPAN_ANSWER : SPAN_PROMPT;
    }
    if (st == STATUS_OK)
        st = batch_append(batch, &row, weights, err);
    row_free(&row);
    return st;
}

/* FLOPs of a step per token and layer: 3 times the linear parts of forward, 3.5 times the core of attention (five products in
 * backward for two in forward). share: of the heads that run; keys: that a query sees on average. */
static double layer_flops(const struct shape *s, double share, double keys)
{
    double d = (double)s->width;
    return 3 * (4 * d * d * share + 4 * d * d + 6 * d * (double)s->hidden) + 3.5 * 4 * d * keys * share;
}

static double predicted_saving(const struct shape *s)
{
    double t = (double)s->tokens, w = (double)s->window, share = (double)s->percent / 100;
    double all = (t + 1) / 2, near = w > 0 && w < t ? (w * (w + 1) / 2 + (t - w) * w) / t : all;
    double head = 3 * 2 * (double)s->width * (double)s->vocab;
    double dense = (double)s->layers * layer_flops(s, 1, all) + head;
    double routed = (double)s->windowed * layer_flops(s, share, near) +
                    (double)(s->layers - s->windowed) * layer_flops(s, share, all) + head;
    return 1 - routed / dense;
}

static void print_parts(const char *name, const struct side *side)
{
    const int64_t *items = model_counters(side->model)->items;
    printf("    %-6s", name);
    for (int part = 0; part < MODEL_N_PARTS; part++)
        printf(" %s %.0f ms", model_part_names[part], (double)items[COUNTERS_TIMES + part] * 1e-6);
    printf("\n");
}

static enum status compare(const struct shape *s, const struct model_config *dense, const struct model_config *routed,
                           struct threads *pool, struct error *err)
{
    struct side sides[2] = {{.best = {0}}, {.best = {0}}};
    struct batch batch = {0};
    enum status st;
    TRY_OR(done, st, fill_batch(s, &batch, err));
    TRY_OR(done, st, side_open(&sides[0], dense, pool, err));
    TRY_OR(done, st, side_open(&sides[1], routed, pool, err));
    for (int64_t round = -1; round < s->rounds; round++) /* the first finds its memory */
        for (int i = 0; i < 2; i++) {
            if (round <= 0)
                sides[i].best = (struct lap){0};
            TRY_OR(done, st, side_step(&sides[i], &batch, err));
        }
    const int64_t *d = model_counters(sides[0].model)->items, *r = model_counters(sides[1].model)->items;
    double saved = 1 - sides[1].best.wall / sides[0].best.wall, by_cpu = 1 - sides[1].best.cpu / sides[0].best.cpu;
    double predicted = predicted_saving(s);
    printf("%5lld tokens: dense %.3f s, routed %.3f s: saved %.1f %% (by processor time %.1f %%), predicted %.1f %%: %.2f of it "
           "(%.2f); attention did %.1f %% of the dense FLOPs\n",
           (long long)s->tokens, sides[0].best.wall, sides[1].best.wall, 100 * saved, 100 * by_cpu, 100 * predicted, saved / predicted,
           by_cpu / predicted, 100.0 * (double)r[COUNTERS_FLOPS] / (double)d[COUNTERS_FLOPS]);
    print_parts("dense", &sides[0]);
    print_parts("routed", &sides[1]);
    fflush(stdout);
done:
    batch_free(&batch);
    side_close(&sides[0]);
    side_close(&sides[1]);
    return st;
}

static enum status bench(struct shape *s, struct error *err)
{
    static const int64_t lengths[LENGTHS] = {2048, 4096, 8192};
    struct loar_layer layers[MAX_LAYERS];
    struct loar_plan plan = {LOAR_CONFIG_DEFAULT, layers};
    plan.config.policy = LOAR_POLICY_topk;
    plan.config.router = LOAR_RANDOM;
    for (int i = 0; i < (int)s->layers; i++) {
        layers[i] = (struct loar_layer){.routed = true, .budget = (double)s->percent / 100};
        if (i < s->windowed && s->window)
            layers[i].window = (int)s->window, layers[i].sinks = (int)s->sinks;
    }
    struct model_config dense = bench_model(s->layers, s->width, s->hidden, s->heads, s->heads, s->vocab), routed = dense;
    routed.loar = &plan;
    struct threads *pool;
    TRY(threads_create(s->threads ? (int)s->threads : threads_cores(), &pool, err));
    printf("%d threads; %lld %% of the heads in %lld layers, window %lld and %lld sinks in %lld of them\n", threads_count(pool),
           (long long)s->percent, (long long)s->layers, (long long)s->window, (long long)s->sinks, (long long)s->windowed);
    enum status st = STATUS_OK;
    int64_t wanted = s->tokens;
    for (int i = 0; st == STATUS_OK && i < (wanted ? 1 : LENGTHS); i++) {
        s->tokens = wanted ? wanted : lengths[i];
        st = compare(s, &dense, &routed, pool, err);
    }
    threads_free(pool);
    return st;
}

int bench_routing(int argc, char **argv)
{
    struct error err = {0};
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        fputs(usage, stdout);
        return 0;
    }
    struct shape s = {.layers = 8, .width = 512, .hidden = 1408, .heads = 8, .vocab = 8192, .window = 256, .sinks = 64,
                      .windowed = -1, .percent = 50, .rounds = 3};
    enum status st = parse(argc, argv, &s, &err);
    if (st == STATUS_OK)
        st = bench(&s, &err);
    if (st != STATUS_OK)
        fprintf(stderr, "loar bench routing: %s\n", err.text);
    return status_exit_code(st);
}
