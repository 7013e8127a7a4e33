/* Rows that are the same, found within and between data sets; rows left out and held out; what stays of the others. */
#include "tests/support/cmocka_all.h"

#include "tests/support/rows_fixture.h"
#include "worker/data/duplicates.h"
#include "worker/data/holdout.h"
#include "worker/data/select.h"

static struct rows_fixture fx;
static struct error err;

static int open_fixture(void **state)
{
    (void)state;
    return rows_fixture_open(&fx, &err) == STATUS_OK ? 0 : (fprintf(stderr, "%s\n", err.text), 1);
}

static int close_fixture(void **state)
{
    (void)state;
    rows_fixture_close(&fx);
    return mem_live() != 0;
}

/* Rows "numbers[i]?" with the number as answer, and a blank line before row `gap`. */
static void load(struct dataset *dataset, const char *name, int count, const int *numbers, int gap)
{
    struct text rows = {0};
    for (int i = 0; i < count; i++)
        text_printf(&rows, "%s{\"question\": \"%d?\", \"thought\": \"of %d\", \"answer\": \"%d\"}\n", i == gap ? "\n" : "", numbers[i],
                    numbers[i], numbers[i]);
    rows_fixture_write(&fx, rows.data, rows.size);
    text_free(&rows);
    fx.spec.name = name;
    assert_ok(dataset_load(dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err), &err);
}

static int number_of(const struct dataset *dataset, int64_t row)
{
    struct row r = dataset_row(dataset, row);
    struct text text = {0};
    for (int i = 0; i < r.n_tokens; i++)
        if (r.spans[i] == SPAN_ANSWER)
            assert_ok(rows_fixture_decode(&fx, r.tokens + i, 1, &text, &err), &err);
    int number = atoi(text.data);
    text_free(&text);
    return number;
}

static void assert_numbers(const struct dataset *dataset, int count, const int *numbers)
{
    assert_int_equal(dataset->rows, count);
    for (int i = 0; i < count; i++)
        assert_int_equal(number_of(dataset, i), numbers[i]);
}

#define NUMBERS(...) (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), (const int[]){__VA_ARGS__}

static void assert_place(const struct dataset *dataset, int64_t row, int line)
{
    char wanted[200];
    struct text place = {0};
    snprintf(wanted, sizeof wanted, "%s:%d", fx.rows, line);
    duplicates_put_place(dataset, row, &place);
    assert_string_equal(place.data, wanted);
    text_free(&place);
}

/* What a part says of its rows is what its rows hold. */
static void assert_counts(const struct dataset *dataset)
{
    int64_t next = 0;
    for (int p = 0; p < dataset->n_parts; p++) {
        const struct dataset_part *part = &dataset->parts[p];
        int64_t tokens = 0, longest = 0;
        assert_int_equal(part->first_row, next);
        next += part->stats.kept;
        for (int64_t i = part->first_row; i < next; i++) {
            struct row row = dataset_row(dataset, i);
            longest = row.n_tokens > longest ? row.n_tokens : longest;
            assert_int_equal(dataset_part_of(dataset, i), p);
            tokens += row.n_tokens;
        }
        for (int span = 0; span < SPAN_COUNT; span++)
            tokens -= part->stats.tokens[span];
        assert_int_equal(tokens, 0);
        assert_int_equal(part->stats.longest, longest);
        assert_int_equal(part->stats.thoughts, part->stats.kept);
        if (part->stats.kept)
            assert_int_equal(dataset_row(dataset, part->stats.longest_row).n_tokens, longest);
    }
    assert_int_equal(next, dataset->rows);
}

static void repeated_rows_are_found_and_left_out(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct duplicates found;
    bool repeats[16];
    load(&dataset, "a", NUMBERS(1, 22, 1, 3), 2);
    load(&dataset, "b", NUMBERS(3, 4, 22, 4, 5), -1);
    assert_ok(duplicates_within(&dataset, repeats, &found, &err), &err);
    assert_int_equal(found.rows, 4);
    assert_int_equal(found.row, 2);
    assert_int_equal(found.like, 0);
    assert_place(&dataset, found.row, 4); /* behind the blank line */
    for (int i = 0; i < 9; i++)
        assert_int_equal(repeats[i], i == 2 || i == 4 || i == 6 || i == 7);
    select_drop_repeated(&dataset, repeats);
    assert_numbers(&dataset, NUMBERS(1, 22, 3, 4, 5));
    assert_int_equal(dataset.parts[0].stats.repeated, 1);
    assert_int_equal(dataset.parts[1].stats.repeated, 3);
    assert_int_equal(dataset.parts[1].stats.read, 5);
    assert_int_equal(dataset.lines[2], 5);
    assert_int_equal(dataset.lines[3], 2);
    assert_counts(&dataset);
    assert_ok(duplicates_within(&dataset, NULL, &found, &err), &err);
    assert_int_equal(found.rows, 0);
    assert_int_equal(found.row, -1);
    dataset_free(&dataset);
}

static void rows_of_both_are_found(void **state)
{
    (void)state;
    struct dataset train = {0}, eval = {0};
    struct duplicates found;
    load(&train, "t", NUMBERS(1, 2, 3, 3, 4), -1);
    load(&eval, "e", NUMBERS(9, 3, 8, 3, 1), 1);
    assert_ok(duplicates_between(&train, &eval, &found, &err), &err);
    assert_int_equal(found.rows, 3);
    assert_int_equal(found.row, 1);
    assert_int_equal(found.like, 2);
    assert_place(&eval, found.row, 3);
    struct dataset none = {0};
    assert_ok(duplicates_between(&none, &eval, &found, &err), &err);
    assert_int_equal(found.rows, 0);
    dataset_free(&train);
    dataset_free(&eval);
}

static void rows_that_only_begin_alike_are_not_the_same(void **state)
{
    (void)state;
    int32_t tokens[] = {1, 2, 3, 1, 2, 4, 1, 2};
    int64_t starts[] = {0, 3, 6, 8};
    uint8_t spans[8] = {0};
    struct dataset_part part = {0};
    struct dataset dataset = {.rows = 3, .starts = starts, .tokens = tokens, .spans = spans, .weights = (float[]){1, 1, 1},
                              .parts = &part, .n_parts = 1};
    struct duplicates found;
    assert_ok(duplicates_within(&dataset, NULL, &found, &err), &err);
    assert_int_equal(found.rows, 0);
    tokens[5] = 3;
    assert_ok(duplicates_within(&dataset, NULL, &found, &err), &err);
    assert_int_equal(found.rows, 1);
}

/* The choice of `count` numbers from `first` on, loaded in steps of `stride`. */
static int chosen_of(double size, int first, int count, int stride, bool *by_number)
{
    struct dataset dataset = {0};
    int numbers[400];
    bool *chosen = test_calloc(400, sizeof *chosen);
    int held = 0;
    for (int i = 0; i < count; i++)
        numbers[i] = first + i * stride % count;
    load(&dataset, "a", count, numbers, -1);
    assert_ok(holdout_choose(&dataset, size, chosen, &err), &err);
    for (int i = 0; i < count; i++) {
        by_number[numbers[i]] = chosen[i];
        held += chosen[i];
    }
    test_free(chosen);
    dataset_free(&dataset);
    return held;
}

static void the_same_rows_are_always_held_out(void **state)
{
    (void)state;
    bool one[400] = {0}, other[400] = {0}, more[400] = {0};
    assert_int_equal(chosen_of(0.1, 0, 200, 1, one), 20);
    assert_int_equal(chosen_of(20, 0, 200, 77, other), 20); /* another order, given as a number */
    assert_memory_equal(one, other, sizeof one);
    chosen_of(0.1, 0, 220, 1, more); /* more rows: nearly the same choice */
    int moved = 0;
    for (int i = 0; i < 200; i++)
        moved += one[i] != more[i];
    assert_true(moved <= 6);
    assert_int_equal(chosen_of(1e-9, 0, 50, 1, one), 1); /* at least one */
}

static void held_out_rows_are_evaluated(void **state)
{
    (void)state;
    struct dataset train = {0}, eval = {0};
    load(&train, "a", NUMBERS(10, 11, 12, 13, 14), -1);
    load(&train, "b", NUMBERS(20, 21), -1);
    load(&train, "c", NUMBERS(30, 31, 32), -1);
    bool out[] = {1, 0, 1, 1, 0, 0, 0, 0, 1, 0};
    assert_ok(dataset_name_tasks(&eval, train.tasks, train.n_tasks, &err), &err);
    assert_ok(select_hold_out(&train, out, 2, &eval, &err), &err);
    assert_numbers(&train, NUMBERS(11, 14, 20, 21, 30, 32));
    assert_numbers(&eval, NUMBERS(10, 12, 31));
    assert_int_equal(eval.n_parts, 2); /* b gave nothing */
    assert_string_equal(eval.parts[0].name, "a");
    assert_string_equal(eval.parts[1].name, "c");
    assert_int_equal(eval.parts[1].task, 2);
    assert_int_equal(train.parts[0].stats.held_out, 3); /* one is over the limit and in neither */
    assert_int_equal(train.parts[2].stats.held_out, 1);
    assert_int_equal(dataset_row(&eval, 2).task, 2);
    assert_counts(&train);
    assert_counts(&eval);
    assert_place(&eval, 2, 2);
    dataset_free(&train);
    dataset_free(&eval);
}

static void twins_stay_together_and_training_keeps_rows(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    bool chosen[8];
    load(&dataset, "a", NUMBERS(1, 2, 1, 2, 1, 2), -1);
    assert_ok(holdout_choose(&dataset, 1, chosen, &err), &err);
    for (int i = 2; i < 6; i++)
        assert_int_equal(chosen[i], chosen[i - 2]);
    assert_int_equal(chosen[0] + chosen[1], 1);
    assert_refused(holdout_choose(&dataset, 6, chosen, &err), STATUS_DATA, &err, "val_size: 6 holds out all 6 rows");
    assert_refused(holdout_choose(&dataset, 4, chosen, &err), STATUS_DATA, &err, "no row is left");
    dataset_free(&dataset);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct dataset train = {0}, eval = {0};
        struct duplicates found;
        bool out[4] = {0}, marks[4];
        load(&train, "a", NUMBERS(1, 2, 3, 3), -1);
        assert_ok(dataset_name_tasks(&eval, train.tasks, train.n_tasks, &err), &err);
        out[1] = true;
        mem_fail_after(n, false);
        enum status st = duplicates_within(&train, marks, &found, &err);
        st = st == STATUS_OK ? duplicates_between(&train, &train, &found, &err) : st;
        st = st == STATUS_OK ? holdout_choose(&train, 1, marks, &err) : st;
        st = st == STATUS_OK ? select_hold_out(&train, out, -1, &eval, &err) : st;
        mem_fail_after(-1, false);
        if (st != STATUS_OK) {
            assert_int_equal(st, STATUS_NOMEM);
            assert_numbers(&train, NUMBERS(1, 2, 3, 3));
            assert_int_equal(eval.rows + eval.n_parts, 0);
        }
        dataset_free(&train);
        dataset_free(&eval);
        if (st == STATUS_OK)
            break;
        assert_true(n < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repeated_rows_are_found_and_left_out), cmocka_unit_test(rows_of_both_are_found),
        cmocka_unit_test(rows_that_only_begin_alike_are_not_the_same), cmocka_unit_test(the_same_rows_are_always_held_out),
        cmocka_unit_test(held_out_rows_are_evaluated), cmocka_unit_test(twins_stay_together_and_training_keeps_rows),
        cmocka_unit_test(memory_may_run_out)};
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
