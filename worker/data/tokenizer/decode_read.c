/* Reads the decoder of a tokenizer.json.
 * Must not know: how ids are decoded. */
#include <string.h>

#include "worker/data/tokenizer/parts.h"

static enum status read_replace(struct decode_step *step, const struct json *json, const char *where, struct error *err)
{
    TRY(pattern_read(json_member(json, "pattern"), where, &step->pattern, err));
    return part_string(json, "content", where, &step->content, &step->content_size, err);
}

static enum status read_strip(struct decode_step *step, const struct json *json, const char *where, struct error *err)
{
    TRY(part_string(json, "content", where, &step->content, &step->content_size, err));
    TRY(json_get_int(json, "start", where, &step->start, err));
    TRY(json_get_int(json, "stop", where, &step->stop, err));
    if (!step->content_size || utf8_length(step->content, step->content_size, NULL) != step->content_size ||
        step->start < 0 || step->stop < 0)
        FAIL(err, STATUS_DATA, "%s: the decoder 'Strip' needs one character as 'content', 'start' and 'stop'", where);
    return STATUS_OK;
}

static enum status read_metaspace(struct decode_step *step, const struct json *json, const char *where, struct error *err)
{
    const char *scheme = "always";
    bool prefix = true;
    TRY(json_get_string(json, "prepend_scheme", where, &scheme, err));
    TRY(json_get_bool(json, "add_prefix_space", where, &prefix, err));
    step->scheme = !prefix || !strcmp(scheme, "never") ? SCHEME_NEVER : SCHEME_ALWAYS;
    return part_string(json, "replacement", where, &step->content, &step->content_size, err);
}

static const struct {
    const char *type;
    enum decode_kind kind;
    enum status (*read)(struct decode_step *, const struct json *, const char *, struct error *);
    bool once; /* the stream keeps the state of one such step */
} known[] = {
    {"ByteLevel", DECODE_BYTES, NULL, true},          {"Replace", DECODE_REPLACE, read_replace, false},
    {"ByteFallback", DECODE_FALLBACK, NULL, true},    {"Fuse", DECODE_FUSE, NULL, false},
    {"Strip", DECODE_STRIP, read_strip, true},        {"Metaspace", DECODE_METASPACE, read_metaspace, true},
};

static enum status add_step(void *context, const char *type, const struct json *json, const char *where, struct error *err)
{
    struct decoder *d = context;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(type, known[i].type))
            continue;
        for (size_t j = 0; j < d->count; j++)
            if (known[i].once && (d->steps[j].kind == known[i].kind ||
                                  (d->steps[j].kind == DECODE_BYTES && known[i].kind == DECODE_FALLBACK)))
                FAIL(err, STATUS_DATA, "%s: the decoder '%s' is only supported once, and not behind 'ByteLevel'", where, type);
        struct decode_step *steps = part_grow(d->steps, d->count, sizeof *steps);
        if (!steps)
            FAIL(err, STATUS_NOMEM, "%s: no memory for the decoder", where);
        d->steps = steps;
        struct decode_step *step = &steps[d->count++];
        *step = (struct decode_step){.kind = known[i].kind};
        return known[i].read ? known[i].read(step, json, where, err) : STATUS_OK;
    }
    return part_refuse(where, "decoder", type, err);
}

enum status decoder_read(const struct json *json, const char *where, struct decoder *out, struct error *err)
{
    out->none = json_kind(json) == JSON_KIND_NULL;
    TRY(part_each(json, "decoders", where, "decoder", 0, add_step, out, err));
    for (size_t i = 0; i + 1 < out->count; i++)
        if (out->steps[i].kind == DECODE_FALLBACK)
            for (size_t j = i + 1; j < out->count; j++)
                if (out->steps[j].kind == DECODE_BYTES)
                    FAIL(err, STATUS_DATA, "%s: the decoders 'ByteFallback' and 'ByteLevel' are not supported together", where);
    return STATUS_OK;
}

void decoder_free(struct decoder *decoder)
{
    for (size_t i = 0; i < decoder->count; i++) {
        pattern_free(&decoder->steps[i].pattern);
        mem_free(decoder->steps[i].content);
    }
    mem_free(decoder->steps);
    *decoder = (struct decoder){0};
}
