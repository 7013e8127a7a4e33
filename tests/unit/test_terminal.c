/* Text that fits a terminal: widths, breaks, commands, the progress line; and that none of it shows where there is no terminal. */
#include "tests/support/cmocka_all.h"

#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/memory.h"
#include "launch/progress.h"
#include "launch/screen.h"
#include "launch/terminal.h"

static void widths(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int width;
    } cases[] = {
        {"", 0}, {"abc", 3}, {"\xc3\xa4", 1}, {"\xe4\xbd\xa0\xe5\xa5\xbd", 4}, {"\xf0\x9f\x98\x80", 2}, {"e\xcc\x81", 1}, /* e and an accent */
        {"\xef\xbc\xa8", 2}, {"\xed\x95\x9c", 2}, {"\xff\xfe", 2}, {"\xe4\xbd", 2} /* cut: a column each */,
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(terminal_width(cases[i].text, strlen(cases[i].text)), cases[i].width);
    assert_int_equal(terminal_fit("abcdef", 6, 4), 4);
    assert_int_equal(terminal_fit("\xe4\xbd\xa0\xe5\xa5\xbd", 6, 3), 3); /* half a character does not fit */
    assert_int_equal(terminal_fit("\xe4\xbd\xa0", 3, 1), 3);              /* one at least, so that breaking comes to an end */
    assert_int_equal(terminal_fit("ab", 2, 10), 2);
}

static void expect_wrapped(const char *lines, int columns, const char *wanted)
{
    struct text out = {0};
    terminal_wrap(&out, lines, strlen(lines), columns);
    assert_string_equal(out.data, wanted);
    text_free(&out);
}

static void lines_break_at_blanks(void **state)
{
    (void)state;
    expect_wrapped("short\n\nlines\n", 80, "short\n\nlines\n");
    expect_wrapped("one two three\n", 0, "one two three\n");
    expect_wrapped("one two three four\n", 10, "one two\n    three\n    four\n");
    expect_wrapped("without an end that is long", 14, "without an end\n    that is\n    long");
    /* below the text behind a label */
    expect_wrapped("  rows         parity: 300 read, some used, others not\n", 46, "  rows         parity: 300 read, some used,\n               others not\n");
    expect_wrapped("  a label alone that goes on\n", 16, "  a label alone\n      that goes\n      on\n");
    /* not between a name and its number */
    expect_wrapped("loss 1.5 lr 2e-5 gnorm 3\n", 12, "loss 1.5\n    lr 2e-5\n    gnorm 3\n");
    /* words without end: broken, but not paths */
    expect_wrapped("abcdefghijkl\n", 8, "abcdefgh\n    ijkl\n");
    expect_wrapped("see /a/very/long/path/to/a/file now\n", 12, "see\n    /a/very/long/path/to/a/file\n    now\n");
    expect_wrapped("\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xbd\xa0\n", 6, "\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xbd\xa0\n\xe5\xa5\xbd\xe4\xbd\xa0\n");
}

/* Whatever the text and the width: no line is wider, and nothing but blanks and breaks is added or lost. */
static void wrapping_loses_nothing(void **state)
{
    (void)state;
    static const char *const words[] = {"a", "loss", "1.25", "  ", "\xe4\xbd\xa0\xe5\xa5\xbd", "abcdefghijklmnopqrstuvwxyz0123456789", "\n", "(x", "-3", "\xff"};
    srand(7);
    for (int round = 0; round < 3000; round++) {
        struct text in = {0}, out = {0};
        int columns = 20 + rand() % 80;
        for (int i = rand() % 40; i > 0; i--)
            text_printf(&in, "%s ", words[rand() % 10]);
        text_puts(&in, "");
        terminal_wrap(&out, in.data, in.size, columns);
        text_puts(&out, "");
        const char *a = in.data, *b = out.data;
        for (; *a || *b;) {
            a += strspn(a, " \n");
            b += strspn(b, " \n");
            assert_int_equal(*a, *b);
            a += *a != '\0';
            b += *b != '\0';
        }
        for (const char *line = out.data; *line; line += strcspn(line, "\n"), line += *line == '\n') {
            size_t size = strcspn(line, "\n");
            while (size && line[size - 1] == ' ')
                size--;
            assert_true(terminal_width(line, size) <= columns);
        }
        text_free(&in);
        text_free(&out);
    }
}

static void commands_can_be_copied(void **state)
{
    (void)state;
    struct text out = {0};
    terminal_wrap_command(&out, "  mpirun -n 3 worker run.yaml max_steps=1000 'run_name=a b'", 30);
    assert_string_equal(out.data, "  mpirun -n 3 worker \\\n      run.yaml \\\n      max_steps=1000 \\\n      'run_name=a b'");
    text_clear(&out);
    terminal_wrap_command(&out, "  short one", 30);
    assert_string_equal(out.data, "  short one");
    text_free(&out);
}

static const char *progress(double loss, double left, int columns)
{
    static struct text out;
    text_clear(&out);
    struct progress_facts f = {.step = 204, .total = 600, .loss = loss, .tokens_per_second = 3120, .left_s = left};
    progress_put(&out, &f, columns);
    assert_true(terminal_width(out.data ? out.data : "", out.size) <= columns);
    return out.data ? out.data : "";
}

static void progress_fits(void **state)
{
    (void)state;
    assert_string_equal(progress(1.2345, 520, 79), " 34 % [#########....................] 204/600 loss 1.234  3120 tok/s ETA 08:40");
    assert_string_equal(progress(NAN, 4000, 44), " 34 % 204/600  3120 tok/s ETA 1:06:40");
    assert_string_equal(progress(1.2345, NAN, 36), " 34 % 204/600 loss 1.234 ETA -");
    assert_string_equal(progress(1.2345, 5, 30), "204/600 loss 1.234 ETA 00:05");
    assert_string_equal(progress(1.2345, 5, 20), "204/600 ETA 00:05");
    assert_string_equal(progress(1.2345, 5, 10), "204/600");
    assert_string_equal(progress(1.2345, 5, 3), "");
    struct text out = {0};
    struct progress_facts odd = {.step = 700, .total = 600, .loss = INFINITY, .left_s = -1};
    progress_put(&out, &odd, 60);
    assert_non_null(strstr(out.data, "100 % [###"));
    assert_null(strstr(out.data, "."));
    text_free(&out);
    progress(0, 0, 0);
}

/* A pseudo-terminal of `columns`; what is written to `out` can be read from the returned descriptor. */
static int open_terminal(FILE **out, unsigned short columns)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0 && !grantpt(master) && !unlockpt(master));
    *out = fopen(ptsname(master), "r+");
    assert_non_null(*out);
    struct winsize size = {.ws_row = 24, .ws_col = columns};
    assert_int_equal(ioctl(master, TIOCSWINSZ, &size), 0);
    return master;
}

/* What was written since the last time. */
static const char *seen(int master)
{
    static char text[4096];
    size_t size = 0;
    struct pollfd ready = {.fd = master, .events = POLLIN};
    while (poll(&ready, 1, size ? 50 : 5000) == 1 && size < sizeof text - 1) {
        ssize_t more = read(master, text + size, sizeof text - 1 - size);
        assert_true(more > 0);
        size += (size_t)more;
    }
    text[size] = '\0';
    return text;
}

static void screen_on_a_terminal(void **state)
{
    (void)state;
    FILE *out;
    int master = open_terminal(&out, 30);
    struct screen screen;
    struct progress_facts f = {.step = 1, .total = 10, .loss = 2, .left_s = 9};
    setenv("TERM", "xterm", 1);
    screen_open(&screen, out);
    assert_int_equal(terminal_columns(out), 30);
    screen_printf(&screen, "one two three four five six seven\n");
    assert_string_equal(seen(master), "one two three four five six\r\n    seven\r\n");
    screen_progress(&screen, &f); /* not allowed yet */
    screen_allow_progress(&screen, true);
    screen_progress(&screen, &f);
    assert_string_equal(seen(master), "\r\033[K 1/10 loss 2.000 ETA 00:09");
    f.step = 2;
    screen_progress(&screen, &f); /* too soon */
    screen_printf(&screen, "a line\n");
    assert_string_equal(seen(master), "\r\033[Ka line\r\n");
    usleep(150000);
    struct winsize wide = {.ws_row = 24, .ws_col = 60}; /* a window that was made larger */
    assert_int_equal(ioctl(master, TIOCSWINSZ, &wide), 0);
    screen_progress(&screen, &f);
    assert_non_null(strstr(seen(master), " 20 % [####..."));
    screen_command(&screen, "  a command --that is --longer than --this terminal --is wide");
    assert_string_equal(seen(master), "\r\033[K  a command --that is --longer than --this terminal --is \\\r\n      wide\r\n");
    usleep(150000);
    screen_progress(&screen, &f);
    seen(master);
    screen_close(&screen); /* leaves no progress behind */
    assert_string_equal(seen(master), "\r\033[K");
    setenv("TERM", "dumb", 1);
    screen_open(&screen, out);
    screen_allow_progress(&screen, true);
    assert_false(screen.progress);
    screen_close(&screen);
    fclose(out);
    close(master);
}

static void screen_into_a_file(void **state)
{
    (void)state;
    char text[512];
    FILE *out = tmpfile();
    struct screen screen;
    struct progress_facts f = {.step = 1, .total = 10, .loss = 2, .left_s = 9};
    setenv("TERM", "xterm", 1);
    screen_open(&screen, out);
    screen_allow_progress(&screen, true);
    screen_progress(&screen, &f);
    screen_printf(&screen, "%0200d\n", 7);
    struct text lost = {.failed = true};
    screen_text(&screen, &lost);
    screen_close(&screen);
    rewind(out);
    size_t size = fread(text, 1, sizeof text, out);
    assert_int_equal(size, 201); /* one line, no progress */
    assert_null(memchr(text, '\r', size));
    fclose(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(widths),          cmocka_unit_test(lines_break_at_blanks), cmocka_unit_test(wrapping_loses_nothing),
        cmocka_unit_test(commands_can_be_copied), cmocka_unit_test(progress_fits),  cmocka_unit_test(screen_on_a_terminal),
        cmocka_unit_test(screen_into_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
