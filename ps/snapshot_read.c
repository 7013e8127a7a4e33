/* Reading of snapshots: through seal and index, straight from a map of the file. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "ps/snapshot_index.h"
#include "ps/snapshot_internal.h"
#include "ps/snapshot_seal.h"

struct snapshot {
    char *path;
    struct file_map map; /* data is NULL where the image is the caller's */
    const unsigned char *image;
    size_t size;
    struct snapshot_index index;
};

/* ---- Opening ------------------------------------------------------------------------------------------------- */

enum status snapshot_open_image(const char *name, const unsigned char *image, size_t size, bool sealed,
                                struct snapshot **out, struct error *err)
{
    size_t at;
    TRY(seal_check(name, image, size, sealed, &at, err));
    struct snapshot *s = mem_alloc(1, sizeof *s);
    if (!s || !(s->path = mem_strdup(name))) {
        mem_free(s);
        FAIL(err, STATUS_NOMEM, "no memory to open '%s'", name);
    }
    s->image = image;
    s->size = size;
    enum status st = index_parse(name, (const char *)image + at, size - at, (int64_t)at, &s->index, err);
    if (st == STATUS_OK)
        *out = s;
    else
        snapshot_close(s);
    return st;
}

enum status snapshot_open(const char *path, struct snapshot **out, struct error *err)
{
    struct file_map map;
    TRY(file_map_open(path, &map, err));
    enum status st = snapshot_open_image(path, map.data, map.size, true, out, err);
    if (st == STATUS_OK)
        (*out)->map = map;
    else
        file_map_close(&map);
    return st;
}

void snapshot_close(struct snapshot *snapshot)
{
    if (!snapshot)
        return;
    index_free(&snapshot->index);
    file_map_close(&snapshot->map);
    mem_free(snapshot->path);
    mem_free(snapshot);
}

/* ---- What it says -------------------------------------------------------------------------------------------- */

const char *snapshot_path(const struct snapshot *snapshot)
{
    return snapshot->path;
}

int64_t snapshot_bytes(const struct snapshot *snapshot)
{
    return (int64_t)snapshot->size;
}

const struct snapshot_meta *snapshot_meta(const struct snapshot *snapshot)
{
    return &snapshot->index.meta;
}

const struct params *snapshot_params(const struct snapshot *snapshot)
{
    return &snapshot->index.table;
}

int snapshot_states(const struct snapshot *snapshot)
{
    return snapshot->index.n_arrays - 1;
}

const char *snapshot_state_name(const struct snapshot *snapshot, int state)
{
    return snapshot->index.names[1 + state];
}

int snapshot_shards(const struct snapshot *snapshot, const struct snapshot_shard **out)
{
    *out = snapshot->index.shards;
    return snapshot->index.n_shards;
}

int snapshot_files(const struct snapshot *snapshot)
{
    return snapshot->index.files.count;
}

const char *snapshot_file_at(const struct snapshot *snapshot, int index)
{
    return snapshot->index.files.items[index].name;
}

static enum status copy_text(const struct snapshot *s, const struct index_texts *texts, const char *name, char **out,
                             size_t *size, struct error *err)
{
    for (int i = 0; i < texts->count; i++) {
        const struct index_text *text = &texts->items[i];
        if (strcmp(text->name, name))
            continue;
        *size = (size_t)text->bytes;
        *out = mem_strndup((const char *)s->image + text->offset, *size);
        if (!*out)
            FAIL(err, STATUS_NOMEM, "no memory for the %zu bytes of '%s' in '%s'", *size, name, s->path);
        return STATUS_OK;
    }
    FAIL(err, STATUS_DATA, "'%s' holds no '%s'", s->path, name);
}

enum status snapshot_text(const struct snapshot *snapshot, const char *name, char **out, size_t *size,
                          struct error *err)
{
    return copy_text(snapshot, &snapshot->index.texts, name, out, size, err);
}

enum status snapshot_file(const struct snapshot *snapshot, const char *name, char **out, size_t *size,
                          struct error *err)
{
    return copy_text(snapshot, &snapshot->index.files, name, out, size, err);
}

/* ---- Tensors ------------------------------------------------------------------------------------------------- */

/* "[3, 5]" */
static void shape_text(const struct param *p, char out[128])
{
    int used = snprintf(out, 128, "[");
    for (int i = 0; i < p->n_dims; i++)
        used += snprintf(out + used, 128 - (size_t)used, "%s%" PRId64, i ? ", " : "", p->shape[i]);
    snprintf(out + used, 128 - (size_t)used, "]");
}

static bool same_shape(const struct param *a, const struct param *b)
{
    return a->n_dims == b->n_dims && !memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof *a->shape);
}

/* Index of the saved tensor of that name, or -1; usually it is the one at `guess`. */
static int find_saved(const struct params *saved, const char *name, int guess)
{
    return guess < saved->count && !strcmp(saved->items[guess].name, name) ? guess : params_find(saved, name);
}

enum status snapshot_check(const struct snapshot *snapshot, const struct params *table, struct error *err)
{
    static const char advice[] = "it is a snapshot of another model: use the run file and model it was made with";
    const struct params *saved = &snapshot->index.table;
    int trained = 0;
    for (int i = 0; i < table->count; i++) {
        const struct param *mine = &table->items[i];
        int at = find_saved(saved, mine->name, trained);
        if ((at >= 0) != (mine->role == PARAM_TRAINED))
            FAIL(err, STATUS_DATA, "'%s' %s tensor '%s', which this run %s; %s", snapshot->path,
                 at >= 0 ? "has trained" : "lacks", mine->name, at >= 0 ? "keeps frozen" : "trains", advice);
        trained += at >= 0;
        if (at < 0 || same_shape(mine, &saved->items[at]))
            continue;
        char here[128], there[128];
        shape_text(mine, here);
        shape_text(&saved->items[at], there);
        FAIL(err, STATUS_DATA, "'%s': tensor '%s' has shape %s, this run's has %s; %s", snapshot->path, mine->name, there,
             here, advice);
    }
    for (int i = 0; trained < saved->count && i < saved->count; i++)
        if (params_find(table, saved->items[i].name) < 0)
            FAIL(err, STATUS_DATA, "'%s' has tensor '%s', which this run's model lacks; %s", snapshot->path,
                 saved->items[i].name, advice);
    return STATUS_OK;
}

/* The bytes of one saved tensor after their checksum was found right. */
static enum status tensor_bytes(const struct snapshot *s, int array, int tensor, const unsigned char **bytes,
                                struct error *err)
{
    const struct param *param = &s->index.table.items[tensor];
    const struct index_place *place = &s->index.places[array][tensor];
    *bytes = s->image + place->offset;
    uint32_t computed = crc32c(*bytes, (size_t)param->size * sizeof(float));
    if (place->crc32c != computed)
        FAIL(err, STATUS_DATA, "'%s': '%s' of '%s' is damaged (checksum %08" PRIx32 " written, %08" PRIx32 " found)",
             s->path, s->index.names[array], param->name, place->crc32c, computed);
    return STATUS_OK;
}

/* One flat array from its datasets; the padding behind each tensor becomes zero. */
static enum status load_array(const struct snapshot *s, const struct params *table, int array, float *values,
                              struct error *err)
{
    int trained = 0;
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->items[i];
        const unsigned char *bytes;
        if (p->role != PARAM_TRAINED)
            continue;
        TRY(tensor_bytes(s, array, find_saved(&s->index.table, p->name, trained++), &bytes, err));
        float *out = values + p->offset;
        int64_t padded = (p->size + PARAM_ALIGN - 1) / PARAM_ALIGN * PARAM_ALIGN;
        memcpy(out, bytes, (size_t)p->size * sizeof *out);
        memset(out + p->size, 0, (size_t)(padded - p->size) * sizeof *out);
    }
    return STATUS_OK;
}

enum status snapshot_load(const struct snapshot *snapshot, const struct params *table, float *values, int n_states,
                          const struct snapshot_target *states, struct error *err)
{
    const struct snapshot_index *index = &snapshot->index;
    TRY(snapshot_check(snapshot, table, err));
    if (values)
        TRY(load_array(snapshot, table, INDEX_MODEL, values, err));
    for (int i = 0; i < n_states; i++) {
        int at = 1;
        while (at < index->n_arrays && strcmp(index->names[at], states[i].name))
            at++;
        if (at == index->n_arrays)
            FAIL(err, STATUS_DATA, "'%s' has no optimizer state '%s': optimizer %s with '%s' was saved; use the same optimizer",
                 snapshot->path, states[i].name, index->meta.optimizer, index->meta.states);
        TRY(load_array(snapshot, table, at, states[i].values, err));
    }
    return STATUS_OK;
}

/* Goes through all tensors in the digest's order. */
static enum status add_all(const struct snapshot *s, struct digest *digest, struct error *err)
{
    for (int array = 0; array < s->index.n_arrays; array++) {
        snapshot_digest_section(digest, s->index.names[array]);
        for (int i = 0; i < s->index.table.count; i++) {
            const unsigned char *bytes;
            TRY(tensor_bytes(s, array, i, &bytes, err));
            snapshot_digest_tensor(digest, &s->index.table.items[i], bytes);
        }
    }
    return STATUS_OK;
}

enum status snapshot_recompute_digest(const struct snapshot *snapshot, char hex[DIGEST_HEX_SIZE], struct error *err)
{
    struct digest *digest = digest_new();
    if (!digest)
        FAIL(err, STATUS_NOMEM, "no memory for a digest");
    enum status st = add_all(snapshot, digest, err);
    digest_finish(digest, hex);
    return st;
}
