/* What holds across the sets of a run: labels of tasks, one numbering of tasks and rows, slots that cover all rows, and that the
 * number of threads changes nothing. */
#include "tests/support/cmocka_all.h"

#include "tests/support/dataset_fixture.h"
#include "worker/data/row_names.h"

static const char moods[] = "{\"text\": \"fine\", \"label\": \"pos\"}\n{\"text\": \"<think>\", \"label\": \"neg\", \"weight\": 2}\n"
                            "{\"text\": \"so so\", \"label\": \"neu\"}\n{\"text\": \"great\", \"label\": \"pos\"}\n";

static struct row_class class_of(const struct dataset *dataset, int64_t row)
{
    return dataset_row(dataset, row).class;
}

/* Two tasks, one with names in the order given, one with numbers found in its rows, and text between them. */
static void rows_get_their_places_among_labels(void **state)
{
    (void)state;
    struct dataset dataset = {0}, eval = {0};
    struct labels given = {0}, labels = {0};
    fx.spec.classify = true;
    fx.spec.name = "mood";
    fx.spec.loss_weight = 0.5;
    assert_ok(labels_add(&given, "mood", (char *[]){"pos", "neg", "neu"}, 3, true, &err), &err);
    fx.spec.labels = &given.sets[0];
    assert_ok(load(&dataset, moods), &err);
    fx.spec.classify = false;
    fx.spec.name = "talk";
    fx.spec.labels = NULL;
    assert_ok(load(&dataset, two_rows), &err);
    fx.spec.classify = true;
    fx.spec.name = "stars";
    assert_ok(load(&dataset, "{\"text\": \"a\", \"label\": 10}\n{\"text\": \"b\", \"label\": 9}\n{\"text\": \"c\", \"label\": 10}\n"), &err);
    assert_int_equal(class_of(&dataset, 0).count, 0); /* before the labels are known */

    assert_ok(dataset_collect_labels(&dataset, &given, &labels, &err), &err);
    assert_ok(dataset_use_labels(&dataset, &labels, &err), &err);
    assert_true(labels.count == 2 && labels.total == 5 && labels.sets[1].first == 3);
    assert_string_equal(labels.sets[1].names[0], "9"); /* numbers by value */
    const struct row_class wanted[] = {{0, 3, 0}, {0, 3, 1}, {0, 3, 2}, {0, 3, 0}, {0, 0, 0}, {0, 0, 0}, {3, 2, 1}, {3, 2, 0}, {3, 2, 1}};
    for (int i = 0; i < 9; i++) {
        struct row_class found = class_of(&dataset, i);
        assert_memory_equal(&found, &wanted[i], sizeof found);
    }
    struct row row = dataset_row(&dataset, 1);
    assert_true(row.weight == 1 && row.n_tokens > 1); /* twice a half */
    char *text = decode(row.tokens, (size_t)row.n_tokens);
    assert_non_null(strstr(text, "<think>"));
    assert_null(strstr(text, "neg")); /* no template round it, and not the answer */
    free(text);
    for (int i = 0; i < row.n_tokens; i++)
        assert_int_equal(row.spans[i], SPAN_PROMPT);

    fx.spec.name = "stars";
    fx.spec.labels = labels_find(&labels, "stars");
    assert_refused(load(&eval, "{\"text\": \"a\", \"label\": 10}\n{\"text\": \"b\", \"label\": 11}\n"), STATUS_DATA, &err,
                   "rows.jsonl:2: 'label' is '11', which is none of the 2 labels of task 'stars': 9, 10");
    fx.spec.labels = NULL;
    assert_ok(load(&eval, "{\"text\": \"b\", \"label\": 11}\n"), &err);
    assert_refused(dataset_use_labels(&eval, &labels, &err), STATUS_DATA, &err, "label '11', which is not among the 2 of task 'stars'");
    rows_fixture_reset(&fx);
    labels_free(&given);
    labels_free(&labels);
    dataset_free(&dataset);
    dataset_free(&eval);
}

static void labels_that_cannot_be_told_apart_are_refused(void **state)
{
    (void)state;
    struct dataset dataset = {0}, eval = {0};
    struct labels none = {0}, labels = {0};
    fx.spec.classify = true;
    assert_refused(load(&dataset, two_rows), STATUS_DATA, &err, "format classification needs the columns text, label");
    fx.spec.format = "qa-cot";
    assert_refused(load(&dataset, two_rows), STATUS_USAGE, &err, "task_type seq_cls needs rows with a text and a label");
    fx.spec.format = NULL;
    assert_ok(load(&dataset, "{\"text\": \"a\", \"label\": \"x\"}\n"), &err);
    assert_refused(dataset_collect_labels(&dataset, &none, &labels, &err), STATUS_USAGE, &err, "the task 'set' has 1 label; a classification");
    assert_ok(labels_add_numbers(&labels, "one", 2, &err), &err);
    assert_ok(labels_add_numbers(&labels, "two", 2, &err), &err);
    assert_refused(dataset_use_labels(&dataset, &labels, &err), STATUS_USAGE, &err, "no data set of training has a class for the task 'set'");
    assert_refused(labels_add(&labels, "t", (char *[]){"a", "b", "a"}, 3, false, &err), STATUS_USAGE, &err, "hold 'a' twice");
    assert_refused(labels_add(&labels, "t", (char *[]){"a", ""}, 2, false, &err), STATUS_USAGE, &err, "(an empty text)");
    assert_refused(labels_add_numbers(&labels, "t", 100000, &err), STATUS_USAGE, &err, "more than 65536");
    rows_fixture_reset(&fx);
    labels_free(&labels);
    dataset_free(&dataset);
    dataset_free(&eval);
}

static void several_sets_share_one_numbering(void **state)
{
    (void)state;
    struct dataset train = {0}, eval = {0};
    fx.spec.name = NULL; /* from the file's name */
    assert_ok(load(&train, two_rows), &err);
    fx.spec.name = "second";
    fx.spec.task = "sums";
    assert_ok(load(&train, two_rows), &err);
    fx.spec.name = "third";
    assert_ok(load(&train, two_rows), &err);
    assert_string_equal(train.parts[0].name, "rows");
    assert_int_equal(train.n_tasks, 2);
    assert_string_equal(train.tasks[0], "rows");
    assert_string_equal(train.tasks[1], "sums");
    const int tasks[] = {0, 0, 1, 1, 1, 1};
    for (int i = 0; i < 6; i++)
        assert_int_equal(dataset_row(&train, i).task, tasks[i]);
    assert_int_equal(train.parts[2].first_row, 4);
    assert_ok(dataset_name_tasks(&eval, train.tasks, train.n_tasks, &err), &err);
    assert_ok(load(&eval, two_rows), &err);
    assert_int_equal(dataset_row(&eval, 0).task, 1);
    rows_fixture_reset(&fx);
    dataset_free(&train);
    dataset_free(&eval);
}

/* All slots of an epoch together hold every row once, and a slot's batch is what order says. */
static void slots_cover_the_data(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct text rows = {0};
    rows_with_bad_ones(53, 0, &rows);
    assert_ok(load(&dataset, rows.data), &err);
    struct order order;
    struct batch batch = {0};
    assert_ok(order_create(1, dataset.rows, 4, 3, true, &order, &err), &err);
    int64_t tokens = 0, sequences = 0, empty = 0;
    for (int64_t step = 0; step < order_steps_per_epoch(&order); step++)
        for (int slot = 0; slot < 4; slot++) {
            assert_ok(dataset_slot_batch(&dataset, &order, step, slot, fx.rules.span_weights, &batch, &err), &err);
            uint32_t taken[3];
            int n = order_slot(&order, step, slot, taken);
            assert_int_equal(batch.n_sequences, n);
            for (int i = 0; i < n; i++) {
                struct row row = dataset_row(&dataset, taken[i]);
                assert_int_equal(batch.starts[i + 1] - batch.starts[i], row.n_tokens);
                assert_memory_equal(batch.tokens + batch.starts[i], row.tokens, (size_t)row.n_tokens * sizeof *row.tokens);
            }
            tokens += batch.n_tokens;
            sequences += batch.n_sequences;
            empty += batch.n_sequences == 0;
        }
    /* The rows of a slot by name. */
    struct text names = {0}, wanted = {0};
    uint32_t taken[3];
    order_slot(&order, 4, 1, taken);
    row_names_of_slot(&dataset, &order, 4, 1, &names);
    text_printf(&wanted, "%s:%u, %s:%u", dataset.parts[0].path, taken[0] + 1, dataset.parts[0].path, taken[1] + 1);
    assert_string_equal(names.data, wanted.data);
    text_clear(&names);
    row_names_of_slot(&dataset, &order, 4, 3, &names); /* holds none */
    row_names_of_batch(&dataset, &dataset.parts[0], 10, 5, &names); /* the last three */
    text_clear(&wanted);
    for (int i = 51; i <= 53; i++)
        text_printf(&wanted, "%s%s:%d", i > 51 ? ", " : "", dataset.parts[0].path, i);
    assert_string_equal(names.data, wanted.data);
    text_clear(&names);
    row_names_of_batch(&dataset, &dataset.parts[0], 20, 0, &names);
    assert_non_null(strstr(names.data, ":12 and 8 more"));
    text_free(&names);
    text_free(&wanted);
    assert_int_equal(sequences, 53);
    assert_int_equal(tokens, dataset.starts[53]);
    assert_int_equal(empty, 2); /* 53 = 4 * 12 + 5: the last step fills two slots */
    order_free(&order);
    tokens = 0;
    assert_int_equal(dataset_eval_batches(&dataset.parts[0], 10), 6);
    for (int64_t i = 5; i >= 0; i--) {
        assert_ok(dataset_eval_batch(&dataset, &dataset.parts[0], 10, i, fx.rules.span_weights, &batch, &err), &err);
        assert_int_equal(batch.n_sequences, i == 5 ? 3 : 10);
        tokens += batch.n_tokens;
    }
    assert_int_equal(tokens, dataset.starts[53]);
    text_free(&rows);
    batch_free(&batch);
    dataset_free(&dataset);
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    struct dataset one = {0}, three = {0};
    struct text rows = {0};
    rows_with_bad_ones(2500, 40, &rows);
    rows_fixture_write(&fx, rows.data, rows.size);
    fx.rules.strict = false;
    struct threads *pool;
    assert_ok(threads_create(3, &pool, &err), &err);
    assert_ok(dataset_load(&one, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err), &err);
    assert_ok(dataset_load(&three, &fx.spec, &fx.rules, fx.tokenizer, pool, &err), &err);
    threads_free(pool);
    assert_int_equal(one.rows, 2460);
    assert_int_equal(three.rows, one.rows);
    assert_memory_equal(one.starts, three.starts, (size_t)(one.rows + 1) * sizeof *one.starts);
    assert_memory_equal(one.tokens, three.tokens, (size_t)one.starts[one.rows] * sizeof *one.tokens);
    assert_memory_equal(one.spans, three.spans, (size_t)one.starts[one.rows]);
    assert_memory_equal(&one.parts[0].stats, &three.parts[0].stats, sizeof one.parts[0].stats);
    assert_string_equal(one.parts[0].problems, three.parts[0].problems);
    fx.spec.max_samples = 100;
    struct dataset few = {0};
    assert_ok(dataset_load(&few, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err), &err);
    assert_int_equal(few.parts[0].stats.read, 100);
    assert_int_equal(few.rows + few.parts[0].stats.skipped, 100);
    assert_memory_equal(one.tokens, few.tokens, (size_t)few.starts[few.rows] * sizeof *few.tokens);
    rows_fixture_reset(&fx);
    text_free(&rows);
    dataset_free(&one);
    dataset_free(&three);
    dataset_free(&few);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_get_their_places_among_labels),
        cmocka_unit_test(labels_that_cannot_be_told_apart_are_refused),
        cmocka_unit_test(several_sets_share_one_numbering),
        cmocka_unit_test(slots_cover_the_data),
        cmocka_unit_test(threads_do_not_matter),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
