/* Rows of JSON read as conversations. Include behind cmocka_all.h. */
#ifndef TESTS_SUPPORT_READ_ROWS_H
#define TESTS_SUPPORT_READ_ROWS_H

#include "common/memory.h"
#include "worker/data/rows.h"

struct fixture {
    struct json *json;
    struct arena arena;
    struct conversation conversation;
    struct row_columns columns; /* that a user names */
    const struct label_set *labels;
    struct error err;
};

/* Reads `text` as line 7 of rows.jsonl. format NULL: detected. */
static inline enum status read_with(struct fixture *f, const char *format_name, const char *text, const struct row_options *options)
{
    const struct row_format *format = NULL;
    json_free(f->json);
    f->json = NULL;
    f->arena.block_bytes = 4096;
    arena_reset(&f->arena);
    TRY(json_parse_piece(text, strlen(text), "rows.jsonl", 7, &f->json, &f->err));
    if (format_name)
        TRY(row_format_find(format_name, &format, &f->err));
    else
        TRY(row_format_detect(f->json, "rows.jsonl", 7, options, &format, &f->err));
    return row_read(format, f->json, "rows.jsonl", 7, options, &f->arena, &f->conversation, &f->err);
}

/* The same with the columns and labels of the fixture. */
static inline enum status read_text(struct fixture *f, const char *format_name, const char *text, bool keep_marks)
{
    const struct row_options options = {.keep_calculator_marks = keep_marks, .columns = f->columns, .labels = f->labels};
    return read_with(f, format_name, text, &options);
}

static inline void fixture_free(struct fixture *f)
{
    json_free(f->json);
    arena_free(&f->arena);
    assert_int_equal(mem_live(), 0);
}

static inline void assert_text(const char *bytes, size_t size, const char *wanted)
{
    if (size != strlen(wanted) || memcmp(bytes, wanted, size))
        fail_msg("'%.*s' is not '%s'", (int)size, bytes, wanted);
}

static inline void assert_message(const struct fixture *f, int index, enum role role, const char *content, const char *thought)
{
    const struct message *m = &f->conversation.messages[index];
    assert_true(index < f->conversation.count);
    assert_int_equal(m->role, role);
    assert_text(m->content, m->content_size, content);
    assert_int_equal(m->thought != NULL, thought != NULL);
    if (thought)
        assert_text(m->thought, m->thought_size, thought);
}

/* A row of a question and one more message, an assistant's with `content`. */
#define TURNS(content) "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", " content "}]}"

#endif
