#include "worker/data/bytes.h"

/* Length of the well-formed UTF-8 sequence at `s` (Unicode, table 3-7), or 0. */
static size_t utf8_length(const unsigned char *s, size_t left)
{
    if (s[0] < 0x80)
        return 1;
    size_t n = s[0] >= 0xC2 && s[0] <= 0xDF ? 2 : (s[0] & 0xF0) == 0xE0 ? 3 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : 0;
    if (!n || n > left)
        return 0;
    unsigned char low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    return n;
}

enum status bytes_check(const char *path, const char *text, size_t size, int64_t line, size_t in_file, struct error *err)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t line_start = 0;
    for (size_t i = 0; i < size;) {
        size_t n = bytes[i] ? utf8_length(bytes + i, size - i) : 0;
        if (!n)
            FAIL(err, STATUS_DATA, "%s:%lld:%zu: %s (0x%02x) at byte %zu of the file; store the rows as UTF-8 text", path,
                 (long long)line, i - line_start + 1, bytes[i] ? "invalid UTF-8" : "a NUL byte", bytes[i], in_file + i);
        if (bytes[i] == '\n') {
            line++;
            line_start = i + 1;
        }
        i += n;
    }
    return STATUS_OK;
}
