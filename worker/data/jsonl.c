#include "worker/data/jsonl.h"

#include <string.h>

#include "worker/data/bytes.h"

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

void jsonl_over(const char *path, const char *bytes, size_t size, struct jsonl *out)
{
    *out = (struct jsonl){.path = path, .text = bytes, .size = size, .line = 1, .first = true};
    if (size >= 3 && !memcmp(bytes, "\xEF\xBB\xBF", 3)) {
        out->skipped = 3;
        out->text += 3;
        out->size -= 3;
    }
    size_t i = 0;
    while (i < out->size && is_space(out->text[i]))
        i++;
    out->array = i < out->size && out->text[i] == '[';
}

enum status jsonl_open(const char *path, struct jsonl *out, struct error *err)
{
    struct file_map map;
    TRY(file_map_open(path, &map, err));
    jsonl_over(path, map.size ? (const char *)map.data : "", map.size, out);
    out->map = map;
    return STATUS_OK;
}

void jsonl_close(struct jsonl *reader)
{
    file_map_close(&reader->map);
    *reader = (struct jsonl){0};
}

/* Cuts off white space but for the indentation of the first line, so that columns stay true. */
static void trim(const char *text, size_t size, int64_t line, struct jsonl_record *out)
{
    size_t start = 0, i = 0;
    for (; i < size && is_space(text[i]); i++)
        if (text[i] == '\n') {
            line++;
            start = i + 1;
        }
    while (size > i && is_space(text[size - 1]))
        size--;
    *out = (struct jsonl_record){text + start, i < size ? size - start : 0, line};
}

static bool next_line(struct jsonl *reader, struct jsonl_record *out)
{
    while (reader->at < reader->size) {
        const char *start = reader->text + reader->at;
        const char *end = memchr(start, '\n', reader->size - reader->at);
        size_t size = end ? (size_t)(end - start) : reader->size - reader->at;
        trim(start, size, reader->line, out);
        reader->at += size + (end != NULL);
        reader->line++;
        if (out->size)
            return true;
    }
    return false;
}

/* Moves behind the element that starts at `at` and returns the byte that ends it: ',' or ']', 0 if none does. */
static char skip_element(struct jsonl *reader)
{
    bool in_string = false;
    long depth = 0;
    for (; reader->at < reader->size; reader->at++) {
        char c = reader->text[reader->at];
        reader->line += c == '\n';
        if (in_string) {
            if (c == '\\' && reader->at + 1 < reader->size && reader->text[reader->at + 1] != '\n')
                reader->at++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (depth == 0 && (c == ',' || c == ']')) {
            return c;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return 0;
}

static enum status next_element(struct jsonl *reader, struct jsonl_record *out, bool *found, struct error *err)
{
    if (reader->first) {
        while (reader->text[reader->at] != '[')
            reader->line += reader->text[reader->at++] == '\n';
        reader->at++;
    }
    const char *start = reader->text + reader->at;
    int64_t line = reader->line;
    if (reader->closed) {
        trim(start, reader->size - reader->at, line, out);
        if (out->size)
            FAIL(err, STATUS_DATA, "%s:%lld: text after the ']' that ends the array of rows; remove it", reader->path,
                 (long long)out->line);
        *found = false;
        return STATUS_OK;
    }
    char end = skip_element(reader);
    if (!end)
        FAIL(err, STATUS_DATA,
             "%s:%lld: the array of rows has no ']' behind the element that begins here; the file may be cut off",
             reader->path, (long long)line);
    trim(start, (size_t)(reader->text + reader->at - start), line, out);
    reader->at++;
    reader->closed = end == ']';
    *found = out->size || !(reader->first && reader->closed); /* "[]" holds no row */
    reader->first = false;
    return *found ? STATUS_OK : next_element(reader, out, found, err);
}

enum status jsonl_next(struct jsonl *reader, struct jsonl_record *out, bool *found, struct error *err)
{
    if (reader->array)
        return next_element(reader, out, found, err);
    *found = next_line(reader, out);
    return STATUS_OK;
}

enum status jsonl_parse(const struct jsonl *reader, const struct jsonl_record *record, struct json **out,
                        struct error *err)
{
    size_t in_file = (size_t)(record->text - reader->text) + reader->skipped;
    TRY(bytes_check(reader->path, record->text, record->size, record->line, in_file, err));
    return json_parse_piece(record->text, record->size, reader->path, record->line, out, err);
}
