/* Text to token ids and back, as Hugging Face's `tokenizers` does it for byte-pair encodings: everything is read from
 * tokenizer.json and the tokenizer_config.json beside it, nothing is built in. A component this file does not know is
 * refused by its name when the file is loaded, never guessed at.
 * Must not know: chat templates, rows, models. */
#ifndef WORKER_DATA_TOKENIZER_H
#define WORKER_DATA_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

struct tokenizer;
struct regex_scratch;

/* A growing list of token ids; start with {0}. */
struct token_list {
    int32_t *ids;
    size_t count, capacity;
};
enum status token_list_add(struct token_list *list, const int32_t *ids, size_t count, struct error *err);
void token_list_free(struct token_list *list);

/* `path` is a folder or a tokenizer.json; the tokenizer_config.json of the same folder is read too if there is one.
 * STATUS_DATA naming the file and the component for whatever is missing, broken or not supported. */
enum status tokenizer_load(const char *path, struct tokenizer **out, struct error *err);
/* The same from memory; config_json may be NULL; `where` names the text in messages. */
enum status tokenizer_load_text(const char *json, size_t size, const char *config_json, size_t config_size,
                                const char *where, struct tokenizer **out, struct error *err);
void tokenizer_free(struct tokenizer *tokenizer); /* NULL is allowed */
/* Digest of the texts it was made of: tokenizers with the same one make the same ids. */
const char *tokenizer_digest(const struct tokenizer *tokenizer);

/* How text becomes ids:
 *   TOKENIZE_ADDED     added tokens are matched inside the text exactly as Hugging Face does: <think> in the text becomes
 *                      the token <think>.
 *   (not set)          for text of users: only added tokens that are plain text are matched, which are those that are
 *                      not special, are matched after normalisation, and are not spelt <...> or [...]. These are
 *                      DeepSeek's 13 letters such as `À` and the runs of blanks of phi-2: without them ordinary text
 *                      would become other ids than the model was trained on. No text can smuggle in a control token.
 *   TOKENIZE_SPECIALS  adds what the tokenizer puts round a text by itself, such as BOS. */
enum { TOKENIZE_ADDED = 1, TOKENIZE_SPECIALS = 2 };

/* Appends the ids of the text. Several threads may use one tokenizer. STATUS_DATA for invalid UTF-8, naming the byte. */
enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size, unsigned flags,
                             struct token_list *out, struct error *err);
/* True if the text spells an added token that TOKENIZE_ADDED would match and text of users does not. */
bool tokenizer_has_special(const struct tokenizer *tokenizer, const char *text, size_t size);

/* Appends the text of the ids; bytes that are not UTF-8 become U+FFFD. Ids without a token give nothing.
 * skip_special leaves out added tokens marked special, BOS and EOS. */
enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                             struct text *out, struct error *err);

/* Decoding token by token: the pieces put together are what tokenizer_decode gives, and no piece ends inside a
 * character. After tokenizer_stream_finish the stream is as new. */
struct tokenizer_stream {
    const struct tokenizer *tokenizer;
    bool skip_special;
    struct text pending; /* bytes that are not a character yet */
    struct text scratch[2];
    struct regex_scratch *regex;
    int64_t tokens;      /* that came through */
    int64_t strip_left;  /* leading characters that may still be taken away */
    struct text tail;    /* held back because the end of the text may be stripped */
};
enum status tokenizer_stream_init(struct tokenizer_stream *stream, const struct tokenizer *tokenizer, bool skip_special,
                                  struct error *err);
enum status tokenizer_stream_push(struct tokenizer_stream *stream, int32_t id, struct text *out, struct error *err);
enum status tokenizer_stream_finish(struct tokenizer_stream *stream, struct text *out, struct error *err);
void tokenizer_stream_free(struct tokenizer_stream *stream);

int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token); /* -1: no such token */
/* The token's own spelling, NULL if there is none; bytes of byte-level tokenizers are spelt as in the file. */
const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *size);
int32_t tokenizer_size(const struct tokenizer *tokenizer); /* largest id + 1 */
/* Named by tokenizer_config.json; else the special token with one of the customary names. -1: none. */
int32_t tokenizer_bos(const struct tokenizer *tokenizer);
int32_t tokenizer_eos(const struct tokenizer *tokenizer);

#endif
