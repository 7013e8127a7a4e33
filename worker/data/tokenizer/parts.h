/* The parts a tokenizer is put together from, as its own files see them: added tokens, normalizer, pre-tokenizer, model,
 * decoder. Each part is read from its JSON, used, and freed by the file of its name. Must not be included from outside
 * this folder. */
#ifndef WORKER_DATA_TOKENIZER_PARTS_H
#define WORKER_DATA_TOKENIZER_PARTS_H

#include "common/checksum.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/status.h"
#include "common/text.h"
#include "worker/data/tokenizer.h"
#include "worker/data/tokenizer/regex.h"
#include "worker/data/tokenizer/tables.h"
#include "worker/data/tokenizer/unicode.h"

enum { TOKEN_IDS_MAX = 1 << 24 }; /* far beyond any vocabulary; keeps a broken file from asking for terabytes */

/* A `{"String": ...}` or `{"Regex": ...}`. */
struct pattern {
    struct regex *regex; /* or NULL */
    char *text;
    size_t size;
};
enum status pattern_read(const struct json *json, const char *where, struct pattern *out, struct error *err);
enum status pattern_find(const struct pattern *pattern, struct regex_scratch *scratch, const char *text, size_t size,
                         size_t from, size_t *start, size_t *end, bool *found, struct error *err);
/* Appends the text with every match replaced. */
enum status pattern_replace(const struct pattern *pattern, struct regex_scratch *scratch, const char *content,
                            size_t content_size, const char *text, size_t size, struct text *out, struct error *err);
void pattern_free(struct pattern *pattern);

/* Objects of the file carry their kind as "type". STATUS_DATA naming `what` if there is none. */
enum status part_type(const struct json *json, const char *where, const char *what, const char **out, struct error *err);
/* A member that must be a string and be there. */
enum status part_string(const struct json *json, const char *key, const char *where, char **out, size_t *size,
                        struct error *err);
/* "<where>: the <what> '<type>' is not supported; ..." */
enum status part_refuse(const char *where, const char *what, const char *type, struct error *err);
/* Calls `read` for the component, or for each member of a (nested) Sequence whose members lie under `members`. */
typedef enum status part_read_fn(void *context, const char *type, const struct json *json, const char *where,
                                 struct error *err);
enum status part_each(const struct json *json, const char *members, const char *where, const char *what, int depth,
                      part_read_fn *read, void *context, struct error *err);
/* Room for one more element of a list that was filled by this function alone; NULL when memory is short. */
void *part_grow(void *items, size_t count, size_t size);

/* The printable stand-in of every byte in byte-level vocabularies, and back (-1: no stand-in). */
uint32_t byte_character(unsigned char byte);
int character_byte(uint32_t c);
void byte_map(const char *bytes, size_t size, struct text *out);

/* --- normalizer */
enum normal_kind { NORMAL_FORM, NORMAL_LOWER, NORMAL_STRIP, NORMAL_PREPEND, NORMAL_REPLACE };
struct normal_step {
    enum normal_kind kind;
    enum unicode_form form;
    bool left, right; /* strip */
    struct pattern pattern;
    char *content;
    size_t content_size;
};
struct normalizer {
    struct normal_step *steps;
    size_t count;
};
enum status normalizer_read(const struct json *json, const char *where, struct normalizer *out, struct error *err);
/* *out is the text itself if there is nothing to do, else it lies in one of the two buffers. */
enum status normalizer_run(const struct normalizer *normalizer, struct regex_scratch *scratch, struct text buffers[2],
                           const char *text, size_t size, const char **out, size_t *out_size, struct error *err);
void normalizer_free(struct normalizer *normalizer);

/* --- added tokens */
struct added_token {
    char *content; /* as spelt */
    size_t size;
    char *match; /* as searched for: normalized if `normalized` */
    size_t match_size;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};
struct added_set {
    const struct added_token **sorted; /* by bytes */
    size_t count;
    size_t first[257]; /* where the tokens of each first byte begin */
};
struct added_tokens {
    struct added_token *items;
    size_t count;
    struct added_set raw, normalized, plain; /* see tokenizer.h for plain ones */
};
/* Adds one token or changes the flags of the one with the same content. */
enum status added_read(struct added_tokens *added, const struct json *json, int64_t id, const char *where,
                       struct error *err);
/* When all are read. */
enum status added_finish(struct added_tokens *added, const struct normalizer *normalizer, struct regex_scratch *scratch,
                         struct error *err);
const struct added_token *added_find(const struct added_tokens *added, const char *content, size_t size);
bool added_is_plain(const struct added_token *token);
/* Calls `piece` for every gap (token NULL) and every match, left to right. */
typedef enum status added_piece_fn(void *context, size_t start, size_t end, const struct added_token *token,
                                   struct error *err);
enum status added_split(const struct added_set *set, const char *text, size_t size, added_piece_fn *piece, void *context,
                        struct error *err);
void added_free(struct added_tokens *added);

/* --- pre-tokenizer: stages that cut or rewrite, each over the pieces of the one before */
enum stage_kind { STAGE_SPLIT, STAGE_DIGITS, STAGE_PUNCT, STAGE_SPACE, STAGE_BYTES, STAGE_METASPACE };
enum behavior { BEHAVIOR_ISOLATED, BEHAVIOR_REMOVED, BEHAVIOR_PREVIOUS, BEHAVIOR_NEXT, BEHAVIOR_CONTIGUOUS };
enum scheme { SCHEME_ALWAYS, SCHEME_FIRST, SCHEME_NEVER };
struct stage {
    enum stage_kind kind;
    enum behavior behavior;
    bool invert;
    struct pattern pattern; /* split */
    enum scheme scheme;     /* metaspace */
    char *replacement;
};
struct pretokenizer {
    struct stage *stages;
    size_t count;
};
enum status pretokenizer_read(const struct json *json, const char *where, struct pretokenizer *out, struct error *err);
/* `bytes`: the piece is raw and the model is to map its bytes. */
typedef enum status pretoken_fn(void *context, const char *text, size_t size, bool bytes, struct error *err);
struct pretoken_run {
    const struct pretokenizer *pretokenizer;
    struct regex_scratch *scratch;
    struct text *buffers; /* [count] */
    pretoken_fn *emit;
    void *context;
};
/* `first`: the text stands at the very beginning of what is encoded. */
enum status pretokenizer_run(const struct pretoken_run *run, size_t stage, const char *text, size_t size, bool first,
                             struct error *err);
void pretokenizer_free(struct pretokenizer *pretokenizer);

/* --- model: byte-pair encoding */
struct bpe {
    struct name_table vocab;
    struct merge_table merges;
    char *names; /* what vocab's keys point into */
    int32_t largest; /* id */
    int32_t byte_ids[256];     /* of stand-ins, -1 where missing */
    int32_t fallback_ids[256]; /* of <0xNN> */
    bool byte_fallback, fuse_unk, ignore_merges;
    int32_t unk; /* -1: none */
};
struct bpe_work;
enum status bpe_read(const struct json *json, const char *where, struct bpe *out, struct error *err);
struct bpe_work *bpe_work_new(void);
void bpe_work_free(struct bpe_work *work);
/* Appends the ids of one pre-token. */
enum status bpe_encode(const struct bpe *bpe, struct bpe_work *work, const char *text, size_t size, bool bytes,
                       struct token_list *out, struct error *err);
void bpe_free(struct bpe *bpe);

/* --- decoder */
enum decode_kind { DECODE_BYTES, DECODE_REPLACE, DECODE_FALLBACK, DECODE_FUSE, DECODE_STRIP, DECODE_METASPACE };
struct decode_step {
    enum decode_kind kind;
    struct pattern pattern;
    char *content; /* replace: new text; strip, metaspace: the character */
    size_t content_size;
    int64_t start, stop; /* strip */
    enum scheme scheme;
};
struct decoder {
    struct decode_step *steps;
    size_t count;
    bool none; /* no decoder in the file: tokens with a blank between them */
};
enum status decoder_read(const struct json *json, const char *where, struct decoder *out, struct error *err);
void decoder_free(struct decoder *decoder);

/* --- the whole */
struct token_name {
    const char *text;
    size_t size;
    bool known, skipped; /* skipped: left out by skip_special */
};
struct encoder; /* what one thread needs; lent from a list */
struct tokenizer {
    struct added_tokens added;
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;
    struct bpe bpe;
    struct decoder decoder;
    struct token_list before, after; /* what TOKENIZE_SPECIALS puts round a text */
    struct token_name *tokens;       /* [size] */
    int32_t size, bos, eos;
    struct encoders *encoders;
    char digest[DIGEST_HEX_SIZE]; /* of the texts it was made of */
};
/* Makes and frees the list of encoders. */
enum status encoders_open(struct tokenizer *tokenizer, struct error *err);
void encoders_close(struct tokenizer *tokenizer);

#endif
