#include "worker/infer/generate.h"

#include <ctype.h>
#include <string.h>

#include "common/memory.h"

struct generator {
    struct model *model;
    const struct tokenizer *tokenizer;
    const float *values;
    struct generate_settings settings;
    int64_t max_positions, vocab;
    bool keeps_cache;       /* for the next generation, if it is large enough */
    struct kv_cache *cache;
    int64_t cache_positions;
    struct sampler *sampler;
    float *logits; /* [V] of the token to come */
    struct token_list prefix; /* answer prefix */
    const int32_t *prompt;    /* [n_prompt] of this generation */
    int n_prompt;
    uint8_t *seen; /* [V] 1: the token is there already; NULL without a penalty for that */
    uint64_t stream, position;
    generate_stop_fn *stop; /* NULL: none */
    void *stop_context;
};

/* One part of the output as it grows. */
struct part {
    enum span span;
    struct text *text;
    size_t told; /* bytes handed to on_text */
    generate_text_fn *on_text;
    void *context;
    struct tokenizer_stream stream;
    int left, written; /* tokens that may still come, and that came */
};

enum stop_reason { STOP_NONE, STOP_LIMIT, STOP_END, STOP_TEXT };

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
    *g = (struct generator){.model = model, .tokenizer = tokenizer, .values = values, .settings = *settings, .vocab = config->vocab,
                            .max_positions = config->max_positions, .keeps_cache = !config->loar};
    g->logits = mem_alloc((size_t)config->vocab, sizeof *g->logits);
    enum status st = g->logits ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for %lld logits", (long long)config->vocab);
    if (st == STATUS_OK)
        st = sampler_create(&settings->sampling, config->vocab, &g->sampler, err);
    double penalty = settings->sampling.repetition_penalty;
    if (st == STATUS_OK && penalty > 0 && penalty != 1 && !(g->seen = mem_alloc((size_t)config->vocab, sizeof *g->seen)))
        st = error_set(err, STATUS_NOMEM, "no memory to tell %lld tokens apart", (long long)config->vocab);
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
    mem_free(g->seen);
    mem_free(g);
}

void generator_set_stop(struct generator *g, generate_stop_fn *stop, void *context)
{
    g->stop = stop;
    g->stop_context = context;
}

void generator_set_task(struct generator *g, int task)
{
    g->settings.task = task;
}

static enum status feed(struct generator *g, const int32_t *tokens, int n, struct error *err)
{
    for (int i = 0; g->seen && i < n; i++)
        if (tokens[i] >= 0 && tokens[i] < g->vocab)
            g->seen[tokens[i]] = 1;
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

/* Hands on what can no longer become part of a stop text. */
static void tell(struct part *part, const char *const *words, int n, bool all)
{
    size_t held = 0;
    for (int i = 0; !all && i < n; i++)
        if (strlen(words[i]) > held + 1)
            held = strlen(words[i]) - 1;
    if (!part->on_text || part->text->size < held || part->text->size - held <= part->told)
        return;
    size_t end = part->text->size - held;
    while (end > part->told && end < part->text->size && ((unsigned char)part->text->data[end] & 0xC0) == 0x80)
        end--; /* not inside a character */
    if (end == part->told)
        return;
    part->on_text(part->context, part->span, part->text->data + part->told, end - part->told);
    part->told = end;
}

/* ---- Parts ------------------------------------------------------------------------------------------------------ */

static enum status write_token(struct generator *g, struct part *part, enum stop_reason *reason, struct error *err)
{
    int32_t token;
    *reason = STOP_LIMIT;
    if (part->left <= 0 || kv_cache_length(g->cache) >= g->max_positions || (g->stop && g->stop(g->stop_context)))
        return STATUS_OK;
    if (g->seen)
        sample_penalise(g->logits, g->seen, g->vocab, g->settings.sampling.repetition_penalty);
    TRY(sampler_next(g->sampler, g->logits, g->stream, g->position++, &token, err));
    *reason = STOP_END;
    if (ends_turn(g, token))
        return STATUS_OK;
    *reason = STOP_NONE;
    part->left--;
    part->written++;
    TRY(tokenizer_stream_push(&part->stream, token, part->text, err));
    return feed(g, &token, 1, err);
}

static void cut(struct text *text, size_t size)
{
    text->size = size;
    if (text->data)
        text->data[size] = '\0';
}

/* Writes tokens until one of the stop texts, the end of the turn or the limit; *reason: what has ended the part already. The
 * stop text is cut off. */
static enum status write_part(struct generator *g, struct part *part, const char *const *stops, int n_stops,
                              enum stop_reason *reason, struct error *err)
{
    enum status st = STATUS_OK;
    while (st == STATUS_OK) {
        const char *stop = find_any(part->text, stops, n_stops);
        if (stop) {
            cut(part->text, (size_t)(stop - part->text->data));
            *reason = STOP_TEXT;
        }
        if (*reason != STOP_NONE)
            break;
        tell(part, stops, n_stops, false);
        st = write_token(g, part, reason, err);
    }
    if (st == STATUS_OK && *reason != STOP_TEXT)
        st = tokenizer_stream_finish(&part->stream, part->text, err);
    tell(part, stops, n_stops, true);
    if (st == STATUS_OK && part->text->failed)
        st = error_set(err, STATUS_NOMEM, "no memory for the generated text");
    return st;
}

static size_t leading_blanks(const struct text *text)
{
    size_t n = 0;
    while (n < text->size && isspace((unsigned char)text->data[n]))
        n++;
    return n;
}

/* Writes tokens until it is certain whether the part begins with the opening tag, and takes that away: some prompts hold it
 * already and some models repeat it. */
static enum status write_opening(struct generator *g, struct part *part, const char *const *stops, int n_stops, bool *opened,
                                 enum stop_reason *reason, struct error *err)
{
    const char *tag = g->settings.thought_open;
    size_t size = tag ? strlen(tag) : 0, blanks = 0, same = 0;
    *reason = STOP_NONE;
    while (size && *reason == STOP_NONE && !find_any(part->text, stops, n_stops)) {
        blanks = leading_blanks(part->text);
        same = part->text->size - blanks < size ? part->text->size - blanks : size;
        if (same == size || (same && memcmp(part->text->data + blanks, tag, same) != 0))
            break;
        TRY(write_token(g, part, reason, err));
    }
    *opened = size && same == size && !memcmp(part->text->data + blanks, tag, size);
    if (*opened) {
        memmove(part->text->data, part->text->data + blanks + size, part->text->size - blanks - size);
        cut(part->text, part->text->size - blanks - size);
    }
    return STATUS_OK;
}

/* ---- Stages ----------------------------------------------------------------------------------------------------- */

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
    if (g->seen)
        memset(g->seen, 0, (size_t)g->vocab * sizeof *g->seen);
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

/* Feeds the prompt and tokens that follow it to an empty cache. */
static enum status feed_first(struct generator *g, const int32_t *tokens, int n, struct error *err)
{
    kv_cache_set_task(g->cache, g->n_prompt, g->settings.task);
    TRY(feed(g, g->prompt, g->n_prompt, err));
    return feed(g, tokens, n, err);
}

static enum status prepare(struct generator *g, struct error *err)
{
    const struct generate_settings *s = &g->settings;
    int n_prompt = g->n_prompt;
    int64_t wanted = (int64_t)n_prompt + s->max_new_tokens + (s->two_stage ? s->max_thinking_tokens + s->n_close : 0) +
                     (int64_t)g->prefix.count;
    if (n_prompt < 1 || n_prompt >= g->max_positions)
        FAIL(err, STATUS_DATA, "the prompt has %d tokens; the model has %lld positions and needs at least one to answer", n_prompt,
             (long long)g->max_positions);
    if (wanted > g->max_positions)
        wanted = g->max_positions;
    TRY(clean_cache(g, wanted, err));
    return feed_first(g, NULL, 0, err);
}

/* Takes back what ended the thought and puts the text that makes it go on in its place; the thought is spelt anew, as a row
 * would spell it. *more: there was room for that. */
static enum status extend(struct generator *g, struct part *part, bool *more, struct error *err)
{
    struct token_list ids = {0};
    struct text again = {0};
    size_t size = part->text->size;
    text_puts(part->text, g->settings.thinking_extend_text);
    if (part->text->failed)
        FAIL(err, STATUS_NOMEM, "no memory for the generated text");
    enum status st = tokenizer_encode(g->tokenizer, part->text->data, part->text->size, 0, &ids, err);
    *more = st == STATUS_OK && ids.count < (size_t)g->settings.max_thinking_tokens &&
            (int64_t)ids.count + g->n_prompt + g->settings.n_close < g->max_positions;
    if (st == STATUS_OK && !*more)
        cut(part->text, size);
    if (*more) {
        part->written = (int)ids.count;
        part->left = g->settings.max_thinking_tokens - part->written;
        st = clean_cache(g, g->cache_positions, err);
        if (st == STATUS_OK)
            st = feed_first(g, ids.ids, part->written, err);
        for (size_t i = 0; i < ids.count && st == STATUS_OK; i++) /* so that the decoder knows what came before */
            st = tokenizer_stream_push(&part->stream, ids.ids[i], &again, err);
    }
    token_list_free(&ids);
    text_free(&again);
    return st;
}

/* *answered: the model should have opened a thought, did not, and ended its turn, so what it wrote is the answer. */
static enum status write_thought(struct generator *g, struct part *part, enum stop_reason *reason, bool *answered, struct error *err)
{
    const char *close = g->settings.thought_close;
    bool opened, more = true;
    TRY(write_opening(g, part, &close, 1, &opened, reason, err));
    part->span = opened || !g->settings.model_opens ? SPAN_THOUGHT : SPAN_ANSWER; /* for those who listen */
    for (int round = 0;; round++) {
        TRY(write_part(g, part, &close, 1, reason, err));
        *answered = part->span == SPAN_ANSWER && *reason == STOP_END;
        if (*answered || *reason == STOP_LIMIT || part->written >= g->settings.min_thinking_tokens || round == g->settings.min_thinking_tokens)
            return STATUS_OK; /* a round adds a token at least, but for tokenizers that drop the text */
        tokenizer_stream_free(&part->stream);
        TRY(tokenizer_stream_init(&part->stream, g->tokenizer, true, err));
        TRY(extend(g, part, &more, err));
        if (!more)
            return STATUS_OK;
        *reason = STOP_NONE;
    }
}

static void swap_texts(struct generated *out)
{
    struct text thought = out->answer;
    out->answer = out->thought;
    out->thought = thought;
}

static enum status think(struct generator *g, struct part *part, struct generated *out, bool *answered, struct error *err)
{
    enum stop_reason reason;
    *answered = false;
    enum status st = write_thought(g, part, &reason, answered, err);
    *(*answered ? &out->answer_tokens : &out->thought_tokens) = part->written;
    if (*answered)
        swap_texts(out);
    if (st != STATUS_OK || reason == STOP_TEXT || *answered)
        return st;
    if (reason == STOP_LIMIT)
        out->status = GENERATE_THOUGHT_CUT;
    if (kv_cache_length(g->cache) + g->settings.n_close >= g->max_positions) {
        out->status = GENERATE_NO_ANSWER; /* what would follow is more of the thought */
        return STATUS_OK;
    }
    return feed(g, g->settings.close, g->settings.n_close, err);
}

/* The answer proper; what ended the part already is in *reason. */
static enum status write_answer(struct generator *g, struct part *part, enum stop_reason *reason, struct generated *out,
                                struct error *err)
{
    enum status st = write_part(g, part, g->settings.stops, g->settings.n_stops, reason, err);
    out->answer_tokens = part->written;
    return st;
}

/* Moves what precedes a closing tag without an opening one from the answer to the thought. */
static enum status part_at_close(const struct generator *g, struct generated *out, struct error *err)
{
    const char *tag = g->settings.thought_close;
    const char *at = tag ? find_any(&out->answer, &tag, 1) : NULL;
    if (!at)
        return STATUS_OK;
    size_t thought = (size_t)(at - out->answer.data), rest = out->answer.size - thought - strlen(tag);
    text_append(&out->thought, out->answer.data, thought);
    memmove(out->answer.data, at + strlen(tag), rest);
    cut(&out->answer, rest);
    if (out->thought.failed)
        FAIL(err, STATUS_NOMEM, "no memory for the generated text");
    return STATUS_OK;
}

/* One stage: a thought that the model opens and closes by itself, if it does, and the answer. */
static enum status answer_at_once(struct generator *g, struct part *part, enum stop_reason *reason, struct generated *out,
                                  struct error *err)
{
    bool opened;
    TRY(write_opening(g, part, g->settings.stops, g->settings.n_stops, &opened, reason, err));
    if (opened) {
        const char *close = g->settings.thought_close;
        swap_texts(out);
        part->text = &out->thought;
        part->span = SPAN_THOUGHT;
        TRY(write_part(g, part, &close, 1, reason, err));
        out->thought_tokens = part->written;
        if (*reason != STOP_TEXT)
            return STATUS_OK; /* never closed: there is no answer */
        *reason = STOP_NONE;
        part->text = &out->answer;
        part->span = SPAN_ANSWER;
        part->told = 0;
        part->written = 0;
        tokenizer_stream_free(&part->stream);
        TRY(tokenizer_stream_init(&part->stream, g->tokenizer, true, err));
    }
    TRY(write_answer(g, part, reason, out, err));
    return opened ? STATUS_OK : part_at_close(g, out, err);
}

static enum status run_thought(struct generator *g, struct part *part, struct generated *out, bool *answered, struct error *err)
{
    part->span = SPAN_THOUGHT;
    part->text = &out->thought;
    part->left = g->settings.max_thinking_tokens;
    TRY(tokenizer_stream_init(&part->stream, g->tokenizer, true, err));
    enum status st = think(g, part, out, answered, err);
    tokenizer_stream_free(&part->stream);
    return st;
}

static enum status run_answer(struct generator *g, struct part *part, struct generated *out, struct error *err)
{
    enum stop_reason reason = STOP_NONE;
    if (g->prefix.count && kv_cache_length(g->cache) + (int64_t)g->prefix.count < g->max_positions)
        TRY(feed(g, g->prefix.ids, (int)g->prefix.count, err));
    part->span = SPAN_ANSWER;
    part->text = &out->answer;
    part->left = g->settings.max_new_tokens;
    part->written = 0;
    part->told = 0;
    TRY(tokenizer_stream_init(&part->stream, g->tokenizer, true, err));
    enum status st = g->settings.two_stage ? write_answer(g, part, &reason, out, err) : answer_at_once(g, part, &reason, out, err);
    tokenizer_stream_free(&part->stream);
    TRY(st);
    if (part->span == SPAN_THOUGHT && reason == STOP_LIMIT)
        out->status = GENERATE_THOUGHT_CUT;
    else if (is_blank(&out->answer))
        out->status = GENERATE_NO_ANSWER;
    else if (reason == STOP_LIMIT)
        out->status = GENERATE_ANSWER_CUT;
    return STATUS_OK;
}

enum status generator_run(struct generator *g, const int32_t *prompt, int n_prompt, uint64_t stream, generate_text_fn *on_text,
                          void *context, struct generated *out, struct error *err)
{
    struct part part = {.on_text = on_text, .context = context};
    generated_reset(out);
    g->prompt = prompt;
    g->n_prompt = n_prompt;
    g->stream = stream;
    g->position = 0;
    TRY(prepare(g, err));
    if (g->settings.two_stage) {
        bool answered;
        TRY(run_thought(g, &part, out, &answered, err));
        if (answered && is_blank(&out->answer))
            out->status = GENERATE_NO_ANSWER;
        if (answered || out->status == GENERATE_NO_ANSWER)
            return STATUS_OK;
    }
    return run_answer(g, &part, out, err);
}
