/* Whether the bytes of a row are text: UTF-8 without NUL.
 * Must not know: how rows lie in a file. */
#ifndef WORKER_DATA_BYTES_H
#define WORKER_DATA_BYTES_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

/* `text` begins line `line` of the file, at byte `in_file`. STATUS_DATA naming "path:line:column", the byte and its place
 * in the whole file, for editors and `xxd -s` want that one. */
enum status bytes_check(const char *path, const char *text, size_t size, int64_t line, size_t in_file, struct error *err);

#endif
