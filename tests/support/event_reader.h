/* Reads event files and PNG files by their specification, with nothing of the product: checksums bit by bit, protobuf
 * fields one at a time. Whatever is not as it must be fails the test. */
#ifndef TESTS_SUPPORT_EVENT_READER_H
#define TESTS_SUPPORT_EVENT_READER_H

#include <zlib.h>

#include "tests/support/cmocka_all.h"

struct span {
    const unsigned char *at, *end;
};

struct seen_event {
    double wall_time;
    bool has_step, has_scalar, has_image;
    int64_t step;
    int session; /* status of the session log, 0: none */
    char version[32], tag[96], plugin[16];
    float scalar;
    int64_t width, height, colorspace, dtype, data_class, text_count, dim;
    struct span text, image;
};

static inline uint32_t plain_crc32c(const unsigned char *bytes, size_t size)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static inline uint64_t plain_number(const unsigned char *bytes, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

static inline uint64_t plain_varint(struct span *in)
{
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(in->at < in->end && shift < 64);
        value |= (uint64_t)(*in->at & 0x7f) << shift;
        if (!(*in->at++ & 0x80))
            return value;
    }
}

struct field {
    int number;
    uint64_t value; /* varint, or the bits of a fixed number */
    struct span bytes;
};

static inline bool next_field(struct span *in, struct field *out)
{
    if (in->at == in->end)
        return false;
    uint64_t key = plain_varint(in);
    int wire = key & 7, fixed = wire == 1 ? 8 : wire == 5 ? 4 : 0;
    *out = (struct field){.number = (int)(key >> 3)};
    assert_true(wire == 0 || wire == 1 || wire == 2 || wire == 5);
    if (wire == 0)
        out->value = plain_varint(in);
    size_t size = wire == 2 ? (size_t)plain_varint(in) : (size_t)fixed;
    assert_true(size <= (size_t)(in->end - in->at));
    if (fixed)
        out->value = plain_number(in->at, fixed);
    out->bytes = (struct span){in->at, in->at + size};
    in->at += size;
    return true;
}

/* The field of that number, which must be there once. */
static inline struct field only_field(struct span in, int number)
{
    struct field f, found = {0};
    int count = 0;
    while (next_field(&in, &f))
        if (f.number == number) {
            found = f;
            count++;
        }
    if (count != 1)
        print_error("field %d is there %d times\n", number, count);
    assert_int_equal(count, 1);
    return found;
}

static inline void copy_string(struct span from, char *out, size_t room)
{
    assert_true((size_t)(from.end - from.at) < room);
    memcpy(out, from.at, (size_t)(from.end - from.at));
    out[from.end - from.at] = '\0';
}

static inline void read_tensor(struct span in, struct seen_event *out)
{
    struct field string = only_field(in, 8);
    out->dtype = (int64_t)only_field(in, 1).value;
    out->dim = (int64_t)only_field(only_field(only_field(in, 2).bytes, 2).bytes, 1).value;
    out->text = string.bytes;
    out->text_count++;
}

static inline void read_value(struct span in, struct seen_event *out)
{
    struct field f;
    while (next_field(&in, &f)) {
        uint32_t bits = (uint32_t)f.value;
        if (f.number == 1) {
            copy_string(f.bytes, out->tag, sizeof out->tag);
        } else if (f.number == 2) {
            out->has_scalar = true;
            memcpy(&out->scalar, &bits, sizeof bits);
        } else if (f.number == 4) {
            out->has_image = true;
            out->height = (int64_t)only_field(f.bytes, 1).value;
            out->width = (int64_t)only_field(f.bytes, 2).value;
            out->colorspace = (int64_t)only_field(f.bytes, 3).value;
            out->image = only_field(f.bytes, 4).bytes;
        } else if (f.number == 8) {
            read_tensor(f.bytes, out);
        } else if (f.number == 9) {
            copy_string(only_field(only_field(f.bytes, 1).bytes, 1).bytes, out->plugin, sizeof out->plugin);
            out->data_class = (int64_t)only_field(f.bytes, 4).value;
        } else {
            fail_msg("unknown field %d of a value", f.number);
        }
    }
}

static inline void read_event(struct span in, struct seen_event *out)
{
    struct field f;
    *out = (struct seen_event){0};
    while (next_field(&in, &f)) {
        if (f.number == 1)
            memcpy(&out->wall_time, &f.value, sizeof f.value);
        else if (f.number == 2) {
            out->has_step = true;
            out->step = (int64_t)f.value;
        } else if (f.number == 3)
            copy_string(f.bytes, out->version, sizeof out->version);
        else if (f.number == 5)
            read_value(only_field(f.bytes, 1).bytes, out);
        else if (f.number == 7)
            out->session = (int)only_field(f.bytes, 1).value;
        else
            fail_msg("unknown field %d of an event", f.number);
    }
}

static inline void check_masked(const unsigned char *bytes, size_t size, const unsigned char *stored)
{
    uint32_t crc = plain_crc32c(bytes, size);
    assert_int_equal((uint32_t)plain_number(stored, 4), (crc >> 15 | crc << 17) + 0xa282ead8u);
}

/* All records of a file, of which none may be cut off; how many there are. Events borrow the bytes. */
static inline int read_events(const void *bytes, size_t size, struct seen_event *out, int room)
{
    const unsigned char *at = bytes;
    int count = 0;
    while (size) {
        assert_true(size >= 16);
        uint64_t length = plain_number(at, 8);
        check_masked(at, 8, at + 8);
        assert_true(length <= size - 16);
        check_masked(at + 12, length, at + 12 + length);
        assert_true(count < room);
        read_event((struct span){at + 12, at + 12 + length}, &out[count++]);
        at += 16 + length;
        size -= 16 + length;
    }
    return count;
}

static inline uint32_t big_endian(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Pixels of an RGB PNG of one IDAT chunk whose rows are not filtered; free() them. */
static inline unsigned char *read_png(struct span in, int width, int height)
{
    static const unsigned char magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    static const char *const types[] = {"IHDR", "IDAT", "IEND"};
    size_t line = 3 * (size_t)width;
    uLongf size = (line + 1) * (size_t)height;
    unsigned char *lines = malloc(size), *pixels = malloc(line * (size_t)height);
    assert_true(in.end - in.at > 8 && lines && pixels);
    assert_memory_equal(in.at, magic, 8);
    in.at += 8;
    for (int i = 0; i < 3; i++) {
        assert_true(in.end - in.at >= 12);
        size_t length = big_endian(in.at);
        assert_true(length <= (size_t)(in.end - in.at) - 12);
        assert_memory_equal(in.at + 4, types[i], 4);
        assert_int_equal(crc32(0, in.at + 4, (uInt)length + 4), big_endian(in.at + 8 + length));
        if (i == 0) {
            static const unsigned char rest[] = {8, 2, 0, 0, 0};
            assert_true(length == 13 && big_endian(in.at + 8) == (uint32_t)width && big_endian(in.at + 12) == (uint32_t)height);
            assert_memory_equal(in.at + 16, rest, 5);
        } else if (i == 1) {
            uLongf wanted = size;
            assert_int_equal(uncompress(lines, &size, in.at + 8, length), Z_OK);
            assert_int_equal(size, wanted);
        }
        in.at += 12 + length;
    }
    assert_true(in.at == in.end);
    for (int y = 0; y < height; y++) {
        assert_int_equal(lines[(size_t)y * (line + 1)], 0);
        memcpy(pixels + (size_t)y * line, lines + (size_t)y * (line + 1) + 1, line);
    }
    free(lines);
    return pixels;
}

#endif
