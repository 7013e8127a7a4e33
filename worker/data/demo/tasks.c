/* The tasks: what is asked, which steps are written down, what the answer is.
 * Must not know: splits, files. */
#include <stdio.h>
#include <string.h>

#include "common/rng.h"
#include "worker/data/demo/demo.h"

/* A row of random draws that belongs to one candidate. */
struct dice {
    uint64_t seed, stream, counter;
};

static int roll(struct dice *dice, int bound)
{
    return (int)rng_below(dice->seed, dice->stream, dice->counter++, (uint64_t)bound);
}

/* Running parity of a string of bits; the answer is the parity of all. */
static void make_parity(const struct demo_settings *s, struct dice *dice, struct demo_row *row)
{
    int parity = 0;
    for (int i = 0; i < s->length; i++) {
        int bit = roll(dice, 2);
        parity ^= bit;
        text_printf(&row->question, "%d", bit);
        text_printf(&row->thought, "%d", parity);
    }
    text_printf(&row->answer, "%d", parity);
}

/* The words for one operation: "plus 4", "minus 2", "double", "triple", "times 5". */
static void operation_in_words(char sign, int operand, char *out, size_t size)
{
    if (sign == '*' && operand <= 3)
        snprintf(out, size, "%s", operand == 2 ? "double" : operand == 3 ? "triple" : "keep");
    else
        snprintf(out, size, "%s %d", sign == '+' ? "plus" : sign == '-' ? "minus" : "times", operand);
}

/* A chain of additions, subtractions and multiplications modulo m, taken from left to right; the thought holds the
 * value after each. */
static void make_modchain(const struct demo_settings *s, struct dice *dice, struct demo_row *row)
{
    int value = roll(dice, s->mod);
    if (s->worded) {
        text_printf(&row->question, "Start with %d dose%s", value, value == 1 ? "" : "s");
        text_printf(&row->thought, "%d", value);
    } else {
        text_printf(&row->question, "%d", value);
    }
    for (int i = 0; i < s->ops; i++) {
        char sign = "+-*"[roll(dice, 3)];
        int operand = sign == '*' && s->mod > 2 ? 2 + roll(dice, s->mod - 2) : 1 + roll(dice, s->mod - 1);
        value = sign == '+' ? value + operand : sign == '-' ? value - operand + s->mod : value * operand;
        value %= s->mod;
        if (s->worded) {
            char words[32];
            operation_in_words(sign, operand, words, sizeof words);
            text_printf(&row->question, ", %s", words);
            text_printf(&row->thought, ", %s makes %d", words, value);
        } else {
            text_printf(&row->question, " %c%d", sign, operand);
            text_printf(&row->thought, "%s%d", i ? " " : "", value);
        }
    }
    text_printf(&row->question, s->worded ? ", modulo %d. How many doses?" : " mod %d", s->mod);
    text_printf(&row->answer, "%d", value);
    if (s->worded)
        text_puts(&row->answer, value == 1 ? " dose" : " doses");
}

/* Cups A, B, C ... in a row; pairs of places are exchanged; the thought holds the row after each exchange. */
static void make_cups(const struct demo_settings *s, struct dice *dice, struct demo_row *row)
{
    char cups[32] = {0};
    for (int i = 0; i < s->cups; i++)
        cups[i] = (char)('A' + i);
    text_puts(&row->question, cups);
    for (int i = 0; i < s->swaps; i++) {
        int first = roll(dice, s->cups), second = roll(dice, s->cups - 1);
        second += second >= first;
        int low = first < second ? first : second, high = first < second ? second : first;
        char held = cups[low];
        cups[low] = cups[high];
        cups[high] = held;
        text_printf(&row->question, " %d%d", low + 1, high + 1);
        text_printf(&row->thought, "%s%s", i ? " " : "", cups);
    }
    text_puts(&row->answer, cups);
}

/* A number with its lowest digit first, filled up with zeros to `width` digits. */
static void print_low_first(struct text *out, int64_t value, int width)
{
    for (int i = 0; i < width; i++, value /= 10)
        text_printf(out, "%d", (int)(value % 10));
}

static int64_t roll_number(struct dice *dice, int digits)
{
    int64_t value = 1 + roll(dice, 9);
    for (int i = 1; i < digits; i++)
        value = value * 10 + roll(dice, 10);
    return value;
}

/* Multiplication as on paper, every number with its lowest digit first: the product of the first factor with each digit
 * of the second, shifted, and the sum so far after each: "p0+p1=s1+p2=s2". */
static void make_mult(const struct demo_settings *s, struct dice *dice, struct demo_row *row)
{
    int width = 2 * s->digits;
    int64_t a = roll_number(dice, s->digits), b = roll_number(dice, s->digits);
    print_low_first(&row->question, a, s->digits);
    text_puts(&row->question, "*");
    print_low_first(&row->question, b, s->digits);
    int64_t sum = 0, place = 1, rest = b;
    for (int i = 0; i < s->digits; i++, place *= 10, rest /= 10) {
        int64_t part = a * (rest % 10) * place;
        sum += part;
        if (i)
            text_puts(&row->thought, "+");
        print_low_first(&row->thought, part, width);
        if (i) {
            text_puts(&row->thought, "=");
            print_low_first(&row->thought, sum, width);
        }
    }
    print_low_first(&row->answer, sum, width);
}

enum { LETTERS = 26 };

/* The first `count` of a permutation of 0..n-1; n is at most LETTERS. */
static void shuffle(struct dice *dice, int order[LETTERS], int n, int count)
{
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = 0; i < count; i++) {
        int other = i + roll(dice, n - i), held = order[i];
        order[i] = order[other];
        order[other] = held;
    }
}

/* `kinds` different ones. */
static void put_letters(struct dice *dice, int kinds, int count, struct text *out)
{
    for (int i = 0; i < count; i++) {
        char letter = (char)('a' + roll(dice, kinds));
        text_append(out, &letter, 1);
    }
}

/* Small letters without meaning (one kind is learnt from sooner, many hide the pairs better); among them pairs of a
 * capital and a digit, no capital twice, one pair in each of `pairs` equal stretches, so that they lie at every distance
 * alike. Then a sign and the capitals of some pairs: which digits stood behind them? The thought holds these pairs. The
 * question has `length` characters. */
static void make_recall(const struct demo_settings *s, struct dice *dice, struct demo_row *row)
{
    int body = s->length - 1 - s->queries, places[LETTERS], keys[LETTERS], asked[LETTERS];
    shuffle(dice, keys, LETTERS, s->pairs);
    shuffle(dice, asked, s->pairs, s->queries);
    for (int pair = 0, at = 0; pair < s->pairs; pair++) {
        int begin = (int)((int64_t)body * pair / s->pairs), end = (int)((int64_t)body * (pair + 1) / s->pairs);
        places[pair] = begin + roll(dice, end - begin - 1);
        put_letters(dice, s->letters, places[pair] - at, &row->question);
        text_printf(&row->question, "%c%d", 'A' + keys[pair], roll(dice, 10));
        at = places[pair] + 2;
        if (pair == s->pairs - 1)
            put_letters(dice, s->letters, body - at, &row->question);
    }
    text_puts(&row->question, "?");
    text_puts(&row->columns, "\"distance\": [");
    for (int i = 0; i < s->queries && !row->question.failed; i++) {
        const char *pair = row->question.data + places[asked[i]];
        char key = pair[0], value = pair[1];
        text_printf(&row->thought, "%s%c%c", i ? " " : "", key, value);
        text_append(&row->answer, &value, 1);
        text_printf(&row->columns, "%s%d", i ? ", " : "", body - places[asked[i]]);
        text_append(&row->question, &key, 1);
    }
    text_puts(&row->columns, "]");
}

static enum status check_recall(const struct demo_settings *s, struct error *err)
{
    if (s->queries > s->pairs)
        FAIL(err, STATUS_USAGE, "--queries is %d, but there are only %d pairs to ask for; lower it or raise --pairs", s->queries,
             s->pairs);
    int needed = 1 + s->queries + 4 * s->pairs;
    if (s->length < needed)
        FAIL(err, STATUS_USAGE, "--length is %d; recall with --pairs %d and --queries %d needs at least %d", s->length, s->pairs,
             s->queries, needed);
    return STATUS_OK;
}

enum { LIMITS = 4 };

/* A number that a task takes; `otherwise` where it is not given. */
struct limit {
    const char *name;
    size_t place; /* in struct demo_settings */
    int low, high, otherwise;
};

struct demo_task {
    const char *name;
    void (*make)(const struct demo_settings *settings, struct dice *dice, struct demo_row *row);
    struct limit limits[LIMITS + 1];
    bool has_words;
    enum status (*check)(const struct demo_settings *settings, struct error *err); /* NULL: the limits say all */
};

#define SETTING(member) #member, offsetof(struct demo_settings, member)
static const struct demo_task tasks[] = {
    {"parity", make_parity, {{SETTING(length), 1, 4096, 16}}, false, NULL},
    {"modchain", make_modchain, {{SETTING(ops), 1, 1024, 8}, {SETTING(mod), 2, 1000, 7}}, true, NULL},
    {"cups", make_cups, {{SETTING(swaps), 1, 1024, 4}, {SETTING(cups), 2, 9, 5}}, false, NULL},
    {"mult", make_mult, {{SETTING(digits), 1, 9, 3}}, false, NULL},
    {"recall", make_recall,
     {{SETTING(length), 6, 1 << 20, 256}, {SETTING(pairs), 1, LETTERS, 4}, {SETTING(queries), 1, LETTERS, 4},
      {SETTING(letters), 1, LETTERS, 1}}, false, check_recall},
};
#undef SETTING
enum { TASKS = sizeof tasks / sizeof *tasks };

enum status demo_find(const char *name, const struct demo_task **out, struct error *err)
{
    for (int i = 0; i < TASKS; i++)
        if (!strcmp(tasks[i].name, name)) {
            *out = &tasks[i];
            return STATUS_OK;
        }
    FAIL(err, STATUS_USAGE, "there is no demo task '%s'; the tasks are parity, modchain, cups, mult and recall", name);
}

static int *value_of(const struct limit *limit, struct demo_settings *settings)
{
    return (int *)((char *)settings + limit->place);
}

static bool has_setting(const struct demo_task *task, const struct limit *setting)
{
    for (const struct limit *limit = task->limits; limit->name; limit++)
        if (limit->place == setting->place)
            return true;
    return false;
}

static enum status refuse_foreign(const struct demo_task *task, const struct limit *setting, struct error *err)
{
    char owners[128] = "";
    int count = 0;
    for (const struct demo_task *other = tasks; other < tasks + TASKS; other++)
        if (has_setting(other, setting)) {
            size_t used = strlen(owners);
            snprintf(owners + used, sizeof owners - used, "%s%s", count++ ? " and " : "", other->name);
        }
    FAIL(err, STATUS_USAGE, "--%s: only %s %s it, %s does not", setting->name, owners, count > 1 ? "have" : "has", task->name);
}

/* A setting that was given has a task that uses it. */
static enum status check_foreign(const struct demo_task *task, struct demo_settings *settings, struct error *err)
{
    for (const struct demo_task *other = tasks; other < tasks + TASKS; other++)
        for (const struct limit *limit = other->limits; limit->name; limit++)
            if (*value_of(limit, settings) && !has_setting(task, limit))
                return refuse_foreign(task, limit, err);
    return STATUS_OK;
}

enum status demo_check(const struct demo_task *task, struct demo_settings *settings, struct error *err)
{
    TRY(check_foreign(task, settings, err));
    for (const struct limit *limit = task->limits; limit->name; limit++) {
        int *value = value_of(limit, settings);
        if (!*value)
            *value = limit->otherwise;
        if (*value < limit->low || *value > limit->high)
            FAIL(err, STATUS_USAGE, "--%s is %d; %s takes %d to %d", limit->name, *value, task->name, limit->low, limit->high);
    }
    if (settings->worded && !task->has_words)
        FAIL(err, STATUS_USAGE, "--worded: only modchain has a form in words, %s has none", task->name);
    return task->check ? task->check(settings, err) : STATUS_OK;
}

enum status demo_make(const struct demo_task *task, const struct demo_settings *settings, uint64_t seed, uint64_t number,
                      struct demo_row *out, struct error *err)
{
    struct dice dice = {.seed = seed, .stream = rng_substream(RNG_DATA, number)};
    text_clear(&out->question);
    text_clear(&out->thought);
    text_clear(&out->answer);
    text_clear(&out->columns);
    task->make(settings, &dice, out);
    if (out->question.failed || out->thought.failed || out->answer.failed || out->columns.failed)
        FAIL(err, STATUS_NOMEM, "no memory for a demo row");
    return STATUS_OK;
}

void demo_row_free(struct demo_row *row)
{
    text_free(&row->question);
    text_free(&row->thought);
    text_free(&row->answer);
    text_free(&row->columns);
}
