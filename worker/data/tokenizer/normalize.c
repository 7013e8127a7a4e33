/* Normalizers: what happens to text before anything else looks at it.
 * Must not know: tokens. */
#include <string.h>

#include "worker/data/tokenizer/parts.h"

static const struct {
    const char *type;
    enum normal_kind kind;
    enum unicode_form form;
} known[] = {
    {"NFC", NORMAL_FORM, UNICODE_NFC},    {"NFD", NORMAL_FORM, UNICODE_NFD},
    {"NFKC", NORMAL_FORM, UNICODE_NFKC},  {"NFKD", NORMAL_FORM, UNICODE_NFKD},
    {"Lowercase", NORMAL_LOWER, 0},       {"Strip", NORMAL_STRIP, 0},
    {"Prepend", NORMAL_PREPEND, 0},       {"Replace", NORMAL_REPLACE, 0},
};

static enum status read_step(struct normal_step *step, const struct json *json, const char *where, struct error *err)
{
    step->left = step->right = true;
    if (step->kind == NORMAL_STRIP) {
        TRY(json_get_bool(json, "strip_left", where, &step->left, err));
        return json_get_bool(json, "strip_right", where, &step->right, err);
    }
    if (step->kind == NORMAL_PREPEND)
        return part_string(json, "prepend", where, &step->content, &step->content_size, err);
    if (step->kind == NORMAL_REPLACE) {
        TRY(pattern_read(json_member(json, "pattern"), where, &step->pattern, err));
        return part_string(json, "content", where, &step->content, &step->content_size, err);
    }
    return STATUS_OK;
}

static enum status add_step(void *context, const char *type, const struct json *json, const char *where, struct error *err)
{
    struct normalizer *n = context;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(type, known[i].type))
            continue;
        struct normal_step *steps = part_grow(n->steps, n->count, sizeof *steps);
        if (!steps)
            FAIL(err, STATUS_NOMEM, "%s: no memory for the normalizer", where);
        n->steps = steps;
        struct normal_step *step = &steps[n->count++];
        *step = (struct normal_step){.kind = known[i].kind, .form = known[i].form};
        return read_step(step, json, where, err);
    }
    return part_refuse(where, "normalizer", type, err);
}

enum status normalizer_read(const struct json *json, const char *where, struct normalizer *out, struct error *err)
{
    return part_each(json, "normalizers", where, "normalizer", 0, add_step, out, err);
}

static void strip(const struct normal_step *step, const char *text, size_t size, struct text *out)
{
    size_t start = 0, n;
    while (step->left && start < size && unicode_is_space(utf8_decode(text + start, &n)))
        start += n;
    while (step->right && size > start) {
        size_t last = size - 1;
        while (last > start && ((unsigned char)text[last] & 0xC0) == 0x80)
            last--;
        if (!unicode_is_space(utf8_decode(text + last, &n)))
            break;
        size = last;
    }
    text_append(out, text + start, size - start);
}

static enum status run_step(const struct normal_step *step, struct regex_scratch *scratch, const char *text, size_t size,
                            struct text *out, struct error *err)
{
    switch (step->kind) {
    case NORMAL_FORM: unicode_normalize(step->form, text, size, out); break;
    case NORMAL_LOWER: unicode_lower(text, size, out); break;
    case NORMAL_STRIP: strip(step, text, size, out); break;
    case NORMAL_PREPEND:
        if (size)
            text_append(out, step->content, step->content_size);
        text_append(out, text, size);
        break;
    case NORMAL_REPLACE:
        return pattern_replace(&step->pattern, scratch, step->content, step->content_size, text, size, out, err);
    }
    return STATUS_OK;
}

enum status normalizer_run(const struct normalizer *normalizer, struct regex_scratch *scratch, struct text buffers[2],
                           const char *text, size_t size, const char **out, size_t *out_size, struct error *err)
{
    *out = text;
    *out_size = size;
    for (size_t i = 0; i < normalizer->count; i++) {
        struct text *buffer = &buffers[i % 2];
        text_clear(buffer);
        TRY(run_step(&normalizer->steps[i], scratch, *out, *out_size, buffer, err));
        if (buffer->failed)
            FAIL(err, STATUS_NOMEM, "no memory to normalize %zu bytes of text", size);
        *out = buffer->data;
        *out_size = buffer->size;
    }
    return STATUS_OK;
}

void normalizer_free(struct normalizer *normalizer)
{
    for (size_t i = 0; i < normalizer->count; i++) {
        pattern_free(&normalizer->steps[i].pattern);
        mem_free(normalizer->steps[i].content);
    }
    mem_free(normalizer->steps);
    *normalizer = (struct normalizer){0};
}
