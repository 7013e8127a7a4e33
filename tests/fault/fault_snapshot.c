/* Saving while disk and memory fail, files that are cut or flipped, writers that are killed: the last good snapshot
 * stays, loads with the same digest, and nothing half-written is left or taken for whole. */
#include "tests/support/cmocka_all.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "ps/retention.h"
#include "ps/snapshot.h"
#include "ps/snapshot_internal.h"
#include "ps/snapshot_seal.h"
#include "tests/support/fault_io.h"
#include "tests/support/sample_snapshot.h"
#include "tests/support/scratch.h"

static char folder[SCRATCH_SIZE];
static struct sample sample;
static char good_digest[DIGEST_HEX_SIZE];

/* One good snapshot of step 1; `sample` becomes step 2, to be written. */
static int make_folder_of(int64_t width)
{
    struct error err;
    struct snapshot_written written;
    if (!scratch_folder(folder, "fault"))
        return -1;
    sample_make(&sample, width, 1);
    enum status st = snapshot_write(folder, &sample.view, &written, &err);
    memcpy(good_digest, written.digest, sizeof good_digest);
    sample.view.meta.step = 2;
    sample.values[0] += 1;
    return st == STATUS_OK ? 0 : -1;
}

static int make_folder(void **state)
{
    (void)state;
    return make_folder_of(3);
}

/* One tensor in each array is large enough to pass the page cache. */
static int make_wide_folder(void **state)
{
    (void)state;
    return make_folder_of(300);
}

static int remove_folder(void **state)
{
    (void)state;
    sample_free(&sample);
    return scratch_remove(folder);
}

/* Entries of the folder, without . and .. */
static int entries(void)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

/* The newest snapshot is whole, is of `step`, and its data have `digest`. */
static void check_newest(int64_t step, const char *digest)
{
    struct error err;
    struct snapshot *snapshot;
    struct text warnings = {0};
    char found[DIGEST_HEX_SIZE];
    assert_ok(snapshot_open_latest(folder, &snapshot, &warnings, &err), &err);
    if (warnings.size)
        print_error("%s\n", warnings.data);
    assert_int_equal(warnings.size, 0);
    assert_int_equal(snapshot_meta(snapshot)->step, step);
    assert_ok(snapshot_recompute_digest(snapshot, found, &err), &err);
    assert_string_equal(found, digest);
    snapshot_close(snapshot);
    text_free(&warnings);
}

static void back_to_step_1(void)
{
    struct error err;
    char *second = path_join(folder, "step-00000002.h5"), *latest = path_join(folder, "latest");
    assert_int_equal(unlink(second), 0);
    assert_ok(file_replace(latest, "step-00000001.h5\n", 17, &err), &err);
    mem_free(latest);
    mem_free(second);
}

struct io_fault {
    int error;
    bool cut, persistent;
};

/* Fails the n-th call for n = 0, 1, ... until the write succeeds without having met a fault. */
static void every_call_fails(struct io_fault fault)
{
    struct error err;
    struct snapshot_written written;
    long before = mem_live(), survived = 0, flushes = 0, n;
    for (n = 0;; n++) {
        err.text[0] = '\0';
        fault_io_arm(n, fault.error, fault.cut, fault.persistent);
        enum status st = snapshot_write(folder, &sample.view, &written, &err);
        const char *hit = fault_io_hit();
        long calls = fault_io_calls(), writes = fault_io_writes();
        fault_io_arm(-1, 0, false, false);
        assert_int_equal(mem_live(), before);
        if (!hit) {
            assert_ok(st, &err);
            assert_true(calls > 20 && writes > 10); /* the wrappers are really in use */
            break;
        }
        if (st == STATUS_OK) {
            /* A single short write is made good; closing what was only read cannot lose anything, nor can it that the published
             * file stays in the cache because it could not be opened again. */
            assert_true(!strcmp(hit, "close") || !strcmp(hit, "open") || (fault.cut && !fault.persistent && strstr(hit, "write")));
            check_newest(2, written.digest);
            back_to_step_1();
            survived++;
            continue;
        }
        assert_true(st == STATUS_IO || st == STATUS_DATA);
        if (!strstr(err.text, strerror(fault.error)) || !strstr(err.text, folder)) {
            print_error("call %ld (%s): the message '%s' does not say why or where\n", n, hit, err.text);
            fail();
        }
        if (snapshot_latest_step(folder) == 2) { /* all but the last flush of the folder was done */
            assert_true(!strcmp(hit, "fsync") || !strcmp(hit, "open"));
            assert_int_equal(entries(), 3);
            flushes++;
            back_to_step_1();
        }
        assert_int_equal(entries(), 2); /* step 1 and latest */
        check_newest(1, good_digest);
    }
    assert_true(n > 20 && survived < n && flushes <= 2);
    check_newest(2, written.digest);
}

static void full_disk(void **state)
{
    (void)state;
    every_call_fails((struct io_fault){ENOSPC, false, true});
}

static void full_disk_in_the_middle_of_a_write(void **state)
{
    (void)state;
    every_call_fails((struct io_fault){ENOSPC, true, true});
}

static void passing_error(void **state)
{
    (void)state;
    every_call_fails((struct io_fault){EIO, false, false});
}

static void short_writes(void **state)
{
    (void)state;
    every_call_fails((struct io_fault){EIO, true, false});
}

static void every_allocation_fails(void **state)
{
    (void)state;
    struct error err;
    long before = mem_live(), flushes = 0;
    for (long n = 0;; n++) {
        struct snapshot_written written;
        mem_fail_after(n, false);
        enum status st = snapshot_write(folder, &sample.view, &written, &err);
        mem_fail_after(-1, false);
        assert_int_equal(mem_live(), before);
        if (st == STATUS_OK) {
            assert_true(n > 8);
            check_newest(2, written.digest);
            break;
        }
        assert_int_equal(st, STATUS_NOMEM);
        if (snapshot_latest_step(folder) == 2) { /* memory was short when the folder was to be flushed for the last time */
            flushes++;
            back_to_step_1();
        }
        assert_int_equal(entries(), 2);
        check_newest(1, good_digest);
    }
    assert_true(flushes <= 1);
    assert_int_equal(entries(), 3);
}

static void every_allocation_fails_while_reading(void **state)
{
    (void)state;
    struct error err;
    long before = mem_live();
    for (long n = 0;; n++) {
        struct snapshot *snapshot;
        char *text = NULL;
        size_t size;
        struct text warnings = {0};
        mem_fail_after(n, false);
        enum status st = snapshot_open_latest(folder, &snapshot, &warnings, &err);
        if (st == STATUS_OK) {
            st = snapshot_load(snapshot, &sample.table, sample.values, 0, NULL, &err);
            if (st == STATUS_OK)
                st = snapshot_file(snapshot, "config.json", &text, &size, &err);
            snapshot_close(snapshot);
            mem_free(text);
        }
        mem_fail_after(-1, false);
        text_free(&warnings);
        assert_int_equal(mem_live(), before);
        if (st == STATUS_OK) {
            assert_true(n > 10);
            break;
        }
        assert_int_equal(st, STATUS_NOMEM);
    }
}

/* Exit status of `reader` in a process of its own, so that a crash is seen and not shared. */
static void in_child(void (*reader)(unsigned char *image, size_t size), unsigned char *image, size_t size)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        alarm(300); /* a hang is a failure too */
        reader(image, size);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (status)
        print_error("the reader ended with wait status %#x\n", status);
    assert_int_equal(status, 0);
}

/* As snapshot_open, on bytes in memory. Refused, or the same tensors as written. */
static void expect_refused_or_same(const unsigned char *image, size_t size, bool sealed)
{
    struct error err = {0};
    struct snapshot *snapshot;
    char digest[DIGEST_HEX_SIZE];
    enum status st = snapshot_open_image("damaged.h5", image, size, sealed, &snapshot, &err);
    if (st == STATUS_OK) {
        st = snapshot_recompute_digest(snapshot, digest, &err);
        if (st == STATUS_OK && strcmp(digest, good_digest) && !strcmp(snapshot_meta(snapshot)->digest, digest))
            _exit(2); /* other tensors that pass for good ones */
        snapshot_close(snapshot);
        if (st == STATUS_OK && sealed)
            _exit(3); /* damage that the seal did not see */
    }
    if (st != STATUS_OK && (st != STATUS_DATA || !strstr(err.text, "damaged.h5")))
        _exit(4);
}

static void read_cut(unsigned char *image, size_t size)
{
    for (size_t cut = 0; cut < size; cut += cut < 1024 ? 1 : 53)
        expect_refused_or_same(image, cut, true);
}

static void read_flipped(unsigned char *image, size_t size)
{
    for (size_t at = 0; at < size; at++) {
        image[at] ^= (unsigned char)(1 << at % 8);
        expect_refused_or_same(image, size, true);
        image[at] ^= (unsigned char)(1 << at % 8);
    }
}

/* The same past the checksums of the seal: what the checks behind them make of it. */
static void read_flipped_unsealed(unsigned char *image, size_t size)
{
    for (size_t at = 0; at < size; at++) {
        image[at] ^= (unsigned char)(1 << at % 8);
        expect_refused_or_same(image, size, false);
        image[at] ^= (unsigned char)(1 << at % 8);
    }
}

static void damaged_files(void **state)
{
    (void)state;
    struct error err;
    char *image, *path = path_join(folder, "step-00000001.h5");
    size_t size;
    assert_ok(file_read(path, &image, &size, &err), &err);
    in_child(read_cut, (unsigned char *)image, size);
    in_child(read_flipped, (unsigned char *)image, size);
    in_child(read_flipped_unsealed, (unsigned char *)image, size);
    mem_free(image);
    mem_free(path);
}

/* Writes one snapshot after the other for ever. */
static void write_for_ever(int64_t step)
{
    struct sample large;
    struct error err;
    struct retention retention = {2};
    sample_make(&large, 300, 1); /* 4 MB a file */
    for (;; step++) {
        large.view.meta.step = step;
        large.view.meta.best_step = -1;
        large.values[step % 1000] += 1;
        if (snapshot_write(folder, &large.view, NULL, &err) != STATUS_OK ||
            retention_prune(&retention, folder, step, -1, NULL, &err) != STATUS_OK) {
            fprintf(stderr, "%s\n", err.text);
            _exit(1);
        }
    }
}

static void killed_writers(void **state)
{
    (void)state;
    struct error err;
    int64_t step = 1;
    int halves = 0, progress = 0;
    uint64_t longest_us = 60000; /* a slow machine needs more to write even one file */
    for (uint64_t round = 0; round < 30 || (round < 300 && (!progress || !halves)); round++) {
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (!child)
            write_for_ever(step + 1);
        usleep((useconds_t)(20000 + rng_below(1, 2, round, longest_us)));
        assert_int_equal(kill(child, SIGKILL), 0);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        struct snapshot *snapshot;
        struct text warnings = {0};
        char digest[DIGEST_HEX_SIZE];
        assert_ok(snapshot_open_latest(folder, &snapshot, &warnings, &err), &err);
        assert_int_equal(warnings.size, 0); /* not even one damaged file under a final name */
        assert_ok(snapshot_recompute_digest(snapshot, digest, &err), &err);
        assert_string_equal(digest, snapshot_meta(snapshot)->digest);
        assert_true(snapshot_meta(snapshot)->step >= step);
        bool wrote = snapshot_meta(snapshot)->step > step;
        progress += wrote;
        if (!wrote && longest_us < 5000000)
            longest_us *= 2;
        else if (longest_us > 60000)
            longest_us /= 2;
        step = snapshot_meta(snapshot)->step;
        snapshot_close(snapshot);
        text_free(&warnings);
        char name[SNAPSHOT_STRING_SIZE + 4];
        for (int64_t next = step; next <= step + 2; next++) {
            snapshot_file_name(next, name);
            strcat(name, ".tmp");
            char *path = path_join(folder, name);
            halves += file_exists(path);
            mem_free(path);
        }
    }
    assert_true(progress > 0);
    assert_true(halves > 0); /* some were really hit in the middle */
    print_message("killed %d times in the middle of a file, last step %d\n", halves, (int)step);
    struct retention retention = {2};
    assert_ok(retention_prune(&retention, folder, step, -1, NULL, &err), &err);
    int64_t *steps;
    int count;
    assert_ok(snapshot_list(folder, &steps, &count, &err), &err);
    assert_int_equal(entries(), count + 1); /* nothing but snapshots and `latest` */
    mem_free(steps);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
#define IN_WIDE_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_wide_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WIDE_FOLDER(full_disk),
        IN_WIDE_FOLDER(full_disk_in_the_middle_of_a_write),
        IN_WIDE_FOLDER(passing_error),
        IN_WIDE_FOLDER(short_writes),
        IN_FOLDER(every_allocation_fails),
        IN_FOLDER(every_allocation_fails_while_reading),
        IN_FOLDER(damaged_files),
        IN_FOLDER(killed_writers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
