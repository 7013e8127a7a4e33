/* Strict text -> number or truth value, one reading for files and command lines; and numbers back to text.
 * Unlike YAML 1.1: 2e-5 is a number, 010 and 1_000 and 1:30 are not. */
#ifndef COMMON_SCALAR_H
#define COMMON_SCALAR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/text.h"

/* Optional sign and decimal digits without leading zeros, within int64. */
bool scalar_to_int(const char *text, int64_t *out);
/* Decimal notation, optionally with exponent (1, 1.5, .5, 2e-5, -1.0E+3); finite. */
bool scalar_to_real(const char *text, double *out);
/* true yes on / false no off, in small letters, capitals or with a capital first. */
bool scalar_to_bool(const char *text, bool *out);
/* "", ~, null. */
bool scalar_is_null(const char *text);
/* True for UTF-8 without surrogates, overlong forms or NUL. */
bool scalar_is_utf8(const char *text);

/* The shortest decimal that reads back as the same double. */
void scalar_put_real(struct text *out, double value);
/* The same; null where JSON has no number for it: NaN, infinity. */
void scalar_put_json(struct text *out, double value);
/* The text so that YAML reads it back as the same string: as it is where that is safe, else double-quoted. */
void scalar_put_string(struct text *out, const char *value);

#endif
