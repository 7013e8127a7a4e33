/* A tokenizer as a whole: put together from tokenizer.json and tokenizer_config.json, and asked about its tokens.
 * Must not know: how each part works. */
#include <string.h>

#include "common/files.h"
#include "worker/data/tokenizer/parts.h"

static enum status read_added(struct tokenizer *t, const struct json *root, const char *where, struct error *err)
{
    const struct json *list = json_member(root, "added_tokens");
    if (json_kind(list) != JSON_KIND_NULL && json_kind(list) != JSON_KIND_ARRAY)
        FAIL(err, STATUS_DATA, "%s: 'added_tokens' must be an array, found %s", where, json_kind_name(json_kind(list)));
    for (size_t i = 0; i < json_count(list); i++) {
        int64_t id = -1;
        TRY(json_get_int(json_at(list, i), "id", where, &id, err));
        TRY(added_read(&t->added, json_at(list, i), id, where, err));
    }
    return STATUS_OK;
}

/* `added_tokens_decoder` of the config adds tokens and changes flags; its keys are ids. */
static enum status read_config_added(struct tokenizer *t, const struct json *config, const char *where, struct error *err)
{
    const struct json *list = json_member(config, "added_tokens_decoder");
    for (const void *it = json_kind(list) == JSON_KIND_OBJECT ? json_first(list) : NULL; it; it = json_next(list, it)) {
        int64_t id = 0;
        const char *key = json_it_key(it, NULL);
        for (const char *c = key; *c && id < TOKEN_IDS_MAX; c++)
            id = *c >= '0' && *c <= '9' ? id * 10 + (*c - '0') : TOKEN_IDS_MAX;
        TRY(added_read(&t->added, json_it_value(it), *key ? id : -1, where, err));
    }
    return STATUS_OK;
}

static enum status add_special(struct tokenizer *t, const struct json *processor, const char *name, const char *where,
                               struct token_list *list, struct error *err)
{
    const struct json *ids = json_member(json_member(json_member(processor, "special_tokens"), name), "ids");
    if (!json_count(ids))
        FAIL(err, STATUS_DATA, "%s: the post-processor names the token '%.100s' but gives no ids for it", where, name);
    for (size_t i = 0; i < json_count(ids); i++) {
        const struct json *value = json_at(ids, i);
        int64_t id = json_kind(value) == JSON_KIND_INT ? json_to_int(value) : -1;
        if (id < 0 || id >= t->size || !t->tokens[id].known)
            FAIL(err, STATUS_DATA, "%s: the post-processor's token '%.100s' must have ids of tokens, from 0 to %d", where, name,
                 t->size - 1);
        TRY(token_list_add(list, &(int32_t){(int32_t)id}, 1, err));
    }
    return STATUS_OK;
}

static enum status read_template(struct tokenizer *t, const struct json *processor, const char *where, struct error *err)
{
    const struct json *single = json_member(processor, "single");
    struct token_list before = {0}, after = {0};
    bool seen = false;
    enum status st = json_kind(single) == JSON_KIND_ARRAY
                         ? STATUS_OK
                         : error_set(err, STATUS_DATA, "%s: the post-processor's 'single' must be an array", where);
    for (size_t i = 0; st == STATUS_OK && i < json_count(single); i++) {
        const char *name = json_to_string(json_member(json_member(json_at(single, i), "SpecialToken"), "id"), NULL);
        if (name)
            st = add_special(t, processor, name, where, seen ? &after : &before, err);
        else if (json_member(json_at(single, i), "Sequence") && !seen)
            seen = true;
        else
            st = error_set(err, STATUS_DATA, "%s: the post-processor's 'single' must hold special tokens and one sequence", where);
    }
    /* A later processor wraps what the earlier ones made. */
    if (st == STATUS_OK)
        st = token_list_add(&before, t->before.ids, t->before.count, err);
    if (st == STATUS_OK)
        st = token_list_add(&t->after, after.ids, after.count, err);
    token_list_free(&after);
    if (st != STATUS_OK) {
        token_list_free(&before);
        return st;
    }
    token_list_free(&t->before);
    t->before = before;
    return STATUS_OK;
}

static enum status read_processor(void *context, const char *type, const struct json *json, const char *where,
                                  struct error *err)
{
    if (!strcmp(type, "ByteLevel"))
        return STATUS_OK; /* touches offsets only */
    if (!strcmp(type, "TemplateProcessing"))
        return read_template(context, json, where, err);
    return part_refuse(where, "post-processor", type, err);
}

/* All names by id. An added token that the vocabulary has too takes its id from there, as in the reference. */
static enum status list_tokens(struct tokenizer *t, const char *where, struct error *err)
{
    for (size_t i = 0; i < t->added.count; i++) {
        struct added_token *a = &t->added.items[i];
        int32_t id = name_table_find(&t->bpe.vocab, a->content, a->size);
        a->id = id < 0 ? a->id : id;
    }
    t->size = t->bpe.largest + 1;
    for (size_t i = 0; i < t->added.count; i++)
        if (t->added.items[i].id >= t->size)
            t->size = t->added.items[i].id + 1;
    t->tokens = mem_alloc((size_t)t->size, sizeof *t->tokens);
    if (!t->tokens)
        FAIL(err, STATUS_NOMEM, "%s: no memory for %d tokens", where, t->size);
    for (size_t i = 0; i <= t->bpe.vocab.mask; i++) {
        const struct name_entry *e = &t->bpe.vocab.places[i];
        if (e->id >= 0)
            t->tokens[e->id] = (struct token_name){e->name, e->size, true, false};
    }
    for (size_t i = 0; i < t->added.count; i++) {
        const struct added_token *a = &t->added.items[i];
        t->tokens[a->id] = (struct token_name){a->content, a->size, true, a->special};
    }
    return STATUS_OK;
}

/* The token a config names as a string or as an object with `content`; else the first customary name that exists. */
static int32_t named_token(const struct tokenizer *t, const struct json *config, const char *key,
                           const char *const *customary)
{
    const struct json *value = json_member(config, key);
    const char *name = json_kind(value) == JSON_KIND_OBJECT ? json_to_string(json_member(value, "content"), NULL)
                                                            : json_to_string(value, NULL);
    if (name)
        return tokenizer_id(t, name);
    for (; !json_count(config) && *customary; customary++) {
        const struct added_token *a = added_find(&t->added, *customary, strlen(*customary));
        if (a && a->special)
            return a->id;
    }
    return -1;
}

static void name_ends(struct tokenizer *t, const struct json *config)
{
    static const char *const begins[] = {"<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>", "<s>",
                                         "<|begin_of_text|>", NULL};
    static const char *const ends[] = {"<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>", "</s>",
                                       "<|end_of_text|>", "<|endoftext|>", NULL};
    t->bos = named_token(t, config, "bos_token", begins);
    t->eos = named_token(t, config, "eos_token", ends);
    if (t->bos >= 0)
        t->tokens[t->bos].skipped = true;
    if (t->eos >= 0)
        t->tokens[t->eos].skipped = true;
}

/* The class LlamaTokenizerFast puts BOS and EOS round a text by its own flags, whatever the file's post-processor says
 * (transformers, tokenization_llama_fast.py). */
static enum status apply_class(struct tokenizer *t, const struct json *config, const char *where, struct error *err)
{
    const char *class = NULL;
    bool bos = true, eos = false;
    TRY(json_get_string(config, "tokenizer_class", where, &class, err));
    if (!class || (strcmp(class, "LlamaTokenizerFast") && strcmp(class, "LlamaTokenizer")))
        return STATUS_OK;
    TRY(json_get_bool(config, "add_bos_token", where, &bos, err));
    TRY(json_get_bool(config, "add_eos_token", where, &eos, err));
    if ((bos && t->bos < 0) || (eos && t->eos < 0))
        FAIL(err, STATUS_DATA, "%s: %s is asked to add %s, but there is no such token; name it in tokenizer_config.json",
             where, class, bos && t->bos < 0 ? "bos_token" : "eos_token");
    t->before.count = t->after.count = 0;
    TRY(token_list_add(&t->before, &t->bos, bos, err));
    return token_list_add(&t->after, &t->eos, eos, err);
}

static enum status build(struct tokenizer *t, const struct json *root, const struct json *config, const char *where,
                         struct error *err)
{
    if (json_kind(root) != JSON_KIND_OBJECT)
        FAIL(err, STATUS_DATA, "%s: not a tokenizer.json: the whole must be an object", where);
    TRY(bpe_read(json_member(root, "model"), where, &t->bpe, err));
    TRY(normalizer_read(json_member(root, "normalizer"), where, &t->normalizer, err));
    TRY(pretokenizer_read(json_member(root, "pre_tokenizer"), where, &t->pretokenizer, err));
    TRY(decoder_read(json_member(root, "decoder"), where, &t->decoder, err));
    TRY(read_added(t, root, where, err));
    TRY(read_config_added(t, config, where, err));
    struct regex_scratch *scratch = regex_scratch_new();
    enum status st = scratch ? added_finish(&t->added, &t->normalizer, scratch, err)
                             : error_set(err, STATUS_NOMEM, "%s: no memory", where);
    regex_scratch_free(scratch);
    TRY(st);
    TRY(list_tokens(t, where, err));
    TRY(part_each(json_member(root, "post_processor"), "processors", where, "post-processor", 0, read_processor, t, err));
    name_ends(t, config);
    TRY(apply_class(t, config, where, err));
    return encoders_open(t, err);
}

static enum status set_digest(struct tokenizer *t, const char *json, size_t size, const char *config, size_t config_size,
                              const char *where, struct error *err)
{
    struct digest *digest = digest_new();
    uint64_t sizes[] = {size, config ? config_size : UINT64_MAX};
    if (!digest)
        FAIL(err, STATUS_NOMEM, "%s: no memory", where);
    digest_add(digest, sizes, sizeof sizes);
    digest_add(digest, json, size);
    if (config)
        digest_add(digest, config, config_size);
    digest_finish(digest, t->digest);
    return STATUS_OK;
}

enum status tokenizer_load_text(const char *json, size_t size, const char *config_json, size_t config_size,
                                const char *where, struct tokenizer **out, struct error *err)
{
    struct json *root = NULL, *config = NULL;
    struct tokenizer *t = mem_alloc(1, sizeof *t);
    enum status st = t ? json_parse(json, size, where, &root, err) : error_set(err, STATUS_NOMEM, "%s: no memory", where);
    if (st == STATUS_OK && config_json)
        st = json_parse(config_json, config_size, "tokenizer_config.json", &config, err);
    if (st == STATUS_OK)
        st = build(t, root, config, where, err);
    if (st == STATUS_OK)
        st = set_digest(t, json, size, config_json, config_size, where, err);
    json_free(root);
    json_free(config);
    if (st != STATUS_OK) {
        tokenizer_free(t);
        return st;
    }
    *out = t;
    return STATUS_OK;
}

static enum status load_pair(const char *path, const char *config_path, struct tokenizer **out, struct error *err)
{
    char *json = NULL, *config = NULL;
    size_t size = 0, config_size = 0;
    enum status st = file_read(path, &json, &size, err);
    if (st == STATUS_OK && file_exists(config_path))
        st = file_read(config_path, &config, &config_size, err);
    if (st == STATUS_OK)
        st = tokenizer_load_text(json, size, config, config_size, path, out, err);
    mem_free(json);
    mem_free(config);
    return st;
}

enum status tokenizer_load(const char *path, struct tokenizer **out, struct error *err)
{
    const char *slash = strrchr(path, '/');
    bool folder = folder_exists(path);
    char *parent = folder ? mem_strdup(path) : slash ? mem_strndup(path, (size_t)(slash - path) + 1) : mem_strdup(".");
    char *file = folder ? path_join(path, "tokenizer.json") : mem_strdup(path);
    char *config = parent ? path_join(parent, "tokenizer_config.json") : NULL;
    enum status st = file && config ? load_pair(file, config, out, err)
                                    : error_set(err, STATUS_NOMEM, "no memory for the path of a tokenizer");
    mem_free(parent);
    mem_free(file);
    mem_free(config);
    return st;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    encoders_close(t);
    added_free(&t->added);
    normalizer_free(&t->normalizer);
    pretokenizer_free(&t->pretokenizer);
    decoder_free(&t->decoder);
    bpe_free(&t->bpe);
    token_list_free(&t->before);
    token_list_free(&t->after);
    mem_free(t->tokens);
    mem_free(t);
}

const char *tokenizer_digest(const struct tokenizer *tokenizer)
{
    return tokenizer->digest;
}

int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token)
{
    const struct added_token *added = added_find(&tokenizer->added, token, strlen(token));
    return added ? added->id : name_table_find(&tokenizer->bpe.vocab, token, strlen(token));
}

const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *size)
{
    if (id < 0 || id >= tokenizer->size || !tokenizer->tokens[id].known)
        return NULL;
    *size = tokenizer->tokens[id].size;
    return tokenizer->tokens[id].text;
}

int32_t tokenizer_size(const struct tokenizer *tokenizer)
{
    return tokenizer->size;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos;
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return tokenizer->eos;
}
