/* Pixels as a PNG file. png.c is the only includer of zlib.h.
 * Must not know: what a picture shows, where it goes. */
#ifndef COMMON_PNG_H
#define COMMON_PNG_H

#include "common/status.h"
#include "common/text.h"

/* Appends the file of rgb[height][width][3], rows from the top. STATUS_USAGE where it is empty or too large, STATUS_NOMEM. */
enum status png_put(int width, int height, const unsigned char *rgb, struct text *out, struct error *err);

#endif
