/* `loar inspect`: what it prints for a good snapshot, and what it refuses with which status. */
#include "tests/support/cmocka_all.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/files.h"
#include "launch/commands.h"
#include "ps/snapshot.h"
#include "tests/support/sample_snapshot.h"
#include "tests/support/scratch.h"

static char base[SCRATCH_SIZE], snapshots[SCRATCH_SIZE + 16], file[SCRATCH_SIZE + 48];
static struct sample sample;
static struct snapshot_written written;

static int make_run(void **state)
{
    (void)state;
    struct error err;
    if (!scratch_folder(base, "inspect"))
        return -1;
    snprintf(snapshots, sizeof snapshots, "%s/snapshots", base);
    snprintf(file, sizeof file, "%s/step-00000005.h5", snapshots);
    sample_make(&sample, 6, 5);
    return snapshot_write(snapshots, &sample.view, &written, &err) == STATUS_OK ? 0 : -1;
}

static int remove_run(void **state)
{
    (void)state;
    sample_free(&sample);
    return scratch_remove(base);
}

/* Runs the command; what it printed on stdout and stderr is in `printed`. */
static char printed[1 << 14];
static int call(const char *a, const char *b, const char *c)
{
    char *argv[] = {"inspect", (char *)a, (char *)b, (char *)c, NULL};
    int argc = 1;
    while (argv[argc])
        argc++;
    char path[96];
    snprintf(path, sizeof path, "%s/printed", base);
    fflush(NULL);
    int kept[2] = {dup(1), dup(2)}, out = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(out > 2 && dup2(out, 1) == 1 && dup2(out, 2) == 2);
    int status = cmd_inspect(argc, argv);
    fflush(NULL);
    dup2(kept[0], 1);
    dup2(kept[1], 2);
    close(kept[0]);
    close(kept[1]);
    ssize_t size = pread(out, printed, sizeof printed - 1, 0);
    close(out);
    assert_true(size >= 0);
    printed[size] = '\0';
    return status;
}

static void prints_what_is_there(void **state)
{
    (void)state;
    char line[64];
    assert_int_equal(call(file, NULL, NULL), 0);
    assert_non_null(strstr(printed, "\nstep             5 "));
    assert_non_null(strstr(printed, "\noptimizer        adamw "));
    assert_non_null(strstr(printed, "\nfiles            config.json tokenizer.json\n"));
    assert_null(strstr(printed, "tensor "));
    /* The folder of the run and that of its snapshots stand for the newest one. */
    const char *places[] = {file, snapshots, base};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(call(places[i], "--digest", "--tensors"), 0);
        assert_non_null(strstr(printed, "tensor lm_head.weight"));
        assert_non_null(strstr(printed, "[18, 6]\n"));
        int size = snprintf(line, sizeof line, "\ndigest %s\n", written.digest);
        assert_string_equal(printed + strlen(printed) - size, line);
    }
    assert_int_equal(call("--help", NULL, NULL), 0);
    assert_non_null(strstr(printed, "usage: loar inspect"));
}

static void refuses(void **state)
{
    (void)state;
    assert_int_equal(call(NULL, NULL, NULL), 2);
    assert_int_equal(call("--digset", file, NULL), 2);
    assert_non_null(strstr(printed, "'--digset'"));
    assert_int_equal(call(file, file, NULL), 2);
    assert_int_equal(call("/nowhere/step-1.h5", NULL, NULL), 3);
    assert_non_null(strstr(printed, "/nowhere/step-1.h5"));
    int fd = open(file, O_RDWR);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, 6000), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, 6000), 1);
    close(fd);
    assert_int_equal(call(file, NULL, NULL), 3);
    assert_non_null(strstr(printed, "is damaged"));
    assert_int_equal(call(base, NULL, NULL), 3);
    assert_non_null(strstr(printed, "no usable snapshot"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prints_what_is_there),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, make_run, remove_run);
}
