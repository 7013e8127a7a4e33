#include "launch/answers_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "launch/run.h"

struct writer {
    const char *path;
    FILE *file;
    struct text line;
    struct score *sum;
};

/* Without white space round the text, which says nothing. */
static void put_member(struct text *out, const char *key, const struct text *value)
{
    size_t begin = 0, end = value->size;
    while (begin < end && isspace((unsigned char)value->data[begin]))
        begin++;
    while (end > begin && isspace((unsigned char)value->data[end - 1]))
        end--;
    text_printf(out, "%s\"%s\": ", out->size ? ", " : "{", key);
    text_json_string(out, end > begin ? value->data + begin : "", end - begin);
}

void answers_file_line(const struct answered *a, struct text *out)
{
    const struct generated *g = &a->generated;
    struct text line = {0};
    put_member(&line, "prompt", &a->question);
    put_member(&line, "thought", &g->thought);
    put_member(&line, "answer", &g->answer);
    text_printf(&line, ", \"status\": \"%s\", \"tokens\": %d", generate_status_name(g->status), g->thought_tokens + g->answer_tokens);
    if (a->sequences > 1)
        text_printf(&line, ", \"sequence\": %lld", (long long)a->sequence);
    if (a->votes.samples > 1)
        text_printf(&line, ", \"votes\": %d, \"samples\": %d", votes_of_winner(&a->votes), a->votes.samples);
    if (a->has_expected) {
        put_member(&line, "expected", &a->expected);
        text_printf(&line, ", \"right\": %s, \"right_number\": %s", a->score.strict ? "true" : "false", a->score.flexible ? "true" : "false");
    }
    text_puts(&line, "}\n");
    if (!line.failed)
        text_append(out, line.data, line.size);
    out->failed = out->failed || line.failed;
    text_free(&line);
}

static enum status write_line(void *context, const struct answered *answered, struct error *err)
{
    struct writer *w = context;
    text_clear(&w->line);
    answers_file_line(answered, &w->line);
    if (w->line.failed)
        FAIL(err, STATUS_NOMEM, "no memory for an answer as JSON");
    score_add(w->sum, &answered->score);
    if (fwrite(w->line.data, 1, w->line.size, w->file) != w->line.size || fflush(w->file))
        FAIL(err, STATUS_IO, "cannot write to '%s': %s", w->path, strerror(errno));
    return STATUS_OK;
}

enum status answers_file_write(const struct request *r, const struct source *source, const struct generation *generation,
                               struct questions *questions, struct score *sum, struct error *err)
{
    bool standard = !strcmp(r->out, "-");
    struct writer w = {.path = standard ? "standard output" : r->out, .file = standard ? stdout : fopen(r->out, "we"), .sum = sum};
    if (!w.file)
        FAIL(err, STATUS_IO, "cannot write '%s': %s", r->out, strerror(errno));
    enum status st = answers_run(source, generation, questions, r->rows, run_threads(r->threads > 0 ? r->threads : 0, 1), write_line, &w, err);
    if (!standard && fclose(w.file) && st == STATUS_OK)
        st = error_set(err, STATUS_IO, "cannot write '%s': %s", r->out, strerror(errno));
    text_free(&w.line);
    return st;
}
