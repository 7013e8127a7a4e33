#include "launch/board.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/files.h"
#include "common/json.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/png.h"
#include "common/text.h"
#include "proto/event.h"

struct board {
    char *path;
    int fd;           /* -1: nothing can be written any more */
    off_t whole;      /* bytes of whole records */
    bool warned;      /* that something is missing */
    int64_t epoch_at; /* step of the newest train/epoch */
    int64_t sample_at; /* step of the last sample */
    int sample;        /* its number in that evaluation */
};

/* ---- writing ---- */

static void __attribute__((format(printf, 2, 3))) warn(struct board *b, const char *format, ...)
{
    char what[512];
    va_list args;
    if (b->warned)
        return;
    b->warned = true;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    log_warn("'%s' lacks something from here on: %s; the run goes on, and metrics.jsonl has all numbers", b->path, what);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A record that was cut off would hide all that follow it, so what there is of it is taken back. */
static void write_record(struct board *b, const struct text *record)
{
    if (b->fd < 0)
        return;
    ssize_t done = write(b->fd, record->data, record->size);
    if (done == (ssize_t)record->size) {
        b->whole += done;
        return;
    }
    warn(b, "cannot write to it: %s", done < 0 ? strerror(errno) : "the disk is full");
    if (done > 0 && ftruncate(b->fd, b->whole)) {
        close(b->fd);
        b->fd = -1;
    }
}

static void put(struct board *b, struct event event)
{
    struct text record = {0};
    event.wall_time = now();
    event_put(&event, &record);
    if (record.failed)
        warn(b, "no memory for a record");
    else
        write_record(b, &record);
    text_free(&record);
}

/* ---- the file ---- */

/* The name, or the last part of the path; nothing that would lead elsewhere. */
static void put_name(const char *output_dir, const char *name, struct text *out)
{
    char room[PATH_MAX];
    const char *real = *name ? NULL : realpath(output_dir, room), *slash = real ? strrchr(real, '/') : NULL;
    const char *from = *name ? name : slash && slash[1] ? slash + 1 : "run";
    if (!strcmp(from, ".") || !strcmp(from, ".."))
        from = "run";
    for (; *from; from++)
        text_append(out, *from == '/' ? "_" : from, 1);
}

/* Seconds in the name of a file, 0 if it is no event file of ours. */
static long long seconds_of(const char *name)
{
    long long seconds;
    return sscanf(name, "events.out.tfevents.%lld.", &seconds) == 1 ? seconds : 0;
}

/* Readers take files in the order of their names: later than all that are there, whatever the clock of this node says. */
static long long next_seconds(const char *folder)
{
    long long newest = (long long)now() - 1;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (seconds_of(entry->d_name) > newest)
            newest = seconds_of(entry->d_name);
    if (dir)
        closedir(dir);
    return newest + 1;
}

void board_put_folder(const char *output_dir, const char *name, struct text *out)
{
    text_printf(out, "%s/runs/", output_dir);
    put_name(output_dir, name, out);
}

static enum status open_file(struct board *b, const char *folder, struct error *err)
{
    struct text path = {0};
    char host[256] = "localhost";
    if (gethostname(host, sizeof host - 1))
        snprintf(host, sizeof host, "localhost");
    enum status st = folder_make(folder, err);
    if (st == STATUS_OK) {
        text_printf(&path, "%s/events.out.tfevents.%lld.%s.%ld", folder, next_seconds(folder), host, (long)getpid());
        b->path = path.failed ? NULL : mem_strdup(path.data);
        if (!b->path)
            st = error_set(err, STATUS_NOMEM, "no memory for a path");
    }
    if (st == STATUS_OK && (b->fd = open(b->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666)) < 0)
        st = error_set(err, STATUS_IO, "cannot create '%s': %s", b->path, strerror(errno));
    text_free(&path);
    return st;
}

enum status board_create(const char *folder, int64_t first_step, struct board **out, struct error *err)
{
    struct board *b = mem_alloc(1, sizeof *b);
    if (!b)
        FAIL(err, STATUS_NOMEM, "no memory for an event file");
    *b = (struct board){.fd = -1, .epoch_at = -1, .sample_at = -1};
    enum status st = open_file(b, folder, err);
    if (st != STATUS_OK) {
        board_free(b);
        return st;
    }
    put(b, (struct event){.kind = EVENT_FILE_VERSION});
    put(b, (struct event){.kind = EVENT_START, .step = first_step ? first_step + 1 : 0});
    *out = b;
    return STATUS_OK;
}

void board_free(struct board *b)
{
    if (!b)
        return;
    if (b->fd >= 0 && close(b->fd))
        warn(b, "cannot close it: %s", strerror(errno));
    mem_free(b->path);
    mem_free(b);
}

const char *board_path(const struct board *b)
{
    return b->path;
}

/* ---- scalars ---- */

/* As the Trainer: eval_x is eval/x, everything else belongs to training; what an evaluation says besides its losses is
 * its own. `place`: of a number in a list, from 1; 0: none. */
static void put_tag(const char *key, bool evaluation, int place, struct text *out)
{
    bool prefixed = !strncmp(key, "eval_", 5);
    const char *rest = !strcmp(key, "eval_runtime_s") ? "runtime" : prefixed ? key + 5 : key;
    text_printf(out, "%s/%s", prefixed || (evaluation && strcmp(key, "epoch")) ? "eval" : "train", rest);
    if (place)
        text_printf(out, "/%d", place);
}

static bool is_number(const struct json *value)
{
    return json_kind(value) == JSON_KIND_INT || json_kind(value) == JSON_KIND_REAL;
}

/* JSON has no NaN. There is always something to take these three of, so null says that they are not finite; elsewhere
 * it says that there was nothing to take a mean of. */
static bool is_nan(const char *key, const struct json *value)
{
    return json_kind(value) == JSON_KIND_NULL && (!strcmp(key, "loss") || !strcmp(key, "eval_loss") || !strcmp(key, "grad_norm"));
}

static void put_scalar(struct board *b, const char *key, bool evaluation, int place, int64_t step, double value)
{
    struct text tag = {0};
    put_tag(key, evaluation, place, &tag);
    if (tag.failed)
        warn(b, "no memory for a record");
    else
        put(b, (struct event){.kind = EVENT_SCALAR, .step = step, .tag = tag.data, .scalar = value});
    text_free(&tag);
}

static void put_scalars(struct board *b, const struct json *line, int64_t step)
{
    bool evaluation = json_member(line, "eval_loss");
    for (const void *it = json_first(line); it; it = json_next(line, it)) {
        const char *key = json_it_key(it, NULL);
        const struct json *value = json_it_value(it);
        if (!strcmp(key, "step") || !strcmp(key, "total_steps"))
            continue;
        if (!strcmp(key, "epoch")) {
            if (b->epoch_at == step) /* an evaluation behind the line of its step */
                continue;
            b->epoch_at = step;
        }
        if (is_number(value) || is_nan(key, value))
            put_scalar(b, key, evaluation, 0, step, is_number(value) ? json_to_real(value) : NAN);
        for (size_t i = 0; json_kind(value) == JSON_KIND_ARRAY && i < json_count(value); i++)
            if (is_number(json_at(value, i)))
                put_scalar(b, key, evaluation, (int)i + 1, step, json_to_real(json_at(value, i)));
    }
}

/* ---- pictures ---- */

enum { PICTURE_SIDE = 960, CELL_MAX = 24 };

/* From nearly white (0) over blue to nearly black (1), as `loar plot routing` paints. */
static void colour_of(double share, unsigned char out[3])
{
    static const unsigned char stops[3][3] = {{0xf7, 0xfb, 0xff}, {0x6b, 0xae, 0xd6}, {0x08, 0x30, 0x6b}};
    double at = 2 * fmin(fmax(share, 0), 1);
    int low = at < 1 ? 0 : 1;
    for (int c = 0; c < 3; c++)
        out[c] = (unsigned char)lround(stops[low][c] + (at - low) * (stops[low + 1][c] - stops[low][c]));
}

/* Cells of `cell` pixels with a grey line between them where there is room for one. */
static void paint(const struct json *map, int layers, int heads, int cell, unsigned char *rgb)
{
    size_t width = (size_t)heads * (size_t)cell;
    for (size_t y = 0; y < (size_t)layers * (size_t)cell; y++)
        for (size_t x = 0; x < width; x++) {
            unsigned char *pixel = rgb + 3 * (y * width + x);
            size_t layer = y / (size_t)cell, head = x / (size_t)cell;
            if (cell > 4 && (x % (size_t)cell == (size_t)cell - 1 || y % (size_t)cell == (size_t)cell - 1))
                memset(pixel, 0xcc, 3);
            else
                colour_of(json_to_real(json_at(json_at(map, layer), head)), pixel);
        }
}

static bool is_map(const struct json *map, size_t layers, size_t heads)
{
    for (size_t l = 0; l < layers; l++) {
        if (json_count(json_at(map, l)) != heads)
            return false;
        for (size_t h = 0; h < heads; h++)
            if (!is_number(json_at(json_at(map, l), h)))
                return false;
    }
    return layers && heads && layers <= PICTURE_SIDE && heads <= PICTURE_SIDE;
}

/* Layer 0 on top, head 0 on the left. */
static enum status put_map(struct board *b, const char *tag, int64_t step, const struct json *map, struct error *err)
{
    size_t layers = json_count(map), heads = json_count(json_at(map, 0));
    if (!is_map(map, layers, heads))
        FAIL(err, STATUS_DATA, "'%s' at step %lld is no map of layers by heads, at most %d of each", tag, (long long)step,
             PICTURE_SIDE);
    int cell = PICTURE_SIDE / (int)(layers > heads ? layers : heads);
    cell = cell < CELL_MAX ? cell : CELL_MAX;
    int width = (int)heads * cell, height = (int)layers * cell;
    unsigned char *rgb = mem_alloc((size_t)width * (size_t)height, 3);
    struct text png = {0};
    if (!rgb)
        FAIL(err, STATUS_NOMEM, "no memory for a picture");
    paint(map, (int)layers, (int)heads, cell, rgb);
    enum status st = png_put(width, height, rgb, &png, err);
    if (st == STATUS_OK)
        put(b, (struct event){.kind = EVENT_IMAGE, .step = step, .tag = tag, .bytes = png.data, .size = png.size,
                              .width = width, .height = height});
    mem_free(rgb);
    text_free(&png);
    return st;
}

static void put_routing(struct board *b, const struct json *line, const char *kind, int64_t step)
{
    const struct json *tasks = json_member(line, "tasks"), *active = json_member(line, "active");
    for (size_t t = 0; t < json_count(tasks); t++) {
        const char *name = json_to_string(json_at(tasks, t), NULL);
        struct text tag = {0};
        struct error err;
        if (json_kind(json_at(active, t)) == JSON_KIND_NULL) /* no rows of that task */
            continue;
        text_printf(&tag, "routing/%s/%s", kind, name && *name ? name : "all");
        if (tag.failed)
            warn(b, "no memory for a record");
        else if (put_map(b, tag.data, step, json_at(active, t), &err) != STATUS_OK)
            warn(b, "%s", err.text);
        text_free(&tag);
    }
}

/* TensorBoard reads Markdown: four blanks keep a line as it is. */
void board_text(struct board *b, const char *tag, int64_t step, const char *text, size_t size)
{
    struct text shown = {0};
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - text) - at : size - at;
        text_puts(&shown, "    ");
        text_append(&shown, text + at, length);
        text_puts(&shown, "\n");
        at += length + 1;
    }
    if (shown.failed)
        warn(b, "no memory for a record");
    else
        put(b, (struct event){.kind = EVENT_TEXT, .step = step, .tag = tag, .bytes = shown.data, .size = shown.size});
    text_free(&shown);
}

/* An answer of the model: question, thought, answer and what was expected, apart. Samples of one evaluation are numbered. */
static void put_sample(struct board *b, const struct json *sample, int64_t step)
{
    static const char *const parts[] = {"prompt", "thought", "answer", "expected"};
    struct text tag = {0}, text = {0};
    const char *set = json_to_string(json_member(sample, "set"), NULL);
    b->sample = b->sample_at == step ? b->sample + 1 : 1;
    b->sample_at = step;
    text_printf(&tag, "samples/%s/%d", set ? set : "", b->sample);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t size = 0;
        const char *part = json_to_string(json_member(sample, parts[i]), &size);
        text_printf(&text, "%s: ", parts[i]);
        text_append(&text, part ? part : "", size);
        text_puts(&text, "\n");
    }
    if (tag.failed || text.failed)
        warn(b, "no memory for a record");
    else
        board_text(b, tag.data, step, text.data, text.size);
    text_free(&tag);
    text_free(&text);
}

void board_line(struct board *b, const char *line, size_t size)
{
    struct json *json;
    struct error err;
    if (json_parse(line, size, "a line of metrics", &json, &err) != STATUS_OK) {
        warn(b, "%s", err.text);
        return;
    }
    const char *kind = json_to_string(json_member(json, "routing"), NULL);
    int64_t step = json_to_int(json_member(json, "step"));
    const struct json *sample = json_member(json, "sample");
    if (kind)
        put_routing(b, json, kind, step);
    else if (sample)
        put_sample(b, sample, step);
    else if (json_member(json, "epoch"))
        put_scalars(b, json, step);
    json_free(json);
}
