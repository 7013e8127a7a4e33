/* Log lines on stderr for programs: level, rank, text with key=value pairs.
 * Libraries do not log; they return errors. Long-lived parts (server, training loop) may. */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stddef.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* rank < 0: no rank prefix. Call once at start. */
void log_init(enum log_level level, int rank);
/* "error", "warn", "info", "debug" -> level; -1 if unknown. */
int log_level_parse(const char *name);
/* Gets every line that is about to be written from here on, and warnings and errors whatever the level, without prefix and line end and with a NUL behind it; NULL: nobody does. One call at a
 * time, from any thread; it must not log. */
typedef void log_listener(void *context, enum log_level level, const char *text, size_t size);
void log_listen(log_listener *listener, void *context);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

#endif
