#include "ps/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "common/files.h"
#include "common/h5.h"
#include "common/memory.h"
#include "ps/snapshot_index.h"
#include "ps/snapshot_internal.h"
#include "ps/snapshot_seal.h"
#include "ps/snapshot_verify.h"

#define FIELD_ROW(kind, name, description) {SNAPSHOT_##kind, #name, description, offsetof(struct snapshot_meta, name)},
const struct snapshot_field snapshot_fields[] = {SNAPSHOT_FIELDS(FIELD_ROW)};
const int snapshot_field_count = sizeof snapshot_fields / sizeof snapshot_fields[0];

enum status snapshot_object(char path[SNAPSHOT_PATH_SIZE], const char *optimizer, const char *state,
                            const char *tensor, struct error *err)
{
    if (!tensor[0] || strchr(tensor, '/') || !strcmp(tensor, ".") || strchr(tensor, '\n'))
        FAIL(err, STATUS_DATA, "a tensor named '%s' has no place in a snapshot: no '/', no line ends", tensor);
    int size = state ? snprintf(path, SNAPSHOT_PATH_SIZE, "/optimizer/%s/%s/%s", optimizer, state, tensor)
                     : snprintf(path, SNAPSHOT_PATH_SIZE, "/model/%s", tensor);
    if (size >= SNAPSHOT_PATH_SIZE)
        FAIL(err, STATUS_DATA, "tensor name '%.60s...' is too long for a snapshot", tensor);
    return STATUS_OK;
}

void snapshot_file_name(int64_t step, char name[SNAPSHOT_STRING_SIZE])
{
    snprintf(name, SNAPSHOT_STRING_SIZE, "step-%08" PRId64 ".h5", step);
}

/* ---- Digest -------------------------------------------------------------------------------------------------- */

void snapshot_digest_section(struct digest *digest, const char *section)
{
    digest_add_string(digest, section);
}

void snapshot_digest_tensor(struct digest *digest, const struct param *param, const void *bytes)
{
    digest_add_string(digest, param->name);
    int64_t n_dims = param->n_dims;
    digest_add(digest, &n_dims, sizeof n_dims);
    digest_add(digest, param->shape, (size_t)n_dims * sizeof *param->shape);
    digest_add(digest, bytes, (size_t)param->size * sizeof(float));
}

static void digest_array(struct digest *digest, const char *section, const struct params *table, const float *values)
{
    snapshot_digest_section(digest, section);
    for (int i = 0; i < table->count; i++)
        if (table->items[i].role == PARAM_TRAINED)
            snapshot_digest_tensor(digest, &table->items[i], values + table->items[i].offset);
}

enum status snapshot_digest(const struct params *table, const float *values, int n_states,
                            const struct snapshot_state *states, char hex[DIGEST_HEX_SIZE], struct error *err)
{
    struct digest *digest = digest_new();
    if (!digest)
        FAIL(err, STATUS_NOMEM, "no memory for a digest");
    digest_array(digest, "model", table, values);
    for (int i = 0; i < n_states; i++)
        digest_array(digest, states[i].name, table, states[i].values);
    digest_finish(digest, hex);
    return STATUS_OK;
}

/* ---- Writing ------------------------------------------------------------------------------------------------- */

/* One flat array: every trained tensor as a dataset with its checksum. Tensors with a rate lie in states like any other,
 * as the zeros that they are there: the format has one list of tensors for all arrays. */
static enum status write_array(struct h5 *file, const struct snapshot_view *view, const char *state,
                               const float *values, struct digest *digest, struct error *err)
{
    char path[SNAPSHOT_PATH_SIZE];
    snapshot_digest_section(digest, state ? state : "model");
    for (int i = 0; i < view->table->count; i++) {
        const struct param *p = &view->table->items[i];
        if (p->role != PARAM_TRAINED)
            continue;
        const float *bytes = values + p->offset;
        TRY(snapshot_object(path, view->meta.optimizer, state, p->name, err));
        TRY(h5_write_floats(file, path, p->n_dims, p->shape, bytes, err));
        TRY(h5_set_int(file, path, "crc32c", crc32c(bytes, (size_t)p->size * sizeof *bytes), err));
        snapshot_digest_tensor(digest, p, bytes);
        if (state)
            continue;
        TRY(h5_set_string(file, path, "role", p->rate > 0 ? "tracked" : "trained", err));
        TRY(h5_set_int(file, path, "decay", p->decay, err));
    }
    return STATUS_OK;
}

static enum status write_texts(struct h5 *file, const char *group, const struct snapshot_text *texts, int count,
                               struct error *err)
{
    char path[SNAPSHOT_PATH_SIZE];
    for (int i = 0; i < count; i++) {
        if (!texts[i].name[0] || strchr(texts[i].name, '/') ||
            snprintf(path, sizeof path, "%s/%s", group, texts[i].name) >= (int)sizeof path)
            FAIL(err, STATUS_INTERNAL, "a text named '%s' has no place in a snapshot", texts[i].name);
        TRY(h5_write_text(file, path, texts[i].data, texts[i].size, err));
    }
    return STATUS_OK;
}

/* /run/tensors: names in table order, one a line. */
static enum status write_order(struct h5 *file, const struct params *table, struct error *err)
{
    struct text names = {0};
    for (int i = 0; i < table->count; i++)
        if (table->items[i].role == PARAM_TRAINED)
            text_printf(&names, "%s\n", table->items[i].name);
    enum status st = names.failed ? error_set(err, STATUS_NOMEM, "no memory for the names of the tensors")
                                  : h5_write_text(file, "/run/tensors", names.data, names.size, err);
    text_free(&names);
    return st;
}

static enum status write_shards(struct h5 *file, const struct snapshot_shard *rows, int count, struct error *err)
{
    static const char *const columns[SNAPSHOT_SHARD_COLUMNS] = {"shard", "first_chunk", "chunks", "first_value", "values"};
    return h5_write_table(file, "/run/shards", SNAPSHOT_SHARD_COLUMNS, columns, count, &rows->shard, err);
}

static enum status write_meta(struct h5 *file, const struct snapshot_meta *meta, struct error *err)
{
    for (int i = 0; i < snapshot_field_count; i++) {
        const struct snapshot_field *field = &snapshot_fields[i];
        const char *member = (const char *)meta + field->offset;
        switch (field->kind) {
        case SNAPSHOT_INT:
            TRY(h5_set_int(file, "/run", field->name, *(const int64_t *)member, err));
            break;
        case SNAPSHOT_REAL:
            TRY(h5_set_real(file, "/run", field->name, *(const double *)member, err));
            break;
        case SNAPSHOT_STRING:
            TRY(h5_set_string(file, "/run", field->name, member, err));
        }
    }
    return STATUS_OK;
}

/* What the writer knows better than the caller; the digest comes last. */
static void fill_meta(const struct snapshot_view *view, struct snapshot_meta *meta)
{
    *meta = view->meta;
    meta->format_version = SNAPSHOT_FORMAT;
    snprintf(meta->program, sizeof meta->program, "LoAR");
    snprintf(meta->version, sizeof meta->version, "%s", LOAR_VERSION);
    snprintf(meta->build, sizeof meta->build, "cc %s", __VERSION__);
    time_t now = time(NULL);
    struct tm utc;
    strftime(meta->created, sizeof meta->created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    meta->tensors = 0;
    for (int i = 0; i < view->table->count; i++)
        meta->tensors += view->table->items[i].role == PARAM_TRAINED;
    meta->parameters = view->table->trained;
    if (meta->chunk_values <= 0)
        meta->chunk_values = view->table->values ? view->table->values : 1;
    meta->states[0] = '\0';
    for (int i = 0; i < view->n_states; i++) {
        size_t used = strlen(meta->states);
        snprintf(meta->states + used, sizeof meta->states - used, "%s%s", i ? " " : "", view->states[i].name);
    }
}

static enum status write_content(struct h5 *file, const struct snapshot_view *view, struct snapshot_meta *meta,
                                 struct error *err)
{
    static const char *const groups[] = {"/model", "/optimizer", "/loar", "/run", "/run/files"};
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        TRY(h5_write_group(file, groups[i], err));
    struct digest *digest = digest_new();
    if (!digest)
        FAIL(err, STATUS_NOMEM, "no memory for a digest");
    enum status st = write_array(file, view, NULL, view->values, digest, err);
    for (int i = 0; st == STATUS_OK && i < view->n_states; i++)
        st = write_array(file, view, view->states[i].name, view->states[i].values, digest, err);
    digest_finish(digest, meta->digest);
    TRY(st);
    TRY(write_order(file, view->table, err));
    TRY(write_shards(file, view->shards, view->n_shards, err));
    TRY(write_texts(file, "/run", view->texts, view->n_texts, err));
    TRY(write_texts(file, "/run/files", view->files, view->n_files, err));
    TRY(write_meta(file, meta, err));
    return h5_set_int(file, "/run", "complete", 1, err);
}

/* Size of the file, a little more than exactly. */
static int64_t estimate_bytes(const struct snapshot_view *view)
{
    enum { PER_DATASET = 2048, FIXED = 64 << 10 };
    int64_t arrays = 1 + view->n_states, bytes = FIXED;
    for (int i = 0; i < view->n_texts; i++)
        bytes += (int64_t)view->texts[i].size;
    for (int i = 0; i < view->n_files; i++)
        bytes += (int64_t)view->files[i].size;
    return bytes + arrays * (view->table->trained * (int64_t)sizeof(float) + (int64_t)view->table->count * PER_DATASET);
}

static enum status check_space(const char *dir, const struct snapshot_view *view, struct error *err)
{
    struct statvfs info;
    if (statvfs(dir, &info))
        return STATUS_OK; /* no answer: the write itself will tell */
    double need = (double)estimate_bytes(view), there = (double)info.f_bavail * (double)info.f_frsize;
    if (need > there)
        FAIL(err, STATUS_IO, "not enough space in '%s' for a snapshot: needs %.3f GB, free are %.3f GB; free some or lower "
             "save_total_limit", dir, need * 1e-9, there * 1e-9);
    return STATUS_OK;
}

/* The index of the closed file, found through libhdf5, as text and parsed. */
static enum status find_index(const char *temporary, const struct snapshot_view *view, const struct snapshot_meta *meta,
                              struct text *text, struct snapshot_index *index, struct error *err)
{
    struct file_map map;
    TRY(file_map_open(temporary, &map, err));
    enum status st = index_build(temporary, map.data, map.size, view, meta, text, err);
    int64_t limit = (int64_t)map.size;
    file_map_close(&map);
    TRY(st);
    return index_parse(temporary, text->data, text->size, limit, index, err);
}

/* Reads the closed file back, compares it with the arrays, and completes it with index and seal. */
static enum status complete_temporary(const char *temporary, const struct snapshot_view *view,
                                      const struct snapshot_meta *meta, int64_t *bytes, struct error *err)
{
    struct text text = {0};
    struct snapshot_index index = {0};
    uint32_t body;
    size_t size = 0;
    enum status st = find_index(temporary, view, meta, &text, &index, err);
    if (st == STATUS_OK)
        st = verify_content(temporary, &index, &body, err);
    if (st == STATUS_OK)
        st = seal_write(temporary, body, text.data, text.size, &size, err);
    *bytes = (int64_t)size;
    index_free(&index);
    text_free(&text);
    return st;
}

static enum status write_temporary(const char *temporary, const struct snapshot_view *view,
                                   struct snapshot_meta *meta, int64_t *bytes, struct error *err)
{
    struct h5 *file;
    TRY(h5_create(temporary, &file, err));
    enum status st = write_content(file, view, meta, err);
    /* The reason that came first is the one to tell. */
    enum status closed = h5_close(file, st == STATUS_OK ? err : NULL);
    TRY(st != STATUS_OK ? st : closed);
    return complete_temporary(temporary, view, meta, bytes, err);
}

/* Names the new file in dir/latest, the one step that makes it count. */
static enum status point_latest(const char *dir, const char *name, struct error *err)
{
    char line[SNAPSHOT_STRING_SIZE + 1];
    int size = snprintf(line, sizeof line, "%s\n", name);
    char *latest = path_join(dir, "latest");
    if (!latest)
        FAIL(err, STATUS_NOMEM, "no memory for a path in '%s'", dir);
    enum status st = file_replace(latest, line, (size_t)size, err);
    mem_free(latest);
    return st;
}

/* From a whole temporary file to the newest snapshot. A file that took the name but was not made the newest is
 * removed again, unless it replaced one. Where `latest` names it and only the last flush failed, it must stay. */
static enum status publish(const char *dir, int64_t step, const char *name, const char *temporary, const char *path,
                           struct error *err)
{
    bool replaces = file_exists(path);
    enum status st = file_publish(temporary, path, err);
    if (st == STATUS_OK)
        st = point_latest(dir, name, err);
    if (st != STATUS_OK && !replaces && snapshot_latest_step(dir) != step)
        unlink(path);
    return st;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

enum status snapshot_write(const char *dir, const struct snapshot_view *view, struct snapshot_written *out,
                           struct error *err)
{
    if (view->n_states > SNAPSHOT_MAX_STATES || (view->n_states && !view->meta.optimizer[0]))
        FAIL(err, STATUS_INTERNAL, "a snapshot view with %d states of optimizer '%s'", view->n_states,
             view->meta.optimizer);
    double begin = seconds_now();
    struct snapshot_view whole = *view;
    struct snapshot_shard all = {0};
    char name[SNAPSHOT_STRING_SIZE];
    snapshot_file_name(view->meta.step, name);
    struct text temporary = {0};
    text_printf(&temporary, "%s/%s.tmp", dir, name);
    char *path = path_join(dir, name);
    struct snapshot_meta meta;
    fill_meta(view, &meta);
    if (!whole.shards) {
        all.chunks = chunks_make(view->table->values, meta.chunk_values).count;
        all.values = view->table->values;
        whole.shards = &all;
        whole.n_shards = 1;
    }
    int64_t bytes = 0;
    enum status st = path && !temporary.failed ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for the path of '%s'", name);
    if (st == STATUS_OK)
        st = folder_make(dir, err);
    if (st == STATUS_OK)
        st = check_space(dir, view, err);
    if (st == STATUS_OK) {
        st = write_temporary(temporary.data, &whole, &meta, &bytes, err);
        if (st == STATUS_OK)
            st = publish(dir, meta.step, name, temporary.data, path, err);
        if (st != STATUS_OK)
            unlink(temporary.data);
        else
            file_forget(path); /* gigabytes that the model's own pages would have to make room for */
    }
    if (st == STATUS_OK && out) {
        *out = (struct snapshot_written){.step = meta.step, .bytes = bytes, .seconds = seconds_now() - begin};
        memcpy(out->digest, meta.digest, DIGEST_HEX_SIZE);
    }
    text_free(&temporary);
    mem_free(path);
    return st;
}
