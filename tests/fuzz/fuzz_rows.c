/* Any bytes at all as a file of rows, read in every format: each row is refused with its place, or becomes a conversation
 * in the right order whose texts are not empty and hold no NUL. */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "worker/data/jsonl.h"
#include "worker/data/rows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

static void check_text(const char *bytes, size_t size)
{
    demand(bytes && size && !memchr(bytes, '\0', size));
}

static void check_conversation(const struct conversation *c)
{
    if (c->plain) {
        demand(c->count == 1 && c->weight > 0 && c->messages[0].supervised && !c->messages[0].thought);
        check_text(c->messages[0].content, c->messages[0].content_size);
        return;
    }
    demand(c->count >= 2 && c->messages[c->count - 1].role == ROLE_ASSISTANT && c->weight > 0);
    for (int i = 0; i < c->count; i++) {
        const struct message *m = &c->messages[i];
        check_text(m->content, m->content_size);
        demand(m->role == ROLE_ASSISTANT || (!m->supervised && !m->thought));
        demand(i == 0 ? m->role != ROLE_ASSISTANT : m->role != ROLE_SYSTEM && (m->role == ROLE_TOOL || m->role != c->messages[i - 1].role));
        if (m->thought && m->thought_size)
            check_text(m->thought, m->thought_size);
        demand(m->factor >= 0);
    }
}

static void check_row(const struct row_format *format, const struct json *row, int64_t line, const struct row_options *options,
                      struct arena *arena)
{
    struct error err = {0};
    struct conversation conversation;
    if (row_read(format, row, "fuzz", line, options, arena, &conversation, &err) == STATUS_OK) {
        check_conversation(&conversation);
        demand(conversation_dress(&conversation, "Think.", "#### ", arena, &err) == STATUS_OK);
        check_conversation(&conversation);
    } else {
        demand(err.code == STATUS_DATA && !strncmp(err.text, "fuzz:", 5));
    }
    arena_reset(arena);
}

static void check_record(const struct jsonl *reader, const struct jsonl_record *record, struct arena *arena)
{
    static const char *const names[] = {"messages", "sharegpt",          "qa-cot", "medical-o1",
                                        "gsm8k",    "prompt-completion", "alpaca", "text"};
    struct error err = {0};
    struct json *row;
    demand(record->text >= reader->text && record->size <= (size_t)(reader->text + reader->size - record->text));
    if (jsonl_parse(reader, record, &row, &err) != STATUS_OK) {
        demand(err.code == STATUS_DATA && !strncmp(err.text, "fuzz:", 5));
        return;
    }
    const struct row_format *format;
    struct row_options named = {0};
    if (row_format_detect(row, "fuzz", record->line, &named, &format, &err) == STATUS_OK)
        check_row(format, row, record->line, &named, arena);
    named.columns.names[ROW_QUESTION] = "a"; /* as if a user had named them */
    named.columns.names[ROW_ANSWER] = "b";
    if (row_format_detect(row, "fuzz", record->line, &named, &format, &err) == STATUS_OK)
        check_row(format, row, record->line, &named, arena);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        demand(row_format_find(names[i], &format, &err) == STATUS_OK);
        check_row(format, row, record->line, &(struct row_options){.keep_calculator_marks = record->line % 2}, arena);
    }
    json_free(row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jsonl reader;
    struct jsonl_record record;
    struct error err = {0};
    struct arena arena = {.block_bytes = 1 << 12};
    bool found = true;
    long live = mem_live();
    size_t records = 0;
    jsonl_over("fuzz", (const char *)data, size, &reader);
    while (jsonl_next(&reader, &record, &found, &err) == STATUS_OK && found) {
        check_record(&reader, &record, &arena);
        demand(++records <= size + 1);
    }
    demand(!found || err.code == STATUS_DATA);
    arena_free(&arena);
    demand(mem_live() == live);
    return 0;
}
