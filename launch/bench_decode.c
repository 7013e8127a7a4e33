/* `loar bench decode`: what skipped heads and windows save when a model writes: milliseconds of a step's parts at a long
 * context, by the share of heads that run, and memory of the cache by window. Models with random weights take turns in one
 * run; the heads are chosen per token by random routers under policy topk, so that exactly the budget runs.
 * Must not know: text, quality. */
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

enum { MAX_LAYERS = 256, SHARES = 4 };
static const double shares[SHARES] = {1, 0.75, 0.5, 0.25};

struct shape {
    int64_t layers, width, hidden, heads, vocab, context, steps, window, sinks, threads, rounds;
};

static const char usage[] =
    "usage: loar bench decode [options]\n"
    "\n"
    "  --layers 8 --width 512 --hidden 1408 --heads 8 --vocab 8192   the model, random weights\n"
    "  --context 4096  tokens that are in the cache\n"
    "  --steps 32      tokens that are written and timed, one at a time\n"
    "  --window 256 --sinks 64   for the cache's memory, in the lower two thirds of the layers\n"
    "  --threads 1     0: all cores\n"
    "  --rounds 3      the best counts\n";

static enum status parse(int argc, char **argv, struct shape *s, struct error *err)
{
    enum { MOST = 1 << 24 };
    const struct bench_option options[] = {
        {"layers", &s->layers, 1, MAX_LAYERS}, {"width", &s->width, 2, MOST},     {"hidden", &s->hidden, 1, MOST},
        {"heads", &s->heads, 1, MOST},         {"vocab", &s->vocab, 2, MOST},     {"context", &s->context, 2, MOST},
        {"steps", &s->steps, 1, MOST},         {"window", &s->window, 1, MOST},   {"sinks", &s->sinks, 0, MOST},
        {"threads", &s->threads, 0, MOST},     {"rounds", &s->rounds, 1, MOST},
    };
    TRY(bench_options_read(argc, argv, options, BENCH_COUNT(options), err));
    return bench_check_heads(s->width, s->heads, s->heads, err);
}

/* A model with a filled cache. */
struct side {
    struct loar_layer layers[MAX_LAYERS];
    struct loar_plan plan;
    struct model_config config;
    struct params table;
    struct model *model;
    float *values, *logits;
    struct kv_cache *cache;
    double part_ms[MODEL_N_PARTS], step_ms; /* of a step, the best round */
};

static void side_close(struct side *side)
{
    kv_cache_free(side->cache);
    model_free(side->model);
    mem_free_aligned(side->values);
    mem_free(side->logits);
    params_free(&side->table);
}

/* windows: in the lower two thirds of the layers. */
static enum status side_open(const struct shape *s, double share, bool windows, struct threads *pool, struct side *side,
                             struct error *err)
{
    *side = (struct side){.plan = {LOAR_CONFIG_DEFAULT, side->layers}};
    side->plan.config.policy = LOAR_POLICY_topk;
    side->plan.config.router = LOAR_RANDOM;
    side->plan.config.granularity = LOAR_BY_TOKEN;
    side->plan.config.feature = LOAR_TOKEN;
    for (int i = 0; i < (int)s->layers; i++) {
        side->layers[i] = (struct loar_layer){.routed = share < 1, .budget = share};
        if (windows && 3 * i < 2 * s->layers)
            side->layers[i].window = (int)s->window, side->layers[i].sinks = (int)s->sinks;
    }
    side->config = bench_model(s->layers, s->width, s->hidden, s->heads, s->heads, s->vocab);
    side->config.loar = &side->plan;
    TRY(model_params(&side->config, &side->table, err));
    TRY(model_create(&side->config, &side->table, &(struct model_options){0}, pool, &side->model, err));
    side->values = mem_alloc_aligned((size_t)side->table.values, sizeof *side->values);
    side->logits = mem_alloc((size_t)s->vocab, sizeof *side->logits);
    if (!side->values || !side->logits)
        FAIL(err, STATUS_NOMEM, "no memory for a model of %lld parameters", (long long)side->table.trained);
    params_initialise(&side->table, 1, side->values);
    return kv_cache_create(side->model, (int)(s->context + s->steps * s->rounds), &side->cache, err);
}

static enum status feed(const struct shape *s, struct side *side, int64_t first, int64_t count, int at_once, struct error *err)
{
    int32_t tokens[256];
    for (int64_t done = 0; done < count; done += at_once) {
        int n = count - done < at_once ? (int)(count - done) : at_once;
        for (int i = 0; i < n; i++)
            tokens[i] = (int32_t)rng_below(1, RNG_DATA, (uint64_t)(first + done + i), (uint64_t)s->vocab);
        TRY(model_decode(side->model, side->values, side->cache, tokens, n, side->logits, err));
    }
    return STATUS_OK;
}

static enum status time_round(const struct shape *s, struct side *side, int64_t round, struct error *err)
{
    struct counters *counters = model_counters(side->model);
    counters_clear(counters);
    struct lap began = lap_begin();
    TRY(feed(s, side, s->context + round * s->steps, s->steps, 1, err));
    double ms = lap_end(began).wall * 1e3 / (double)s->steps;
    if (round > 0 && ms >= side->step_ms)
        return STATUS_OK;
    side->step_ms = ms;
    for (int part = 0; part < MODEL_N_PARTS; part++)
        side->part_ms[part] = (double)counters->items[COUNTERS_TIMES + part] * 1e-6 / (double)s->steps;
    return STATUS_OK;
}

static void print_row(const struct side *side, const struct side *dense, double share)
{
    double attention = side->part_ms[MODEL_PART_ATTENTION];
    printf("%4.0f %% of the heads: attention %.3f ms a step, %.2f of all heads'; step %.3f ms, %.2f of all heads' (router %.3f, "
           "projections %.3f, mlp %.3f, head %.3f)\n", 100 * share, attention, attention / dense->part_ms[MODEL_PART_ATTENTION],
           side->step_ms, side->step_ms / dense->step_ms, side->part_ms[MODEL_PART_ROUTER], side->part_ms[MODEL_PART_PROJECTIONS],
           side->part_ms[MODEL_PART_MLP], side->part_ms[MODEL_PART_HEAD]);
}

static enum status time_shares(const struct shape *s, struct threads *pool, struct side sides[SHARES], struct error *err)
{
    for (int i = 0; i < SHARES; i++) {
        TRY(side_open(s, shares[i], false, pool, &sides[i], err));
        TRY(feed(s, &sides[i], 0, s->context, 256, err));
    }
    for (int64_t round = 0; round < s->rounds; round++)
        for (int i = 0; i < SHARES; i++)
            TRY(time_round(s, &sides[i], round, err));
    for (int i = 0; i < SHARES; i++)
        print_row(&sides[i], &sides[0], shares[i]);
    return STATUS_OK;
}

static enum status bench(const struct shape *s, struct error *err)
{
    struct side *sides = mem_alloc(SHARES + 1, sizeof *sides);
    struct threads *pool = NULL;
    enum status st = sides ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for the bench");
    if (st == STATUS_OK)
        st = threads_create(s->threads ? (int)s->threads : threads_cores(), &pool, err);
    if (st == STATUS_OK) {
        printf("%lld tokens in the cache, %d thread%s\n", (long long)s->context, threads_count(pool), threads_count(pool) > 1 ? "s" : "");
        st = time_shares(s, pool, sides, err);
    }
    if (st == STATUS_OK)
        st = side_open(s, 1, true, pool, &sides[SHARES], err);
    if (st == STATUS_OK)
        printf("keys and values: %.1f MiB with full attention, %.1f MiB with windows of %lld and %lld sinks in two thirds of the "
               "layers\n", (double)kv_cache_bytes(sides[0].cache) / (1 << 20), (double)kv_cache_bytes(sides[SHARES].cache) / (1 << 20),
               (long long)s->window, (long long)s->sinks);
    for (int i = 0; sides && i <= SHARES; i++)
        side_close(&sides[i]);
    mem_free(sides);
    threads_free(pool);
    return st;
}

int bench_decode(int argc, char **argv)
{
    struct error err = {0};
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        fputs(usage, stdout);
        return 0;
    }
    struct shape s = {.layers = 8, .width = 512, .hidden = 1408, .heads = 8, .vocab = 8192, .context = 4096, .steps = 32,
                      .window = 256, .sinks = 64, .threads = 1, .rounds = 3};
    enum status st = parse(argc, argv, &s, &err);
    if (st == STATUS_OK)
        st = bench(&s, &err);
    if (st != STATUS_OK)
        fprintf(stderr, "loar bench decode: %s\n", err.text);
    return status_exit_code(st);
}
