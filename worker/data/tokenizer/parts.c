/* What the readers of all parts share: patterns, component lists, the byte stand-ins.
 * Must not know: what a component does. */
#include <string.h>

#include "worker/data/tokenizer/parts.h"

enum { NESTING_MAX = 16 };

enum status part_type(const struct json *json, const char *where, const char *what, const char **out, struct error *err)
{
    *out = NULL;
    if (json_kind(json) != JSON_KIND_OBJECT)
        FAIL(err, STATUS_DATA, "%s: the %s must be an object, found %s", where, what, json_kind_name(json_kind(json)));
    TRY(json_get_string(json, "type", where, out, err));
    if (!*out)
        FAIL(err, STATUS_DATA, "%s: the %s has no 'type'", where, what);
    return STATUS_OK;
}

enum status part_string(const struct json *json, const char *key, const char *where, char **out, size_t *size,
                        struct error *err)
{
    const char *value = json_to_string(json_member(json, key), size);
    if (!value)
        FAIL(err, STATUS_DATA, "%s: '%s' must be a string, found %s", where, key,
             json_kind_name(json_kind(json_member(json, key))));
    *out = mem_strndup(value, *size);
    if (!*out)
        FAIL(err, STATUS_NOMEM, "%s: no memory for '%s'", where, key);
    return STATUS_OK;
}

enum status part_refuse(const char *where, const char *what, const char *type, struct error *err)
{
    FAIL(err, STATUS_DATA, "%s: the %s '%.100s' is not supported; only byte-pair encodings of the GPT-2, Llama, Qwen2 and "
         "DeepSeek kinds are", where, what, type);
}

enum status part_each(const struct json *json, const char *members, const char *where, const char *what, int depth,
                      part_read_fn *read, void *context, struct error *err)
{
    const char *type;
    if (json_kind(json) == JSON_KIND_NULL)
        return STATUS_OK;
    TRY(part_type(json, where, what, &type, err));
    if (strcmp(type, "Sequence"))
        return read(context, type, json, where, err);
    const struct json *list = json_member(json, members);
    if (json_kind(list) != JSON_KIND_ARRAY || depth == NESTING_MAX)
        FAIL(err, STATUS_DATA, "%s: the %s 'Sequence' needs a list '%s' and at most %d levels", where, what, members, NESTING_MAX);
    for (size_t i = 0; i < json_count(list); i++)
        TRY(part_each(json_at(list, i), members, where, what, depth + 1, read, context, err));
    return STATUS_OK;
}

void *part_grow(void *items, size_t count, size_t size)
{
    if (count & (count - 1))
        return items; /* room was made for the next power of two */
    char *grown = mem_realloc(items, count ? count * 2 : 1, size);
    if (grown)
        memset(grown + count * size, 0, (count ? count : 1) * size);
    return grown;
}

uint32_t byte_character(unsigned char byte)
{
    if ((byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD))
        return byte;
    /* The others follow from U+0100 on in byte order: 0-0x20, 0x7F-0xA0, 0xAD. */
    return 0x100u + (byte <= 0x20 ? byte : byte <= 0xA0 ? byte - 0x7Fu + 0x21u : 0x43u);
}

int character_byte(uint32_t c)
{
    if (c < 0x100)
        return byte_character((unsigned char)c) == c ? (int)c : -1;
    uint32_t n = c - 0x100;
    return n <= 0x20 ? (int)n : n < 0x43 ? (int)(n - 0x21 + 0x7F) : n == 0x43 ? 0xAD : -1;
}

void byte_map(const char *bytes, size_t size, struct text *out)
{
    for (size_t i = 0; i < size; i++) {
        char encoded[4];
        text_append(out, encoded, utf8_encode(byte_character((unsigned char)bytes[i]), encoded));
    }
}

enum status pattern_read(const struct json *json, const char *where, struct pattern *out, struct error *err)
{
    if (json_kind(json_member(json, "String")) == JSON_KIND_STRING)
        return part_string(json, "String", where, &out->text, &out->size, err);
    size_t size;
    const char *expression = json_to_string(json_member(json, "Regex"), &size);
    if (!expression)
        FAIL(err, STATUS_DATA, "%s: a pattern must be an object with 'String' or 'Regex'", where);
    return regex_compile(expression, size, where, &out->regex, err);
}

enum status pattern_find(const struct pattern *pattern, struct regex_scratch *scratch, const char *text, size_t size,
                         size_t from, size_t *start, size_t *end, bool *found, struct error *err)
{
    if (pattern->regex)
        return regex_find(pattern->regex, scratch, text, size, from, start, end, found, err);
    const char *at = pattern->size ? memmem(text + from, size - from, pattern->text, pattern->size) : NULL;
    *found = at;
    if (at) {
        *start = (size_t)(at - text);
        *end = *start + pattern->size;
    }
    return STATUS_OK;
}

enum status pattern_replace(const struct pattern *pattern, struct regex_scratch *scratch, const char *content,
                            size_t content_size, const char *text, size_t size, struct text *out, struct error *err)
{
    size_t from = 0, copied = 0;
    while (from <= size) {
        size_t start, end, n = 1;
        bool found;
        TRY(pattern_find(pattern, scratch, text, size, from, &start, &end, &found, err));
        if (!found)
            break;
        if (end == start && end == copied && copied > 0 && from == copied) {
            if (from < size) /* an empty match right behind the last one does not count */
                utf8_decode(text + from, &n);
            from += n;
            continue;
        }
        text_append(out, text + copied, start - copied);
        text_append(out, content, content_size);
        copied = end;
        if (end == start && end < size)
            utf8_decode(text + end, &n);
        from = end == start ? end + n : end;
    }
    text_append(out, text + copied, size - copied);
    return STATUS_OK;
}

void pattern_free(struct pattern *pattern)
{
    regex_free(pattern->regex);
    mem_free(pattern->text);
    *pattern = (struct pattern){0};
}
