#include "common/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum log_level threshold = LOG_INFO;
static int own_rank = -1;
static pthread_mutex_t listening = PTHREAD_MUTEX_INITIALIZER;
static log_listener *listener;
static void *listener_context;
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

void log_listen(log_listener *who, void *context)
{
    pthread_mutex_lock(&listening);
    listener = who;
    listener_context = context;
    pthread_mutex_unlock(&listening);
}

static void tell_listener(enum log_level level, const char *text, size_t size)
{
    pthread_mutex_lock(&listening);
    if (listener)
        listener(listener_context, level, text, size);
    pthread_mutex_unlock(&listening);
}

void log_write(enum log_level level, const char *format, ...)
{
    if (level > threshold && level > LOG_WARN)
        return;
    char line[8192];
    int used = own_rank >= 0 ? snprintf(line, sizeof line, "[%d] ", own_rank) : 0;
    if (level != LOG_INFO)
        used += snprintf(line + used, sizeof line - (size_t)used, "%s: ", names[level]);
    size_t begin = (size_t)used;
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + used, sizeof line - (size_t)used - 1, format, args);
    va_end(args);
    if (more > 0)
        used += more;
    if ((size_t)used > sizeof line - 2)
        used = sizeof line - 2;
    line[used] = '\0';
    if (level <= LOG_WARN || level <= threshold)
        tell_listener(level, line + begin, (size_t)used - begin);
    if (level > threshold)
        return;
    line[used++] = '\n';
    /* One write per line, so lines of several ranks never mix. */
    ssize_t written = write(STDERR_FILENO, line, (size_t)used);
    (void)written;
}
