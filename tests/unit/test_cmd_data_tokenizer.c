/* `loar data tokenizer` as a user meets it: exit status, messages, what lies on disk afterwards. */
#include "tests/support/cmocka_all.h"
#include "tests/support/capture.h"

#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/commands.h"
#include "tests/support/scratch.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"

static char folder[SCRATCH_SIZE], rows[128], text[128], out[128], output[128], errors[128], tokenizer_file[192], config_file[192];
static struct error err;

static void write_file(const char *path, const char *content)
{
    assert_ok(file_replace(path, content, strlen(content), &err), &err);
}

static int set_up(void **state)
{
    (void)state;
    if (!scratch_folder(folder, "data"))
        return 1;
    snprintf(rows, sizeof rows, "%s/rows.jsonl", folder);
    snprintf(text, sizeof text, "%s/text", folder);
    snprintf(out, sizeof out, "%s/a/tokenizer", folder);
    snprintf(output, sizeof output, "%s/output", folder);
    snprintf(errors, sizeof errors, "%s/errors", folder);
    snprintf(tokenizer_file, sizeof tokenizer_file, "%s/tokenizer.json", out);
    snprintf(config_file, sizeof config_file, "%s/tokenizer_config.json", out);
    write_file(rows, "{\"question\": \"6 cups, minus 2?\", \"thought\": \"6, minus 2 makes 4 cups\", \"answer\": \"4 cups\"}\n"
                     "{\"question\": \"9 cups, minus 1?\", \"thought\": \"9, minus 1 makes 8 cups\", \"answer\": \"8 cups\"}\n");
    write_file(text, "cups and cups\nmore cups\n");
    return 0;
}

static void remove_tokenizer(void)
{
    char parent[128];
    snprintf(parent, sizeof parent, "%s/a", folder);
    unlink(tokenizer_file);
    unlink(config_file);
    rmdir(out);
    rmdir(parent);
}

static int tear_down(void **state)
{
    (void)state;
    remove_tokenizer();
    unlink(rows);
    unlink(text);
    unlink(output);
    unlink(errors);
    return rmdir(folder);
}

/* loar data tokenizer with the arguments, up to NULL; both outputs go into files. */
#define run(...) run_words(cmd_data, output, errors, "data", "tokenizer", __VA_ARGS__)

static void a_folder_is_made_that_loads(void **state)
{
    (void)state;
    struct tokenizer *t;
    assert_int_equal(run("--rows", rows, "--rows", rows, "--size=300", "--out", out, "--threads", "2", NULL), 0);
    expect_in(output, "4 rows, ");
    expect_in(output, "275 tokens: 6 special, 256 bytes, 13 joined; not 300, for no other neighbours meet 2 times");
    remove_tokenizer();
    assert_int_equal(run("--rows", rows, "--size", "270", "--out", out, NULL), 0);
    expect_in(output, "270 tokens: 6 special, 256 bytes, 8 joined, the last one ");
    assert_ok(tokenizer_load(out, &t, &err), &err);
    assert_int_equal(tokenizer_size(t), 270);
    assert_ok(template_check(template_find("deepseek-r1"), t, &err), &err);
    assert_true(tokenizer_id(t, "\xC4\xA0" "cups") >= 0);
    tokenizer_free(t);
    assert_int_equal(run("--rows", rows, "--out", out, NULL), 2);
    expect_in(errors, "not empty");
    remove_tokenizer();
    assert_int_equal(run("--rows", text, "--format", "text", "--out", out, "--min_count", "3", NULL), 0);
    expect_in(output, "not 4096, for no other neighbours meet 3 times");
    remove_tokenizer();
}

static void tables_are_learnt_from(void **state)
{
    (void)state;
    char csv[128];
    snprintf(csv, sizeof csv, "%s/rows.csv", folder);
    write_file(csv, "say,label\n\"cups, cups\",x\ncups cups,y\n");
    assert_int_equal(run("--rows", csv, "--out", out, "--text_column", "say", "--size", "300", NULL), 0);
    expect_in(output, "2 rows, 19 bytes of text");
    remove_tokenizer();
    assert_int_equal(run("--rows", csv, "--out", out, "--format", "text", NULL), 3); /* never the lines of the file */
    expect_in(errors, "rows.csv:2: format text needs the columns text; found say, label");
    unlink(csv);
}

static void wrong_usage_is_told(void **state)
{
    (void)state;
    assert_int_equal(run("--out", out, NULL), 2);
    expect_in(errors, "--rows FILE is missing");
    assert_int_equal(run("--rows", rows, NULL), 2);
    expect_in(errors, "--out DIR is missing");
    assert_int_equal(run("--rows", rows, "--out", out, "--size", "261", NULL), 2);
    expect_in(errors, "--size must be from 262 (256 bytes and 6 special tokens");
    assert_int_equal(run("--rows", rows, "--out", out, "--size", "9999999999", NULL), 2);
    assert_int_equal(run("--rows", rows, "--out", out, "--size", "many", NULL), 2);
    assert_int_equal(run("--rows", rows, "--out", out, "--min_count", "0", NULL), 2);
    assert_int_equal(run("--rows", rows, "--out", out, "--threads", "0", NULL), 2);
    assert_int_equal(run("--rows", rows, "--out", out, "--format", "csv", NULL), 2);
    expect_in(errors, "unknown row format 'csv'; known are auto, messages, sharegpt, qa-cot, medical-o1, gsm8k, prompt-completion, alpaca, classification, text");
    assert_int_equal(run("--rows", rows, "--out", out, "--sise", "300", NULL), 2);
    expect_in(errors, "unknown option '--sise'");
    assert_int_equal(run("--out", out, "--rows", NULL), 2);
    expect_in(errors, "--rows needs a value");
    assert_int_equal(run(rows, "--out", out, NULL), 2);
    expect_in(errors, "files of rows are named by --rows");
    assert_int_equal(run("--rows", rows, "--out", text, NULL), 2);
    expect_in(errors, "not a folder; name another");
    assert_false(folder_exists(out));
}

static void bad_data_leaves_no_folder(void **state)
{
    (void)state;
    char beneath[160];
    assert_int_equal(run("--rows", text, "--out", out, NULL), 3);
    expect_in(errors, "text:1");
    expect_in(errors, "plain text needs the format text");
    assert_false(folder_exists(out));
    assert_int_equal(run("--rows", rows, "--rows", "/no/such/file", "--out", out, NULL), 3);
    expect_in(errors, "/no/such/file");
    assert_false(folder_exists(out));
    snprintf(beneath, sizeof beneath, "%s/below", text);
    assert_int_equal(run("--rows", rows, "--out", beneath, NULL), 2);
    snprintf(beneath, sizeof beneath, "/proc/loar-tokenizer");
    assert_int_equal(run("--rows", rows, "--out", beneath, NULL), 3);
    expect_in(errors, "name another folder with --out");
}

static void a_folder_that_was_there_stays(void **state)
{
    (void)state;
    assert_ok(folder_make(out, &err), &err);
    assert_int_equal(run("--rows", "/no/such/file", "--out", out, NULL), 3);
    assert_true(folder_exists(out));
    assert_int_equal(run("--rows", rows, "--out", out, NULL), 0);
    assert_true(file_exists(tokenizer_file) && file_exists(config_file));
    remove_tokenizer();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_folder_is_made_that_loads), cmocka_unit_test(tables_are_learnt_from), cmocka_unit_test(wrong_usage_is_told),
                                       cmocka_unit_test(bad_data_leaves_no_folder),
                                       cmocka_unit_test(a_folder_that_was_there_stays)};
    long live = mem_live();
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    return failed || mem_live() != live;
}
