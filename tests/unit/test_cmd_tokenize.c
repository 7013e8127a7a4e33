/* The commands tokenize and detokenize as a user meets them: files in, lines out in order, exit status. */
#include "tests/support/cmocka_all.h"
#include "tests/support/capture.h"

#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/text.h"
#include "launch/commands.h"
#include "tests/support/scratch.h"
#include "worker/data/demo/demo.h"

static char folder[SCRATCH_SIZE], input[128], output[128], errors[128], model[128];

static int set_up(void **state)
{
    (void)state;
    struct text json = {0}, config = {0};
    struct error err;
    assert_non_null(scratch_folder(folder, "tokenize"));
    snprintf(input, sizeof input, "%s/input", folder);
    snprintf(output, sizeof output, "%s/output", folder);
    snprintf(errors, sizeof errors, "%s/errors", folder);
    snprintf(model, sizeof model, "%s/tokenizer.json", folder);
    assert_ok(demo_tokenizer("", 0, 0, &json, &config, &err), &err);
    assert_ok(file_replace(model, json.data, json.size, &err), &err);
    text_free(&json);
    text_free(&config);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(input);
    unlink(output);
    unlink(errors);
    unlink(model);
    return rmdir(folder);
}

/* Runs with both outputs in files; `in` becomes the input file. */
static int run(int (*command)(int, char **), const char *in, size_t size, const char *option, const char *threads)
{
    struct error err;
    char *argv[] = {"x", "--model", model, "--threads", (char *)threads, input, (char *)option, NULL};
    assert_ok(file_replace(input, in, size, &err), &err);
    return run_captured(command, option ? 7 : 6, argv, output, errors);
}

static char *content(const char *path, size_t *size)
{
    char *text;
    struct error err;
    assert_ok(file_read(path, &text, size, &err), &err);
    return text;
}

static void expect(const char *path, const char *wanted)
{
    size_t size;
    char *text = content(path, &size);
    assert_string_equal(text, wanted);
    mem_free(text);
}

static void expect_error(const char *part)
{
    size_t size;
    char *text = content(errors, &size);
    if (!strstr(text, part))
        print_error("'%s' lacks '%s'\n", text, part);
    assert_non_null(strstr(text, part));
    mem_free(text);
}

static void there_and_back(void **state)
{
    (void)state;
    static const char lines[] = "Hello\n\n  caf\xC3\xA9 <think>\nlast";
    size_t size;
    assert_int_equal(run(cmd_tokenize, lines, sizeof lines - 1, NULL, "2"), 0);
    char *ids = content(output, &size);
    assert_non_null(strstr(ids, "\n[]\n")); /* the empty line */
    assert_int_equal(run(cmd_detokenize, ids, size, NULL, "2"), 0);
    expect(output, "Hello\n\n  caf\xC3\xA9 <think>\nlast\n");
    assert_int_equal(run(cmd_detokenize, ids, size, "--json", "2"), 0);
    expect(output, "\"Hello\"\n\"\"\n\"  caf\xC3\xA9 <think>\"\n\"last\"\n");
    mem_free(ids);
    assert_int_equal(run(cmd_tokenize, "<think>\n", 8, NULL, "1"), 0);
    expect(output, "[4]\n");
    assert_int_equal(run(cmd_tokenize, "\"<think>\"\n", 10, "--json", "1"), 0);
    expect(output, "[4]\n");
    assert_int_equal(run(cmd_tokenize, "<think>\n", 8, "--plain", "1"), 0);
    ids = content(output, &size);
    assert_true(size > 20);
    mem_free(ids);
}

/* More than several blocks, so that order and line numbers across blocks are seen. */
static void order_is_kept(void **state)
{
    (void)state;
    struct text lines = {0};
    size_t one, many;
    for (int i = 0; i < 100000; i++)
        text_printf(&lines, "line %d %.*s\n", i, i % 50, "..................................................");
    assert_int_equal(run(cmd_tokenize, lines.data, lines.size, NULL, "1"), 0);
    char *a = content(output, &one);
    assert_int_equal(run(cmd_tokenize, lines.data, lines.size, NULL, "4"), 0);
    char *b = content(output, &many);
    assert_int_equal(one, many);
    assert_memory_equal(a, b, one);
    assert_int_equal(run(cmd_detokenize, a, one, NULL, "3"), 0);
    expect(output, lines.data);
    text_append(&lines, "bad \xFF\n", 6);
    assert_int_equal(run(cmd_tokenize, lines.data, lines.size, NULL, "4"), 3);
    expect_error("input:100001: the text is not UTF-8: byte 0xff at position 4");
    mem_free(b);
    b = content(output, &many);
    assert_int_equal(one, many); /* all lines before the bad one */
    mem_free(a);
    mem_free(b);
    text_free(&lines);
}

static void a_long_line_fits(void **state)
{
    (void)state;
    size_t size = 3 << 20, found;
    char *line = mem_alloc(size + 1, 1);
    memset(line, 'a', size);
    line[size - 1] = '\n';
    assert_int_equal(run(cmd_tokenize, line, size, NULL, "2"), 0);
    char *ids = content(output, &found);
    assert_int_equal(run(cmd_detokenize, ids, found, NULL, "2"), 0);
    expect(output, line);
    mem_free(ids);
    mem_free(line);
}

static void bad_input_is_named(void **state)
{
    (void)state;
    assert_int_equal(run(cmd_detokenize, "[1, 2]\n[1,\n", 11, NULL, "1"), 3);
    expect_error("input:2: broken JSON");
    assert_int_equal(run(cmd_detokenize, "[1, 99999]\n", 11, NULL, "1"), 3);
    expect_error("input:1: element 1 must be the id of a token");
    assert_int_equal(run(cmd_detokenize, "{}\n", 3, NULL, "1"), 3);
    expect_error("a JSON array of token ids is needed, found an object");
    assert_int_equal(run(cmd_tokenize, "7\n", 2, "--json", "1"), 3);
    expect_error("input:1: a JSON string is needed");
    assert_int_equal(run(cmd_tokenize, "x", 1, "--wrong", "1"), 2);
    assert_int_equal(run(cmd_tokenize, "x", 1, NULL, "0"), 2);
    assert_int_equal(run(cmd_detokenize, "[1]", 3, "more", "1"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back), cmocka_unit_test(order_is_kept),
                                       cmocka_unit_test(a_long_line_fits), cmocka_unit_test(bad_input_is_named)};
    long live = mem_live();
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    return failed || mem_live() != live;
}
