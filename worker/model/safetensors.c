#include "worker/model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are little-endian and are read as they lie");

enum { LENGTH_BYTES = 8 };
static const uint64_t header_limit = 100000000;

/* Names and widths of the element types, in the order of enum safetensors_dtype. */
static const struct {
    const char *name;
    int bits;
} dtypes[SAFETENSORS_DTYPE_COUNT] = {
    {"BOOL", 8},     {"F4", 4},       {"F6_E2M3", 6},     {"F6_E3M2", 6},     {"U8", 8},   {"I8", 8},
    {"F8_E5M2", 8},  {"F8_E4M3", 8},  {"F8_E8M0", 8},     {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"I16", 16},     {"U16", 16},     {"F16", 16},        {"BF16", 16},       {"I32", 32}, {"U32", 32},
    {"F32", 32},     {"C64", 64},     {"F64", 64},        {"I64", 64},        {"U64", 64},
};

/* One mapped file with its tensors. */
struct shard {
    char *path;
    struct file_map map;
    bool mapped;                       /* false: the bytes are the caller's */
    struct safetensors_entry *entries; /* [count] by name once parsed */
    size_t count;
};

struct safetensors {
    struct shard *shards;
    size_t shard_count;
    const struct safetensors_entry **listed; /* [count] by name; points into the shards */
    size_t count;
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype)
{
    return dtypes[dtype].name;
}

void safetensors_shape_text(const int64_t *shape, int n_dims, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < n_dims && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (used < size)
        snprintf(out + used, size - used, "]");
}

/* ---- one file ---- */

static enum status parse_dtype(const struct json *info, const char *path, const char *name,
                               enum safetensors_dtype *out, struct error *err)
{
    size_t size;
    const char *text = json_to_string(json_member(info, "dtype"), &size);
    if (!text)
        FAIL(err, STATUS_DATA, "%s: tensor '%s': 'dtype' must be a string, found %s", path, name,
             json_kind_name(json_kind(json_member(info, "dtype"))));
    for (int i = 0; i < SAFETENSORS_DTYPE_COUNT; i++)
        if (size == strlen(dtypes[i].name) && !memcmp(text, dtypes[i].name, size)) {
            *out = (enum safetensors_dtype)i;
            return STATUS_OK;
        }
    FAIL(err, STATUS_DATA, "%s: tensor '%s': unknown dtype '%s'", path, name, text);
}

/* A list of whole numbers >= 0 into out[json_count(list)]. */
static enum status parse_sizes(const struct json *list, const char *path, const char *name, const char *key,
                               int64_t *out, struct error *err)
{
    for (size_t i = 0; i < json_count(list); i++) {
        const struct json *item = json_at(list, i);
        if (json_kind(item) != JSON_KIND_INT)
            FAIL(err, STATUS_DATA, "%s: tensor '%s': '%s' must hold integers, element %zu is %s", path, name, key, i,
                 json_kind_name(json_kind(item)));
        out[i] = json_to_int(item);
        if (out[i] < 0)
            FAIL(err, STATUS_DATA, "%s: tensor '%s': '%s' must not be negative, element %zu is %lld", path, name, key,
                 i, (long long)out[i]);
    }
    return STATUS_OK;
}

static enum status need_list(const struct json *info, const char *path, const char *name, const char *key,
                             const struct json **out, struct error *err)
{
    *out = json_member(info, key);
    if (json_kind(*out) != JSON_KIND_ARRAY)
        FAIL(err, STATUS_DATA, "%s: tensor '%s': '%s' must be an array, found %s", path, name, key,
             json_kind_name(json_kind(*out)));
    return STATUS_OK;
}

/* Reads one tensor's description; begin and end go to offsets. Releases nothing: the shard owns the entry. */
static enum status parse_entry(const struct json *info, const char *path, const char *name,
                               struct safetensors_entry *entry, int64_t offsets[2], struct error *err)
{
    entry->file = path;
    if (!(entry->name = mem_strdup(name)))
        FAIL(err, STATUS_NOMEM, "%s: no memory for the tensor names", path);
    if (json_kind(info) != JSON_KIND_OBJECT)
        FAIL(err, STATUS_DATA, "%s: tensor '%s' must be described by an object, found %s", path, name,
             json_kind_name(json_kind(info)));
    TRY(parse_dtype(info, path, name, &entry->dtype, err));
    const struct json *shape, *range;
    TRY(need_list(info, path, name, "shape", &shape, err));
    TRY(need_list(info, path, name, "data_offsets", &range, err));
    if (json_count(range) != 2)
        FAIL(err, STATUS_DATA, "%s: tensor '%s': 'data_offsets' must be [begin, end], found %zu numbers", path, name,
             json_count(range));
    if (!(entry->owned_shape = mem_alloc(json_count(shape), sizeof *entry->owned_shape)))
        FAIL(err, STATUS_NOMEM, "%s: no memory for the shapes", path);
    entry->shape = entry->owned_shape;
    entry->n_dims = (int)json_count(shape);
    TRY(parse_sizes(shape, path, name, "shape", entry->owned_shape, err));
    return parse_sizes(range, path, name, "data_offsets", offsets, err);
}

static enum status check_metadata(const struct json *metadata, const char *path, struct error *err)
{
    if (json_kind(metadata) == JSON_KIND_NULL)
        return STATUS_OK;
    if (json_kind(metadata) != JSON_KIND_OBJECT)
        FAIL(err, STATUS_DATA, "%s: '__metadata__' must be an object of strings, found %s", path,
             json_kind_name(json_kind(metadata)));
    for (const void *it = json_first(metadata); it; it = json_next(metadata, it))
        if (json_kind(json_it_value(it)) != JSON_KIND_STRING)
            FAIL(err, STATUS_DATA, "%s: '__metadata__': '%s' must be a string, found %s", path,
                 json_it_key(it, NULL), json_kind_name(json_kind(json_it_value(it))));
    return STATUS_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

struct span_of_bytes {
    int64_t begin, end;
    size_t entry;
};

static int by_offset(const void *a, const void *b)
{
    const struct span_of_bytes *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* The size the shape asks for must be the size of the bytes. */
static enum status check_size(struct safetensors_entry *entry, const struct span_of_bytes *span, struct error *err)
{
    uint64_t count = 1, bits;
    bool overflow = false;
    for (int i = 0; i < entry->n_dims; i++)
        overflow = __builtin_mul_overflow(count, (uint64_t)entry->shape[i], &count) || overflow;
    overflow = overflow || __builtin_mul_overflow(count, (uint64_t)dtypes[entry->dtype].bits, &bits);
    char shape[128];
    safetensors_shape_text(entry->shape, entry->n_dims, shape, sizeof shape);
    if (overflow || count > INT64_MAX)
        FAIL(err, STATUS_DATA, "%s: tensor '%s': its shape %s overflows", entry->file, entry->name, shape);
    if (bits % 8)
        FAIL(err, STATUS_DATA, "%s: tensor '%s': shape %s of %s does not fill whole bytes", entry->file, entry->name,
             shape, dtypes[entry->dtype].name);
    if ((uint64_t)(span->end - span->begin) != bits / 8)
        FAIL(err, STATUS_DATA, "%s: tensor '%s': shape %s of %s takes %llu bytes, its data_offsets give %lld",
             entry->file, entry->name, shape, dtypes[entry->dtype].name, (unsigned long long)(bits / 8),
             (long long)(span->end - span->begin));
    entry->count = (int64_t)count;
    entry->size = (size_t)(bits / 8);
    return STATUS_OK;
}

/* Tensors must cover the bytes after the header without hole or overlap. */
static enum status place_entries(struct shard *shard, struct span_of_bytes *spans, size_t header_end, struct error *err)
{
    const char *path = shard->path;
    size_t available = shard->map.size - header_end;
    int64_t next = 0;
    qsort(spans, shard->count, sizeof *spans, by_offset);
    for (size_t i = 0; i < shard->count; i++) {
        struct safetensors_entry *entry = &shard->entries[spans[i].entry];
        if (spans[i].begin != next || spans[i].end < spans[i].begin)
            FAIL(err, STATUS_DATA,
                 "%s: tensor '%s': data_offsets [%lld, %lld] must begin at %lld, where the tensor before ends", path,
                 entry->name, (long long)spans[i].begin, (long long)spans[i].end, (long long)next);
        TRY(check_size(entry, &spans[i], err));
        next = spans[i].end;
    }
    if ((uint64_t)next != available)
        FAIL(err, STATUS_DATA, "%s: the header describes %lld bytes of tensors, the file holds %zu: it is %s", path,
             (long long)next, available, (uint64_t)next > available ? "cut off" : "longer than it should be");
    for (size_t i = 0; i < shard->count; i++)
        shard->entries[spans[i].entry].data = shard->map.data + header_end + (size_t)spans[i].begin;
    return STATUS_OK;
}

static enum status parse_header(struct shard *shard, const struct json *header, size_t header_end, struct error *err)
{
    if (json_kind(header) != JSON_KIND_OBJECT)
        FAIL(err, STATUS_DATA, "%s: the header must be a JSON object, found %s", shard->path,
             json_kind_name(json_kind(header)));
    const struct json *metadata = json_member(header, "__metadata__");
    TRY(check_metadata(metadata, shard->path, err));
    shard->entries = mem_alloc(json_count(header), sizeof *shard->entries);
    struct span_of_bytes *spans = mem_alloc(json_count(header), sizeof *spans);
    enum status st = STATUS_OK;
    if (!shard->entries || !spans)
        st = error_set(err, STATUS_NOMEM, "%s: no memory for %zu tensors", shard->path, json_count(header));
    for (const void *it = st == STATUS_OK ? json_first(header) : NULL; it && st == STATUS_OK; it = json_next(header, it)) {
        if (!strcmp(json_it_key(it, NULL), "__metadata__"))
            continue;
        int64_t offsets[2];
        size_t index = shard->count++; /* counted first, so that closing releases a half-read entry */
        st = parse_entry(json_it_value(it), shard->path, json_it_key(it, NULL), &shard->entries[index], offsets, err);
        if (st == STATUS_OK)
            spans[index] = (struct span_of_bytes){offsets[0], offsets[1], index};
    }
    if (st == STATUS_OK)
        st = place_entries(shard, spans, header_end, err);
    mem_free(spans);
    return st;
}

/* shard->map holds the bytes; fills the entries. */
static enum status shard_parse(struct shard *shard, struct error *err)
{
    uint64_t length;
    if (shard->map.size < sizeof length)
        FAIL(err, STATUS_DATA, "%s: %zu bytes are too few for a safetensors file", shard->path, shard->map.size);
    memcpy(&length, shard->map.data, sizeof length);
    if (length > header_limit)
        FAIL(err, STATUS_DATA, "%s: header length %llu is over the limit of %llu: not a safetensors file, or damaged",
             shard->path, (unsigned long long)length, (unsigned long long)header_limit);
    if (length > shard->map.size - LENGTH_BYTES)
        FAIL(err, STATUS_DATA, "%s: header length %llu reaches beyond the end of the file (%zu bytes): it is cut off",
             shard->path, (unsigned long long)length, shard->map.size);
    struct json *header = NULL;
    enum status st = json_parse((const char *)shard->map.data + LENGTH_BYTES, (size_t)length, shard->path, &header, err);
    if (st != STATUS_OK)
        return st == STATUS_DATA ? error_prefix(err, "safetensors header") : st;
    st = parse_header(shard, header, LENGTH_BYTES + (size_t)length, err);
    json_free(header);
    if (st == STATUS_OK)
        qsort(shard->entries, shard->count, sizeof *shard->entries, by_name);
    return st;
}

static const struct safetensors_entry *shard_find(const struct shard *shard, const char *name)
{
    struct safetensors_entry key = {.name = (char *)name};
    return bsearch(&key, shard->entries, shard->count, sizeof key, by_name);
}

static void shard_close(struct shard *shard)
{
    for (size_t i = 0; i < shard->count; i++) {
        mem_free(shard->entries[i].name);
        mem_free(shard->entries[i].owned_shape);
    }
    mem_free(shard->entries);
    mem_free(shard->path);
    if (shard->mapped)
        file_map_close(&shard->map);
}

/* ---- sets ---- */

static int listed_by_name(const void *a, const void *b)
{
    return by_name(*(const void *const *)a, *(const void *const *)b);
}

static enum status set_new(struct safetensors **out, size_t shard_limit, struct error *err)
{
    struct safetensors *set = mem_alloc(1, sizeof *set);
    if (set)
        set->shards = mem_alloc(shard_limit, sizeof *set->shards);
    if (!set || !set->shards) {
        mem_free(set);
        FAIL(err, STATUS_NOMEM, "no memory to open safetensors files");
    }
    *out = set;
    return STATUS_OK;
}

/* Takes the next shard of the set and gives it a name. */
static enum status set_next(struct safetensors *set, const char *path, struct shard **out, struct error *err)
{
    struct shard *shard = &set->shards[set->shard_count];
    if (!(shard->path = mem_strdup(path)))
        FAIL(err, STATUS_NOMEM, "no memory to open '%s'", path);
    set->shard_count++;
    *out = shard;
    return STATUS_OK;
}

static enum status set_add_file(struct safetensors *set, const char *path, struct shard **out, struct error *err)
{
    struct shard *shard = NULL;
    TRY(set_next(set, path, &shard, err));
    TRY(file_map_open(path, &shard->map, err));
    shard->mapped = true;
    *out = shard;
    return shard_parse(shard, err);
}

/* A set of one shard lists all its tensors. */
static enum status set_list_single(struct safetensors *set, struct error *err)
{
    const struct shard *shard = &set->shards[0];
    if (!(set->listed = mem_alloc(shard->count, sizeof *set->listed)))
        FAIL(err, STATUS_NOMEM, "%s: no memory for %zu tensors", shard->path, shard->count);
    for (size_t i = 0; i < shard->count; i++)
        set->listed[i] = &shard->entries[i];
    set->count = shard->count;
    return STATUS_OK;
}

enum status safetensors_open_memory(const void *data, size_t size, const char *where, struct safetensors **out,
                                    struct error *err)
{
    struct safetensors *set = NULL;
    TRY(set_new(&set, 1, err));
    struct shard *shard = NULL;
    enum status st = set_next(set, where, &shard, err);
    if (st == STATUS_OK) {
        shard->map = (struct file_map){data, size};
        st = shard_parse(shard, err);
    }
    if (st == STATUS_OK)
        st = set_list_single(set, err);
    if (st != STATUS_OK) {
        safetensors_close(set);
        return st;
    }
    *out = set;
    return STATUS_OK;
}

static enum status open_single(const char *path, struct safetensors **out, struct error *err)
{
    struct safetensors *set = NULL;
    TRY(set_new(&set, 1, err));
    struct shard *shard = NULL;
    enum status st = set_add_file(set, path, &shard, err);
    if (st == STATUS_OK)
        st = set_list_single(set, err);
    if (st != STATUS_OK) {
        safetensors_close(set);
        return st;
    }
    *out = set;
    return STATUS_OK;
}

/* The shard of that file, opened at its first mention. Names come from the index and stay inside the folder. */
static enum status shard_of(struct safetensors *set, const char *dir, const char *index_path, const char *file,
                            const char *tensor, struct shard **out, struct error *err)
{
    if (!*file || strchr(file, '/'))
        FAIL(err, STATUS_DATA, "%s: tensor '%s' is mapped to '%s', which is not a file name in this folder", index_path,
             tensor, file);
    char *path = path_join(dir, file);
    if (!path)
        FAIL(err, STATUS_NOMEM, "%s: no memory for the name of a shard", index_path);
    enum status st = STATUS_OK;
    struct shard *found = NULL;
    for (size_t i = 0; i < set->shard_count && !found; i++)
        if (!strcmp(set->shards[i].path, path))
            found = &set->shards[i];
    if (!found && !file_exists(path))
        st = error_set(err, STATUS_DATA,
                       "%s names the shard '%s' for tensor '%s', but there is no such file; fetch it or mend the index",
                       index_path, file, tensor);
    else if (!found)
        st = set_add_file(set, path, &found, err);
    mem_free(path);
    *out = found;
    return st;
}

static enum status read_weight_map(struct safetensors *set, const char *dir, const char *index_path,
                                   const struct json *map, struct error *err)
{
    if (!(set->listed = mem_alloc(json_count(map), sizeof *set->listed)))
        FAIL(err, STATUS_NOMEM, "%s: no memory for %zu tensors", index_path, json_count(map));
    for (const void *it = json_first(map); it; it = json_next(map, it)) {
        const char *tensor = json_it_key(it, NULL), *file = json_to_string(json_it_value(it), NULL);
        if (!file)
            FAIL(err, STATUS_DATA, "%s: the file of tensor '%s' must be a string, found %s", index_path, tensor,
                 json_kind_name(json_kind(json_it_value(it))));
        struct shard *shard = NULL;
        TRY(shard_of(set, dir, index_path, file, tensor, &shard, err));
        const struct safetensors_entry *entry = shard_find(shard, tensor);
        if (!entry)
            FAIL(err, STATUS_DATA, "%s maps tensor '%s' to '%s', but that file does not hold it", index_path, tensor, file);
        set->listed[set->count++] = entry;
    }
    qsort(set->listed, set->count, sizeof *set->listed, listed_by_name);
    return STATUS_OK;
}

static enum status open_index(const char *dir, const char *index_path, struct safetensors **out, struct error *err)
{
    struct json *index;
    TRY(json_read_file(index_path, &index, err));
    struct safetensors *set = NULL;
    const struct json *map = json_member(index, "weight_map");
    enum status st = STATUS_OK;
    if (json_kind(map) != JSON_KIND_OBJECT)
        st = error_set(err, STATUS_DATA, "%s: 'weight_map' must be an object of tensor: file, found %s", index_path,
                       json_kind_name(json_kind(map)));
    else
        st = set_new(&set, json_count(map), err); /* at most one shard per tensor */
    if (st == STATUS_OK)
        st = read_weight_map(set, dir, index_path, map, err);
    json_free(index);
    if (st != STATUS_OK) {
        safetensors_close(set);
        return st;
    }
    *out = set;
    return STATUS_OK;
}

static enum status open_folder(const char *dir, struct safetensors **out, struct error *err)
{
    char *single = path_join(dir, "model.safetensors"), *index = path_join(dir, "model.safetensors.index.json");
    enum status st;
    if (!single || !index)
        st = error_set(err, STATUS_NOMEM, "no memory to open the folder '%s'", dir);
    else if (file_exists(single))
        st = open_single(single, out, err);
    else if (file_exists(index))
        st = open_index(dir, index, out, err);
    else
        st = error_set(err, STATUS_DATA,
                       "the folder '%s' holds neither model.safetensors nor model.safetensors.index.json; "
                       "weights in other formats must be saved as safetensors first",
                       dir);
    mem_free(single);
    mem_free(index);
    return st;
}

enum status safetensors_open(const char *path, struct safetensors **out, struct error *err)
{
    return folder_exists(path) ? open_folder(path, out, err) : open_single(path, out, err);
}

void safetensors_close(struct safetensors *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->shard_count; i++)
        shard_close(&set->shards[i]);
    mem_free(set->shards);
    mem_free(set->listed);
    mem_free(set);
}

size_t safetensors_count(const struct safetensors *set)
{
    return set->count;
}

const struct safetensors_entry *safetensors_at(const struct safetensors *set, size_t index)
{
    return set->listed[index];
}

const struct safetensors_entry *safetensors_find(const struct safetensors *set, const char *name)
{
    struct safetensors_entry key = {.name = (char *)name}, *pointer = &key;
    const struct safetensors_entry **hit = bsearch(&pointer, set->listed, set->count, sizeof *set->listed, listed_by_name);
    return hit ? *hit : NULL;
}

/* ---- values ---- */

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE binary16 to binary32, exact: subnormals are normalised by hand, infinities and NaN payloads kept. */
static float float_of_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, mantissa = half & 0x3ffu;
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent)
        return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float magnitude = (float)mantissa * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

enum status safetensors_to_float(const struct safetensors_entry *entry, float *out, struct error *err)
{
    uint16_t half;
    switch (entry->dtype) {
    case SAFETENSORS_F32:
        if (entry->size)
            memcpy(out, entry->data, entry->size);
        return STATUS_OK;
    case SAFETENSORS_BF16:
        for (int64_t i = 0; i < entry->count; i++) {
            memcpy(&half, entry->data + 2 * i, 2);
            out[i] = float_of_bits((uint32_t)half << 16);
        }
        return STATUS_OK;
    case SAFETENSORS_F16:
        for (int64_t i = 0; i < entry->count; i++) {
            memcpy(&half, entry->data + 2 * i, 2);
            out[i] = float_of_half(half);
        }
        return STATUS_OK;
    default:
        FAIL(err, STATUS_DATA, "%s: tensor '%s' is %s; weights must be F32, F16 or BF16", entry->file, entry->name,
             dtypes[entry->dtype].name);
    }
}
