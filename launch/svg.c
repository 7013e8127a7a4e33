#include "launch/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The drawing in units of the view box; the page scales it to the width there is. */
enum { WIDTH = 560, HEIGHT = 296, LEFT = 66, RIGHT = 16, TOP = 20, BOTTOM = 44 };
/* Curves with more points keep the lowest and highest of each piece; dots and labels under the pointer are fewer still. */
enum { PIECES = 300, DOTS_MAX = 40, LABELS_MAX = 60 };

/* ---- text ---- */

/* Bytes of the UTF-8 character at `text`, 0 where there is none that XML takes. */
static size_t character(const unsigned char *text, size_t size)
{
    unsigned c = text[0], value;
    size_t bytes = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (!bytes || bytes > size)
        return 0;
    if (bytes == 1)
        return c >= ' ' || c == '\t' || c == '\n' ? 1 : 0;
    value = c & (0xffu >> (bytes + 1));
    for (size_t i = 1; i < bytes; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (text[i] & 0x3fu);
    }
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    bool taken = value >= least[bytes] && !(value >= 0xd800 && value < 0xe000) && value <= 0x10ffff && (value & 0xfffe) != 0xfffe;
    return taken && value >= 0xa0 ? bytes : 0;
}

void svg_put_text(struct text *out, const char *text, size_t size)
{
    static const struct {
        char byte;
        const char *entity;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
    for (size_t at = 0, bytes; at < size; at += bytes ? bytes : 1) {
        const char *as = NULL;
        bytes = character((const unsigned char *)text + at, size - at);
        for (size_t i = 0; bytes == 1 && i < sizeof entities / sizeof *entities; i++)
            if (text[at] == entities[i].byte)
                as = entities[i].entity;
        if (!bytes)
            as = text[at] == '\r' ? "" : "\xef\xbf\xbd";
        if (as)
            text_puts(out, as);
        else
            text_append(out, text + at, bytes);
    }
}

void svg_puts(struct text *out, const char *text)
{
    svg_put_text(out, text, strlen(text));
}

/* "1.05e-4": three digits, and no zeros that say nothing. */
static void put_exponent(char text[32], double value)
{
    char printed[32];
    snprintf(printed, sizeof printed, "%.2e", value);
    char *e = strchr(printed, 'e');
    int size = (int)(e - printed), exponent = 0;
    sscanf(e + 1, "%d", &exponent);
    while (printed[size - 1] == '0')
        size--;
    size -= printed[size - 1] == '.';
    snprintf(text, 32, "%.*se%d", size, printed, exponent);
}

const char *svg_number(char text[32], double value)
{
    if (!isfinite(value))
        snprintf(text, 32, "%s", isnan(value) ? "-" : value > 0 ? "inf" : "-inf");
    else if (value == 0)
        snprintf(text, 32, "0");
    else if (fabs(value) >= 1000 && fabs(value) < 1e6)
        snprintf(text, 32, "%.0f", value);
    else if (fabs(value) >= 1e6 || fabs(value) < 1e-3)
        put_exponent(text, value);
    else
        snprintf(text, 32, "%.4g", value);
    return text;
}

/* ---- axes ---- */

int svg_ticks(double low, double high, int wanted, double ticks[SVG_TICKS_MAX])
{
    if (!(high > low)) {
        ticks[0] = low;
        return 1;
    }
    double rough = (high - low) / (wanted > 1 ? wanted : 2), power = pow(10, floor(log10(rough))), step = power;
    static const double factors[] = {1, 2, 5, 10};
    for (int i = 0; i < 4; i++)
        if ((step = factors[i] * power) >= rough)
            break;
    int count = 0;
    for (double k = ceil(low / step - 1e-9); count < SVG_TICKS_MAX && k * step <= high + 1e-9 * step; k++)
        ticks[count++] = k == 0 ? 0 : k * step;
    return count;
}

int svg_log_ticks(double low, double high, double ticks[SVG_TICKS_MAX])
{
    static const double fine[] = {1, 2, 5};
    double decades = log10(high / low);
    int factors = decades < 4 ? 3 : 1, every = decades < 14 ? 1 : (int)ceil(decades / 14), count = 0;
    for (double k = floor(log10(low)); k <= ceil(log10(high)); k += every)
        for (int i = 0; i < factors && count < SVG_TICKS_MAX; i++) {
            double tick = fine[i] * pow(10, k);
            if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9))
                ticks[count++] = tick;
        }
    return count;
}

/* What is drawn where. */
struct frame {
    double x_low, x_high, y_low, y_high; /* y of a logarithmic axis: as values */
    bool log;
};

static double place_x(const struct frame *f, double x)
{
    return LEFT + (WIDTH - LEFT - RIGHT) * (x - f->x_low) / (f->x_high - f->x_low);
}

static double place_y(const struct frame *f, double y)
{
    double share = f->log ? log(y / f->y_low) / log(f->y_high / f->y_low) : (y - f->y_low) / (f->y_high - f->y_low);
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share;
}

static bool measure(const struct svg_chart *c, struct frame *f)
{
    bool any = false;
    *f = (struct frame){.x_low = INFINITY, .x_high = -INFINITY, .y_low = INFINITY, .y_high = -INFINITY};
    for (int s = 0; s < c->n_series; s++)
        for (int i = 0; i < c->series[s].count; i++) {
            double x = c->series[s].x[i], y = c->series[s].y[i];
            if (!isfinite(x) || !isfinite(y))
                continue;
            any = true;
            f->x_low = fmin(f->x_low, x);
            f->x_high = fmax(f->x_high, x);
            f->y_low = fmin(f->y_low, y);
            f->y_high = fmax(f->y_high, y);
        }
    return any;
}

/* Room around the values; axes of shares are always the same, and those of what cannot be negative do not say otherwise. */
static bool frame_of(const struct svg_chart *c, struct frame *f)
{
    if (!measure(c, f))
        return false;
    if (!(f->x_high > f->x_low)) {
        f->x_low -= 1;
        f->x_high += 1;
    }
    f->log = c->log && f->y_low > 0 && f->y_high > 20 * f->y_low;
    if (c->share && f->y_low >= 0 && f->y_high <= 1) {
        f->y_low = 0;
        f->y_high = 1;
    } else if (f->log) {
        f->y_low /= 1.1;
        f->y_high *= 1.1;
    } else {
        double room = f->y_high > f->y_low ? 0.06 * (f->y_high - f->y_low) : f->y_high != 0 ? 0.1 * fabs(f->y_high) : 1;
        bool positive = f->y_low >= 0;
        f->y_low -= room;
        f->y_high += room;
        if (positive && f->y_low < 0.25 * f->y_high)
            f->y_low = 0;
    }
    return f->y_high > f->y_low && isfinite(f->y_high - f->y_low);
}

static void put_axes(struct text *out, const struct svg_chart *c, const struct frame *f)
{
    double ticks[SVG_TICKS_MAX];
    char number[32];
    int count = f->log ? svg_log_ticks(f->y_low, f->y_high, ticks) : svg_ticks(f->y_low, f->y_high, 5, ticks);
    for (int i = 0; i < count; i++) {
        double y = place_y(f, ticks[i]);
        text_printf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, WIDTH - RIGHT, y, y);
        text_printf(out, "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", LEFT - 7, y + 4.5,
                    svg_number(number, ticks[i]));
    }
    count = svg_ticks(f->x_low, f->x_high, f->x_high < 1e4 ? 6 : 4, ticks); /* long labels need more room */
    for (int i = 0; i < count; i++) {
        double x = place_x(f, ticks[i]);
        text_printf(out, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", x, x, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 4);
        bool last = x > WIDTH - 4 * RIGHT / 3; /* a label in the middle below it would leave the picture */
        text_printf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"%s\">%s</text>\n", last ? (double)WIDTH - 1 : x,
                    HEIGHT - BOTTOM + 18, last ? "end" : "middle", svg_number(number, ticks[i]));
    }
    text_printf(out, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT);
    text_printf(out, "<text class=\"label\" x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 7);
    svg_puts(out, c->x_label);
    text_puts(out, "</text>\n");
}

/* The last mark before the first value counts from there on. Names of marks stand above their lines, to the left of those far right; a name that would run into the one before it is left
 * out, and stands in the label of its line. */
static void put_marks(struct text *out, const struct svg_chart *c, const struct frame *f)
{
    double free_from = LEFT;
    for (int i = 0; i < c->n_marks; i++) {
        const struct svg_mark *m = &c->marks[i];
        bool before = m->x < f->x_low && !(i + 1 < c->n_marks && c->marks[i + 1].x <= f->x_low);
        if (!before && !(m->x >= f->x_low && m->x <= f->x_high))
            continue;
        double x = place_x(f, before ? f->x_low : m->x), room = 7.2 * (double)strlen(m->name) + 8;
        bool left = x + room > WIDTH - RIGHT;
        text_printf(out, "<g><title>");
        svg_puts(out, m->name);
        text_printf(out, "</title><line class=\"mark\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", x, x, TOP, HEIGHT - BOTTOM);
        if ((left ? x - room : x) >= free_from - 1) {
            text_printf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"%s\">", left ? x : x + 1, TOP - 6,
                        left ? "end" : "start");
            svg_puts(out, m->name);
            text_puts(out, "</text>");
            free_from = left ? x : x + room;
        }
        text_puts(out, "</g>\n");
    }
}

/* ---- curves ---- */

/* Moves to the point behind a gap, else draws a line to it. */
static void put_point(struct text *out, const struct frame *f, const struct svg_series *s, int i, bool *pen_down)
{
    if (!isfinite(s->y[i]) || !isfinite(s->x[i])) {
        *pen_down = false;
        return;
    }
    text_printf(out, "%s%.1f %.1f", *pen_down ? "L" : "M", place_x(f, s->x[i]), place_y(f, s->y[i]));
    *pen_down = true;
}

static void put_curve(struct text *out, const struct frame *f, const struct svg_series *s)
{
    int piece = s->count > 2 * PIECES ? (s->count + PIECES - 1) / PIECES : 1;
    bool pen_down = false;
    text_printf(out, "<path class=\"curve s%d\" d=\"", s->colour);
    for (int from = 0; from < s->count; from += piece) {
        int low = from, high = from, to = from + piece < s->count ? from + piece : s->count;
        bool gap = false;
        for (int i = from; i < to; i++) {
            gap |= !isfinite(s->y[i]);
            low = !(s->y[low] <= s->y[i]) ? i : low;
            high = !(s->y[high] >= s->y[i]) ? i : high;
        }
        if (gap && piece > 1)
            pen_down = false;
        put_point(out, f, s, low < high ? low : high, &pen_down);
        if (low != high)
            put_point(out, f, s, low < high ? high : low, &pen_down);
    }
    text_puts(out, "\"/>\n");
}

/* Dots where points are few, or stand alone between gaps; and what the pointer shows. */
static void put_dots(struct text *out, const struct frame *f, const struct svg_series *s)
{
    char x[32], y[32];
    int every = s->count > LABELS_MAX ? (s->count + LABELS_MAX - 1) / LABELS_MAX : 1;
    for (int i = 0; i < s->count; i++) {
        bool alone = (i == 0 || !isfinite(s->y[i - 1])) && (i + 1 == s->count || !isfinite(s->y[i + 1]));
        bool dot = s->count <= DOTS_MAX || alone;
        if (!isfinite(s->y[i]) || !isfinite(s->x[i]) || (!dot && i % every && i != s->count - 1))
            continue;
        text_printf(out, "<circle class=\"%s s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>", dot ? "dot" : "spot", s->colour,
                    place_x(f, s->x[i]), place_y(f, s->y[i]), dot ? "3.2" : "7");
        svg_puts(out, s->name);
        text_printf(out, " %s at %s</title></circle>\n", svg_number(y, s->y[i]), svg_number(x, s->x[i]));
    }
}

static bool has_value(const struct svg_series *s)
{
    for (int i = 0; i < s->count; i++)
        if (isfinite(s->y[i]))
            return true;
    return false;
}

/* The title alone says what a lonely curve of its name is. */
static void put_legend(struct text *out, const struct svg_chart *c)
{
    if (c->n_series == 1 && !strcmp(c->series[0].name, c->title))
        return;
    text_puts(out, "<ul class=\"legend\">");
    for (int i = 0; i < c->n_series; i++) {
        const struct svg_series *s = &c->series[i];
        if (!has_value(s))
            continue;
        text_printf(out, "<li><svg class=\"key\" viewBox=\"0 0 26 10\"><path class=\"curve s%d\" d=\"M1 5H25\"/></svg>", s->colour);
        svg_puts(out, s->name);
        text_puts(out, "</li>");
    }
    text_puts(out, "</ul>\n");
}

bool svg_chart(struct text *out, const struct svg_chart *c)
{
    struct frame f;
    if (!frame_of(c, &f))
        return false;
    text_puts(out, "<figure><figcaption>");
    svg_puts(out, c->title);
    text_puts(out, f.log ? " <small>(logarithmic)</small></figcaption>\n" : "</figcaption>\n");
    put_legend(out, c);
    text_printf(out, "<svg class=\"chart\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    svg_puts(out, c->title);
    text_puts(out, "\">\n");
    put_axes(out, c, &f);
    put_marks(out, c, &f);
    for (int i = 0; i < c->n_series; i++)
        put_curve(out, &f, &c->series[i]);
    for (int i = 0; i < c->n_series; i++)
        put_dots(out, &f, &c->series[i]);
    text_puts(out, "</svg></figure>\n");
    return true;
}

/* ---- maps ---- */

/* From dark blue over grey to yellow: its lightness rises all along, so it reads in grey and without red or green. */
static void put_colour(struct text *out, double share)
{
    static const double stops[][3] = {{0, 32, 81}, {60, 77, 110}, {127, 124, 117}, {187, 175, 113}, {253, 231, 37}};
    double at = 4 * fmin(fmax(share, 0), 1);
    int i = at >= 4 ? 3 : (int)at;
    text_puts(out, "#");
    for (int k = 0; k < 3; k++)
        text_printf(out, "%02x", (unsigned)lround(stops[i][k] + (at - i) * (stops[i + 1][k] - stops[i][k])));
}

static void put_cell(struct text *out, const struct svg_map *m, int row, int column, double x, double y, double w, double h)
{
    double value = m->values[(size_t)row * (size_t)m->columns + (size_t)column];
    bool number = isfinite(value);
    text_printf(out, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" ", x, y, w, h);
    if (number) {
        text_puts(out, "fill=\"");
        put_colour(out, value);
        text_puts(out, "\"");
    } else {
        text_puts(out, "class=\"empty\"");
    }
    text_printf(out, "><title>%s %d, %s %d: ", m->row_name, row, m->column_name, column);
    text_printf(out, number ? "%.2f" : "no rows", value);
    text_puts(out, "</title></rect>\n");
    if (number && w >= 34 && h >= 16)
        text_printf(out, "<text class=\"cell\" fill=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.2f</text>\n",
                    value < 0.5 ? "#fff" : "#000", x + w / 2, y + h / 2 + 4.5, value);
}

void svg_map(struct text *out, const struct svg_map *m)
{
    enum { SIDE = 46, LOW = 36 };
    double w = (double)(WIDTH - SIDE - 4) / m->columns, h = fmin(28, fmax(8, 420.0 / m->rows));
    double height = h * m->rows;
    int column_step = (m->columns + 15) / 16, row_step = (int)ceil(14 / h);
    text_puts(out, "<figure><figcaption>");
    svg_puts(out, m->title);
    text_printf(out, "</figcaption>\n<svg class=\"chart\" viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"", WIDTH, height + LOW + 4);
    svg_puts(out, m->title);
    text_puts(out, "\">\n");
    for (int r = 0; r < m->rows; r++)
        for (int c = 0; c < m->columns; c++)
            put_cell(out, m, r, c, SIDE + c * w, 2 + (m->rows - 1 - r) * h, w, h);
    for (int r = 0; r < m->rows; r += row_step)
        text_printf(out, "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%d</text>", SIDE - 5,
                    2 + (m->rows - 1 - r + 0.5) * h + 4.5, r);
    for (int c = 0; c < m->columns; c += column_step)
        text_printf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%d</text>", SIDE + (c + 0.5) * w, height + 17, c);
    text_printf(out, "\n<text class=\"label\" x=\"%d\" y=\"%.1f\" text-anchor=\"middle\">%s</text>", (SIDE + WIDTH) / 2, height + 35,
                m->column_name);
    text_printf(out, "<text class=\"label\" x=\"11\" y=\"%.1f\" text-anchor=\"middle\" transform=\"rotate(-90 11 %.1f)\">%s</text>\n",
                height / 2 + 2, height / 2 + 2, m->row_name);
    text_puts(out, "</svg></figure>\n");
}

void svg_map_scale(struct text *out)
{
    text_puts(out, "<p class=\"scale\">0 <svg viewBox=\"0 0 200 12\">");
    for (int i = 0; i < 40; i++) {
        text_printf(out, "<rect x=\"%d\" y=\"0\" width=\"5.2\" height=\"12\" fill=\"", 5 * i);
        put_colour(out, (i + 0.5) / 40);
        text_puts(out, "\"/>");
    }
    text_puts(out, "</svg> 1</p>\n");
}
