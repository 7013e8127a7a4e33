/* check_reference DIR [more...]: a model folder with reference numbers beside it (reference.json, reference.safetensors:
 * logits, loss, gradients, AdamW steps, or per prompt logits, loss and greedy tokens). Prints the largest errors and
 * ends with 0 only if logits and losses agree within 1e-5 and gradients within 1e-4, relative. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "ps/optimizer/optimizer.h"
#include "worker/model/config.h"
#include "worker/model/import.h"
#include "worker/model/model.h"
#include "worker/model/safetensors.h"

#define LOGIT_TOLERANCE 1e-5
#define GRADIENT_TOLERANCE 1e-4

struct check {
    const char *dir;
    struct model_config config;
    struct params table;
    struct model *model;
    struct threads *pool;
    float *values, *gradients;
    struct json *numbers;
    struct safetensors *tensors;
    struct batch batch;
    bool failed;
    struct error err;
};

static void *need(void *block)
{
    if (!block) {
        fprintf(stderr, "check_reference: no memory\n");
        exit(5);
    }
    return block;
}

/* One line per quantity; an error that is not a number fails. */
static void judge(struct check *c, const char *what, double error, double tolerance)
{
    bool good = error <= tolerance;
    printf("  %-34s %10.3g  (limit %g)%s\n", what, error, tolerance, good ? "" : "  FAILED");
    if (!good)
        c->failed = true;
}

static double relative(double found, double wanted)
{
    return fabs(found - wanted) / fabs(wanted);
}

/* Largest difference against the largest value. */
static double array_error(const float *found, const float *wanted, int64_t n)
{
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        double difference = fabs((double)found[i] - wanted[i]);
        if (!(difference <= worst))
            worst = difference;
        if (fabs((double)wanted[i]) > scale)
            scale = fabs((double)wanted[i]);
    }
    return scale > 0 ? worst / scale : worst;
}

static float *tensor(struct check *c, const char *name, int64_t size)
{
    const struct safetensors_entry *entry = safetensors_find(c->tensors, name);
    if (!entry)
        return NULL;
    float *out = need(mem_alloc((size_t)size, sizeof *out));
    if (safetensors_to_float(entry, out, &c->err) != STATUS_OK) {
        mem_free(out);
        return NULL;
    }
    return out;
}

/* Rows of ids; labels may be NULL: every next token counts. */
static void make_batch(struct check *c, const struct json *ids, const struct json *labels)
{
    static const float weights[SPAN_COUNT] = {1, 1, 1, 1};
    batch_clear(&c->batch);
    bool single = json_kind(json_at(ids, 0)) == JSON_KIND_INT;
    size_t rows = single ? 1 : json_count(ids);
    for (size_t r = 0; r < rows; r++) {
        const struct json *row = single ? ids : json_at(ids, r);
        int n = (int)json_count(row);
        int32_t *tokens = need(mem_alloc((size_t)n, sizeof *tokens));
        uint8_t *spans = need(mem_alloc((size_t)n, 1));
        for (int i = 0; i < n; i++) {
            tokens[i] = (int32_t)json_to_int(json_at(row, (size_t)i));
            spans[i] = SPAN_ANSWER;
        }
        int first = c->batch.n_tokens;
        struct row one = {.tokens = tokens, .spans = spans, .n_tokens = n, .weight = 1};
        if (batch_append(&c->batch, &one, weights, &c->err) != STATUS_OK)
            exit(5);
        for (int i = 0; labels && i + 1 < n; i++)
            if (json_to_int(json_at(json_at(labels, r), (size_t)i + 1)) == -100) {
                c->batch.targets[first + i] = -1;
                c->batch.weights[first + i] = 0;
            }
        mem_free(tokens);
        mem_free(spans);
    }
}

static void check_logits(struct check *c, const char *name)
{
    int64_t size = c->batch.n_tokens * c->config.vocab;
    float *wanted = tensor(c, name, size), *found = need(mem_alloc((size_t)size, sizeof *found));
    if (!wanted)
        return mem_free(found);
    if (model_logits(c->model, c->values, &c->batch, found, &c->err) != STATUS_OK)
        c->failed = true;
    judge(c, name, array_error(found, wanted, size), LOGIT_TOLERANCE);
    mem_free(found);
    mem_free(wanted);
}

/* Mean loss; the gradients are left as sums. */
static double gradient(struct check *c, struct loss_sums *sums)
{
    if (model_gradient(c->model, c->values, &c->batch, c->gradients, NULL, NULL, sums, &c->err) != STATUS_OK) {
        fprintf(stderr, "check_reference: %s\n", c->err.text);
        c->failed = true;
        return NAN;
    }
    return sums->loss / sums->weight;
}

static double norm_of(const struct check *c, double weight)
{
    double squares = 0;
    for (int64_t i = 0; i < c->table.values; i++)
        squares += (double)c->gradients[i] / weight * (c->gradients[i] / weight);
    return sqrt(squares);
}

static void check_gradients(struct check *c, double weight)
{
    double worst = 0;
    const char *where = "";
    int compared = 0;
    for (int i = 0; i < c->table.count; i++) {
        const struct param *p = &c->table.items[i];
        char name[256];
        snprintf(name, sizeof name, "grad.%s", p->name);
        float *wanted = tensor(c, name, p->size), *found = need(mem_alloc((size_t)p->size, sizeof *found));
        for (int64_t j = 0; j < p->size; j++)
            found[j] = (float)(c->gradients[p->offset + j] / weight);
        if (wanted) {
            double error = array_error(found, wanted, p->size);
            if (!(error <= worst)) {
                worst = error;
                where = p->name;
            }
            compared++;
        }
        mem_free(wanted);
        mem_free(found);
    }
    printf("  %d of %d gradients compared, worst: %s\n", compared, c->table.count, where);
    if (compared != c->table.count)
        c->failed = true;
    judge(c, "gradients", worst, GRADIENT_TOLERANCE);
}

static void check_training(struct check *c)
{
    const struct json *train = json_member(c->numbers, "train"), *batches = json_member(c->numbers, "train_batches");
    if (!train)
        return;
    const struct json *betas = json_member(train, "betas"), *losses = json_member(train, "losses"),
                      *norms = json_member(train, "grad_norms");
    struct optimizer_options options = {
        .beta1 = json_to_real(json_at(betas, 0)),
        .beta2 = json_to_real(json_at(betas, 1)),
        .epsilon = json_to_real(json_member(train, "eps")),
        .weight_decay = json_to_real(json_member(train, "weight_decay")),
    };
    struct chunks chunks = chunks_make(c->table.values, 1024);
    struct optimizer *optimizer = NULL;
    struct shard *shard = NULL;
    const float **sums = need(mem_alloc((size_t)chunks.count, sizeof *sums));
    for (int i = 0; i < c->table.count; i++)
        c->table.items[i].decay = true; /* as in the reference runs */
    if (optimizer_create("adamw", &options, &c->table, &chunks, &optimizer, &c->err) != STATUS_OK ||
        shard_create(&chunks, optimizer_n_states(optimizer), optimizer_state_names(optimizer), &shard, &c->err) != STATUS_OK)
        exit(5);
    memcpy(shard->parameters, c->values, (size_t)c->table.values * sizeof(float));
    for (int i = 0; i < chunks.count; i++)
        sums[i] = c->gradients + chunk_begin(&chunks, i);
    double worst_loss = 0, worst_norm = 0;
    for (size_t step = 0; step < json_count(losses); step++) {
        const struct json *batch = json_at(batches, step % json_count(batches));
        struct loss_sums numbers;
        memcpy(c->values, shard->parameters, (size_t)c->table.values * sizeof(float));
        make_batch(c, json_member(batch, "input_ids"), json_member(batch, "labels"));
        double loss = gradient(c, &numbers), norm = norm_of(c, numbers.weight);
        double loss_error = relative(loss, json_to_real(json_at(losses, step)));
        double norm_error = relative(norm, json_to_real(json_at(norms, step)));
        worst_loss = loss_error <= worst_loss ? worst_loss : loss_error;
        worst_norm = norm_error <= worst_norm ? worst_norm : norm_error;
        struct optimizer_scalars scalars = {
            .pace = {{json_to_real(json_member(train, "lr")),
                      gradient_clip(norm, json_to_real(json_member(train, "clip_grad_norm"))) / numbers.weight}},
            .step = (int64_t)step + 1,
        };
        if (optimizer_step(optimizer, c->pool, &scalars, shard, sums, NULL, NULL, &c->err) != STATUS_OK)
            c->failed = true;
    }
    printf("  %zu AdamW steps\n", json_count(losses));
    judge(c, "losses of the steps", worst_loss, LOGIT_TOLERANCE);
    judge(c, "gradient norms of the steps", worst_norm, GRADIENT_TOLERANCE);
    optimizer_free(optimizer);
    shard_free(shard);
    mem_free(sums);
}

static void check_batch(struct check *c)
{
    struct loss_sums sums;
    make_batch(c, json_member(c->numbers, "input_ids"), json_member(c->numbers, "labels"));
    check_logits(c, "logits");
    judge(c, "loss", relative(gradient(c, &sums), json_to_real(json_member(c->numbers, "loss"))), LOGIT_TOLERANCE);
    judge(c, "gradient norm", relative(norm_of(c, sums.weight), json_to_real(json_member(c->numbers, "grad_norm"))), GRADIENT_TOLERANCE);
    check_gradients(c, sums.weight);
    check_training(c);
}

static void check_greedy(struct check *c, const struct json *ids, const struct json *greedy)
{
    struct kv_cache *cache;
    int n = (int)json_count(ids), wanted = (int)json_count(greedy), same = 0;
    int32_t *tokens = need(mem_alloc((size_t)n, sizeof *tokens));
    float *logits = need(mem_alloc((size_t)c->config.vocab, sizeof *logits));
    for (int i = 0; i < n; i++)
        tokens[i] = (int32_t)json_to_int(json_at(ids, (size_t)i));
    if (kv_cache_create(c->model, n + wanted, &cache, &c->err) != STATUS_OK)
        exit(5);
    enum status st = model_decode(c->model, c->values, cache, tokens, n, logits, &c->err);
    while (st == STATUS_OK && same < wanted) {
        int32_t best = 0;
        for (int32_t v = 1; v < c->config.vocab; v++)
            best = logits[v] > logits[best] ? v : best;
        if (best != json_to_int(json_at(greedy, (size_t)same)))
            break;
        same++;
        st = model_decode(c->model, c->values, cache, &best, 1, logits, &c->err);
    }
    printf("  greedy tokens %d of %d%s\n", same, wanted, same == wanted ? "" : "  FAILED");
    c->failed = c->failed || same != wanted;
    kv_cache_free(cache);
    mem_free(tokens);
    mem_free(logits);
}

static void check_prompts(struct check *c, const struct json *prompts)
{
    for (size_t i = 0; i < json_count(prompts); i++) {
        const struct json *prompt = json_at(prompts, i);
        struct loss_sums sums;
        char name[32];
        snprintf(name, sizeof name, "logits.%zu", i);
        make_batch(c, json_member(prompt, "ids"), NULL);
        printf(" prompt %zu\n", i);
        check_logits(c, name);
        judge(c, "loss", relative(gradient(c, &sums), json_to_real(json_member(prompt, "loss"))), LOGIT_TOLERANCE);
        judge(c, "gradient norm", relative(norm_of(c, sums.weight), json_to_real(json_member(prompt, "grad_norm"))), GRADIENT_TOLERANCE);
        if (i + 1 == json_count(prompts)) /* the file holds the gradients of the last one */
            check_gradients(c, sums.weight);
        check_greedy(c, json_member(prompt, "ids"), json_member(prompt, "greedy"));
    }
}

static enum status open_reference(struct check *c)
{
    struct error *err = &c->err;
    char *json = path_join(c->dir, "reference.json"), *tensors = path_join(c->dir, "reference.safetensors");
    enum status st = model_config_read(c->dir, &c->config, err);
    if (st == STATUS_OK)
        st = model_params(&c->config, &c->table, err);
    if (st == STATUS_OK)
        st = json_read_file(need(json), &c->numbers, err);
    if (st == STATUS_OK)
        st = safetensors_open(need(tensors), &c->tensors, err);
    if (st == STATUS_OK) {
        c->values = need(mem_alloc_aligned((size_t)c->table.values, sizeof(float)));
        c->gradients = need(mem_alloc_aligned((size_t)c->table.values, sizeof(float)));
        st = model_import(c->dir, &c->config, &c->table, NULL, c->values, NULL, err);
    }
    if (st == STATUS_OK)
        st = threads_create(1, &c->pool, err);
    if (st == STATUS_OK)
        st = model_create(&c->config, &c->table, &(struct model_options){0}, c->pool, &c->model, err);
    mem_free(json);
    mem_free(tensors);
    return st;
}

static bool check_folder(const char *dir)
{
    struct check c = {.dir = dir};
    printf("%s\n", dir);
    if (open_reference(&c) != STATUS_OK) {
        printf("  FAILED: %s\n", c.err.text);
        c.failed = true;
    } else {
        const struct json *prompts = json_member(c.numbers, "prompts");
        if (prompts)
            check_prompts(&c, prompts);
        else
            check_batch(&c);
    }
    printf("  %s\n", c.failed ? "FAILED" : "ok");
    model_free(c.model);
    threads_free(c.pool);
    safetensors_close(c.tensors);
    json_free(c.numbers);
    batch_free(&c.batch);
    mem_free_aligned(c.values);
    mem_free_aligned(c.gradients);
    params_free(&c.table);
    return !c.failed;
}

int main(int argc, char **argv)
{
    bool good = argc > 1;
    if (!good)
        fprintf(stderr, "usage: check_reference DIR [DIR ...]\n");
    for (int i = 1; i < argc; i++) {
        FILE *probe = fopen(argv[i], "r");
        if (!probe) {
            printf("skipped: '%s' is not here\n", argv[i]);
            return 77;
        }
        fclose(probe);
        good = check_folder(argv[i]) && good;
    }
    return good ? 0 : 1;
}
