#include "common/scalar.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *digits(const char *at)
{
    while (*at >= '0' && *at <= '9')
        at++;
    return at;
}

bool scalar_to_int(const char *text, int64_t *out)
{
    const char *first = text + (*text == '-' || *text == '+'), *end = digits(first);
    if (end == first || *end || (*first == '0' && end > first + 1))
        return false;
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    if (errno)
        return false;
    *out = value;
    return true;
}

bool scalar_to_real(const char *text, double *out)
{
    const char *first = text + (*text == '-' || *text == '+'), *at = digits(first);
    size_t n_digits = (size_t)(at - first);
    if (n_digits > 1 && *first == '0')
        return false;
    if (*at == '.') {
        const char *fraction = at + 1;
        at = digits(fraction);
        n_digits += (size_t)(at - fraction);
    }
    if (!n_digits)
        return false;
    if (*at == 'e' || *at == 'E') {
        const char *exponent = at + 1 + (at[1] == '-' || at[1] == '+');
        at = digits(exponent);
        if (at == exponent)
            return false;
    }
    if (*at)
        return false;
    double value = strtod(text, NULL);
    if (!isfinite(value))
        return false;
    *out = value;
    return true;
}

bool scalar_to_bool(const char *text, bool *out)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"true", true}, {"yes", true}, {"on", true}, {"false", false}, {"no", false}, {"off", false}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (!strcasecmp(text, words[i].word)) {
            bool first_is_capital = isupper((unsigned char)text[0]), rest_is_capital = isupper((unsigned char)text[1]);
            for (const char *c = text + 1; *c; c++)
                if ((bool)isupper((unsigned char)*c) != rest_is_capital)
                    return false;
            if (rest_is_capital && !first_is_capital)
                return false;
            *out = words[i].value;
            return true;
        }
    return false;
}

bool scalar_is_null(const char *text)
{
    return !*text || !strcmp(text, "~") || !strcmp(text, "null") || !strcmp(text, "Null") || !strcmp(text, "NULL");
}

/* Reads one character; 0 where the bytes are not UTF-8. */
static int decode(const unsigned char *s, uint32_t *out)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    int size = s[0] < 0x80 ? 1 : (s[0] & 0xe0) == 0xc0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : (s[0] & 0xf8) == 0xf0 ? 4 : 0;
    if (!size)
        return 0;
    uint32_t c = size == 1 ? s[0] : s[0] & (0x7fu >> size);
    for (int i = 1; i < size; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3fu);
    }
    if (c < lowest[size] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    *out = c;
    return size;
}

bool scalar_is_utf8(const char *text)
{
    uint32_t c;
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int size = decode(s, &c);
        if (!size)
            return false;
        s += size;
    }
    return true;
}

void scalar_put_real(struct text *out, double value)
{
    char number[32];
    if (value == floor(value) && fabs(value) < 1e15) {
        text_printf(out, "%.0f", value);
        return;
    }
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(number, sizeof number, "%.*g", precision, value);
        if (strtod(number, NULL) == value)
            break;
    }
    text_puts(out, number);
}

void scalar_put_json(struct text *out, double value)
{
    if (isfinite(value))
        scalar_put_real(out, value);
    else
        text_puts(out, "null");
}

static bool safe_as_it_is(const char *value)
{
    int64_t integer;
    double real;
    bool truth;
    if (scalar_is_null(value) || scalar_to_int(value, &integer) || scalar_to_real(value, &real) || scalar_to_bool(value, &truth))
        return false;
    if (!isalpha((unsigned char)value[0]) && value[0] != '/' && !(value[0] == '.' && value[1] && value[1] != ' '))
        return false;
    for (const char *c = value; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("/._+-", *c))
            return false;
    return true;
}

void scalar_put_string(struct text *out, const char *value)
{
    if (safe_as_it_is(value)) {
        text_puts(out, value);
        return;
    }
    text_puts(out, "\"");
    uint32_t c = 0;
    int size;
    for (const unsigned char *s = (const unsigned char *)value; *s; s += size) {
        size = decode(s, &c);
        if (!size)
            size = 1, c = *s; /* not UTF-8: keep what can be kept, as Latin-1 */
        bool printable = (c >= 0x20 && c < 0x7f) || (c >= 0xa0 && c != 0x2028 && c != 0x2029 && c != 0xfeff && c != 0xfffe && c != 0xffff);
        if (c == '"' || c == '\\')
            text_printf(out, "\\%c", (int)c);
        else if (c == '\n')
            text_puts(out, "\\n");
        else if (c == '\t')
            text_puts(out, "\\t");
        else if (printable && !(size == 1 && c >= 0x80))
            text_append(out, (const char *)s, (size_t)size);
        else
            text_printf(out, "\\u%04x", c);
    }
    text_puts(out, "\"");
}
