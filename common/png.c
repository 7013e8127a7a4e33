#include "common/png.h"

#include <stdint.h>
#include <string.h>
#include <zlib.h>

#include "common/memory.h"

enum { SIDE_MAX = 16384, DEPTH = 8, COLOUR_RGB = 2 };

static void store_u32(unsigned char out[4], uint32_t value)
{
    for (int i = 0; i < 4; i++)
        out[i] = (unsigned char)(value >> (24 - 8 * i));
}

/* Length, type, data, and the checksum of the last two. */
static void put_chunk(struct text *out, const char type[4], const void *data, size_t size)
{
    unsigned char number[4];
    uLong crc = crc32(0, (const Bytef *)type, 4);
    if (size)
        crc = crc32(crc, data, (uInt)size);
    store_u32(number, (uint32_t)size);
    text_append(out, (const char *)number, 4);
    text_append(out, type, 4);
    text_append(out, data, size);
    store_u32(number, (uint32_t)crc);
    text_append(out, (const char *)number, 4);
}

enum status png_put(int width, int height, const unsigned char *rgb, struct text *out, struct error *err)
{
    if (width < 1 || height < 1 || width > SIDE_MAX || height > SIDE_MAX)
        FAIL(err, STATUS_USAGE, "cannot make a picture of %d x %d pixels; sides go from 1 to %d", width, height, SIDE_MAX);
    size_t line = 3 * (size_t)width, size = (line + 1) * (size_t)height;
    uLongf packed_size = compressBound(size);
    unsigned char *lines = mem_alloc(size, 1), *packed = mem_alloc(packed_size, 1);
    int result = Z_MEM_ERROR;
    if (lines && packed) {
        for (size_t y = 0; y < (size_t)height; y++) /* the byte before each row names its filter; 0: none */
            memcpy(lines + y * (line + 1) + 1, rgb + y * line, line);
        result = compress2(packed, &packed_size, lines, size, Z_DEFAULT_COMPRESSION);
    }
    if (result == Z_OK) {
        unsigned char header[13] = {[8] = DEPTH, [9] = COLOUR_RGB};
        store_u32(header, (uint32_t)width);
        store_u32(header + 4, (uint32_t)height);
        text_append(out, "\x89PNG\r\n\x1a\n", 8);
        put_chunk(out, "IHDR", header, sizeof header);
        put_chunk(out, "IDAT", packed, packed_size);
        put_chunk(out, "IEND", "", 0);
    }
    mem_free(lines);
    mem_free(packed);
    if (result != Z_OK || out->failed)
        FAIL(err, STATUS_NOMEM, "no memory for a picture of %d x %d pixels", width, height);
    return STATUS_OK;
}
