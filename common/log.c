#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum log_level threshold = LOG_INFO;
static int own_rank = -1;
static const char *const names[] = {"error", "warn", "info", "debug"};

void log_init(enum log_level level, int rank)
{
    threshold = level;
    own_rank = rank;
}

int log_level_parse(const char *name)
{
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, names[i]))
            return i;
    return -1;
}

void log_write(enum log_level level, const char *format, ...)
{
    if (level > threshold)
        return;
    char line[8192];
    int used = own_rank >= 0 ? snprintf(line, sizeof line, "[%d] ", own_rank) : 0;
    if (level != LOG_INFO)
        used += snprintf(line + used, sizeof line - (size_t)used, "%s: ", names[level]);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + used, sizeof line - (size_t)used - 1, format, args);
    va_end(args);
    if (more > 0)
        used += more;
    if ((size_t)used > sizeof line - 2)
        used = sizeof line - 2;
    line[used++] = '\n';
    /* One write per line, so lines of several ranks never mix. */
    ssize_t written = write(STDERR_FILENO, line, (size_t)used);
    (void)written;
}
