/* Accuracy and macro F1 from counts, and how an evaluation prints them. */
#include <math.h>
#include <string.h>

#include "common/memory.h"
#include "launch/class_scores.h"
#include "launch/scores.h"
#include "tests/support/cmocka_all.h"

/* Rows of true and chosen labels: 0 0, 0 1, 1 1, 1 1, 2 0; label 3 is never seen at first. */
static void scores_are_those_of_the_textbook(void **state)
{
    (void)state;
    struct class_count counts[4] = {{2, 2, 1}, {2, 3, 2}, {1, 0, 0}, {0, 0, 0}};
    struct class_scores s = class_scores_of(counts, 4);
    assert_int_equal(s.rows, 5);
    assert_true(fabs(s.accuracy - 3.0 / 5) < 1e-15);
    assert_true(fabs(s.macro_f1 - (2.0 * 1 / 4 + 2.0 * 2 / 5 + 0) / 3) < 1e-15); /* the label that nobody has is left out */
    counts[3].chosen = 1;
    counts[2].rows = 2;
    assert_true(fabs(class_scores_of(counts, 4).macro_f1 - (0.5 + 0.8) / 4) < 1e-15); /* one that is only chosen is not */
    memset(counts, 0, sizeof counts);
    s = class_scores_of(counts, 4);
    assert_true(isnan(s.accuracy) && isnan(s.macro_f1) && s.rows == 0);
}

static void counters_keep_classes_behind_routing(void **state)
{
    (void)state;
    struct error err;
    struct counters c;
    assert_ok(counters_create(2, 3, 4, 5, &c, &err), &err);
    counters_add_class(&c, 1, 1);
    counters_add_class(&c, 1, 4);
    const struct class_count *found = counters_classes(&c);
    assert_int_equal((const int64_t *)(found + 5) - c.items, c.count);
    assert_true(found[1].rows == 2 && found[1].chosen == 1 && found[1].right == 1 && found[4].chosen == 1 && found[4].rows == 0);

    struct report_extra extra = {0};
    struct dataset_part set = {.name = (char *)(uintptr_t)"held", .classify = true, .classes_first = 1, .classes_count = 2};
    class_scores_put(&c, &set, c.items, c.count, &extra);
    assert_string_equal(extra.json.data, "\"eval_held_f1\": 0.6666666666666666");
    assert_string_equal(extra.words.data, " macro F1 0.6667 over 2 labels");
    report_extra_free(&extra);
    extra = (struct report_extra){0};
    class_scores_put(&c, &set, c.items, c.count - 1, &extra); /* counters of another shape */
    set.classes_count = 0;                                   /* a set of text */
    class_scores_put(&c, &set, c.items, c.count, &extra);
    assert_true(extra.json.size == 0 && extra.words.size == 0);
    counters_free(&c);
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(scores_are_those_of_the_textbook),
                                       cmocka_unit_test(counters_keep_classes_behind_routing)};
    return cmocka_run_group_tests_name("class_scores", tests, NULL, NULL);
}
