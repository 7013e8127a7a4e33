/* `loar plot`: the scripts that gnuplot gets (a stand-in copies them into the picture), what is refused and how, and,
 * where gnuplot is installed, that it draws them without complaint. */
#include "tests/support/cmocka_all.h"
#include "tests/support/capture.h"

#include <sys/stat.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/commands.h"
#include "launch/plot.h"
#include "tests/support/scratch.h"

static struct error err;
static char folder[SCRATCH_SIZE], metrics[128], output[128], errors[128], tools[128], stand_in[160], loss_svg[128], routing_svg[128], png[128];
static char *usual_path;

static void write_file(const char *path, const char *content)
{
    assert_ok(file_replace(path, content, strlen(content), &err), &err);
}

/* What `gnuplot` does when the next command starts it; NULL: there is none. */
static void use_gnuplot(const char *script)
{
    unlink(stand_in);
    if (script) {
        write_file(stand_in, script);
        chmod(stand_in, 0700);
    }
    setenv("PATH", tools, 1);
}

static const char copies[] = "#!/bin/sh\nexec /bin/cat\n";

static int set_up(void **state)
{
    (void)state;
    if (!scratch_folder(folder, "plot"))
        return 1;
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", folder);
    snprintf(output, sizeof output, "%s/output", folder);
    snprintf(errors, sizeof errors, "%s/errors", folder);
    snprintf(tools, sizeof tools, "%s/tools", folder);
    snprintf(stand_in, sizeof stand_in, "%s/gnuplot", tools);
    snprintf(loss_svg, sizeof loss_svg, "%s/loss.svg", folder);
    snprintf(routing_svg, sizeof routing_svg, "%s/routing.svg", folder);
    snprintf(png, sizeof png, "%s/it's.png", folder);
    return mkdir(tools, 0700);
}

static int tear_down(void **state)
{
    (void)state;
    const char *const files[] = {metrics, output, errors, stand_in, loss_svg, routing_svg, png};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        unlink(files[i]);
    rmdir(tools);
    return rmdir(folder); /* fails if anything else was left, such as a picture half written */
}

#define run(...) run_words(cmd_plot, output, errors, "plot", __VA_ARGS__)

static char *content_of(const char *path)
{
    char *content;
    size_t size;
    assert_ok(file_read(path, &content, &size, &err), &err);
    return content;
}

static void expect_not_in(const char *path, const char *part)
{
    char *content = content_of(path);
    assert_null(strstr(content, part));
    mem_free(content);
}

static const char losses[] = "{\"step\": 10, \"loss\": 3.5, \"thought_loss\": 4, \"answer_loss\": null}\n"
                             "{\"step\": 20, \"loss\": null, \"thought_loss\": 3.25, \"answer_loss\": null}\n"
                             "{\"step\": 20, \"eval_loss\": 3, \"eval_thought_loss\": 9}\n"
                             "{\"step\": 20, \"snapshot\": \"step-00000020.h5\"}\n"
                             "{\"step\": 30, \"loss\": 1.5, \"thought_loss\": 2, \"answer_loss\": null}\n"
                             "{\"step\": 40, \"lo"; /* being written */

static void loss_is_a_curve_for_each_kind(void **state)
{
    (void)state;
    use_gnuplot(copies);
    write_file(metrics, losses);
    assert_int_equal(run("loss", folder, NULL), 0);
    expect_in(output, "loss.svg: 2 of loss, 3 of thought_loss, 1 of eval_loss");
    expect_in(loss_svg, "set terminal svg size 960,600");
    expect_in(loss_svg, "$loss << END\n10 3.5\n\n30 1.5\nEND\n");
    expect_in(loss_svg, "$thought_loss << END\n10 4\n20 3.25\n30 2\nEND\n");
    expect_in(loss_svg, "$eval_loss << END\n20 3\nEND\nplot $loss using 1:2 with linespoints ");
    expect_in(loss_svg, "$eval_loss using 1:2 with points ");
    expect_not_in(loss_svg, "answer");
    assert_int_equal(run("loss", "--out", png, folder, NULL), 0);
    expect_in(png, "set terminal pngcairo size 960,600");
    char title[SCRATCH_SIZE + 16];
    snprintf(title, sizeof title, "\nset title '%s'", folder);
    expect_in(png, title);
    assert_int_equal(run("loss", folder, "--term", NULL), 0);
    expect_in(output, "set terminal dumb size 100,30\n");
    expect_in(output, "plot $loss using 1:2 with lines ");
    expect_not_in(output, "loss.svg");
}

static const char routed[] =
    "{\"step\": 20, \"routing\": \"eval\", \"tasks\": [\"old\"], \"active\": [[[1]]]}\n"
    "{\"step\": 30, \"routing\": \"train\", \"tasks\": [\"qa\", \"it's\"], \"active\": [[[1, 0.5], [0.25, 1]], [[0.5, 0.5], [0.5, 0]]]}\n"
    "{\"step\": 40, \"routing\": \"eval\", \"tasks\": [\"none\", \"a\", \"b\", \"c\"],"
    " \"active\": [null, [[1, 0.5, 0]], [[0.25, 0.5, 1]], [[0, 0, 0]]]}\n"
    "{\"step\": 40, \"loss\": 1}\n";

static void routing_is_a_map_for_each_task(void **state)
{
    (void)state;
    use_gnuplot(copies);
    write_file(metrics, routed);
    assert_int_equal(run("routing", folder, "--which", "train", NULL), 0);
    expect_in(output, "routing.svg: step 30, train, 2 layers x 2 heads, tasks qa, it's");
    expect_in(routing_svg, "$task0 << END\n0 0 1\n1 0 0.5\n0 1 0.25\n1 1 1\nEND\n");
    expect_in(routing_svg, "$task1 << END\n0 0 0.5\n1 0 0.5\n0 1 0.5\n1 1 0\nEND\n");
    expect_in(routing_svg, "$less1 << END\n0 0 0.5\n1 0 0\n0 1 -0.25\n1 1 1\nEND\n");
    expect_in(routing_svg, "set multiplot layout 1,3 ");
    expect_in(routing_svg, "set title 'it''s' noenhanced\nset cbrange [0:1]\n");
    expect_in(routing_svg, "set title 'qa - it''s' noenhanced\nset cbrange [-1:1]\n");
    expect_in(routing_svg, "set xrange [-0.5:1.5]\nset yrange [-0.5:1.5]\n");
    /* The newest line of evaluation is the usual one; a task without rows has no map, differences stand below. */
    assert_int_equal(run("routing", folder, "--out", png, NULL), 0);
    expect_in(output, ".png: step 40, eval, 1 layers x 3 heads, tasks none (no rows), a, b, c");
    expect_in(png, "set terminal pngcairo size 1260,760 ");
    expect_in(png, "set multiplot layout 2,3 ");
    expect_in(png, "$less2 << END\n0 0 0.75\n1 0 0\n2 0 -1\nEND\n");
    expect_in(png, "set title 'a - c' noenhanced");
    expect_not_in(png, "$task0");
    expect_not_in(png, "multiplot next"); /* three maps fill their row */
}

/* Five maps: a row of four, a row of one and three gaps, then the differences. */
static void differences_begin_a_row(void **state)
{
    (void)state;
    use_gnuplot(copies);
    write_file(metrics, "{\"step\": 1, \"routing\": \"train\", \"tasks\": [\"a\", \"b\", \"c\", \"d\", \"e\"],"
                        " \"active\": [[[1]], [[1]], [[1]], [[1]], [[1]]]}\n");
    assert_int_equal(run("routing", folder, "--out", png, NULL), 0);
    expect_in(png, "set multiplot layout 3,4 ");
    expect_in(png, "notitle\nset multiplot next\nset multiplot next\nset multiplot next\nset title 'a - b'");
    write_file(metrics, "{\"step\": 1, \"routing\": \"train\", \"tasks\": [\"a\"], \"active\": [[[1]]]}\n");
    assert_int_equal(run("routing", folder, NULL), 0);
    expect_in(routing_svg, "set multiplot layout 1,1 ");
    expect_not_in(routing_svg, "[-1:1]");
}

static void expect_damaged(const char *line, const char *part)
{
    struct text text = {0};
    text_printf(&text, "{\"step\": 1, \"loss\": 1}\n%s\n", line);
    write_file(metrics, text.data);
    text_free(&text);
    assert_int_equal(run("routing", folder, NULL), 3);
    expect_in(errors, "metrics.jsonl:2: ");
    expect_in(errors, part);
}

#define LINE(tasks, active) "{\"step\": 1, \"routing\": \"eval\", \"tasks\": " tasks ", \"active\": " active "}"

static void damaged_lines_are_named(void **state)
{
    (void)state;
    use_gnuplot(copies);
    expect_damaged(LINE("[\"a\", \"b\"]", "[[[1]]]"), "found 2 and 1");
    expect_damaged(LINE("[]", "[]"), "found 0 and 0");
    expect_damaged(LINE("7", "[[[1]]]"), "must be lists of the same length");
    expect_damaged(LINE("[7]", "[[[1]]]"), "tasks[0] must be a name, found ");
    expect_damaged(LINE("[\"a\"]", "[null]"), "no task had rows");
    expect_damaged(LINE("[\"a\"]", "[3]"), "active[0] must be a list of layers");
    expect_damaged(LINE("[\"a\"]", "[[]]"), "active[0] must be a list of layers");
    expect_damaged(LINE("[\"a\", \"b\"]", "[[[1]], [[1], [1]]]"), "active[1] must be a list of layers");
    expect_damaged(LINE("[\"a\"]", "[[[1, 0], [1]]]"), "active[0][1] must be a list of heads");
    expect_damaged(LINE("[\"a\"]", "[[[1, 1.5]]]"), "active[0][0][1] must be a number from 0 to 1");
    expect_damaged(LINE("[\"a\"]", "[[[null]]]"), "active[0][0][0] must be a number from 0 to 1, found null");
    assert_false(file_exists(routing_svg));
}

static void runs_without_what_is_asked_for(void **state)
{
    (void)state;
    use_gnuplot(copies);
    write_file(metrics, losses);
    assert_int_equal(run("routing", folder, NULL), 2);
    expect_in(errors, "the run did not route attention");
    write_file(metrics, "{\"step\": 1, \"routing\": \"train\", \"tasks\": [\"a\"], \"active\": [[[1]]]}\n");
    assert_int_equal(run("routing", folder, "--which", "eval", NULL), 2);
    expect_in(errors, "only with \"train\"; draw that with --which train");
    assert_int_equal(run("loss", folder, NULL), 3);
    expect_in(errors, "holds no loss yet");
    write_file(metrics, "");
    assert_int_equal(run("loss", folder, NULL), 3);
    assert_int_equal(run("routing", folder, NULL), 2);
    assert_int_equal(run("loss", "/no/such/run", NULL), 3);
    expect_in(errors, "'/no/such/run' is not the folder of a run: ");
    assert_false(file_exists(loss_svg));
}

static void wrong_usage_is_told(void **state)
{
    (void)state;
    use_gnuplot(copies);
    write_file(metrics, losses);
    assert_int_equal(run(NULL), 2);
    expect_in(errors, "loar plot loss or routing? found 'nothing'");
    assert_int_equal(run("lost", folder, NULL), 2);
    expect_in(errors, "found 'lost'");
    assert_int_equal(run("loss", NULL), 2);
    expect_in(errors, "loar plot loss RUN");
    assert_int_equal(run("loss", folder, folder, NULL), 2);
    assert_int_equal(run("loss", folder, "--out", NULL), 2);
    expect_in(errors, "--out needs a value");
    assert_int_equal(run("loss", folder, "--out=loss.pdf", NULL), 2);
    expect_in(errors, "must end in .svg or .png");
    assert_int_equal(run("loss", folder, "--term", "--out", png, NULL), 2);
    assert_int_equal(run("loss", folder, "--which", "eval", NULL), 2);
    assert_int_equal(run("routing", folder, "--which", "test", NULL), 2);
    expect_in(errors, "--which must be eval or train");
    assert_int_equal(run("routing", folder, "--term", NULL), 2);
    assert_int_equal(run("loss", folder, "--outer", NULL), 2);
    expect_in(errors, "unknown option '--outer'");
}

static void gnuplot_missing_or_failing(void **state)
{
    (void)state;
    write_file(metrics, losses);
    write_file(loss_svg, "the last picture");
    use_gnuplot(NULL);
    assert_int_equal(run("loss", folder, NULL), 2);
    expect_in(errors, "apt-get install gnuplot-nox");
    use_gnuplot("#!/bin/sh\necho half a picture\necho 'line 7: no such style' >&2\nexit 3\n");
    assert_int_equal(run("loss", folder, NULL), 3);
    expect_in(errors, "gnuplot ended with status 3: line 7: no such style");
    use_gnuplot("#!/bin/sh\nkill -9 $$\n");
    assert_int_equal(run("loss", folder, NULL), 3);
    expect_in(errors, "gnuplot was ended by signal 9");
    expect_in(loss_svg, "the last picture");
    use_gnuplot(copies);
    assert_int_equal(run("loss", folder, "--out", "/proc/loar/loss.svg", NULL), 3);
    unlink(loss_svg);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    struct plot_request request = {.name = "run", .path = "metrics.jsonl"};
    for (int i = 0; i < 2; i++) {
        bool done = false;
        request.lines = i ? routed : losses;
        request.size = strlen(request.lines);
        for (long n = 0; !done; n++) {
            struct text script = {0}, told = {0};
            long live = mem_live();
            mem_fail_after(n, false);
            enum status st = (i ? plot_routing : plot_loss)(&request, &script, &told, &err);
            mem_fail_after(-1, false);
            done = st == STATUS_OK;
            assert_true(done || st == STATUS_NOMEM);
            text_free(&script);
            text_free(&told);
            assert_int_equal(mem_live(), live);
            assert_true(n < 5000);
        }
    }
}

static void gnuplot_itself_draws(void **state)
{
    (void)state;
    setenv("PATH", usual_path, 1);
    write_file(metrics, losses);
    if (run("loss", folder, NULL) == 2) {
        expect_in(errors, "apt-get install gnuplot-nox");
        print_message("skipped: gnuplot is not installed\n");
        return;
    }
    expect_in(output, "loss.svg: ");
    expect_in(loss_svg, "<svg");
    expect_in(loss_svg, "</svg>");
    expect_in(loss_svg, "evaluation");
    assert_int_equal(run("loss", folder, "--term", NULL), 0);
    expect_in(output, "training, thoughts");
    write_file(metrics, routed);
    assert_int_equal(run("routing", folder, NULL), 0);
    expect_in(routing_svg, "</svg>");
    expect_in(routing_svg, "a - c");
    assert_int_equal(run("routing", folder, "--which", "train", "--out", png, NULL), 0);
    char *picture = content_of(png);
    assert_memory_equal(picture, "\x89PNG\r\n", 6);
    mem_free(picture);
    /* A single cell, a name with everything gnuplot could take for a command. */
    write_file(metrics, "{\"step\": 1, \"routing\": \"train\", \"tasks\": [\"a' \\\"$b\\n`date` {x}_^@&\\\\\"], \"active\": [[[0]]]}\n");
    assert_int_equal(run("routing", folder, NULL), 0);
    expect_in(routing_svg, "`date` {x}_^@");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_is_a_curve_for_each_kind), cmocka_unit_test(routing_is_a_map_for_each_task),
        cmocka_unit_test(differences_begin_a_row),       cmocka_unit_test(gnuplot_missing_or_failing),
        cmocka_unit_test(memory_may_run_out),            cmocka_unit_test(gnuplot_itself_draws)};
    const struct CMUnitTest refusals[] = {cmocka_unit_test(damaged_lines_are_named), cmocka_unit_test(runs_without_what_is_asked_for),
                                          cmocka_unit_test(wrong_usage_is_told)};
    usual_path = mem_strdup(getenv("PATH"));
    long live = mem_live();
    int failed = cmocka_run_group_tests(refusals, set_up, tear_down);
    failed += cmocka_run_group_tests(tests, set_up, tear_down);
    failed += mem_live() != live;
    mem_free(usual_path);
    return failed;
}
