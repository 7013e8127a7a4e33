/* cmocka with the headers it wants in front. Tests run in the project's root; public data lies in ../shared/data. */
#ifndef TESTS_SUPPORT_CMOCKA_ALL_H
#define TESTS_SUPPORT_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/status.h"

/* Fails the test with the message a user would have seen. */
#define assert_ok(expr, err)                                                                 \
    do {                                                                                     \
        if ((expr) != STATUS_OK) {                                                           \
            print_error("%s: %s\n", #expr, (err)->text);                                     \
            fail();                                                                          \
        }                                                                                    \
    } while (0)

/* The call must fail with `code` and a message that holds `part`. */
#define assert_refused(expr, wanted_code, err, part)                                         \
    do {                                                                                     \
        (err)->text[0] = '\0';                                                               \
        assert_int_equal((expr), (wanted_code));                                             \
        if (!strstr((err)->text, (part))) {                                                  \
            print_error("message '%s' lacks '%s'\n", (err)->text, (part));                   \
            fail();                                                                          \
        }                                                                                    \
    } while (0)

/* Path of public test data, or NULL (with a line that says so) where it is absent. */
static inline const char *shared_data(const char *relative)
{
    static char path[1024];
    snprintf(path, sizeof path, "../shared/data/%s", relative);
    FILE *probe = fopen(path, "r");
    if (!probe) {
        print_message("skipped: '%s' is not here\n", path);
        return NULL;
    }
    fclose(probe);
    return path;
}

#endif
