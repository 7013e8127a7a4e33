/* Status codes and the message a person reads.
 * Every function that can fail returns `enum status` and takes a `struct error *` last. The code is for
 * programs, the text is for people: what was attempted, where, what was found, what to do.
 * Must not know: logging, exits. Libraries return; only programs in launch/ print and leave. */
#ifndef COMMON_STATUS_H
#define COMMON_STATUS_H

enum status {
    STATUS_OK = 0,
    STATUS_USAGE,    /* wrong command line, option or configuration */
    STATUS_DATA,     /* a file or row is missing, damaged or does not fit */
    STATUS_NUMERIC,  /* NaN or infinity in a loss, gradient or parameter */
    STATUS_NOMEM,    /* an allocation failed */
    STATUS_IO,       /* the system refused to read or write */
    STATUS_TIMEOUT,  /* a deadline passed while waiting for another rank */
    STATUS_PEER,     /* another rank reported a failure, or broke the protocol */
    STATUS_INTERNAL, /* a promise inside this program was broken */
    STATUS_STOPPED,  /* asked to stop (SIGTERM, SIGINT); a snapshot was written */
};

enum { ERROR_TEXT_SIZE = 4096 };

struct error {
    enum status code;
    char text[ERROR_TEXT_SIZE];
};

/* Fills `err` (may be NULL) and returns `code`. */
enum status error_set(struct error *err, enum status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<prefix>: " in front of the text that is there and returns its code. */
enum status error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Short lower-case name of a code ("data", "numeric"). */
const char *status_name(enum status code);

/* Process exit status: 0 done, 75 stopped after a snapshot, 2 usage, 3 data or file, 4 numeric, 5 internal. */
int status_exit_code(enum status code);

/* Leaves the function with the status of `expr` if it is not STATUS_OK. Use where nothing is held. */
#define TRY(expr)                                \
    do {                                         \
        enum status try_status_ = (expr);        \
        if (try_status_ != STATUS_OK)            \
            return try_status_;                  \
    } while (0)

/* Stores the status in `var` and jumps to `label` on failure. Use where something must be released. */
#define TRY_OR(label, var, expr)   \
    do {                           \
        (var) = (expr);            \
        if ((var) != STATUS_OK)    \
            goto label;            \
    } while (0)

#define FAIL(err, code, ...) return error_set((err), (code), __VA_ARGS__)

#endif
