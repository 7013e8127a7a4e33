/* The two files that Hugging Face reads a byte-level tokenizer from.
 * Must not know: how the vocabulary came about. */
#ifndef WORKER_DATA_TOKENIZER_WRITE_H
#define WORKER_DATA_TOKENIZER_WRITE_H

#include <stdint.h>

#include "common/status.h"
#include "common/text.h"
#include "worker/data/tokenizer/learn.h"

/* Tokens of the chat templates; they come first, so token i of the vocabulary has the id SPECIAL_TOKENS + i. */
enum { SPECIAL_TOKENS = 6 };

/* Appends tokenizer.json and tokenizer_config.json. `pre_tokenizer` is JSON; it must end with ByteLevel and must not let a
 * word spell a special token. */
enum status tokenizer_write(const struct vocabulary *vocabulary, const char *pre_tokenizer, struct text *tokenizer,
                            struct text *config, struct error *err);

#endif
