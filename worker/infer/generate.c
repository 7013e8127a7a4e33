#include "worker/infer/generate.h"

#include <ctype.h>
#include <string.h>

#include "common/memory.h"

struct generator {
    struct model *model;
    const struct tokenizer *tokenizer;
    const float *values;
    struct generate_settings settings;
    int64_t max_positions;
    bool keeps_cache;       /* for the next generation, if it is large enough */
    struct kv_cache *cache;
    int64_t cache_positions;
    struct sampler *sampler;
    float *logits; /* [V] of the token to come */
    struct token_list prefix; /* answer prefix */
    uint64_t stream, position;
};

/* One part of the output as it grows. */
struct part {
    enum span span;
    struct text *text;
    size_t told; /* bytes handed to on_text */
    const char *skip; /* tag that the part begins with and that is no part of its text; NULL: none */
    bool opened;      /* it was there, or none was wanted */
    generate_text_fn *on_text;
    void *context;
};

enum stop_reason { STOP_LIMIT, STOP_END, STOP_TEXT };

const char *generate_status_name(enum generate_status status)
{
    static const char *const names[] = {"complete", "thought_cut", "answer_cut", "no_answer"};
    return names[status];
}

void generated_free(struct generated *generated)
{
    text_free(&generated->thought);
    text_free(&generated->answer);
}

void generated_reset(struct generated *generated)
{
    text_clear(&generated->thought);
    text_clear(&generated->answer);
    *generated = (struct generated){.thought = generated->thought, .answer = generated->answer};
}

enum status generator_create(struct model *model, const struct model_config *config, const float *values,
                             const struct tokenizer *tokenizer, const struct generate_settings *settings,
                             struct generator **out, struct error *err)
{
    struct generator *g = mem_alloc(1, sizeof *g);
    if (!g)
        FAIL(err, STATUS_NOMEM, "no memory to generate");
    *g = (struct generator){.model = model, .tokenizer = tokenizer, .values = values, .settings = *settings,
                            .max_positions = config->max_positions, .keeps_cache = !config->loar};
    g->logits = mem_alloc((size_t)config->vocab, sizeof *g->logits);
    enum status st = g->logits ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for %lld logits", (long long)config->vocab);
    if (st == STATUS_OK)
        st = sampler_create(&settings->sampling, config->vocab, &g->sampler, err);
    if (st == STATUS_OK && settings->answer_prefix && *settings->answer_prefix)
        st = tokenizer_encode(tokenizer, settings->answer_prefix, strlen(settings->answer_prefix), 0, &g->prefix, err);
    if (st != STATUS_OK) {
        generator_free(g);
        return st;
    }
    *out = g;
    return STATUS_OK;
}

void generator_free(struct generator *g)
{
    if (!g)
        return;
    kv_cache_free(g->cache);
    sampler_free(g->sampler);
    token_list_free(&g->prefix);
    mem_free(g->logits);
    mem_free(g);
}

void generator_set_task(struct generator *g, int task)
{
    g->settings.task = task;
}

static enum status feed(struct generator *g, const int32_t *tokens, int n, struct error *err)
{
    return n > 0 ? model_decode(g->model, g->values, g->cache, tokens, n, g->logits, err) : STATUS_OK;
}

static bool ends_turn(const struct generator *g, int32_t token)
{
    for (int i = 0; i < g->settings.n_ends; i++)
        if (g->settings.ends[i] == token)
            return true;
    return false;
}

/* Where the earliest of the texts begins, or NULL. */
static const char *find_any(const struct text *text, const char *const *words, int n)
{
    const char *found = NULL;
    for (int i = 0; text->data && i < n; i++) {
        const char *at = memmem(text->data, text->size, words[i], strlen(words[i])); /* models write NUL bytes, too */
        if (at && (!found || at < found))
            found = at;
    }
    return found;
}

/* Bytes of white space and the tag at the beginning; *open: more may come of it. */
static size_t skipped(const struct part *part, bool *open)
{
    size_t at = 0, size = part->skip ? strlen(part->skip) : 0;
    while (size && at < part->text->size && isspace((unsigned char)part->text->data[at]))
        at++;
    size_t left = part->text->size - at, common = 0;
    while (common < size && common < left && part->text->data[at + common] == part->skip[common])
        common++;
    *open = size && common == left && common < size;
    return size && common == size ? at + size : 0;
}

/* Hands on what can no longer become part of a stop text. */
static void tell(struct part *part, const char *const *words, int n, bool all)
{
    size_t held = 0;
    for (int i = 0; !all && i < n; i++)
        if (strlen(words[i]) > held + 1)
            held = strlen(words[i]) - 1;
    if (!part->on_text || part->text->size < held || part->text->size - held <= part->told)
        return;
    bool open;
    size_t end = part->text->size - held, begin = skipped(part, &open);
    if ((open && !all) || begin > end)
        return;
    part->told = part->told > begin ? part->told : begin;
    enum span span = part->skip && !begin ? SPAN_ANSWER : part->span; /* what does not open a thought is an answer */
    while (end > part->told && end < part->text->size && ((unsigned char)part->text->data[end] & 0xC0) == 0x80)
        end--; /* not inside a character */
    if (end == part->told)
        return;
    part->on_text(part->context, span, part->text->data + part->told, end - part->told);
    part->told = end;
}

/* Takes the tag out of the finished text. */
static void cut_skipped(struct part *part)
{
    bool open;
    size_t begin = part->text->data ? skipped(part, &open) : 0;
    part->opened = begin || !part->skip;
    if (!begin)
        return;
    part->text->size -= begin;
    memmove(part->text->data, part->text->data + begin, part->text->size + 1);
}

/* Writes tokens until one of the stop texts, the end of the turn or the limit. The stop text is cut off. */
static enum status write_part(struct generator *g, struct part *part, int limit, const char *const *stops, int n_stops, int *count,
                              enum stop_reason *reason, struct error *err)
{
    struct tokenizer_stream stream;
    TRY(tokenizer_stream_init(&stream, g->tokenizer, true, err));
    enum status st = STATUS_OK;
    *reason = STOP_LIMIT;
    for (*count = 0; st == STATUS_OK && *count < limit && kv_cache_length(g->cache) < g->max_positions; ++*count) {
        int32_t token;
        st = sampler_next(g->sampler, g->logits, g->stream, g->position++, &token, err);
        if (st != STATUS_OK)
            break;
        if (ends_turn(g, token)) {
            *reason = STOP_END;
            break;
        }
        st = tokenizer_stream_push(&stream, token, part->text, err);
        if (st == STATUS_OK)
            st = feed(g, &token, 1, err);
        const char *stop = find_any(part->text, stops, n_stops);
        if (stop) {
            part->text->size = (size_t)(stop - part->text->data);
            part->text->data[part->text->size] = '\0';
            *reason = STOP_TEXT;
            ++*count;
            break;
        }
        tell(part, stops, n_stops, false);
    }
    if (st == STATUS_OK && *reason != STOP_TEXT)
        st = tokenizer_stream_finish(&stream, part->text, err);
    tokenizer_stream_free(&stream);
    tell(part, stops, n_stops, true);
    cut_skipped(part);
    if (st == STATUS_OK && part->text->failed)
        st = error_set(err, STATUS_NOMEM, "no memory for the generated text");
    return st;
}

static bool is_blank(const struct text *text)
{
    for (size_t i = 0; i < text->size; i++)
        if (!isspace((unsigned char)text->data[i]))
            return false;
    return true;
}

/* An empty cache. Layers with a window keep other rows in a larger cache, so those of routed models are made anew: what a
 * generation writes must not depend on the ones before it. */
static enum status clean_cache(struct generator *g, int64_t positions, struct error *err)
{
    if (g->cache && g->keeps_cache && positions <= g->cache_positions) {
        kv_cache_reset(g->cache);
        return STATUS_OK;
    }
    kv_cache_free(g->cache);
    g->cache = NULL;
    TRY(kv_cache_create(g->model, (int)positions, &g->cache, err));
    g->cache_positions = positions;
    return STATUS_OK;
}

static enum status prepare(struct generator *g, int n_prompt, struct error *err)
{
    const struct generate_settings *s = &g->settings;
    int64_t wanted = (int64_t)n_prompt + s->max_new_tokens + (s->two_stage ? s->max_thinking_tokens + s->n_close : 0) +
                     (int64_t)g->prefix.count;
    if (n_prompt < 1 || n_prompt >= g->max_positions)
        FAIL(err, STATUS_DATA, "the prompt has %d tokens; the model has %lld positions and needs at least one to answer", n_prompt,
             (long long)g->max_positions);
    if (wanted > g->max_positions)
        wanted = g->max_positions;
    TRY(clean_cache(g, wanted, err));
    kv_cache_set_task(g->cache, n_prompt, s->task);
    return STATUS_OK;
}

/* *answered: the model opened no thought and ended its turn, so what it wrote is the answer. */
static enum status think(struct generator *g, struct part *part, struct generated *out, bool *answered, struct error *err)
{
    enum stop_reason reason;
    const char *close = g->settings.thought_close;
    TRY(write_part(g, part, g->settings.max_thinking_tokens, &close, 1, &out->thought_tokens, &reason, err));
    *answered = reason == STOP_END && !part->opened;
    if (reason == STOP_TEXT || *answered)
        return STATUS_OK;
    if (reason == STOP_LIMIT)
        out->status = GENERATE_THOUGHT_CUT;
    if (kv_cache_length(g->cache) + g->settings.n_close >= g->max_positions) {
        out->status = GENERATE_NO_ANSWER; /* what would follow is more of the thought */
        return STATUS_OK;
    }
    return feed(g, g->settings.close, g->settings.n_close, err);
}

static void take_as_answer(struct generated *out)
{
    struct text thought = out->answer;
    out->answer = out->thought;
    out->thought = thought;
    out->answer_tokens = out->thought_tokens;
    out->thought_tokens = 0;
    if (is_blank(&out->answer))
        out->status = GENERATE_NO_ANSWER;
}

enum status generator_run(struct generator *g, const int32_t *prompt, int n_prompt, uint64_t stream, generate_text_fn *on_text,
                          void *context, struct generated *out, struct error *err)
{
    generated_reset(out);
    g->stream = stream;
    g->position = 0;
    TRY(prepare(g, n_prompt, err));
    TRY(feed(g, prompt, n_prompt, err));
    if (g->settings.two_stage) {
        struct part thought = {.span = SPAN_THOUGHT, .text = &out->thought, .skip = g->settings.thought_open, .on_text = on_text, .context = context};
        bool answered;
        TRY(think(g, &thought, out, &answered, err));
        if (answered)
            take_as_answer(out);
        if (answered || out->status == GENERATE_NO_ANSWER)
            return STATUS_OK;
    }
    if (g->prefix.count && kv_cache_length(g->cache) + (int64_t)g->prefix.count < g->max_positions)
        TRY(feed(g, g->prefix.ids, (int)g->prefix.count, err));
    enum stop_reason reason;
    struct part answer = {.span = SPAN_ANSWER, .text = &out->answer, .on_text = on_text, .context = context};
    TRY(write_part(g, &answer, g->settings.max_new_tokens, g->settings.stops, g->settings.n_stops, &out->answer_tokens, &reason,
                   err));
    if (is_blank(&out->answer))
        out->status = GENERATE_NO_ANSWER;
    else if (reason == STOP_LIMIT)
        out->status = GENERATE_ANSWER_CUT;
    return STATUS_OK;
}
