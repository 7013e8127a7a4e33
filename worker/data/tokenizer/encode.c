/* Text to ids: added tokens are cut out, what lies between is normalized, cut into pre-tokens and encoded. Also the list
 * of encoders, which is what lets several threads share a tokenizer.
 * Must not know: files. */
#include <pthread.h>
#include <string.h>

#include "worker/data/tokenizer/parts.h"

/* What one thread needs while it encodes; taken from the list and put back. */
struct encoder {
    struct encoder *next;
    struct regex_scratch *regex;
    struct bpe_work *work;
    struct text normal[2];
    struct text *buffers; /* one per stage of the pre-tokenizer */
    size_t n_buffers;
};

struct encoders {
    pthread_mutex_t lock;
    struct encoder *idle;
};

struct encoding {
    const struct tokenizer *tokenizer;
    struct encoder *encoder;
    unsigned flags;
    struct token_list *out;
    struct pretoken_run run;
    const char *text; /* of the pass over added tokens that is under way */
    bool first;       /* that text begins where the input begins */
};

enum status token_list_add(struct token_list *list, const int32_t *ids, size_t count, struct error *err)
{
    if (count > list->capacity - list->count) {
        size_t capacity = list->capacity * 2 > list->count + count ? list->capacity * 2 : list->count + count + 64;
        int32_t *grown = mem_realloc(list->ids, capacity, sizeof *grown);
        if (!grown)
            FAIL(err, STATUS_NOMEM, "no memory for %zu token ids", capacity);
        list->ids = grown;
        list->capacity = capacity;
    }
    for (size_t i = 0; i < count; i++)
        list->ids[list->count + i] = ids[i];
    list->count += count;
    return STATUS_OK;
}

void token_list_free(struct token_list *list)
{
    mem_free(list->ids);
    *list = (struct token_list){0};
}

static void encoder_free(struct encoder *e)
{
    if (!e)
        return;
    regex_scratch_free(e->regex);
    bpe_work_free(e->work);
    text_free(&e->normal[0]);
    text_free(&e->normal[1]);
    for (size_t i = 0; e->buffers && i < e->n_buffers; i++)
        text_free(&e->buffers[i]);
    mem_free(e->buffers);
    mem_free(e);
}

static struct encoder *encoder_new(const struct tokenizer *t)
{
    struct encoder *e = mem_alloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->n_buffers = t->pretokenizer.count;
    e->buffers = mem_alloc(e->n_buffers, sizeof *e->buffers);
    e->regex = regex_scratch_new();
    e->work = bpe_work_new();
    if (e->buffers && e->regex && e->work)
        return e;
    encoder_free(e);
    return NULL;
}

enum status encoders_open(struct tokenizer *tokenizer, struct error *err)
{
    tokenizer->encoders = mem_alloc(1, sizeof *tokenizer->encoders);
    if (!tokenizer->encoders)
        FAIL(err, STATUS_NOMEM, "no memory for a tokenizer");
    pthread_mutex_init(&tokenizer->encoders->lock, NULL);
    return STATUS_OK;
}

void encoders_close(struct tokenizer *tokenizer)
{
    struct encoders *encoders = tokenizer->encoders;
    if (!encoders)
        return;
    while (encoders->idle) {
        struct encoder *e = encoders->idle;
        encoders->idle = e->next;
        encoder_free(e);
    }
    pthread_mutex_destroy(&encoders->lock);
    mem_free(encoders);
    tokenizer->encoders = NULL;
}

static struct encoder *encoder_take(const struct tokenizer *t)
{
    pthread_mutex_lock(&t->encoders->lock);
    struct encoder *e = t->encoders->idle;
    if (e)
        t->encoders->idle = e->next;
    pthread_mutex_unlock(&t->encoders->lock);
    return e ? e : encoder_new(t);
}

static void encoder_return(const struct tokenizer *t, struct encoder *e)
{
    pthread_mutex_lock(&t->encoders->lock);
    e->next = t->encoders->idle;
    t->encoders->idle = e;
    pthread_mutex_unlock(&t->encoders->lock);
}

static enum status encode_word(void *context, const char *text, size_t size, bool bytes, struct error *err)
{
    struct encoding *e = context;
    return bpe_encode(&e->tokenizer->bpe, e->encoder->work, text, size, bytes, e->out, err);
}

/* Second pass: between added tokens that are matched in normalized text. */
static enum status normalized_piece(void *context, size_t start, size_t end, const struct added_token *token,
                                    struct error *err)
{
    struct encoding *e = context;
    if (token)
        return token_list_add(e->out, &token->id, 1, err);
    return pretokenizer_run(&e->run, 0, e->text + start, end - start, e->first && start == 0, err);
}

/* First pass: between added tokens that are matched in the text as it is. */
static enum status raw_piece(void *context, size_t start, size_t end, const struct added_token *token, struct error *err)
{
    struct encoding *outer = context, inner = *outer;
    const struct tokenizer *t = outer->tokenizer;
    const char *normal;
    size_t size;
    if (token)
        return token_list_add(outer->out, &token->id, 1, err);
    TRY(normalizer_run(&t->normalizer, outer->encoder->regex, outer->encoder->normal, outer->text + start, end - start,
                       &normal, &size, err));
    inner.text = normal;
    inner.first = start == 0;
    inner.run.context = &inner;
    return added_split(outer->flags & TOKENIZE_ADDED ? &t->added.normalized : &t->added.plain, normal, size,
                       normalized_piece, &inner, err);
}

static enum status encode_text(struct encoding *e, const char *text, size_t size, struct error *err)
{
    const struct tokenizer *t = e->tokenizer;
    e->text = text;
    e->run = (struct pretoken_run){&t->pretokenizer, e->encoder->regex, e->encoder->buffers, encode_word, NULL};
    if (e->flags & TOKENIZE_SPECIALS)
        TRY(token_list_add(e->out, t->before.ids, t->before.count, err));
    if (e->flags & TOKENIZE_ADDED)
        TRY(added_split(&t->added.raw, text, size, raw_piece, e, err));
    else if (size)
        TRY(raw_piece(e, 0, size, NULL, err));
    if (e->flags & TOKENIZE_SPECIALS)
        TRY(token_list_add(e->out, t->after.ids, t->after.count, err));
    return STATUS_OK;
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size, unsigned flags,
                             struct token_list *out, struct error *err)
{
    size_t valid = utf8_valid(text, size), before = out->count;
    if (valid != size)
        FAIL(err, STATUS_DATA, "the text is not UTF-8: byte 0x%02x at position %zu; store it as UTF-8",
             (unsigned)(unsigned char)text[valid], valid);
    struct encoding e = {.tokenizer = tokenizer, .flags = flags, .out = out, .encoder = encoder_take(tokenizer)};
    if (!e.encoder)
        FAIL(err, STATUS_NOMEM, "no memory to encode text");
    enum status st = encode_text(&e, text, size, err);
    encoder_return(tokenizer, e.encoder);
    if (st != STATUS_OK)
        out->count = before;
    return st;
}

static enum status spells_control(void *context, size_t start, size_t end, const struct added_token *token,
                                  struct error *err)
{
    (void)start, (void)end, (void)err;
    *(bool *)context |= token && !added_is_plain(token);
    return STATUS_OK;
}

bool tokenizer_has_special(const struct tokenizer *tokenizer, const char *text, size_t size)
{
    bool found = false;
    if (utf8_valid(text, size) != size)
        return false;
    added_split(&tokenizer->added.raw, text, size, spells_control, &found, NULL);
    added_split(&tokenizer->added.normalized, text, size, spells_control, &found, NULL);
    return found;
}
