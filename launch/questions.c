#include "launch/questions.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "launch/request.h"
#include "worker/data/template.h"

enum status questions_open(const struct request *r, const struct chat_template *t, struct questions *out, struct error *err)
{
    *out = (struct questions){.path = r->file ? r->file : r->lines, .options = {.columns = r->columns},
                              .times = request_sequences(r)};
    out->time = out->times - 1;
    out->options.thought_open = t ? template_thought_open(t) : NULL;
    out->options.thought_close = t ? template_thought_tag(t) : NULL;
    if (r->lines) {
        bool standard = !strcmp(r->lines, "-");
        out->path = standard ? "standard input" : r->lines;
        out->lines = standard ? stdin : fopen(r->lines, "re");
        if (!out->lines)
            FAIL(err, STATUS_DATA, "cannot open '%s': %s", r->lines, strerror(errno));
        return STATUS_OK;
    }
    if (r->format && strcmp(r->format, "auto")) {
        TRY(row_format_find(r->format, &out->format, err));
        TRY(row_format_check(out->format, &r->columns, err));
    }
    return records_open(r->file, &r->table, &out->records, err);
}

void questions_close(struct questions *q)
{
    if (!q->lines)
        records_close(&q->records);
    else if (q->lines != stdin)
        fclose(q->lines);
    text_free(&q->line);
    json_free(q->row);
    arena_free(&q->arena);
    *q = (struct questions){0};
}

/* The next line that is not blank, without white space at its end; *found is false where there is none. */
static enum status read_line(struct questions *q, bool *found, struct error *err)
{
    int c = 0;
    *found = false;
    while (!*found && c != EOF) {
        text_clear(&q->line);
        while ((c = getc(q->lines)) != EOF && c != '\n') {
            text_append(&q->line, &(char){(char)c}, 1);
            *found = *found || !isspace(c);
        }
    }
    if (ferror(q->lines))
        FAIL(err, STATUS_IO, "cannot read '%s': %s", q->path, strerror(errno));
    if (q->line.failed)
        FAIL(err, STATUS_NOMEM, "no memory for a line of '%s'", q->path);
    while (q->line.size && isspace((unsigned char)q->line.data[q->line.size - 1]))
        q->line.size--;
    return STATUS_OK;
}

static enum status next_line(struct questions *q, struct question *out, bool *found, struct error *err)
{
    TRY(read_line(q, found, err));
    q->message = (struct message){.role = ROLE_USER, .content = q->line.data, .content_size = q->line.size};
    out->conversation = (struct conversation){.messages = &q->message, .count = 1, .weight = 1};
    return STATUS_OK;
}

static enum status next_row(struct questions *q, struct question *out, bool *found, struct error *err)
{
    struct jsonl_record record;
    struct conversation *c = &out->conversation;
    TRY(records_next(&q->records, &record, found, err));
    if (!*found)
        return STATUS_OK;
    json_free(q->row);
    q->row = NULL;
    TRY(records_parse(&q->records, &record, &q->row, err));
    if (!q->format)
        TRY(row_format_detect(q->row, q->path, record.line, &q->options, &q->format, err));
    TRY(row_read(q->format, q->row, q->path, record.line, &q->options, &q->arena, c, err));
    if (c->plain)
        FAIL(err, STATUS_DATA, "%s:%lld: a row of plain text asks nothing; give the text with --prompt --raw", q->path,
             (long long)record.line);
    return STATUS_OK;
}

enum status questions_next(struct questions *q, const char *cot_prompt, struct question *out, bool *found, struct error *err)
{
    struct conversation *c = &out->conversation;
    *found = ++q->time < q->times;
    if (*found) {
        *out = q->last;
        return STATUS_OK;
    }
    arena_reset(&q->arena);
    TRY(q->lines ? next_line(q, out, found, err) : next_row(q, out, found, err));
    if (!*found)
        return STATUS_OK;
    bool answered = c->messages[c->count - 1].role == ROLE_ASSISTANT;
    out->expected = answered ? &c->messages[c->count - 1] : NULL;
    out->asked = &c->messages[answered && c->count > 1 ? c->count - 2 : c->count - 1];
    TRY(conversation_dress(c, cot_prompt, NULL, &q->arena, err));
    q->last = *out;
    q->time = 0;
    return STATUS_OK;
}
