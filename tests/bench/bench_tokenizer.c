/* Megabytes of text per second on 1 and 2 threads, and seconds to load, for every public tokenizer that is here. The best of
 * four passes counts, so words of earlier passes are remembered, as in training.
 * usage: bench_tokenizer [FILE.jsonl] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/text.h"
#include "common/threads.h"
#include "common/timing.h"
#include "worker/data/jsonl.h"
#include "worker/data/tokenizer.h"

enum { ROWS = 7473, ROWS_PER_TASK = 32 };

struct work {
    const struct tokenizer *tokenizer;
    struct text rows[ROWS];
    int count;
    size_t tokens[ROWS / ROWS_PER_TASK + 1];
};

static void encode_rows(void *context, int task, int thread)
{
    (void)thread;
    struct work *work = context;
    struct token_list ids = {0};
    struct error err;
    for (int i = task * ROWS_PER_TASK; i < work->count && i < (task + 1) * ROWS_PER_TASK; i++)
        if (tokenizer_encode(work->tokenizer, work->rows[i].data, work->rows[i].size, 0, &ids, &err) != STATUS_OK)
            abort();
    work->tokens[task] = ids.count;
    token_list_free(&ids);
}

/* Question and answer of every row as one text. */
static enum status read_rows(const char *path, struct work *work, struct error *err)
{
    struct jsonl reader;
    struct jsonl_record record;
    bool found = true;
    TRY(jsonl_open(path, &reader, err));
    while (work->count < ROWS && found) {
        struct json *row;
        TRY(jsonl_next(&reader, &record, &found, err));
        if (!found)
            break;
        TRY(jsonl_parse(&reader, &record, &row, err));
        struct text *text = &work->rows[work->count++];
        for (const void *it = json_first(row); it; it = json_next(row, it))
            if (json_to_string(json_it_value(it), NULL))
                text_puts(text, json_to_string(json_it_value(it), NULL));
        json_free(row);
    }
    jsonl_close(&reader);
    return STATUS_OK;
}

static double best_seconds(struct work *work, int n_threads, struct error *err)
{
    struct threads *pool;
    double best = 1e9;
    if (threads_create(n_threads, &pool, err) != STATUS_OK)
        abort();
    for (int pass = 0; pass < 4; pass++) {
        double start = time_seconds();
        threads_run(pool, (work->count + ROWS_PER_TASK - 1) / ROWS_PER_TASK, encode_rows, work);
        double took = time_seconds() - start;
        best = took < best ? took : best;
    }
    threads_free(pool);
    return best;
}

int main(int argc, char **argv)
{
    static const char *const folders[] = {"tokenizers/deepseek-coder-6.7b-instruct", "tokenizers/qwen2.5", "tokenizers/gpt2",
                                          "tokenizers/phi-2", "models/stories260K-hf"};
    static struct work work;
    struct error err;
    const char *rows = argc > 1 ? argv[1] : "../shared/data/cot/gsm8k/train.jsonl";
    if (read_rows(rows, &work, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 77;
    }
    size_t bytes = 0;
    for (int i = 0; i < work.count; i++)
        bytes += work.rows[i].size;
    printf("%d rows, %.1f MB\n%-42s %8s %12s %12s %6s %12s\n", work.count, (double)bytes / 1e6, "tokenizer", "load s",
           "1 thread", "2 threads", "ratio", "bytes/token");
    for (size_t f = 0; f < sizeof folders / sizeof *folders; f++) {
        struct tokenizer *tokenizer;
        char path[512];
        snprintf(path, sizeof path, "../shared/data/%s", folders[f]);
        double start = time_seconds();
        if (tokenizer_load(path, &tokenizer, &err) != STATUS_OK) {
            printf("%-42s %s\n", folders[f], err.text);
            continue;
        }
        double load = time_seconds() - start;
        work.tokenizer = tokenizer;
        double one = best_seconds(&work, 1, &err), two = best_seconds(&work, 2, &err);
        size_t tokens = 0;
        for (size_t i = 0; i < sizeof work.tokens / sizeof *work.tokens; i++)
            tokens += work.tokens[i];
        printf("%-42s %8.2f %7.1f MB/s %7.1f MB/s %6.2f %12.2f\n", folders[f], load, (double)bytes / 1e6 / one, (double)bytes / 1e6 / two,
               one / two, (double)bytes / (double)tokens);
        tokenizer_free(tokenizer);
    }
    for (int i = 0; i < work.count; i++)
        text_free(&work.rows[i]);
    return 0;
}
