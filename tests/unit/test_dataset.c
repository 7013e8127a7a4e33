/* From files of rows to tokens with spans and to the batches of slots: labels, statistics, bad rows, lengths, threads. */
#include "tests/support/cmocka_all.h"

#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "tests/support/rows_fixture.h"
#include "worker/data/dataset.h"
#include "worker/data/row_names.h"

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

/* Writes the rows and loads them as data set 'set'. */
static enum status load(struct dataset *dataset, const char *rows)
{
    rows_fixture_write(&fx, rows, strlen(rows));
    return dataset_load(dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err);
}

static const char two_rows[] = "{\"question\": \"Two and two?\", \"thought\": \"2 and 2 make 4\", \"answer\": \"four\"}\n"
                               "{\"question\": \"One?\", \"thought\": \"easy\", \"answer\": \"1\"}\n";

static char *decode(const int32_t *tokens, size_t count)
{
    struct text text = {0};
    assert_ok(rows_fixture_decode(&fx, tokens, count, &text, &err), &err);
    char *copy = strdup(text.data ? text.data : "");
    text_free(&text);
    return copy;
}

/* What the batch teaches for one span (SPAN_COUNT: all of them), as text. */
static char *taught(const struct batch *batch, int sequence, int span)
{
    int32_t tokens[512];
    size_t n = 0;
    for (int i = batch->starts[sequence]; i < batch->starts[sequence + 1]; i++)
        if (batch->targets[i] >= 0 && (span == SPAN_COUNT || batch->target_spans[i] == span))
            tokens[n++] = batch->targets[i];
    return decode(tokens, n);
}

static void assert_taught(const struct batch *batch, int sequence, int span, const char *wanted)
{
    char *text = taught(batch, sequence, span);
    assert_string_equal(text, wanted);
    free(text);
}

#define END "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"

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

/* Rows 3, 6, 9 ... up to `bad` bad ones among `rows`. */
static void rows_with_bad_ones(int rows, int bad, struct text *out)
{
    for (int i = 1; i <= rows; i++)
        if (i % 3 == 0 && i / 3 <= bad)
            text_printf(out, i % 2 ? "{\"question\": \"Q%d\", \"thought\": \"T\", \"answer\": \"\"}\n" : "{\"question\": %d\n", i);
        else
            text_printf(out, "{\"question\": \"Q%d\", \"thought\": \"T%d\", \"answer\": \"A%d\"}\n", i, i, i);
}

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
        cmocka_unit_test(labels_spell_thought_answer_and_end), cmocka_unit_test(added_texts_reach_the_tokens),
        cmocka_unit_test(statistics_add_up), cmocka_unit_test(columns_of_a_set_have_its_names),
        cmocka_unit_test(tables_become_tokens), cmocka_unit_test(plain_text_is_learnt_whole), cmocka_unit_test(special_text_is_plain_and_counted),
        cmocka_unit_test(marks_and_line_ends_are_accepted), cmocka_unit_test(strict_lists_all_problems),
        cmocka_unit_test(bad_rows_can_be_skipped), cmocka_unit_test(files_without_rows_are_refused),
        cmocka_unit_test(masked_rows_are_left_out), cmocka_unit_test(turns_have_weights_of_their_own),
        cmocka_unit_test(balance_reaches_batches), cmocka_unit_test(weights_multiply),
        cmocka_unit_test(rows_over_the_limit), cmocka_unit_test(tokens_outside_the_model_are_refused),
        cmocka_unit_test(rows_get_their_places_among_labels), cmocka_unit_test(labels_that_cannot_be_told_apart_are_refused),
        cmocka_unit_test(threads_do_not_matter), cmocka_unit_test(several_sets_share_one_numbering),
        cmocka_unit_test(slots_cover_the_data), cmocka_unit_test(gsm8k_becomes_tokens),
        cmocka_unit_test(truncation_has_names)};
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
