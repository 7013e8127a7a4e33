#include "proto/wait.h"

#include <stdio.h>

#include "common/log.h"
#include "common/timing.h"

enum { NOTICE_MS = 10000, WHO_SIZE = 512 };

void wait_begin(struct wait *wait, const char *what, int64_t limit_ms, wait_describe_fn *describe, void *context)
{
    int64_t now = time_ms();
    *wait = (struct wait){what, limit_ms, describe, context, now, now, now, now + NOTICE_MS};
}

void wait_heard(struct wait *wait)
{
    wait->heard_ms = time_ms();
}

static const char *who(const struct wait *wait, char text[WHO_SIZE])
{
    snprintf(text, WHO_SIZE, "%s", wait->what);
    if (wait->describe)
        wait->describe(wait->context, text, WHO_SIZE);
    return text;
}

enum status wait_check(struct wait *wait, struct error *err)
{
    char text[WHO_SIZE];
    int64_t now = time_ms();
    if (now - wait->looked_ms > TIME_ASLEEP_MS)
        wait->heard_ms += now - wait->looked_ms;
    wait->looked_ms = now;
    if (now - wait->heard_ms > wait->limit_ms)
        FAIL(err, STATUS_TIMEOUT, "no sign of life for %.1f s while waiting for %s from %s; if it was only slow, allow more time",
             (double)(now - wait->heard_ms) / 1e3, wait->what, who(wait, text));
    if (now >= wait->notice_ms) {
        log_info("waiting for %s since %.0f s: %s", wait->what, (double)(now - wait->began_ms) / 1e3, who(wait, text));
        wait->notice_ms = now + NOTICE_MS;
    }
    return STATUS_OK;
}
