/* The YAML reader: trees with places, strict refusals, conversion to JSON, short memory. */
#include "tests/support/cmocka_all.h"

#include <unistd.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/scalar.h"
#include "common/yaml.h"
#include "tests/support/scratch.h"

static struct error err;

static enum status parse(const char *text, struct yaml_document **out)
{
    return yaml_parse(text, strlen(text), "f.yaml", out, &err);
}

static void tree_with_places(void **state)
{
    (void)state;
    struct yaml_document *d;
    assert_ok(parse("\xEF\xBB\xBF# comment\na: 1\r\nb:\n  - x\n  - \"y z\"\n  - {k: v}\n", &d), &err);
    const struct yaml *root = yaml_root(d);
    assert_int_equal(yaml_kind(root), YAML_KIND_MAP);
    assert_int_equal(yaml_count(root), 2);
    const struct yaml *a = yaml_first(root), *b = yaml_next(a);
    assert_string_equal(yaml_text(yaml_key(a)), "a");
    assert_string_equal(yaml_text(a), "1");
    assert_true(yaml_plain(a));
    assert_int_equal(yaml_line(a), 2);
    assert_int_equal(yaml_kind(b), YAML_KIND_LIST);
    assert_int_equal(yaml_count(b), 3);
    const struct yaml *y = yaml_next(yaml_first(b));
    assert_string_equal(yaml_text(y), "y z");
    assert_false(yaml_plain(y));
    assert_int_equal(yaml_line(y), 5);
    assert_int_equal(yaml_column(y), 5);
    assert_int_equal(yaml_kind(yaml_next(y)), YAML_KIND_MAP);
    yaml_close(d);
    assert_ok(parse("", &d), &err);
    assert_null(yaml_root(d));
    yaml_close(d);
}

static void hostile_texts_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"a: 1\nb: 2\na: 3\n", "f.yaml:3:1: a: given twice, first in line 1"},
        {"x: {k: 1, k: 2}\n", "given twice"},
        {"a: &x 1\n", "f.yaml:1:4: anchor '&x'"},
        {"a: *x\n", "alias '*x'"},
        {"a: !!int 3\n", "tags are not supported"},
        {"a: !custom {b: 1}\n", "tags are not supported"},
        {"a: 1\n---\nb: 2\n", "a second document"},
        {"---\n---\n", "a second document"},
        {"a:\n\tb: 1\n", "f.yaml:2:1: a tab"},
        {"a:\n  \tb: 1\n", "f.yaml:2:3: a tab"},
        {"? [a, b]\n: 1\n", "a list as a key"},
        {"{a: 1}: 2\n", "a mapping as a key"},
        {"a: [1, 2\n", "f.yaml:2:1"},
        {"a: \"x\n", "f.yaml:2:1"},
        {"a: b: c\n", "f.yaml:1:5"},
        {"a: \"\\0\"\n", "NUL"},
        {"a: \xff\n", "f.yaml:1"},
        {"a: \x01\n", "UTF-8"},
        {"[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "nested deeper than 16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct yaml_document *d;
        long live = mem_live();
        assert_refused(parse(cases[i].text, &d), STATUS_DATA, &err, cases[i].part);
        assert_int_equal(mem_live(), live);
    }
}

static void sizes_are_capped(void **state)
{
    (void)state;
    struct yaml_document *d;
    struct text text = {0};
    for (int i = 0; i <= YAML_MAX_NODES; i++)
        text_puts(&text, i ? ",1" : "[1");
    text_puts(&text, "]");
    assert_refused(parse(text.data, &d), STATUS_DATA, &err, "more than 100000 values");
    text_clear(&text);
    for (int i = 0; i <= YAML_MAX_KEYS; i++)
        text_printf(&text, "k%d: 1\n", i);
    assert_refused(parse(text.data, &d), STATUS_DATA, &err, "more than 1000 keys");
    text_clear(&text);
    for (int i = 0; i < (1 << 20) / 8 + 1; i++)
        text_puts(&text, "# filler");
    assert_refused(parse(text.data, &d), STATUS_DATA, &err, "1048584 bytes");
    text_free(&text);
}

static void scalars(void **state)
{
    (void)state;
    static const char *const reals[] = {"2e-5", "2.0E-5", "-1", "+1", ".5", "1.", "0", "-0.0", "1e+3", "1.5e3"};
    static const char *const not_reals[] = {"", ".", "e5", "1e", "1e+", "0x10", "1_000", "01.5", "nan", "inf", ".inf", "1e999", "1 ", " 1", "--1", "1d3"};
    static const char *const not_ints[] = {"", "1.0", "1e3", "010", "00", "0x1", "1_0", "9223372036854775808", "-", "+", "1 "};
    double real;
    int64_t integer;
    bool truth;
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
        assert_true(scalar_to_real(reals[i], &real) && real == strtod(reals[i], NULL));
    for (size_t i = 0; i < sizeof not_reals / sizeof not_reals[0]; i++)
        assert_false(scalar_to_real(not_reals[i], &real));
    for (size_t i = 0; i < sizeof not_ints / sizeof not_ints[0]; i++)
        assert_false(scalar_to_int(not_ints[i], &integer));
    assert_true(scalar_to_int("-9223372036854775808", &integer) && integer == INT64_MIN);
    assert_true(scalar_to_bool("Yes", &truth) && truth);
    assert_true(scalar_to_bool("OFF", &truth) && !truth);
    assert_false(scalar_to_bool("tRue", &truth));
    assert_false(scalar_to_bool("y", &truth));
    assert_false(scalar_to_bool("", &truth));
    static const double values[] = {0.1, 1e-5, 5e-5, 1.0 / 3, 1e300, 123456789, 0.30000000000000004, -2.5};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct text text = {0};
        scalar_put_real(&text, values[i]);
        assert_true(scalar_to_real(text.data, &real) && real == values[i]);
        text_free(&text);
    }
}

/* Whatever a string holds, YAML reads it back as the same string. */
static void strings_survive(void **state)
{
    (void)state;
    static const char *const strings[] = {
        "plain", "two words", "true", "No", "12", "1e3", "~", "null", "- x", "a: b", "#x", "x #y", "\"q\"", "it's", "back\\slash", "a\nb\tc\r",
        "\x01\x7f", "｜User｜", "\xC2\x85\xE2\x80\xA8\xE2\x80\xA9\xEF\xBB\xBF", "\xF0\x9F\x98\x80", "...", ".", "/a/b-c_d.e", "-x", "&a", "*a", "!t", "%d", "@x", "`y`", "{", "[", ">", "|", "?",
    };
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        struct text text = {0};
        struct yaml_document *d;
        text_puts(&text, "[");
        scalar_put_string(&text, strings[i]);
        text_puts(&text, "]");
        assert_ok(parse(text.data, &d), &err);
        const struct yaml *node = yaml_first(yaml_root(d));
        assert_string_equal(yaml_text(node), strings[i]);
        yaml_close(d);
        text_free(&text);
    }
}

static void becomes_json(void **state)
{
    (void)state;
    char path[SCRATCH_SIZE];
    static const char yaml[] = "architectures: [LlamaForCausalLM]\nrms_norm_eps: 1e-5\nrope_theta: 10000.\ntie: false\nbits: '16'\n"
                               "nothing: ~\nn: 007\nrope_scaling: {type: linear, factor: +2}\nhalf: .5\n";
    struct text json = {0};
    assert_non_null(scratch_file(path, "yaml"));
    assert_ok(file_replace(path, yaml, sizeof yaml - 1, &err), &err);
    assert_ok(yaml_file_to_json_text(path, &json, &err), &err);
    assert_string_equal(json.data, "{\"architectures\": [\"LlamaForCausalLM\"], \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000, "
                                   "\"tie\": false, \"bits\": \"16\", \"nothing\": null, \"n\": \"007\", "
                                   "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, \"half\": 0.5}");
    struct json *value;
    assert_ok(json_parse(json.data, json.size, "json", &value, &err), &err);
    json_free(value);
    text_clear(&json);
    assert_ok(file_replace(path, "x: .nan\n", 8, &err), &err);
    assert_refused(yaml_file_to_json_text(path, &json, &err), STATUS_DATA, &err, "wanted a finite number");
    assert_ok(file_replace(path, "- 1\n", 4, &err), &err);
    assert_refused(yaml_file_to_json_text(path, &json, &err), STATUS_DATA, &err, "wanted a mapping");
    assert_ok(file_replace(path, "", 0, &err), &err);
    assert_refused(yaml_file_to_json_text(path, &json, &err), STATUS_DATA, &err, "empty");
    unlink(path);
    assert_refused(yaml_file_to_json_text(path, &json, &err), STATUS_DATA, &err, "cannot open");
    text_free(&json);
}

static void short_memory(void **state)
{
    (void)state;
    static const char yaml[] = "a: [1, 2, {b: c}]\nd: \"e\"\n";
    enum status st = STATUS_NOMEM;
    int n = 0;
    for (; st != STATUS_OK; n++) {
        struct yaml_document *d = NULL;
        long live = mem_live();
        mem_fail_after(n, true);
        st = yaml_parse(yaml, sizeof yaml - 1, "f", &d, &err);
        mem_fail_after(-1, false);
        if (st == STATUS_OK)
            yaml_close(d);
        else
            assert_int_equal(st, STATUS_NOMEM);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_with_places), cmocka_unit_test(hostile_texts_are_refused), cmocka_unit_test(sizes_are_capped),
        cmocka_unit_test(scalars),          cmocka_unit_test(strings_survive),           cmocka_unit_test(becomes_json),
        cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
