#include "common/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/memory.h"

static bool reserve(struct text *text, size_t more)
{
    if (text->failed)
        return false;
    size_t needed = text->size + more + 1;
    if (needed <= text->capacity)
        return true;
    size_t capacity = text->capacity ? text->capacity : 64;
    while (capacity < needed)
        capacity *= 2;
    char *grown = mem_realloc(text->data, capacity, 1);
    if (!grown) {
        text->failed = true;
        return false;
    }
    text->data = grown;
    text->capacity = capacity;
    return true;
}

void text_append(struct text *text, const char *bytes, size_t size)
{
    if (!reserve(text, size))
        return;
    if (size)
        memcpy(text->data + text->size, bytes, size);
    text->size += size;
    text->data[text->size] = '\0';
}

void text_puts(struct text *text, const char *string)
{
    text_append(text, string, strlen(string));
}

void text_printf(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text_vprintf(text, format, args);
    va_end(args);
}

void text_vprintf(struct text *text, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int size = vsnprintf(NULL, 0, format, args);
    if (size >= 0 && reserve(text, (size_t)size)) {
        vsnprintf(text->data + text->size, (size_t)size + 1, format, again);
        text->size += (size_t)size;
    }
    va_end(again);
}

void text_json_string(struct text *text, const char *bytes, size_t size)
{
    text_puts(text, "\"");
    size_t start = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        text_append(text, bytes + start, i - start);
        start = i + 1;
        switch (c) {
        case '"': text_puts(text, "\\\""); break;
        case '\\': text_puts(text, "\\\\"); break;
        case '\n': text_puts(text, "\\n"); break;
        case '\r': text_puts(text, "\\r"); break;
        case '\t': text_puts(text, "\\t"); break;
        default: text_printf(text, "\\u%04x", c);
        }
    }
    text_append(text, bytes + start, size - start);
    text_puts(text, "\"");
}

void text_clear(struct text *text)
{
    text->size = 0;
    text->failed = false;
    if (text->data)
        text->data[0] = '\0';
}

void text_free(struct text *text)
{
    mem_free(text->data);
    *text = (struct text){0};
}
