/* Rows joined into documents: nothing is lost, nothing is longer than allowed as training counts, every thought and
 * answer takes loss, and what cannot be joined is named. */
#include "tests/support/cmocka_all.h"

#include <unistd.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "tests/support/scratch.h"
#include "worker/data/demo/demo.h"
#include "worker/data/join.h"
#include "worker/data/jsonl.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"

#define BOS "<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define EOS "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"

static struct error err;
static char folder[SCRATCH_SIZE], rows_path[128], more_path[128], joined_path[128];
static struct tokenizer *tokenizer; /* with joined tokens and those of every template */
static struct threads *pool;

/* 300 problems in words, and a tokenizer that joins letters, spaces and line breaks of them. */
static void make_rows(struct text *lines, struct text *plain)
{
    struct demo_request request = {.rows = 300, .seed = 5};
    int64_t repeated;
    request.settings.worded = true;
    assert_ok(demo_find("modchain", &request.task, &err), &err);
    assert_ok(demo_write(&request, lines, plain, &repeated, &err), &err);
}

static int set_up(void **state)
{
    (void)state;
    static const char config[] =
        "{\"bos_token\": \"" BOS "\", \"eos_token\": {\"content\": \"" EOS "\"},"
        " \"added_tokens_decoder\": {\"900\": {\"content\": \"<|EOT|>\", \"special\": true}}}";
    if (!scratch_folder(folder, "join"))
        return 1;
    snprintf(rows_path, sizeof rows_path, "%s/rows.jsonl", folder);
    snprintf(more_path, sizeof more_path, "%s/more.jsonl", folder);
    snprintf(joined_path, sizeof joined_path, "%s/joined.jsonl", folder);
    struct text lines = {0}, plain = {0}, json = {0}, unused = {0};
    make_rows(&lines, &plain);
    text_puts(&plain, "?\n\n?\n\n?\n</think>\n\n### Instruction:\n");
    assert_ok(demo_tokenizer(plain.data, plain.size, 200, &json, &unused, &err), &err);
    assert_ok(tokenizer_load_text(json.data, json.size, config, sizeof config - 1, "demo", &tokenizer, &err), &err);
    assert_ok(threads_create(1, &pool, &err), &err);
    text_free(&lines);
    text_free(&plain);
    text_free(&json);
    text_free(&unused);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tokenizer_free(tokenizer);
    threads_free(pool);
    unlink(rows_path);
    unlink(more_path);
    unlink(joined_path);
    return rmdir(folder) || mem_live();
}

static void write_file(const char *path, const char *content)
{
    assert_ok(file_replace(path, content, strlen(content), &err), &err);
}

static const char *const paths[] = {rows_path, more_path};

static struct join_request request_for(const char *template, int tokens)
{
    return (struct join_request){.paths = paths, .n_paths = 1, .template = template_find(template), .tokens = tokens};
}

/* The documents as training loads them, with max_length as they were made for. */
static void load(const struct join_request *request, const struct text *lines, const struct tokenizer *t,
                 struct dataset *dataset)
{
    struct dataset_spec spec = {.path = joined_path, .loss_weight = 1, .weight = 1, .max_samples = -1};
    struct dataset_rules rules = {.template = request->template, .max_length = request->tokens, .strict = true,
                                  .max_bad_rows = -1, .cot_prompt = request->cot_prompt,
                                  .answer_prefix = request->answer_prefix, .span_weights = {0, 1, 1, 1}};
    assert_ok(file_replace(joined_path, lines->data, lines->size, &err), &err);
    assert_ok(dataset_load(dataset, &spec, &rules, t, pool, &err), &err);
    assert_string_equal(dataset->parts[0].format, "messages");
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct turns {
    char *lines[4096];
    int count;
};

static void add_turn(struct turns *turns, const char *question, const char *thought, const char *answer)
{
    struct text line = {0};
    text_printf(&line, "%s | %s | %s", question, thought, answer);
    assert_true(turns->count < 4096);
    turns->lines[turns->count++] = line.data;
}

/* Question, thought and answer of every turn, sorted. `lines` holds rows of qa-cot or documents. */
static void collect(const struct text *lines, struct turns *out)
{
    struct jsonl reader;
    struct jsonl_record record;
    bool found;
    jsonl_over("rows", lines->data, lines->size, &reader);
    for (;;) {
        struct json *row;
        assert_ok(jsonl_next(&reader, &record, &found, &err), &err);
        if (!found)
            break;
        assert_ok(jsonl_parse(&reader, &record, &row, &err), &err);
        const struct json *messages = json_member(row, "messages");
        if (!messages)
            add_turn(out, json_to_string(json_member(row, "question"), NULL), json_to_string(json_member(row, "thought"), NULL),
                     json_to_string(json_member(row, "answer"), NULL));
        for (size_t i = 0; i < json_count(messages); i += 2)
            add_turn(out, json_to_string(json_member(json_at(messages, i), "content"), NULL),
                     json_to_string(json_member(json_at(messages, i + 1), "reasoning_content"), NULL),
                     json_to_string(json_member(json_at(messages, i + 1), "content"), NULL));
        json_free(row);
    }
    qsort(out->lines, (size_t)out->count, sizeof *out->lines, compare_lines);
}

static void expect_same_turns(const struct text *rows, const struct text *documents)
{
    static struct turns wanted, found;
    wanted.count = found.count = 0;
    collect(rows, &wanted);
    collect(documents, &found);
    assert_int_equal(wanted.count, found.count);
    for (int i = 0; i < wanted.count; i++) {
        assert_string_equal(wanted.lines[i], found.lines[i]);
        mem_free(wanted.lines[i]);
        mem_free(found.lines[i]);
    }
}

static int64_t count_spans(const struct dataset *dataset, enum span span)
{
    int64_t runs = 0;
    for (int64_t i = 0; i < dataset->starts[dataset->rows]; i++)
        runs += dataset->spans[i] == span && (!i || dataset->spans[i - 1] != span);
    return runs;
}

/* Training counts what join counted, to the token, whatever the template writes round turns. */
static void documents_hold_every_row_and_fit(void **state)
{
    (void)state;
    static const char *const templates[] = {"deepseek-llm", "deepseek-coder", "deepseek-v3", "deepseek-r1", "plain"};
    static const int sizes[] = {640, 1024, 4096};
    struct text rows = {0};
    make_rows(&rows, NULL);
    write_file(rows_path, rows.data);
    for (int i = 0; i < 5 * 3 * 2; i++) {
        struct join_request request = request_for(templates[i % 5], sizes[i / 5 % 3]);
        struct join_report report;
        struct dataset dataset = {0};
        struct text lines = {0};
        if (i / 15) {
            request.cot_prompt = "Think step by step, and do not hurry.";
            request.answer_prefix = "#### ";
        }
        assert_ok(join_documents(&request, tokenizer, &lines, &report, &err), &err);
        load(&request, &lines, tokenizer, &dataset);
        const struct dataset_stats *s = &dataset.parts[0].stats;
        assert_int_equal(report.rows, 300);
        assert_int_equal(report.joined, 300);
        assert_int_equal(report.too_long, 0);
        assert_int_equal(dataset.rows, report.documents);
        assert_int_equal(dataset.starts[dataset.rows], report.tokens);
        assert_int_equal(s->longest, report.longest);
        assert_true(report.longest <= request.tokens);
        assert_int_equal(count_spans(&dataset, SPAN_THOUGHT), 300);
        assert_int_equal(count_spans(&dataset, SPAN_ANSWER), 300);
        assert_int_equal(count_spans(&dataset, SPAN_END), 300);
        if (request.tokens > 2000) /* well filled, but for the last documents */
            assert_true((double)report.tokens > 0.9 * (double)(report.documents - 1) * request.tokens);
        expect_same_turns(&rows, &lines);
        dataset_free(&dataset);
        text_free(&lines);
    }
    text_free(&rows);
}

/* The row as text, each span in its own brackets: prompt {}, thought (), answer [], end <>. */
static void spell(const struct row *row, struct text *out)
{
    static const char *const open[] = {"{", "(", "[", "<"}, *const close[] = {"}", ")", "]", ">"};
    for (int i = 0, next; i < row->n_tokens; i = next) {
        for (next = i; next < row->n_tokens && row->spans[next] == row->spans[i]; next++)
            ;
        text_puts(out, open[row->spans[i]]);
        assert_ok(tokenizer_decode(tokenizer, row->tokens + i, (size_t)(next - i), true, out, &err), &err);
        text_puts(out, close[row->spans[i]]);
    }
}

static void expect_document(const char *rows, const char *wanted)
{
    struct join_request request = request_for("plain", 4096);
    struct join_report report;
    struct dataset dataset = {0};
    struct text lines = {0}, spelt = {0};
    write_file(rows_path, rows);
    assert_ok(join_documents(&request, tokenizer, &lines, &report, &err), &err);
    assert_int_equal(report.documents, 1);
    load(&request, &lines, tokenizer, &dataset);
    struct row row = dataset_row(&dataset, 0);
    assert_int_equal(row.n_tokens, report.tokens);
    spell(&row, &spelt);
    assert_string_equal(spelt.data, wanted);
    dataset_free(&dataset);
    text_free(&spelt);
    text_free(&lines);
}

static void every_format_is_joined(void **state)
{
    (void)state;
    expect_document("{\"question\": \"2+2?\", \"answer\": \"2 and 2 <<2+2=4>>make 4\\n#### 4\"}\n",
                    "{2+2?\n<think>}(2 and 2 make 4</think>)[4]<>");
    expect_document("{\"question\": \"2+2?\", \"answer\": \"<<2+2=4>> <<4=4>>\\n#### 4\"}\n", "{2+2?\n}[4]<>");
    expect_document("{\"prompt\": \"Q\", \"completion\": \"<think> T </think> A\"}\n", "{Q\n<think>}(T</think>)[A]<>");
    expect_document("{\"prompt\": \"Q\", \"completion\": \"A\"}\n", "{Q\n}[A]<>");
    expect_document("{\"question\": \"a \\\"q\\\"\\n\", \"thought\": \" \\u00e9\\n\\n\", \"answer\": \"\\\\ <b>\"}\n",
                    "{a \"q\"\n\n<think>}(\xC3\xA9</think>)[\\ <b>]<>");
    /* What takes no loss in the row takes none in the document, and its thought is not shown. */
    expect_document("{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"Q1\"},"
                    " {\"role\": \"assistant\", \"content\": \"A1\", \"reasoning_content\": \"T1\", \"loss\": false},"
                    " {\"role\": \"user\", \"content\": \"Q2\"},"
                    " {\"role\": \"assistant\", \"content\": \"A2\", \"reasoning_content\": \"T2\"}]}\n",
                    "{S\nQ1\nA1Q2\n<think>}(T2</think>)[A2]<>");
}

static void weights_of_turns_are_kept(void **state)
{
    (void)state;
    static const char rows[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Q1\"}, {\"role\": \"assistant\", \"content\": \"A1\", \"weight\": 0.3},"
        " {\"role\": \"user\", \"content\": \"Q2\"}, {\"role\": \"assistant\", \"content\": \"A2\"}]}\n";
    struct text lines = {0};
    struct join_request request = request_for("deepseek-r1", 100);
    struct join_report report;
    struct dataset dataset = {0};
    write_file(rows_path, rows);
    assert_ok(join_documents(&request, tokenizer, &lines, &report, &err), &err);
    load(&request, &lines, tokenizer, &dataset);
    struct row row = dataset_row(&dataset, 0);
    struct row_weights weights = row_weights_begin(&row, (const float[SPAN_COUNT]){0, 1, 1, 1});
    float found[4];
    int n = 0;
    for (int i = 1; i < row.n_tokens; i++) {
        float weight = row_weights_next(&weights, i);
        if (weight > 0 && (!n || found[n - 1] != weight))
            found[n++] = weight;
        assert_true(n < 4);
    }
    assert_int_equal(n, 2);
    assert_true(found[0] == 0.3f && found[1] == 1);
    dataset_free(&dataset);
    text_free(&lines);
}

static void system_message_and_weight_are_kept(void **state)
{
    (void)state;
    static const char rows[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"Q\"},"
        " {\"role\": \"assistant\", \"content\": \"A\"}], \"weight\": 0.25}\n";
    struct text twice = {0}, lines = {0};
    struct join_request request = request_for("deepseek-r1", 100);
    struct join_report report;
    struct dataset dataset = {0};
    text_printf(&twice, "%s%s", rows, rows);
    write_file(rows_path, twice.data);
    assert_ok(join_documents(&request, tokenizer, &lines, &report, &err), &err);
    assert_string_equal(lines.data,
                        "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"Q\"}, "
                        "{\"role\": \"assistant\", \"content\": \"A\"}, {\"role\": \"user\", \"content\": \"Q\"}, "
                        "{\"role\": \"assistant\", \"content\": \"A\"}], \"weight\": 0.25}\n");
    load(&request, &lines, tokenizer, &dataset);
    assert_true(dataset_row(&dataset, 0).weight == 0.25f);
    assert_int_equal(dataset.starts[1], report.tokens);
    dataset_free(&dataset);
    text_free(&lines);
    text_free(&twice);
}

static void long_rows_are_named(void **state)
{
    (void)state;
    struct text lines = {0};
    struct join_request request = request_for("plain", 40);
    struct join_report report;
    request.n_paths = 2;
    write_file(rows_path, "{\"prompt\": \"Q\", \"completion\": \"A\"}\n"
                          "{\"prompt\": \"01234567890123456789\", \"completion\": \"01234567890123456789\"}\n");
    write_file(more_path, "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"A\"}\n");
    assert_ok(join_documents(&request, tokenizer, &lines, &report, &err), &err);
    assert_int_equal(report.rows, 3);
    assert_int_equal(report.joined, 2);
    assert_int_equal(report.too_long, 1);
    assert_int_equal(report.problems.shown, 1);
    assert_non_null(strstr(report.problems.lines[0], "rows.jsonl:2: "));
    assert_non_null(strstr(report.problems.lines[0], " tokens, more than 40"));
    assert_null(strstr(lines.data, "0123"));
    problems_clear(&report.problems);
    text_clear(&lines);
    request.tokens = 3;
    assert_refused(join_documents(&request, tokenizer, &lines, &report, &err), STATUS_DATA, &err,
                   "no row of 3 fits into a document of 3 tokens; the first: ");
    problems_clear(&report.problems);
    text_free(&lines);
}

static void expect_refused(const char *rows, enum status code, const char *part)
{
    struct text lines = {0};
    struct join_request request = request_for("plain", 400);
    struct join_report report;
    write_file(rows_path, rows);
    assert_refused(join_documents(&request, tokenizer, &lines, &report, &err), code, &err, part);
    assert_int_equal(lines.size, 0);
    problems_clear(&report.problems);
    text_free(&lines);
}

#define ROW "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"A\"}\n"

static void what_cannot_be_joined_is_named(void **state)
{
    (void)state;
    expect_refused("", STATUS_DATA, "holds no rows");
    expect_refused(ROW "{\"question\": \"Q\", \"thought\": \"T\"}\n", STATUS_DATA, "rows.jsonl:2: format qa-cot needs");
    expect_refused(ROW "{\"question\": \n", STATUS_DATA, "rows.jsonl:2");
    expect_refused(ROW "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"A\", \"weight\": 2}\n", STATUS_DATA,
                   "rows.jsonl:2: the row has another weight than the one in ");
    expect_refused("{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\"}]}\n"
                   "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"Q\"},"
                   " {\"role\": \"assistant\", \"content\": \"A\"}]}\n", STATUS_DATA, "rows.jsonl:2: the row has another system message");
    expect_refused(ROW "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"not </think> here\"}\n", STATUS_DATA,
                   "rows.jsonl:2: the row cannot become messages");
    expect_refused("{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"<think>\"}\n", STATUS_DATA,
                   "rows.jsonl:1: the row cannot become messages");
    struct join_request request = request_for("plain", 400);
    struct join_report report;
    struct text lines = {0};
    write_file(rows_path, ROW);
    request.format = "csv";
    assert_refused(join_documents(&request, tokenizer, &lines, &report, &err), STATUS_USAGE, &err, "unknown row format 'csv'");
    request.format = "auto";
    request.n_paths = 2;
    unlink(more_path);
    assert_refused(join_documents(&request, tokenizer, &lines, &report, &err), STATUS_DATA, &err, "more.jsonl");
}

static void the_seed_is_the_order(void **state)
{
    (void)state;
    struct text rows = {0}, first = {0}, second = {0}, third = {0};
    struct join_request request = request_for("deepseek-r1", 1000);
    struct join_report report;
    make_rows(&rows, NULL);
    write_file(rows_path, rows.data);
    assert_ok(join_documents(&request, tokenizer, &first, &report, &err), &err);
    assert_ok(join_documents(&request, tokenizer, &second, &report, &err), &err);
    assert_string_equal(first.data, second.data);
    request.seed = 1;
    assert_ok(join_documents(&request, tokenizer, &third, &report, &err), &err);
    assert_string_not_equal(first.data, third.data);
    text_free(&rows);
    text_free(&first);
    text_free(&second);
    text_free(&third);
}

/* Real problems with a real tokenizer, long documents. */
static void gsm8k_in_long_documents(void **state)
{
    (void)state;
    enum { ROWS = 400 };
    const char *data = shared_data("cot/gsm8k/train.jsonl");
    char *text;
    size_t size, lines_end = 0;
    if (!data || file_read(data, &text, &size, &err) != STATUS_OK)
        return;
    for (int i = 0; i < ROWS; i++)
        lines_end = (size_t)((char *)memchr(text + lines_end, '\n', size - lines_end) + 1 - text);
    assert_ok(file_replace(rows_path, text, lines_end, &err), &err);
    mem_free(text);
    const char *model = shared_data("tokenizers/deepseek-coder-6.7b-instruct/tokenizer.json");
    if (!model)
        return;
    struct tokenizer *coder;
    struct text lines = {0};
    struct join_request request = request_for("deepseek-coder", 4096);
    struct join_report report;
    struct dataset dataset = {0};
    assert_ok(tokenizer_load(model, &coder, &err), &err);
    assert_ok(join_documents(&request, coder, &lines, &report, &err), &err);
    load(&request, &lines, coder, &dataset);
    assert_int_equal(dataset.rows, report.documents);
    assert_int_equal(dataset.starts[dataset.rows], report.tokens);
    assert_int_equal(report.joined, ROWS);
    assert_int_equal(count_spans(&dataset, SPAN_THOUGHT), ROWS);
    assert_int_equal(count_spans(&dataset, SPAN_END), ROWS);
    assert_true(report.longest > 4000);
    dataset_free(&dataset);
    text_free(&lines);
    tokenizer_free(coder);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    struct join_request request = request_for("deepseek-r1", 30);
    request.cot_prompt = "Think.";
    write_file(rows_path, ROW ROW "{\"question\": \"a long question that does not fit\", \"thought\": \"T\", \"answer\": \"A\"}\n");
    long live = mem_live();
    bool done = false;
    for (long n = 0; !done; n++) {
        struct text lines = {0};
        struct join_report report;
        mem_fail_after(n, false);
        enum status st = join_documents(&request, tokenizer, &lines, &report, &err);
        mem_fail_after(-1, false);
        done = st == STATUS_OK;
        assert_true(done || st == STATUS_NOMEM);
        assert_true(!done || report.documents == 1);
        problems_clear(&report.problems);
        text_free(&lines);
        assert_int_equal(mem_live(), live);
        assert_true(n < 5000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_hold_every_row_and_fit), cmocka_unit_test(every_format_is_joined),
        cmocka_unit_test(system_message_and_weight_are_kept), cmocka_unit_test(weights_of_turns_are_kept), cmocka_unit_test(long_rows_are_named),
        cmocka_unit_test(what_cannot_be_joined_is_named), cmocka_unit_test(the_seed_is_the_order),
        cmocka_unit_test(gsm8k_in_long_documents), cmocka_unit_test(memory_may_run_out)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
