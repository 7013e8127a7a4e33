/* Snapshots: what is written is what is read, stock tools read it too, others' snapshots are refused, old ones go, and
 * the writer works behind the run's back. */
#include "tests/support/cmocka_all.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/files.h"
#include "common/h5.h"
#include "common/memory.h"
#include "ps/retention.h"
#include "ps/snapshot.h"
#include "ps/writer.h"
#include "tests/support/sample_snapshot.h"
#include "tests/support/scratch.h"

static char folder[SCRATCH_SIZE];

static int make_folder(void **state)
{
    (void)state;
    return scratch_folder(folder, "snapshot") ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return scratch_remove(folder);
}

static char *in_folder(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, 256, "%s/%s", folder, name);
    return path;
}

/* Output of a shell command, and its status. */
static char *output_of(int *status, const char *format, const char *argument)
{
    static char text[1 << 16];
    char command[1024];
    snprintf(command, sizeof command, format, argument);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t size = fread(text, 1, sizeof text - 1, pipe);
    text[size] = '\0';
    *status = pclose(pipe);
    return text;
}

static void writes_and_reads(void **state)
{
    (void)state;
    struct error err;
    struct sample sample;
    struct snapshot *snapshot;
    struct snapshot_written written;
    char digest[DIGEST_HEX_SIZE];
    long before = mem_live();
    sample_make(&sample, 33, 100);
    assert_ok(snapshot_write(folder, &sample.view, &written, &err), &err);
    assert_false(file_exists(in_folder("step-00000100.h5.tmp")));
    assert_int_equal(snapshot_latest_step(folder), 100);
    assert_ok(snapshot_digest(&sample.table, sample.values, 2, sample.view.states, digest, &err), &err);
    assert_string_equal(written.digest, digest);

    assert_ok(snapshot_open_latest(folder, &snapshot, NULL, &err), &err);
    const struct snapshot_meta *meta = snapshot_meta(snapshot);
    assert_string_equal(snapshot_path(snapshot), in_folder("step-00000100.h5"));
    assert_int_equal(snapshot_bytes(snapshot), written.bytes);
    assert_string_equal(meta->digest, digest);
    assert_int_equal(meta->step, 100);
    assert_int_equal(meta->data_seed, -1);
    assert_int_equal(meta->tensors, 5);
    assert_int_equal(meta->parameters, sample.table.trained);
    assert_true(meta->epoch == 0.25 && meta->best_value == 1.5);
    assert_string_equal(meta->optimizer, "adamw");
    assert_string_equal(meta->states, "exp_avg exp_avg_sq");
    assert_string_equal(meta->version, LOAR_VERSION);
    assert_int_equal(snapshot_states(snapshot), 2);
    assert_string_equal(snapshot_state_name(snapshot, 1), "exp_avg_sq");

    const struct params *table = snapshot_params(snapshot);
    assert_int_equal(table->count, 5);
    assert_int_equal(table->values, sample.table.values);
    assert_string_equal(table->items[0].name, "model.embed_tokens.weight");
    assert_true(table->items[0].decay && !table->items[4].decay);
    assert_int_equal(table->items[2].n_dims, 3);
    assert_int_equal(table->items[3].shape[0], 99);

    size_t bytes = (size_t)table->values * sizeof(float);
    float *values = mem_alloc_aligned(bytes, 1), *states[2] = {mem_alloc_aligned(bytes, 1), mem_alloc_aligned(bytes, 1)};
    memset(values, 0x55, bytes); /* padding must come back as zero */
    struct snapshot_target targets[] = {{"exp_avg_sq", states[1]}, {"exp_avg", states[0]}};
    assert_ok(snapshot_load(snapshot, &sample.table, values, 2, targets, &err), &err);
    assert_memory_equal(values, sample.values, bytes);
    assert_memory_equal(states[0], sample.states[0], bytes);
    assert_memory_equal(states[1], sample.states[1], bytes);
    assert_ok(snapshot_recompute_digest(snapshot, digest, &err), &err);
    assert_string_equal(digest, written.digest);

    char *text;
    size_t size;
    assert_ok(snapshot_text(snapshot, "config", &text, &size, &err), &err);
    assert_int_equal(size, 24);
    assert_string_equal(text, sample.texts[0].data);
    mem_free(text);
    assert_ok(snapshot_text(snapshot, "history", &text, &size, &err), &err);
    assert_int_equal(size, 0);
    mem_free(text);
    assert_int_equal(snapshot_files(snapshot), 2);
    assert_string_equal(snapshot_file_at(snapshot, 1), "tokenizer.json");
    assert_ok(snapshot_file(snapshot, "tokenizer.json", &text, &size, &err), &err);
    assert_string_equal(text, "{}");
    mem_free(text);
    assert_refused(snapshot_file(snapshot, "vocab.txt", &text, &size, &err), STATUS_DATA, &err, "vocab.txt");
    assert_refused(snapshot_text(snapshot, "../model", &text, &size, &err), STATUS_DATA, &err, "../model");

    const struct snapshot_shard *shards;
    assert_int_equal(snapshot_shards(snapshot, &shards), 1);
    assert_int_equal(shards[0].values, sample.table.values);
    assert_int_equal(shards[0].chunks, (sample.table.values + 63) / 64);
    snapshot_close(snapshot);
    for (int i = 0; i < 2; i++)
        mem_free_aligned(states[i]);
    mem_free_aligned(values);
    sample_free(&sample);
    assert_int_equal(mem_live(), before);
}

/* Same numbers, other name, shape, order or state name: another digest. */
static void digest_tells_apart(void **state)
{
    (void)state;
    struct error err;
    struct sample sample;
    char first[DIGEST_HEX_SIZE], other[DIGEST_HEX_SIZE];
    sample_make(&sample, 5, 1);
    struct snapshot_state states[2] = {sample.view.states[0], sample.view.states[1]};
    assert_ok(snapshot_digest(&sample.table, sample.values, 2, states, first, &err), &err);
    assert_ok(snapshot_digest(&sample.table, sample.values, 2, states, other, &err), &err);
    assert_string_equal(first, other);
    assert_ok(snapshot_digest(&sample.table, sample.values, 1, states, other, &err), &err);
    assert_string_not_equal(first, other);
    states[0].name = "momentum";
    assert_ok(snapshot_digest(&sample.table, sample.values, 2, states, other, &err), &err);
    assert_string_not_equal(first, other);
    states[0].name = "exp_avg";
    sample.table.items[0].name[0] = 'M';
    assert_ok(snapshot_digest(&sample.table, sample.values, 2, states, other, &err), &err);
    assert_string_not_equal(first, other);
    sample.table.items[0].name[0] = 'm';
    sample.table.items[1].shape[0] = 5, sample.table.items[1].shape[1] = 3;
    assert_ok(snapshot_digest(&sample.table, sample.values, 2, states, other, &err), &err);
    assert_string_not_equal(first, other);
    sample.table.items[1].shape[0] = 3, sample.table.items[1].shape[1] = 5;
    sample.states[1][0] += 1;
    assert_ok(snapshot_digest(&sample.table, sample.values, 2, states, other, &err), &err);
    assert_string_not_equal(first, other);
    sample_free(&sample);
}

static void stock_tools_read_it(void **state)
{
    (void)state;
    struct error err;
    struct sample sample;
    int status;
    sample_make(&sample, 8, 7);
    sample.values[sample.table.items[1].offset] = 0.3125f;
    assert_ok(snapshot_write(folder, &sample.view, NULL, &err), &err);
    char *path = in_folder("step-00000007.h5");
    bool any = false;
    if (!system("command -v h5dump >/dev/null")) {
        any = true;
        char *text = output_of(&status, "h5dump -H %s 2>&1", path);
        assert_int_equal(status, 0);
        assert_non_null(strstr(text, "GROUP \"model\""));
        assert_non_null(strstr(text, "DATASET \"model.layers.0.self_attn.q_proj.weight\" {\n         DATATYPE  H5T_IEEE_F32LE\n"
                                     "         DATASPACE  SIMPLE { ( 3, 8 ) / ( 3, 8 ) }"));
        assert_non_null(strstr(text, "GROUP \"exp_avg_sq\""));
        text = output_of(&status, "h5dump -d /model/model.layers.0.self_attn.q_proj.weight %s 2>&1", path);
        assert_int_equal(status, 0);
        assert_non_null(strstr(text, "(0,0): 0.3125"));
        text = output_of(&status, "h5dump -a /run/step %s 2>&1", path);
        assert_non_null(strstr(text, "(0): 7"));
        text = output_of(&status, "h5dump -d /run/shards %s 2>&1", path);
        assert_int_equal(status, 0);
        assert_non_null(strstr(text, "\"first_chunk\""));
    }
    if (!system("/usr/bin/python3 -c 'import h5py' 2>/dev/null")) {
        any = true;
        char *text = output_of(&status,
                               "/usr/bin/python3 -c 'import h5py,sys; f=h5py.File(sys.argv[1],\"r\"); "
                               "print(f[\"/model/model.layers.0.self_attn.q_proj.weight\"][0,0], f[\"run\"].attrs[\"step\"], "
                               "f[\"run/config\"][()].decode(), f[\"run/shards\"][\"values\"][0])' %s 2>&1", path);
        assert_int_equal(status, 0);
        assert_non_null(strstr(text, "0.3125 7 max_steps: 7 # größer"));
    }
    sample_free(&sample);
    if (!any) {
        print_message("skipped: neither h5dump nor h5py is here\n");
        skip();
    }
}

static void other_models_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct sample sample, other;
    struct snapshot *snapshot;
    sample_make(&sample, 8, 1);
    sample_make(&other, 8, 1);
    assert_ok(snapshot_write(folder, &sample.view, NULL, &err), &err);
    assert_ok(snapshot_open_latest(folder, &snapshot, NULL, &err), &err);
    other.table.items[4].shape[0] = 25;
    assert_refused(snapshot_load(snapshot, &other.table, other.values, 0, NULL, &err), STATUS_DATA, &err,
                   "'lm_head.weight' has shape [24, 8], this run's has [25, 8]");
    other.table.items[4].shape[0] = 24;
    other.table.items[1].name[0] = 'x';
    assert_refused(snapshot_check(snapshot, &other.table, &err), STATUS_DATA, &err,
                   "lacks tensor 'xodel.layers.0.self_attn.q_proj.weight'");
    other.table.items[1].name[0] = 'm';
    other.table.items[1].role = PARAM_FROZEN;
    assert_refused(snapshot_check(snapshot, &other.table, &err), STATUS_DATA, &err, "keeps frozen");
    other.table.items[1].role = PARAM_TRAINED;
    mem_free(other.table.items[--other.table.count].name);
    assert_refused(snapshot_check(snapshot, &other.table, &err), STATUS_DATA, &err, "'model.norm.weight', which this run's");
    struct snapshot_target momentum = {"momentum", sample.states[0]};
    assert_refused(snapshot_load(snapshot, &sample.table, NULL, 1, &momentum, &err), STATUS_DATA, &err, "'momentum'");
    snapshot_close(snapshot);
    sample_free(&other);
    sample_free(&sample);
}

static void odd_files_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct snapshot *snapshot;
    struct h5 *file;
    char *path = in_folder("step-00000003.h5");
    assert_refused(snapshot_open(path, &snapshot, &err), STATUS_DATA, &err, "step-00000003.h5");
    assert_refused(snapshot_open(folder, &snapshot, &err), STATUS_DATA, &err, "not a regular file");
    assert_refused(snapshot_open_latest(folder, &snapshot, NULL, &err), STATUS_DATA, &err, "no snapshot in");
    assert_refused(snapshot_open_latest(in_folder("none"), &snapshot, NULL, &err), STATUS_DATA, &err, "no snapshot in");
    assert_ok(file_replace(path, "x", 1, &err), &err);
    assert_refused(snapshot_open(path, &snapshot, &err), STATUS_DATA, &err, "cut short");
    assert_ok(h5_create(path, &file, &err), &err); /* good HDF5, but nobody's snapshot */
    assert_ok(h5_close(file, &err), &err);
    assert_refused(snapshot_open(path, &snapshot, &err), STATUS_DATA, &err, "not a whole snapshot");
    assert_refused(snapshot_open_latest(folder, &snapshot, NULL, &err), STATUS_DATA, &err, "no usable snapshot");
}

static void damaged_latest_falls_back(void **state)
{
    (void)state;
    struct error err;
    struct sample sample;
    struct snapshot *snapshot;
    for (int step = 1; step <= 3; step++) {
        sample_make(&sample, 4, step);
        assert_ok(snapshot_write(folder, &sample.view, NULL, &err), &err);
        sample_free(&sample);
    }
    assert_int_equal(truncate(in_folder("step-00000003.h5"), 2000), 0);
    struct text warnings = {0};
    assert_ok(snapshot_open_latest(folder, &snapshot, &warnings, &err), &err);
    assert_int_equal(snapshot_meta(snapshot)->step, 2);
    assert_non_null(strstr(warnings.data, "step-00000003.h5' is cut short"));
    snapshot_close(snapshot);
    /* A run resumed at step 1 wrote step 1 again: it, and not what lies beyond, is the newest. */
    assert_ok(file_replace(in_folder("latest"), "step-00000001.h5\n", 17, &err), &err);
    text_clear(&warnings);
    assert_ok(snapshot_open_latest(folder, &snapshot, &warnings, &err), &err);
    assert_int_equal(snapshot_meta(snapshot)->step, 1);
    assert_int_equal(warnings.size, 0);
    snapshot_close(snapshot);
    /* Without a sensible `latest` the newest good file counts. */
    assert_ok(file_replace(in_folder("latest"), "../../etc/passwd", 16, &err), &err);
    assert_ok(snapshot_open_latest(folder, &snapshot, &warnings, &err), &err);
    assert_int_equal(snapshot_meta(snapshot)->step, 2);
    snapshot_close(snapshot);
    text_free(&warnings);
}

static void too_large_for_the_disk(void **state)
{
    (void)state;
    struct error err;
    struct params table = {0};
    struct param huge = {.name = "w", .n_dims = 2, .shape = {1 << 30, 1 << 25}};
    assert_ok(params_add(&table, &huge, NULL, &err), &err);
    struct snapshot_view view = {.table = &table, .meta.step = 5};
    assert_refused(snapshot_write(folder, &view, NULL, &err), STATUS_IO, &err, "not enough space");
    assert_true(folder_is_empty(folder));
    params_free(&table);
}

static void retention_rules(void **state)
{
    (void)state;
    static const struct {
        int limit, best, latest;
        const char *gone; /* of steps 10, 20, .. 60 */
    } rows[] = {
        {0, -1, 60, "......"}, {3, -1, 60, "xxx..."}, {3, 10, 60, ".xxx.."}, {3, 60, 60, "xxx..."}, {1, -1, 60, "xxxx.."},
        {2, 30, 60, "xx.x.."}, {9, -1, 60, "......"}, {2, -1, 30, "x....."}, {2, 50, 20, "......"},
    };
    const int64_t steps[] = {10, 20, 30, 40, 50, 60};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        bool remove[6];
        struct retention retention = {rows[r].limit};
        retention_choose(&retention, steps, 6, rows[r].latest, rows[r].best, remove);
        for (int i = 0; i < 6; i++)
            assert_int_equal(remove[i], rows[r].gone[i] == 'x');
    }
}

struct trainer {
    struct shadow *shadow;
    float *values;
    struct chunks chunks;
};

/* Changes every chunk after its copy was taken, as an update does. */
static void *update_chunks(void *context)
{
    struct trainer *trainer = context;
    for (int chunk = 0; chunk < trainer->chunks.count; chunk++) {
        shadow_copy_chunk(trainer->shadow, chunk);
        for (int64_t i = 0; i < chunk_size(&trainer->chunks, chunk); i++)
            trainer->values[chunk_begin(&trainer->chunks, chunk) + i] += 1;
    }
    return NULL;
}

static void writer_works_behind(void **state)
{
    (void)state;
    struct error err;
    struct sample sample;
    struct shadow *shadow;
    struct writer *writer;
    struct writer_result result;
    char expected[DIGEST_HEX_SIZE];
    long before = mem_live();
    sample_make(&sample, 60, 0);
    struct chunks chunks = chunks_make(sample.table.values, 100);
    struct retention retention = {2};
    assert_ok(shadow_create(&chunks, 2, &shadow, &err), &err);
    assert_ok(writer_create(folder, &retention, &writer, &err), &err);
    assert_false(writer_poll(writer, &result));
    for (int step = 1; step <= 4; step++) {
        assert_ok(snapshot_digest(&sample.table, sample.values, 2, sample.view.states, expected, &err), &err);
        const float *states[] = {sample.states[0], sample.states[1]};
        shadow_begin(shadow, sample.values, states);
        assert_false(shadow_complete(shadow));
        struct trainer trainer = {shadow, sample.values, chunks};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, update_chunks, &trainer), 0);
        while (shadow_copy_next(shadow)) {
        }
        pthread_join(thread, NULL);
        assert_true(shadow_complete(shadow));
        struct snapshot_view view = sample.view;
        char history[] = "{\"step\": 1}\n";
        struct snapshot_text text = {"history", history, strlen(history)};
        view.values = shadow_values(shadow);
        view.states[0].values = shadow_state(shadow, 0);
        view.states[1].values = shadow_state(shadow, 1);
        view.meta.step = step;
        view.meta.best_step = 1;
        view.texts = &text;
        view.n_texts = 1;
        assert_ok(writer_submit(writer, &view, &err), &err);
        memset(history, 'x', sizeof history); /* ours again */
        writer_wait(writer);
        assert_false(writer_busy(writer));
        assert_true(writer_poll(writer, &result));
        assert_false(writer_poll(writer, &result));
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(result.number, step);
        assert_string_equal(result.text, "");
        assert_string_equal(result.written.digest, expected);
        assert_int_equal(result.removed, step == 4); /* 2 when 4 arrives: 1 is the best, 3 and 4 are the last two */
    }
    struct snapshot *snapshot;
    assert_ok(snapshot_open_latest(folder, &snapshot, NULL, &err), &err);
    char *text;
    size_t size;
    assert_ok(snapshot_text(snapshot, "history", &text, &size, &err), &err);
    assert_string_equal(text, "{\"step\": 1}\n");
    mem_free(text);
    snapshot_close(snapshot);
    int64_t *steps;
    int count;
    assert_ok(snapshot_list(folder, &steps, &count, &err), &err);
    assert_int_equal(count, 3);
    assert_true(steps[0] == 1 && steps[1] == 3 && steps[2] == 4);
    mem_free(steps);
    writer_free(writer);
    shadow_free(shadow);
    sample_free(&sample);
    assert_int_equal(mem_live(), before);
}

static void writer_reports_failure(void **state)
{
    (void)state;
    struct error err;
    struct sample sample;
    struct writer *writer;
    struct writer_result result;
    struct retention retention = {0};
    sample_make(&sample, 4, 9);
    assert_ok(file_replace(in_folder("in-the-way"), "x", 1, &err), &err);
    assert_ok(writer_create(in_folder("in-the-way"), &retention, &writer, &err), &err);
    assert_ok(writer_submit(writer, &sample.view, &err), &err);
    writer_wait(writer);
    assert_true(writer_poll(writer, &result));
    assert_int_equal(result.status, STATUS_IO);
    assert_int_equal(result.written.step, 9);
    assert_non_null(strstr(result.text, "in-the-way"));
    writer_free(writer);
    sample_free(&sample);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(writes_and_reads),
        cmocka_unit_test(digest_tells_apart),
        IN_FOLDER(stock_tools_read_it),
        IN_FOLDER(other_models_are_refused),
        IN_FOLDER(odd_files_are_refused),
        IN_FOLDER(damaged_latest_falls_back),
        IN_FOLDER(too_large_for_the_disk),
        cmocka_unit_test(retention_rules),
        IN_FOLDER(writer_works_behind),
        IN_FOLDER(writer_reports_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
