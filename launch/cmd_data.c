/* `loar data make TASK` writes demo rows and a tokenizer for them; `loar data show FILE` prints rows as training sees
 * them, with the span of every token. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/commands.h"
#include "worker/data/dataset.h"
#include "worker/data/demo/demo.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"

static const char usage[] =
    "usage: loar data make TASK --rows N [--seed S] [--out FILE] [options]\n"
    "       loar data show FILE --model DIR [--chat_template NAME] [options]\n"
    "\n"
    "make  writes rows of question, thought and answer, one JSON object a line. TASK is one of\n"
    "        parity    running parity of --length 16 bits\n"
    "        modchain  --ops 8 operations modulo --mod 7, value after each; --worded: in words\n"
    "        cups      --swaps 4 exchanges of --cups 5 cups, the row after each\n"
    "        mult      --digits 3 times as many, partial products and sums, lowest digit first\n"
    "  --rows N          how many; no question comes twice while there are new ones\n"
    "  --seed S          another number gives other rows (default 0)\n"
    "  --out FILE        default: standard output\n"
    "  --split NAME      train (default), eval or all: a question is in train or in eval, whatever the seed\n"
    "  --exclude FILE    leave out the questions of this file of rows\n"
    "  --tokenizer DIR   also write tokenizer.json and tokenizer_config.json\n"
    "  --merges N        joined tokens to learn from the rows (default 0, with --worded 300)\n"
    "\n"
    "show  prints rows with the parts prompt, thought, answer and end marked, and what the data set holds.\n"
    "  --model DIR       folder with tokenizer.json\n"
    "  --chat_template NAME  default deepseek-r1\n"
    "  --format NAME     default auto\n"
    "  --max_length N    default 4096; --truncation error|drop|thought, default error\n"
    "  --rows N          how many rows to print, default 3\n";

struct make_request {
    struct demo_request demo;
    const char *out, *tokenizer;
    int64_t merges; /* -1: depends on the task */
};

struct show_request {
    const char *path, *model, *template, *format;
    int64_t rows, max_length;
    enum truncation truncation;
};

static enum status parse_int(const char *name, const char *text, int64_t low, int64_t high, int64_t *out, struct error *err)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < low || value > high)
        FAIL(err, STATUS_USAGE, "--%s must be a whole number from %lld to %lld, found '%s'", name, (long long)low,
             (long long)high, text);
    *out = value;
    return STATUS_OK;
}

/* Takes "--name=value" or "--name value" at argv[*at]; NULL name for an argument without dashes. */
static enum status next_option(int argc, char **argv, int *at, char name[64], const char **value, struct error *err)
{
    const char *argument = argv[*at] + 2;
    const char *equals = strchr(argument, '=');
    snprintf(name, 64, "%.*s", equals ? (int)(equals - argument) : (int)strlen(argument), argument);
    if (equals) {
        *value = equals + 1;
        return STATUS_OK;
    }
    if (*at + 1 >= argc)
        FAIL(err, STATUS_USAGE, "--%s needs a value; see loar data --help", name);
    *value = argv[++*at];
    return STATUS_OK;
}

static enum status set_make(struct make_request *request, const char *name, const char *value, struct error *err)
{
    struct demo_settings *s = &request->demo.settings;
    const struct {
        const char *name;
        int *place;
    } numbers[] = {{"length", &s->length}, {"ops", &s->ops}, {"mod", &s->mod}, {"swaps", &s->swaps}, {"cups", &s->cups},
                   {"digits", &s->digits}};
    int64_t number = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(numbers[i].name, name)) {
            TRY(parse_int(name, value, 1, 1000000, &number, err));
            *numbers[i].place = (int)number;
            return STATUS_OK;
        }
    if (!strcmp(name, "rows"))
        return parse_int(name, value, 1, 100000000, &request->demo.rows, err);
    if (!strcmp(name, "merges"))
        return parse_int(name, value, 0, 30000, &request->merges, err);
    if (!strcmp(name, "seed")) {
        TRY(parse_int(name, value, 0, INT64_MAX, &number, err));
        request->demo.seed = (uint64_t)number;
    } else if (!strcmp(name, "split")) {
        if (!demo_split_parse(value, &request->demo.split))
            FAIL(err, STATUS_USAGE, "--split must be train, eval or all, found '%s'", value);
    } else if (!strcmp(name, "out")) {
        request->out = value;
    } else if (!strcmp(name, "tokenizer")) {
        request->tokenizer = value;
    } else if (!strcmp(name, "exclude")) {
        request->demo.exclude = value;
    } else {
        FAIL(err, STATUS_USAGE, "unknown option '--%s'; see loar data --help", name);
    }
    return STATUS_OK;
}

static enum status parse_make(int argc, char **argv, struct make_request *out, struct error *err)
{
    *out = (struct make_request){.demo.settings = demo_defaults(), .merges = -1};
    for (int i = 1; i < argc; i++) {
        char name[64];
        const char *value;
        if (!strcmp(argv[i], "--worded")) {
            out->demo.settings.worded = true;
        } else if (!strncmp(argv[i], "--", 2)) {
            TRY(next_option(argc, argv, &i, name, &value, err));
            TRY(set_make(out, name, value, err));
        } else if (out->demo.task) {
            FAIL(err, STATUS_USAGE, "one task at a time: '%s' is too much; see loar data --help", argv[i]);
        } else {
            TRY(demo_find(argv[i], &out->demo.task, err));
        }
    }
    if (!out->demo.task || !out->demo.rows)
        FAIL(err, STATUS_USAGE, "%s; see loar data --help", out->demo.task ? "--rows is missing" : "which task?");
    return STATUS_OK;
}

/* Makes the folder that `path` lies in. */
static enum status make_parent(const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return STATUS_OK;
    char *folder = mem_strndup(path, (size_t)(slash - path));
    if (!folder)
        FAIL(err, STATUS_NOMEM, "no memory for the path '%s'", path);
    enum status st = folder_make(folder, err);
    mem_free(folder);
    return st;
}

static enum status write_into(const char *folder, const char *name, const struct text *text, struct error *err)
{
    char *path = path_join(folder, name);
    if (!path)
        FAIL(err, STATUS_NOMEM, "no memory for the path of '%s'", name);
    enum status st = file_replace(path, text->data, text->size, err);
    mem_free(path);
    return st;
}

static enum status write_tokenizer(const struct make_request *request, const struct text *plain, struct error *err)
{
    enum { SAMPLE_BYTES = 1 << 18 };
    int64_t merges = request->merges >= 0 ? request->merges : request->demo.settings.worded ? 300 : 0;
    size_t sample = plain->size < SAMPLE_BYTES ? plain->size : SAMPLE_BYTES;
    struct text tokenizer = {0}, config = {0};
    enum status st;
    TRY_OR(done, st, folder_make(request->tokenizer, err));
    TRY_OR(done, st, demo_tokenizer(plain->data, sample, (int)merges, &tokenizer, &config, err));
    TRY_OR(done, st, write_into(request->tokenizer, "tokenizer.json", &tokenizer, err));
    st = write_into(request->tokenizer, "tokenizer_config.json", &config, err);
done:
    text_free(&tokenizer);
    text_free(&config);
    return st;
}

static enum status write_rows(const struct make_request *request, const struct text *rows, int64_t repeated,
                              struct error *err)
{
    if (!request->out) {
        if (fwrite(rows->data, 1, rows->size, stdout) != rows->size || fflush(stdout))
            FAIL(err, STATUS_IO, "cannot write the rows to standard output: %s", strerror(errno));
        return STATUS_OK;
    }
    TRY(make_parent(request->out, err));
    TRY(file_replace(request->out, rows->data, rows->size, err));
    fprintf(stderr, "%lld rows in %s", (long long)request->demo.rows, request->out);
    if (repeated)
        fprintf(stderr, "; %lld of them repeat, for the task has no more questions", (long long)repeated);
    fprintf(stderr, "\n");
    return STATUS_OK;
}

static enum status run_make(int argc, char **argv, struct error *err)
{
    struct make_request request;
    TRY(parse_make(argc, argv, &request, err));
    struct text rows = {0}, plain = {0};
    int64_t repeated;
    enum status st;
    TRY_OR(done, st, demo_write(&request.demo, &rows, &plain, &repeated, err));
    TRY_OR(done, st, write_rows(&request, &rows, repeated, err));
    if (request.tokenizer)
        st = write_tokenizer(&request, &plain, err);
done:
    text_free(&plain);
    text_free(&rows);
    return st;
}
