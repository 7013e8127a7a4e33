/* Ids to text, token by token: every token runs through the decoder's steps, and what cannot be told yet is held back,
 * so that decoding a stream and decoding at once are one thing.
 * Must not know: how text was encoded. */
#include <string.h>

#include "worker/data/tokenizer/parts.h"

static const char replacement_character[] = "\xEF\xBF\xBD"; /* U+FFFD */

struct decoding {
    struct tokenizer_stream *stream;
    const struct decoder *decoder;
    struct text *out;
    struct error *err;
};

static enum status emit(const struct decoding *d, size_t step, const char *text, size_t size);

/* Hands on the characters that are complete, U+FFFD for bytes that are none. */
static enum status drain(const struct decoding *d, size_t step, bool all)
{
    struct text *pending = &d->stream->pending;
    size_t at = 0;
    while (at < pending->size) {
        size_t good = utf8_valid(pending->data + at, pending->size - at), part;
        if (good)
            TRY(emit(d, step + 1, pending->data + at, good));
        at += good;
        if (at == pending->size || (!all && utf8_is_cut(pending->data + at, pending->size - at)))
            break;
        utf8_length(pending->data + at, pending->size - at, &part);
        TRY(emit(d, step + 1, replacement_character, 3));
        at += part;
    }
    memmove(pending->data, pending->data + at, pending->size - at);
    pending->size -= at;
    return STATUS_OK;
}

static enum status emit_bytes(const struct decoding *d, size_t step, const char *text, size_t size)
{
    struct text *pending = &d->stream->pending;
    size_t before = pending->size;
    for (size_t at = 0, n; at < size; at += n) {
        int byte = character_byte(utf8_decode(text + at, &n));
        if (byte < 0) { /* not from the byte alphabet: the token is text as it stands */
            pending->size = before;
            text_append(pending, text, size);
            break;
        }
        text_append(pending, &(char){(char)byte}, 1);
    }
    if (pending->failed)
        FAIL(d->err, STATUS_NOMEM, "no memory to decode tokens");
    return pending->size ? drain(d, step, false) : STATUS_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A run of <0xNN> is text if all of it is UTF-8, else one U+FFFD per byte; so it is held until the run ends. */
static enum status flush_run(const struct decoding *d, size_t step)
{
    struct text *pending = &d->stream->pending;
    if (!pending->size)
        return STATUS_OK;
    bool valid = utf8_valid(pending->data, pending->size) == pending->size;
    if (valid)
        TRY(emit(d, step + 1, pending->data, pending->size));
    for (size_t i = 0; !valid && i < pending->size; i++)
        TRY(emit(d, step + 1, replacement_character, 3));
    text_clear(pending);
    return STATUS_OK;
}

static enum status emit_fallback(const struct decoding *d, size_t step, const char *text, size_t size)
{
    bool is_byte = size == 6 && !memcmp(text, "<0x", 3) && text[5] == '>' && hex_digit(text[3]) >= 0 && hex_digit(text[4]) >= 0;
    if (!is_byte) {
        TRY(flush_run(d, step));
        return emit(d, step + 1, text, size);
    }
    text_append(&d->stream->pending, &(char){(char)(hex_digit(text[3]) << 4 | hex_digit(text[4]))}, 1);
    if (d->stream->pending.failed)
        FAIL(d->err, STATUS_NOMEM, "no memory to decode tokens");
    return STATUS_OK;
}

/* Before this step, have the tokens become one text? */
static bool is_fused(const struct decoder *decoder, size_t step)
{
    for (size_t i = 0; i < step; i++)
        if (decoder->steps[i].kind == DECODE_FUSE || decoder->steps[i].kind == DECODE_BYTES)
            return true;
    return false;
}

/* Bytes at the end of the text that are up to `limit` of the character. */
static size_t run_at_end(const struct decode_step *s, const char *text, size_t size, int64_t limit)
{
    size_t run = 0;
    for (; limit > 0 && size - run >= s->content_size &&
           !memcmp(text + size - run - s->content_size, s->content, s->content_size); limit--)
        run += s->content_size;
    return run;
}

static enum status emit_strip(const struct decoding *d, size_t step, const char *text, size_t size)
{
    const struct decode_step *s = &d->decoder->steps[step];
    bool fused = is_fused(d->decoder, step);
    int64_t alone = s->start, *left = fused ? &d->stream->strip_left : &alone;
    for (; *left > 0 && size; --*left) {
        if (size < s->content_size || memcmp(text, s->content, s->content_size)) {
            *left = 0;
            break;
        }
        text += s->content_size;
        size -= s->content_size;
    }
    if (!fused)
        return emit(d, step + 1, text, size - run_at_end(s, text, size, s->stop));
    if (!s->stop)
        return emit(d, step + 1, text, size);
    struct text *tail = &d->stream->tail;
    text_append(tail, text, size);
    if (tail->failed)
        FAIL(d->err, STATUS_NOMEM, "no memory to decode tokens");
    size_t ready = tail->size - run_at_end(s, tail->data, tail->size, s->stop);
    TRY(emit(d, step + 1, tail->data, ready));
    memmove(tail->data, tail->data + ready, tail->size - ready);
    tail->size -= ready;
    return STATUS_OK;
}

/* Blanks come back; those of the first token are the ones that encoding put there. */
static void restore_blanks(const struct decode_step *s, const char *text, size_t size, bool first, struct text *out)
{
    for (size_t at = 0, n; at < size; at += n) {
        n = size - at >= s->content_size && !memcmp(text + at, s->content, s->content_size) ? s->content_size : 0;
        if (n)
            text_append(out, " ", !(first && s->scheme != SCHEME_NEVER));
        else
            text_append(out, text + at, n = 1);
    }
}

static enum status emit(const struct decoding *d, size_t step, const char *text, size_t size)
{
    if (step == d->decoder->count) {
        text_append(d->out, text, size);
        if (d->out->failed)
            FAIL(d->err, STATUS_NOMEM, "no memory to decode tokens");
        return STATUS_OK;
    }
    const struct decode_step *s = &d->decoder->steps[step];
    struct text *scratch = &d->stream->scratch[step % 2];
    switch (s->kind) {
    case DECODE_BYTES: return emit_bytes(d, step, text, size);
    case DECODE_FALLBACK: return emit_fallback(d, step, text, size);
    case DECODE_STRIP: return emit_strip(d, step, text, size);
    case DECODE_FUSE: return emit(d, step + 1, text, size);
    case DECODE_REPLACE:
        text_clear(scratch);
        TRY(pattern_replace(&s->pattern, d->stream->regex, s->content, s->content_size, text, size, scratch, d->err));
        break;
    case DECODE_METASPACE:
        text_clear(scratch);
        restore_blanks(s, text, size, d->stream->tokens++ == 0, scratch);
        break;
    }
    if (scratch->failed)
        FAIL(d->err, STATUS_NOMEM, "no memory to decode tokens");
    return emit(d, step + 1, scratch->data ? scratch->data : "", scratch->size);
}

static void restart(struct tokenizer_stream *stream)
{
    const struct decoder *decoder = &stream->tokenizer->decoder;
    stream->tokens = 0;
    stream->strip_left = 0;
    text_clear(&stream->pending);
    text_clear(&stream->tail);
    for (size_t i = 0; i < decoder->count; i++)
        if (decoder->steps[i].kind == DECODE_STRIP)
            stream->strip_left = decoder->steps[i].start;
}

enum status tokenizer_stream_init(struct tokenizer_stream *stream, const struct tokenizer *tokenizer, bool skip_special,
                                  struct error *err)
{
    *stream = (struct tokenizer_stream){.tokenizer = tokenizer, .skip_special = skip_special, .regex = regex_scratch_new()};
    if (!stream->regex)
        FAIL(err, STATUS_NOMEM, "no memory to decode tokens");
    restart(stream);
    return STATUS_OK;
}

void tokenizer_stream_free(struct tokenizer_stream *stream)
{
    regex_scratch_free(stream->regex);
    text_free(&stream->pending);
    text_free(&stream->tail);
    text_free(&stream->scratch[0]);
    text_free(&stream->scratch[1]);
    *stream = (struct tokenizer_stream){0};
}

enum status tokenizer_stream_push(struct tokenizer_stream *stream, int32_t id, struct text *out, struct error *err)
{
    const struct tokenizer *t = stream->tokenizer;
    struct decoding d = {stream, &t->decoder, out, err};
    if (id < 0 || id >= t->size || !t->tokens[id].known || (stream->skip_special && t->tokens[id].skipped))
        return STATUS_OK;
    if (t->decoder.none && stream->tokens++)
        TRY(emit(&d, 0, " ", 1));
    return emit(&d, 0, t->tokens[id].text, t->tokens[id].size);
}

enum status tokenizer_stream_finish(struct tokenizer_stream *stream, struct text *out, struct error *err)
{
    const struct decoder *decoder = &stream->tokenizer->decoder;
    struct decoding d = {stream, decoder, out, err};
    for (size_t i = 0; i < decoder->count; i++) {
        const struct decode_step *s = &decoder->steps[i];
        if (s->kind == DECODE_BYTES && stream->pending.size)
            TRY(drain(&d, i, true));
        else if (s->kind == DECODE_FALLBACK)
            TRY(flush_run(&d, i));
        else if (s->kind == DECODE_STRIP && stream->tail.size)
            TRY(emit(&d, i + 1, stream->tail.data,
                     stream->tail.size - run_at_end(s, stream->tail.data, stream->tail.size, s->stop)));
    }
    restart(stream);
    return STATUS_OK;
}

enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                             struct text *out, struct error *err)
{
    struct tokenizer_stream stream;
    TRY(tokenizer_stream_init(&stream, tokenizer, skip_special, err));
    enum status st = STATUS_OK;
    for (size_t i = 0; i < count && st == STATUS_OK; i++)
        st = tokenizer_stream_push(&stream, ids[i], out, err);
    if (st == STATUS_OK)
        st = tokenizer_stream_finish(&stream, out, err);
    tokenizer_stream_free(&stream);
    return st;
}
