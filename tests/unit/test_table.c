/* CSV and TSV: fields, quotes, line ends, headers, the place of every fault, and files of other people. */
#include "tests/support/cmocka_all.h"

#include <unistd.h>

#include "common/memory.h"
#include "worker/data/records.h"
#include "worker/data/rows.h"

static struct error err;

/* All rows as "line:name=value,name=value|..."; bad ones as "line:!". `first` (may be NULL) gets the first message. */
static enum status spell(struct table *table, char out[512], struct error *first)
{
    struct jsonl_record record;
    bool found, any = false;
    out[0] = '\0';
    for (;;) {
        TRY(table_next(table, &record, &found, &err));
        if (!found)
            return STATUS_OK;
        struct json *row;
        size_t n = strlen(out);
        n += (size_t)snprintf(out + n, 512 - n, "%s%d:", n ? "|" : "", (int)record.line);
        if (table_parse(table, &record, &row, &err) != STATUS_OK) {
            if (!any && first)
                *first = err;
            any = true;
            snprintf(out + n, 512 - n, "!");
            continue;
        }
        for (const void *it = json_first(row); it; it = json_next(row, it)) {
            size_t size;
            const char *value = json_to_string(json_it_value(it), &size);
            assert_int_equal(size, strlen(value));
            n += (size_t)snprintf(out + n, 512 - n, "%s%s=%s", it == json_first(row) ? "" : ",", json_it_key(it, NULL), value);
        }
        json_free(row);
    }
}

static void expect(char delimiter, enum quoting quoting, const char *header, const char *bytes, const char *rows)
{
    struct table table;
    struct table_rules rules = {quoting, header};
    char found[512];
    assert_ok(table_over("f", delimiter, bytes, strlen(bytes), &rules, &table, &err), &err);
    assert_ok(spell(&table, found, NULL), &err);
    assert_string_equal(found, rows);
    table_close(&table);
    assert_int_equal(mem_live(), 0);
}

static void fields_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *rows;
    } cases[] = {
        {"a,b\n1,2\n3,4\n", "2:a=1,b=2|3:a=3,b=4"},
        {"\xEF\xBB\xBF" "a,b\r\n1,2\r\n\r\n3,4", "2:a=1,b=2|4:a=3,b=4"},
        {"a,b\n\"x, y\",\"say \"\"hi\"\"\"\n", "2:a=x, y,b=say \"hi\""},
        {"a,b\n\"two\r\nlines\n\",2\r\n3,\"\"\n", "2:a=two\r\nlines\n,b=2|5:a=3,b="},
        {"a,b\n\"\"\"\",\"\"\"\"\"\"\n,\n", "2:a=\",b=\"\"|3:a=,b="},
        {"a,b\n5\" pipe,it\"\"s\n x , \"y\"\n", "2:a=5\" pipe,b=it\"\"s|3:a= x ,b= \"y\""},
        {"a\n\n\"\"\none\\n\r", "3:a=|4:a=one\\n"},
        {"\"a, a\", b ,\n1,2,3\n", "2:a, a=1,b=2"},
        {",a\n0,x\n", "2:a=x"},
        {"a,b\n\xC3\xA4,\xE2\x82\xAC\n", "2:a=\xC3\xA4,b=\xE2\x82\xAC"},
        {"a,b\n", ""},
        {"", ""},
        {"\r\n\n", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect(',', QUOTING_DOUBLE, NULL, cases[i].bytes, cases[i].rows);
    expect('\t', QUOTING_DOUBLE, NULL, "a\tb\n\"x\ty\"\t1,5\n", "2:a=x\ty,b=1,5");
    expect('\t', QUOTING_NONE, NULL, "a\tb\n\"x\ty\\n\\\\\"\"\r\n", "2:a=\"x,b=y\\n\\\\\"\"");
    expect('\t', QUOTING_BACKSLASH, NULL, "a\tb\n\"x\\ty\\r\"\\n\\\\n\ty\\1\\\n", "2:a=\"x\ty\r\"\n\\n,b=y\\1\\");
    expect('\t', QUOTING_BACKSLASH, " q ,\"a, b\",", "1\t2\t3\n", "1:q=1,a, b=2");
}

static enum status given(const struct error *from, struct error *to)
{
    *to = *from;
    return from->code;
}

static void faults_have_a_place(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *rows, *message;
    } cases[] = {
        {"a,b\n1\n3,4\n", "2:!|3:a=3,b=4", "f:2:2: the row has 1 field, the header names 2; put fields that hold a comma"},
        {"a,b\n\"1\n2\",3,4\n5,6", "2:!|4:a=5,b=6", "f:3:7: the row has 3 fields, the header names 2"},
        {"a,b\n\"x\" y,2\n3,4\n", "2:!|3:a=3,b=4", "f:2:4: text behind the quote that closes the field; write a quote inside a field twice"},
        {"a,b\n\"1\n\"\"\",\"2\"3\r\n5,6\r\n", "2:!|4:a=5,b=6", "f:3:8: text behind the quote"},
        {"\xEF\xBB\xBF" "a,b\n1,\xFF\n", "2:!", "f:2:3: invalid UTF-8 (0xff) at byte 9 of the file"},
        {"a,b\n\"\n\xC3\",2\n", "2:!", "f:3:1: invalid UTF-8 (0xc3) at byte 6 of the file"},
    };
    struct table table;
    struct table_rules rules = {0};
    struct error first;
    char found[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(table_over("f", ',', cases[i].bytes, strlen(cases[i].bytes), &rules, &table, &err), &err);
        assert_ok(spell(&table, found, &first), &err);
        assert_string_equal(found, cases[i].rows);
        assert_refused(given(&first, &err), STATUS_DATA, &err, cases[i].message);
        table_close(&table);
    }
    static const char nul[] = "a,b\n1,x\0y\n";
    assert_ok(table_over("f", ',', nul, sizeof nul - 1, &rules, &table, &err), &err);
    assert_ok(spell(&table, found, &first), &err);
    assert_refused(given(&first, &err), STATUS_DATA, &err, "f:2:4: a NUL byte (0x00) at byte 7 of the file");
    table_close(&table);
    static const char open[] = "a,b\n1,2\n3,\"4\n5,6\n";
    assert_ok(table_over("f", ',', open, sizeof open - 1, &rules, &table, &err), &err);
    assert_refused(spell(&table, found, NULL), STATUS_DATA, &err, "f:3:3: the quote that begins this field never closes");
    assert_string_equal(found, "2:a=1,b=2");
    table_close(&table);
    assert_int_equal(mem_live(), 0);
}

static void headers_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *header, *bytes, *message;
    } cases[] = {
        {NULL, "a,b,a \n", "f: columns 1 and 3 are both named 'a'"},
        {NULL, "a,\"b\"c\n", "f:1:6: text behind the quote"},
        {NULL, "a,\"b\n", "f:1:3: the quote that begins this field never closes"},
        {NULL, "a,\xFF\n", "f:1:3: invalid UTF-8 (0xff)"},
        {"a,a", "1,2\n", "f: header: columns 1 and 2 are both named 'a'"},
        {"a,\"b\"c", "1,2\n", "f: header:1:6: text behind the quote"},
        {"a,\xFF", "1,2\n", "f: header:1:3: invalid UTF-8 (0xff)"},
    };
    struct table table;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct table_rules rules = {QUOTING_DOUBLE, cases[i].header};
        assert_refused(table_over("f", ',', cases[i].bytes, strlen(cases[i].bytes), &rules, &table, &err), STATUS_DATA, &err, cases[i].message);
        table_close(&table);
    }
    bool known;
    struct table_rules rules = {0};
    assert_ok(table_rules_set(&rules, "quoting", "backslash", &known, &err), &err);
    assert_true(known && rules.quoting == QUOTING_BACKSLASH);
    assert_refused(table_rules_set(&rules, "quoting", "single", &known, &err), STATUS_USAGE, &err, "double, none or backslash, found 'single'");
    assert_ok(table_rules_set(&rules, "format", "x", &known, &err), &err);
    assert_false(known);
    assert_int_equal(mem_live(), 0);
}

static void endings_choose_the_reader(void **state)
{
    (void)state;
    assert_int_equal(table_delimiter("x/a.csv"), ',');
    assert_int_equal(table_delimiter("a.TSV"), '\t');
    assert_int_equal(table_delimiter("a.csv.jsonl"), 0);
    assert_int_equal(table_delimiter(".csv"), 0);
    struct records records;
    struct table_rules rules = {.header = "a,b"};
    assert_refused(records_open("rows.jsonl", &rules, &records, &err), STATUS_USAGE, &err, "'rows.jsonl' is read as JSON");
    assert_refused(records_open("/nonexistent/rows.csv", &rules, &records, &err), STATUS_DATA, &err, "/nonexistent/rows.csv");
    assert_int_equal(mem_live(), 0);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    static const char bytes[] = "a,\"b\"\n\"x\"\"y\",2\n";
    struct table_rules rules = {0};
    enum status st = STATUS_NOMEM;
    long n = 0;
    for (; st != STATUS_OK; n++) {
        struct table table;
        struct jsonl_record record;
        struct json *row = NULL;
        bool found;
        mem_fail_after(n, n % 2);
        st = table_over("f", ',', bytes, sizeof bytes - 1, &rules, &table, &err);
        if (st == STATUS_OK)
            st = table_next(&table, &record, &found, &err);
        if (st == STATUS_OK)
            st = table_parse(&table, &record, &row, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        if (st == STATUS_OK)
            assert_string_equal(json_to_string(json_member(row, "a"), NULL), "x\"y");
        json_free(row);
        table_close(&table);
        assert_int_equal(mem_live(), 0);
    }
    assert_true(n > 5);
}

/* Reads a whole shared file as rows; every one must be good. */
static int64_t read_file(const char *path, const struct table_rules *rules, const struct row_options *options, const char *format_name,
                         int64_t *thoughts, char answer[64])
{
    struct records records;
    struct jsonl_record record;
    struct arena arena = {.block_bytes = 4096};
    const struct row_format *format = NULL;
    bool found;
    int64_t rows = 0;
    assert_ok(records_open(path, rules, &records, &err), &err);
    for (;; rows++) {
        struct json *row;
        struct conversation c;
        assert_ok(records_next(&records, &record, &found, &err), &err);
        if (!found)
            break;
        assert_ok(records_parse(&records, &record, &row, &err), &err);
        if (!format)
            assert_ok(row_format_detect(row, path, record.line, options, &format, &err), &err);
        assert_ok(row_read(format, row, path, record.line, options, &arena, &c, &err), &err);
        *thoughts += c.messages[1].thought != NULL;
        assert_null(memmem(c.messages[0].content, c.messages[0].content_size, "\\n", 2));
        snprintf(answer, 64, "%.*s", (int)c.messages[1].content_size, c.messages[1].content);
        json_free(row);
        arena_reset(&arena);
    }
    assert_string_equal(row_format_name(format), format_name);
    arena_free(&arena);
    records_close(&records);
    assert_int_equal(mem_live(), 0);
    return rows;
}

static void banking77_is_read_whole(void **state)
{
    (void)state;
    const struct row_options options = {.columns = {{[ROW_QUESTION] = "text", [ROW_ANSWER] = "category"}}};
    struct table_rules rules = {0};
    int64_t thoughts = 0;
    char answer[64];
    const char *path = shared_data("classification/banking77/train.csv");
    if (!path)
        skip();
    assert_int_equal(read_file(path, &rules, &options, "prompt-completion", &thoughts, answer), 10003);
    assert_string_equal(answer, "country_support");
    assert_int_equal(read_file(shared_data("classification/banking77/test.csv"), &rules, &options, "prompt-completion", &thoughts, answer), 3080);
    assert_int_equal(thoughts, 0);
}

static void flan_is_read_whole(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        int64_t rows;
    } files[] = {{"cot/flan/creak_train.tsv", 6915}, {"cot/flan/sensemaking_train.tsv", 6070}, {"cot/flan/strategyqa_train.tsv", 2061}};
    const struct row_options options = {0};
    struct table_rules rules = {.quoting = QUOTING_BACKSLASH, .header = "question,answer,thought"};
    char answer[64];
    for (int i = 0; i < 3; i++) {
        int64_t thoughts = 0;
        const char *path = shared_data(files[i].path);
        if (!path)
            skip();
        assert_int_equal(read_file(path, &rules, &options, "qa-cot", &thoughts, answer), files[i].rows);
        assert_int_equal(thoughts, files[i].rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_read), cmocka_unit_test(faults_have_a_place), cmocka_unit_test(headers_are_checked),
        cmocka_unit_test(endings_choose_the_reader), cmocka_unit_test(memory_may_run_out), cmocka_unit_test(banking77_is_read_whole),
        cmocka_unit_test(flan_is_read_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
