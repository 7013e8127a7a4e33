/* The safetensors reader and writer, and the import of whole model folders: good files, every kind of bad one. */
#include "tests/support/cmocka_all.h"

#include <math.h>
#include <unistd.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/text.h"
#include "tests/support/scratch.h"
#include "worker/model/config.h"
#include "worker/model/import.h"
#include "worker/model/safetensors.h"

static struct error err;

/* A file in memory from a header text and a number of payload bytes (0, 1, 2, ...). */
static unsigned char *make_file(const char *header, size_t payload, size_t *size)
{
    uint64_t length = strlen(header);
    *size = 8 + length + payload;
    unsigned char *file = mem_alloc(*size, 1);
    assert_non_null(file);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < payload; i++)
        file[8 + length + i] = (unsigned char)i;
    return file;
}

static void refuse_header(const char *header, size_t payload, const char *part)
{
    size_t size;
    unsigned char *file = make_file(header, payload, &size);
    struct safetensors *set = NULL;
    assert_refused(safetensors_open_memory(file, size, "x.safetensors", &set, &err), STATUS_DATA, &err, part);
    assert_non_null(strstr(err.text, "x.safetensors"));
    mem_free(file);
}

static void accept_header(const char *header, size_t payload, size_t tensors)
{
    size_t size;
    unsigned char *file = make_file(header, payload, &size);
    struct safetensors *set = NULL;
    assert_ok(safetensors_open_memory(file, size, "x.safetensors", &set, &err), &err);
    assert_int_equal(safetensors_count(set), tensors);
    safetensors_close(set);
    mem_free(file);
}

static void bad_headers_are_refused(void **state)
{
    (void)state;
    const long live = mem_live();
    refuse_header("[]", 0, "must be a JSON object");
    refuse_header("{} {}", 0, "broken JSON");
    refuse_header("{\"a\":1}", 0, "'a' must be described by an object");
    refuse_header("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "'dtype' must be a string");
    refuse_header("{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype 'f32'");
    refuse_header("{\"a\":{\"dtype\":\"F32\\u0000\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "'shape' must be an array");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "'data_offsets' must be an array");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "must not be negative");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "must hold integers");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}", 4, "must hold integers");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "must be [begin, end]");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "must be [begin, end]");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.5]}}", 4, "must hold integers");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "must not be negative");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "must begin at 0");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}", 12, "tensor 'b'");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "must begin at 8");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                  "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "duplicate");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "takes 8 bytes");
    refuse_header("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "whole bytes");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]}}", 4, "overflows");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "cut off");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, "longer");
    refuse_header("{\"__metadata__\":[]}", 0, "__metadata__");
    refuse_header("{\"__metadata__\":{\"n\":1}}", 0, "'n' must be a string");
    assert_int_equal(mem_live(), live);
}

static void odd_but_valid_headers_are_read(void **state)
{
    (void)state;
    accept_header("{}", 0, 0);
    accept_header(" \t\r\n{}\r\n\t ", 0, 0);
    accept_header("{\"__metadata__\":null}", 0, 0);
    accept_header("{\"__metadata__\":{\"format\":\"pt\"}}", 0, 0);
    accept_header("{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                  "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[3,7]},"
                  "\"e\":{\"dtype\":\"F32\",\"shape\":[0,9],\"data_offsets\":[7,7]}}", 7, 3);
    accept_header("{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3, 1);
}

static void values_are_converted_at_any_alignment(void **state)
{
    (void)state;
    const char *header = "{\"o\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                         "\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]},"
                         "\"h\":{\"dtype\":\"F16\",\"shape\":[7],\"data_offsets\":[9,23]},"
                         "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[23,29]}}";
    size_t size;
    unsigned char *file = make_file(header, 29, &size), *data = file + 8 + strlen(header);
    const float f[2] = {1.25f, -3e-40f};
    const uint16_t h[7] = {0x3c00, 0xc000, 0x0001, 0x83ff, 0x7c00, 0x7e01, 0x8000}, b[3] = {0x3f80, 0xff80, 0x0001};
    memcpy(data + 1, f, 8);
    memcpy(data + 9, h, 14);
    memcpy(data + 23, b, 6);
    struct safetensors *set;
    assert_ok(safetensors_open_memory(file, size, "x", &set, &err), &err);
    float out[7];
    assert_ok(safetensors_to_float(safetensors_find(set, "f"), out, &err), &err);
    assert_memory_equal(out, f, 8);
    assert_ok(safetensors_to_float(safetensors_find(set, "h"), out, &err), &err);
    assert_true(out[0] == 1 && out[1] == -2 && out[2] == 0x1p-24f && out[3] == -1023 * 0x1p-24f);
    assert_true(isinf(out[4]) && out[4] > 0 && isnan(out[5]) && out[6] == 0 && signbit(out[6]));
    assert_ok(safetensors_to_float(safetensors_find(set, "b"), out, &err), &err);
    assert_true(out[0] == 1 && isinf(out[1]) && out[1] < 0 && out[2] == 0x1p-133f);
    assert_refused(safetensors_to_float(safetensors_find(set, "o"), out, &err), STATUS_DATA, &err, "'o' is U8");
    assert_null(safetensors_find(set, "g"));
    safetensors_close(set);
    mem_free(file);
}

static void verdicts_of_the_reference_are_ours(void **state)
{
    (void)state;
    const char *path = shared_data("safetensors/cases.json");
    if (!path)
        skip();
    struct json *cases;
    assert_ok(json_read_file(path, &cases, &err), &err);
    assert_int_equal(json_count(cases), 16);
    for (size_t i = 0; i < json_count(cases); i++) {
        const char *hex = json_to_string(json_member(json_at(cases, i), "hex"), NULL);
        const char *name = json_to_string(json_member(json_at(cases, i), "name"), NULL);
        bool valid = json_to_bool(json_member(json_at(cases, i), "valid"));
        size_t size = strlen(hex) / 2;
        unsigned char *bytes = mem_alloc(size, 1);
        for (size_t j = 0; j < size; j++)
            sscanf(hex + 2 * j, "%2hhx", &bytes[j]);
        struct safetensors *set = NULL;
        enum status st = safetensors_open_memory(bytes, size, name, &set, &err);
        if ((st == STATUS_OK) != valid || (st != STATUS_OK && st != STATUS_DATA))
            fail_msg("%s: expected %s, got %s: %s", name, valid ? "valid" : "invalid", status_name(st), st ? err.text : "");
        if (st == STATUS_OK)
            safetensors_close(set);
        mem_free(bytes);
    }
    json_free(cases);
}

static void sharded_set_is_read(void **state)
{
    (void)state;
    if (!shared_data("safetensors/fluxml/sharded/model.safetensors.index.json"))
        skip();
    struct safetensors *set;
    assert_ok(safetensors_open("../shared/data/safetensors/fluxml/sharded", &set, &err), &err);
    assert_int_equal(safetensors_count(set), 36);
    for (size_t i = 1; i < safetensors_count(set); i++)
        assert_true(strcmp(safetensors_at(set, i - 1)->name, safetensors_at(set, i)->name) < 0);
    const struct safetensors_entry *entry = safetensors_find(set, "bfloat16_357");
    assert_non_null(entry);
    assert_int_equal(entry->count, 105);
    assert_non_null(strstr(entry->file, "model-00006-of-00006"));
    float brain[105], half[105], single[105];
    assert_ok(safetensors_to_float(entry, brain, &err), &err);
    assert_ok(safetensors_to_float(safetensors_find(set, "float16_357"), half, &err), &err);
    assert_ok(safetensors_to_float(safetensors_find(set, "float32_357"), single, &err), &err);
    for (int i = 0; i < 105; i++)
        assert_true(isfinite(brain[i]) && isfinite(half[i]) && isfinite(single[i]));
    safetensors_close(set);
}

static void truncated_and_flipped_bytes_never_crash(void **state)
{
    (void)state;
    const long live = mem_live();
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                         "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}}";
    size_t size;
    unsigned char *file = make_file(header, 32, &size);
    struct safetensors *set = NULL;
    for (size_t cut = 0; cut < size; cut++) {
        unsigned char *part = mem_alloc(cut, 1); /* its own block, so that a sanitizer sees a read beyond it */
        memcpy(part, file, cut);
        assert_int_equal(safetensors_open_memory(part, cut, "cut", &set, &err), STATUS_DATA);
        mem_free(part);
    }
    for (size_t bit = 0; bit < 8 * size; bit++) {
        file[bit / 8] ^= (unsigned char)(1u << bit % 8);
        enum status st = safetensors_open_memory(file, size, "flipped", &set, &err);
        if (st == STATUS_OK) {
            float out[16];
            for (size_t i = 0; i < safetensors_count(set); i++)
                if (safetensors_at(set, i)->count <= 16)
                    (void)safetensors_to_float(safetensors_at(set, i), out, &err);
            safetensors_close(set);
        } else {
            assert_int_equal(st, STATUS_DATA);
        }
        file[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    mem_free(file);
    assert_int_equal(mem_live(), live);
}

/* ---- folders ---- */

static char folder[SCRATCH_SIZE];

static void put(const char *name, const void *data, size_t size)
{
    char *path = path_join(folder, name);
    assert_ok(file_replace(path, data, size, &err), &err);
    mem_free(path);
}

static void drop(const char *name)
{
    char *path = path_join(folder, name);
    unlink(path);
    mem_free(path);
}

static void bad_indexes_are_refused(void **state)
{
    (void)state;
    struct safetensors *set = NULL;
    assert_refused(safetensors_open(folder, &set, &err), STATUS_DATA, &err, "holds neither");
    size_t size;
    unsigned char *file = make_file("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, &size);
    put("part.safetensors", file, size);
    static const struct {
        const char *index, *part;
    } cases[] = {
        {"{}", "'weight_map' must be an object"},
        {"{\"weight_map\":{\"a\":7}}", "must be a string"},
        {"{\"weight_map\":{\"a\":\"../x\"}}", "not a file name"},
        {"{\"weight_map\":{\"a\":\"\"}}", "not a file name"},
        {"{\"weight_map\":{\"a\":\"gone.safetensors\"}}", "'gone.safetensors'"},
        {"{\"weight_map\":{\"a\":\"part.safetensors\",\"b\":\"part.safetensors\"}}", "maps tensor 'b'"},
        {"{\"weight_map\":", "broken JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("model.safetensors.index.json", cases[i].index, strlen(cases[i].index));
        assert_refused(safetensors_open(folder, &set, &err), STATUS_DATA, &err, cases[i].part);
    }
    const char *good = "{\"weight_map\":{\"a\":\"part.safetensors\"}}";
    put("model.safetensors.index.json", good, strlen(good));
    assert_ok(safetensors_open(folder, &set, &err), &err);
    assert_int_equal(safetensors_count(set), 1);
    safetensors_close(set);
    mem_free(file);
    drop("model.safetensors.index.json");
    drop("part.safetensors");
}

/* A table of one matrix and one vector, and a file that fits it. */
static const int64_t shape_w[2] = {2, 3}, shape_n[1] = {3};

static void make_table(struct params *table)
{
    struct param w = {.name = "w", .n_dims = 2, .shape = {2, 3}}, n = {.name = "n", .n_dims = 1, .shape = {3}};
    *table = (struct params){0};
    assert_ok(params_add(table, &w, NULL, &err), &err);
    assert_ok(params_add(table, &n, NULL, &err), &err);
}

static void import_checks_what_it_reads(void **state)
{
    (void)state;
    char *path = path_join(folder, "model.safetensors");
    float w[6] = {1, 2, 3, 4, 5, 6}, n[3] = {7, 8, 9}, values[32];
    struct params table;
    make_table(&table);
    struct model_config config = {.layers = 1, .tied = true};
    struct import_report report;
    const int64_t shape_bad[2] = {3, 2};
    struct safetensors_tensor tensors[6] = {
        {"w", SAFETENSORS_F32, 2, shape_w, w},           {"n", SAFETENSORS_BF16, 1, shape_n, n},
        {"lm_head.weight", SAFETENSORS_F32, 1, shape_n, n}, {"model.layers.1.x", SAFETENSORS_F32, 1, shape_n, n},
        {"a.rotary_emb.inv_freq", SAFETENSORS_F32, 1, shape_n, n}, {"odd", SAFETENSORS_F32, 1, shape_n, n},
    };
    assert_ok(safetensors_write(path, tensors, 6, &err), &err);
    memset(values, 0x55, sizeof values);
    assert_ok(model_import(folder, &config, &table, NULL, values, &report, &err), &err);
    assert_memory_equal(values, w, sizeof w);
    assert_memory_equal(values + 16, n, sizeof n);
    assert_true(values[6] == 0 && values[15] == 0 && values[31] == 0);
    assert_int_equal(report.tensors, 2);
    assert_int_equal(report.known_extras, 3);
    assert_int_equal(report.unknown_extras, 1);
    assert_string_equal(report.example, "odd");
    assert_ok(safetensors_write(path, tensors, 1, &err), &err);
    assert_refused(model_import(folder, &config, &table, NULL, values, NULL, &err), STATUS_DATA, &err, "lacks the tensor 'n' [3]");
    tensors[0].shape = shape_bad;
    assert_ok(safetensors_write(path, tensors, 2, &err), &err);
    assert_refused(model_import(folder, &config, &table, NULL, values, NULL, &err), STATUS_DATA, &err,
                   "'w' has the shape [3, 2], config.json asks for [2, 3]");
    tensors[0].shape = shape_w;
    w[4] = NAN;
    assert_ok(safetensors_write(path, tensors, 2, &err), &err);
    assert_refused(model_import(folder, &config, &table, NULL, values, NULL, &err), STATUS_NUMERIC, &err, "'w' holds NaN at index 4 of 6");
    w[4] = 5;
    n[2] = -INFINITY;
    assert_ok(safetensors_write(path, tensors, 2, &err), &err);
    assert_refused(model_import(folder, &config, &table, NULL, values, NULL, &err), STATUS_NUMERIC, &err, "'n' holds infinity at index 2");
    size_t size;
    unsigned char *file = make_file("{\"n\":{\"dtype\":\"I32\",\"shape\":[3],\"data_offsets\":[0,12]},"
                                    "\"w\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[12,24]}}", 24, &size);
    put("model.safetensors", file, size);
    assert_refused(model_import(folder, &config, &table, NULL, values, NULL, &err), STATUS_DATA, &err, "'n' is I32");
    mem_free(file);
    params_free(&table);
    drop("model.safetensors");
    mem_free(path);
}

static void bf16_is_rounded_to_nearest_even(void **state)
{
    (void)state;
    char *path = path_join(folder, "x.safetensors");
    const uint32_t bits[12] = {0x3f800000, 0x3f808000, 0x3f808001, 0x3f818000, 0x3f817fff, 0x7f7fffff,
                               0x7f800000, 0x7f800001, 0xffffffff, 0x80000000, 0x00008000, 0x00018000};
    const uint32_t wanted[12] = {0x3f800000, 0x3f800000, 0x3f810000, 0x3f820000, 0x3f810000, 0x7f800000,
                                 0x7f800000, 0x7fc00000, 0xffff0000, 0x80000000, 0x00000000, 0x00020000};
    float in[12], out[12];
    memcpy(in, bits, sizeof in);
    const int64_t shape[1] = {12};
    struct safetensors_tensor tensor = {"x", SAFETENSORS_BF16, 1, shape, in};
    assert_ok(safetensors_write(path, &tensor, 1, &err), &err);
    struct safetensors *set;
    assert_ok(safetensors_open(path, &set, &err), &err);
    assert_ok(safetensors_to_float(safetensors_find(set, "x"), out, &err), &err);
    assert_memory_equal(out, wanted, sizeof out);
    safetensors_close(set);
    unlink(path);
    tensor.dtype = SAFETENSORS_I8;
    assert_refused(safetensors_write(path, &tensor, 1, &err), STATUS_INTERNAL, &err, "I8");
    assert_false(file_exists(path));
    mem_free(path);
}

/* Reads a file made by the reference writer and writes it again: the same bytes. */
static void rewrite(const char *source)
{
    struct safetensors *set;
    assert_ok(safetensors_open(source, &set, &err), &err);
    size_t count = safetensors_count(set);
    struct safetensors_tensor *tensors = mem_alloc(count, sizeof *tensors);
    float **values = mem_alloc(count, sizeof *values);
    for (size_t i = 0; i < count; i++) {
        const struct safetensors_entry *e = safetensors_at(set, count - 1 - i);
        values[i] = mem_alloc((size_t)e->count, sizeof **values);
        assert_ok(safetensors_to_float(e, values[i], &err), &err);
        tensors[i] = (struct safetensors_tensor){e->name, e->dtype, e->n_dims, e->shape, values[i]};
    }
    char *copy = path_join(folder, "copy.safetensors");
    assert_ok(safetensors_write(copy, tensors, count, &err), &err);
    char *a, *b;
    size_t size_a, size_b;
    assert_ok(file_read(source, &a, &size_a, &err), &err);
    assert_ok(file_read(copy, &b, &size_b, &err), &err);
    assert_int_equal(size_a, size_b);
    assert_memory_equal(a, b, size_a);
    for (size_t i = 0; i < count; i++)
        mem_free(values[i]);
    mem_free(values);
    mem_free(tensors);
    mem_free(a);
    mem_free(b);
    safetensors_close(set);
    unlink(copy);
    mem_free(copy);
}

static void files_of_the_reference_writer_come_back_byte_for_byte(void **state)
{
    (void)state;
    static const char *const files[] = {"models/stories260K-hf/model.safetensors", "models/verl-digit-llama/model.safetensors",
                                        "models/hf-reference/qwen2-untied/model.safetensors",
                                        "safetensors/fluxml/sharded/model-00002-of-00006.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = shared_data(files[i]);
        if (!path)
            skip();
        rewrite(path);
    }
}

static int make_folder(void **state)
{
    (void)state;
    return scratch_folder(folder, "safetensors") == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(odd_but_valid_headers_are_read),
        cmocka_unit_test(values_are_converted_at_any_alignment),
        cmocka_unit_test(verdicts_of_the_reference_are_ours),
        cmocka_unit_test(sharded_set_is_read),
        cmocka_unit_test(truncated_and_flipped_bytes_never_crash),
        cmocka_unit_test(bad_indexes_are_refused),
        cmocka_unit_test(import_checks_what_it_reads),
        cmocka_unit_test(bf16_is_rounded_to_nearest_even),
        cmocka_unit_test(files_of_the_reference_writer_come_back_byte_for_byte),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
