/* png_colours FILE RRGGBB...: how many pixels of the picture have each colour (within 6 steps in every channel), a number per line; the
 * first line is the number of different colours there are, in steps of 16. For pictures of pages: 8 bits, RGB or RGBA, not interlaced. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct picture {
    uint32_t width, height;
    int channels;
    unsigned char *packed, *lines; /* a filter byte before each line */
    size_t packed_size, line_size;
};

static uint32_t number(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool read_chunks(FILE *file, struct picture *p)
{
    unsigned char head[8];
    if (fread(head, 1, 8, file) != 8 || memcmp(head, "\x89PNG\r\n\x1a\n", 8))
        return false;
    while (fread(head, 1, 8, file) == 8) {
        size_t size = number(head);
        unsigned char *data = size < 1u << 30 ? malloc(size + 4) : NULL;
        if (!data || fread(data, 1, size + 4, file) != size + 4)
            return false;
        if (!memcmp(head + 4, "IHDR", 4)) {
            p->width = number(data);
            p->height = number(data + 4);
            p->channels = data[9] == 2 ? 3 : data[9] == 6 ? 4 : 0;
            if (data[8] != 8 || data[12] || !p->channels || !p->width || !p->height || p->width > 20000 || p->height > 20000)
                return false;
        } else if (!memcmp(head + 4, "IDAT", 4)) {
            p->packed = realloc(p->packed, p->packed_size + size);
            memcpy(p->packed + p->packed_size, data, size);
            p->packed_size += size;
        }
        free(data);
    }
    return p->channels && p->packed;
}

static int paeth(int a, int b, int c)
{
    int pa = abs(b - c), pb = abs(a - c), pc = abs(a + b - 2 * c);
    return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

/* Takes the filters of the lines back (PNG specification, section 9). */
static bool unpack(struct picture *p)
{
    p->line_size = 1 + (size_t)p->width * (size_t)p->channels;
    uLongf size = p->line_size * p->height;
    p->lines = calloc(size, 1);
    if (uncompress(p->lines, &size, p->packed, p->packed_size) != Z_OK || size != p->line_size * p->height)
        return false;
    size_t left = (size_t)p->channels;
    for (uint32_t y = 0; y < p->height; y++) {
        unsigned char *line = p->lines + y * p->line_size + 1, *above = y ? line - p->line_size : NULL;
        int filter = line[-1];
        for (size_t i = 0; i + 1 < p->line_size; i++) {
            int a = i >= left ? line[i - left] : 0, b = above ? above[i] : 0, c = above && i >= left ? above[i - left] : 0;
            int add = filter == 0 ? 0 : filter == 1 ? a : filter == 2 ? b : filter == 3 ? (a + b) / 2 : paeth(a, b, c);
            line[i] = (unsigned char)(line[i] + add);
        }
    }
    return true;
}

static const unsigned char *pixel(const struct picture *p, uint32_t x, uint32_t y)
{
    return p->lines + y * p->line_size + 1 + x * (size_t)p->channels;
}

static long count(const struct picture *p, unsigned colour)
{
    long found = 0;
    for (uint32_t y = 0; y < p->height; y++)
        for (uint32_t x = 0; x < p->width; x++) {
            const unsigned char *c = pixel(p, x, y);
            found += abs(c[0] - (int)(colour >> 16 & 255)) <= 6 && abs(c[1] - (int)(colour >> 8 & 255)) <= 6 && abs(c[2] - (int)(colour & 255)) <= 6;
        }
    return found;
}

static int count_different(const struct picture *p)
{
    static bool seen[4096];
    int different = 0;
    for (uint32_t y = 0; y < p->height; y++)
        for (uint32_t x = 0; x < p->width; x++) {
            const unsigned char *c = pixel(p, x, y);
            int at = (c[0] >> 4) << 8 | (c[1] >> 4) << 4 | c[2] >> 4;
            different += !seen[at];
            seen[at] = true;
        }
    return different;
}

int main(int argc, char **argv)
{
    struct picture p = {0};
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!file || !read_chunks(file, &p) || !unpack(&p)) {
        fprintf(stderr, "png_colours: '%s' is no picture that I can read\n", argc > 1 ? argv[1] : "");
        return 3;
    }
    fclose(file);
    printf("%d\n", count_different(&p));
    for (int i = 2; i < argc; i++)
        printf("%ld\n", count(&p, (unsigned)strtoul(argv[i], NULL, 16)));
    free(p.packed);
    free(p.lines);
    return 0;
}
