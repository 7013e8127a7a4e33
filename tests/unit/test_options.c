/* The table of options: every key set, got and refused mechanically; files, overrides, aliases, rules, fingerprint. */
#include "tests/support/cmocka_all.h"

#include <glob.h>
#include <math.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/options_table.h"
#include "common/options_value.h"
#include "common/yaml.h"

static struct error err;
static struct options o;
static struct text notes;

static const char base[] = "model_name_or_path: m\ndatasets: [{path: a.jsonl}]\n";

/* Parses base + text with overrides (NULL-terminated). */
static enum status parse(const char *text, char **overrides)
{
    struct text all = {0};
    int n = 0;
    while (overrides && overrides[n])
        n++;
    text_puts(&all, base);
    text_puts(&all, text);
    text_clear(&notes);
    enum status st = options_parse_text(all.data, all.size, "run.yaml", n, overrides, &o, &notes, &err);
    text_free(&all);
    return st;
}

static void assert_value(const char *key, const char *wanted)
{
    struct text text = {0};
    text_puts(&text, "");
    assert_true(options_get(&o, key, &text));
    assert_string_equal(text.data, wanted);
    text_free(&text);
}

static bool inside(const struct option_limits *l, double v)
{
    return (l->low_open ? v > l->low : v >= l->low) && (l->high_open ? v < l->high : v <= l->high);
}

/* A value of the row that is not its default. */
static void other_value(const struct option_row *row, char out[128])
{
    double fallback = strtod(row->fallback, NULL);
    static const double tries[] = {1, 2, 3, 0.5, 0.25, 100, 4096, 0};
    snprintf(out, 128, "an \"other\": value");
    if (row->kind == OPTION_KIND_BOOL)
        snprintf(out, 128, "%s", strcmp(row->fallback, "true") ? "true" : "false");
    else if (row->kind == OPTION_KIND_CHOICE)
        snprintf(out, 128, "%s", strcmp(row->fallback, row->limits.words[0]) ? row->limits.words[0] : row->limits.words[1]);
    else if (row->kind == OPTION_KIND_STRINGS)
        snprintf(out, 128, "[\"a b\", c]");
    else if (row->kind == OPTION_KIND_REALS)
        snprintf(out, 128, "[0.25, 0.5]");
    else if (row->kind == OPTION_KIND_DATASETS)
        snprintf(out, 128, "[{path: x.jsonl, name: n, format: gsm8k, task: t, weight: 2, max_samples: 7, answer_column: a}]");
    else if (row->kind == OPTION_KIND_LAYERS)
        snprintf(out, 128, "[{range: 0-5, window: 128, budget: 0.5, routed: true}, {preset: dense, range: -1}]");
    else if (row->kind == OPTION_KIND_TASKS)
        snprintf(out, 128, "{task: t, budget: 0.25, policy: topk}");
    else if (row->kind == OPTION_KIND_STAGES)
        snprintf(out, 128, "[{name: a, max_samples: 7}, {start_from: best, learning_rate: 0.5}]");
    else if (row->kind != OPTION_KIND_STRING)
        for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++)
            if (inside(&row->limits, tries[i]) && tries[i] != fallback && (row->kind == OPTION_KIND_REAL || tries[i] == floor(tries[i]))) {
                snprintf(out, 128, "%g", tries[i]);
                return;
            }
}

static void every_key_is_set_and_got(void **state)
{
    (void)state;
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        char value[128];
        assert_ok(options_defaults(&o, &err), &err);
        assert_true(option_value_is_default(row, (char *)&o + row->offset));
        other_value(row, value);
        if (i == OPTION_ps_servers)
            snprintf(value, sizeof value, "1"); /* the only one there is */
        assert_ok(options_set(&o, row->name, value, &err), &err);
        assert_int_equal(option_value_is_default(row, (char *)&o + row->offset), i == OPTION_ps_servers);
        struct text once = {0}, twice = {0};
        assert_true(options_get(&o, row->name, &once));
        if (!option_entries(row->kind))
            assert_string_equal(once.data, value);
        assert_int_equal(options_get_source(&o, row->name).origin, ORIGIN_COMMAND_LINE);
        options_free(&o);
        assert_ok(options_defaults(&o, &err), &err);
        assert_ok(options_set(&o, row->name, once.data, &err), &err);
        assert_true(options_get(&o, row->name, &twice));
        assert_string_equal(once.data, twice.data);
        /* null is the default again */
        assert_ok(options_set(&o, row->name, "null", &err), &err);
        assert_true(option_value_is_default(row, (char *)&o + row->offset));
        options_free(&o);
        text_free(&once);
        text_free(&twice);
    }
}

static void every_key_refuses_nonsense(void **state)
{
    (void)state;
    assert_ok(options_defaults(&o, &err), &err);
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        if (row->kind == OPTION_KIND_STRING || row->kind == OPTION_KIND_STRINGS)
            continue;
        assert_refused(options_set(&o, row->name, "nonsense", &err), STATUS_USAGE, &err, row->name);
        assert_refused(options_set(&o, row->name, "nonsense", &err), STATUS_USAGE, &err, "wanted");
        assert_true(option_value_is_default(row, (char *)&o + row->offset));
    }
    options_free(&o);
}

static void every_bound_holds(void **state)
{
    (void)state;
    assert_ok(options_defaults(&o, &err), &err);
    int checked = 0;
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        if (row->kind != OPTION_KIND_INT && row->kind != OPTION_KIND_REAL)
            continue;
        for (int high = 0; high < 2; high++) {
            double bound = high ? row->limits.high : row->limits.low;
            bool open = high ? row->limits.high_open : row->limits.low_open;
            char text[64];
            if (!isfinite(bound))
                continue;
            snprintf(text, sizeof text, "%.0f", bound);
            assert_int_equal(options_set(&o, row->name, text, &err), open && bound != strtod(row->fallback, NULL) ? STATUS_USAGE : STATUS_OK);
            double outside = bound + (high ? 3 : -3);
            snprintf(text, sizeof text, "%.0f", outside);
            assert_int_equal(options_set(&o, row->name, text, &err), STATUS_USAGE);
            checked++;
        }
        assert_ok(options_set(&o, row->name, row->fallback, &err), &err);
    }
    assert_true(checked > 50);
    options_free(&o);
}

static void every_alias_reaches_its_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < option_alias_count; i++) {
        const struct option_alias *alias = &option_aliases[i];
        const struct option_row *row = option_find(alias->name, NULL);
        char value[128];
        assert_non_null(row);
        for (int k = 0; k < OPTION_COUNT; k++)
            assert_string_not_equal(alias->other, option_rows[k].name);
        assert_ok(options_defaults(&o, &err), &err);
        other_value(row, value);
        assert_ok(options_set(&o, alias->other, value, &err), &err);
        if (alias->inverse)
            assert_value(alias->name, strcmp(value, "true") ? "true" : "false");
        else
            assert_value(alias->name, value);
        assert_string_equal(options_get_source(&o, alias->name).alias, alias->other);
        options_free(&o);
    }
}

static void every_row_is_documented(void **state)
{
    (void)state;
    struct text help = {0}, page = {0};
    options_help(&help);
    options_reference(&page);
    for (int i = 0; i < OPTION_COUNT; i++) {
        char line[128], cell[128];
        snprintf(line, sizeof line, "\n  %s\n", option_rows[i].name);
        snprintf(cell, sizeof cell, "\n| `%s` | ", option_rows[i].name);
        assert_non_null(strstr(help.data, line));
        assert_non_null(strstr(page.data, cell));
        assert_true(strlen(option_rows[i].help) > 5);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(option_rows[i].name, option_rows[k].name);
    }
    for (const char *line = help.data; *line;) {
        size_t size = strcspn(line, "\n");
        assert_true(size <= 80);
        line += size + (line[size] == '\n');
    }
    text_free(&help);
    text_free(&page);
}

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

static char layers_path[] = "/tmp/loar-test-layers-XXXXXX";

static void write_layers(const char *text)
{
    FILE *file = fopen(layers_path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
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

/* Parses with chat_template naming a file that holds `text`; NULL: no file. */
static enum status parse_template(const char *text, char **overrides)
{
    char path[] = "/tmp/loar-test-template-XXXXXX.yaml", key[128];
    int file = mkstemps(path, 5);
    assert_true(file >= 0);
    assert_true(!text || write(file, text, strlen(text)) == (ssize_t)strlen(text));
    close(file);
    if (!text)
        unlink(path);
    snprintf(key, sizeof key, "chat_template: %s\n", path);
    enum status st = parse(key, overrides);
    unlink(path);
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
    int fd = mkstemp(layers_path);
    assert_true(fd >= 0);
    close(fd);
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
    } rows[] = {
        {"", "command line: loar.layers_file: '/tmp/loar-test-layers-"},
        {"loar: {layers: []}\n", "holds no loar.layers, or none that has an entry"},
        {"- a\n", "loar.layers_file: /tmp/loar-test-layers-"},
        {"loar:\n  layers: [\n", "loar.layers_file: /tmp/loar-test-layers-"},
        {"loar:\n  layers:\n    - {windw: 3}\n", ":3:8: loar.layers.0.windw: unknown key; did you mean 'window'?"},
        {"loar:\n  layers:\n    - {range: 0}\n    - {budget: 2}\n", ":4:16: loar.layers.1.budget: found '2'"},
        {"loar: {layers: articel}\n", ":1:8: loar.layers: found 'articel'"},
        {"loar:\n  layers: article\n  budget: 0.5\n", ":3:3: loar.budget: a layers file holds `loar: {layers: [...]}` alone"},
        {"loar: {layers: article}\nseed: 1\n", ":2:1: seed: a layers file holds"},
        {"loar: {layers: article, layers_file: x}\n", ":1:25: loar.layers_file: a layers file holds"},
        {"layers: article\n", ":1:1: layers: unknown key"},
    };
    strcpy(layers_path + strlen(layers_path) - 6, "XXXXXX");
    int fd = mkstemp(layers_path);
    assert_true(fd >= 0);
    close(fd);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_layers(rows[i].file);
        assert_refused(parse_layers("", layers_path), STATUS_USAGE, &err, rows[i].part);
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

static int end(void **state)
{
    (void)state;
    text_free(&notes);
    return mem_live() != 0;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_named_in_a_mapping), cmocka_unit_test(template_files_become_text),
        cmocka_unit_test(every_key_is_set_and_got), cmocka_unit_test(every_key_refuses_nonsense),
        cmocka_unit_test(every_bound_holds),        cmocka_unit_test(every_alias_reaches_its_key),
        cmocka_unit_test(every_row_is_documented),  cmocka_unit_test(file_then_command_line),
        cmocka_unit_test(entries_hold_lists), cmocka_unit_test(aliases_leave_a_note),     cmocka_unit_test(all_problems_at_once),
        cmocka_unit_test(rules_between_keys),       cmocka_unit_test(broken_files),
        cmocka_unit_test(shipped_files),            cmocka_unit_test(layers_from_a_file),
        cmocka_unit_test(layers_files_refused),     cmocka_unit_test(lines_read_back),
        cmocka_unit_test(resume_keeps_what_it_must),
        cmocka_unit_test(rows_are_shaped_by_all_keys_but_some),
        cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
