/* Charts and maps as inline SVG of an HTML page. Colours are classes (s0 to s7, grid, axis, mark) that the page's style
 * sheet sets for light and dark; all text is escaped so that the result is well-formed XML.
 * Must not know: runs, metrics, files. */
#ifndef LAUNCH_SVG_H
#define LAUNCH_SVG_H

#include <stdbool.h>
#include <stddef.h>

#include "common/text.h"

enum { SVG_COLOURS = 8, SVG_TICKS_MAX = 16 };

/* A curve. A y that is not finite is a gap; x rises. */
struct svg_series {
    const char *name;
    int colour; /* 0 .. SVG_COLOURS - 1; the same number gives the dashes, so that curves differ without colour, too */
    const double *x, *y;
    int count;
};

/* A named vertical line. */
struct svg_mark {
    double x;
    const char *name;
};

struct svg_chart {
    const char *title, *x_label;
    bool share; /* y from 0 to 1 */
    bool log;   /* y on a logarithmic axis where all values allow it and spread widely */
    const struct svg_series *series;
    int n_series;
    const struct svg_mark *marks;
    int n_marks;
};

/* Rows x columns of shares from 0 to 1; NaN is drawn empty. Row 0 is at the bottom. */
struct svg_map {
    const char *title, *row_name, *column_name;
    int rows, columns;
    const double *values; /* [rows][columns] */
};

/* Appends the text with markup characters escaped; bytes that are no UTF-8 or may not stand in XML become U+FFFD. */
void svg_put_text(struct text *out, const char *text, size_t size);
void svg_puts(struct text *out, const char *text);
/* A number as people read it: four digits at most, with an exponent where it would be long. */
const char *svg_number(char text[32], double value);

/* Round numbers (1, 2 or 5 times a power of ten apart) that cover low..high, about `wanted` of them and at most SVG_TICKS_MAX.
 * low <= high, both finite. Returns how many. */
int svg_ticks(double low, double high, int wanted, double ticks[SVG_TICKS_MAX]);
/* The same for a logarithmic axis, 0 < low <= high: 1, 2 and 5 times powers of ten, or powers alone where those are many. */
int svg_log_ticks(double low, double high, double ticks[SVG_TICKS_MAX]);

/* <figure> with title, legend (where there is more than one curve) and the chart. False, and nothing, where no curve has a value. */
bool svg_chart(struct text *out, const struct svg_chart *chart);
void svg_map(struct text *out, const struct svg_map *map);
/* The scale that maps are coloured by. */
void svg_map_scale(struct text *out);

#endif
