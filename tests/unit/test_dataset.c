/* From files of rows to tokens with spans and weights, and to what batches teach: labels, statistics, columns, tables, turns. */
#include "tests/support/cmocka_all.h"

#include "tests/support/dataset_fixture.h"

static void labels_spell_thought_answer_and_end(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct batch batch = {0};
    assert_ok(load(&dataset, two_rows), &err);
    assert_int_equal(dataset.rows, 2);
    assert_ok(dataset_eval_batch(&dataset, &dataset.parts[0], 2, 0, fx.rules.span_weights, &batch, &err), &err);
    assert_int_equal(batch.n_sequences, 2);
    assert_taught(&batch, 0, SPAN_COUNT, "2 and 2 make 4\n</think>\n\nfour" END);
    assert_taught(&batch, 0, SPAN_THOUGHT, "2 and 2 make 4\n</think>\n\n");
    assert_taught(&batch, 0, SPAN_ANSWER, "four");
    assert_taught(&batch, 1, SPAN_ANSWER, "1");
    assert_taught(&batch, 1, SPAN_END, END);
    for (int s = 0; s < 2; s++) /* the label at position i is token i + 1 */
        for (int i = batch.starts[s]; i < batch.starts[s + 1]; i++)
            if (batch.targets[i] >= 0)
                assert_int_equal(batch.targets[i], batch.tokens[i + 1]);
    int32_t prompt[256];
    size_t n = 0;
    struct row row = dataset_row(&dataset, 0);
    for (int i = 0; i < row.n_tokens; i++)
        if (row.spans[i] == SPAN_PROMPT)
            prompt[n++] = row.tokens[i];
    char *text = decode(prompt, n);
    assert_non_null(strstr(text, "Two and two?"));
    assert_null(strstr(text, "make 4"));
    free(text);
    batch_free(&batch);
    dataset_free(&dataset);
}

static void added_texts_reach_the_tokens(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct batch batch = {0};
    fx.rules.cot_prompt = "Think step by step.";
    fx.rules.answer_prefix = "#### ";
    assert_ok(load(&dataset, two_rows), &err);
    assert_ok(dataset_eval_batch(&dataset, &dataset.parts[0], 1, 1, fx.rules.span_weights, &batch, &err), &err);
    assert_taught(&batch, 0, SPAN_ANSWER, "#### 1");
    char *text = decode(batch.tokens, (size_t)batch.n_tokens);
    assert_non_null(strstr(text, "One?\nThink step by step."));
    free(text);
    rows_fixture_reset(&fx);
    batch_free(&batch);
    dataset_free(&dataset);
}

static void statistics_add_up(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    assert_ok(load(&dataset, two_rows), &err);
    const struct dataset_stats *s = &dataset.parts[0].stats;
    assert_int_equal(s->read, 2);
    assert_int_equal(s->kept, 2);
    assert_int_equal(s->thoughts, 2);
    assert_int_equal(s->skipped + s->too_long + s->shortened + s->special_text, 0);
    assert_int_equal(s->tokens[SPAN_PROMPT] + s->tokens[SPAN_THOUGHT] + s->tokens[SPAN_ANSWER] + s->tokens[SPAN_END],
                     dataset.starts[2]);
    assert_int_equal(s->tokens[SPAN_END], 2);
    assert_int_equal(s->tokens[SPAN_ANSWER], 5);
    assert_int_equal(s->longest, dataset.starts[1]);
    assert_int_equal(s->longest_row, 0);
    assert_string_equal(dataset.parts[0].format, "qa-cot");
    assert_string_equal(dataset.parts[0].name, "set");
    assert_null(dataset.parts[0].problems);
    dataset_free(&dataset);
}

static void columns_of_a_set_have_its_names(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct batch batch = {0};
    static const char rows[] = "{\"say\": \"One?\", \"label\": \"uno\", \"w\": \"0.5\"}\n{\"say\": \"Two?\", \"label\": \"due\", \"w\": \"2\"}\n";
    fx.spec.columns = (struct row_columns){{[ROW_QUESTION] = "say", [ROW_ANSWER] = "label", [ROW_WEIGHT] = "w"}};
    assert_ok(load(&dataset, rows), &err);
    assert_string_equal(dataset.parts[0].format, "prompt-completion");
    assert_ok(dataset_eval_batch(&dataset, &dataset.parts[0], 1, 1, fx.rules.span_weights, &batch, &err), &err);
    assert_taught(&batch, 0, SPAN_COUNT, "due" END);
    assert_true(dataset.weights[0] == 0.5f && dataset.weights[1] == 2);
    fx.spec.columns.names[ROW_ANSWER] = "lable";
    assert_refused(load(&dataset, rows), STATUS_DATA, &err, "rows.jsonl:1: the row has no column 'lable', which answer_column names; found say");
    fx.spec.columns = (struct row_columns){{[ROW_THOUGHT] = "w"}};
    fx.spec.format = "text";
    assert_refused(load(&dataset, rows), STATUS_USAGE, &err, "rows.jsonl'): format text has no use for the column 'w'");
    rows_fixture_reset(&fx);
    batch_free(&batch);
    dataset_free(&dataset);
}

/* Loads a file with the ending .csv beside the fixture's. */
static enum status load_csv(struct dataset *dataset, const char *bytes)
{
    char path[160];
    snprintf(path, sizeof path, "%s/rows.csv", fx.folder);
    assert_ok(file_replace(path, bytes, strlen(bytes), &err), &err);
    fx.spec.path = path;
    enum status st = dataset_load(dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err);
    unlink(path);
    return st;
}

static void tables_become_tokens(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct batch batch = {0};
    assert_ok(load_csv(&dataset, "question,answer,thought\r\n\"One,\nor two?\",1,\"a \"\"one\"\"\"\r\n"), &err);
    assert_string_equal(dataset.parts[0].format, "qa-cot");
    assert_ok(dataset_eval_batch(&dataset, &dataset.parts[0], 1, 0, fx.rules.span_weights, &batch, &err), &err);
    assert_taught(&batch, 0, SPAN_COUNT, "a \"one\"\n</think>\n\n1" END);
    dataset_free(&dataset);
    fx.spec.table.header = "prompt,completion";
    assert_ok(load_csv(&dataset, "One?,uno\nTwo?,due\n"), &err);
    assert_int_equal(dataset.rows, 2);
    assert_refused(load_csv(&dataset, "One?,uno\nTwo?\n"), STATUS_DATA, &err, "1 bad row of 2");
    assert_non_null(strstr(err.text, "rows.csv:2:5: the row has 1 field, the header names 2"));
    fx.rules.strict = false;
    assert_ok(load_csv(&dataset, "One?,uno\nTwo?\n"), &err);
    assert_int_equal(dataset.parts[1].stats.skipped, 1);
    fx.spec.table.header = NULL;
    assert_refused(load_csv(&dataset, "One?,uno\nTwo?,due\n"), STATUS_DATA, &err, "(if that is a row already, set header): ");
    assert_non_null(strstr(err.text, "rows.csv:2: no known format has these columns; found One?, uno"));
    assert_refused(load_csv(&dataset, ""), STATUS_DATA, &err, "holds no rows; it should have lines of fields below a header");
    rows_fixture_reset(&fx);
    batch_free(&batch);
    dataset_free(&dataset);
}

static void plain_text_is_learnt_whole(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct batch batch = {0};
    fx.rules.cot_prompt = "Think.";
    assert_ok(load(&dataset, "{\"text\": \"Once upon\\n\"}\n"), &err);
    assert_ok(dataset_eval_batch(&dataset, &dataset.parts[0], 1, 0, fx.rules.span_weights, &batch, &err), &err);
    assert_taught(&batch, 0, SPAN_COUNT, "Once upon\n" END);
    assert_int_equal(batch.n_tokens, 1 + 10 + 1); /* what begins the text, its bytes, its end */
    rows_fixture_reset(&fx);
    batch_free(&batch);
    dataset_free(&dataset);
}

static void special_text_is_plain_and_counted(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct batch batch = {0};
    assert_ok(load(&dataset, "{\"question\": \"Is </think> a tag?\", \"thought\": \"yes\", \"answer\": \"see " END "\"}\n"
                             "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"A\"}\n"), &err);
    assert_int_equal(dataset.parts[0].stats.special_text, 1);
    assert_int_equal(dataset.parts[0].stats.tokens[SPAN_END], 2);
    struct row row = dataset_row(&dataset, 0), other = dataset_row(&dataset, 1);
    int end = row.tokens[row.n_tokens - 1], ends = 0;
    assert_int_equal(end, other.tokens[other.n_tokens - 1]);
    for (int i = 0; i < row.n_tokens; i++)
        ends += row.tokens[i] == end;
    assert_int_equal(ends, 1);
    batch_free(&batch);
    dataset_free(&dataset);
}

static void marks_and_line_ends_are_accepted(void **state)
{
    (void)state;
    struct dataset plain = {0}, other = {0};
    assert_ok(load(&plain, two_rows), &err);
    struct text crlf = {0};
    text_puts(&crlf, "\xEF\xBB\xBF");
    for (const char *c = two_rows; *c; c++)
        text_printf(&crlf, *c == '\n' ? "\r\n" : "%c", *c);
    assert_ok(load(&other, crlf.data), &err);
    assert_int_equal(other.rows, 2);
    assert_memory_equal(plain.tokens, other.tokens, (size_t)plain.starts[2] * sizeof *plain.tokens);
    text_free(&crlf);
    dataset_free(&plain);
    dataset_free(&other);
}

static const char turn_row[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\"}]}\n";

static const char uneven_row[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\", \"weight\": 0.25},"
    " {\"role\": \"user\", \"content\": \"R\"}, {\"role\": \"assistant\", \"content\": \"B\"}, {\"role\": \"user\", \"content\": "
    "\"S\"}, {\"role\": \"assistant\", \"content\": \"C\", \"loss\": false}, {\"role\": \"user\", \"content\": \"U\"},"
    " {\"role\": \"assistant\", \"content\": \"<think>T</think>D\", \"loss_scale\": 2}], \"weight\": 3}\n";

/* Weights of turns arrive at their tokens, in the rows that have them and in no other; a load that fails takes none along. */
static void turns_have_weights_of_their_own(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct batch batch = {0};
    assert_ok(load(&dataset, two_rows), &err);
    assert_int_equal(dataset.stretches.n_places, 0);
    char rows[2048];
    snprintf(rows, sizeof rows, "%s{\"messages\": 1}\n", uneven_row);
    assert_refused(load(&dataset, rows), STATUS_DATA, &err, "rows.jsonl:2");
    fx.spec.format = "messages";
    snprintf(rows, sizeof rows, "%s%s%s", turn_row, uneven_row, turn_row);
    assert_ok(load(&dataset, rows), &err);
    assert_int_equal(dataset.stretches.n_places, 1);
    assert_ok(dataset_eval_batch(&dataset, &dataset.parts[1], 3, 0, fx.rules.span_weights, &batch, &err), &err);
    assert_taught(&batch, 1, SPAN_COUNT, "A" END "B" END "T\n</think>\n\nD" END);
    const float wanted[] = {0.75f, 0.75f, 3, 3};
    for (int s = 0; s < 3; s++)
        for (int i = batch.starts[s], k = 0; i < batch.starts[s + 1]; i++)
            if (batch.targets[i] >= 0)
                assert_true(batch.weights[i] == (s != 1 ? 1.0f : k < 4 ? wanted[k] : 6.0f) && ++k);
    fx.rules.last_turn_only = true;
    assert_ok(load(&dataset, uneven_row), &err);
    assert_ok(dataset_eval_batch(&dataset, &dataset.parts[2], 1, 0, fx.rules.span_weights, &batch, &err), &err);
    assert_taught(&batch, 0, SPAN_COUNT, "T\n</think>\n\nD" END);
    assert_int_equal(dataset_row(&dataset, dataset.rows - 1).n_stretches, 0);
    assert_true(dataset_row(&dataset, dataset.rows - 1).weight == 6);
    rows_fixture_reset(&fx);
    batch_free(&batch);
    dataset_free(&dataset);
}

static void balance_reaches_batches(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct batch batch = {0};
    fx.rules.balanced = true;
    fx.rules.span_weights[SPAN_THOUGHT] = 3;
    assert_ok(load(&dataset, two_rows), &err);
    assert_ok(dataset_eval_batch(&dataset, &dataset.parts[0], 1, 0, fx.rules.span_weights, &batch, &err), &err);
    double sums[2] = {0, 0};
    int count = 0;
    for (int i = 0; i < batch.n_tokens; i++)
        if (batch.targets[i] >= 0) {
            sums[batch.target_spans[i] == SPAN_THOUGHT] += (double)batch.weights[i];
            count++;
        }
    assert_true(sums[1] > 0.75 * count - 1e-4 && sums[1] < 0.75 * count + 1e-4);
    assert_true(sums[0] > 0.25 * count - 1e-4 && sums[0] < 0.25 * count + 1e-4);
    rows_fixture_reset(&fx);
    batch_free(&batch);
    dataset_free(&dataset);
}

static void weights_multiply(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct batch batch = {0};
    fx.spec.loss_weight = 3;
    fx.rules.span_weights[SPAN_THOUGHT] = 0.5f;
    assert_ok(load(&dataset, "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"A\", \"weight\": 2}\n"), &err);
    assert_ok(dataset_eval_batch(&dataset, &dataset.parts[0], 1, 0, fx.rules.span_weights, &batch, &err), &err);
    for (int i = 0; i < batch.n_tokens; i++)
        if (batch.targets[i] >= 0)
            assert_true(batch.weights[i] == (batch.target_spans[i] == SPAN_THOUGHT ? 3.0f : 6.0f));
    rows_fixture_reset(&fx);
    batch_free(&batch);
    dataset_free(&dataset);
}

static void gsm8k_becomes_tokens(void **state)
{
    (void)state;
    const char *path = shared_data("cot/gsm8k/train.jsonl");
    if (!path)
        skip();
    struct dataset dataset = {0};
    fx.spec.path = path;
    assert_ok(dataset_load(&dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err), &err);
    assert_int_equal(dataset.rows, 7473);
    assert_string_equal(dataset.parts[0].format, "gsm8k");
    assert_int_equal(dataset.parts[0].stats.thoughts, 7473);
    assert_int_equal(dataset.parts[0].stats.tokens[SPAN_END], 7473);
    rows_fixture_reset(&fx);
    dataset_free(&dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_spell_thought_answer_and_end),
        cmocka_unit_test(added_texts_reach_the_tokens),
        cmocka_unit_test(statistics_add_up),
        cmocka_unit_test(columns_of_a_set_have_its_names),
        cmocka_unit_test(tables_become_tokens),
        cmocka_unit_test(plain_text_is_learnt_whole),
        cmocka_unit_test(special_text_is_plain_and_counted),
        cmocka_unit_test(marks_and_line_ends_are_accepted),
        cmocka_unit_test(turns_have_weights_of_their_own),
        cmocka_unit_test(balance_reaches_batches),
        cmocka_unit_test(weights_multiply),
        cmocka_unit_test(gsm8k_becomes_tokens),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
