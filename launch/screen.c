#include "launch/screen.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/timing.h"
#include "launch/progress.h"
#include "launch/terminal.h"

enum { PROGRESS_MS = 100 };

static const char back_and_clear[] = "\r\033[K";

void screen_open(struct screen *screen, FILE *out)
{
    *screen = (struct screen){.out = out};
    pthread_mutex_init(&screen->lock, NULL);
}

void screen_close(struct screen *screen)
{
    screen_clear(screen);
    pthread_mutex_destroy(&screen->lock);
}

void screen_clear(struct screen *screen)
{
    pthread_mutex_lock(&screen->lock);
    if (screen->shown) {
        fputs(back_and_clear, screen->out);
        fflush(screen->out);
    }
    screen->shown = false;
    pthread_mutex_unlock(&screen->lock);
}

/* A text that memory did not suffice for is lost. */
static void put(struct screen *screen, const struct text *text)
{
    screen_clear(screen);
    if (!text->failed && text->size)
        fputs(text->data, screen->out);
    fflush(screen->out);
}

void screen_text(struct screen *screen, const struct text *lines)
{
    struct text wrapped = {0};
    int columns = terminal_columns(screen->out);
    if (!columns || lines->failed || !lines->size) {
        put(screen, lines);
        return;
    }
    terminal_wrap(&wrapped, lines->data, lines->size, columns);
    put(screen, &wrapped);
    text_free(&wrapped);
}

void screen_printf(struct screen *screen, const char *format, ...)
{
    struct text text = {0};
    va_list args;
    va_start(args, format);
    text_vprintf(&text, format, args);
    va_end(args);
    screen_text(screen, &text);
    text_free(&text);
}

void screen_command(struct screen *screen, const char *format, ...)
{
    struct text command = {0}, lines = {0};
    va_list args;
    va_start(args, format);
    text_vprintf(&command, format, args);
    va_end(args);
    if (!command.failed)
        terminal_wrap_command(&lines, command.data, terminal_columns(screen->out));
    text_puts(&lines, "\n");
    if (!command.failed)
        put(screen, &lines);
    text_free(&command);
    text_free(&lines);
}

void screen_allow_progress(struct screen *screen, bool allowed)
{
    const char *kind = getenv("TERM");
    screen->progress = allowed && kind && *kind && strcmp(kind, "dumb");
}

void screen_progress(struct screen *screen, const struct progress_facts *facts)
{
    struct text line = {0};
    if (!screen->progress || (screen->drawn_ms && time_ms() - screen->drawn_ms < PROGRESS_MS))
        return;
    int columns = terminal_columns(screen->out);
    screen->drawn_ms = time_ms();
    if (!columns)
        return;
    progress_put(&line, facts, columns - 1); /* in the last column some terminals go on to the next line */
    pthread_mutex_lock(&screen->lock);
    if (!line.failed) {
        fprintf(screen->out, "%s%s", back_and_clear, line.data);
        fflush(screen->out);
        screen->shown = true;
    }
    pthread_mutex_unlock(&screen->lock);
    text_free(&line);
}
