/* Event files as a run writes them, read back by tests/support/event_reader.h. */
#include "tests/support/event_reader.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/files.h"
#include "common/log.h"
#include "common/memory.h"
#include "launch/board.h"
#include "launch/report.h"
#include "tests/support/scratch.h"

enum { ROOM = 256 };

static struct error err;
static char folder[SCRATCH_SIZE];
static struct board *board;
static struct seen_event seen[ROOM];
static int n_seen;
static char *bytes;

static int make_folder(void **state)
{
    (void)state;
    log_init(LOG_ERROR, -1);
    return !scratch_folder(folder, "board");
}

static int remove_folder(void **state)
{
    (void)state;
    return scratch_remove(folder);
}

static void open_board(const char *name, int64_t first_step)
{
    struct text path = {0};
    board_put_folder(folder, name, &path);
    assert_false(path.failed);
    assert_ok(board_create(path.data, first_step, &board, &err), &err);
    text_free(&path);
}

static void line(const char *text)
{
    board_line(board, text, strlen(text));
}

/* The file as it is now, while the board is open: what a killed run leaves. */
static void look(void)
{
    size_t size;
    mem_free(bytes);
    assert_ok(file_read(board_path(board), &bytes, &size, &err), &err);
    n_seen = read_events(bytes, size, seen, ROOM);
}

static void done(void)
{
    board_free(board);
    mem_free(bytes);
    bytes = NULL;
}

/* How many events have the tag; *out is the newest. */
static int count_of(const char *tag, const struct seen_event **out)
{
    int count = 0;
    for (int i = 0; i < n_seen; i++)
        if (!strcmp(seen[i].tag, tag)) {
            *out = &seen[i];
            count++;
        }
    return count;
}

static void expect(const char *tag, int64_t step, double value)
{
    const struct seen_event *e = NULL;
    if (count_of(tag, &e) != 1 || !e->has_scalar || e->step != step || !(fabs(e->scalar - value) <= 1e-6 * fabs(value)))
        fail_msg("'%s' is there %d times; %g at step %lld, expected %g at %lld", tag, count_of(tag, &e), e ? e->scalar : NAN,
                 e ? (long long)e->step : -1, value, (long long)step);
}

static void scalars(void **state)
{
    (void)state;
    open_board("trial", 0);
    line("{\"step\": 10, \"total_steps\": 50, \"epoch\": 0.25, \"loss\": 2.5, \"thought_loss\": null, \"answer_loss\": 1.5, \"accuracy\": 0.5, "
         "\"learning_rate\": 1e-05, \"grad_norm\": 3, \"tokens_per_second\": 800, \"attention_share\": 0.4, \"active_heads\": 0.75, "
         "\"imbalance\": 0.1, \"loss_by_quarter\": [2.75, null, 2.25, 2]}\n");
    line("{\"step\": 10, \"epoch\": 0.25, \"eval_loss\": 2.125, \"eval_gsm_loss\": 2.5, \"eval_gsm_accuracy\": 0.375, \"eval_runtime_s\": 1.5, "
         "\"attention_share\": 0.3, \"active_heads\": 0.5, \"loss_by_quarter\": [1, 2, 3, 4]}\n");
    line("{\"step\": 10, \"snapshot\": \"step-00000010.h5\", \"digest\": \"00ff\", \"bytes\": 100, \"write_s\": 0.5}\n");
    look();
    assert_string_equal(seen[0].version, "brain.Event:2");
    assert_true(!seen[0].has_step && seen[1].session == 1 && seen[1].step == 0);
    expect("train/epoch", 10, 0.25);
    expect("train/loss", 10, 2.5);
    expect("train/answer_loss", 10, 1.5);
    expect("train/accuracy", 10, 0.5);
    expect("train/learning_rate", 10, 1e-5);
    expect("train/grad_norm", 10, 3);
    expect("train/tokens_per_second", 10, 800);
    expect("train/attention_share", 10, 0.4);
    expect("train/active_heads", 10, 0.75);
    expect("train/imbalance", 10, 0.1);
    expect("train/loss_by_quarter/1", 10, 2.75);
    expect("train/loss_by_quarter/3", 10, 2.25);
    expect("train/loss_by_quarter/4", 10, 2);
    expect("eval/loss", 10, 2.125);
    expect("eval/gsm_loss", 10, 2.5);
    expect("eval/gsm_accuracy", 10, 0.375);
    expect("eval/runtime", 10, 1.5);
    expect("eval/attention_share", 10, 0.3);
    expect("eval/active_heads", 10, 0.5);
    expect("eval/loss_by_quarter/4", 10, 4);
    assert_int_equal(n_seen, 2 + 13 + 10); /* null is no number, and nothing else has become one */
    double now = (double)time(NULL);
    for (int i = 0; i < n_seen; i++)
        assert_true(fabs(seen[i].wall_time - now) < 60);
    line("{\"step\": 12, \"epoch\": 0.3, \"eval_loss\": 2}"); /* without a line of its own step */
    line("{\"step\": 13, \"epoch\": 0.35, \"loss\": null, \"answer_loss\": null, \"grad_norm\": null}");
    look();
    const struct seen_event *e;
    assert_int_equal(count_of("train/epoch", &e), 3);
    assert_true(count_of("train/loss", &e) == 2 && e->step == 13 && isnan(e->scalar)); /* not hidden */
    assert_true(count_of("train/grad_norm", &e) == 2 && isnan(e->scalar));
    assert_int_equal(count_of("train/answer_loss", &e), 1);
    done();
}

static void check_pixel(const unsigned char *rgb, int width, int x, int y, int r, int g, int b)
{
    const unsigned char *p = rgb + 3 * (y * width + x);
    if (p[0] != r || p[1] != g || p[2] != b)
        fail_msg("pixel %d,%d is %d %d %d", x, y, p[0], p[1], p[2]);
}

static void routing_maps(void **state)
{
    (void)state;
    enum { CELL = 24, WIDTH = 3 * CELL, HEIGHT = 2 * CELL };
    const struct seen_event *e = NULL;
    open_board("maps", 0);
    line("{\"step\": 20, \"routing\": \"train\", \"tasks\": [\"qa\", \"rare\", \"\"], "
         "\"active\": [[[0.0000, 0.5000, 1.0000], [1, 1, 1]], null, [[0.25, 0.75, 1], [1, 1, 1]]]}");
    look();
    assert_int_equal(count_of("routing/train/rare", &e), 0);
    assert_int_equal(count_of("routing/train/all", &e), 1);
    assert_int_equal(count_of("routing/train/qa", &e), 1);
    assert_true(e->has_image && e->step == 20 && e->width == WIDTH && e->height == HEIGHT && e->colorspace == 3);
    unsigned char *rgb = read_png(e->image, WIDTH, HEIGHT);
    check_pixel(rgb, WIDTH, 0, 0, 0xf7, 0xfb, 0xff); /* layer 0 on top: head 0 never ran, */
    check_pixel(rgb, WIDTH, CELL + 5, 7, 0x6b, 0xae, 0xd6);
    check_pixel(rgb, WIDTH, 2 * CELL + 22, 22, 0x08, 0x30, 0x6b);
    check_pixel(rgb, WIDTH, 3, CELL + 3, 0x08, 0x30, 0x6b);
    check_pixel(rgb, WIDTH, CELL - 1, 3, 0xcc, 0xcc, 0xcc);
    free(rgb);
    /* What is no map is left out; lines behind it count. */
    line("{\"step\": 21, \"routing\": \"eval\", \"tasks\": [\"qa\"], \"active\": [[[1, 1], [1]]]}");
    line("{\"step\": 21, \"routing\": \"eval\", \"tasks\": [\"qa\"], \"active\": [[[1, \"x\"]]]}");
    line("{\"step\": 21, nonsense");
    line("{\"step\": 22, \"routing\": \"eval\", \"tasks\": [\"qa\"], \"active\": [[[0.1]]]}");
    look();
    assert_int_equal(n_seen, 5);
    assert_true(count_of("routing/eval/qa", &e) == 1 && e->step == 22 && e->width == CELL && e->height == CELL);
    done();
}

/* Many layers or heads: smaller cells, no lines between them. */
static void large_maps(void **state)
{
    (void)state;
    struct text text = {0};
    const struct seen_event *e = NULL;
    text_puts(&text, "{\"step\": 1, \"routing\": \"train\", \"tasks\": [\"qa\"], \"active\": [[");
    for (int l = 0; l < 61; l++) {
        text_puts(&text, l ? ", [" : "[");
        for (int h = 0; h < 300; h++)
            text_puts(&text, h ? ", 1" : "0");
        text_puts(&text, "]");
    }
    text_puts(&text, "]]}");
    open_board("large", 0);
    line(text.data);
    look();
    assert_true(count_of("routing/train/qa", &e) == 1 && e->width == 900 && e->height == 183);
    unsigned char *rgb = read_png(e->image, 900, 183);
    check_pixel(rgb, 900, 2, 182, 0xf7, 0xfb, 0xff);
    check_pixel(rgb, 900, 3, 182, 0x08, 0x30, 0x6b);
    free(rgb);
    text_free(&text);
    done();
}

static void texts(void **state)
{
    (void)state;
    const struct seen_event *e = NULL;
    static const char wanted[] = "    a: 1\n    \n      - *b*\n";
    open_board("texts", 0);
    board_text(board, "run_file", 0, "a: 1\n\n  - *b*", 13);
    look();
    assert_true(count_of("run_file", &e) == 1 && e->text_count == 1 && e->step == 0 && e->has_step);
    assert_int_equal(e->text.end - e->text.at, sizeof wanted - 1);
    assert_memory_equal(e->text.at, wanted, sizeof wanted - 1);
    done();
}

static void samples(void **state)
{
    (void)state;
    const struct seen_event *e = NULL;
    static const char wanted[] = "    prompt: 1 + 1?\n    thought: one\n    and one\n    answer: 2\n    expected: 2\n";
    open_board("samples", 0);
    line("{\"step\": 20, \"sample\": {\"set\": \"sums\", \"prompt\": \"1 + 1?\", \"thought\": \"one\\nand one\", \"answer\": \"2\", "
         "\"expected\": \"2\", \"right\": true}}");
    line("{\"step\": 20, \"sample\": {\"set\": \"sums\", \"answer\": \"5\"}}");
    line("{\"step\": 30, \"sample\": {\"set\": \"sums\", \"answer\": \"6\"}}");
    look();
    assert_true(count_of("samples/sums/1", &e) == 2 && e->step == 30);
    assert_true(count_of("samples/sums/2", &e) == 1 && e->step == 20);
    done();
    open_board("sample", 0);
    line("{\"step\": 20, \"sample\": {\"set\": \"sums\", \"prompt\": \"1 + 1?\", \"thought\": \"one\\nand one\", \"answer\": \"2\", "
         "\"expected\": \"2\", \"right\": true}}");
    look();
    assert_int_equal(count_of("samples/sums/1", &e), 1);
    assert_int_equal(e->text.end - e->text.at, sizeof wanted - 1);
    assert_memory_equal(e->text.at, wanted, sizeof wanted - 1);
    done();
}

/* A resumed run: the same folder, a file that sorts behind the first even where the clock went back. */
static void next_part(void **state)
{
    (void)state;
    char first[512], path[600];
    open_board("", 0);
    snprintf(first, sizeof first, "%s", board_path(board));
    snprintf(path, sizeof path, "%s/runs/%s/events.out.tfevents.", folder, strrchr(folder, '/') + 1); /* "": as the run's folder */
    assert_memory_equal(first, path, strlen(path));
    done();
    for (int part = 1; part < 4; part++) {
        open_board("", 100);
        assert_true(strcmp(board_path(board), first) > 0);
        assert_int_equal(strrchr(board_path(board), '/') - board_path(board), strrchr(first, '/') - first);
        snprintf(first, sizeof first, "%s", board_path(board));
        look();
        assert_true(n_seen == 2 && seen[1].session == 1 && seen[1].step == 101);
        done();
    }
    static const char *const names[][2] = {{"a/../b", "a_.._b"}, {"..", "run"}, {"it's me", "it's me"}};
    for (int i = 0; i < 3; i++) {
        open_board(names[i][0], 0);
        snprintf(path, sizeof path, "%s/runs/%s/events.out.tfevents.", folder, names[i][1]);
        assert_memory_equal(board_path(board), path, strlen(path));
        done();
    }
}

/* Whole records stay readable, and writing goes on when there is room again. */
static void full_disk(void **state)
{
    (void)state;
    struct rlimit old, tight;
    const struct seen_event *e = NULL;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    open_board("full", 0);
    line("{\"step\": 1, \"epoch\": 1, \"loss\": 2}");
    look();
    struct stat before;
    assert_int_equal(stat(board_path(board), &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    tight = old;
    tight.rlim_cur = (rlim_t)before.st_size + 20; /* part of a record */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    line("{\"step\": 2, \"epoch\": 2, \"loss\": 3}");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    look();
    line("{\"step\": 3, \"epoch\": 3, \"loss\": 4}");
    look();
    assert_int_equal(n_seen, 6);
    assert_true(count_of("train/loss", &e) == 2 && e->step == 3 && e->scalar == 4);
    signal(SIGXFSZ, SIG_DFL);
    done();
}

static void short_memory(void **state)
{
    (void)state;
    static const char step[] = "{\"step\": 1, \"epoch\": 1, \"loss\": 2}\n",
                      map[] = "{\"step\": 1, \"routing\": \"train\", \"tasks\": [\"qa\"], \"active\": [[[0.5]]]}\n";
    struct text path = {0};
    board_put_folder(folder, "short", &path);
    long live = mem_live();
    int n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        mem_fail_after(n, true);
        st = board_create(path.data, 0, &board, &err);
        mem_fail_after(-1, false);
        if (st == STATUS_OK)
            board_free(board);
        else
            assert_int_equal(st, STATUS_NOMEM);
        assert_int_equal(mem_live(), live);
    }
    assert_true(n >= 4);
    open_board("short", 0);
    for (n = 0; n < 30; n++) {
        mem_fail_after(n, false);
        line(step);
        mem_fail_after(n, false);
        line(map);
        mem_fail_after(n, false);
        board_text(board, "x", 1, "a\nb\n", 4);
    }
    mem_fail_after(-1, false);
    look(); /* whatever is there is whole */
    assert_true(n_seen > 10);
    done();
    assert_int_equal(mem_live(), live);
    text_free(&path);
    assert_refused(board_create("/proc/nowhere", 0, &board, &err), STATUS_IO, &err, "/proc/nowhere");
}

/* The report shows its lines, as it writes them. */
static void lines_of_a_report(void **state)
{
    (void)state;
    struct report *report;
    const struct seen_event *e = NULL;
    struct report_extra extra = {0};
    struct slot_report sums = {.loss = 24, .weight = 20, .span_loss = {0, 13, 4.5, 1.5}, .span_count = {0, 10, 7, 3}, .correct = 15, .tokens = 31};
    struct step_facts facts = {.step = 120, .total = 600, .epoch = 0.6, .sums = sums, .learning_rate = 1e-5, .grad_norm = 0.5,
                               .tokens_per_second = 3120, .slowest_rank = -1, .extra = &extra};
    FILE *nowhere = fopen("/dev/null", "w");
    char history[] = "{\"step\": 110, \"epoch\": 0.5, \"loss\": 9}\n";
    assert_ok(report_create(folder, history, strlen(history), &report, &err), &err);
    report_print_to(report, nowhere);
    open_board("report", 110);
    report_show_on(report, board);
    text_puts(&extra.json, "\"active_heads\": 0.5");
    text_puts(&extra.record, "{\"step\": 120, \"routing\": \"train\", \"tasks\": [\"qa\"], \"active\": [[[0.5, 1]]]");
    report_step(report, &facts);
    report_set(report, "held-out", &sums, NULL);
    report_evaluation(report, 120, 0.6, &sums, 2, true, NULL);
    look();
    expect("train/loss", 120, 1.2); /* once: the history is in the file of the part that wrote it */
    expect("train/thought_loss", 120, 1.3);
    expect("train/answer_loss", 120, 0.6);
    expect("train/accuracy", 120, 0.75);
    expect("train/active_heads", 120, 0.5);
    expect("eval/held-out_loss", 120, 1.2);
    expect("eval/loss", 120, 1.2);
    assert_int_equal(count_of("routing/train/qa", &e), 1);
    report_extra_free(&extra);
    report_free(report);
    fclose(nowhere);
    mem_free(bytes);
    bytes = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars),   cmocka_unit_test(routing_maps), cmocka_unit_test(large_maps),
        cmocka_unit_test(texts), cmocka_unit_test(samples),     cmocka_unit_test(next_part),    cmocka_unit_test(full_disk),
        cmocka_unit_test(short_memory), cmocka_unit_test(lines_of_a_report),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
