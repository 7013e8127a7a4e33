/* Rows loaded as a data set by the rules of rows_fixture.h, and what its batches teach, as text. Include behind cmocka_all.h. */
#ifndef TESTS_SUPPORT_DATASET_FIXTURE_H
#define TESTS_SUPPORT_DATASET_FIXTURE_H

#include "tests/support/rows_fixture.h"

static struct rows_fixture fx;
static struct error err;

static inline int open_fixture(void **state)
{
    (void)state;
    return rows_fixture_open(&fx, &err) == STATUS_OK ? 0 : (fprintf(stderr, "%s\n", err.text), 1);
}

static inline int close_fixture(void **state)
{
    (void)state;
    rows_fixture_close(&fx);
    return mem_live() != 0;
}

/* Writes the rows and loads them as data set 'set'. */
static inline enum status load(struct dataset *dataset, const char *rows)
{
    rows_fixture_write(&fx, rows, strlen(rows));
    return dataset_load(dataset, &fx.spec, &fx.rules, fx.tokenizer, fx.pool, &err);
}

static const char two_rows[] = "{\"question\": \"Two and two?\", \"thought\": \"2 and 2 make 4\", \"answer\": \"four\"}\n"
                               "{\"question\": \"One?\", \"thought\": \"easy\", \"answer\": \"1\"}\n";

#define END "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"

/* Text of the tokens, to be freed. */
static inline char *decode(const int32_t *tokens, size_t count)
{
    struct text text = {0};
    assert_ok(rows_fixture_decode(&fx, tokens, count, &text, &err), &err);
    char *copy = strdup(text.data ? text.data : "");
    text_free(&text);
    return copy;
}

/* What the batch teaches for one span (SPAN_COUNT: all of them), as text. */
static inline char *taught(const struct batch *batch, int sequence, int span)
{
    int32_t tokens[512];
    size_t n = 0;
    for (int i = batch->starts[sequence]; i < batch->starts[sequence + 1]; i++)
        if (batch->targets[i] >= 0 && (span == SPAN_COUNT || batch->target_spans[i] == span))
            tokens[n++] = batch->targets[i];
    return decode(tokens, n);
}

static inline void assert_taught(const struct batch *batch, int sequence, int span, const char *wanted)
{
    char *text = taught(batch, sequence, span);
    assert_string_equal(text, wanted);
    free(text);
}

/* Rows 3, 6, 9 ... up to `bad` bad ones among `rows`. */
static inline void rows_with_bad_ones(int rows, int bad, struct text *out)
{
    for (int i = 1; i <= rows; i++)
        if (i % 3 == 0 && i / 3 <= bad)
            text_printf(out, i % 2 ? "{\"question\": \"Q%d\", \"thought\": \"T\", \"answer\": \"\"}\n" : "{\"question\": %d\n", i);
        else
            text_printf(out, "{\"question\": \"Q%d\", \"thought\": \"T%d\", \"answer\": \"A%d\"}\n", i, i, i);
}

#endif
