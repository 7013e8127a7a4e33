/* Regular expressions with the meaning Oniguruma gives them, run by PCRE2. The only includer of pcre2.h.
 * Must not know: what is searched. */
#ifndef WORKER_DATA_TOKENIZER_REGEX_H
#define WORKER_DATA_TOKENIZER_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

struct regex;
struct regex_scratch; /* for one thread; serves every expression */

/* STATUS_DATA naming the expression where it is broken, or where PCRE2 would read it otherwise than Oniguruma. */
enum status regex_compile(const char *pattern, size_t size, const char *where, struct regex **out, struct error *err);
void regex_free(struct regex *regex);

struct regex_scratch *regex_scratch_new(void); /* NULL when memory is short */
void regex_scratch_free(struct regex_scratch *scratch);

/* The leftmost match at or after `from` in well-formed UTF-8. *found = false if there is none. STATUS_DATA when the
 * search takes too many steps, which only a malicious expression needs. */
enum status regex_find(const struct regex *regex, struct regex_scratch *scratch, const char *text, size_t size,
                       size_t from, size_t *start, size_t *end, bool *found, struct error *err);

#endif
