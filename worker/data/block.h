/* A block of rows on its way from text to tokens: read, dressed, encoded, fitted into max_length, checked. Blocks have
 * a fixed number of rows, so that the number of threads that work on them never changes the result.
 * Must not know: how blocks are put together. */
#ifndef WORKER_DATA_BLOCK_H
#define WORKER_DATA_BLOCK_H

#include "common/memory.h"
#include "common/text.h"
#include "worker/data/dataset.h"
#include "worker/data/records.h"
#include "worker/data/rows.h"

enum { BLOCK_ROWS = 32, PROBLEMS_SHOWN = 10 };

/* The first few messages about rows that were left out. */
struct problems {
    char *lines[PROBLEMS_SHOWN];
    int shown;
};
enum status problems_add(struct problems *problems, const char *line, struct error *err);
void problems_clear(struct problems *problems);

/* What all blocks of a file read. */
struct block_source {
    const struct dataset_spec *spec;
    const struct dataset_rules *rules;
    const struct tokenizer *tokenizer;
    const struct row_format *format;
    struct records reader;
    struct jsonl_record *records; /* [count] */
    int64_t count, capacity;
};

struct block {
    const struct block_source *source;
    int64_t first, count; /* records, at most BLOCK_ROWS */
    struct arena arena;
    int32_t *tokens; /* of the kept rows, end to end */
    uint8_t *spans;
    size_t n_tokens, capacity;
    int lengths[BLOCK_ROWS];
    float weights[BLOCK_ROWS];
    int64_t lines[BLOCK_ROWS];
    char *labels[BLOCK_ROWS]; /* names; of rows with a class */
    struct stretch_table stretches;
    int rows; /* kept */
    struct dataset_stats stats;
    int64_t refused_long; /* rows over the limit where the rules make that an error */
    struct problems problems;
    enum status status; /* of what stops the load: no memory, a token outside the vocabulary */
    struct error err;
};

/* Turns records [first, first + count) into tokens. Bad rows are counted and described; `status` is not OK only for
 * what stops the load. */
void block_read(struct block *block);
/* Forgets the rows but keeps the memory. */
void block_reset(struct block *block);
void block_free(struct block *block);

#endif
