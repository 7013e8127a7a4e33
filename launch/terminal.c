#include "launch/terminal.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the terminal ---- */

enum { ANCESTORS = 4, COLUMNS_LEAST = 20, LABEL_MAX = 30, CONTINUED = 4 };

/* "comm" and the parent of a process; false where there is none to be seen. */
static bool look_at(int pid, char name[64], int *parent)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    size_t size = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[size] = '\0';
    char *open = strchr(line, '('), *close = strrchr(line, ')'); /* the name itself may hold either */
    if (!open || !close || close < open || sscanf(close + 1, " %*c %d", parent) != 1)
        return false;
    snprintf(name, 64, "%.*s", (int)(close - open - 1), open + 1);
    return true;
}

/* The terminal that an mpirun above us writes to; -1: there is no such process, or its output goes elsewhere. */
static int open_launcher_terminal(void)
{
    int pid = getppid(), parent = 0;
    char name[64];
    for (int i = 0; i < ANCESTORS && pid > 1 && look_at(pid, name, &parent); i++, pid = parent) {
        if (strncmp(name, "mpirun", 6) && strncmp(name, "mpiexec", 7))
            continue;
        char path[64], target[128];
        snprintf(path, sizeof path, "/proc/%d/fd/1", pid);
        ssize_t size = readlink(path, target, sizeof target - 1);
        if (size <= 0)
            return -1;
        target[size] = '\0';
        if (strncmp(target, "/dev/pts/", 9) && strncmp(target, "/dev/tty", 8))
            return -1;
        return open(target, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    }
    return -1;
}

static bool is_pipe(int fd)
{
    struct stat file;
    return !fstat(fd, &file) && (S_ISFIFO(file.st_mode) || S_ISSOCK(file.st_mode));
}

int terminal_columns(FILE *out)
{
    static int launcher = -2; /* -2: not looked for yet */
    struct winsize size;
    int fd = fileno(out);
    if (fd < 0 || (!isatty(fd) && !is_pipe(fd)))
        return 0;
    if (!isatty(fd)) {
        if (launcher == -2)
            launcher = open_launcher_terminal();
        fd = launcher;
    }
    if (fd < 0 || ioctl(fd, TIOCGWINSZ, &size))
        return 0;
    return !size.ws_col ? 80 : size.ws_col < COLUMNS_LEAST ? COLUMNS_LEAST : size.ws_col;
}

/* ---- widths ---- */

/* First and last character of blocks that are wide (Unicode's East Asian Width W and F, emoji) or join the one before. */
struct block {
    uint32_t first, last;
    int width;
};
static const struct block blocks[] = {
    {0x300, 0x36f, 0},     {0x483, 0x489, 0},     {0x591, 0x5bd, 0},     {0x610, 0x61a, 0},     {0x64b, 0x65f, 0},     {0x1100, 0x115f, 2},
    {0x1ab0, 0x1aff, 0},   {0x1dc0, 0x1dff, 0},   {0x200b, 0x200f, 0},   {0x20d0, 0x20ff, 0},   {0x231a, 0x231b, 2},   {0x2e80, 0x303e, 2},
    {0x3041, 0x33ff, 2},   {0x3400, 0x4dbf, 2},   {0x4e00, 0x9fff, 2},   {0xa000, 0xa4cf, 2},   {0xa960, 0xa97f, 2},   {0xac00, 0xd7a3, 2},
    {0xf900, 0xfaff, 2},   {0xfe00, 0xfe0f, 0},   {0xfe20, 0xfe2f, 0},   {0xfe30, 0xfe6f, 2},   {0xff00, 0xff60, 2},   {0xffe0, 0xffe6, 2},
    {0x1f300, 0x1f64f, 2}, {0x1f680, 0x1f6ff, 2}, {0x1f900, 0x1f9ff, 2}, {0x1fa70, 0x1faff, 2}, {0x20000, 0x3fffd, 2},
};

static int character_width(uint32_t c)
{
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (c >= blocks[i].first && c <= blocks[i].last)
            return blocks[i].width;
    return 1;
}

/* Bytes of the character at `text`; 1 where it is no whole one. */
static size_t character(const char *text, size_t size, int *width)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t bytes = c[0] < 0xc0 ? 1 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf8 ? 4 : 1;
    uint32_t value = bytes == 1 ? c[0] : c[0] & (0xffu >> (bytes + 1));
    for (size_t i = 1; i < bytes; i++) {
        if (i >= size || (c[i] & 0xc0) != 0x80) {
            *width = 1;
            return 1;
        }
        value = value << 6 | (c[i] & 0x3fu);
    }
    *width = character_width(value);
    return bytes;
}

int terminal_width(const char *text, size_t size)
{
    int sum = 0, width;
    for (size_t at = 0; at < size; sum += width)
        at += character(text + at, size - at, &width);
    return sum;
}

size_t terminal_fit(const char *text, size_t size, int columns)
{
    size_t at = 0;
    while (at < size) {
        int width;
        size_t bytes = character(text + at, size - at, &width);
        if (at && width > columns)
            break;
        columns -= width;
        at += bytes;
    }
    return at;
}

/* ---- lines ---- */

/* Where what follows is to begin: below the text behind a label ("  rows         parity: ..."), else a little to the right. */
static int indent_of(const char *line, size_t size, int columns)
{
    size_t lead = 0;
    while (lead < size && line[lead] == ' ')
        lead++;
    for (size_t at = lead + 1; lead && at + 2 < size && at < LABEL_MAX; at++)
        if (line[at] == ' ' && line[at + 1] == ' ') {
            while (at < size && line[at] == ' ')
                at++;
            return at < size && at < LABEL_MAX && (int)at <= columns / 3 ? (int)at : (int)lead + CONTINUED;
        }
    return (int)lead + CONTINUED <= columns / 2 ? (int)lead + CONTINUED : 0;
}

/* Bytes of the line that go before the break: up to the last blank that fits, rather not between a name and its number ("lr 2e-5");
 * else what fits of the word, or the whole of a path. */
static size_t break_of(const char *line, size_t size, int columns)
{
    size_t fits = terminal_fit(line, size, columns), lead = strspn(line, " "), last = 0;
    for (size_t at = fits; at > lead; at--) {
        if (line[at] != ' ')
            continue;
        last = last ? last : at;
        if (!(at + 1 < size && isdigit((unsigned char)line[at + 1]) && isalpha((unsigned char)line[at - 1])))
            return at;
    }
    if (last)
        return last;
    size_t word = fits;
    while (word < size && line[word] != ' ')
        word++;
    bool path = memchr(line, '/', word) && !memchr(line, '"', word); /* what is quoted is text */
    return path ? word : fits;
}

/* The line without its end, with `mark` before every break. */
static void wrap_line(struct text *out, const char *line, size_t size, int columns, int indent, const char *mark)
{
    int room = columns - (int)strlen(mark), used = 0;
    while (terminal_width(line, size) > columns - used) {
        size_t cut = break_of(line, size, room - used);
        if (cut >= size)
            break;
        text_append(out, line, cut);
        text_printf(out, "%s\n%*s", mark, indent, "");
        line += cut;
        size -= cut;
        while (size && *line == ' ') {
            line++;
            size--;
        }
        used = indent;
    }
    text_append(out, line, size);
}

void terminal_wrap(struct text *out, const char *lines, size_t size, int columns)
{
    for (size_t at = 0, length; at < size; at += length + 1) {
        const char *end = memchr(lines + at, '\n', size - at);
        length = end ? (size_t)(end - lines) - at : size - at;
        if (!columns || terminal_width(lines + at, length) <= columns)
            text_append(out, lines + at, length);
        else
            wrap_line(out, lines + at, length, columns, indent_of(lines + at, length, columns), "");
        if (end)
            text_puts(out, "\n");
    }
}

void terminal_wrap_command(struct text *out, const char *command, int columns)
{
    size_t size = strlen(command), lead = strspn(command, " ");
    if (!columns || terminal_width(command, size) <= columns)
        text_puts(out, command);
    else
        wrap_line(out, command, size, columns, (int)lead + CONTINUED, " \\");
}
