/* `loar data join` as a user meets it: exit status, messages, the file. */
#include "tests/support/cmocka_all.h"
#include "tests/support/capture.h"
#include "tests/support/rows_fixture.h"

#include "launch/commands.h"

static struct rows_fixture fx;
static struct error err;
static char parent[128], out[160], output[128], errors[128];

static int set_up(void **state)
{
    (void)state;
    if (rows_fixture_open(&fx, &err) != STATUS_OK)
        return 1;
    snprintf(parent, sizeof parent, "%s/new", fx.folder);
    snprintf(out, sizeof out, "%s/joined.jsonl", parent);
    snprintf(output, sizeof output, "%s/output", fx.folder);
    snprintf(errors, sizeof errors, "%s/errors", fx.folder);
    static const char rows[] = "{\"question\": \"1+1?\", \"thought\": \"one more\", \"answer\": \"2\"}\n"
                               "{\"question\": \"2+2?\", \"thought\": \"two more\", \"answer\": \"4\"}\n"
                               "{\"question\": \"What is one more than a hundred?\", \"thought\": \"100, 101\", \"answer\": \"101\"}\n"
                               "{\"question\": \"3+3?\", \"thought\": \"three more\", \"answer\": \"6\"}\n";
    rows_fixture_write(&fx, rows, strlen(rows));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(out);
    rmdir(parent);
    unlink(output);
    unlink(errors);
    rows_fixture_close(&fx);
    return 0;
}

#define run(...) run_words(cmd_data, output, errors, "data", "join", __VA_ARGS__)

/* One token a byte, and in each plain row four special ones and a line break: 18, 18, 48 and 20 tokens. */
static void documents_are_made_and_counted(void **state)
{
    (void)state;
    assert_int_equal(run("--rows", fx.rows, "--model", fx.folder, "--tokens", "45", "--chat_template=plain", "--out", out, NULL), 0);
    expect_in(output, "4 rows read, 3 joined into 2 documents, 1 left out");
    expect_in(output, "rows.jsonl:3: 48 tokens, more than 45");
    expect_in(output, "a document holds 1.5 rows and ");
    expect_in(output, "train with format: messages, chat_template: plain, max_length: ");
    expect_in(out, "{\"messages\": [{\"role\": \"user\", \"content\": \"");
    expect_in(out, "{\"role\": \"assistant\", \"reasoning_content\": \"two more\", \"content\": \"4\"}");
    assert_int_equal(run("--rows", fx.rows, "--rows", fx.rows, "--model", fx.folder, "--tokens", "1000", "--out", out, NULL), 0);
    expect_in(output, "8 rows read, 8 joined into 1 document, 0 left out");
    expect_in(output, "chat_template: deepseek-r1");
    unlink(out);
}

/* The options that say how a table is read reach the reader, for join and for show. */
static void tables_are_joined_and_shown(void **state)
{
    (void)state;
    char csv[160];
    char *show[] = {"data", "show", csv, "--model", fx.folder, "--header=q,a,why", "--question_column", "q", "--answer_column", "a"};
    static const char rows[] = "1+1?,2,\"one, more\"\n2+2?,4,two more\n";
    snprintf(csv, sizeof csv, "%s/rows.csv", fx.folder);
    assert_ok(file_replace(csv, rows, strlen(rows), &err), &err);
    assert_int_equal(run("--rows", csv, "--model", fx.folder, "--tokens", "1000", "--out", out, "--header", "q,a,why", "--question_column", "q",
                         "--answer_column=a", "--thought_column", "why", NULL), 0);
    expect_in(out, "{\"role\": \"assistant\", \"reasoning_content\": \"one, more\", \"content\": \"2\"}");
    unlink(out);
    assert_int_equal(run("--rows", csv, "--model", fx.folder, "--tokens", "1000", "--out", out, "--header", "q,a,why", "--quoting", "none",
                         "--question_column", "q", "--answer_column=a", NULL), 3);
    expect_in(errors, "rows.csv:1:19: the row has 4 fields, the header names 3");
    assert_int_equal(run("--rows", csv, "--model", fx.folder, "--tokens", "1000", "--out", out, "--header", "q,a,why", "--text_column", "q", NULL), 3);
    expect_in(errors, "rows.csv:1: a row of plain text is no turn of a conversation");
    assert_int_equal(run("--rows", csv, "--model", fx.folder, "--tokens", "1000", "--out", out, "--quoting", "single", NULL), 2);
    expect_in(errors, "quoting must be double, none or backslash, found 'single'");
    assert_int_equal(run("--rows", fx.rows, "--model", fx.folder, "--tokens", "1000", "--out", out, "--header", "q", NULL), 2);
    expect_in(errors, "is read as JSON, which names its columns itself; leave header out");
    assert_int_equal(run_captured(cmd_data, 10, show, output, errors), 0);
    expect_in(output, "format prompt-completion, 2 rows read, 2 kept");
    assert_false(file_exists(out));
    unlink(csv);
}

static void wrong_usage_is_told(void **state)
{
    (void)state;
    assert_int_equal(run("--model", fx.folder, "--tokens", "50", "--out", out, NULL), 2);
    expect_in(errors, "--rows FILE is missing");
    assert_int_equal(run("--rows", fx.rows, "--tokens", "50", "--out", out, NULL), 2);
    expect_in(errors, "--model DIR is missing");
    assert_int_equal(run("--rows", fx.rows, "--model", fx.folder, "--out", out, NULL), 2);
    expect_in(errors, "--tokens N is missing");
    assert_int_equal(run("--rows", fx.rows, "--model", fx.folder, "--tokens", "50", NULL), 2);
    expect_in(errors, "--out FILE is missing");
    assert_int_equal(run("--rows", fx.rows, "--model", fx.folder, "--tokens", "1", "--out", out, NULL), 2);
    expect_in(errors, "--tokens must be a whole number from 2 to ");
    assert_int_equal(run("--rows", fx.rows, "--model", fx.folder, "--tokens", "50", "--out", out, "--chat_template", "chatml", NULL), 2);
    expect_in(errors, "chat_template 'chatml' is not known; known are deepseek-llm");
    assert_int_equal(run("--rows", fx.rows, "--model", fx.folder, "--tokens", "50", "--out", out, "--format", "csv", NULL), 2);
    expect_in(errors, "unknown row format 'csv'");
    assert_int_equal(run("--rows", fx.rows, "--model", fx.folder, "--tokens", "50", "--out", out, "--sed", "1", NULL), 2);
    expect_in(errors, "unknown option '--sed'");
    assert_int_equal(run(fx.rows, "--model", fx.folder, NULL), 2);
    expect_in(errors, "files of rows are named by --rows");
    assert_false(file_exists(out));
}

static void bad_data_leaves_no_file(void **state)
{
    (void)state;
    assert_int_equal(run("--rows", "/no/such/file", "--model", fx.folder, "--tokens", "50", "--out", out, NULL), 3);
    expect_in(errors, "/no/such/file");
    assert_int_equal(run("--rows", fx.rows, "--model", "/no/such/folder", "--tokens", "50", "--out", out, NULL), 3);
    assert_int_equal(run("--rows", fx.rows, "--model", fx.folder, "--tokens", "5", "--out", out, NULL), 3);
    expect_in(errors, "no row of 4 fits into a document of 5 tokens");
    assert_false(file_exists(out));
    assert_int_equal(run("--rows", fx.rows, "--model", fx.folder, "--tokens", "500", "--out", "/proc/loar/joined", NULL), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(documents_are_made_and_counted), cmocka_unit_test(tables_are_joined_and_shown),
        cmocka_unit_test(wrong_usage_is_told),
                                       cmocka_unit_test(bad_data_leaves_no_file)};
    long live = mem_live();
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    return failed || mem_live() != live;
}
