#include "worker/data/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "common/memory.h"
#include "common/text.h"

struct regex {
    pcre2_code *code;
    pcre2_general_context *memory;
    char *pattern; /* for messages */
};

struct regex_scratch {
    pcre2_general_context *memory;
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

enum { STEPS_MAX = 20000000 };

static void *counted_alloc(size_t size, void *context)
{
    (void)context;
    return mem_alloc(size, 1);
}

static void counted_free(void *block, void *context)
{
    (void)context;
    mem_free(block);
}

/* What a shorthand stands for in Oniguruma with UTF-8, without the brackets. PCRE2's own \s takes in U+180E and its \w
 * lacks marks; its \h means something else altogether. */
static const struct {
    char letter;
    const char *members;
} shorthands[] = {
    {'s', "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"},
    {'S', "\\P{White_Space}"},
    {'w', "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"}, /* its Latin-1 table counts fractions */
    {'h', "0-9A-Fa-f"},
};

static const char *members_of(char letter)
{
    for (size_t i = 0; i < sizeof shorthands / sizeof *shorthands; i++)
        if (shorthands[i].letter == letter)
            return shorthands[i].members;
    return NULL;
}

static pcre2_code *try_compile(const char *pattern, size_t size, pcre2_general_context *memory, int *code, size_t *offset)
{
    PCRE2_SIZE where = 0;
    pcre2_compile_context *settings = pcre2_compile_context_create(memory);
    if (!settings) {
        *code = PCRE2_ERROR_HEAP_FAILED;
        return NULL;
    }
    pcre2_set_newline(settings, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(settings, 100);
    /* Oniguruma's Ruby syntax: ^ and $ hold at every line. */
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, size, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                         code, &where, settings);
    pcre2_compile_context_free(settings);
    *offset = where;
    return compiled;
}

/* \p{Han} means the script in Oniguruma, but script extensions in PCRE2; returns the bytes of the property taken. */
static size_t put_property(const char *p, size_t left, pcre2_general_context *memory, struct text *out)
{
    const char *close = memchr(p, '}', left);
    size_t size = close ? (size_t)(close - p) + 1 : 0;
    int code;
    size_t offset;
    bool is_name = size >= 7 && p[2] == '{' && p[3] != '^' && !memchr(p, ':', size); /* longer than a category */
    if (is_name) {
        struct text script = {0};
        text_append(&script, p, 3);
        text_puts(&script, "sc:");
        text_append(&script, p + 3, size - 3);
        pcre2_code *known = script.failed ? NULL : try_compile(script.data, script.size, memory, &code, &offset);
        if (known)
            text_append(out, script.data, script.size);
        out->failed |= script.failed;
        text_free(&script);
        pcre2_code_free(known);
        if (known)
            return size;
    }
    text_append(out, p, 2);
    return 2;
}

/* What stands behind "(?" up to ':' or ')' must not hold an 'm', which is PCRE2's 's'. */
static bool changes_lines(const char *p, size_t left)
{
    for (size_t i = 2; i < left && strchr("imsxadu-", p[i]) && p[i]; i++)
        if (p[i] == 'm')
            return true;
    return false;
}

/* Two characters that mean something else in PCRE2 when they follow each other here; says what is not supported. */
static const char *refused(const char *p, size_t left, bool in_class)
{
    if (in_class && p[0] == '[')
        return "sets inside sets are not supported";
    if (left < 2)
        return NULL;
    if (p[0] == '\\' && p[1] && strchr("WHKGRXQEC", p[1]))
        return "\\W, \\H, \\K, \\G, \\R, \\X, \\Q, \\E and \\C are not supported";
    if (in_class && p[0] == '&' && p[1] == '&')
        return "sets inside sets are not supported";
    if (!in_class && p[0] == '(' && (p[1] == '*' || (p[1] == '?' && changes_lines(p, left))))
        return "(?m) and (*VERB) are not supported";
    return NULL;
}

/* Bytes of a `[:name:]` inside a class, or 0. */
static size_t posix_size(const char *p, size_t left)
{
    const char *end = left > 3 && p[0] == '[' && p[1] == ':' ? memmem(p + 2, left - 2, ":]", 2) : NULL;
    return end ? (size_t)(end - p) + 2 : 0;
}

/* Bytes of a class's opening: the bracket, the sign that inverts it, a bracket that is a member by its place. */
static size_t opening_size(const char *p, size_t left)
{
    size_t n = 1;
    n += n < left && p[n] == '^';
    n += n < left && p[n] == ']';
    return n;
}

/* Appends what PCRE2 needs for the next part of the pattern; returns the bytes taken. */
static size_t put_part(const char *p, size_t left, bool *in_class, pcre2_general_context *memory, struct text *out)
{
    size_t taken = 1;
    const char *members = p[0] == '\\' && left > 1 ? members_of(p[1]) : NULL;
    if (members) {
        text_puts(out, *in_class ? "" : "[");
        text_puts(out, members);
        text_puts(out, *in_class ? "" : "]");
        return 2;
    }
    if (p[0] == '\\' && left > 1) {
        if (p[1] == 'p' || p[1] == 'P')
            return put_property(p, left, memory, out);
        taken = 2;
    } else if (*in_class && p[0] == '[') {
        taken = posix_size(p, left);
    } else if (p[0] == '[') {
        *in_class = true;
        taken = opening_size(p, left);
    } else if (p[0] == ']') {
        *in_class = false;
    }
    text_append(out, p, taken);
    return taken;
}

/* Copies the pattern with shorthands spelt out; returns why not, or NULL. */
static const char *translate(const char *p, size_t size, pcre2_general_context *memory, struct text *out)
{
    bool in_class = false;
    for (size_t i = 0; i < size;) {
        const char *problem = in_class && posix_size(p + i, size - i) ? NULL : refused(p + i, size - i, in_class);
        if (problem)
            return problem;
        i += put_part(p + i, size - i, &in_class, memory, out);
    }
    return NULL;
}

static enum status compile(struct regex *regex, size_t size, const char *where, struct error *err)
{
    struct text pattern = {0};
    int code = 0;
    size_t offset = 0;
    const char *problem = translate(regex->pattern, size, regex->memory, &pattern);
    if (!problem && !pattern.failed)
        regex->code = try_compile(pattern.data ? pattern.data : "", pattern.size, regex->memory, &code, &offset);
    bool no_memory = pattern.failed || code == PCRE2_ERROR_HEAP_FAILED;
    text_free(&pattern);
    if (problem)
        FAIL(err, STATUS_DATA, "%s: the expression '%.200s' cannot be used: %s", where, regex->pattern, problem);
    if (no_memory)
        FAIL(err, STATUS_NOMEM, "%s: no memory to compile an expression", where);
    if (!regex->code) {
        char reason[128] = "unknown error";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof reason);
        FAIL(err, STATUS_DATA, "%s: the expression '%.200s' cannot be used: %s", where, regex->pattern, reason);
    }
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* where it is refused, matching is merely slower */
    return STATUS_OK;
}

enum status regex_compile(const char *pattern, size_t size, const char *where, struct regex **out, struct error *err)
{
    struct regex *regex = mem_alloc(1, sizeof *regex);
    if (!regex)
        FAIL(err, STATUS_NOMEM, "%s: no memory to compile an expression", where);
    regex->pattern = mem_strndup(pattern, size);
    regex->memory = pcre2_general_context_create(counted_alloc, counted_free, NULL);
    enum status st = regex->pattern && regex->memory
                         ? compile(regex, size, where, err)
                         : error_set(err, STATUS_NOMEM, "%s: no memory to compile an expression", where);
    if (st != STATUS_OK) {
        regex_free(regex);
        return st;
    }
    *out = regex;
    return STATUS_OK;
}

void regex_free(struct regex *regex)
{
    if (!regex)
        return;
    pcre2_code_free(regex->code);
    pcre2_general_context_free(regex->memory);
    mem_free(regex->pattern);
    mem_free(regex);
}

struct regex_scratch *regex_scratch_new(void)
{
    struct regex_scratch *scratch = mem_alloc(1, sizeof *scratch);
    if (!scratch)
        return NULL;
    scratch->memory = pcre2_general_context_create(counted_alloc, counted_free, NULL);
    scratch->match = scratch->memory ? pcre2_match_data_create(1, scratch->memory) : NULL;
    scratch->limits = scratch->match ? pcre2_match_context_create(scratch->memory) : NULL;
    if (!scratch->limits) {
        regex_scratch_free(scratch);
        return NULL;
    }
    pcre2_set_match_limit(scratch->limits, STEPS_MAX);
    return scratch;
}

void regex_scratch_free(struct regex_scratch *scratch)
{
    if (!scratch)
        return;
    pcre2_match_context_free(scratch->limits);
    pcre2_match_data_free(scratch->match);
    pcre2_general_context_free(scratch->memory);
    mem_free(scratch);
}

enum status regex_find(const struct regex *regex, struct regex_scratch *scratch, const char *text, size_t size,
                       size_t from, size_t *start, size_t *end, bool *found, struct error *err)
{
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int n = pcre2_match(regex->code, subject, size, from, PCRE2_NO_UTF_CHECK, scratch->match, scratch->limits);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)
        n = pcre2_match(regex->code, subject, size, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scratch->match, scratch->limits);
    if (n == PCRE2_ERROR_NOMEMORY || n == PCRE2_ERROR_HEAPLIMIT)
        FAIL(err, STATUS_NOMEM, "no memory to search for '%.200s'", regex->pattern);
    if (n < 0 && n != PCRE2_ERROR_NOMATCH)
        FAIL(err, STATUS_DATA, "searching for '%.200s' was given up after too many steps (code %d)", regex->pattern, n);
    *found = n >= 0;
    if (*found) {
        *start = pcre2_get_ovector_pointer(scratch->match)[0];
        *end = pcre2_get_ovector_pointer(scratch->match)[1];
    }
    return STATUS_OK;
}
