/* Transfers past the page cache: what is written lands where it should among ordinary writes, all of a file comes back in order, also
 * where a file system knows no such transfers; and a snapshot that is damaged on the disk is not taken for what was written. */
#include "tests/support/cmocka_all.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/direct_io.h"
#include "common/files.h"
#include "common/memory.h"
#include "common/rng.h"
#include "ps/snapshot_seal.h"
#include "ps/snapshot_verify.h"
#include "tests/support/sample_snapshot.h"
#include "tests/support/scratch.h"

enum { BYTES = 5 << 20 };

static char folder[SCRATCH_SIZE];
static struct error err;

static int make_folder(void **state)
{
    (void)state;
    return scratch_folder(folder, "direct") ? 0 : -1;
}

static int make_folder_in_memory(void **state)
{
    (void)state;
    folder[0] = '\0';
    return !folder_exists("/dev/shm") || scratch_folder_in("/dev/shm", folder, "direct") ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return folder[0] ? scratch_remove(folder) : 0;
}

struct taken {
    unsigned char *bytes;
    size_t size;
};

static void take(void *context, const unsigned char *bytes, size_t size)
{
    struct taken *t = context;
    assert_true(t->size + size <= BYTES);
    memcpy(t->bytes + t->size, bytes, size);
    t->size += size;
}

/* A file of BYTES - 100 bytes whose middle is written in blocks and whose ends the ordinary way. */
static void write_file(const char *path, const unsigned char *bytes)
{
    int fd = open(path, O_CREAT | O_RDWR, 0666), refused;
    assert_true(fd >= 0);
    size_t head = 3 * DIRECT_BLOCK, middle = 4 << 20, size = BYTES - 100;
    struct direct_io io;
    direct_open(path, &io);
    size_t done = direct_write(&io, bytes + head, middle, head, &refused);
    assert_int_equal(refused, 0);
    assert_true(done <= middle);
    assert_int_equal(pwrite(fd, bytes, head, 0), head);
    assert_int_equal(pwrite(fd, bytes + head + done, size - head - done, (off_t)(head + done)), size - head - done);
    direct_close(&io);
    assert_int_equal(close(fd), 0);
}

static void blocks_and_ends_join(void **state)
{
    (void)state;
    if (!folder[0])
        skip();
    long before = mem_live();
    char *path = path_join(folder, "file");
    /* One byte further than any alignment: the caller's bytes may lie anywhere. */
    unsigned char *memory = mem_alloc(BYTES + 1, 1), *bytes = memory + 1;
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (unsigned char)rng_below(1, 2, i, 256);
    write_file(path, bytes);
    struct taken taken = {mem_alloc(BYTES, 1), 0};
    assert_ok(direct_read(path, take, &taken, &err), &err);
    assert_int_equal(taken.size, BYTES - 100);
    assert_memory_equal(taken.bytes, bytes, BYTES - 100);
    mem_free(taken.bytes);
    mem_free(memory);
    mem_free(path);
    assert_int_equal(mem_live(), before);
}

static void nothing_passes_without_memory(void **state)
{
    (void)state;
    char *path = path_join(folder, "file");
    assert_ok(file_replace(path, "x", 1, &err), &err);
    struct direct_io io;
    int refused;
    static char block[DIRECT_BLOCK];
    direct_open(path, &io);
    mem_fail_after(0, false);
    assert_int_equal(direct_write(&io, block, sizeof block, 0, &refused), 0);
    mem_fail_after(-1, false);
    assert_int_equal(refused, 0); /* the ordinary way is left */
    direct_close(&io);
    mem_free(path);
}

static void missing_files_are_named(void **state)
{
    (void)state;
    struct taken taken = {0};
    assert_int_equal(direct_read("/nowhere/at-all", take, &taken, &err), STATUS_IO);
    assert_non_null(strstr(err.text, "/nowhere/at-all"));
}

static void flip_byte(const char *path, off_t at)
{
    unsigned char byte;
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    assert_int_equal(close(fd), 0);
}

/* The index of a finished snapshot, read from its end. */
static void index_of(const char *path, struct snapshot_index *index, uint32_t *body)
{
    struct file_map map;
    size_t at;
    assert_ok(file_map_open(path, &map, &err), &err);
    assert_ok(seal_check(path, map.data, map.size, true, &at, &err), &err);
    *body = crc32c(map.data + SEAL_SIZE, map.size - SEAL_SIZE);
    assert_ok(index_parse(path, (const char *)map.data + at, map.size - at, (int64_t)at, index, &err), &err);
    file_map_close(&map);
}

static void damage_on_the_disk_is_found(void **state)
{
    (void)state;
    struct sample sample;
    struct snapshot_written written;
    struct snapshot_index index;
    uint32_t body, wanted;
    char *path = path_join(folder, "step-00000007.h5");
    sample_make(&sample, 300, 7); /* lm_head.weight is large enough to pass the cache */
    assert_ok(snapshot_write(folder, &sample.view, &written, &err), &err);
    index_of(path, &index, &wanted);
    assert_ok(verify_content(path, &index, &body, &err), &err);
    assert_int_equal(body, wanted);
    const struct param *tensors = index.table.items;
    for (int array = 0; array < index.n_arrays; array++)
        for (int i = 0; i < index.table.count; i++) {
            if (!tensors[i].size)
                continue;
            off_t last = (off_t)(index.places[array][i].offset + tensors[i].size * (int64_t)sizeof(float) - 1);
            flip_byte(path, last);
            assert_int_equal(verify_content(path, &index, &body, &err), STATUS_IO);
            assert_non_null(strstr(err.text, tensors[i].name));
            assert_non_null(strstr(err.text, index.names[array]));
            flip_byte(path, last);
        }
    assert_ok(verify_content(path, &index, &body, &err), &err);
    assert_int_equal(truncate(path, (off_t)written.bytes / 2), 0);
    assert_int_equal(verify_content(path, &index, &body, &err), STATUS_IO);
    index_free(&index);
    sample_free(&sample);
    mem_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(blocks_and_ends_join, make_folder, remove_folder),
        {"blocks_and_ends_join_in_memory", blocks_and_ends_join, make_folder_in_memory, remove_folder, NULL},
        cmocka_unit_test_setup_teardown(nothing_passes_without_memory, make_folder, remove_folder),
        cmocka_unit_test(missing_files_are_named),
        cmocka_unit_test_setup_teardown(damage_on_the_disk_is_found, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
