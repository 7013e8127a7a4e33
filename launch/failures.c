#include "launch/failures.h"

#include <string.h>

enum status failures_take(struct failures *failures, enum status st, const struct error *err)
{
    failures->tried++;
    if (st != STATUS_DATA)
        return st;
    failures->count++;
    text_append(&failures->texts, err->text, strlen(err->text) + 1);
    return STATUS_OK;
}

/* The text, or as many of its lines as there is room for. */
static void put_within(struct text *out, const char *text, size_t room)
{
    size_t size = strlen(text);
    if (size <= room) {
        text_append(out, text, size);
        return;
    }
    for (size = room; size && text[size] != '\n'; size--)
        ;
    text_append(out, text, size ? size : room);
    text_puts(out, size ? "\n  ..." : " ...");
}

enum status failures_verdict(const struct failures *failures, const char *noun, struct error *err)
{
    enum { HEAD = 100, TAIL = 8 };
    if (!failures->count)
        return STATUS_OK;
    if (failures->texts.failed)
        FAIL(err, STATUS_NOMEM, "no memory to list what is wrong with %d %ss", failures->count, noun);
    if (failures->count == 1)
        FAIL(err, STATUS_DATA, "%s", failures->texts.data);
    struct text all = {0};
    size_t room = (ERROR_TEXT_SIZE - HEAD) / (size_t)failures->count - TAIL;
    text_printf(&all, "%d of %d %ss cannot be used", failures->count, failures->tried, noun);
    const char *text = failures->texts.data;
    for (int i = 0; i < failures->count; i++, text += strlen(text) + 1) {
        text_puts(&all, "\n");
        put_within(&all, text, room);
    }
    enum status st = all.failed ? error_set(err, STATUS_NOMEM, "no memory to list what is wrong with %d %ss", failures->count, noun)
                                : error_set(err, STATUS_DATA, "%s", all.data);
    text_free(&all);
    return st;
}

void failures_free(struct failures *failures)
{
    text_free(&failures->texts);
    *failures = (struct failures){0};
}
