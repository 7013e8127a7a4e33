/* Records of event files against published vectors and an independent reader; pictures. */
#include "tests/support/event_reader.h"

#include <math.h>

#include "common/json.h"
#include "common/memory.h"
#include "common/png.h"
#include "proto/event.h"

static struct error err;

static size_t from_hex(const char *hex, unsigned char *out, size_t room)
{
    size_t size = strlen(hex) / 2;
    assert_true(size <= room);
    for (size_t i = 0; i < size; i++) {
        unsigned value;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &value), 1);
        out[i] = (unsigned char)value;
    }
    return size;
}

static const char *member(const struct json *object, const char *key)
{
    const char *text = json_to_string(json_member(object, key), NULL);
    assert_non_null(text);
    return text;
}

static void published_vectors(void **state)
{
    (void)state;
    const char *path = shared_data("tensorboard/vectors.json");
    struct json *vectors;
    unsigned char bytes[64];
    struct text out = {0};
    if (!path)
        skip();
    assert_ok(json_read_file(path, &vectors, &err), &err);
    const struct json *rows = json_member(vectors, "masked_crc32c"), *plain = json_at(json_member(vectors, "crc32c_unmasked"), 0);
    assert_true(json_count(rows) >= 2);
    for (size_t i = 0; i < json_count(rows); i++) {
        size_t size = from_hex(member(json_at(rows, i), "hex"), bytes, sizeof bytes);
        assert_int_equal(event_masked_crc(bytes, size), strtoul(member(json_at(rows, i), "masked"), NULL, 16));
    }
    size_t size = from_hex(member(plain, "hex"), bytes, sizeof bytes);
    assert_int_equal(plain_crc32c(bytes, size), strtoul(member(plain, "crc"), NULL, 16)); /* the reader below is right, too */
    const struct json *first = json_member(vectors, "first_record");
    struct event event = {.kind = EVENT_FILE_VERSION};
    size = from_hex(member(first, "payload_hex"), bytes, sizeof bytes);
    memcpy(&event.wall_time, bytes + 1, 8);
    event_put(&event, &out);
    assert_int_equal(out.size, 16 + size);
    assert_int_equal(plain_number((unsigned char *)out.data, 8), json_to_int(json_member(first, "length")));
    assert_memory_equal(out.data + 12, bytes, size);
    text_free(&out);
    json_free(vectors);
}

static void bytes_of_a_scalar(void **state)
{
    (void)state;
    unsigned char wanted[32];
    struct text out = {0};
    size_t size = from_hex("09000000000000f83f10032a0d0a0b0a046c6f7373150000c03f", wanted, sizeof wanted);
    event_put(&(struct event){.kind = EVENT_SCALAR, .wall_time = 1.5, .step = 3, .tag = "loss", .scalar = 1.5}, &out);
    assert_int_equal(out.size, 16 + size);
    assert_memory_equal(out.data + 12, wanted, size);
    check_masked(wanted, size, (unsigned char *)out.data + 12 + size);
    text_free(&out);
    /* A record of nothing still has both checksums. */
    event_put_record("", 0, &out);
    assert_int_equal(out.size, 16);
    check_masked((unsigned char *)out.data, 8, (unsigned char *)out.data + 8);
    check_masked(wanted, 0, (unsigned char *)out.data + 12);
    text_free(&out);
}

static void all_kinds_read_back(void **state)
{
    (void)state;
    static const char words[] = "    a: b\n", picture[] = "\x89PNG\0zero";
    const struct event events[] = {
        {.kind = EVENT_FILE_VERSION, .wall_time = 10.25},
        {.kind = EVENT_START, .wall_time = 10.5, .step = 5000000000},
        {.kind = EVENT_SCALAR, .wall_time = 11, .step = 7, .tag = "train/größe", .scalar = NAN},
        {.kind = EVENT_TEXT, .wall_time = 12, .step = 0, .tag = "run_file", .bytes = words, .size = sizeof words - 1},
        {.kind = EVENT_IMAGE, .wall_time = 13, .step = 300, .tag = "map", .bytes = picture, .size = sizeof picture, .width = 640, .height = 48},
    };
    enum { COUNT = sizeof events / sizeof events[0] };
    struct seen_event seen[COUNT];
    struct text out = {0};
    for (int i = 0; i < COUNT; i++)
        event_put(&events[i], &out);
    assert_false(out.failed);
    assert_int_equal(read_events(out.data, out.size, seen, COUNT), COUNT);
    for (int i = 0; i < COUNT; i++) {
        assert_true(seen[i].wall_time == events[i].wall_time);
        assert_true(seen[i].has_step == (i > 0) && seen[i].step == events[i].step);
        assert_string_equal(seen[i].tag, events[i].tag ? events[i].tag : "");
        assert_true(seen[i].has_scalar == (i == 2) && seen[i].session == (i == 1) && seen[i].has_image == (i == 4));
    }
    assert_string_equal(seen[0].version, "brain.Event:2");
    assert_true(isnan(seen[2].scalar));
    assert_string_equal(seen[3].plugin, "text");
    assert_true(seen[3].dtype == 7 && seen[3].data_class == 2 && seen[3].dim == 1);
    assert_int_equal(seen[3].text.end - seen[3].text.at, sizeof words - 1);
    assert_memory_equal(seen[3].text.at, words, sizeof words - 1);
    assert_true(seen[4].width == 640 && seen[4].height == 48 && seen[4].colorspace == 3);
    assert_int_equal(seen[4].image.end - seen[4].image.at, sizeof picture);
    assert_memory_equal(seen[4].image.at, picture, sizeof picture);
    text_free(&out);
}

static void pictures(void **state)
{
    (void)state;
    enum { WIDTH = 37, HEIGHT = 5 };
    unsigned char rgb[HEIGHT][WIDTH][3];
    struct text out = {0};
    for (int i = 0; i < HEIGHT * WIDTH * 3; i++)
        ((unsigned char *)rgb)[i] = (unsigned char)(i * i + i / 7);
    assert_ok(png_put(WIDTH, HEIGHT, (unsigned char *)rgb, &out, &err), &err);
    unsigned char *back = read_png((struct span){(unsigned char *)out.data, (unsigned char *)out.data + out.size}, WIDTH, HEIGHT);
    assert_memory_equal(back, rgb, sizeof rgb);
    free(back);
    text_free(&out);
    assert_refused(png_put(0, 5, (unsigned char *)rgb, &out, &err), STATUS_USAGE, &err, "0 x 5");
    assert_refused(png_put(5, 1 << 20, (unsigned char *)rgb, &out, &err), STATUS_USAGE, &err, "1 to 16384");
    assert_int_equal(out.size, 0);
}

static void short_memory(void **state)
{
    (void)state;
    unsigned char rgb[3] = {1, 2, 3};
    long live = mem_live();
    for (int n = 0; n < 3; n++) {
        struct text out = {0};
        mem_fail_after(n, true);
        assert_refused(png_put(1, 1, rgb, &out, &err), STATUS_NOMEM, &err, "1 x 1");
        mem_fail_after(-1, false);
        text_free(&out);
    }
    for (int n = 0; n < 2; n++) {
        struct text out = {0};
        mem_fail_after(n, true);
        event_put(&(struct event){.kind = EVENT_SCALAR, .tag = "x"}, &out);
        mem_fail_after(-1, false);
        assert_true(out.failed);
        text_free(&out);
    }
    assert_int_equal(mem_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors), cmocka_unit_test(bytes_of_a_scalar), cmocka_unit_test(all_kinds_read_back),
        cmocka_unit_test(pictures),          cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
