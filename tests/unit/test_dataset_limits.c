/* Rows that are not trained on as they are: bad ones, those without a token that takes loss, those that are too long; and files
 * and tokens that no run may begin with. */
#include "tests/support/cmocka_all.h"

#include "tests/support/dataset_fixture.h"

static void strict_lists_all_problems(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct text rows = {0};
    assert_ok(load(&dataset, two_rows), &err);
    rows_with_bad_ones(200, 13, &rows);
    assert_refused(load(&dataset, rows.data), STATUS_DATA, &err, "13 bad rows of 200; repair them, or set strict: false");
    assert_non_null(strstr(err.text, "the first 10:\n"));
    assert_non_null(strstr(err.text, "rows.jsonl:3: 'answer' is empty"));
    assert_non_null(strstr(err.text, "rows.jsonl:6:14: broken JSON"));
    assert_non_null(strstr(err.text, "rows.jsonl:30:"));
    assert_null(strstr(err.text, "rows.jsonl:33:"));
    assert_int_equal(dataset.rows, 2); /* as before */
    assert_int_equal(dataset.n_parts, 1);
    assert_ok(load(&dataset, two_rows), &err);
    assert_int_equal(dataset.rows, 4);
    assert_memory_equal(dataset.tokens, dataset.tokens + dataset.starts[2], (size_t)dataset.starts[2] * sizeof *dataset.tokens);
    text_free(&rows);
    dataset_free(&dataset);
}

static void bad_rows_can_be_skipped(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct text rows = {0};
    rows_with_bad_ones(200, 13, &rows);
    fx.rules.strict = false;
    fx.rules.max_bad_rows = 12;
    assert_refused(load(&dataset, rows.data), STATUS_DATA, &err, "13 bad rows of 200, more than max_bad_rows 12");
    fx.rules.max_bad_rows = 13;
    assert_ok(load(&dataset, rows.data), &err);
    assert_int_equal(dataset.rows, 187);
    assert_int_equal(dataset.parts[0].stats.skipped, 13);
    assert_non_null(strstr(dataset.parts[0].problems, "rows.jsonl:3: 'answer' is empty"));
    fx.rules.max_bad_rows = -1;
    assert_ok(load(&dataset, rows.data), &err);
    assert_int_equal(dataset.rows, 374);
    assert_refused(load(&dataset, "{}\nx\n"), STATUS_DATA, &err, "no known format has these columns; found none");
    fx.spec.format = "qa-cot";
    assert_refused(load(&dataset, "{}\nx\n"), STATUS_DATA, &err, "no row of 2 can be used: 2 bad, 0 longer");
    fx.spec.format = "csv";
    assert_refused(load(&dataset, "{}\nx\n"), STATUS_USAGE, &err, "unknown row format 'csv'");
    rows_fixture_reset(&fx);
    text_free(&rows);
    dataset_free(&dataset);
}

static void files_without_rows_are_refused(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    assert_refused(load(&dataset, ""), STATUS_DATA, &err, "holds no rows");
    assert_refused(load(&dataset, "[]"), STATUS_DATA, &err, "holds no rows");
    assert_refused(load(&dataset, "not json\n"), STATUS_DATA, &err, "rows.jsonl:1:3: broken JSON");
    fx.spec.path = "/nonexistent/rows.jsonl";
    assert_refused(dataset_load(&dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err), STATUS_DATA, &err,
                   "/nonexistent/rows.jsonl");
    rows_fixture_reset(&fx);
    dataset_free(&dataset);
}

static void masked_rows_are_left_out(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    fx.rules.span_weights[SPAN_ANSWER] = fx.rules.span_weights[SPAN_END] = 0;
    assert_ok(load(&dataset, two_rows), &err); /* the thought is still taught */
    assert_int_equal(dataset.parts[0].stats.masked, 0);
    static const char no_thought[] = "{\"prompt\": \"P\", \"completion\": \"C\"}\n{\"prompt\": \"P\", \"completion\": \"<think>T</think>C\"}\n";
    assert_ok(load(&dataset, no_thought), &err);
    assert_int_equal(dataset.parts[1].stats.masked, 1);
    assert_int_equal(dataset.parts[1].stats.skipped, 0);
    assert_int_equal(dataset.rows, 3);
    assert_non_null(strstr(dataset.parts[1].problems, "rows.jsonl:1: no token of the row takes loss"));
    fx.rules.span_weights[SPAN_THOUGHT] = 0;
    assert_refused(load(&dataset, no_thought), STATUS_DATA, &err,
                   "no row of 2 can be used: 0 bad, 0 longer than max_length 100000, 2 without a token that takes loss");
    rows_fixture_reset(&fx);
    assert_refused(load(&dataset, "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": "
                                  "\"A\", \"mask\": true}]}\n"), STATUS_DATA, &err, "1 without a token that takes loss");
    dataset_free(&dataset);
}

static const char long_row[] = "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"A\"}\n"
                               "{\"question\": \"How long?\", \"thought\": \"one \xC3\xA9\xC3\xA9\xC3\xA9 two three four five six seven eight nine ten\", \"answer\": \"very\"}\n";

static void rows_over_the_limit(void **state)
{
    (void)state;
    struct dataset whole = {0}, dataset = {0};
    struct batch batch = {0};
    assert_ok(load(&whole, long_row), &err);
    int length = dataset_row(&whole, 1).n_tokens;
    char message[64];
    fx.rules.max_length = length - 1;
    snprintf(message, sizeof message, "rows.jsonl:2: %d tokens, more than max_length %d", length, length - 1);
    assert_refused(load(&dataset, long_row), STATUS_DATA, &err, "1 rows of 2 are longer than max_length");
    assert_non_null(strstr(err.text, message));
    fx.rules.strict = false; /* too long is no bad row: the rule for lengths decides alone */
    assert_refused(load(&dataset, long_row), STATUS_DATA, &err, message);
    fx.rules.strict = true;
    fx.rules.truncation = TRUNCATION_DROP;
    assert_ok(load(&dataset, long_row), &err);
    assert_int_equal(dataset.rows, 1);
    assert_int_equal(dataset.parts[0].stats.too_long, 1);
    assert_non_null(strstr(dataset.parts[0].problems, message));
    fx.rules.truncation = TRUNCATION_THOUGHT;
    static const char thought[] = "one \xC3\xA9\xC3\xA9\xC3\xA9 two three four five six seven eight nine ten";
    int shortest = length - (int)strlen(thought) + 1; /* one token per byte */
    for (int limit = length; limit >= shortest - 2; limit--) {
        fx.rules.max_length = limit;
        dataset_free(&dataset);
        assert_ok(load(&dataset, long_row), &err);
        const struct dataset_stats *s = &dataset.parts[0].stats;
        bool fits = limit >= shortest;
        assert_int_equal(s->too_long, !fits);
        assert_int_equal(s->shortened, fits && limit < length);
        assert_int_equal(dataset.rows, 1 + fits);
        if (!fits)
            continue;
        assert_true(dataset_row(&dataset, 1).n_tokens <= limit && dataset_row(&dataset, 1).n_tokens >= limit - 2);
        assert_ok(dataset_eval_batch(&dataset, &dataset.parts[0], 1, 1, fx.rules.span_weights, &batch, &err), &err);
        assert_taught(&batch, 0, SPAN_ANSWER, "very");
        assert_taught(&batch, 0, SPAN_END, END);
        char *text = taught(&batch, 0, SPAN_THOUGHT);
        char *close = strstr(text, "\n</think>\n\n");
        assert_non_null(close);
        assert_int_equal(close[11], '\0');
        *close = '\0';
        assert_true(*text && !strncmp(thought, text, strlen(text)) && close[-1] != ' ' && text[strlen(text) - 1] != '\xC3');
        free(text);
    }
    rows_fixture_reset(&fx);
    batch_free(&batch);
    dataset_free(&dataset);
    dataset_free(&whole);
}

static void tokens_outside_the_model_are_refused(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    fx.rules.vocab = 262; /* all bytes and the special tokens */
    assert_ok(load(&dataset, two_rows), &err);
    fx.rules.vocab = 100;
    fx.rules.strict = false; /* not a matter of single rows */
    assert_refused(load(&dataset, two_rows), STATUS_DATA, &err, "is outside the model's vocabulary of 100");
    assert_non_null(strstr(err.text, "rows.jsonl:1: token id 1"));
    assert_int_equal(dataset.rows, 2);
    rows_fixture_reset(&fx);
    dataset_free(&dataset);
}

static void truncation_has_names(void **state)
{
    (void)state;
    enum truncation truncation = TRUNCATION_ERROR;
    assert_true(truncation_parse("thought", &truncation));
    assert_int_equal(truncation, TRUNCATION_THOUGHT);
    assert_false(truncation_parse("left", &truncation));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strict_lists_all_problems),
        cmocka_unit_test(bad_rows_can_be_skipped),
        cmocka_unit_test(files_without_rows_are_refused),
        cmocka_unit_test(masked_rows_are_left_out),
        cmocka_unit_test(rows_over_the_limit),
        cmocka_unit_test(tokens_outside_the_model_are_refused),
        cmocka_unit_test(truncation_has_names),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
