/* What a run keeps of its options: files that a run file names become part of them, what is written reads back, a resumed run
 * changes only what is free, and kept rows are known by the keys that shape them. */
#include "tests/support/cmocka_all.h"

#include <unistd.h>

#include "common/files.h"
#include "tests/support/parsed_options.h"
#include "tests/support/scratch.h"

/* Parses with chat_template naming a file that holds `text`; NULL: no file. */
static enum status parse_template(const char *text, char **overrides)
{
    char folder[SCRATCH_SIZE], path[SCRATCH_SIZE + 16], key[128];
    assert_non_null(scratch_folder(folder, "template"));
    snprintf(path, sizeof path, "%s/template.yaml", folder);
    if (text)
        assert_ok(file_replace(path, text, strlen(text), &err), &err);
    snprintf(key, sizeof key, "chat_template: %s\n", path);
    enum status st = parse(key, overrides);
    assert_int_equal(scratch_remove(folder), 0);
    return st;
}

static void template_files_become_text(void **state)
{
    (void)state;
    static const char text[] = "# \"quoted\"\nuser: {prefix: \"Q: \"}\n";
    assert_ok(parse_template(text, NULL), &err);
    assert_string_equal(o.chat_template_text, text);
    assert_int_equal(o.sources[OPTION_chat_template_text].origin, ORIGIN_FILE);
    /* What was formatted needs no file any more. */
    struct text lines = {0};
    options_format(&o, OPTIONS_ALL, &lines);
    options_free(&o);
    assert_ok(options_parse_text(lines.data, lines.size, "lines", 0, NULL, &o, NULL, &err), &err);
    assert_string_equal(o.chat_template_text, text);
    /* Another text is another run. */
    char *other[] = {"chat_template_text=user: {}", NULL};
    struct options changed;
    assert_ok(options_parse_text(lines.data, lines.size, "lines", 1, other, &changed, NULL, &err), &err);
    assert_refused(options_check_resume(&changed, lines.data, lines.size, NULL, &err), STATUS_USAGE, &err, "chat_template_text");
    options_free(&changed);
    options_free(&o);
    text_free(&lines);
    assert_refused(parse_template(NULL, NULL), STATUS_USAGE, &err, "run.yaml:3:1: chat_template: ");
    assert_refused(parse_template("", NULL), STATUS_USAGE, &err, "is empty");
    assert_refused(parse_template("user: \xff\n", NULL), STATUS_USAGE, &err, "is not UTF-8 text");
    char *resume[] = {"resume_from_checkpoint=true", NULL};
    assert_ok(parse_template(NULL, resume), &err); /* the snapshot may have it */
    assert_null(o.chat_template_text);
    assert_non_null(strstr(notes.data, "the snapshot's template is used"));
    options_free(&o);
    assert_refused(parse("chat_template: deepseek-r0\n", NULL), STATUS_USAGE, &err,
                   "run.yaml:3:1: chat_template: found 'deepseek-r0', wanted one of deepseek-llm, ");
    assert_non_null(strstr(err.text, "; did you mean 'deepseek-"));
    assert_refused(parse("chat_template_text: a\n", NULL), STATUS_USAGE, &err, "chat_template_text: not used by the template 'plain'");
    assert_refused(parse("thought_open: <t>\n", NULL), STATUS_USAGE, &err, "thought_open and thought_close belong together");
    assert_ok(parse("train_on_eos: none\nmask_history: true\n", NULL), &err);
    assert_true(o.last_turn_only && strstr(notes.data, "train_on_eos: none: no end token is learnt"));
    options_free(&o);
}

static char layers_path[SCRATCH_SIZE];

static void write_layers(const char *text)
{
    assert_ok(file_replace(layers_path, text, strlen(text), &err), &err);
}

/* Parses with loar.layers_file on the command line. */
static enum status parse_layers(const char *text, const char *file)
{
    char word[128];
    snprintf(word, sizeof word, "loar.layers_file=%s", file);
    char *overrides[] = {word, NULL};
    return parse(text, overrides);
}

static void layers_from_a_file(void **state)
{
    (void)state;
    assert_non_null(scratch_file(layers_path, "layers"));
    write_layers("# found elsewhere\nloar:\n  layers:\n    - {range: 0-2, window: 128, sinks: 4, budget: 0.5}\n    - {range: 3, preset: dense}\n");
    assert_ok(parse_layers("loar: {layers: [], window: 128}\n", layers_path), &err);
    assert_null(o.loar.layers_file);
    assert_int_equal(o.loar.layers.count, 2);
    assert_string_equal(o.loar.layers.items[0].range, "0-2");
    assert_true(o.loar.layers.items[0].window == 128 && o.loar.layers.items[0].budget == 0.5);
    assert_string_equal(o.loar.layers.items[1].preset, "dense");
    assert_int_equal(options_get_source(&o, "loar.layers").origin, ORIGIN_COMMAND_LINE);
    assert_true(!notes.size || !strstr(notes.data, "layers"));
    struct text saved = {0}, again = {0};
    options_format(&o, OPTIONS_ALL, &saved);
    options_free(&o);

    /* What was saved needs the file no more, and a run may be resumed with it as long as it says the same. */
    write_layers("loar: {layers: [{range: 0-2, window: 128, sinks: 4, budget: 0.5}, {range: 3, preset: dense}]}\n");
    assert_ok(parse_layers("loar: {window: 128}\n", layers_path), &err);
    assert_ok(options_check_resume(&o, saved.data, saved.size, NULL, &err), &err);
    options_free(&o);
    write_layers("loar: {layers: [{range: 0-2, window: 128, sinks: 4, budget: 0.5}, {range: 2, preset: dense}]}\n");
    assert_ok(parse_layers("loar: {window: 128}\n", layers_path), &err);
    assert_refused(options_check_resume(&o, saved.data, saved.size, NULL, &err), STATUS_USAGE, &err,
                   "loar.layers.1.range: the run began with \"3\", now found \"2\"");
    options_free(&o);
    assert_int_equal(unlink(layers_path), 0);
    assert_ok(options_parse_text(saved.data, saved.size, "saved", 0, NULL, &o, NULL, &err), &err);
    options_format(&o, OPTIONS_ALL, &again);
    assert_string_equal(saved.data, again.data);
    options_free(&o);
    text_free(&saved);
    text_free(&again);
}

static void layers_files_refused(void **state)
{
    (void)state;
    static const struct {
        const char *file, *part;
        bool path_follows; /* the part goes on with the file's path */
    } rows[] = {
        {"", "command line: loar.layers_file: '", true},
        {"loar: {layers: []}\n", "holds no loar.layers, or none that has an entry", false},
        {"- a\n", "loar.layers_file: ", true},
        {"loar:\n  layers: [\n", "loar.layers_file: ", true},
        {"loar:\n  layers:\n    - {windw: 3}\n", ":3:8: loar.layers.0.windw: unknown key; did you mean 'window'?", false},
        {"loar:\n  layers:\n    - {range: 0}\n    - {budget: 2}\n", ":4:16: loar.layers.1.budget: found '2'", false},
        {"loar: {layers: articel}\n", ":1:8: loar.layers: found 'articel'", false},
        {"loar:\n  layers: article\n  budget: 0.5\n", ":3:3: loar.budget: a layers file holds `loar: {layers: [...]}` alone", false},
        {"loar: {layers: article}\nseed: 1\n", ":2:1: seed: a layers file holds", false},
        {"loar: {layers: article, layers_file: x}\n", ":1:25: loar.layers_file: a layers file holds", false},
        {"layers: article\n", ":1:1: layers: unknown key", false},
    };
    assert_non_null(scratch_file(layers_path, "layers"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_layers(rows[i].file);
        char part[128];
        snprintf(part, sizeof part, "%s%s", rows[i].part, rows[i].path_follows ? layers_path : "");
        assert_refused(parse_layers("", layers_path), STATUS_USAGE, &err, part);
        assert_null(strstr(err.text, "missing, so the model is dense"));
    }
    write_layers("loar: {layers: [{rang: 0}, {windw: 1}]}\n");
    assert_refused(parse_layers("seeds: 3\n", layers_path), STATUS_USAGE, &err, "3 problems");
    assert_non_null(strstr(err.text, "run.yaml:3:1: seeds"));
    write_layers("loar: {layers: article}\n");
    assert_refused(parse_layers("loar: {layers: article}\n", layers_path), STATUS_USAGE, &err,
                   "command line: loar.layers_file: given together with loar.layers; keep one");
    assert_refused(parse("loar: {layers_file: /nowhere/layers.yaml}\n", NULL), STATUS_USAGE, &err,
                   "run.yaml:3:8: loar.layers_file: cannot open '/nowhere/layers.yaml'");
    assert_refused(parse_layers("", "/tmp"), STATUS_USAGE, &err, "loar.layers_file: '/tmp' is not a regular file");
    char word[128];
    snprintf(word, sizeof word, "loar.layers_file=%s", layers_path);
    int n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        long live = mem_live();
        mem_fail_after(n, n % 2);
        st = options_parse_text(base, strlen(base), "run.yaml", 1, (char *[]){word}, &o, NULL, &err);
        mem_fail_after(-1, false);
        if (st != STATUS_OK)
            assert_int_equal(st, STATUS_NOMEM);
        else
            options_free(&o);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 20);
    assert_int_equal(unlink(layers_path), 0);
}

/* What the snapshot keeps reads back as the same options. */
static void lines_read_back(void **state)
{
    (void)state;
    char *overrides[] = {"cot_prompt=Think\n \"step\" | by step｜", "stop=[x, \"a: b\"]", "learning_rate=0.30000000000000004", "ps.slots=8",
                         "eval_datasets=[{path: e, name: \"é, {}\"}]", NULL};
    struct text first = {0}, second = {0}, given = {0}, fixed = {0};
    assert_ok(parse("lr_milestones: [0.8, 0.9]\nlr_factors: [0.316, 0.1]\n", overrides), &err);
    options_format(&o, OPTIONS_ALL, &first);
    options_format(&o, OPTIONS_GIVEN, &given);
    options_format(&o, OPTIONS_FINGERPRINT, &fixed);
    options_free(&o);
    assert_ok(options_parse_text(first.data, first.size, "lines", 0, NULL, &o, NULL, &err), &err);
    options_format(&o, OPTIONS_ALL, &second);
    assert_string_equal(first.data, second.data);
    options_free(&o);
    text_clear(&second);
    assert_ok(options_parse_text(given.data, given.size, "lines", 0, NULL, &o, NULL, &err), &err);
    options_format(&o, OPTIONS_ALL, &second);
    assert_string_equal(first.data, second.data);
    options_free(&o);
    assert_non_null(strstr(fixed.data, "ps.slots: 8\n"));
    assert_null(strstr(fixed.data, "logging_steps"));
    assert_null(strstr(given.data, "logging_steps"));
    text_free(&first);
    text_free(&second);
    text_free(&given);
    text_free(&fixed);
}

static void resume_keeps_what_it_must(void **state)
{
    (void)state;
    struct text saved = {0}, changes = {0};
    assert_ok(parse("ps: {slots: 8}\nseed: 3\n", NULL), &err);
    options_format(&o, OPTIONS_ALL, &saved);
    assert_ok(options_check_resume(&o, saved.data, saved.size, &changes, &err), &err);
    assert_int_equal(changes.size, 0);
    options_free(&o);
    char *free_ones[] = {"threads=3", "max_steps=9", "datasets.0.path=moved/a.jsonl", "datasets.0.name=a", "resume_from_checkpoint=true", NULL};
    assert_ok(parse("ps: {slots: 8}\nseed: 3\n", free_ones), &err);
    assert_ok(options_check_resume(&o, saved.data, saved.size, &changes, &err), &err);
    assert_non_null(strstr(changes.data, "command line: max_steps: -1 until now, 9 from here on"));
    assert_non_null(strstr(changes.data, "datasets.0.path: a.jsonl until now"));
    assert_null(strstr(changes.data, "resume_from_checkpoint"));
    options_free(&o);
    assert_ok(parse("ps: {slots: 16}\nseed: 4\nmax_length: 8\n", NULL), &err);
    assert_refused(options_check_resume(&o, saved.data, saved.size, NULL, &err), STATUS_USAGE, &err,
                   "run.yaml:3:6: ps.slots: the run began with 8, now found 16");
    assert_non_null(strstr(err.text, "3 problems"));
    options_free(&o);
    char *more[] = {"datasets.1.path=b.jsonl", NULL};
    assert_ok(parse("ps: {slots: 8}\nseed: 3\n", more), &err);
    assert_refused(options_check_resume(&o, saved.data, saved.size, NULL, &err), STATUS_USAGE, &err, "began with 1 entries, now found 2");
    assert_refused(options_check_resume(&o, "new_key: 1\n", 11, NULL, &err), STATUS_USAGE, &err, "new_key: unknown key");
    options_free(&o);
    text_free(&saved);
    text_free(&changes);
}

/* What rows are kept by: every key counts but those that cannot change a token. */
static void rows_are_shaped_by_all_keys_but_some(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value;
        bool shapes;
    } cases[] = {
        {"max_length", "77", true}, {"truncation", "drop", true}, {"chat_template", "deepseek-r1", true},
        {"cot_prompt", "think", true}, {"answer_prefix", "=", true}, {"thought_loss_weight", "2", true},
        {"completion_only_loss", "false", true}, {"strict", "false", true}, {"max_bad_rows", "3", true},
        {"keep_calculator_marks", "true", true}, {"datasets.0.format", "gsm8k", true}, {"datasets.0.loss_weight", "2", true},
        {"datasets.0.question_column", "q", true}, {"datasets.0.quoting", "none", true}, {"datasets.0.header", "a,b", true},
        {"datasets.0.path", "other", true}, {"datasets.0.max_samples", "4", true},
        {"seed", "7", false}, {"learning_rate", "1", false}, {"output_dir", "x", false}, {"datasets.0.weight", "3", false},
        {"datasets.0.task", "t", false}, {"shuffle_dataset", "false", false}, {"mix_strategy", "interleave_over", false},
        {"val_size", "0.5", false}, {"dataset_cache_dir", "x", false}, {"overwrite_cache", "true", false},
        {"max_new_tokens", "5", false}, {"ps.slots", "3", false}, {"loar.budget", "0.25", false}, {"logging_steps", "3", false},
        {"eval_steps", "3", false}, {"per_device_train_batch_size", "3", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const char file[] = "model_name_or_path: m\ndatasets: [{path: p}]\n";
        struct text before = {0}, after = {0};
        assert_ok(options_parse_text(file, sizeof file - 1, "file", 0, NULL, &o, NULL, &err), &err);
        options_format_rows(&o, &o.datasets.items[0], &before);
        assert_ok(options_set(&o, cases[i].key, cases[i].value, &err), &err);
        options_format_rows(&o, &o.datasets.items[0], &after);
        if ((strcmp(before.data, after.data) != 0) != cases[i].shapes)
            fail_msg("%s %s", cases[i].key, cases[i].shapes ? "does not count" : "counts");
        text_free(&before);
        text_free(&after);
        options_free(&o);
    }
}

static void short_memory(void **state)
{
    (void)state;
    char *overrides[] = {"stop=[a, b]", "--ps.slots", "4", "datasets.1.path=z", "eval_steps=5", NULL};
    struct text all = {0};
    int n = 0;
    text_free(&notes);
    text_printf(&all, "%seval_datasets: [{path: y, format: gsm8k}]\ncutoff_len: 5\nlr_milestones: [0.5]\nlr_factors: [1]\nrun_name: x\n", base);
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        long live = mem_live();
        mem_fail_after(n, n % 2);
        st = options_parse_text(all.data, all.size, "run.yaml", 5, overrides, &o, &notes, &err);
        mem_fail_after(-1, false);
        if (st == STATUS_OK)
            options_free(&o);
        else
            assert_int_equal(st, STATUS_NOMEM);
        text_free(&notes);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 30);
    text_free(&all);
    assert_ok(parse("", NULL), &err);
    struct text saved = {0};
    options_format(&o, OPTIONS_ALL, &saved);
    n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        long live = mem_live();
        mem_fail_after(n, n % 2);
        st = options_check_resume(&o, saved.data, saved.size, NULL, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n > 20);
    options_free(&o);
    text_free(&saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(template_files_become_text),
        cmocka_unit_test(layers_from_a_file),
        cmocka_unit_test(layers_files_refused),
        cmocka_unit_test(lines_read_back),
        cmocka_unit_test(resume_keeps_what_it_must),
        cmocka_unit_test(rows_are_shaped_by_all_keys_but_some),
        cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
