/* Reads the model of a tokenizer.json: vocabulary, merges, flags.
 * Must not know: how words are encoded. */
#include <stdio.h>
#include <string.h>

#include "worker/data/tokenizer/parts.h"

/* Copies the keys, because the JSON goes away; every token gets its id. */
static enum status read_vocab(const struct json *vocab, const char *where, struct bpe *out, struct error *err)
{
    size_t total = 0, size, count = json_count(vocab);
    if (json_kind(vocab) != JSON_KIND_OBJECT)
        FAIL(err, STATUS_DATA, "%s: 'vocab' must be an object, found %s", where, json_kind_name(json_kind(vocab)));
    for (const void *it = json_first(vocab); it; it = json_next(vocab, it)) {
        json_it_key(it, &size);
        total += size;
    }
    out->names = mem_alloc(total, 1);
    if (!out->names || !name_table_open(&out->vocab, count))
        FAIL(err, STATUS_NOMEM, "%s: no memory for a vocabulary of %zu tokens", where, count);
    char *name = out->names;
    for (const void *it = json_first(vocab); it; it = json_next(vocab, it), name += size) {
        const char *key = json_it_key(it, &size);
        const struct json *value = json_it_value(it);
        int64_t id = json_kind(value) == JSON_KIND_INT ? json_to_int(value) : -1;
        if (id < 0 || id >= TOKEN_IDS_MAX)
            FAIL(err, STATUS_DATA, "%s: the token '%.100s' must have an id from 0 to %d", where, key, TOKEN_IDS_MAX - 1);
        memcpy(name, key, size);
        name_table_add(&out->vocab, name, size, (int32_t)id);
        if (id > out->largest)
            out->largest = (int32_t)id;
    }
    return STATUS_OK;
}

/* "a b", or ["a", "b"] in newer files. */
static bool merge_parts(const struct json *json, const char *part[2], size_t size[2])
{
    if (json_kind(json) == JSON_KIND_ARRAY && json_count(json) == 2) {
        part[0] = json_to_string(json_at(json, 0), &size[0]);
        part[1] = json_to_string(json_at(json, 1), &size[1]);
        return part[0] && part[1];
    }
    size_t whole;
    part[0] = json_to_string(json, &whole);
    const char *blank = part[0] ? memchr(part[0], ' ', whole) : NULL;
    if (!blank)
        return false;
    size[0] = (size_t)(blank - part[0]);
    part[1] = blank + 1;
    size[1] = whole - size[0] - 1;
    return !memchr(part[1], ' ', size[1]);
}

static enum status read_merge(const struct json *json, size_t rank, const char *where, struct text *joined, struct bpe *out,
                              struct error *err)
{
    const char *part[2];
    size_t size[2];
    if (!merge_parts(json, part, size))
        FAIL(err, STATUS_DATA, "%s: merge %zu must be two tokens, as \"a b\" or [\"a\", \"b\"]", where, rank);
    text_clear(joined);
    text_append(joined, part[0], size[0]);
    text_append(joined, part[1], size[1]);
    if (joined->failed)
        FAIL(err, STATUS_NOMEM, "%s: no memory for merges", where);
    struct merge merge = {name_table_find(&out->vocab, part[0], size[0]), name_table_find(&out->vocab, part[1], size[1]),
                          (int32_t)rank, name_table_find(&out->vocab, joined->data, joined->size)};
    if (merge.left < 0 || merge.right < 0 || merge.joined < 0)
        FAIL(err, STATUS_DATA, "%s: merge %zu makes '%.100s', but the two parts and the whole are not all in the vocabulary",
             where, rank, joined->data);
    merge_table_set(&out->merges, merge);
    return STATUS_OK;
}

static enum status read_merges(const struct json *merges, const char *where, struct bpe *out, struct error *err)
{
    size_t count = json_count(merges);
    struct text joined = {0};
    if (json_kind(merges) != JSON_KIND_ARRAY)
        FAIL(err, STATUS_DATA, "%s: 'merges' must be an array, found %s", where, json_kind_name(json_kind(merges)));
    if (!merge_table_open(&out->merges, count))
        FAIL(err, STATUS_NOMEM, "%s: no memory for %zu merges", where, count);
    enum status st = STATUS_OK;
    for (size_t i = 0; i < count && st == STATUS_OK; i++)
        st = read_merge(json_at(merges, i), i, where, &joined, out, err);
    text_free(&joined);
    return st;
}

static enum status read_flags(const struct json *json, const char *where, struct bpe *out, struct error *err)
{
    const char *unk = NULL, *prefix = "", *suffix = "";
    double dropout = 0;
    TRY(json_get_bool(json, "byte_fallback", where, &out->byte_fallback, err));
    TRY(json_get_bool(json, "fuse_unk", where, &out->fuse_unk, err));
    TRY(json_get_bool(json, "ignore_merges", where, &out->ignore_merges, err));
    TRY(json_get_string(json, "unk_token", where, &unk, err));
    TRY(json_get_string(json, "continuing_subword_prefix", where, &prefix, err));
    TRY(json_get_string(json, "end_of_word_suffix", where, &suffix, err));
    TRY(json_get_real(json, "dropout", where, &dropout, err));
    if (*prefix || *suffix)
        return part_refuse(where, "model option", *prefix ? "continuing_subword_prefix" : "end_of_word_suffix", err);
    if (dropout != 0)
        return part_refuse(where, "model option", "dropout", err);
    out->unk = unk ? name_table_find(&out->vocab, unk, strlen(unk)) : -1;
    if (unk && out->unk < 0)
        FAIL(err, STATUS_DATA, "%s: the unknown token '%.100s' is not in the vocabulary", where, unk);
    return STATUS_OK;
}

enum status bpe_read(const struct json *json, const char *where, struct bpe *out, struct error *err)
{
    const char *type = NULL;
    if (json_kind(json) != JSON_KIND_OBJECT)
        FAIL(err, STATUS_DATA, "%s: there is no object 'model'", where);
    TRY(json_get_string(json, "type", where, &type, err));
    if (type && strcmp(type, "BPE")) /* old files do not say */
        return part_refuse(where, "model", type, err);
    TRY(read_vocab(json_member(json, "vocab"), where, out, err));
    TRY(read_merges(json_member(json, "merges"), where, out, err));
    TRY(read_flags(json, where, out, err));
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        out->byte_ids[byte] = name_table_find(&out->vocab, name, utf8_encode(byte_character((unsigned char)byte), name));
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        out->fallback_ids[byte] = name_table_find(&out->vocab, name, 6);
    }
    return STATUS_OK;
}

void bpe_free(struct bpe *bpe)
{
    name_table_free(&bpe->vocab);
    merge_table_free(&bpe->merges);
    mem_free(bpe->names);
    *bpe = (struct bpe){0};
}
