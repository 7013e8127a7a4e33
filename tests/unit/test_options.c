/* Run files and the command line: which one holds, lists and mappings, aliases, rules between keys, and every problem with its
 * place. */
#include "tests/support/cmocka_all.h"

#include <glob.h>

#include "common/yaml.h"
#include "tests/support/parsed_options.h"

static void file_then_command_line(void **state)
{
    (void)state;
    char *overrides[] = {"learning_rate=1e-3", "--ps.slots", "32", "--max-steps=7", "--strict", "false", "--eval_on_start", "seed=1",
                         "seed=2", "eval_datasets=[{path: e.jsonl}]", "stop=[\"a b\", \"###\"]", "datasets.0.name=first", "datasets.1.path=b.jsonl", NULL};
    assert_ok(parse("learning_rate: 2e-5\nmax_length: 77\nps: {slots: 16, chunk_values: 512}\nstop: x\neval_strategy: no\n", overrides), &err);
    assert_true(o.learning_rate == 1e-3);
    assert_int_equal(o.ps.slots, 32);
    assert_int_equal(o.ps.chunk_values, 512);
    assert_int_equal(o.max_steps, 7);
    assert_int_equal(o.max_length, 77);
    assert_false(o.strict);
    assert_true(o.eval_on_start);
    assert_int_equal(o.seed, 2);
    assert_int_equal(o.stop.count, 2);
    assert_string_equal(o.stop.items[0], "a b");
    assert_int_equal(o.datasets.count, 2);
    assert_string_equal(o.datasets.items[0].name, "first");
    assert_string_equal(o.datasets.items[1].name, "b");
    assert_string_equal(o.datasets.items[1].task, "b");
    assert_string_equal(o.eval_strategy, "no");
    assert_string_equal(o.output_dir, "run");
    assert_null(o.run_name);
    assert_int_equal(options_get_source(&o, "learning_rate").origin, ORIGIN_COMMAND_LINE);
    assert_int_equal(options_get_source(&o, "max_length").origin, ORIGIN_FILE);
    assert_int_equal(options_get_source(&o, "max_length").line, 4);
    assert_int_equal(options_get_source(&o, "top_p").origin, ORIGIN_DEFAULT);
    struct text source = {0};
    options_source_text(&o, OPTION_max_length, &source);
    assert_string_equal(source.data, "run.yaml:4");
    text_free(&source);
    assert_non_null(strstr(o.text, "max_length: 77"));
    options_free(&o);
}

/* An entry of a list of mappings may hold a list of texts. */
static void entries_hold_lists(void **state)
{
    (void)state;
    struct text lines = {0};
    char *overrides[] = {"datasets.0.labels=[\"a, b\", c]", "eval_datasets=[{path: e.jsonl, labels: [x, \"y: z\"], num_labels: 2}]", NULL};
    assert_ok(parse("task_type: seq_cls\n", overrides), &err);
    assert_int_equal(o.datasets.items[0].labels.count, 2);
    assert_string_equal(o.datasets.items[0].labels.items[0], "a, b");
    assert_string_equal(o.datasets.items[0].task_type, "default");
    assert_string_equal(o.eval_datasets.items[0].labels.items[1], "y: z");
    options_format(&o, OPTIONS_ALL, &lines);
    options_free(&o);
    assert_ok(options_parse_text(lines.data, lines.size, "lines", 0, NULL, &o, NULL, &err), &err);
    assert_string_equal(o.datasets.items[0].labels.items[0], "a, b");
    assert_string_equal(o.eval_datasets.items[0].labels.items[1], "y: z");
    assert_int_equal(o.eval_datasets.items[0].num_labels, 2);
    options_free(&o);
    text_free(&lines);
    assert_int_equal(parse("eval_datasets: [{path: e.jsonl, labels: [[x]], task_type: regression}]\n", NULL), STATUS_USAGE);
    assert_non_null(strstr(err.text, "eval_datasets.0.labels: found a list inside the list"));
    assert_non_null(strstr(err.text, "eval_datasets.0.task_type: found 'regression'"));
}

static void columns_are_named_in_a_mapping(void **state)
{
    (void)state;
    char *overrides[] = {"datasets.1.columns.weight=trust", NULL};
    assert_ok(parse("eval_datasets: [{path: e, columns: {question: ask, response: say, history: h}, input_column: i}]\neval_on_start: true\n",
                    NULL), &err);
    const struct dataset_options *e = &o.eval_datasets.items[0];
    assert_string_equal(e->question_column, "ask");
    assert_string_equal(e->answer_column, "say");
    assert_string_equal(e->history_column, "h");
    assert_string_equal(e->input_column, "i");
    options_free(&o);
    overrides[0] = "datasets.0.columns.weight=trust";
    assert_ok(parse("", overrides), &err);
    assert_string_equal(o.datasets.items[0].weight_column, "trust");
    options_free(&o);
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"eval_datasets: [{path: e, columns: {questoin: q}}]\n", "run.yaml:3:37: eval_datasets.0.columns.questoin: unknown key"},
        {"eval_datasets: [{path: e, columns: {question: [q]}}]\n", "eval_datasets.0.columns.question: found a list, wanted a single value"},
        {"eval_datasets: [{path: e, columns: q}]\n", "eval_datasets.0.columns: unknown key"},
        {"eval_datasets: [{path: e, question_column: a, columns: {question: q}}]\n", "columns.question: given twice, also as question_column"},
        {"eval_datasets: [{path: e, columns: {question: q, prompt: r}}]\n", "columns.prompt: given twice, also as question_column"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(parse(cases[i].text, NULL), STATUS_USAGE, &err, cases[i].message);
}

static void aliases_leave_a_note(void **state)
{
    (void)state;
    assert_ok(parse("cutoff_len: 64\ntrain_on_inputs: false\nlr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-6}\n"
                    "optim: adamw_torch\nresume_from_checkpoint: True\n", NULL), &err);
    assert_int_equal(o.max_length, 64);
    assert_true(o.completion_only_loss);
    assert_true(o.min_lr == 1e-6);
    assert_string_equal(o.optim, "adamw");
    assert_string_equal(o.resume_from_checkpoint, "true");
    assert_non_null(strstr(notes.data, "run.yaml:3:1: cutoff_len: read as max_length"));
    assert_non_null(strstr(notes.data, "train_on_inputs: read as the inverse of completion_only_loss"));
    options_free(&o);
    assert_refused(parse("cutoff_len: 64\nmax_length: 32\n", NULL), STATUS_USAGE, &err, "max_length: given twice, first in line 3 as cutoff_len");
}

static void all_problems_at_once(void **state)
{
    (void)state;
    char *overrides[] = {"--foo", "x", "bar", "ps.servers=2", "max_steps", "--seed", NULL};
    assert_int_equal(parse("learning_rat: 1\nlearning_rate: \"2e-5\"\nsave_strategy: stepz\neval_steps: 1.5\nps: {slotz: 3}\nps.slots: [1]\nstop: [a, [b]]\n"
                           "eval_datasets: [{nam: x, path: y, format: gsm9k}, z]\n", overrides), STATUS_USAGE);
    static const char *const parts[] = {
        "15 problems", "run.yaml:3:1: learning_rat: unknown key; did you mean 'learning_rate'?",
        "run.yaml:4:1: learning_rate: found '2e-5', wanted a number, 0 or more; leave the quotes out",
        "save_strategy: found 'stepz', wanted one of no, steps, epoch, best; did you mean 'steps'?",
        "eval_steps: found '1.5', wanted a whole number of steps, 1 or more",
        "ps.slotz: unknown key; did you mean 'ps.slots'?", "ps.slots: found a list, wanted a whole number",
        "stop: found a list inside the list", "eval_datasets.0.nam: unknown key; did you mean 'name'?",
        "eval_datasets.0.format: found 'gsm9k'", "eval_datasets: found a text, wanted a mapping",
        "command line: foo: unknown key", "command line: bar: neither key=value nor --key value",
        "ps.servers: found '2', wanted a whole number of ranks, only 1",
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (!strstr(err.text, parts[i])) {
            print_error("'%s' is not in:\n%s\n", parts[i], err.text);
            fail();
        }
    struct text many = {0};
    for (int i = 0; i < 60; i++)
        text_printf(&many, "unknown_number_%d: 1\n", i);
    assert_refused(parse(many.data, NULL), STATUS_USAGE, &err, "60 problems");
    assert_non_null(strstr(err.text, "... and 40 more"));
    text_free(&many);
}

static void rules_between_keys(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } errors[] = {
        {"model_config: c.yaml\ntokenizer_name_or_path: t\n", "model_name_or_path: given together with model_config"},
        {"eval_strategy: steps\n", "eval_strategy: steps, but eval_datasets is missing"},
        {"eval_on_start: true\n", "eval_on_start is true, but"},
        {"resume_from_checkpoint: true\noverwrite_output_dir: true\n", "resume_from_checkpoint: given together with"},
        {"thought_loss_weight: 0\nanswer_loss_weight: 0\n", "nothing would be learned"},
        {"lr_scheduler_type: cosine_with_min_lr\n", "found neither"},
        {"lr_scheduler_type: cosine_with_min_lr\nmin_lr: 1\nmin_lr_rate: 0.1\n", "found both"},
        {"lr_scheduler_type: cosine_with_min_lr\nmin_lr: 1\n", "above learning_rate"},
        {"lr_scheduler_type: multistep\nlr_milestones: [0.5]\n", "one factor for each"},
        {"lr_scheduler_type: multistep\nlr_milestones: [0.5, 0.4]\nlr_factors: [1, 2]\n", "wanted rising shares"},
        {"optim: sgd\nnesterov: true\n", "momentum is 0"},
        {"stop: ['x', '']\n", "stop: found an empty text in the list"},
        {"min_thinking_tokens: 600\n", "min_thinking_tokens: 600, but max_thinking_tokens is 512"},
        {"min_thinking_tokens: 6\nthinking_extend_text: ''\n", "thinking_extend_text: found '', wanted a text"},
        {"self_consistency: 5\n", "self_consistency: 5 answers, all the same while do_sample is false"},
        {"eval_datasets: [{name: x}]\n", "entry 0 x has no path"},
        {"eval_datasets: [{path: x/a.jsonl}, {path: y/a.json}]\n", "entries 0 and 1 are both named 'a'"},
    };
    static const struct {
        const char *text, *part;
    } warnings[] = {
        {"max_steps: 5\nwarmup_steps: 5\n", "before the learning rate reaches"},
        {"learning_rate: 0\n", "nothing will be learned"},
        {"eval_datasets: [{path: x}]\n", "not used: eval_strategy is no"},
        {"eval_steps: 5\n", "eval_steps: not used"},
        {"save_strategy: no\nsave_steps: 5\n", "save_steps: not used"},
        {"max_bad_rows: 5\n", "max_bad_rows: not used"},
        {"min_lr: 0.5\n", "did you mean cosine_with_min_lr?"},
        {"lr_milestones: [0.5]\nlr_factors: [1]\n", "lr_milestones: not used"},
        {"momentum: 0.5\n", "momentum: not used"},
        {"eval_datasets: [{path: a.jsonl}]\neval_strategy: epoch\n", "'a.jsonl' is also trained on"},
        {"temperature: 0.5\n", "temperature, top_p and top_k are not used"},
    };
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        assert_refused(parse(errors[i].text, NULL), STATUS_USAGE, &err, errors[i].part);
    for (size_t i = 0; i < sizeof warnings / sizeof warnings[0]; i++) {
        assert_ok(parse(warnings[i].text, NULL), &err);
        if (!notes.size || !strstr(notes.data, warnings[i].part)) {
            print_error("no warning '%s'\n", warnings[i].part);
            fail();
        }
        options_free(&o);
    }
    assert_refused(options_parse_text("seed: 1\n", 8, "f", 0, NULL, &o, NULL, &err), STATUS_USAGE, &err, "model_name_or_path: missing");
    assert_non_null(strstr(err.text, "datasets: missing"));
    char *weights[] = {"datasets.0.weight=2", NULL};
    assert_ok(parse("", weights), &err);
    assert_non_null(strstr(notes.data, "weight is not used"));
    options_free(&o);
}

static void broken_files(void **state)
{
    (void)state;
    assert_ok(options_defaults(&o, &err), &err);
    assert_ok(options_check_generation(&o, NULL, &err), &err); /* without rows and model: these are of no concern here */
    assert_ok(options_set(&o, "self_consistency", "3", &err), &err);
    assert_refused(options_check_generation(&o, NULL, &err), STATUS_USAGE, &err, "self_consistency: 3 answers");
    options_free(&o);
    assert_refused(options_load("/nowhere/run.yaml", 0, NULL, &o, NULL, &err), STATUS_USAGE, &err, "/nowhere/run.yaml");
    assert_refused(options_parse_text("- a\n", 4, "f.yaml", 0, NULL, &o, NULL, &err), STATUS_USAGE, &err, "f.yaml: found a list");
    assert_refused(options_parse_text("a: [\n", 5, "f.yaml", 0, NULL, &o, NULL, &err), STATUS_USAGE, &err, "f.yaml:2:1");
    assert_refused(parse("seed: 1\nseed: 2\n", NULL), STATUS_USAGE, &err, "run.yaml:4:1: seed: given twice");
    assert_refused(parse("ps: 3\n", NULL), STATUS_USAGE, &err, "ps: found a text, wanted a mapping");
    assert_refused(parse("output_dir: \"\"\n", NULL), STATUS_USAGE, &err, "output_dir: found ''");
    assert_refused(parse("\"se\\ned\": 1\n", NULL), STATUS_USAGE, &err, "se?ed: unknown key");
    char *latin[] = {"run_name=\xe9", NULL};
    assert_refused(parse("", latin), STATUS_USAGE, &err, "not UTF-8");
    char *broken[] = {"stop=[a", NULL};
    assert_refused(parse("", broken), STATUS_USAGE, &err, "not a YAML list");
}

/* Every run file that comes with the program is in order and used without a note. */
static void shipped_files(void **state)
{
    (void)state;
    glob_t files;
    assert_int_equal(glob("configs/*.yaml", 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        text_clear(&notes);
        assert_ok(options_load(files.gl_pathv[i], 0, NULL, &o, &notes, &err), &err);
        if (notes.size)
            print_error("%s", notes.data);
        assert_int_equal(notes.size, 0);
        options_free(&o);
    }
    globfree(&files);
    assert_int_equal(glob("configs/models/*.yaml", 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        struct text json = {0};
        assert_ok(yaml_file_to_json_text(files.gl_pathv[i], &json, &err), &err);
        assert_non_null(strstr(json.data, "\"hidden_size\": "));
        text_free(&json);
    }
    globfree(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_then_command_line),
        cmocka_unit_test(entries_hold_lists),
        cmocka_unit_test(columns_are_named_in_a_mapping),
        cmocka_unit_test(aliases_leave_a_note),
        cmocka_unit_test(all_problems_at_once),
        cmocka_unit_test(rules_between_keys),
        cmocka_unit_test(broken_files),
        cmocka_unit_test(shipped_files),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
