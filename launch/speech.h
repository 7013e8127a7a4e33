/* What a model says, printed as it comes, the thought apart from the answer: dimmed on a terminal, else behind headings.
 * Must not know: models, questions. */
#ifndef LAUNCH_SPEECH_H
#define LAUNCH_SPEECH_H

#include <stdbool.h>
#include <stdio.h>

#include "common/text.h"
#include "worker/data/batch.h"

struct speech {
    FILE *out;
    bool terminal; /* dim thoughts, and let no control character of the model's through */
    enum span telling;  /* part that is being printed; SPAN_PROMPT: none yet */
    struct text blanks; /* white space that is printed only if more of the part follows */
};
void speech_free(struct speech *speech);
void speech_begin(struct speech *speech);
/* A generate_text_fn; context: struct speech. White space round a part is left out. */
void speech_tell(void *context, enum span span, const char *bytes, size_t size);
/* Ends the line, and adds a note in brackets unless it is NULL. */
void speech_end(struct speech *speech, const char *note);

#endif
