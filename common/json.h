/* A thin, strict reader over jansson, the only place that includes it. Duplicate keys, trailing garbage and
 * invalid UTF-8 are errors; messages carry the caller's name of the text plus line and column. */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct json; /* any JSON value */

enum json_kind { JSON_KIND_NULL, JSON_KIND_BOOL, JSON_KIND_INT, JSON_KIND_REAL, JSON_KIND_STRING, JSON_KIND_ARRAY, JSON_KIND_OBJECT };

/* `where` names the text in messages ("rows.jsonl:17"). Free the result with json_free; values reached from
 * it are borrowed. Integers beyond int64 are errors. Strings may hold NUL bytes only if escaped (\u0000). */
enum status json_parse(const char *text, size_t size, const char *where, struct json **out, struct error *err);
/* The same for a piece of the file `name` that begins in line `first_line`: messages say "name:line:column". */
enum status json_parse_piece(const char *text, size_t size, const char *name, int64_t first_line, struct json **out,
                             struct error *err);
enum status json_read_file(const char *path, struct json **out, struct error *err);
void json_free(struct json *value);

/* Of jansson: "2.14". */
const char *json_version(void);

enum json_kind json_kind(const struct json *value); /* NULL pointer counts as JSON_KIND_NULL */
const char *json_kind_name(enum json_kind kind);

/* Object member or NULL; a NULL or non-object `object` gives NULL. */
const struct json *json_member(const struct json *object, const char *key);
/* Number of elements of an array or members of an object, else 0. */
size_t json_count(const struct json *value);
const struct json *json_at(const struct json *array, size_t index);

/* Iterates an object in file order: for (it = json_first(o); it; it = json_next(o, it)). */
const void *json_first(const struct json *object);
const void *json_next(const struct json *object, const void *it);
const char *json_it_key(const void *it, size_t *size); /* size may be NULL */
const struct json *json_it_value(const void *it);

/* Plain conversions; the caller has checked the kind. */
const char *json_to_string(const struct json *value, size_t *size); /* NULL if not a string; size may be NULL */
int64_t json_to_int(const struct json *value);
double json_to_real(const struct json *value); /* int or real */
bool json_to_bool(const struct json *value);

/* Building: NULL or false where memory is short or the text is not UTF-8. An object takes each key once. */
struct json *json_new_object(void);
bool json_set_string(struct json *object, const char *key, const char *bytes, size_t size);

/* Typed members. Absent or null: *out keeps its value. Wrong kind: STATUS_DATA naming `where`, key, kinds. */
enum status json_get_int(const struct json *object, const char *key, const char *where, int64_t *out, struct error *err);
enum status json_get_real(const struct json *object, const char *key, const char *where, double *out, struct error *err);
enum status json_get_bool(const struct json *object, const char *key, const char *where, bool *out, struct error *err);
enum status json_get_string(const struct json *object, const char *key, const char *where, const char **out, struct error *err);

#endif
