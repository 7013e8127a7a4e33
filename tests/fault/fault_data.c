/* Loading rows and making batches while memory runs out: whichever allocation fails, there is an error, nothing leaks,
 * and the data set holds what it held before. */
#include "tests/support/cmocka_all.h"

#include "tests/support/rows_fixture.h"

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

static const char rows[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"<think>a long thought that "
    "must be cut to fit</think>A\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": [\"Q\"]}, {\"role\": \"assistant\", \"content\": \"A\", \"weight\": 2}, {\"role\": "
    "\"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"B\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\", \"mask\": true}]}\n"
    "{\"messages\": []}\n"
    "{broken\n";

static void assert_unchanged(const struct dataset *dataset)
{
    assert_int_equal(dataset->rows, 3);
    assert_int_equal(dataset->n_parts, 1);
    struct row row = dataset_row(dataset, 0);
    assert_int_equal(row.spans[row.n_tokens - 1], SPAN_END);
}

/* A tokenizer keeps the working memory of its threads; a new one has none yet, so asking for it can fail too. */
static void renew_tokenizer(void)
{
    tokenizer_free(fx.tokenizer);
    assert_ok(tokenizer_load(fx.folder, &fx.tokenizer, &err), &err);
}

/* A second load of the rows behind the first, and a batch, with the n-th allocation failing. */
static enum status attempt(struct dataset *dataset, long n, bool persistent, bool strict)
{
    struct batch batch = {0};
    struct order order = {0};
    fx.rules.strict = false;
    assert_ok(dataset_load(dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err), &err);
    assert_int_equal(dataset->parts[0].stats.shortened, 1);
    fx.rules.strict = strict;
    renew_tokenizer();
    long live = mem_live();
    mem_fail_after(n, persistent);
    enum status st = order_create(1, dataset->rows, 1, 2, true, &order, &err);
    if (st == STATUS_OK)
        st = dataset_slot_batch(dataset, &order, 0, 0, fx.rules.span_weights, &batch, &err);
    order_free(&order);
    batch_free(&batch);
    assert_true(mem_live() == live);
    if (st == STATUS_OK)
        st = dataset_load(dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err);
    mem_fail_after(-1, false);
    return st;
}

/* An arena may do without memory it only keeps in reserve, so one success does not mean that all places were tried. */
static void load_with_faults(bool persistent, bool strict)
{
    enum { QUIET = 20 };
    fx.rules.max_length = 40;
    fx.rules.truncation = TRUNCATION_THOUGHT;
    fx.rules.cot_prompt = "Think.";
    rows_fixture_write(&fx, rows, strlen(rows));
    renew_tokenizer();
    long failures = 0, live = mem_live();
    int successes = 0;
    for (long n = 0; successes < QUIET; n++) {
        struct dataset dataset = {0};
        enum status st = attempt(&dataset, n, persistent, strict);
        successes = st == STATUS_NOMEM ? 0 : successes + 1;
        failures += st == STATUS_NOMEM;
        if (st == STATUS_NOMEM)
            assert_true(err.text[0]);
        else if (strict)
            assert_non_null(strstr(err.text, "2 bad rows of 6"));
        else
            assert_int_equal(dataset.parts[1].stats.skipped, 2);
        if (st == STATUS_OK) {
            assert_int_equal(dataset.rows, 6);
            assert_int_equal(dataset.parts[1].stats.masked, 1);
            assert_int_equal(dataset.stretches.n_places, 2);
        } else {
            assert_unchanged(&dataset);
        }
        dataset_free(&dataset);
        renew_tokenizer();
        assert_true(mem_live() == live);
        assert_true(n < 5000);
    }
    assert_true(failures > 30);
    rows_fixture_reset(&fx);
}

/* Rows with a class, and their labels. */
static void labels_with_faults(void **state)
{
    (void)state;
    static const char moods[] = "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": 7}\n{\"text\": \"c\", \"label\": \"x\"}\n";
    rows_fixture_write(&fx, moods, strlen(moods));
    fx.spec.classify = true;
    renew_tokenizer();
    long live = mem_live(), failures = 0;
    int successes = 0;
    for (long n = 0; successes < 20; n++) {
        struct dataset dataset = {0};
        struct labels none = {0}, labels = {0};
        renew_tokenizer();
        mem_fail_after(n, false);
        enum status st = dataset_load(&dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err);
        if (st == STATUS_OK)
            st = dataset_collect_labels(&dataset, &none, &labels, &err);
        if (st == STATUS_OK)
            st = dataset_use_labels(&dataset, &labels, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        if (st == STATUS_OK)
            assert_true(labels.total == 2 && dataset_row(&dataset, 1).class.label == 0);
        successes = st == STATUS_OK ? successes + 1 : 0;
        failures += st != STATUS_OK;
        labels_free(&labels);
        dataset_free(&dataset);
        renew_tokenizer();
        assert_true(mem_live() == live);
        assert_true(n < 5000);
    }
    assert_true(failures > 20);
    rows_fixture_reset(&fx);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    load_with_faults(false, false);
    load_with_faults(true, false);
    load_with_faults(false, true);
    load_with_faults(true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(labels_with_faults), cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
