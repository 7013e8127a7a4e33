#include "ps/snapshot_index.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/h5.h"
#include "common/json.h"
#include "common/memory.h"
#include "ps/snapshot_internal.h"
#include "ps/snapshot_seal.h"

/* ---- Building ------------------------------------------------------------------------------------------------ */

static void put_string(struct text *out, const char *string)
{
    text_json_string(out, string, strlen(string));
}

static void put_meta(struct text *out, const struct snapshot_meta *meta)
{
    text_puts(out, "\"meta\": {");
    for (int i = 0; i < snapshot_field_count; i++) {
        const struct snapshot_field *field = &snapshot_fields[i];
        const char *member = (const char *)meta + field->offset;
        text_printf(out, "%s\n\"%s\": ", i ? "," : "", field->name);
        if (field->kind == SNAPSHOT_INT)
            text_printf(out, "%" PRId64, *(const int64_t *)member);
        else if (field->kind == SNAPSHOT_STRING)
            put_string(out, member);
        else if (isfinite(*(const double *)member))
            text_printf(out, "%.17g", *(const double *)member);
        else
            text_puts(out, "null");
    }
    text_puts(out, "}");
}

static void put_tensors(struct text *out, const struct params *table)
{
    const char *separator = "";
    text_puts(out, "\"tensors\": [");
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->items[i];
        if (p->role != PARAM_TRAINED)
            continue;
        text_printf(out, "%s\n{\"name\": ", separator);
        put_string(out, p->name);
        text_puts(out, ", \"shape\": [");
        for (int d = 0; d < p->n_dims; d++)
            text_printf(out, "%s%" PRId64, d ? ", " : "", p->shape[d]);
        text_printf(out, "], \"decay\": %s}", p->decay ? "true" : "false");
        separator = ",";
    }
    text_puts(out, "]");
}

/* Finds one written tensor again. */
static enum status find_tensor(struct h5 *file, const unsigned char *image, const char *object, const struct param *p,
                               struct index_place *out, struct error *err)
{
    int n_dims;
    int64_t shape[H5_MAX_DIMS], stored;
    const unsigned char *bytes;
    TRY(h5_read_floats(file, object, &n_dims, shape, &bytes, err));
    TRY(h5_get_int(file, object, "crc32c", &stored, err));
    *out = (struct index_place){bytes - image, (uint32_t)stored};
    if (n_dims != p->n_dims || memcmp(shape, p->shape, (size_t)n_dims * sizeof *shape))
        FAIL(err, STATUS_IO, "tensor '%s' reads back differently than it was written", object);
    return STATUS_OK;
}

static enum status put_places(struct text *out, struct h5 *file, const unsigned char *image,
                              const struct snapshot_view *view, const char *state, struct error *err)
{
    char object[SNAPSHOT_PATH_SIZE];
    const char *separator = "";
    text_puts(out, "{\"name\": ");
    put_string(out, state ? state : "model");
    text_puts(out, ", \"places\": [");
    for (int i = 0; i < view->table->count; i++) {
        const struct param *p = &view->table->items[i];
        struct index_place place;
        if (p->role != PARAM_TRAINED)
            continue;
        TRY(snapshot_object(object, view->meta.optimizer, state, p->name, err));
        TRY(find_tensor(file, image, object, p, &place, err));
        text_printf(out, "%s\n[%" PRId64 ", %" PRIu32 "]", separator, place.offset, place.crc32c);
        separator = ",";
    }
    text_puts(out, "]}");
    return STATUS_OK;
}

static enum status put_texts(struct text *out, struct h5 *file, const unsigned char *image, const char *group,
                             const struct snapshot_text *texts, int count, struct error *err)
{
    char object[SNAPSHOT_PATH_SIZE];
    for (int i = 0; i < count; i++) {
        const char *found;
        size_t size;
        snprintf(object, sizeof object, "%s/%s", group, texts[i].name);
        TRY(h5_read_text(file, object, &found, &size, err));
        if (size != texts[i].size || (size && memcmp(found, texts[i].data, size)))
            FAIL(err, STATUS_IO, "text '%s' reads back differently than it was written", object);
        text_printf(out, "%s\n{\"name\": ", i ? "," : "");
        put_string(out, texts[i].name);
        text_printf(out, ", \"offset\": %td, \"bytes\": %zu}", (const unsigned char *)found - image, size);
    }
    return STATUS_OK;
}

static enum status build_from(struct h5 *file, const unsigned char *image, const struct snapshot_view *view,
                              const struct snapshot_meta *meta, struct text *out, struct error *err)
{
    const struct snapshot_shard *shards = view->shards;
    text_puts(out, "\n{");
    put_meta(out, meta);
    text_puts(out, ",\n");
    put_tensors(out, view->table);
    text_puts(out, ",\n\"arrays\": [");
    TRY(put_places(out, file, image, view, NULL, err));
    for (int i = 0; i < view->n_states; i++) {
        text_puts(out, ",\n");
        TRY(put_places(out, file, image, view, view->states[i].name, err));
    }
    text_puts(out, "],\n\"shards\": [");
    for (int i = 0; i < view->n_shards; i++)
        text_printf(out, "%s[%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "]", i ? ", " : "",
                    shards[i].shard, shards[i].first_chunk, shards[i].chunks, shards[i].first_value, shards[i].values);
    text_puts(out, "],\n\"texts\": [");
    TRY(put_texts(out, file, image, "/run", view->texts, view->n_texts, err));
    text_puts(out, "],\n\"files\": [");
    TRY(put_texts(out, file, image, "/run/files", view->files, view->n_files, err));
    text_puts(out, "]}\n");
    if (out->failed)
        FAIL(err, STATUS_NOMEM, "no memory for the index of a snapshot");
    return STATUS_OK;
}

enum status index_build(const char *path, const unsigned char *image, size_t size, const struct snapshot_view *view,
                        const struct snapshot_meta *meta, struct text *out, struct error *err)
{
    struct h5 *file;
    TRY(h5_open_image(path, image, size, &file, err));
    enum status st = build_from(file, image, view, meta, out, err);
    h5_close(file, NULL); /* nothing was written: nothing to report */
    return st;
}

/* ---- Parsing ------------------------------------------------------------------------------------------------- */

/* A member that must be there and be an array. */
static enum status get_array(const struct json *object, const char *key, const char *path, const struct json **out,
                             struct error *err)
{
    *out = json_member(object, key);
    if (json_kind(*out) != JSON_KIND_ARRAY || json_count(*out) > INT32_MAX)
        FAIL(err, STATUS_DATA, "'%s': its index lacks the list '%s'", path, key);
    return STATUS_OK;
}

/* Element `at` of an array of integers. */
static enum status get_element(const struct json *array, size_t at, const char *path, int64_t *out, struct error *err)
{
    const struct json *value = json_at(array, at);
    if (json_kind(value) != JSON_KIND_INT)
        FAIL(err, STATUS_DATA, "'%s': its index holds something else than an integer", path);
    *out = json_to_int(value);
    return STATUS_OK;
}

/* A string member of one object, without NUL, '/' and line ends: everything named in a snapshot is a plain name. */
static enum status get_name(const struct json *object, const char *path, const char **out, struct error *err)
{
    size_t size = 0;
    const char *name = json_to_string(json_member(object, "name"), &size);
    if (!name || !size || strlen(name) != size || size >= SNAPSHOT_PATH_SIZE || strpbrk(name, "/\n"))
        FAIL(err, STATUS_DATA, "'%s': its index holds something that is no name", path);
    *out = name;
    return STATUS_OK;
}

static enum status check_place(int64_t offset, int64_t bytes, int64_t limit, const char *path, const char *name,
                               struct error *err)
{
    if (bytes < 0 || offset < 0 || bytes > limit || offset > limit - bytes)
        FAIL(err, STATUS_DATA, "'%s': the bytes of '%s' do not lie inside the file", path, name);
    return STATUS_OK;
}

static enum status parse_meta(const struct json *root, const char *path, struct snapshot_meta *meta, struct error *err)
{
    const struct json *object = json_member(root, "meta");
    TRY(json_get_int(object, "format_version", path, &meta->format_version, err));
    if (meta->format_version < 1 || meta->format_version > SNAPSHOT_FORMAT)
        FAIL(err, STATUS_DATA, "'%s' has snapshot format %" PRId64 "; this program reads 1 to %d: use a newer version",
             path, meta->format_version, SNAPSHOT_FORMAT);
    for (int i = 0; i < snapshot_field_count; i++) {
        const struct snapshot_field *field = &snapshot_fields[i];
        char *member = (char *)meta + field->offset;
        const char *string = NULL;
        switch (field->kind) {
        case SNAPSHOT_INT:
            TRY(json_get_int(object, field->name, path, (int64_t *)member, err));
            break;
        case SNAPSHOT_REAL:
            TRY(json_get_real(object, field->name, path, (double *)member, err));
            break;
        case SNAPSHOT_STRING:
            TRY(json_get_string(object, field->name, path, &string, err));
            if (string && snprintf(member, SNAPSHOT_STRING_SIZE, "%s", string) >= SNAPSHOT_STRING_SIZE)
                FAIL(err, STATUS_DATA, "'%s': '%s' is too long", path, field->name);
        }
    }
    return STATUS_OK;
}

static enum status parse_tensor(const struct json *entry, const char *path, struct params *table, struct error *err)
{
    const char *name = NULL;
    const struct json *shape;
    struct param param = {.role = PARAM_TRAINED};
    TRY(get_name(entry, path, &name, err));
    TRY(get_array(entry, "shape", path, &shape, err));
    if (json_count(shape) > PARAM_MAX_DIMS)
        FAIL(err, STATUS_DATA, "'%s': tensor '%s' has %zu dimensions, at most %d are allowed", path, name,
             json_count(shape), PARAM_MAX_DIMS);
    param.name = (char *)name;
    param.n_dims = (int)json_count(shape);
    for (int d = 0; d < param.n_dims; d++)
        TRY(get_element(shape, (size_t)d, path, &param.shape[d], err));
    TRY(json_get_bool(entry, "decay", path, &param.decay, err));
    enum status st = params_add(table, &param, NULL, err);
    if (st != STATUS_OK && st != STATUS_NOMEM) {
        error_prefix(err, "'%s'", path);
        return STATUS_DATA; /* a tensor listed twice is the file's fault here */
    }
    return st;
}

static enum status parse_tensors(const struct json *root, const char *path, int64_t limit, struct snapshot_index *out,
                                 struct error *err)
{
    const struct json *tensors;
    TRY(get_array(root, "tensors", path, &tensors, err));
    for (size_t i = 0; i < json_count(tensors); i++) {
        TRY(parse_tensor(json_at(tensors, i), path, &out->table, err));
        if (out->table.trained > limit / (int64_t)sizeof(float))
            FAIL(err, STATUS_DATA, "'%s' claims more parameters than the file has bytes", path);
    }
    if (out->meta.tensors != out->table.count || out->meta.parameters != out->table.trained)
        FAIL(err, STATUS_DATA, "'%s' holds %d tensors with %" PRId64 " parameters but says %" PRId64 " and %" PRId64,
             path, out->table.count, out->table.trained, out->meta.tensors, out->meta.parameters);
    return STATUS_OK;
}

/* Where the tensors of one flat array lie. */
static enum status parse_places(const struct json *entry, const char *path, int64_t limit, struct snapshot_index *out,
                                struct error *err)
{
    const struct json *places;
    const char *name = NULL;
    int at = out->n_arrays;
    TRY(get_name(entry, path, &name, err));
    TRY(get_array(entry, "places", path, &places, err));
    if (json_count(places) != (size_t)out->table.count || strlen(name) >= SNAPSHOT_STRING_SIZE)
        FAIL(err, STATUS_DATA, "'%s': '%.60s' has %zu tensors, the model has %d", path, name, json_count(places),
             out->table.count);
    snprintf(out->names[at], sizeof out->names[at], "%s", name);
    out->places[at] = mem_alloc((size_t)out->table.count, sizeof *out->places[at]);
    if (!out->places[at])
        FAIL(err, STATUS_NOMEM, "no memory for the index of '%s'", path);
    out->n_arrays++;
    for (int i = 0; i < out->table.count; i++) {
        int64_t crc = 0;
        const struct param *p = &out->table.items[i];
        TRY(get_element(json_at(places, (size_t)i), 0, path, &out->places[at][i].offset, err));
        TRY(get_element(json_at(places, (size_t)i), 1, path, &crc, err));
        TRY(check_place(out->places[at][i].offset, p->size * (int64_t)sizeof(float), limit, path, p->name, err));
        out->places[at][i].crc32c = (uint32_t)crc;
    }
    return STATUS_OK;
}

static enum status parse_arrays(const struct json *root, const char *path, int64_t limit, struct snapshot_index *out,
                                struct error *err)
{
    const struct json *arrays;
    TRY(get_array(root, "arrays", path, &arrays, err));
    if (json_count(arrays) < 1 || json_count(arrays) > INDEX_MAX_ARRAYS)
        FAIL(err, STATUS_DATA, "'%s': its index has %zu arrays; 1 to %d are allowed", path, json_count(arrays),
             INDEX_MAX_ARRAYS);
    for (size_t i = 0; i < json_count(arrays); i++)
        TRY(parse_places(json_at(arrays, i), path, limit, out, err));
    return STATUS_OK;
}

/* The ranges must join and cover the flat space. */
static enum status parse_shards(const struct json *root, const char *path, struct snapshot_index *out, struct error *err)
{
    const struct json *rows;
    int64_t next = 0;
    TRY(get_array(root, "shards", path, &rows, err));
    out->shards = mem_alloc(json_count(rows), sizeof *out->shards);
    if (!out->shards)
        FAIL(err, STATUS_NOMEM, "no memory for the index of '%s'", path);
    out->n_shards = (int)json_count(rows);
    for (int i = 0; i < out->n_shards; i++) {
        struct snapshot_shard *s = &out->shards[i];
        int64_t *const columns[SNAPSHOT_SHARD_COLUMNS] = {&s->shard, &s->first_chunk, &s->chunks, &s->first_value, &s->values};
        for (size_t c = 0; c < SNAPSHOT_SHARD_COLUMNS; c++)
            TRY(get_element(json_at(rows, (size_t)i), c, path, columns[c], err));
        if (s->first_value != next || s->values < 0 || __builtin_add_overflow(next, s->values, &next))
            FAIL(err, STATUS_DATA, "'%s': row %d of its shards does not join the one before", path, i);
    }
    if (next != out->table.values)
        FAIL(err, STATUS_DATA, "'%s': its shards cover %" PRId64 " values of %" PRId64, path, next, out->table.values);
    return STATUS_OK;
}

static enum status parse_texts(const struct json *root, const char *key, const char *path, int64_t limit,
                               struct index_texts *out, struct error *err)
{
    const struct json *list;
    TRY(get_array(root, key, path, &list, err));
    out->items = mem_alloc(json_count(list), sizeof *out->items);
    if (!out->items)
        FAIL(err, STATUS_NOMEM, "no memory for the index of '%s'", path);
    for (size_t i = 0; i < json_count(list); i++) {
        const struct json *entry = json_at(list, i);
        struct index_text text = {.offset = -1, .bytes = -1};
        const char *name = NULL;
        TRY(get_name(entry, path, &name, err));
        TRY(json_get_int(entry, "offset", path, &text.offset, err));
        TRY(json_get_int(entry, "bytes", path, &text.bytes, err));
        TRY(check_place(text.offset, text.bytes, limit, path, name, err));
        if (!(text.name = mem_strdup(name)))
            FAIL(err, STATUS_NOMEM, "no memory for the index of '%s'", path);
        out->items[out->count++] = text;
    }
    return STATUS_OK;
}

static enum status parse_root(const struct json *root, const char *path, int64_t limit, struct snapshot_index *out,
                              struct error *err)
{
    TRY(parse_meta(root, path, &out->meta, err));
    TRY(parse_tensors(root, path, limit, out, err));
    TRY(parse_arrays(root, path, limit, out, err));
    TRY(parse_shards(root, path, out, err));
    TRY(parse_texts(root, "texts", path, limit, &out->texts, err));
    return parse_texts(root, "files", path, limit, &out->files, err);
}

enum status index_parse(const char *path, const char *text, size_t size, int64_t limit, struct snapshot_index *out,
                        struct error *err)
{
    struct json *root;
    *out = (struct snapshot_index){.meta.best_step = -1};
    TRY(json_parse(text, size, path, &root, err));
    enum status st = parse_root(root, path, limit, out, err);
    json_free(root);
    if (st != STATUS_OK)
        index_free(out);
    return st;
}

static void texts_free(struct index_texts *texts)
{
    for (int i = 0; i < texts->count; i++)
        mem_free(texts->items[i].name);
    mem_free(texts->items);
}

void index_free(struct snapshot_index *index)
{
    params_free(&index->table);
    for (int i = 0; i < index->n_arrays; i++)
        mem_free(index->places[i]);
    mem_free(index->shards);
    texts_free(&index->texts);
    texts_free(&index->files);
    *index = (struct snapshot_index){0};
}
