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

struct limit {
    const char *name;
    size_t place; /* in struct demo_settings */
    int low, high;
};

struct demo_task {
    const char *name;
    void (*make)(const struct demo_settings *settings, struct dice *dice, struct demo_row *row);
    struct limit limits[2];
    bool has_words;
};

#define SETTING(member) #member, offsetof(struct demo_settings, member)
static const struct demo_task tasks[] = {
    {"parity", make_parity, {{SETTING(length), 1, 4096}}, false},
    {"modchain", make_modchain, {{SETTING(ops), 1, 1024}, {SETTING(mod), 2, 1000}}, true},
    {"cups", make_cups, {{SETTING(swaps), 1, 1024}, {SETTING(cups), 2, 9}}, false},
    {"mult", make_mult, {{SETTING(digits), 1, 9}}, false},
};
#undef SETTING
enum { TASKS = sizeof tasks / sizeof *tasks };

struct demo_settings demo_defaults(void)
{
    return (struct demo_settings){.length = 16, .ops = 8, .mod = 7, .swaps = 4, .cups = 5, .digits = 3};
}

enum status demo_find(const char *name, const struct demo_task **out, struct error *err)
{
    for (int i = 0; i < TASKS; i++)
        if (!strcmp(tasks[i].name, name)) {
            *out = &tasks[i];
            return STATUS_OK;
        }
    FAIL(err, STATUS_USAGE, "there is no demo task '%s'; the tasks are parity, modchain, cups and mult", name);
}

static int value_of(const struct limit *limit, const struct demo_settings *settings)
{
    int value;
    memcpy(&value, (const char *)settings + limit->place, sizeof value);
    return value;
}

/* A setting that was changed has a task that uses it. */
static enum status check_foreign(const struct demo_task *task, const struct demo_settings *settings, struct error *err)
{
    struct demo_settings defaults = demo_defaults();
    for (const struct demo_task *other = tasks; other < tasks + TASKS; other++)
        for (const struct limit *limit = other->limits; limit < other->limits + 2 && limit->name; limit++)
            if (other != task && value_of(limit, settings) != value_of(limit, &defaults))
                FAIL(err, STATUS_USAGE, "--%s: only %s has it, %s does not", limit->name, other->name, task->name);
    return STATUS_OK;
}

enum status demo_check(const struct demo_task *task, const struct demo_settings *settings, struct error *err)
{
    TRY(check_foreign(task, settings, err));
    for (const struct limit *limit = task->limits; limit < task->limits + 2 && limit->name; limit++) {
        int value = value_of(limit, settings);
        if (value < limit->low || value > limit->high)
            FAIL(err, STATUS_USAGE, "--%s is %d; %s takes %d to %d", limit->name, value, task->name, limit->low, limit->high);
    }
    if (settings->worded && !task->has_words)
        FAIL(err, STATUS_USAGE, "--worded: only modchain has a form in words, %s has none", task->name);
    return STATUS_OK;
}

enum status demo_make(const struct demo_task *task, const struct demo_settings *settings, uint64_t seed, uint64_t number,
                      struct demo_row *out, struct error *err)
{
    struct dice dice = {.seed = seed, .stream = rng_substream(RNG_DATA, number)};
    text_clear(&out->question);
    text_clear(&out->thought);
    text_clear(&out->answer);
    task->make(settings, &dice, out);
    if (out->question.failed || out->thought.failed || out->answer.failed)
        FAIL(err, STATUS_NOMEM, "no memory for a demo row");
    return STATUS_OK;
}

void demo_row_free(struct demo_row *row)
{
    text_free(&row->question);
    text_free(&row->thought);
    text_free(&row->answer);
}
