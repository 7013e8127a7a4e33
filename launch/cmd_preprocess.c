/* `loar preprocess RUN.yaml`: rows to tokens before a run, kept for it; or shown token by token as training sees them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/options.h"
#include "launch/commands.h"
#include "launch/run.h"
#include "worker/data/tokenizer.h"

static const char usage[] =
    "usage: loar preprocess RUN.yaml [key=value ...] [--debug N]\n"
    "\n"
    "Turns the rows of all data sets of a run file into tokens and keeps them in its dataset_cache_dir, so that runs on\n"
    "any number of ranks begin at once. They are found again by their content, the tokenizer and all keys that shape\n"
    "rows; when one of these changes they are made anew.\n"
    "\n"
    "  --debug N  instead show the first N training rows, a line for each token: its place, the part of the row it belongs\n"
    "             to, the weight of its loss (0: not trained), its id and its text; in colour on a terminal\n"
    "\n"
    "Exit status: 0 done, 2 problems with the options, 3 with the files they name.\n";

/* Colours of the parts of a row; without loss a token is dim. */
static const char *const colours[SPAN_COUNT] = {"\033[36m", "\033[33m", "\033[32m", "\033[35m"};
#define DIM "\033[2m"
#define PLAIN "\033[0m"

static bool in_colour(void)
{
    const char *no = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && !(no && *no);
}

static enum status put_token(const struct tokenizer *tokenizer, const struct row *row, const struct batch *batch, int at, bool colour,
                             struct text *out, struct error *err)
{
    struct text text = {0};
    double weight = at ? (double)batch->weights[at - 1] : 0; /* the loss at a token is about the next one */
    enum span span = (enum span)row->spans[at];
    TRY(tokenizer_decode(tokenizer, row->tokens + at, 1, false, &text, err));
    text_printf(out, "%s%s%6d  %-8s %7.5g %8d  ", colour ? colours[span] : "", colour && weight == 0 ? DIM : "", at, span_name(span), weight,
                row->tokens[at]);
    text_json_string(out, text.data ? text.data : "", text.size); /* quoted: line breaks and blanks show */
    text_puts(out, colour ? PLAIN "\n" : "\n");
    text_free(&text);
    return STATUS_OK;
}

static enum status put_row(const struct run *run, int64_t index, bool colour, struct batch *batch, struct text *out, struct error *err)
{
    const struct dataset_part *part = &run->train.parts[dataset_part_of(&run->train, index)];
    struct row row = dataset_row(&run->train, index);
    batch_clear(batch);
    TRY(batch_append(batch, &row, run->span_weights, err)); /* what the loss takes */
    text_printf(out, "\nrow %" PRId64 " of %s (%s:%" PRId64 "): %d tokens, row weight %g\n", index - part->first_row + 1, part->name, part->path,
                run->train.lines[index], row.n_tokens, (double)row.weight);
    text_printf(out, "%6s  %-8s %7s %8s  %s\n", "place", "span", "weight", "id", "text");
    for (int at = 0; at < row.n_tokens; at++)
        TRY(put_token(run->tokenizer, &row, batch, at, colour, out, err));
    return STATUS_OK;
}

static enum status show(const struct run *run, int64_t rows, struct error *err)
{
    struct batch batch = {0};
    struct text out = {0};
    enum status st = STATUS_OK;
    for (int64_t i = 0; i < rows && i < run->train.rows && st == STATUS_OK; i++) {
        text_clear(&out);
        st = put_row(run, i, in_colour(), &batch, &out, err);
        if (st == STATUS_OK && out.failed)
            st = error_set(err, STATUS_NOMEM, "no memory to show a row");
        if (st == STATUS_OK)
            fputs(out.data, stdout);
    }
    batch_free(&batch);
    text_free(&out);
    return st;
}

static void tell(const struct dataset *dataset)
{
    for (int i = 0; i < dataset->n_parts; i++) {
        const struct dataset_part *part = &dataset->parts[i];
        int64_t tokens = 0;
        for (int span = 0; span < SPAN_COUNT; span++)
            tokens += part->stats.tokens[span];
        printf("%s: %" PRId64 " rows, %" PRId64 " tokens; %s\n", part->name, part->stats.kept, tokens, part->note ? part->note : "kept");
    }
}

static enum status preprocess(const char *path, int n_overrides, char **overrides, int64_t debug, struct error *err)
{
    struct options options;
    struct text notes = {0};
    struct threads *pool = NULL;
    struct run run = {0};
    enum status st = options_load(path, n_overrides, overrides, &options, &notes, err);
    if (notes.data)
        fprintf(stderr, "%s", notes.data);
    text_free(&notes);
    TRY(st);
    if (!debug && !options.dataset_cache_dir)
        st = error_set(err, STATUS_USAGE, "dataset_cache_dir is missing: where shall the rows be kept? Or look at rows with --debug N");
    if (st == STATUS_OK)
        st = threads_create(run_threads(options.threads, 1), &pool, err);
    if (st == STATUS_OK)
        st = run_load(&options, pool, &run, err);
    if (st == STATUS_OK && debug)
        st = show(&run, debug, err);
    if (st == STATUS_OK && !debug) {
        tell(&run.train);
        tell(&run.eval);
    }
    run_free(&run);
    threads_free(pool);
    options_free(&options);
    return st;
}

/* Takes --debug N out of argv[1..]; *kept: how many arguments are left, the run file first. */
static enum status parse(int argc, char **argv, int64_t *debug, int *kept, struct error *err)
{
    *kept = 0;
    *debug = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--debug") && strncmp(argv[i], "--debug=", 8)) {
            argv[1 + (*kept)++] = argv[i];
            continue;
        }
        const char *text = argv[i][7] == '=' ? argv[i] + 8 : i + 1 < argc ? argv[++i] : "";
        char *end;
        errno = 0;
        *debug = strtoll(text, &end, 10);
        if (end == text || *end || errno || *debug < 1)
            FAIL(err, STATUS_USAGE, "--debug needs a number of rows, 1 or more, found '%.40s'", text);
    }
    if (!*kept)
        FAIL(err, STATUS_USAGE, "which run file? See loar preprocess --help");
    return STATUS_OK;
}

int cmd_preprocess(int argc, char **argv)
{
    struct error err;
    int64_t debug;
    int kept;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            return 0;
        }
    enum status st = parse(argc, argv, &debug, &kept, &err);
    if (st == STATUS_OK)
        st = preprocess(argv[1], kept - 1, argv + 2, debug, &err);
    if (st != STATUS_OK)
        fprintf(stderr, "loar preprocess: %s\n", err.text);
    return status_exit_code(st);
}
