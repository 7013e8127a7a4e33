/* Where a program prints for a person: whole lines, broken where a terminal is narrower, and below them a progress line that is drawn
 * in place and goes away before anything else is printed. Where there is no terminal, lines stay whole and progress is silent.
 * Must not know: what is printed. */
#ifndef LAUNCH_SCREEN_H
#define LAUNCH_SCREEN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/text.h"

struct progress_facts;

struct screen {
    FILE *out;
    bool progress;   /* allowed where there is a terminal */
    int64_t drawn_ms;
    bool shown; /* the progress line stands there; guarded by lock */
    pthread_mutex_t lock;
};

void screen_open(struct screen *screen, FILE *out);
void screen_close(struct screen *screen);
/* Nothing where `lines` failed. */
void screen_text(struct screen *screen, const struct text *lines);
void screen_printf(struct screen *screen, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A command of a shell, on lines that can be copied, and a line end. */
void screen_command(struct screen *screen, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Not allowed until this is called with true; never on a terminal that cannot take a line back. */
void screen_allow_progress(struct screen *screen, bool allowed);
/* Draws it, at most ten times a second. */
void screen_progress(struct screen *screen, const struct progress_facts *facts);
/* Takes the progress line away; any thread may call it, such as one that is about to write to standard error. */
void screen_clear(struct screen *screen);

#endif
