/* Added tokens: kept apart from the vocabulary's merges, found in text by their spelling.
 * Must not know: the model, how text between them is cut. */
#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/parts.h"

const struct added_token *added_find(const struct added_tokens *added, const char *content, size_t size)
{
    for (size_t i = 0; i < added->count; i++)
        if (added->items[i].size == size && !memcmp(added->items[i].content, content, size))
            return &added->items[i];
    return NULL;
}

static enum status new_token(struct added_tokens *added, const struct json *json, int64_t id, const char *where,
                             struct added_token **out, struct error *err)
{
    struct added_token *items = part_grow(added->items, added->count, sizeof *items);
    if (!items)
        FAIL(err, STATUS_NOMEM, "%s: no memory for added tokens", where);
    added->items = items;
    struct added_token *token = &items[added->count];
    *token = (struct added_token){.id = (int32_t)id};
    TRY(part_string(json, "content", where, &token->content, &token->size, err));
    added->count++;
    *out = token;
    return STATUS_OK;
}

enum status added_read(struct added_tokens *added, const struct json *json, int64_t id, const char *where,
                       struct error *err)
{
    size_t size;
    const char *content = json_to_string(json_member(json, "content"), &size);
    if (!content)
        FAIL(err, STATUS_DATA, "%s: an added token has no 'content'", where);
    if (!size)
        return STATUS_OK; /* the reference passes over them too */
    if (id < 0 || id >= TOKEN_IDS_MAX)
        FAIL(err, STATUS_DATA, "%s: the added token '%.100s' has id %lld, allowed are 0 to %d", where, content,
             (long long)id, TOKEN_IDS_MAX - 1);
    struct added_token *token = (struct added_token *)added_find(added, content, size);
    if (!token)
        TRY(new_token(added, json, id, where, &token, err));
    token->single_word = token->lstrip = token->rstrip = token->special = false;
    token->normalized = true;
    TRY(json_get_bool(json, "special", where, &token->special, err));
    token->normalized = !token->special;
    TRY(json_get_bool(json, "single_word", where, &token->single_word, err));
    TRY(json_get_bool(json, "lstrip", where, &token->lstrip, err));
    TRY(json_get_bool(json, "rstrip", where, &token->rstrip, err));
    return json_get_bool(json, "normalized", where, &token->normalized, err);
}

bool added_is_plain(const struct added_token *token)
{
    char first = token->content[0], last = token->content[token->size - 1];
    bool control = token->size > 2 && ((first == '<' && last == '>') || (first == '[' && last == ']'));
    return token->normalized && !token->special && !control;
}

static int compare(const void *a, const void *b)
{
    const struct added_token *x = *(const struct added_token *const *)a, *y = *(const struct added_token *const *)b;
    int order = memcmp(x->match, y->match, x->match_size < y->match_size ? x->match_size : y->match_size);
    if (!order)
        order = (x->match_size > y->match_size) - (x->match_size < y->match_size);
    return order ? order : (x > y) - (x < y);
}

/* Takes the tokens that `wanted` names; of several with one spelling the first counts. */
static bool set_open(struct added_set *set, const struct added_tokens *added, bool (*wanted)(const struct added_token *))
{
    set->sorted = mem_alloc(added->count, sizeof *set->sorted);
    if (!set->sorted)
        return false;
    size_t count = 0;
    for (size_t i = 0; i < added->count; i++)
        if (wanted(&added->items[i]) && added->items[i].match_size)
            set->sorted[count++] = &added->items[i];
    qsort(set->sorted, count, sizeof *set->sorted, compare);
    for (size_t i = 0; i < count; i++) {
        const struct added_token *t = set->sorted[i], *last = set->count ? set->sorted[set->count - 1] : NULL;
        if (!last || last->match_size != t->match_size || memcmp(last->match, t->match, t->match_size))
            set->sorted[set->count++] = t;
    }
    for (size_t i = 0; i < set->count; i++)
        set->first[(unsigned char)set->sorted[i]->match[0] + 1] = i + 1;
    for (int c = 1; c <= 256; c++)
        if (set->first[c] < set->first[c - 1])
            set->first[c] = set->first[c - 1];
    return true;
}

static bool is_raw(const struct added_token *token)
{
    return !token->normalized;
}

static bool is_normalized(const struct added_token *token)
{
    return token->normalized;
}

enum status added_finish(struct added_tokens *added, const struct normalizer *normalizer, struct regex_scratch *scratch,
                         struct error *err)
{
    struct text buffers[2] = {{0}, {0}};
    enum status st = STATUS_OK;
    for (size_t i = 0; i < added->count && st == STATUS_OK; i++) {
        struct added_token *t = &added->items[i];
        const char *match = t->content;
        t->match_size = t->size;
        if (t->normalized)
            st = normalizer_run(normalizer, scratch, buffers, t->content, t->size, &match, &t->match_size, err);
        if (st == STATUS_OK && !(t->match = mem_strndup(match, t->match_size)))
            st = error_set(err, STATUS_NOMEM, "no memory for added tokens");
    }
    text_free(&buffers[0]);
    text_free(&buffers[1]);
    if (st == STATUS_OK && (!set_open(&added->raw, added, is_raw) || !set_open(&added->normalized, added, is_normalized) ||
                            !set_open(&added->plain, added, added_is_plain)))
        st = error_set(err, STATUS_NOMEM, "no memory for added tokens");
    return st;
}

/* First of the tokens [low, high) whose byte at `depth` is at least `c`; all of them are longer than that. */
static size_t bound(const struct added_set *set, size_t low, size_t high, size_t depth, int c)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)set->sorted[middle]->match[depth] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token that begins the text. The range of candidates narrows byte by byte. */
static const struct added_token *longest(const struct added_set *set, const char *text, size_t left)
{
    size_t low = set->first[(unsigned char)text[0]], high = set->first[(unsigned char)text[0] + 1];
    const struct added_token *best = NULL;
    for (size_t depth = 1; low < high; depth++) {
        if (set->sorted[low]->match_size == depth)
            best = set->sorted[low++];
        if (depth == left)
            break;
        low = bound(set, low, high, depth, (unsigned char)text[depth]);
        high = bound(set, low, high, depth, (unsigned char)text[depth] + 1);
    }
    return best;
}

/* Whether the character before `at` or the one at it is part of a word. */
static bool word_before(const char *text, size_t at)
{
    size_t n, start = at;
    while (start && ((unsigned char)text[--start] & 0xC0) == 0x80)
        ;
    return at && unicode_is_word(utf8_decode(text + start, &n));
}

static bool word_after(const char *text, size_t at, size_t size)
{
    size_t n;
    return at < size && unicode_is_word(utf8_decode(text + at, &n));
}

static size_t spaces_before(const char *text, size_t at, size_t floor)
{
    while (at > floor) {
        size_t n, start = at - 1;
        while (start > floor && ((unsigned char)text[start] & 0xC0) == 0x80)
            start--;
        if (!unicode_is_space(utf8_decode(text + start, &n)))
            break;
        at = start;
    }
    return at;
}

static size_t spaces_after(const char *text, size_t at, size_t size)
{
    size_t n;
    while (at < size && unicode_is_space(utf8_decode(text + at, &n)))
        at += n;
    return at;
}

enum status added_split(const struct added_set *set, const char *text, size_t size, added_piece_fn *piece, void *context,
                        struct error *err)
{
    size_t done = 0, at = 0;
    while (set->count && at < size) {
        unsigned char c = (unsigned char)text[at];
        const struct added_token *token = set->first[c] < set->first[c + 1] ? longest(set, text + at, size - at) : NULL;
        if (!token) {
            at++;
            continue;
        }
        size_t start = at, end = at + token->match_size;
        at = end; /* a match that is passed over is used up all the same */
        if (token->single_word && (word_before(text, start) || word_after(text, end, size)))
            continue;
        if (token->lstrip)
            start = spaces_before(text, start, done < start ? done : start);
        if (token->rstrip)
            end = spaces_after(text, end, size);
        if (done < start)
            TRY(piece(context, done, start, NULL, err));
        TRY(piece(context, start, end, token, err));
        done = end;
    }
    return done < size ? piece(context, done, size, NULL, err) : STATUS_OK;
}

void added_free(struct added_tokens *added)
{
    for (size_t i = 0; i < added->count; i++) {
        mem_free(added->items[i].content);
        mem_free(added->items[i].match);
    }
    mem_free(added->raw.sorted);
    mem_free(added->normalized.sorted);
    mem_free(added->plain.sorted);
    mem_free(added->items);
    *added = (struct added_tokens){0};
}
