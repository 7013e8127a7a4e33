/* `loar bench step`: how much of the machine's own matrix rate a training step (forward, loss, backward) reaches, how many
 * tokens per second that is, and how much memory it takes. The rate of matrix products is measured between the steps of
 * the same run, because other work on the machine slows both.
 * Must not know: ranks, optimizers, files other than the list of lengths. */
#include "launch/bench.h"
#include "launch/bench_options.h"
#include "launch/measure.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/rng.h"
#include "common/threads.h"
#include "worker/model/model.h"
#include "worker/ops/gemm.h"

struct shape {
    int64_t layers, width, hidden, heads, kv_heads, vocab, sequences, tokens, prompt, threads, rounds, rows_per_step;
    const char *lengths; /* file, or NULL */
    bool checkpointing, memory;
};

static const char usage[] =
    "usage: loar bench step [options]\n"
    "\n"
    "  --layers 8 --width 1024 --hidden 2816 --heads 16 --kv_heads 16 --vocab 32768   the model, random weights\n"
    "  --sequences 4 --tokens 512 --prompt 0   the batch; the first `prompt` tokens of each sequence take no loss\n"
    "  --lengths FILE --rows_per_step 8        instead: one row per line, 'prompt_tokens all_tokens'\n"
    "  --threads 0     0: once with one thread and once with all cores\n"
    "  --rounds 3      steps timed; the best counts, as it does for the rate of matrix products. The share by processor\n"
    "                  time leaves out what other programs on the machine took\n"
    "  --checkpointing recompute each layer's activations in backward\n"
    "  --memory        one step with 102400 words and 1 x 8192 tokens, recomputing; prints the peak of memory\n";

static enum status parse(int argc, char **argv, struct shape *s, struct error *err)
{
    enum { MOST = INT32_MAX };
    const struct bench_option options[] = {
        {"layers", &s->layers, 1, MOST},     {"width", &s->width, 2, MOST},   {"hidden", &s->hidden, 1, MOST},
        {"heads", &s->heads, 1, MOST},       {"vocab", &s->vocab, 2, MOST},   {"kv_heads", &s->kv_heads, 1, MOST},
        {"tokens", &s->tokens, 2, MOST},     {"prompt", &s->prompt, 0, MOST}, {"sequences", &s->sequences, 1, MOST},
        {"threads", &s->threads, 0, 4096},   {"rounds", &s->rounds, 1, MOST}, {"rows_per_step", &s->rows_per_step, 1, MOST},
    };
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--checkpointing"))
            s->checkpointing = true;
        else if (!strcmp(argv[i], "--memory"))
            s->memory = true;
        else if (!strcmp(argv[i], "--lengths") && argv[i + 1])
            s->lengths = argv[++i];
        else {
            TRY(bench_option_set(argv[0], argv[i], argv[i + 1], options, BENCH_COUNT(options), err));
            i++;
        }
    }
    return bench_check_heads(s->width, s->heads, s->kv_heads, err);
}

/* The batches of a run: fixed rows of random tokens. */
struct work {
    struct batch *batches;
    int n_batches;
    int64_t tokens, supervised;
    double flops;
};

static enum status add_row(struct work *w, const struct shape *s, int64_t prompt, int64_t total, int64_t number,
                           struct error *err)
{
    if (total < 2 || prompt < 0 || prompt >= total || total > 1 << 20)
        FAIL(err, STATUS_DATA, "row %lld: %lld prompt tokens of %lld do not make a row", (long long)number, (long long)prompt,
             (long long)total);
    if (number % s->rows_per_step == 0) {
        struct batch *grown = mem_realloc(w->batches, (size_t)w->n_batches + 1, sizeof *grown);
        if (!grown)
            FAIL(err, STATUS_NOMEM, "no memory for %d batches", w->n_batches + 1);
        w->batches = grown;
        w->batches[w->n_batches++] = (struct batch){0};
    }
    struct row row = {.n_tokens = (int)total, .weight = 1};
    row.tokens = mem_alloc((size_t)total, sizeof *row.tokens);
    row.spans = mem_alloc((size_t)total, sizeof *row.spans);
    enum status st = row.tokens && row.spans ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for a row");
    for (int64_t i = 0; i < total && st == STATUS_OK; i++) {
        row.tokens[i] = (int32_t)rng_below(1, RNG_DATA, (uint64_t)(number << 20 | i), (uint64_t)s->vocab);
        row.spans[i] = i < prompt ? SPAN_PROMPT : SPAN_ANSWER;
    }
    const float weights[SPAN_COUNT] = {[SPAN_THOUGHT] = 1, [SPAN_ANSWER] = 1, [SPAN_END] = 1};
    if (st == STATUS_OK)
        st = batch_append(&w->batches[w->n_batches - 1], &row, weights, err);
    row_free(&row);
    w->tokens += total;
    w->supervised += total - (prompt > 1 ? prompt : 1);
    return st;
}

static enum status add_lengths(struct work *w, const struct shape *s, struct error *err)
{
    char *text;
    size_t size;
    TRY(file_read(s->lengths, &text, &size, err));
    enum status st = STATUS_OK;
    int64_t number = 0;
    for (char *line = text; st == STATUS_OK && *line;) {
        int used = 0;
        long long prompt, total;
        if (sscanf(line, "%lld %lld %n", &prompt, &total, &used) != 2 || used == 0)
            st = error_set(err, STATUS_DATA, "'%s', row %lld: expected 'prompt_tokens all_tokens'", s->lengths,
                           (long long)number + 1);
        else
            st = add_row(w, s, prompt, total, number++, err);
        line += used;
    }
    mem_free(text);
    if (st == STATUS_OK && number == 0)
        FAIL(err, STATUS_DATA, "'%s' holds no rows", s->lengths);
    return st;
}

static enum status work_make(const struct shape *s, const struct model_config *config, struct work *w, struct error *err)
{
    if (s->lengths)
        TRY(add_lengths(w, s, err));
    for (int64_t i = 0; i < s->sequences && !s->lengths; i++)
        TRY(add_row(w, s, s->prompt, s->tokens, i, err));
    for (int i = 0; i < w->n_batches; i++)
        w->flops += model_step_flops(config, &w->batches[i]);
    return STATUS_OK;
}

static void work_free(struct work *w)
{
    for (int i = 0; i < w->n_batches; i++)
        batch_free(&w->batches[i]);
    mem_free(w->batches);
}

/* What /proc says about this process' memory, in MiB; 0 where it cannot be read. */
static double peak_memory_mib(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    double kib = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib / 1024;
}

struct bench {
    struct model *model;
    struct params table;
    float *values, *gradients;
    struct work work;
    struct peak peak;
};

static enum status one_pass(struct bench *b, struct lap *took, struct error *err)
{
    struct lap began = lap_begin();
    for (int i = 0; i < b->work.n_batches; i++) {
        struct loss_sums sums;
        TRY(model_gradient(b->model, b->values, &b->work.batches[i], b->gradients, NULL, NULL, &sums, err));
    }
    *took = lap_end(began);
    return STATUS_OK;
}

static enum status time_steps(struct bench *b, const struct shape *s, struct threads *pool, struct error *err)
{
    struct lap product = {0}, step = {0}, took;
    int threads = threads_count(pool);
    TRY(one_pass(b, &took, err)); /* finds its memory */
    for (int64_t round = 0; round <= s->rounds; round++) {
        struct lap began = lap_begin();
        peak_run(&b->peak, pool);
        lap_keep(&product, lap_end(began));
        if (round == s->rounds)
            break;
        TRY(one_pass(b, &took, err));
        lap_keep(&step, took);
    }
    double peak = peak_flops(threads) / product.wall, rate = b->work.flops / step.wall;
    double of_cpu = b->work.flops / step.cpu / (peak_flops(threads) / product.cpu);
    printf("%d thread%s: products %.1f GFLOP/s (%s), step %.1f GFLOP/s in %.3f s (%.3f s of processor time): share of the "
           "peak %.3f (by processor time %.3f); %.0f tokens/s\n",
           threads, threads > 1 ? "s" : "", peak * 1e-9, gemm_kernels(), rate * 1e-9, step.wall, step.cpu, rate / peak, of_cpu,
           (double)b->work.tokens / step.wall);
    fflush(stdout);
    return STATUS_OK;
}

static enum status show_memory(struct bench *b, const struct shape *s, struct error *err)
{
    struct lap took;
    double mib = 1.0 / (1 << 20), before = peak_memory_mib();
    TRY(one_pass(b, &took, err));
    double product = (double)b->work.supervised * (double)s->vocab * sizeof(float) * mib;
    printf("peak of memory %.0f MiB: parameters and gradients %.0f, everything else in the step %.0f\n", peak_memory_mib(),
           before, peak_memory_mib() - before);
    printf("never made: logits of all %lld supervised tokens %.0f MiB, and as much again for their gradient\n",
           (long long)b->work.supervised, product);
    return STATUS_OK;
}

static enum status bench_with(const struct shape *s, int threads, bool first, struct error *err)
{
    struct model_config config = bench_model(s->layers, s->width, s->hidden, s->heads, s->kv_heads, s->vocab);
    const struct model_options options = {.checkpointing = s->checkpointing};
    struct bench b = {0};
    struct threads *pool = NULL;
    enum status st;
    TRY_OR(done, st, threads_create(threads, &pool, err));
    TRY_OR(done, st, model_params(&config, &b.table, err));
    TRY_OR(done, st, work_make(s, &config, &b.work, err));
    TRY_OR(done, st, model_create(&config, &b.table, &options, pool, &b.model, err));
    b.values = mem_alloc_aligned((size_t)b.table.values, sizeof *b.values);
    b.gradients = mem_alloc_aligned((size_t)b.table.values, sizeof *b.gradients);
    if (!s->memory)
        TRY_OR(done, st, peak_init(&b.peak, threads, err));
    if (!b.values || !b.gradients) {
        st = error_set(err, STATUS_NOMEM, "no memory for a model of %lld parameters", (long long)b.table.trained);
        goto done;
    }
    params_initialise(&b.table, 1, b.values);
    if (first)
        printf("%.1f M parameters, %lld tokens (%lld supervised) in %d step%s, %.2f TFLOP\n", 1e-6 * (double)b.table.trained,
               (long long)b.work.tokens, (long long)b.work.supervised, b.work.n_batches, b.work.n_batches > 1 ? "s" : "",
               b.work.flops * 1e-12);
    st = s->memory ? show_memory(&b, s, err) : time_steps(&b, s, pool, err);
done:
    mem_free_aligned(b.values);
    mem_free_aligned(b.gradients);
    peak_free(&b.peak);
    work_free(&b.work);
    model_free(b.model);
    params_free(&b.table);
    threads_free(pool);
    return st;
}

int bench_step(int argc, char **argv)
{
    struct error err = {0};
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        fputs(usage, stdout);
        return 0;
    }
    struct shape s = {.layers = 8, .width = 1024, .hidden = 2816, .heads = 16, .kv_heads = 16, .vocab = 32768,
                      .sequences = 4, .tokens = 512, .rounds = 3, .rows_per_step = 8};
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--memory")) { /* its defaults; options still win */
            s.vocab = 102400;
            s.sequences = 1;
            s.tokens = 8192;
            s.checkpointing = true;
        }
    enum status st = parse(argc, argv, &s, &err);
    int cores = threads_cores();
    bool both = s.threads == 0 && cores > 1 && !s.memory;
    if (st == STATUS_OK)
        st = bench_with(&s, both ? 1 : s.threads ? (int)s.threads : cores, true, &err);
    if (st == STATUS_OK && both)
        st = bench_with(&s, cores, false, &err);
    if (st != STATUS_OK)
        fprintf(stderr, "loar bench step: %s\n", err.text);
    return status_exit_code(st);
}
