#include "common/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum status error_set(struct error *err, enum status code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        err->code = code;
    }
    return code;
}

enum status error_prefix(struct error *err, const char *format, ...)
{
    if (!err)
        return STATUS_INTERNAL;
    char prefix[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    size_t size = strlen(prefix), old = strlen(err->text);
    size_t room = sizeof err->text - size - sizeof ": ";
    if (old > room)
        old = room;
    memmove(err->text + size + 2, err->text, old);
    memcpy(err->text, prefix, size);
    memcpy(err->text + size, ": ", 2);
    err->text[size + 2 + old] = '\0';
    return err->code;
}

/* One row per code: name and exit status. */
static const struct {
    const char *name;
    int exit_code;
} rows[] = {
    [STATUS_OK] = {"ok", 0},          [STATUS_USAGE] = {"usage", 2},
    [STATUS_DATA] = {"data", 3},      [STATUS_NUMERIC] = {"numeric", 4},
    [STATUS_NOMEM] = {"memory", 5},   [STATUS_IO] = {"io", 3},
    [STATUS_TIMEOUT] = {"timeout", 5}, [STATUS_PEER] = {"peer", 5},
    [STATUS_INTERNAL] = {"internal", 5}, [STATUS_STOPPED] = {"stopped", 75},
};

const char *status_name(enum status code)
{
    return (unsigned)code < sizeof rows / sizeof rows[0] ? rows[code].name : "unknown";
}

int status_exit_code(enum status code)
{
    return (unsigned)code < sizeof rows / sizeof rows[0] ? rows[code].exit_code : 5;
}
