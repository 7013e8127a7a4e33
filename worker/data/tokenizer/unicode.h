/* Unicode as tokenizers need it: UTF-8, classes of characters, normal forms. The only includer of utf8proc.
 * Must not know: tokens. */
#ifndef WORKER_DATA_TOKENIZER_UNICODE_H
#define WORKER_DATA_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/text.h"

/* Length of the well-formed sequence at `s` (Unicode, table 3-7), or 0; *part is then how many bytes begin one that a
 * decoder replaces by a single U+FFFD (at least 1). `part` may be NULL. left > 0. */
size_t utf8_length(const char *s, size_t left, size_t *part);
/* True if the bytes at `s` begin a sequence that more bytes could complete. */
bool utf8_is_cut(const char *s, size_t left);
/* Position of the first byte that is not UTF-8, or `size`. */
size_t utf8_valid(const char *s, size_t size);
/* The character at `s` (well-formed) and its length. */
uint32_t utf8_decode(const char *s, size_t *length);
size_t utf8_encode(uint32_t c, char out[4]);

bool unicode_is_number(uint32_t c); /* general category N */
bool unicode_is_punct(uint32_t c);  /* category P, or ASCII punctuation (which includes signs such as $ and +) */
bool unicode_is_space(uint32_t c);  /* White_Space */
bool unicode_is_word(uint32_t c);   /* letters, marks, digits, letter numbers, connectors, joiners */

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };
/* Both append to `out`; the text is well-formed. */
void unicode_normalize(enum unicode_form form, const char *text, size_t size, struct text *out);
void unicode_lower(const char *text, size_t size, struct text *out);

#endif
