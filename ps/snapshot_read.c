/* Reading of snapshots: everything is checked against the file itself before it is believed. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "ps/snapshot_internal.h"
#include "ps/snapshot_seal.h"

struct snapshot {
    char *path;
    struct file_map map; /* data is NULL where the image is the caller's */
    size_t size;
    struct h5 *file;
    struct snapshot_meta meta;
    struct params table;
    int n_states;
    char state_names[SNAPSHOT_MAX_STATES][SNAPSHOT_STRING_SIZE];
    int n_shards;
    struct snapshot_shard *shards;
    int n_files;
    char **files;
};

/* ---- Opening ------------------------------------------------------------------------------------------------- */

static enum status read_meta(struct snapshot *s, struct error *err)
{
    int64_t complete = 0;
    TRY(h5_get_int(s->file, "/run", "format_version", &s->meta.format_version, err));
    if (s->meta.format_version < 1 || s->meta.format_version > SNAPSHOT_FORMAT)
        FAIL(err, STATUS_DATA, "'%s' has snapshot format %" PRId64 "; this program reads 1 to %d: use a newer version",
             s->path, s->meta.format_version, SNAPSHOT_FORMAT);
    if (h5_has_attribute(s->file, "/run", "complete"))
        TRY(h5_get_int(s->file, "/run", "complete", &complete, err));
    if (complete != 1)
        FAIL(err, STATUS_DATA, "'%s' is not complete: its writer was interrupted", s->path);
    for (int i = 0; i < snapshot_field_count; i++) {
        const struct snapshot_field *field = &snapshot_fields[i];
        char *member = (char *)&s->meta + field->offset;
        if (!h5_has_attribute(s->file, "/run", field->name))
            continue;
        switch (field->kind) {
        case SNAPSHOT_INT:
            TRY(h5_get_int(s->file, "/run", field->name, (int64_t *)member, err));
            break;
        case SNAPSHOT_REAL:
            TRY(h5_get_real(s->file, "/run", field->name, (double *)member, err));
            break;
        case SNAPSHOT_STRING:
            TRY(h5_get_string(s->file, "/run", field->name, member, SNAPSHOT_STRING_SIZE, err));
        }
    }
    if (strchr(s->meta.optimizer, '/'))
        FAIL(err, STATUS_DATA, "'%s': optimizer '%s' is not a name", s->path, s->meta.optimizer);
    return STATUS_OK;
}

static enum status read_state_names(struct snapshot *s, struct error *err)
{
    char names[SNAPSHOT_STRING_SIZE], *rest = names;
    memcpy(names, s->meta.states, sizeof names);
    for (char *name; (name = strtok_r(rest, " ", &rest));) {
        if (s->n_states == SNAPSHOT_MAX_STATES || strchr(name, '/'))
            FAIL(err, STATUS_DATA, "'%s': optimizer states '%s': at most %d names are allowed", s->path, s->meta.states,
                 SNAPSHOT_MAX_STATES);
        snprintf(s->state_names[s->n_states++], SNAPSHOT_STRING_SIZE, "%s", name);
    }
    if (s->n_states && !s->meta.optimizer[0])
        FAIL(err, STATUS_DATA, "'%s' has optimizer states but no optimizer", s->path);
    return STATUS_OK;
}

static enum status add_tensor(struct snapshot *s, const char *name, struct error *err)
{
    char path[SNAPSHOT_PATH_SIZE];
    int n_dims;
    int64_t shape[H5_MAX_DIMS], decay;
    const unsigned char *bytes;
    TRY(snapshot_object(path, NULL, NULL, name, err));
    TRY(h5_read_floats(s->file, path, &n_dims, shape, &bytes, err));
    TRY(h5_get_int(s->file, path, "decay", &decay, err));
    if (n_dims > PARAM_MAX_DIMS)
        FAIL(err, STATUS_DATA, "'%s': tensor '%s' has %d dimensions, at most %d are allowed", s->path, name, n_dims,
             PARAM_MAX_DIMS);
    if (params_find(&s->table, name) >= 0)
        FAIL(err, STATUS_DATA, "'%s': tensor '%s' is listed twice", s->path, name);
    struct param param = {.name = (char *)name, .n_dims = n_dims, .role = PARAM_TRAINED, .decay = decay != 0};
    memcpy(param.shape, shape, (size_t)n_dims * sizeof *shape);
    return params_add(&s->table, &param, NULL, err);
}

/* The table of tensors: /run/tensors has the names in order, the datasets have the shapes. */
static enum status read_tensors(struct snapshot *s, struct error *err)
{
    const char *text;
    size_t size;
    TRY(h5_read_text(s->file, "/run/tensors", &text, &size, err));
    while (size) {
        const char *end = memchr(text, '\n', size);
        size_t length = end ? (size_t)(end - text) : size;
        if (length >= SNAPSHOT_PATH_SIZE || memchr(text, '\0', length))
            FAIL(err, STATUS_DATA, "'%s': /run/tensors holds something that is no tensor name", s->path);
        char name[SNAPSHOT_PATH_SIZE];
        memcpy(name, text, length);
        name[length] = '\0';
        TRY(add_tensor(s, name, err));
        size -= end ? length + 1 : length;
        text += end ? length + 1 : length;
    }
    if (s->meta.tensors != s->table.count || s->meta.parameters != s->table.trained)
        FAIL(err, STATUS_DATA, "'%s' holds %d tensors with %" PRId64 " parameters but says %" PRId64 " and %" PRId64,
             s->path, s->table.count, s->table.trained, s->meta.tensors, s->meta.parameters);
    return STATUS_OK;
}

static enum status read_shards(struct snapshot *s, struct error *err)
{
    int64_t rows;
    const unsigned char *bytes;
    TRY(h5_read_table(s->file, "/run/shards", SNAPSHOT_SHARD_COLUMNS, snapshot_shard_columns, &rows, &bytes, err));
    if (rows < 1 || rows > INT32_MAX)
        FAIL(err, STATUS_DATA, "'%s': /run/shards has %" PRId64 " rows", s->path, rows);
    s->shards = mem_alloc((size_t)rows, sizeof *s->shards);
    if (!s->shards)
        FAIL(err, STATUS_NOMEM, "no memory for the %" PRId64 " shards of '%s'", rows, s->path);
    memcpy(s->shards, bytes, (size_t)rows * sizeof *s->shards);
    s->n_shards = (int)rows;
    int64_t next = 0;
    for (int i = 0; i < s->n_shards; i++) {
        if (s->shards[i].first_value != next || s->shards[i].values < 0 ||
            __builtin_add_overflow(next, s->shards[i].values, &next))
            FAIL(err, STATUS_DATA, "'%s': row %d of /run/shards does not join the one before", s->path, i);
    }
    if (next != s->table.values)
        FAIL(err, STATUS_DATA, "'%s': /run/shards covers %" PRId64 " values of %" PRId64, s->path, next, s->table.values);
    return STATUS_OK;
}

static enum status add_file(void *context, const char *name, struct error *err)
{
    struct snapshot *s = context;
    char **grown = mem_realloc(s->files, (size_t)s->n_files + 1, sizeof *grown);
    if (grown)
        s->files = grown;
    char *copy = grown ? mem_strdup(name) : NULL;
    if (!copy)
        FAIL(err, STATUS_NOMEM, "no memory for the list of files in '%s'", s->path);
    s->files[s->n_files++] = copy;
    return STATUS_OK;
}

static enum status read_all(struct snapshot *s, const unsigned char *image, struct error *err)
{
    TRY(h5_open_image(s->path, image, s->size, &s->file, err));
    TRY(read_meta(s, err));
    TRY(read_state_names(s, err));
    TRY(read_tensors(s, err));
    TRY(read_shards(s, err));
    return h5_each_name(s->file, "/run/files", add_file, s, err);
}

/* Takes over `map`, also on failure. */
static enum status open_bytes(const char *path, struct file_map map, const unsigned char *image, size_t size,
                              struct snapshot **out, struct error *err)
{
    struct snapshot *s = mem_alloc(1, sizeof *s);
    if (!s) {
        file_map_close(&map);
        FAIL(err, STATUS_NOMEM, "no memory to open '%s'", path);
    }
    *s = (struct snapshot){.path = mem_strdup(path), .map = map, .size = size, .meta.best_step = -1};
    enum status st = s->path ? read_all(s, image, err) : error_set(err, STATUS_NOMEM, "no memory to open '%s'", path);
    if (st == STATUS_OK)
        *out = s;
    else
        snapshot_close(s);
    return st;
}

enum status snapshot_open_image(const char *name, const unsigned char *image, size_t size, struct snapshot **out,
                                struct error *err)
{
    return open_bytes(name, (struct file_map){0}, image, size, out, err);
}

enum status snapshot_open_checked(const char *path, bool sealed, struct snapshot **out, struct error *err)
{
    struct file_map map;
    TRY(file_map_open(path, &map, err));
    enum status st = sealed ? seal_check(path, map.data, map.size, err) : STATUS_OK;
    if (st != STATUS_OK) {
        file_map_close(&map);
        return st;
    }
    return open_bytes(path, map, map.data, map.size, out, err);
}

enum status snapshot_open(const char *path, struct snapshot **out, struct error *err)
{
    return snapshot_open_checked(path, true, out, err);
}

void snapshot_close(struct snapshot *snapshot)
{
    if (!snapshot)
        return;
    h5_close(snapshot->file, NULL); /* nothing was written: nothing to report */
    params_free(&snapshot->table);
    mem_free(snapshot->shards);
    for (int i = 0; i < snapshot->n_files; i++)
        mem_free(snapshot->files[i]);
    mem_free(snapshot->files);
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
    return &snapshot->meta;
}

const struct params *snapshot_params(const struct snapshot *snapshot)
{
    return &snapshot->table;
}

int snapshot_states(const struct snapshot *snapshot)
{
    return snapshot->n_states;
}

const char *snapshot_state_name(const struct snapshot *snapshot, int state)
{
    return snapshot->state_names[state];
}

int snapshot_shards(const struct snapshot *snapshot, const struct snapshot_shard **out)
{
    *out = snapshot->shards;
    return snapshot->n_shards;
}

int snapshot_files(const struct snapshot *snapshot)
{
    return snapshot->n_files;
}

const char *snapshot_file_at(const struct snapshot *snapshot, int index)
{
    return snapshot->files[index];
}

static enum status copy_text(const struct snapshot *s, const char *group, const char *name, char **out, size_t *size,
                             struct error *err)
{
    char path[SNAPSHOT_PATH_SIZE];
    const char *text;
    if (!name[0] || strchr(name, '/') || snprintf(path, sizeof path, "%s/%s", group, name) >= (int)sizeof path)
        FAIL(err, STATUS_DATA, "'%s' cannot hold a text named '%s'", s->path, name);
    TRY(h5_read_text(s->file, path, &text, size, err));
    *out = mem_strndup(text, *size);
    if (!*out)
        FAIL(err, STATUS_NOMEM, "no memory for the %zu bytes of %s in '%s'", *size, path, s->path);
    return STATUS_OK;
}

enum status snapshot_text(const struct snapshot *snapshot, const char *name, char **out, size_t *size,
                          struct error *err)
{
    return copy_text(snapshot, "/run", name, out, size, err);
}

enum status snapshot_file(const struct snapshot *snapshot, const char *name, char **out, size_t *size,
                          struct error *err)
{
    return copy_text(snapshot, "/run/files", name, out, size, err);
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

enum status snapshot_check(const struct snapshot *snapshot, const struct params *table, struct error *err)
{
    static const char advice[] = "it is a snapshot of another model: use the run file and model it was made with";
    for (int i = 0; i < table->count; i++) {
        const struct param *mine = &table->items[i];
        int at = params_find(&snapshot->table, mine->name);
        if ((at >= 0) != (mine->role == PARAM_TRAINED))
            FAIL(err, STATUS_DATA, "'%s' %s tensor '%s', which this run %s; %s", snapshot->path,
                 at >= 0 ? "has trained" : "lacks", mine->name, at >= 0 ? "keeps frozen" : "trains", advice);
        if (at < 0 || same_shape(mine, &snapshot->table.items[at]))
            continue;
        char here[128], there[128];
        shape_text(mine, here);
        shape_text(&snapshot->table.items[at], there);
        FAIL(err, STATUS_DATA, "'%s': tensor '%s' has shape %s, this run's has %s; %s", snapshot->path, mine->name, there,
             here, advice);
    }
    for (int i = 0; i < snapshot->table.count; i++)
        if (params_find(table, snapshot->table.items[i].name) < 0)
            FAIL(err, STATUS_DATA, "'%s' has tensor '%s', which this run's model lacks; %s", snapshot->path,
                 snapshot->table.items[i].name, advice);
    return STATUS_OK;
}

/* The bytes of one tensor after their checksum was found right. */
static enum status tensor_bytes(const struct snapshot *s, const char *state, const struct param *param,
                                const unsigned char **bytes, struct error *err)
{
    char path[SNAPSHOT_PATH_SIZE];
    struct param found = {0};
    int64_t shape[H5_MAX_DIMS], stored;
    TRY(snapshot_object(path, s->meta.optimizer, state, param->name, err));
    TRY(h5_read_floats(s->file, path, &found.n_dims, shape, bytes, err));
    if (found.n_dims <= PARAM_MAX_DIMS)
        memcpy(found.shape, shape, (size_t)found.n_dims * sizeof *shape);
    if (!same_shape(param, &found))
        FAIL(err, STATUS_DATA, "'%s': '%s' has another shape than the parameter", s->path, path);
    TRY(h5_get_int(s->file, path, "crc32c", &stored, err));
    uint32_t computed = crc32c(*bytes, (size_t)param->size * sizeof(float));
    if (stored != computed)
        FAIL(err, STATUS_DATA, "'%s': the values of '%s' are damaged (checksum %08" PRIx64 " written, %08" PRIx32 " found)",
             s->path, path, (uint64_t)stored, computed);
    return STATUS_OK;
}

/* One flat array from its datasets; the padding behind each tensor becomes zero. */
static enum status load_array(const struct snapshot *s, const struct params *table, const char *state, float *values,
                              struct error *err)
{
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->items[i];
        const unsigned char *bytes;
        if (p->role != PARAM_TRAINED)
            continue;
        TRY(tensor_bytes(s, state, p, &bytes, err));
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
    TRY(snapshot_check(snapshot, table, err));
    if (values)
        TRY(load_array(snapshot, table, NULL, values, err));
    for (int i = 0; i < n_states; i++) {
        int at = 0;
        while (at < snapshot->n_states && strcmp(snapshot->state_names[at], states[i].name))
            at++;
        if (at == snapshot->n_states)
            FAIL(err, STATUS_DATA, "'%s' has no optimizer state '%s': optimizer %s with '%s' was saved; use the same optimizer",
                 snapshot->path, states[i].name, snapshot->meta.optimizer, snapshot->meta.states);
        TRY(load_array(snapshot, table, states[i].name, states[i].values, err));
    }
    return STATUS_OK;
}

/* Goes through all tensors in the digest's order; digest may be NULL. */
static enum status visit_all(const struct snapshot *s, struct digest *digest, struct error *err)
{
    for (int section = -1; section < s->n_states; section++) {
        const char *state = section < 0 ? NULL : s->state_names[section];
        if (digest)
            snapshot_digest_section(digest, state ? state : "model");
        for (int i = 0; i < s->table.count; i++) {
            const unsigned char *bytes;
            TRY(tensor_bytes(s, state, &s->table.items[i], &bytes, err));
            if (digest)
                snapshot_digest_tensor(digest, &s->table.items[i], bytes);
        }
    }
    return STATUS_OK;
}

enum status snapshot_verify(const struct snapshot *snapshot, struct error *err)
{
    return visit_all(snapshot, NULL, err);
}

enum status snapshot_recompute_digest(const struct snapshot *snapshot, char hex[DIGEST_HEX_SIZE], struct error *err)
{
    struct digest *digest = digest_new();
    if (!digest)
        FAIL(err, STATUS_NOMEM, "no memory for a digest");
    enum status st = visit_all(snapshot, digest, err);
    digest_finish(digest, hex);
    return st;
}
