/* Scoring rules: what strict comparison forgives, which number counts, intervals, sums. */
#include "tests/support/cmocka_all.h"

#include <math.h>

#include "worker/infer/score.h"

static struct score scored(const char *expected, const char *answer, const char *prefix, enum generate_status status)
{
    struct score s;
    score_answer(expected, strlen(expected), answer, strlen(answer), status, prefix, &s);
    assert_int_equal(s.rows, 1);
    return s;
}

/* 's': strict (and flexible), 'f': flexible alone, '-': wrong. */
static char verdict(const char *expected, const char *answer, const char *prefix)
{
    struct score s = scored(expected, answer, prefix, GENERATE_COMPLETE);
    assert_true(s.flexible >= s.strict);
    return s.strict ? 's' : s.flexible ? 'f' : '-';
}

static void answers_are_compared_by_the_rules(void **state)
{
    (void)state;
    const struct {
        const char *expected, *answer, *prefix;
        char verdict;
    } cases[] = {
        {"42", "42", NULL, 's'},
        {"42", " 42.\n", "", 's'},
        {"42", "#### 42", NULL, 's'},
        {"42", "because 6 * 7 is\n#### 42", NULL, 's'},
        {"#### 42", "42", NULL, 's'},
        {"42", "#### 41 #### 42", NULL, 's'},
        {"1234", "$1,234.", NULL, 's'},
        {"$1,234", "1234", NULL, 's'},
        {"$ 5", "5 $", NULL, 's'},
        {"Paris", "PARIS.", NULL, 's'},
        {"Paris", "It is Paris", NULL, '-'},
        {"Paris", "The answer is Paris", "The answer is ", 's'},
        {"The answer is Paris", "Paris", "The answer is ", 's'},
        {"Paris", "The answer is Paris", "Answer: ", '-'},
        {"a b", "a  b", NULL, '-'},
        {"yes..", "yes.", NULL, '-'},
        {"", "", NULL, 's'},
        {"42", "", NULL, '-'},
        {"42", "It is 42, I think", NULL, 'f'},
        {"42", "first 41, then 42", NULL, 'f'},
        {"42", "first 42, then 41", NULL, '-'},
        {"42", "42 of 50", NULL, '-'},
        {"about 42 mg", "42", NULL, 'f'},
        {"1,234", "it costs $1234.00 in all", NULL, 'f'},
        {"0.5", "half, .50", NULL, 'f'},
        {"007", "number 7.", NULL, 'f'},
        {"0", "-0.0 it is", NULL, 'f'},
        {"-5", "so -5 remains", NULL, 'f'},
        {"-5", "so -$5 remains", NULL, 'f'},
        {"-5", "so $-5 remains", NULL, 'f'},
        {"5", "so -5 remains", NULL, '-'},
        {"5", "10-5", NULL, 'f'},
        {"5", "(3)-5 remains", NULL, 'f'},
        {"15", "1 5", NULL, '-'},
        {"3", "1, 2, 3", NULL, 'f'},
        {"12345678901234567890123", "x 12345678901234567890123", NULL, 'f'},
        {"12345678901234567890123", "x 12345678901234567890124", NULL, '-'},
        {"1.10", "is 1.1", NULL, 'f'},
        {"110", "is 1.10", NULL, '-'},
        {"3", "1.2.3", NULL, 'f'},
        {"B12", "vitamin B12", NULL, 'f'},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char found = verdict(cases[i].expected, cases[i].answer, cases[i].prefix);
        if (found != cases[i].verdict)
            print_error("'%s' against '%s': %c\n", cases[i].answer, cases[i].expected, found);
        assert_int_equal(found, cases[i].verdict);
    }
}

static void texts_may_hold_any_byte(void **state)
{
    (void)state;
    struct score s;
    score_answer("a\0b", 3, "A\0B", 3, GENERATE_COMPLETE, NULL, &s);
    assert_int_equal(s.strict, 1);
    score_answer("a\0b", 3, "a\0c", 3, GENERATE_COMPLETE, NULL, &s);
    assert_int_equal(s.strict, 0);
    score_answer("\xFF\x80", 2, "\xFF\x80 ", 3, GENERATE_COMPLETE, NULL, &s);
    assert_int_equal(s.strict, 1);
    score_answer("7", 1, NULL, 0, GENERATE_NO_ANSWER, NULL, &s);
    assert_int_equal(s.strict, 0);
}

static void only_finished_answers_are_right(void **state)
{
    (void)state;
    struct score s = scored("7", "7", NULL, GENERATE_COMPLETE);
    assert_memory_equal(&s, &((struct score){.rows = 1, .strict = 1, .flexible = 1, .complete = 1, .strict_complete = 1}), sizeof s);
    s = scored("7", "7", NULL, GENERATE_ANSWER_CUT);
    assert_memory_equal(&s, &((struct score){.rows = 1, .answer_cut = 1}), sizeof s);
    s = scored("7", "7", NULL, GENERATE_THOUGHT_CUT);
    assert_memory_equal(&s, &((struct score){.rows = 1, .strict = 1, .flexible = 1, .thought_cut = 1}), sizeof s);
    s = scored("", " ", NULL, GENERATE_NO_ANSWER); /* nothing is not the right nothing */
    assert_memory_equal(&s, &((struct score){.rows = 1, .no_answer = 1}), sizeof s);
}

static void intervals_are_wilsons(void **state)
{
    (void)state;
    const struct {
        int64_t hits, n;
        double low, high;
    } cases[] = {
        /* Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3. */
        {81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0, 0.1611}, {1, 29, 0.0061, 0.1718},
        {20, 20, 0.8389, 1},       {0, 0, 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double low, high;
        score_interval(cases[i].hits, cases[i].n, &low, &high);
        assert_true(fabs(low - cases[i].low) < 5e-5 && fabs(high - cases[i].high) < 5e-5);
    }
}

static void scores_add_up_and_are_told(void **state)
{
    (void)state;
    struct score sum = {0};
    struct text line = {0};
    score_put(&sum, &line);
    assert_string_equal(line.data, "exact match of no rows: none has an expected answer");
    const struct {
        const char *answer;
        enum generate_status status;
        int times;
    } rows[] = {{"7", GENERATE_COMPLETE, 119}, {"7", GENERATE_THOUGHT_CUT, 1}, {"so 7", GENERATE_COMPLETE, 1},
                {"6", GENERATE_COMPLETE, 4},   {"7", GENERATE_ANSWER_CUT, 2},  {"", GENERATE_NO_ANSWER, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int k = 0; k < rows[i].times; k++) {
            struct score s = scored("7", rows[i].answer, NULL, rows[i].status);
            score_add(&sum, &s);
        }
    assert_memory_equal(&sum, &((struct score){128, 120, 121, 1, 1, 2, 124, 119}), sizeof sum);
    text_clear(&line);
    score_put(&sum, &line);
    assert_string_equal(line.data, "exact match 93.8 % (120 of 128, 95 % interval 88.2-96.8), flexible 94.5 %, cut 3, no answer 1, "
                                   "of complete ones 96.0 %");
    text_clear(&line);
    score_put(&(struct score){.rows = 2, .no_answer = 2}, &line);
    assert_string_equal(line.data, "exact match 0.0 % (0 of 2, 95 % interval 0.0-65.8), flexible 0.0 %, cut 0, no answer 2");
    text_free(&line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_compared_by_the_rules), cmocka_unit_test(texts_may_hold_any_byte),
        cmocka_unit_test(only_finished_answers_are_right),   cmocka_unit_test(intervals_are_wilsons),
        cmocka_unit_test(scores_add_up_and_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
