#include "worker/infer/score.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

void score_add(struct score *sum, const struct score *more)
{
    sum->rows += more->rows;
    sum->strict += more->strict;
    sum->flexible += more->flexible;
    sum->no_answer += more->no_answer;
    sum->thought_cut += more->thought_cut;
    sum->answer_cut += more->answer_cut;
    sum->complete += more->complete;
    sum->strict_complete += more->strict_complete;
}

/* ---- Texts ------------------------------------------------------------------------------------------------------ */

/* Cuts off everything up to the end of the last `mark`. */
static bool skip_to_last(struct score_part *part, const char *mark)
{
    size_t n = mark ? strlen(mark) : 0;
    if (!n)
        return false;
    for (size_t i = part->size; i-- > 0;)
        if (part->size - i >= n && !memcmp(part->text + i, mark, n)) {
            *part = (struct score_part){part->text + i + n, part->size - i - n};
            return true;
        }
    return false;
}

static bool is_dropped(char c)
{
    return c == ',' || c == '$';
}

static void trim(struct score_part *part)
{
    while (part->size && (isspace((unsigned char)*part->text) || is_dropped(*part->text)))
        part->text++, part->size--;
    while (part->size && (isspace((unsigned char)part->text[part->size - 1]) || is_dropped(part->text[part->size - 1])))
        part->size--;
}

struct score_part score_part_of(const char *text, size_t size, const char *prefix)
{
    struct score_part part = {text, size};
    if (!skip_to_last(&part, "#### "))
        skip_to_last(&part, prefix);
    trim(&part);
    if (part.size && part.text[part.size - 1] == '.')
        part.size--;
    trim(&part);
    return part;
}

static void skip_dropped(struct score_part *part)
{
    while (part->size && is_dropped(*part->text))
        part->text++, part->size--;
}

bool score_same(struct score_part a, struct score_part b)
{
    for (;; a.text++, a.size--, b.text++, b.size--) {
        skip_dropped(&a);
        skip_dropped(&b);
        if (!a.size || !b.size)
            return a.size == b.size;
        if (tolower((unsigned char)*a.text) != tolower((unsigned char)*b.text))
            return false;
    }
}

/* ---- Numbers ---------------------------------------------------------------------------------------------------- */

/* A number as it is spelt. Values are compared digit by digit, since doubles cannot tell long ones apart. */
struct number {
    bool negative;
    struct score_part whole, fraction; /* the whole part may hold commas */
};

static bool digit_at(const char *text, size_t size, size_t i)
{
    return i < size && isdigit((unsigned char)text[i]);
}

/* A minus is a sign where nothing that could be subtracted from stands before it; "$" may stand between. */
static bool negative_before(const char *text, size_t i)
{
    while (i && text[i - 1] == '$')
        i--;
    return i && text[i - 1] == '-' && (i == 1 || (!isalnum((unsigned char)text[i - 2]) && text[i - 2] != ')'));
}

/* Takes the number that begins at i; returns where it ends. */
static size_t take_number(const char *text, size_t size, size_t i, struct number *out)
{
    size_t begin = i;
    while (digit_at(text, size, i) || (i > begin && i < size && text[i] == ',' && digit_at(text, size, i + 1)))
        i++;
    *out = (struct number){negative_before(text, begin), {text + begin, i - begin}, {NULL, 0}};
    if (i < size && text[i] == '.' && digit_at(text, size, i + 1)) {
        size_t point = i++;
        while (digit_at(text, size, i))
            i++;
        out->fraction = (struct score_part){text + point + 1, i - point - 1};
    }
    return i;
}

/* A number may begin with its point, but not with that of a date or a version. */
static bool begins_number(const char *text, size_t size, size_t i)
{
    return digit_at(text, size, i) || (text[i] == '.' && digit_at(text, size, i + 1) && !(i && digit_at(text, size, i - 1)));
}

static bool last_number(const char *text, size_t size, struct number *out)
{
    bool found = false;
    for (size_t i = 0; i < size;) {
        if (!begins_number(text, size, i)) {
            i++;
            continue;
        }
        i = take_number(text, size, i, out);
        found = true;
    }
    while (found && out->whole.size && (*out->whole.text == '0' || *out->whole.text == ','))
        out->whole.text++, out->whole.size--;
    while (found && out->fraction.size && out->fraction.text[out->fraction.size - 1] == '0')
        out->fraction.size--;
    return found;
}

static bool same_number(const struct number *a, const struct number *b)
{
    bool zero = !a->whole.size && !a->fraction.size;
    return (a->negative == b->negative || zero) && score_same(a->whole, b->whole) && score_same(a->fraction, b->fraction);
}

/* ---- Scores ----------------------------------------------------------------------------------------------------- */

void score_answer(const char *expected, size_t expected_size, const char *answer, size_t answer_size, enum generate_status status,
                  const char *prefix, struct score *out)
{
    struct number wanted, found;
    bool finished = status == GENERATE_COMPLETE || status == GENERATE_THOUGHT_CUT;
    bool strict = finished && score_same(score_part_of(expected, expected_size, prefix), score_part_of(answer, answer_size, prefix));
    bool by_number = finished && last_number(expected, expected_size, &wanted) && last_number(answer, answer_size, &found) &&
                     same_number(&wanted, &found);
    *out = (struct score){
        .rows = 1,
        .strict = strict,
        .flexible = strict || by_number,
        .no_answer = status == GENERATE_NO_ANSWER,
        .thought_cut = status == GENERATE_THOUGHT_CUT,
        .answer_cut = status == GENERATE_ANSWER_CUT,
        .complete = status == GENERATE_COMPLETE,
        .strict_complete = strict && status == GENERATE_COMPLETE,
    };
}

double score_share(int64_t hits, int64_t n)
{
    return n > 0 ? (double)hits / (double)n : 0;
}

void score_interval(int64_t hits, int64_t n, double *low, double *high)
{
    const double z = 1.959963984540054; /* 97.5 % point of the normal distribution */
    *low = 0;
    *high = 1;
    if (n < 1)
        return;
    double share = score_share(hits, n), count = (double)n, scale = 1 + z * z / count;
    double middle = share + z * z / (2 * count);
    double half = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count));
    if (hits > 0)
        *low = (middle - half) / scale;
    if (hits < n)
        *high = (middle + half) / scale;
}

void score_put(const struct score *s, struct text *out)
{
    double low, high;
    if (!s->rows) {
        text_puts(out, "exact match of no rows: none has an expected answer");
        return;
    }
    score_interval(s->strict, s->rows, &low, &high);
    text_printf(out, "exact match %.1f %% (%lld of %lld, 95 %% interval %.1f-%.1f), flexible %.1f %%, cut %lld, no answer %lld",
                100 * score_share(s->strict, s->rows), (long long)s->strict, (long long)s->rows, 100 * low, 100 * high,
                100 * score_share(s->flexible, s->rows), (long long)(s->thought_cut + s->answer_cut), (long long)s->no_answer);
    if (s->complete)
        text_printf(out, ", of complete ones %.1f %%", 100 * score_share(s->strict_complete, s->complete));
}
