#include "worker/data/cache.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/text.h"
#include "worker/data/rows.h"
#include "worker/data/tokenizer.h"

/* VERSION rises when rows are made in another way without a change of the key's text, or when the file changes. */
enum { VERSION = 1, PIECES = DATASET_ARRAYS + 2, FORMAT_SIZE = 32 };
static const char magic[8] = "LoARrows";
static const uint32_t byte_order = 0x01020304;

struct header {
    char magic[8];
    uint32_t byte_order, version;
    uint32_t header_bytes, header_crc; /* of this struct with header_crc 0 */
    char key[DIGEST_HEX_SIZE - 1], format[FORMAT_SIZE];
    uint64_t sizes[PIECES]; /* bytes */
    uint32_t crcs[PIECES];
    int64_t rows, tokens;
    struct dataset_stats stats; /* longest_row counts from the first of these rows */
};

static enum status note(struct dataset_found *found, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum status note(struct dataset_found *found, struct error *err, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    mem_free(found->note);
    if (!(found->note = mem_strdup(line)))
        FAIL(err, STATUS_NOMEM, "no memory for a note about cached rows");
    return STATUS_OK;
}

/* ---- the key ---- */

static void add_number(struct digest *digest, int64_t value)
{
    digest_add(digest, &value, sizeof value);
}

static enum status make_key(const struct dataset_spec *spec, const struct tokenizer *tokenizer, const struct file_map *rows,
                            char key[DIGEST_HEX_SIZE], struct error *err)
{
    struct digest *digest = digest_new();
    if (!digest)
        FAIL(err, STATUS_NOMEM, "no memory for the digest of '%s'", spec->path);
    add_number(digest, VERSION);
    digest_add_string(digest, LOAR_VERSION);
    digest_add_string(digest, spec->cache->key);
    digest_add_string(digest, tokenizer_digest(tokenizer));
    add_number(digest, spec->max_samples); /* an evaluation may take fewer rows than the spec's own key says */
    add_number(digest, (int64_t)rows->size);
    digest_add(digest, rows->data, rows->size);
    digest_finish(digest, key);
    return STATUS_OK;
}

/* The name of a set as part of a file's name. */
static void put_name(const char *name, struct text *out)
{
    for (int i = 0; name[i] && i < 60; i++)
        text_append(out, strchr("/\\:*?\"<>| ", name[i]) ? "_" : &name[i], 1);
}

enum status cache_find(const struct dataset_spec *spec, const struct tokenizer *tokenizer, struct cache_entry *out, struct error *err)
{
    struct file_map rows;
    struct text path = {0};
    struct error unread;
    *out = (struct cache_entry){.renew = spec->cache->renew};
    if (file_map_open(spec->path, &rows, &unread) != STATUS_OK)
        return STATUS_OK;
    enum status st = make_key(spec, tokenizer, &rows, out->key, err);
    file_map_close(&rows);
    TRY(st);
    text_printf(&path, "%s/", spec->cache->folder);
    put_name(spec->name, &path);
    text_printf(&path, "-%s.rows", out->key);
    if (path.failed) {
        text_free(&path);
        FAIL(err, STATUS_NOMEM, "no memory for the path of cached rows");
    }
    out->path = path.data;
    return STATUS_OK;
}

void cache_entry_free(struct cache_entry *entry)
{
    mem_free(entry->path);
    entry->path = NULL;
}

/* ---- reading ---- */

static uint32_t header_crc(const struct header *header)
{
    struct header copy;
    memcpy(&copy, header, sizeof copy);
    copy.header_crc = 0;
    return crc32c(&copy, sizeof copy);
}

/* Bytes that the pieces of so many rows and tokens take; problems are as long as they are. */
static void wanted_sizes(int64_t rows, int64_t tokens, uint64_t sizes[PIECES])
{
    sizes[0] = ((uint64_t)rows + 1) * sizeof(int64_t);
    for (int i = 0; i < DATASET_ARRAYS; i++)
        sizes[1 + i] = (uint64_t)(dataset_arrays[i].per_token ? tokens : rows) * dataset_arrays[i].size;
}

/* What is wrong with the header of a file of so many bytes, or NULL. */
static const char *header_fault(const struct header *h, const char *key, size_t size)
{
    uint64_t sizes[PIECES], total = sizeof *h;
    if (memcmp(h->magic, magic, sizeof magic))
        return "it is not a file of cached rows";
    if (h->byte_order != byte_order || h->version != VERSION || h->header_bytes != sizeof *h)
        return "another version of this program wrote it";
    if (h->header_crc != header_crc(h))
        return "its header is damaged";
    if (memcmp(h->key, key, sizeof h->key))
        return "it holds other rows";
    if (h->rows < 1 || h->tokens < h->rows || h->tokens > INT64_MAX / 64 || h->rows > INT64_MAX / 64)
        return "its counts are wrong";
    wanted_sizes(h->rows, h->tokens, sizes);
    for (int i = 0; i < PIECES; i++) {
        if (i < PIECES - 1 && sizes[i] != h->sizes[i])
            return "its counts are wrong";
        if (h->sizes[i] > size - total)
            return "it is cut short";
        total += h->sizes[i];
    }
    return total == size ? NULL : "something stands behind its end";
}

/* Starts must rise from 0 to the number of tokens: whoever walks over rows relies on it. */
static bool starts_fit(const unsigned char *bytes, int64_t rows, int64_t tokens)
{
    int64_t before = -1, start = 0;
    for (int64_t i = 0; i <= rows; i++, before = start) {
        memcpy(&start, bytes + (size_t)i * sizeof start, sizeof start);
        if (start <= before || (i == 0 && start != 0))
            return false;
    }
    return start == tokens;
}

static const char *pieces_fault(const struct header *h, const unsigned char *at)
{
    const unsigned char *starts = at;
    for (int i = 0; i < PIECES; i++) {
        if (crc32c(at, h->sizes[i]) != h->crcs[i])
            return "a checksum does not fit";
        at += h->sizes[i];
    }
    return starts_fit(starts, h->rows, h->tokens) ? NULL : "its rows do not fit together";
}

/* Copies the pieces behind what is there. */
static enum status take(const struct header *h, const unsigned char *at, struct dataset *dataset, struct dataset_found *out,
                        struct error *err)
{
    int64_t first = dataset->rows ? dataset->starts[dataset->rows] : 0;
    TRY(dataset_reserve(dataset, dataset->rows + h->rows, first + h->tokens, err));
    const unsigned char *starts = at;
    for (int64_t i = 0; i <= h->rows; i++) {
        int64_t start;
        memcpy(&start, starts + (size_t)i * sizeof start, sizeof start);
        dataset->starts[dataset->rows + i] = first + start;
    }
    at += h->sizes[0];
    for (int i = 0; i < DATASET_ARRAYS; at += h->sizes[1 + i], i++)
        memcpy(dataset_place(dataset, i, dataset->rows), at, h->sizes[1 + i]);
    if (h->sizes[PIECES - 1] && !(out->problems = mem_strndup((const char *)at, h->sizes[PIECES - 1])))
        FAIL(err, STATUS_NOMEM, "no memory for the problems of cached rows");
    out->rows = dataset->rows + h->rows;
    out->stats = h->stats;
    out->stats.longest_row += dataset->rows;
    return STATUS_OK;
}

static enum status read_map(const struct cache_entry *entry, const struct file_map *map, struct dataset *dataset,
                            struct dataset_found *out, bool *done, struct error *err)
{
    struct header h;
    const struct row_format *format;
    struct error unknown;
    char name[FORMAT_SIZE + 1] = "";
    const char *fault = map->size < sizeof h ? "it is cut short" : NULL;
    if (!fault) {
        memcpy(&h, map->data, sizeof h);
        fault = header_fault(&h, entry->key, map->size);
    }
    if (!fault)
        fault = pieces_fault(&h, map->data + sizeof h);
    if (!fault) {
        memcpy(name, h.format, FORMAT_SIZE);
        fault = row_format_find(name, &format, &unknown) == STATUS_OK ? NULL : "its format is not known";
    }
    if (fault)
        return note(out, err, "'%s' is not used: %s; made anew", entry->path, fault);
    TRY(take(&h, map->data + sizeof h, dataset, out, err));
    out->format = row_format_name(format);
    *done = true;
    return note(out, err, "%lld rows come from '%s'", (long long)h.rows, entry->path);
}

enum status cache_read(const struct cache_entry *entry, struct dataset *dataset, struct dataset_found *out, bool *done,
                       struct error *err)
{
    struct file_map map;
    struct error unread;
    *done = false;
    if (entry->renew || !file_exists(entry->path))
        return STATUS_OK;
    if (file_map_open(entry->path, &map, &unread) != STATUS_OK)
        return note(out, err, "%.400s; made anew", unread.text);
    enum status st = read_map(entry, &map, dataset, out, done, err);
    file_map_close(&map);
    return st;
}

/* ---- writing ---- */

static enum status write_pieces(const struct cache_entry *entry, const struct header *header, const void *const pieces[PIECES],
                                struct error *err)
{
    struct file_piece parts[1 + PIECES] = {{header, sizeof *header}};
    struct text temporary = {0};
    char host[65] = "";
    gethostname(host, sizeof host - 1); /* several nodes may share the folder */
    for (int i = 0; i < PIECES; i++)
        parts[1 + i] = (struct file_piece){pieces[i], header->sizes[i]};
    text_printf(&temporary, "%s.%s-%ld.tmp", entry->path, host, (long)getpid());
    enum status st = temporary.failed ? error_set(err, STATUS_NOMEM, "no memory for the path of cached rows")
                                      : file_replace_pieces(entry->path, temporary.data, parts, 1 + PIECES, err);
    text_free(&temporary);
    return st;
}

static enum status make_folder(const char *path, struct error *err)
{
    char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    if (!folder)
        FAIL(err, STATUS_NOMEM, "no memory for the path of cached rows");
    enum status st = folder_make(folder, err);
    mem_free(folder);
    return st;
}

enum status cache_write(const struct cache_entry *entry, const struct dataset *dataset, struct dataset_found *found,
                        struct error *err)
{
    int64_t first = dataset->starts[dataset->rows], rows = found->rows - dataset->rows;
    struct header h;
    struct error why;
    int64_t *starts = mem_alloc((size_t)rows + 1, sizeof *starts);
    if (!starts)
        FAIL(err, STATUS_NOMEM, "no memory to cache %lld rows", (long long)rows);
    for (int64_t i = 0; i <= rows; i++)
        starts[i] = dataset->starts[dataset->rows + i] - first;
    const void *pieces[PIECES] = {starts, [PIECES - 1] = found->problems ? found->problems : ""};
    for (int i = 0; i < DATASET_ARRAYS; i++)
        pieces[1 + i] = dataset_place(dataset, i, dataset->rows);
    memset(&h, 0, sizeof h);
    h.byte_order = byte_order;
    h.version = VERSION;
    h.header_bytes = sizeof h;
    h.rows = rows;
    h.tokens = starts[rows];
    memcpy(&h.stats, &found->stats, sizeof h.stats);
    h.stats.longest_row -= dataset->rows;
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.key, entry->key, sizeof h.key);
    snprintf(h.format, sizeof h.format, "%s", found->format);
    wanted_sizes(rows, h.tokens, h.sizes);
    h.sizes[PIECES - 1] = strlen(pieces[PIECES - 1]);
    for (int i = 0; i < PIECES; i++)
        h.crcs[i] = crc32c(pieces[i], h.sizes[i]);
    h.header_crc = header_crc(&h);
    enum status st = make_folder(entry->path, &why);
    if (st == STATUS_OK)
        st = write_pieces(entry, &h, pieces, &why);
    mem_free(starts);
    return st == STATUS_OK ? STATUS_OK : note(found, err, "rows are not cached: %.400s", why.text);
}
