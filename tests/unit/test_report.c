/* What rank 0 prints and writes to metrics.jsonl; and signals as flags. */
#include "tests/support/cmocka_all.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/files.h"
#include "common/json.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/signals.h"
#include "launch/invocation.h"
#include "launch/report.h"
#include "tests/support/scratch.h"

static struct error err;
static char folder[SCRATCH_SIZE], metrics[SCRATCH_SIZE + 16];
static struct report *report;
static FILE *printed;

#define SUMS {.loss = 24.68, .weight = 20, .span_loss = {0, 13.01, 4.494, 1.284}, .span_count = {0, 10, 7, 2}, \
                                        .correct = 14, .tokens = 31}
static const struct slot_report sums = SUMS;

static int make_folder(void **state)
{
    (void)state;
    if (!scratch_folder(folder, "report"))
        return 1;
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", folder);
    log_init(LOG_ERROR, -1);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(metrics);
    return rmdir(folder);
}

static void open_report(const char *history)
{
    assert_ok(report_create(folder, history, history ? strlen(history) : 0, &report, &err), &err);
    printed = tmpfile();
    assert_non_null(printed);
    report_print_to(report, printed);
}

/* All that was printed so far. */
static const char *output(void)
{
    static char text[16384];
    rewind(printed);
    text[fread(text, 1, sizeof text - 1, printed)] = '\0';
    fseek(printed, 0, SEEK_END);
    return text;
}

static void close_report(void)
{
    report_free(report);
    fclose(printed);
}

/* The file must hold exactly the history, and line `index` of it is parsed. */
static struct json *line_of_metrics(int index)
{
    char *text;
    size_t size;
    struct json *value;
    assert_ok(file_read(metrics, &text, &size, &err), &err);
    assert_int_equal(size, report_history(report)->size);
    assert_memory_equal(text, report_history(report)->data, size);
    const char *line = text;
    for (; index; index--)
        line = strchr(line, '\n') + 1;
    assert_ok(json_parse(line, strcspn(line, "\n"), "metrics", &value, &err), &err);
    mem_free(text);
    return value;
}

static double number(const struct json *object, const char *key)
{
    assert_non_null(json_member(object, key));
    return json_to_real(json_member(object, key));
}

static const struct step_facts step = {.step = 120, .total = 600, .epoch = 0.6, .sums = SUMS, .learning_rate = 1.8e-5, .grad_norm = 0.917,
                                       .tokens_per_second = 3120.2, .elapsed_s = 130.4, .left_s = 520, .slowest_rank = -1};

static void step_line(void **state)
{
    (void)state;
    open_report(NULL);
    report_step(report, &step);
    assert_string_equal(output(), "step 120/600 epoch 0.60 loss 1.234 (thought 1.301 answer 0.642) acc 0.74 lr 1.8e-05 gnorm 0.92 "
                                  "tok/s 3120 elapsed 02:10 left 08:40\n");
    struct json *line = line_of_metrics(0);
    assert_true(number(line, "step") == 120 && number(line, "total_steps") == 600 && number(line, "tokens") == 31);
    assert_true(number(line, "loss") == 24.68 / 20 && number(line, "thought_loss") == 13.01 / 10);
    assert_true(fabs(number(line, "answer_loss") - 5.778 / 9) < 1e-12 && number(line, "accuracy") == 14.0 / 19);
    assert_true(number(line, "learning_rate") == 1.8e-5 && number(line, "grad_norm") == 0.917 && number(line, "epoch") == 0.6);
    assert_null(json_member(line, "router_grad_norm"));
    json_free(line);
    close_report();
}

static void nothing_is_hidden(void **state)
{
    (void)state;
    struct step_facts f = step;
    open_report(NULL);
    f.sums.loss = NAN;
    f.grad_norm = INFINITY;
    f.router_grad_norm = 0.25;
    f.sums.span_count[1] = 0; /* no thoughts in these rows */
    f.elapsed_s = 3600 * 26 + 61;
    f.slowest_rank = 3;
    f.slowest_lag_ms = 900;
    f.median_lag_ms = 100;
    report_step(report, &f);
    assert_non_null(strstr(output(), "loss nan (thought - answer 0.642)"));
    assert_non_null(strstr(output(), "gnorm inf"));
    assert_non_null(strstr(output(), "elapsed 26:01:01"));
    assert_non_null(strstr(output(), "slow rank 3 (+800 ms)"));
    struct json *line = line_of_metrics(0);
    assert_int_equal(json_kind(json_member(line, "loss")), JSON_KIND_NULL);
    assert_int_equal(json_kind(json_member(line, "grad_norm")), JSON_KIND_NULL);
    assert_int_equal(json_kind(json_member(line, "thought_loss")), JSON_KIND_NULL);
    assert_true(number(line, "slowest_rank") == 3 && number(line, "router_grad_norm") == 0.25);
    json_free(line);
    close_report();
}

static void evaluation_block(void **state)
{
    (void)state;
    struct slot_report empty = {0};
    open_report(NULL);
    report_set(report, "gsm \"x\"", &sums, NULL);
    report_set(report, "other", &empty, NULL);
    report_evaluation(report, 50, 1.5, &sums, 2.04, true, NULL);
    const char *text = output();
    assert_non_null(strstr(text, "eval step 50 epoch 1.50 loss 1.234 (thought 1.301 answer 0.642) acc 0.74 in 2.0 s, best so far\n"));
    assert_non_null(strstr(text, "  gsm \"x\"              loss 1.234"));
    assert_non_null(strstr(text, "  other                loss - (thought - answer -) acc -\n"));
    struct json *line = line_of_metrics(0);
    assert_true(number(line, "eval_loss") == 24.68 / 20 && number(line, "eval_gsm \"x\"_loss") == 24.68 / 20);
    assert_int_equal(json_kind(json_member(line, "eval_other_loss")), JSON_KIND_NULL);
    json_free(line);
    report_set(report, "other", &sums, NULL);
    report_evaluation(report, 60, 1.6, &sums, 1, false, NULL); /* one set: the block is one line */
    assert_null(strstr(strstr(output(), "eval step 60"), "\n  "));
    assert_null(strstr(strstr(output(), "eval step 60"), "best"));
    line = line_of_metrics(1);
    assert_true(number(line, "step") == 60 && number(line, "eval_other_accuracy") == 14.0 / 19);
    json_free(line);
    close_report();
}

static void snapshots_and_end(void **state)
{
    (void)state;
    struct writer_result result = {.any = true, .written = {.step = 600, .bytes = 12345678, .seconds = 0.25, .digest = "00ff"}, .removed = 1};
    static char *const overrides[] = {"--overwrite_output_dir", "--resume_from_checkpoint", "run", "run_name=it's", "max_steps=9"};
    struct invocation invocation = {"build/bin/worker", "run.yaml", 4, 5, overrides};
    struct end_facts end = {.step = 600, .total = 600, .epoch = 3, .tokens = 999, .seconds = 61, .digest = "0123456789abcdef0123456789abcdef",
                            .best_metric = "eval_loss", .best_value = 0.5, .best_step = 400, .output_dir = folder, .invocation = &invocation};
    open_report(NULL);
    report_saved(report, &result);
    report_stopping(report, "asked to stop after step 600");
    report_end_facts(report, &end);
    const char *text = output();
    char wanted[256];
    snprintf(wanted, sizeof wanted, "saved %s/snapshots/step-00000600.h5 (12.3 MB in 0.25 s), 1 older removed\n", folder);
    assert_non_null(strstr(text, wanted));
    assert_non_null(strstr(text, "asked to stop after step 600; writing a snapshot\n"));
    assert_non_null(strstr(text, "Finished after step 600 of 600 (epoch 3.00, 999 tokens) in 01:01\n"));
    assert_non_null(strstr(text, "\n  digest      0123456789abcdef0123456789abcdef\n"));
    assert_non_null(strstr(text, "best        eval_loss 0.5000 at step 400"));
    snprintf(wanted, sizeof wanted, "  h5dump -H %s/snapshots/step-00000600.h5\n", folder);
    assert_non_null(strstr(text, wanted));
    snprintf(wanted, sizeof wanted, "\n  build/bin/loar generate --snapshot %s --prompt ", folder);
    assert_non_null(strstr(text, wanted));
    assert_non_null(strstr(text, "\n  mpirun -n 4 build/bin/worker run.yaml 'run_name=it'\\''s' max_steps=9 --resume_from_checkpoint true"
                                 " --max_steps N\n"));
    struct json *line = line_of_metrics(0);
    assert_string_equal(json_to_string(json_member(line, "snapshot"), NULL), "step-00000600.h5");
    json_free(line);
    close_report();
    /* A failed snapshot is no line of metrics, and no place to point at. */
    open_report(NULL);
    result.status = STATUS_IO;
    report_saved(report, &result);
    end.stopped = true;
    report_end_facts(report, &end);
    assert_int_equal(report_history(report)->size, 0);
    assert_null(strstr(output(), "snapshots/"));
    assert_non_null(strstr(output(), "Stopped after step 600"));
    close_report();
}

/* Lines after the snapshot that a run goes on from are gone. */
static void resumed_history(void **state)
{
    (void)state;
    struct step_facts f = step;
    open_report(NULL);
    report_step(report, &f);
    report_evaluation(report, 120, 1, &sums, 0, true, NULL);
    char *until = mem_strdup(report_history(report)->data);
    f.step = 130;
    report_step(report, &f);
    close_report();
    open_report(until);
    struct json *line = line_of_metrics(0);
    json_free(line);
    assert_string_equal(report_history(report)->data, until);
    f.step = 125;
    report_step(report, &f);
    line = line_of_metrics(2);
    assert_true(number(line, "step") == 125);
    json_free(line);
    report_evaluation(report, 126, 1, &sums, 0, false, NULL);
    assert_null(strstr(output(), "best"));
    close_report();
    mem_free(until);
}

static void plan_and_row(void **state)
{
    (void)state;
    static const char yaml[] = "model_name_or_path: m\ndatasets: [{path: a.jsonl}]\nlearning_rate: 1e-3\nrun_name: trial\n";
    char *overrides[] = {"ps.slots=16", NULL};
    struct options o;
    assert_ok(options_parse_text(yaml, sizeof yaml - 1, "run.yaml", 1, overrides, &o, NULL, &err), &err);
    struct plan_data data[] = {
        {.name = "a", .format = "qa-cot", .read = 100, .kept = 90, .skipped = 4, .too_long = 6, .shortened = 2, .longest = 77,
         .tokens = {1000, 2000, 300, 90}, .problems = "a.jsonl:3: bad\n"},
        {.name = "e", .format = "qa-cot", .evaluation = true, .read = 10, .kept = 10, .tokens = {5, 5, 5, 5}},
    };
    struct plan_facts f = {.all = &o, .options = &o, .ranks = 4, .workers = 3, .server_threads = 2, .worker_threads = 1, .hosts = "n1 x 3", .model = "m (llama)",
                           .parameters = 1000, .trained = 500, .data = data, .n_data = 2, .steps_per_epoch = 7, .first_step = 5,
                           .total_steps = 21, .warmup_steps = 2, .memory = {1000000, 2000000, 500000, 2500000000, 3000000000}, .machine_bytes = 0,
                           .resumed_from = "run/snapshots/step-00000005.h5", .notes = "one\ntwo\n"};
    open_report(NULL);
    report_plan_facts(report, &f);
    static const char *const parts[] = {
        "LoAR 0", ": trial\n", "4 (1 server, 3 workers) on n1 x 3\n", "1000, of which 500 are trained (50.0 %)",
        "a: 100 read, 90 used, 4 skipped, 6 too long, 2 with a shortened thought (format qa-cot, longest 77 tokens)\n", "a.jsonl:3: bad\n",
        "3390 per epoch: prompt 1000, thought 2000, answer 300, end 90\n", "21 (7 per epoch), going on after step 5\n",
        "128 rows = 16 micro-batches x 8 rows, shared by 3 workers\n", "about 3.5 MB per worker (weights 1.0 MB, gradients 2.0 MB, activations 0.5 MB), 2.5 GB on the server, 3.0 GB that the workers of a node share (frozen weights)\n",
        "learning_rate: 0.001  [run.yaml:3]\n", "ps.slots: 16  [command line]\n", "step-00000005.h5\n", "  note         one\n", " two\n",
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (!strstr(output(), parts[i])) {
            print_error("'%s' is not in:\n%s", parts[i], output());
            fail();
        }
    struct row_piece pieces[] = {{"prompt", "Q\n", 2, 5, 0}, {"answer", " 4", 2, 1, 2.5}};
    report_row(report, "a", pieces, 2);
    assert_non_null(strstr(output(), "  prompt       5      0  \"Q\\n\"\n  answer       1    2.5  \" 4\"\n"));
    assert_int_equal(report_history(report)->size, 0);
    close_report();
    options_free(&o);
}

/* Lines that a page of the run reads: plan, warnings, end. */
static void records(void **state)
{
    (void)state;
    static const char yaml[] = "model_name_or_path: m\ndatasets: [{path: a.jsonl}]\nrun_name: trial\nps: {slots: 4}\nper_device_train_batch_size: 2\n";
    char *overrides[] = {NULL};
    struct options o;
    assert_ok(options_parse_text(yaml, sizeof yaml - 1, "run.yaml", 0, overrides, &o, NULL, &err), &err);
    struct plan_data data[] = {{.name = "a \"b\"", .format = "text", .read = 9, .kept = 8, .tokens = {1, 2, 3, 4}},
                               {.name = "e", .format = "text", .evaluation = true}};
    struct plan_facts f = {.options = &o, .ranks = 4, .workers = 3, .hosts = "n1 x 3", .model = "m", .parameters = 1000, .trained = 500,
                           .data = data, .n_data = 2, .steps_per_epoch = 7, .first_step = 5, .total_steps = 21, .notes = "one\ntwo\n"};
    struct end_facts end = {.stopped = true, .step = 9, .total = 21, .epoch = 1.5, .tokens = 99, .seconds = 6.5, .digest = "0123", .best_metric = "",
                            .best_step = -1};
    open_report(NULL);
    report_plan_record(report, &f, "learning_rate: 1\n", "not UTF-8: \xff");
    struct json *line = line_of_metrics(0);
    const struct json *plan = json_member(line, "plan"), *sets = json_member(plan, "data");
    assert_true(number(line, "step") == 5 && number(plan, "ranks") == 4 && number(plan, "total_steps") == 21 && number(plan, "batch_rows") == 8);
    assert_string_equal(json_to_string(json_member(plan, "run_name"), NULL), "trial");
    assert_string_equal(json_to_string(json_member(plan, "run_file"), NULL), "learning_rate: 1\n");
    assert_string_equal(json_to_string(json_member(plan, "notes"), NULL), "one\ntwo\n");
    assert_null(json_member(plan, "options")); /* it would have spoilt the line */
    assert_int_equal(strlen(json_to_string(json_member(plan, "started"), NULL)), 20);
    assert_true(json_count(sets) == 2 && number(json_at(sets, 0), "used") == 8 && number(json_at(sets, 0), "answer_tokens") == 3);
    assert_string_equal(json_to_string(json_member(json_at(sets, 0), "name"), NULL), "a \"b\"");
    assert_true(json_to_bool(json_member(json_at(sets, 1), "evaluation")));
    json_free(line);
    /* What the program warns of is a line before the next one, whatever goes to stderr. */
    report_step(report, &step);
    log_warn("disk \"%s\" is nearly full", "x");
    log_info("no line");
    log_warn("of no use to a reader: \xff");
    report_end_record(report, &end);
    line = line_of_metrics(2);
    assert_string_equal(json_to_string(json_member(line, "warning"), NULL), "disk \"x\" is nearly full");
    assert_true(number(line, "step") == 120);
    json_free(line);
    line = line_of_metrics(3);
    const struct json *ended = json_member(line, "end");
    assert_true(json_to_bool(json_member(ended, "stopped")) && number(ended, "step") == 9 && number(ended, "seconds") == 6.5);
    assert_null(json_member(ended, "best_metric"));
    json_free(line);
    log_error("the loss is nan"); /* the last word of a run that fails */
    close_report();
    char *text;
    size_t size;
    assert_ok(file_read(metrics, &text, &size, &err), &err);
    assert_non_null(strstr(text, "{\"step\": 120, \"error\": \"the loss is nan\"}\n"));
    mem_free(text);
    log_warn("nobody listens any more");
    options_free(&o);
}

static void short_memory(void **state)
{
    (void)state;
    int n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        long live = mem_live();
        mem_fail_after(n, true);
        st = report_create(folder, "{}\n", 3, &report, &err);
        mem_fail_after(-1, false);
        if (st == STATUS_OK) {
            mem_fail_after(0, true); /* printing may lose lines, not more */
            FILE *nowhere = fopen("/dev/null", "w");
            report_print_to(report, nowhere);
            report_step(report, &step);
            report_set(report, "x", &sums, NULL);
            report_evaluation(report, 1, 1, &sums, 0, true, NULL);
            mem_fail_after(-1, false);
            report_free(report);
            fclose(nowhere);
        } else {
            assert_int_equal(st, STATUS_NOMEM);
        }
        assert_int_equal(mem_live(), live);
    }
    assert_true(n >= 4);
    assert_refused(report_create("/nowhere/at/all", NULL, 0, &report, &err), STATUS_IO, &err, "/nowhere/at/all/metrics.jsonl");
}

static void signals_become_flags(void **state)
{
    (void)state;
    signals_install();
    assert_false(signals_take_stop());
    raise(SIGTERM);
    raise(SIGTERM);
    raise(SIGUSR1);
    assert_true(signals_take_stop());
    assert_false(signals_take_stop());
    assert_true(signals_take_save());
    assert_false(signals_take_save());
    int status;
    pid_t child = fork();
    if (!child) {
        raise(SIGINT);
        if (!signals_take_stop())
            _exit(1);
        raise(SIGINT);
        _exit(2);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 130);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_line),         cmocka_unit_test(nothing_is_hidden), cmocka_unit_test(evaluation_block),
        cmocka_unit_test(snapshots_and_end), cmocka_unit_test(resumed_history),   cmocka_unit_test(plan_and_row),
        cmocka_unit_test(records),
        cmocka_unit_test(short_memory),      cmocka_unit_test(signals_become_flags),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
