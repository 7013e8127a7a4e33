/* Stages in a run file: what a stage may change, where mistakes are reported, what holds in a stage, what may change on resume. */
#include <string.h>

#include "common/options.h"
#include "tests/support/cmocka_all.h"

static struct options o;
static struct text notes;
static struct error err;

#define HEAD "model_name_or_path: m\n"
#define SETS "datasets: [{name: a, path: a.jsonl}, {name: b, path: b.jsonl, max_samples: 5}]\n"

static enum status parse(const char *text)
{
    text_clear(&notes);
    return options_parse_text(text, strlen(text), "run.yaml", 0, NULL, &o, &notes, &err);
}

static void what_holds_in_a_stage(void **state)
{
    (void)state;
    struct options first, second;
    assert_ok(parse(HEAD SETS "learning_rate: 0.5\neval_datasets: [{path: e.jsonl}]\nstages:\n"
                              "  - {name: short, max_samples: 9, eval_strategy: epoch, lr_scheduler_kwargs: {num_cycles: 2}}\n"
                              "  - {start_from: best, reset_optimizer: true, learning_rate: 0.25, loar: {anneal_share: 0.5},\n"
                              "     datasets: [{name: c, path: c.jsonl, max_samples: 3}], set: [\"max_steps=7\"]}\n"), &err);
    assert_int_equal(options_stages(&o), 2);
    assert_string_equal(o.stages.items[0].name, "short");
    assert_string_equal(o.stages.items[1].name, "stage-2");
    assert_ok(options_of_stage(&o, 0, &first, &err), &err);
    assert_ok(options_of_stage(&o, 1, &second, &err), &err);
    assert_int_equal(first.datasets.count, 2);
    assert_int_equal(first.datasets.items[0].max_samples, 9);
    assert_int_equal(first.datasets.items[1].max_samples, 5); /* it had less to begin with */
    assert_true(first.learning_rate == 0.5 && first.lr_num_cycles == 2 && !strcmp(first.eval_strategy, "epoch"));
    assert_int_equal(second.datasets.count, 1);
    assert_string_equal(second.datasets.items[0].task, "c");
    assert_int_equal(second.datasets.items[0].max_samples, 3);
    assert_true(second.learning_rate == 0.25 && second.max_steps == 7 && second.loar.anneal_share == 0.5);
    assert_true(second.lr_num_cycles == -1 && !strcmp(second.eval_strategy, "no"));
    assert_int_equal(first.stages.count + second.stages.count, 0);
    options_free(&first);
    options_free(&second);
    options_free(&o);
    assert_ok(parse(HEAD SETS "max_steps: 3\n"), &err);
    assert_int_equal(options_stages(&o), 1); /* a run without stages is one */
    assert_ok(options_of_stage(&o, 0, &first, &err), &err);
    assert_int_equal(first.max_steps, 3);
    options_free(&first);
    options_free(&o);
}

static void mistakes_have_a_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"stages:\n  - {lerning_rate: 1}\n", "run.yaml:4:6: stages.0.lerning_rate: unknown key"},
        {"stages:\n  - learning_rate: fast\n", "run.yaml:4:5: learning_rate: found 'fast', wanted a number"},
        {"stages:\n  - {seed: 4}\n", "run.yaml:4:6: seed: is the same in all stages"},
        {"stages:\n  - loar: {budget: 0.4}\n", "loar.budget: is the same in all stages"},
        {"stages:\n  - loar: 4\n", "loar: found a text, wanted a mapping"},
        {"stages:\n  - loar: {budgt: 4}\n", "loar.budgt: unknown key"},
        {"stages: [{set: [\"learning_rate\"]}]\n", "'learning_rate' in the stage 'stage-1' is no key=value"},
        {"stages: [{set: [\"seed=3\"]}]\n", "'seed=3' in the stage 'stage-1' is the same in all stages"},
        {"stages: [{name: a}, {name: a}]\n", "entries 0 and 1 are both named 'a'"},
        {"stages: [{start_from: best}]\n", "'stage-1' is the first stage"},
        {"stages: [{name: x}, {start_from: best}]\n", "'stage-2' starts from the best of this stage, which is never evaluated"},
        {"stages: [{eval_strategy: steps}]\n", "to hold training rows out) (stage 'stage-1')"},
        {"answer_loss_weight: 0\n", "would not learn to give an answer"},
        {"stages: [{name: x}, {answer_loss_weight: 0}]\n", "would not learn to give an answer"},
        {"load_best_model_at_end: true\n", "load_best_model_at_end is true; wanted steps or epoch"},
        {"save_strategy: best\n", "save_strategy is best; wanted steps or epoch"},
        {"early_stopping_patience: 2\n", "early_stopping_patience is given; wanted steps or epoch"},
        {"predict_with_generate: true\n", "true, but eval_datasets is missing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct text text = {0};
        text_printf(&text, HEAD SETS "%s", rows[i].text);
        enum status st = parse(text.data);
        if (st != STATUS_USAGE || !strstr(err.text, rows[i].part))
            print_error("%s: wanted '%s', found '%s'\n", rows[i].text, rows[i].part, st == STATUS_OK ? "no problem" : err.text);
        assert_true(st == STATUS_USAGE && strstr(err.text, rows[i].part));
        text_free(&text);
    }
    /* An answer weight of 0 may stand in an earlier stage, and in the last one when confirmed. */
    assert_ok(parse(HEAD SETS "stages: [{answer_loss_weight: 0}, {name: x}]\n"), &err);
    options_free(&o);
    assert_ok(parse(HEAD SETS "answer_loss_weight: 0\nallow_zero_answer_loss: true\n"), &err);
    options_free(&o);
    assert_ok(parse(HEAD "stages: [{datasets: [{path: a.jsonl}]}]\n"), &err); /* all stages have rows, the run itself none */
    options_free(&o);
}

static void stages_on_the_command_line(void **state)
{
    (void)state;
    static const char text[] = HEAD SETS "learning_rate: 0.5\nstages: [{name: a, learning_rate: 0.25}, {name: b}]\n";
    char *overrides[] = {"stages.0.learning_rate=0.125", "stages.1.loar.dense_steps=3", "stages.1.start_from=last"};
    char *wrong[] = {"stages.0.learning_rate=fast", "stages.0.seed=3", "stages.2.learning_rate=1", "stages.1.lerning_rate=1"};
    struct options stage;
    assert_ok(options_parse_text(text, sizeof text - 1, "run.yaml", 3, overrides, &o, NULL, &err), &err);
    assert_ok(options_of_stage(&o, 0, &stage, &err), &err);
    assert_true(stage.learning_rate == 0.125);
    options_free(&stage);
    assert_ok(options_of_stage(&o, 1, &stage, &err), &err);
    assert_true(stage.learning_rate == 0.5 && stage.loar.dense_steps == 3);
    options_free(&stage);
    options_free(&o);
    assert_refused(options_parse_text(text, sizeof text - 1, "run.yaml", 4, wrong, &o, NULL, &err), STATUS_USAGE, &err, "5 problems");
    assert_non_null(strstr(err.text, "command line: learning_rate: found 'fast'"));
    assert_non_null(strstr(err.text, "did you mean 'learning_rate'?"));
}

/* Keys that let routing in hold in the first stage; a later one has them only from its own entry. */
static void routing_is_let_in_once(void **state)
{
    (void)state;
    static const char text[] = HEAD SETS "loar: {dense_steps: 7, anneal_share: 0.5}\n"
                               "stages: [{name: a}, {name: b}, {name: c, loar: {dense_steps: 3, anneal_share: 0.125}}]\n";
    static const struct {
        int64_t dense_steps;
        double anneal_share;
    } wanted[] = {{7, 0.5}, {0, -1}, {3, 0.125}};
    assert_ok(options_parse_text(text, sizeof text - 1, "run.yaml", 0, NULL, &o, NULL, &err), &err);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct options stage;
        assert_ok(options_of_stage(&o, i, &stage, &err), &err);
        assert_true(stage.loar.dense_steps == wanted[i].dense_steps && stage.loar.anneal_share == wanted[i].anneal_share);
        options_free(&stage);
    }
    options_free(&o);
}

static void lines_read_back(void **state)
{
    (void)state;
    struct text first = {0}, second = {0};
    assert_ok(parse(HEAD SETS "stages: [{name: a, cot_prompt: \"say \\\"x\\\": y\", stop: [p, q]}, {datasets: [{path: \"é.jsonl\"}]}]\n"), &err);
    options_format(&o, OPTIONS_ALL, &first);
    options_free(&o);
    assert_ok(parse(first.data), &err);
    options_format(&o, OPTIONS_ALL, &second);
    assert_string_equal(first.data, second.data);
    struct options stage;
    assert_ok(options_of_stage(&o, 0, &stage, &err), &err);
    assert_string_equal(stage.cot_prompt, "say \"x\": y");
    assert_int_equal(stage.stop.count, 2);
    options_free(&stage);
    options_free(&o);
    text_free(&first);
    text_free(&second);
}

static void resume_keeps_what_it_must(void **state)
{
    (void)state;
    struct text saved = {0};
    assert_ok(parse(HEAD SETS "stages: [{name: a, max_length: 64}, {name: b, learning_rate: 0.5}]\n"), &err);
    options_format(&o, OPTIONS_ALL, &saved);
    options_free(&o);
    assert_ok(parse(HEAD SETS "learning_rate: 0.5\nstages: [{name: a, max_length: 64, learning_rate: 5e-5}, {name: b}]\n"), &err);
    assert_ok(options_check_resume(&o, saved.data, saved.size, &notes, &err), &err); /* the same, said in another place */
    options_free(&o);
    assert_ok(parse(HEAD SETS "stages: [{name: a, max_length: 64}, {name: b, learning_rate: 0.25}]\n"), &err);
    assert_ok(options_check_resume(&o, saved.data, saved.size, &notes, &err), &err);
    assert_non_null(strstr(notes.data, "learning_rate: 0.5 until now, 0.25 from here on"));
    options_free(&o);
    assert_ok(parse(HEAD SETS "stages: [{name: a, max_length: 32}, {name: b, learning_rate: 0.5}]\n"), &err);
    assert_refused(options_check_resume(&o, saved.data, saved.size, &notes, &err), STATUS_USAGE, &err, "max_length: the run began with 64");
    options_free(&o);
    assert_ok(parse(HEAD SETS "stages: [{name: a, max_length: 64}]\n"), &err);
    assert_refused(options_check_resume(&o, saved.data, saved.size, &notes, &err), STATUS_USAGE, &err, "2 entries, now found 1");
    options_free(&o);
    text_free(&saved);
}

static int end(void **state)
{
    (void)state;
    text_free(&notes);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_holds_in_a_stage),
        cmocka_unit_test(mistakes_have_a_place),
        cmocka_unit_test(stages_on_the_command_line), cmocka_unit_test(routing_is_let_in_once),
        cmocka_unit_test(lines_read_back),
        cmocka_unit_test(resume_keeps_what_it_must),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
