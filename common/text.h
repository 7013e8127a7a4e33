/* A growing string. Allocation failure makes it "failed": later calls do nothing, so callers check once. */
#ifndef COMMON_TEXT_H
#define COMMON_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct text {
    char *data;  /* NUL-terminated once anything was appended, else NULL */
    size_t size; /* bytes without the NUL */
    size_t capacity;
    bool failed;
};

void text_append(struct text *text, const char *bytes, size_t size);
void text_puts(struct text *text, const char *string);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_vprintf(struct text *text, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
/* A JSON string literal with quotes; invalid UTF-8 is copied as it is. */
void text_json_string(struct text *text, const char *bytes, size_t size);
void text_clear(struct text *text); /* keeps the memory */
void text_free(struct text *text);

#endif
