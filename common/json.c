#include "common/json.h"

#include <jansson.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"

/* jansson does not always say that memory was short: a failed allocation can look like a syntax error, or even like
 * success with a string cut short. Worse, when its token buffer cannot grow it runs on past the end of the token, so a
 * refusal is remembered for the caller and the allocation tried once more. */
static _Thread_local bool out_of_memory;

static void *json_malloc(size_t size)
{
    void *block = mem_alloc(size, 1);
    if (!block) {
        out_of_memory = true;
        block = mem_alloc(size, 1);
    }
    return block;
}

__attribute__((constructor)) static void use_counted_memory(void)
{
    json_set_alloc_funcs(json_malloc, mem_free);
}

static const json_t *of(const struct json *value)
{
    return (const json_t *)value;
}

/* NULL on failure; then *no_memory tells the two causes apart. */
static json_t *load(const char *text, size_t size, json_error_t *detail, bool *no_memory)
{
    out_of_memory = false;
    json_t *value = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, detail);
    *no_memory = out_of_memory;
    if (value && out_of_memory)
        json_decref(value);
    return out_of_memory ? NULL : value;
}

enum status json_parse(const char *text, size_t size, const char *where, struct json **out, struct error *err)
{
    json_error_t detail;
    bool no_memory;
    json_t *value = load(text, size, &detail, &no_memory);
    if (no_memory)
        FAIL(err, STATUS_NOMEM, "%s: no memory to read the JSON", where);
    if (!value)
        FAIL(err, STATUS_DATA, "%s: broken JSON at line %d, column %d: %s", where, detail.line, detail.column, detail.text);
    *out = (struct json *)value;
    return STATUS_OK;
}

enum status json_parse_piece(const char *text, size_t size, const char *name, int64_t first_line, struct json **out,
                             struct error *err)
{
    json_error_t detail;
    bool no_memory;
    json_t *value = load(text, size, &detail, &no_memory);
    if (no_memory)
        FAIL(err, STATUS_NOMEM, "%s:%lld: no memory to read the JSON", name, (long long)first_line);
    if (!value)
        FAIL(err, STATUS_DATA, "%s:%lld:%d: broken JSON: %s", name, (long long)(first_line + (detail.line > 0 ? detail.line - 1 : 0)),
             detail.column, detail.text);
    *out = (struct json *)value;
    return STATUS_OK;
}

enum status json_read_file(const char *path, struct json **out, struct error *err)
{
    char *text;
    size_t size;
    TRY(file_read(path, &text, &size, err));
    enum status st = json_parse(text, size, path, out, err);
    mem_free(text);
    return st;
}

void json_free(struct json *value)
{
    json_decref((json_t *)value);
}

enum json_kind json_kind(const struct json *value)
{
    if (!value)
        return JSON_KIND_NULL;
    switch (json_typeof(of(value))) {
    case JSON_OBJECT: return JSON_KIND_OBJECT;
    case JSON_ARRAY: return JSON_KIND_ARRAY;
    case JSON_STRING: return JSON_KIND_STRING;
    case JSON_INTEGER: return JSON_KIND_INT;
    case JSON_REAL: return JSON_KIND_REAL;
    case JSON_TRUE:
    case JSON_FALSE: return JSON_KIND_BOOL;
    default: return JSON_KIND_NULL;
    }
}

const char *json_kind_name(enum json_kind kind)
{
    static const char *const names[] = {"null", "true or false", "an integer", "a number", "a string", "an array", "an object"};
    return names[kind];
}

const struct json *json_member(const struct json *object, const char *key)
{
    return object ? (const struct json *)json_object_get(of(object), key) : NULL;
}

size_t json_count(const struct json *value)
{
    if (!value)
        return 0;
    return json_is_array(of(value)) ? json_array_size(of(value)) : json_object_size(of(value));
}

const struct json *json_at(const struct json *array, size_t index)
{
    return (const struct json *)json_array_get(of(array), index);
}

const void *json_first(const struct json *object)
{
    return json_object_iter((json_t *)object);
}

const void *json_next(const struct json *object, const void *it)
{
    return json_object_iter_next((json_t *)object, (void *)it);
}

const char *json_it_key(const void *it, size_t *size)
{
    const char *key = json_object_iter_key((void *)it);
    if (size)
        *size = strlen(key); /* jansson 2.14 refuses NUL bytes in keys */
    return key;
}

const struct json *json_it_value(const void *it)
{
    return (const struct json *)json_object_iter_value((void *)it);
}

const char *json_to_string(const struct json *value, size_t *size)
{
    if (!value || !json_is_string(of(value)))
        return NULL;
    if (size)
        *size = json_string_length(of(value));
    return json_string_value(of(value));
}

struct json *json_new_object(void)
{
    return (struct json *)json_object();
}

bool json_set_string(struct json *object, const char *key, const char *bytes, size_t size)
{
    return json_object_set_new((json_t *)object, key, json_stringn(bytes, size)) == 0;
}

int64_t json_to_int(const struct json *value)
{
    return (int64_t)json_integer_value(of(value));
}

double json_to_real(const struct json *value)
{
    return json_number_value(of(value));
}

bool json_to_bool(const struct json *value)
{
    return json_is_true(of(value));
}

/* The member if it has the wanted kind, NULL if absent or null; a wrong kind is reported. */
static enum status typed_member(const struct json *object, const char *key, const char *where, enum json_kind wanted,
                                const struct json **out, struct error *err)
{
    const struct json *value = json_member(object, key);
    enum json_kind found = json_kind(value);
    *out = found == JSON_KIND_NULL ? NULL : value;
    if (!*out || found == wanted || (wanted == JSON_KIND_REAL && found == JSON_KIND_INT))
        return STATUS_OK;
    FAIL(err, STATUS_DATA, "%s: '%s' must be %s, found %s", where, key, json_kind_name(wanted), json_kind_name(found));
}

enum status json_get_int(const struct json *object, const char *key, const char *where, int64_t *out, struct error *err)
{
    const struct json *value;
    TRY(typed_member(object, key, where, JSON_KIND_INT, &value, err));
    if (value)
        *out = json_to_int(value);
    return STATUS_OK;
}

enum status json_get_real(const struct json *object, const char *key, const char *where, double *out, struct error *err)
{
    const struct json *value;
    TRY(typed_member(object, key, where, JSON_KIND_REAL, &value, err));
    if (value)
        *out = json_to_real(value);
    return STATUS_OK;
}

enum status json_get_bool(const struct json *object, const char *key, const char *where, bool *out, struct error *err)
{
    const struct json *value;
    TRY(typed_member(object, key, where, JSON_KIND_BOOL, &value, err));
    if (value)
        *out = json_to_bool(value);
    return STATUS_OK;
}

enum status json_get_string(const struct json *object, const char *key, const char *where, const char **out, struct error *err)
{
    const struct json *value;
    TRY(typed_member(object, key, where, JSON_KIND_STRING, &value, err));
    if (value)
        *out = json_to_string(value, NULL);
    return STATUS_OK;
}

const char *json_version(void)
{
    return JANSSON_VERSION;
}
