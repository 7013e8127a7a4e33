/* `loar data tokenizer`: a tokenizer for rows of one's own, in the two files of Hugging Face. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/cmd_data.h"
#include "worker/data/rows.h"
#include "worker/data/tokenizer/train.h"

struct request {
    struct train_request train;
    const char **paths; /* [argc] */
    const char *out;
    int64_t threads;
};

static enum status set_option(struct request *r, const char *name, const char *value, struct error *err)
{
    int64_t number;
    if (!strcmp(name, "rows")) {
        r->paths[r->train.n_paths++] = value;
    } else if (!strcmp(name, "out")) {
        r->out = value;
    } else if (!strcmp(name, "format")) {
        r->train.format = value;
    } else if (!strcmp(name, "size")) {
        TRY(data_parse_int(name, value, INT64_MIN, INT64_MAX, &number, err));
        if (number < TRAIN_SIZE_MIN || number > TRAIN_SIZE_MAX)
            FAIL(err, STATUS_USAGE, "--size must be from %d (256 bytes and 6 special tokens, nothing joined) to %d, found %lld; "
                 "4096 suits a small model", TRAIN_SIZE_MIN, TRAIN_SIZE_MAX, (long long)number);
        r->train.size = (int32_t)number;
    } else if (!strcmp(name, "min_count")) {
        return data_parse_int(name, value, 1, 1000000000, &r->train.min_count, err);
    } else if (!strcmp(name, "threads")) {
        return data_parse_int(name, value, 1, 1024, &r->threads, err);
    } else {
        return data_rows_option(name, value, &r->train.columns, &r->train.table, err);
    }
    return STATUS_OK;
}

static enum status check_format(const char *name, struct error *err)
{
    const struct row_format *unused;
    return !strcmp(name, "auto") ? STATUS_OK : row_format_find(name, &unused, err);
}

static enum status parse(int argc, char **argv, struct request *out, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        char name[64];
        const char *value;
        if (!strcmp(argv[i], "--keep_calculator_marks")) {
            out->train.keep_calculator_marks = true;
            continue;
        }
        if (strncmp(argv[i], "--", 2))
            FAIL(err, STATUS_USAGE, "'%s' is too much; files of rows are named by --rows; see loar data --help", argv[i]);
        TRY(data_next_option(argc, argv, &i, name, &value, err));
        TRY(set_option(out, name, value, err));
    }
    if (!out->train.n_paths || !out->out)
        FAIL(err, STATUS_USAGE, "%s is missing; see loar data --help", out->out ? "--rows FILE" : "--out DIR");
    return check_format(out->train.format, err);
}

/* Before the work, so that nothing is learnt that cannot be kept. */
static enum status prepare_folder(const char *path, struct error *err)
{
    struct error why;
    if (!folder_is_empty(path))
        FAIL(err, STATUS_USAGE, "'%s' is %s; name another folder with --out", path,
             folder_exists(path) ? "a folder that is not empty, or cannot be read" : "not a folder");
    if (folder_make(path, &why) != STATUS_OK)
        FAIL(err, why.code, "%s; name another folder with --out", why.text);
    if (access(path, W_OK))
        FAIL(err, STATUS_IO, "cannot write into the folder '%s': %s; name another one with --out", path, strerror(errno));
    return STATUS_OK;
}

static void print_report(const struct request *request, const struct train_report *r)
{
    const struct train_request *train = &request->train;
    printf("%lld rows, %lld bytes of text, %lld words, %lld different ones\n", (long long)r->rows, (long long)r->text_bytes,
           (long long)r->words, (long long)r->different);
    printf("%d tokens: 6 special, 256 bytes, %d joined", r->size, r->learnt);
    if (r->size < train->size)
        printf("; not %d, for no other neighbours meet %lld times", train->size, (long long)train->min_count);
    else if (r->learnt)
        printf(", the last one %lld times", (long long)r->last_count);
    printf("\n%lld tokens for the text, %.2f bytes each\n", (long long)r->tokens, (double)r->text_bytes / (double)r->tokens);
    printf("tokenizer.json and tokenizer_config.json are in %s\n", request->out);
}

/* The loader wants tokenizer.json most, so it comes last. */
static enum status learn(const struct request *request, struct threads *pool, struct error *err)
{
    struct text tokenizer = {0}, config = {0};
    struct train_report report;
    enum status st;
    TRY_OR(done, st, tokenizer_train(&request->train, pool, &tokenizer, &config, &report, err));
    TRY_OR(done, st, data_write_into(request->out, "tokenizer_config.json", &config, err));
    TRY_OR(done, st, data_write_into(request->out, "tokenizer.json", &tokenizer, err));
    print_report(request, &report);
done:
    text_free(&tokenizer);
    text_free(&config);
    return st;
}

static enum status run(struct request *request, struct error *err)
{
    struct threads *pool = NULL;
    bool made = !folder_exists(request->out);
    enum status st;
    TRY_OR(done, st, prepare_folder(request->out, err));
    TRY_OR(done, st, threads_create((int)request->threads, &pool, err));
    st = learn(request, pool, err);
done:
    threads_free(pool);
    if (st != STATUS_OK && made)
        rmdir(request->out); /* only an empty folder goes */
    return st;
}

enum status data_tokenizer(int argc, char **argv, struct error *err)
{
    struct request request = {.train = {.format = "auto", .size = 4096, .min_count = 2}, .threads = threads_cores()};
    request.paths = mem_alloc((size_t)argc, sizeof *request.paths);
    if (!request.paths)
        FAIL(err, STATUS_NOMEM, "no memory for a list of files");
    request.train.paths = request.paths;
    enum status st = parse(argc, argv, &request, err);
    if (st == STATUS_OK)
        st = run(&request, err);
    mem_free(request.paths);
    return st;
}
