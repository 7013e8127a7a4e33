/* A folder with a tokenizer of one token per byte, a file of rows, and the rules a data set is loaded by. */
#ifndef TESTS_SUPPORT_ROWS_FIXTURE_H
#define TESTS_SUPPORT_ROWS_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "tests/support/scratch.h"
#include "worker/data/dataset.h"
#include "worker/data/demo/demo.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"

struct rows_fixture {
    char folder[SCRATCH_SIZE], rows[128], tokenizer_file[128];
    struct tokenizer *tokenizer;
    struct threads *pool;
    struct dataset_spec spec;
    struct dataset_rules rules;
};

/* Rules and spec as every test finds them: strict, R1 template, all weights 1. */
static inline void rows_fixture_reset(struct rows_fixture *fx)
{
    const struct chat_template *template = fx->rules.template;
    fx->spec = (struct dataset_spec){.name = "set", .path = fx->rows, .loss_weight = 1, .weight = 1, .max_samples = -1};
    fx->rules = (struct dataset_rules){.template = template, .max_length = 100000, .strict = true, .max_bad_rows = -1,
                                       .span_weights = {0, 1, 1, 1}};
}

static inline enum status rows_fixture_open(struct rows_fixture *fx, struct error *err)
{
    struct text file = {0}, config = {0};
    if (!scratch_folder(fx->folder, "rows"))
        FAIL(err, STATUS_IO, "cannot make '%s'", fx->folder);
    snprintf(fx->rows, sizeof fx->rows, "%s/rows.jsonl", fx->folder);
    snprintf(fx->tokenizer_file, sizeof fx->tokenizer_file, "%s/tokenizer.json", fx->folder);
    TRY(demo_tokenizer("", 0, 0, &file, &config, err));
    TRY(file_replace(fx->tokenizer_file, file.data, file.size, err));
    text_free(&file);
    text_free(&config);
    TRY(tokenizer_load(fx->folder, &fx->tokenizer, err));
    fx->rules.template = template_find("deepseek-r1");
    TRY(threads_create(1, &fx->pool, err));
    rows_fixture_reset(fx);
    return STATUS_OK;
}

static inline void rows_fixture_close(struct rows_fixture *fx)
{
    threads_free(fx->pool);
    tokenizer_free(fx->tokenizer);
    unlink(fx->rows);
    unlink(fx->tokenizer_file);
    rmdir(fx->folder);
}

static inline void rows_fixture_write(const struct rows_fixture *fx, const char *bytes, size_t size)
{
    FILE *file = fopen(fx->rows, "w");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file))
        abort();
}

/* Text of the tokens, special ones spelt out. */
static inline enum status rows_fixture_decode(const struct rows_fixture *fx, const int32_t *tokens, size_t count,
                                              struct text *out, struct error *err)
{
    return tokenizer_decode(fx->tokenizer, tokens, count, false, out, err);
}

#endif
