/* A model made of a script: it writes what the script says, whatever it is asked, so that every token that is fed can be
 * predicted. Defines functions of worker/model/model.h, so include it in one file of a program, behind cmocka_all.h. */
#ifndef TESTS_SUPPORT_SCRIPTED_MODEL_H
#define TESTS_SUPPORT_SCRIPTED_MODEL_H

#include <math.h>

#include "worker/data/demo/demo.h"
#include "worker/data/tokenizer.h"
#include "worker/model/model.h"

enum { LONGEST = 400 };

/* `written` are the tokens that it wants to write, one after the other, whatever else is fed. */
static struct {
    int32_t written[LONGEST];
    int n_written, next;
    int32_t fed[LONGEST];
    int n_fed, capacity, caches;
    int prompt, task;
    int64_t vocab;
    int nan_at; /* token of `written` whose logits are not numbers; -1: none */
} script;

static int32_t end_token;

struct kv_cache {
    char nothing;
};
static struct kv_cache the_cache;

enum status kv_cache_create(const struct model *model, int max_positions, struct kv_cache **out, struct error *err)
{
    (void)model, (void)err;
    script.capacity = max_positions;
    script.n_fed = 0;
    script.caches++;
    *out = &the_cache;
    return STATUS_OK;
}

void kv_cache_free(struct kv_cache *cache)
{
    script.caches -= cache != NULL;
}

void kv_cache_reset(struct kv_cache *cache)
{
    (void)cache;
    script.n_fed = 0;
}

void kv_cache_set_task(struct kv_cache *cache, int prompt, int task)
{
    (void)cache;
    script.prompt = prompt;
    script.task = task;
}

int kv_cache_length(const struct kv_cache *cache)
{
    (void)cache;
    return script.n_fed;
}

/* Tokens that come back one by one in the order of the script are the model's own; all others were put there, and make
 * the model forget that it wanted to end its turn. */
enum status model_decode(struct model *model, const float *values, struct kv_cache *cache, const int32_t *tokens, int n,
                         float *logits, struct error *err)
{
    (void)model, (void)values, (void)cache, (void)err;
    assert_true(n > 0 && script.n_fed + n <= script.capacity);
    assert_true(script.next < script.n_written); /* else the script is too short for its test */
    bool own = n == 1 && tokens[0] == script.written[script.next];
    bool again = script.n_fed > 0 || script.next > 0; /* something was written since the script began */
    script.next += (script.n_fed > 0 && own) || (again && script.written[script.next] == end_token);
    memcpy(script.fed + script.n_fed, tokens, (size_t)n * sizeof *tokens);
    script.n_fed += n;
    memset(logits, 0, (size_t)script.vocab * sizeof *logits);
    assert_true(script.next < script.n_written);
    logits[script.written[script.next]] = script.next == script.nan_at ? NAN : 1;
    return STATUS_OK;
}

static struct tokenizer *tokenizer;

static int script_open(void **state)
{
    (void)state;
    struct error err;
    struct text file = {0}, config = {0};
    assert_ok(demo_tokenizer("", 0, 0, &file, &config, &err), &err);
    assert_ok(tokenizer_load_text(file.data, file.size, config.data, config.size, "demo", &tokenizer, &err), &err);
    text_free(&file);
    text_free(&config);
    end_token = tokenizer_eos(tokenizer);
    script.vocab = tokenizer_size(tokenizer);
    return 0;
}

static void script_close(void)
{
    tokenizer_free(tokenizer);
}

/* What the model writes from now on, a token per byte; '\1' is the end of its turn, '\2' the tag as a token of its own. */
static void model_writes_bytes(const char *text, size_t size)
{
    script.next = script.n_written = 0;
    script.nan_at = -1;
    struct token_list ids = {0};
    struct error err;
    assert_ok(tokenizer_encode(tokenizer, text, size, 0, &ids, &err), &err);
    assert_int_equal(ids.count, size);
    for (size_t i = 0; i < size; i++)
        script.written[script.n_written++] = text[i] == '\1'   ? end_token
                                             : text[i] == '\2' ? tokenizer_id(tokenizer, "</think>")
                                                               : ids.ids[i];
    token_list_free(&ids);
    script.written[script.n_written++] = 99; /* never asked for in a test that ends by itself */
}

static void model_writes(const char *text)
{
    model_writes_bytes(text, strlen(text));
}

#endif
