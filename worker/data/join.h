/* Short rows joined into long documents: each is one conversation of many turns, a row of the format `messages`, filled
 * up to a number of tokens. Thoughts stay apart from answers, and what took loss in a row takes it in its document.
 * Must not know: command lines, where the documents go. */
#ifndef WORKER_DATA_JOIN_H
#define WORKER_DATA_JOIN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"
#include "worker/data/block.h"

struct join_request {
    const char *const *paths; /* files of rows */
    int n_paths;
    const char *format;         /* a name of rows.h; NULL or "auto": recognised in every file by its first row */
    struct table_rules table;   /* how to read .csv and .tsv */
    struct row_columns columns; /* names that are not the format's own */
    bool keep_calculator_marks; /* gsm8k: leave <<48/2=24>> in the thoughts */
    const struct chat_template *template;
    const char *cot_prompt, *answer_prefix; /* that training will add (rows.h): counted, not written; NULL or "": none */
    int tokens;                             /* of a document, at most */
    uint64_t seed;                          /* another one gives another order of rows */
};

struct join_report {
    int64_t rows, joined, too_long; /* read; in documents; left out, for they alone are longer than a document */
    int64_t documents, tokens;      /* of all documents, as the template and the tokenizer make them */
    int longest;                    /* tokens of the longest document */
    struct problems problems;       /* the first rows that are too long; problems_clear releases them */
};

/* Appends the documents, a JSON line each. Rows come in a shuffled order, each once; a row goes into the first of the
 * last JOIN_OPEN documents that has room for it, or else begins a new one. STATUS_DATA naming "file:line" for rows that
 * cannot be read, whose text would be another one in a row of messages, or that do not suit the first row: a document
 * has one system message and one weight. */
enum { JOIN_OPEN = 64 };
enum status join_documents(const struct join_request *request, const struct tokenizer *tokenizer, struct text *lines,
                           struct join_report *report, struct error *err);

#endif
