#include "worker/data/tokenizer/unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "common/memory.h"

size_t utf8_length(const char *text, size_t left, size_t *part)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned char c = s[0], low = 0x80, high = 0xBF;
    size_t length = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (c == 0xE0)
        low = 0xA0;
    else if (c == 0xED)
        high = 0x9F;
    else if (c == 0xF0)
        low = 0x90;
    else if (c == 0xF4)
        high = 0x8F;
    size_t good = 1;
    while (good < length && good < left && s[good] >= low && s[good] <= high) {
        low = 0x80;
        high = 0xBF;
        good++;
    }
    if (part)
        *part = good;
    return length && good == length ? length : 0;
}

bool utf8_is_cut(const char *s, size_t left)
{
    size_t part;
    return !utf8_length(s, left, &part) && part == left && (unsigned char)s[0] >= 0xC2 && (unsigned char)s[0] < 0xF5;
}

size_t utf8_valid(const char *s, size_t size)
{
    size_t at = 0;
    while (at < size) {
        uint64_t eight;
        while (size - at >= sizeof eight && (memcpy(&eight, s + at, sizeof eight), !(eight & 0x8080808080808080u)))
            at += sizeof eight;
        if (at == size)
            break;
        size_t n = utf8_length(s + at, size - at, NULL);
        if (!n)
            return at;
        at += n;
    }
    return size;
}

uint32_t utf8_decode(const char *text, size_t *length)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) {
        *length = 1;
        return s[0];
    }
    if (s[0] < 0xE0) {
        *length = 2;
        return (s[0] & 0x1Fu) << 6 | (s[1] & 0x3Fu);
    }
    if (s[0] < 0xF0) {
        *length = 3;
        return (s[0] & 0x0Fu) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu);
    }
    *length = 4;
    return (s[0] & 0x07u) << 18 | (s[1] & 0x3Fu) << 12 | (s[2] & 0x3Fu) << 6 | (s[3] & 0x3Fu);
}

size_t utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

static bool is_one_of(uint32_t c, uint32_t categories)
{
    return categories >> utf8proc_category((utf8proc_int32_t)c) & 1;
}

#define CATEGORY(name) (1u << UTF8PROC_CATEGORY_##name)

bool unicode_is_number(uint32_t c)
{
    return c < 0x80 ? c - '0' < 10 : is_one_of(c, CATEGORY(ND) | CATEGORY(NL) | CATEGORY(NO));
}

bool unicode_is_punct(uint32_t c)
{
    if (c < 0x80)
        return (c > 0x20 && c < 0x30) || (c > 0x39 && c < 0x41) || (c > 0x5A && c < 0x61) || (c > 0x7A && c < 0x7F);
    return is_one_of(c, CATEGORY(PC) | CATEGORY(PD) | CATEGORY(PS) | CATEGORY(PE) | CATEGORY(PI) | CATEGORY(PF) |
                            CATEGORY(PO));
}

bool unicode_is_space(uint32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || (c >= 0x80 && is_one_of(c, CATEGORY(ZS) | CATEGORY(ZL) | CATEGORY(ZP)));
}

bool unicode_is_word(uint32_t c)
{
    return c == 0x200C || c == 0x200D ||
           is_one_of(c, CATEGORY(LU) | CATEGORY(LL) | CATEGORY(LT) | CATEGORY(LM) | CATEGORY(LO) | CATEGORY(MN) |
                            CATEGORY(MC) | CATEGORY(ME) | CATEGORY(ND) | CATEGORY(NL) | CATEGORY(PC));
}

/* Characters that composition leaves alone, whatever stands beside them: they have class 0, are their own composed form
 * and are never the second of a pair. The ranges cover Latin, Han, kana without their marks, and full-width forms. */
static bool is_composed(uint32_t c)
{
    return c < 0x300 || (c >= 0x2010 && c <= 0x2027) || (c >= 0x3000 && c <= 0x3029) || (c >= 0x3030 && c <= 0x3098) ||
           (c >= 0x309B && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) || (c >= 0xFF01 && c <= 0xFFEE);
}

static bool needs_form(enum unicode_form form, const char *text, size_t size)
{
    for (size_t at = 0, n; at < size; at += n) {
        uint32_t c = utf8_decode(text + at, &n);
        if (c >= 0x80 && (form != UNICODE_NFC || !is_composed(c)))
            return true;
    }
    return false;
}

void unicode_normalize(enum unicode_form form, const char *text, size_t size, struct text *out)
{
    static const int options[] = {UTF8PROC_COMPOSE, UTF8PROC_DECOMPOSE, UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
                                  UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT};
    if (!needs_form(form, text, size)) {
        text_append(out, text, size);
        return;
    }
    utf8proc_option_t option = (utf8proc_option_t)(options[form] | UTF8PROC_STABLE);
    utf8proc_ssize_t n = utf8proc_decompose((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, NULL, 0, option);
    /* One more, because the library writes a NUL behind the text it puts together in the same place. */
    utf8proc_int32_t *characters = n < 0 ? NULL : mem_alloc((size_t)n + 1, sizeof *characters);
    if (!characters) {
        out->failed = true;
        return;
    }
    utf8proc_decompose((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, characters, n, option);
    n = utf8proc_reencode(characters, n, option);
    if (n >= 0)
        text_append(out, (const char *)characters, (size_t)n);
    else
        out->failed = true;
    mem_free(characters);
}

void unicode_lower(const char *text, size_t size, struct text *out)
{
    for (size_t at = 0, n; at < size; at += n) {
        char encoded[4];
        uint32_t c = utf8_decode(text + at, &n);
        if (c == 0x130) /* the one character whose lower case is two: i and a dot above */
            text_append(out, "i\xCC\x87", 3);
        else
            text_append(out, encoded, utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), encoded));
    }
}
