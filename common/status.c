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
    char old[ERROR_TEXT_SIZE];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    int used = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof err->text)
        snprintf(err->text + used, sizeof err->text - (size_t)used, ": %s", old);
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
