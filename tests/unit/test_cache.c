/* Rows kept as tokens: what comes back is what was read, another key is another file, and a file that is damaged, cut, foreign
 * or in the way is made anew and never believed. */
#include "tests/support/cmocka_all.h"

#include <dirent.h>
#include <sys/stat.h>

#include "tests/support/rows_fixture.h"
#include "worker/data/cache.h"

static struct rows_fixture fx;
static struct error err;
static char folder[128];
static struct dataset_cache cache;

/* Calls fn for every file of the folder; how many there are. */
static int each_file(void (*fn)(const char *path))
{
    int count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[400];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        count++;
        if (fn)
            fn(path);
    }
    if (dir)
        closedir(dir);
    return count;
}

static void remove_file(const char *path)
{
    assert_int_equal(unlink(path), 0);
}

static char only[400];
static void remember(const char *path)
{
    snprintf(only, sizeof only, "%s", path);
}

static int open_fixture(void **state)
{
    (void)state;
    if (rows_fixture_open(&fx, &err) != STATUS_OK)
        return 1;
    snprintf(folder, sizeof folder, "%s/kept/rows", fx.folder);
    return 0;
}

static int close_fixture(void **state)
{
    (void)state;
    char parent[128];
    snprintf(parent, sizeof parent, "%s/kept", fx.folder);
    rmdir(folder);
    rmdir(parent);
    rows_fixture_close(&fx);
    return mem_live() != 0;
}

static int fresh(void **state)
{
    (void)state;
    each_file(remove_file);
    rows_fixture_reset(&fx);
    cache = (struct dataset_cache){.folder = folder, .key = "max_length: 5\n"};
    fx.spec.cache = &cache;
    fx.rules.strict = false;
    return 0;
}

#define ROW(n) "{\"question\": \"" #n "?\", \"thought\": \"so " #n "\", \"answer\": \"" #n "\"}\n"
static const char rows[] = ROW(1) ROW(22) "{\"question\": 7}\n" ROW(333) "\n" ROW(4);

static void load_into(struct dataset *dataset, const char *text)
{
    rows_fixture_write(&fx, text, strlen(text));
    assert_ok(dataset_load(dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err), &err);
}

/* The last part's note, or "". */
static const char *note_of(const struct dataset *dataset)
{
    const char *note = dataset->parts[dataset->n_parts - 1].note;
    return note ? note : "";
}

static void assert_same(const struct dataset *a, const struct dataset *b)
{
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->n_parts, b->n_parts);
    assert_memory_equal(a->starts, b->starts, (size_t)(a->rows + 1) * sizeof *a->starts);
    for (int i = 0; i < DATASET_ARRAYS; i++)
        assert_memory_equal(dataset_place(a, i, 0), dataset_place(b, i, 0),
                            (size_t)(dataset_arrays[i].per_token ? a->starts[a->rows] : a->rows) * dataset_arrays[i].size);
    for (int i = 0; i < a->n_parts; i++) {
        const struct dataset_part *x = &a->parts[i], *y = &b->parts[i];
        assert_string_equal(x->name, y->name);
        assert_string_equal(x->path, y->path);
        assert_string_equal(x->format, y->format);
        assert_int_equal(x->problems != NULL, y->problems != NULL);
        if (x->problems)
            assert_string_equal(x->problems, y->problems);
        assert_int_equal(x->task, y->task);
        assert_int_equal(x->first_row, y->first_row);
        assert_memory_equal(x->stats.tokens, y->stats.tokens, sizeof x->stats.tokens);
        assert_int_equal(x->stats.read, y->stats.read);
        assert_int_equal(x->stats.kept, y->stats.kept);
        assert_int_equal(x->stats.skipped, y->stats.skipped);
        assert_int_equal(x->stats.thoughts, y->stats.thoughts);
        assert_int_equal(x->stats.longest, y->stats.longest);
        assert_int_equal(x->stats.longest_row, y->stats.longest_row);
    }
}

/* What a load without a cache gives. */
static void load_plain(struct dataset *dataset, const char *text)
{
    fx.spec.cache = NULL;
    load_into(dataset, text);
    fx.spec.cache = &cache;
}

static void kept_rows_are_the_rows(void **state)
{
    (void)state;
    struct dataset plain = {0}, first = {0}, second = {0};
    load_plain(&plain, ROW(9));
    load_plain(&plain, rows);
    assert_int_equal(plain.parts[1].stats.skipped, 1);
    load_plain(&first, ROW(9));
    load_into(&first, rows);
    assert_string_equal(note_of(&first), "");
    assert_int_equal(each_file(remember), 1);
    assert_non_null(strstr(only, "/set-"));
    load_plain(&second, ROW(9)); /* other rows in front */
    load_into(&second, rows);
    assert_non_null(strstr(note_of(&second), "4 rows come from '"));
    assert_same(&plain, &first);
    assert_same(&plain, &second);
    dataset_free(&second);
    load_plain(&second, ROW(9) ROW(8));
    load_into(&second, rows);
    assert_int_equal(second.parts[1].stats.longest_row, plain.parts[1].stats.longest_row + 1);
    assert_int_equal(second.parts[1].first_row, 2);
    dataset_free(&plain);
    dataset_free(&first);
    dataset_free(&second);
}

/* Loads once more; how many files there are then. */
static int files_after(const char *text)
{
    struct dataset dataset = {0};
    load_into(&dataset, text);
    dataset_free(&dataset);
    return each_file(NULL);
}

static void another_key_is_another_file(void **state)
{
    (void)state;
    struct text file = {0}, config = {0};
    struct tokenizer *own = fx.tokenizer, *other;
    assert_int_equal(files_after(rows), 1);
    assert_int_equal(files_after(rows), 1);
    assert_int_equal(files_after(ROW(1)), 2);
    cache.key = "max_length: 6\n";
    assert_int_equal(files_after(rows), 3);
    fx.spec.max_samples = 2;
    assert_int_equal(files_after(rows), 4);
    fx.spec.max_samples = 3;
    assert_int_equal(files_after(rows), 5);
    assert_ok(demo_tokenizer("abab abab", 9, 1, &file, &config, &err), &err);
    assert_ok(tokenizer_load_text(file.data, file.size, NULL, 0, "other", &other, &err), &err);
    assert_string_not_equal(tokenizer_digest(own), tokenizer_digest(other));
    fx.tokenizer = other;
    assert_int_equal(files_after(rows), 6);
    fx.tokenizer = own;
    tokenizer_free(other);
    text_free(&file);
    text_free(&config);
    assert_int_equal(files_after(rows), 6);
}

/* Puts bytes into the file's place, loads, and finds the rows as they are, the note, and the file mended. */
static void check_spoilt(const char *good, size_t good_size, const char *bytes, size_t size, const struct dataset *plain,
                         const char *reason)
{
    struct dataset dataset = {0};
    char *mended;
    size_t mended_size;
    assert_ok(file_replace(only, bytes, size, &err), &err);
    load_into(&dataset, rows);
    if (!strstr(note_of(&dataset), reason) || !strstr(note_of(&dataset), "made anew"))
        fail_msg("wanted '%s', found the note '%s'", reason, note_of(&dataset));
    assert_same(plain, &dataset);
    assert_ok(file_read(only, &mended, &mended_size, &err), &err);
    assert_int_equal(mended_size, good_size);
    assert_memory_equal(mended, good, good_size);
    mem_free(mended);
    dataset_free(&dataset);
}

static void spoilt_files_are_made_anew(void **state)
{
    (void)state;
    struct dataset plain = {0};
    char *good, *spoilt;
    size_t size;
    load_plain(&plain, rows);
    assert_int_equal(files_after(rows), 1);
    each_file(remember);
    assert_ok(file_read(only, &good, &size, &err), &err);
    spoilt = test_malloc(size + 8);
    for (size_t at = 0; at < size; at += 1 + at % 5) { /* one bit anywhere */
        memcpy(spoilt, good, size);
        spoilt[at] ^= (char)(1 << at % 8);
        check_spoilt(good, size, spoilt, size, &plain, "' is not used: ");
    }
    memcpy(spoilt, good, size);
    for (size_t cut = 0; cut < size; cut = cut * 2 + 1)
        check_spoilt(good, size, good, cut, &plain, "cut short");
    check_spoilt(good, size, good, size - 1, &plain, "cut short");
    memcpy(spoilt + size, "more", 4);
    check_spoilt(good, size, spoilt, size + 4, &plain, "behind its end");
    memset(spoilt, 'x', size);
    check_spoilt(good, size, spoilt, size, &plain, "not a file of cached rows");
    /* A sound file of other rows under this name. */
    char here[400], *foreign;
    size_t foreign_size;
    memcpy(here, only, sizeof here);
    remove_file(only);
    assert_int_equal(files_after(ROW(5)), 1);
    each_file(remember);
    assert_ok(file_read(only, &foreign, &foreign_size, &err), &err);
    remove_file(only);
    memcpy(only, here, sizeof here);
    check_spoilt(good, size, foreign, foreign_size, &plain, "it holds other rows");
    mem_free(foreign);
    mem_free(good);
    test_free(spoilt);
    dataset_free(&plain);
}

/* Sound checksums over nonsense: a count, a size, a format that cannot be. */
static void forged_headers_are_refused_or_harmless(void **state)
{
    (void)state;
    enum { CRC = 20, FORMAT = 56, SIZES = 88, PIECES = DATASET_ARRAYS + 2, CRCS = SIZES + 8 * PIECES, ROWS = CRCS + 4 * PIECES };
    struct dataset dataset = {0}, plain = {0};
    char *good, *forged;
    size_t size;
    uint32_t bytes, zero = 0;
    load_plain(&plain, rows);
    assert_int_equal(files_after(rows), 1);
    each_file(remember);
    assert_ok(file_read(only, &good, &size, &err), &err);
    memcpy(&bytes, good + 16, sizeof bytes); /* of the header */
    forged = test_malloc(size);
    for (size_t at = 8; at < bytes; at++) {
        memcpy(forged, good, size);
        forged[at] ^= (char)(1 << at % 7);
        memcpy(forged + CRC, &zero, sizeof zero);
        uint32_t crc = crc32c(forged, bytes);
        memcpy(forged + CRC, &crc, sizeof crc);
        assert_ok(file_replace(only, forged, size, &err), &err);
        load_into(&dataset, rows);
        if (at < FORMAT || (at >= SIZES && at < ROWS + 16))
            assert_same(&plain, &dataset);
        else
            assert_int_equal(dataset.rows, plain.rows);
        dataset_free(&dataset);
    }
    for (size_t at = bytes; at < bytes + 5 * 8; at++) { /* starts */
        memcpy(forged, good, size);
        forged[at] ^= 4;
        uint32_t crc = crc32c(forged + bytes, 5 * 8);
        memcpy(forged + CRCS, &crc, sizeof crc);
        memcpy(forged + CRC, &zero, sizeof zero);
        crc = crc32c(forged, bytes);
        memcpy(forged + CRC, &crc, sizeof crc);
        assert_ok(file_replace(only, forged, size, &err), &err);
        load_into(&dataset, rows);
        bool first_or_last = at < bytes + 8 || at >= bytes + 4 * 8 || at % 8 != bytes % 8; /* a small change in the middle may be one */
        if (first_or_last)
            assert_non_null(strstr(note_of(&dataset), "do not fit together"));
        assert_int_equal(dataset.rows, plain.rows);
        dataset_free(&dataset);
    }
    mem_free(good);
    test_free(forged);
    dataset_free(&plain);
}

static void refused_rows_are_not_kept(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    fx.rules.strict = true;
    rows_fixture_write(&fx, rows, strlen(rows));
    assert_refused(dataset_load(&dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err), STATUS_DATA, &err, "1 bad row of 5");
    assert_int_equal(each_file(NULL), 0);
    unlink(fx.rows);
    assert_refused(dataset_load(&dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err), STATUS_DATA, &err, "rows.jsonl");
    assert_int_equal(dataset.rows, 0);
    dataset_free(&dataset);
}

static void files_can_be_renewed(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    struct stat before, after;
    assert_int_equal(files_after(rows), 1);
    each_file(remember);
    assert_int_equal(stat(only, &before), 0);
    cache.renew = true;
    load_into(&dataset, rows);
    assert_string_equal(note_of(&dataset), "");
    assert_int_equal(stat(only, &after), 0);
    assert_int_not_equal(before.st_ino, after.st_ino);
    assert_int_equal(each_file(NULL), 1); /* no temporary one stays */
    dataset_free(&dataset);
}

static void a_folder_that_cannot_be_does_no_harm(void **state)
{
    (void)state;
    struct dataset dataset = {0};
    char inside[200];
    snprintf(inside, sizeof inside, "%s/below", fx.tokenizer_file); /* a file is in the way */
    cache.folder = inside;
    load_into(&dataset, rows);
    assert_int_equal(dataset.rows, 4);
    assert_non_null(strstr(note_of(&dataset), "rows are not cached: "));
    dataset_free(&dataset);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    for (int kept = 0; kept < 2; kept++) {
        bool done = false;
        for (long n = 0; !done; n++) {
            struct dataset dataset = {0};
            if (!kept)
                each_file(remove_file);
            rows_fixture_write(&fx, rows, strlen(rows));
            mem_fail_after(n, false);
            enum status st = dataset_load(&dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err);
            mem_fail_after(-1, false);
            done = st == STATUS_OK && !(dataset.parts[0].note && strstr(dataset.parts[0].note, "no memory"));
            if (st != STATUS_OK) {
                assert_int_equal(st, STATUS_NOMEM);
                assert_int_equal(dataset.rows + dataset.n_parts, 0);
            }
            dataset_free(&dataset);
            assert_true(n < 3000);
        }
        assert_int_equal(files_after(rows), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(kept_rows_are_the_rows, fresh), cmocka_unit_test_setup(another_key_is_another_file, fresh),
        cmocka_unit_test_setup(spoilt_files_are_made_anew, fresh),
        cmocka_unit_test_setup(forged_headers_are_refused_or_harmless, fresh), cmocka_unit_test_setup(refused_rows_are_not_kept, fresh),
        cmocka_unit_test_setup(files_can_be_renewed, fresh), cmocka_unit_test_setup(a_folder_that_cannot_be_does_no_harm, fresh),
        cmocka_unit_test_setup_teardown(memory_may_run_out, fresh, fresh)};
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
