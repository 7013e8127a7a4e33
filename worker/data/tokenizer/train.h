/* A byte-level BPE tokenizer for rows of one's own: their text is cut as Qwen2 cuts it, every digit by itself, words are
 * counted on all threads, and pairs are joined by learn.h. The result does not depend on the number of threads.
 * Must not know: command lines, folders. */
#ifndef WORKER_DATA_TOKENIZER_TRAIN_H
#define WORKER_DATA_TOKENIZER_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"
#include "common/threads.h"
#include "worker/data/columns.h"
#include "worker/data/table.h"

enum { TRAIN_SIZE_MIN = 262, TRAIN_SIZE_MAX = 1 << 20 };

struct train_request {
    const char *const *paths; /* files of rows */
    int n_paths;
    /* A name of rows.h; NULL or "auto": recognised in every file by its first row; "text": rows with that column or, where
     * the first line is none, lines of plain text, each with its line end. Of rows the texts of all questions, thoughts and answers (or messages) are taken. */
    const char *format;
    struct table_rules table;   /* how to read .csv and .tsv */
    struct row_columns columns; /* names that are not the format's own */
    bool keep_calculator_marks; /* gsm8k: learn from <<48/2=24>> too */
    int32_t size;               /* tokens in all, from TRAIN_SIZE_MIN to TRAIN_SIZE_MAX */
    int64_t min_count;          /* pairs that come less often are not joined; at least 1 */
};

struct train_report {
    int64_t rows, text_bytes;
    int64_t words, different; /* pieces that joins never cross; different ones */
    int64_t tokens;           /* that the text comes to */
    int32_t size, learnt;     /* tokens of the tokenizer, and of them joined ones */
    int64_t last_count;       /* how often the last joined pair came; 0: nothing was joined */
};

/* Appends the two files of Hugging Face. STATUS_DATA naming the file, or "file:line", for what is missing or broken. */
enum status tokenizer_train(const struct train_request *request, struct threads *pool, struct text *tokenizer,
                            struct text *config, struct train_report *report, struct error *err);

#endif
