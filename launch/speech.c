#include "launch/speech.h"

#include <ctype.h>

#define DIM "\033[2m"
#define NORMAL "\033[0m"
#define UNKNOWN "\xEF\xBF\xBD" /* U+FFFD */

void speech_free(struct speech *speech)
{
    text_free(&speech->blanks);
}

void speech_begin(struct speech *speech)
{
    speech->telling = SPAN_PROMPT;
    text_clear(&speech->blanks);
}

static void start_part(struct speech *s, enum span span)
{
    const char *line = s->telling == SPAN_PROMPT ? "" : "\n";
    if (s->terminal)
        fprintf(s->out, "%s%s", span == SPAN_THOUGHT ? line : s->telling == SPAN_THOUGHT ? NORMAL "\n" : line,
                span == SPAN_THOUGHT ? DIM : "");
    else
        fprintf(s->out, "%s%s: ", line, span == SPAN_THOUGHT ? "thought" : "answer");
    s->telling = span;
}

static void put(struct speech *s, char c)
{
    unsigned char byte = (unsigned char)c;
    if (s->terminal && (byte == 127 || (byte < ' ' && c != '\n' && c != '\t')))
        fputs(UNKNOWN, s->out);
    else
        putc(c, s->out);
}

void speech_tell(void *context, enum span span, const char *bytes, size_t size)
{
    struct speech *s = context;
    if (s->telling != span)
        text_clear(&s->blanks);
    for (size_t i = 0; i < size; i++) {
        bool blank = isspace((unsigned char)bytes[i]);
        if (blank && s->telling == span)
            text_append(&s->blanks, &bytes[i], 1);
        if (blank)
            continue;
        if (s->telling != span)
            start_part(s, span);
        for (size_t b = 0; b < s->blanks.size; b++)
            put(s, s->blanks.data[b]);
        text_clear(&s->blanks);
        put(s, bytes[i]);
    }
    fflush(s->out);
}

void speech_end(struct speech *s, const char *note)
{
    if (s->terminal && s->telling == SPAN_THOUGHT)
        fputs(NORMAL, s->out);
    if (s->telling != SPAN_PROMPT)
        putc('\n', s->out);
    if (note)
        fprintf(s->out, "(%s)\n", note);
    fflush(s->out);
}
