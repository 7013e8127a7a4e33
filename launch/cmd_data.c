/* `loar data make TASK` writes demo rows and a tokenizer for them; `loar data show FILE` prints rows as training sees
 * them, with the span of every token; `loar data tokenizer` and `loar data join` have files of their own. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/cmd_data.h"
#include "launch/commands.h"
#include "worker/data/dataset.h"
#include "worker/data/demo/demo.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"

static const char usage[] =
    "usage: loar data make TASK --rows N [--seed S] [--out FILE] [options]\n"
    "       loar data tokenizer --rows FILE [--rows FILE ...] --out DIR [--size N] [options]\n"
    "       loar data join --rows FILE [--rows FILE ...] --model DIR --tokens N --out FILE [options]\n"
    "       loar data show FILE --model DIR [--chat_template NAME|FILE.yaml] [options]\n"
    "\n"
    "make  writes rows of question, thought and answer, one JSON object a line. TASK is one of\n"
    "        parity    running parity of --length 16 bits\n"
    "        modchain  --ops 8 operations modulo --mod 7, value after each; --worded: in words\n"
    "        cups      --swaps 4 exchanges of --cups 5 cups, the row after each\n"
    "        mult      --digits 3 times as many, partial products and sums, lowest digit first\n"
    "        recall    the digits behind --queries 4 of --pairs 4 capitals that lie anywhere in --length 256 characters,\n"
    "                  between small ones of --letters 1 kinds; a row's `distance` says how far back. Without --merges\n"
    "                  a character is a token, and a max_length of length + 4 queries + 16 holds every row with the\n"
    "                  chat template plain or deepseek-r1\n"
    "  --rows N          how many; no question comes twice while there are new ones\n"
    "  --seed S          another number gives other rows (default 0)\n"
    "  --out FILE        default: standard output\n"
    "  --split NAME      train (default), eval or all: a question is in train or in eval, whatever the seed\n"
    "  --exclude FILE    leave out the questions of this file of rows\n"
    "  --tokenizer DIR   also write tokenizer.json and tokenizer_config.json\n"
    "  --merges N        joined tokens to learn from the rows (default 0, with --worded 300)\n"
    "\n"
    "tokenizer  learns a byte-level BPE tokenizer from the texts of rows and writes it as Hugging Face's two files.\n"
    "  --rows FILE       questions, thoughts and answers; may be given several times\n"
    "  --format NAME     default auto: by the columns of the first row; text: that column, or lines of plain text\n"
    "  --out DIR         the folder to make; it must be empty or absent\n"
    "  --size N          tokens in all, with 256 bytes and 6 special tokens (default 4096)\n"
    "  --min_count N     do not join neighbours that meet less often (default 2)\n"
    "  --keep_calculator_marks  gsm8k: learn from <<48/2=24>> too, as the run option of this name does\n"
    "  --threads N       default: all cores this process may use; any number learns the same\n"
    "\n"
    "join  puts rows into documents of at most N tokens, each a row of messages with many turns: every question, thought\n"
    "      and answer of every row once, all thoughts and answers learnt. Rows with more than N tokens are left out, named.\n"
    "  --rows FILE       rows of any format; may be given several times\n"
    "  --model DIR       folder with tokenizer.json; --chat_template NAME, default deepseek-r1: both as in training\n"
    "  --tokens N        of a document, at most: a run with max_length N takes every one whole\n"
    "  --out FILE        train on it with format: messages\n"
    "  --seed S          another number gives another order of rows (default 0)\n"
    "  --format NAME     default auto: by the columns of a file's first row\n"
    "  --answer_prefix TEXT, --cot_prompt TEXT  that the run file has: room is left for what training adds\n"
    "  --keep_calculator_marks  gsm8k: leave <<48/2=24>> in the thoughts\n"
    "\n"
    "show  prints rows with the parts prompt, thought, answer and end marked, and what the data set holds.\n"
    "  --model DIR       folder with tokenizer.json\n"
    "  --chat_template NAME  default deepseek-r1; a file (.yaml) that declares a template is shown as it was understood\n"
    "  --format NAME     default auto\n"
    "  --max_length N    default 4096; --truncation error|drop|thought, default error\n"
    "  --rows N          how many rows to print, default 3\n"
    "\n"
    "tokenizer, join and show also take --question_column NAME, --thought_column NAME, --answer_column NAME and so on, as the\n"
    "data sets of a run file do, for rows whose columns have other names, and for files .csv and .tsv --quoting double|none|\n"
    "backslash and --header NAMES.\n";

struct make_request {
    struct demo_request demo;
    const char *out, *tokenizer;
    int64_t merges; /* -1: depends on the task */
};

struct show_request {
    const char *path, *model, *template, *format;
    int64_t rows, max_length;
    enum truncation truncation;
    struct row_columns columns;
    struct table_rules table;
};

enum status data_parse_int(const char *name, const char *text, int64_t low, int64_t high, int64_t *out, struct error *err)
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

enum status data_next_option(int argc, char **argv, int *at, char name[64], const char **value, struct error *err)
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

enum status data_rows_option(const char *name, const char *value, struct row_columns *columns, struct table_rules *table,
                             struct error *err)
{
    bool known;
    TRY(table_rules_set(table, name, value, &known, err));
    if (!known && !row_columns_set(columns, name, value))
        FAIL(err, STATUS_USAGE, "unknown option '--%s'; see loar data --help", name);
    return STATUS_OK;
}

static enum status set_make(struct make_request *request, const char *name, const char *value, struct error *err)
{
    struct demo_settings *s = &request->demo.settings;
    const struct {
        const char *name;
        int *place;
    } numbers[] = {{"length", &s->length}, {"ops", &s->ops}, {"mod", &s->mod}, {"swaps", &s->swaps}, {"cups", &s->cups},
                   {"digits", &s->digits}, {"pairs", &s->pairs}, {"queries", &s->queries}, {"letters", &s->letters}};
    int64_t number = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(numbers[i].name, name)) {
            TRY(data_parse_int(name, value, 1, 1000000, &number, err));
            *numbers[i].place = (int)number;
            return STATUS_OK;
        }
    if (!strcmp(name, "rows"))
        return data_parse_int(name, value, 1, 100000000, &request->demo.rows, err);
    if (!strcmp(name, "merges"))
        return data_parse_int(name, value, 0, 30000, &request->merges, err);
    if (!strcmp(name, "seed")) {
        TRY(data_parse_int(name, value, 0, INT64_MAX, &number, err));
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
    *out = (struct make_request){.merges = -1};
    for (int i = 1; i < argc; i++) {
        char name[64];
        const char *value;
        if (!strcmp(argv[i], "--worded")) {
            out->demo.settings.worded = true;
        } else if (!strncmp(argv[i], "--", 2)) {
            TRY(data_next_option(argc, argv, &i, name, &value, err));
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

enum status data_make_parent(const char *path, struct error *err)
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

enum status data_write_into(const char *folder, const char *name, const struct text *text, struct error *err)
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
    TRY_OR(done, st, data_write_into(request->tokenizer, "tokenizer.json", &tokenizer, err));
    st = data_write_into(request->tokenizer, "tokenizer_config.json", &config, err);
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
    TRY(data_make_parent(request->out, err));
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

static enum status set_show(struct show_request *request, const char *name, const char *value, struct error *err)
{
    if (!strcmp(name, "rows"))
        return data_parse_int(name, value, 0, INT64_MAX, &request->rows, err);
    if (!strcmp(name, "max_length"))
        return data_parse_int(name, value, 2, 1 << 30, &request->max_length, err);
    if (!strcmp(name, "truncation")) {
        if (!truncation_parse(value, &request->truncation))
            FAIL(err, STATUS_USAGE, "--truncation must be error, drop or thought, found '%s'", value);
    } else if (!strcmp(name, "model")) {
        request->model = value;
    } else if (!strcmp(name, "chat_template")) {
        request->template = value;
    } else if (!strcmp(name, "format")) {
        request->format = value;
    } else {
        return data_rows_option(name, value, &request->columns, &request->table, err);
    }
    return STATUS_OK;
}

static enum status parse_show(int argc, char **argv, struct show_request *out, struct error *err)
{
    *out = (struct show_request){.template = "deepseek-r1", .format = "auto", .rows = 3, .max_length = 4096};
    for (int i = 1; i < argc; i++) {
        char name[64];
        const char *value;
        if (!strncmp(argv[i], "--", 2)) {
            TRY(data_next_option(argc, argv, &i, name, &value, err));
            TRY(set_show(out, name, value, err));
        } else if (out->path) {
            FAIL(err, STATUS_USAGE, "one file at a time: '%s' is too much; see loar data --help", argv[i]);
        } else {
            out->path = argv[i];
        }
    }
    if (!out->path || !out->model)
        FAIL(err, STATUS_USAGE, "%s; see loar data --help", out->path ? "--model is missing" : "which file?");
    return STATUS_OK;
}

/* The row as marked runs of one span and one weight each. */
static enum status print_row(const struct dataset *dataset, int64_t index, const struct tokenizer *tokenizer,
                             struct error *err)
{
    struct row row = dataset_row(dataset, index);
    struct row_weights weights = row_weights_begin(&row, (const float[SPAN_COUNT]){1, 1, 1, 1});
    float weight = row_weights_next(&weights, 0), next_weight = weight;
    printf("\nrow %lld: %d tokens, weight %g\n", (long long)index, row.n_tokens, (double)row.weight);
    for (int at = 0, next; at < row.n_tokens; at = next) {
        weight = next_weight;
        for (next = at; next < row.n_tokens && row.spans[next] == row.spans[at] && next_weight == weight;)
            if (++next < row.n_tokens)
                next_weight = row_weights_next(&weights, next);
        struct text text = {0}, quoted = {0}; /* quoted: line breaks become visible */
        enum status st = tokenizer_decode(tokenizer, row.tokens + at, (size_t)(next - at), false, &text, err);
        text_json_string(&quoted, text.data ? text.data : "", text.size);
        if (st == STATUS_OK && quoted.failed)
            st = error_set(err, STATUS_NOMEM, "no memory to print a row");
        if (st == STATUS_OK)
            printf("%-8s %5d  %s", span_name(row.spans[at]), next - at, quoted.data);
        if (st == STATUS_OK && row.spans[at] != SPAN_PROMPT && weight != row.weight)
            printf("  (weight %g)", (double)weight);
        if (st == STATUS_OK)
            printf("\n");
        text_free(&text);
        text_free(&quoted);
        TRY(st);
    }
    return STATUS_OK;
}

static enum status print_dataset(const struct dataset *dataset, const struct show_request *request,
                                 const struct tokenizer *tokenizer, struct error *err)
{
    const struct dataset_part *part = &dataset->parts[0];
    const struct dataset_stats *s = &part->stats;
    printf("%s: format %s, %lld rows read, %lld kept, %lld skipped, %lld too long, %lld without loss, %lld shortened, %lld with a thought\n",
           request->path, part->format, (long long)s->read, (long long)s->kept, (long long)s->skipped,
           (long long)s->too_long, (long long)s->masked, (long long)s->shortened, (long long)s->thoughts);
    printf("tokens:");
    for (int span = 0; span < SPAN_COUNT; span++)
        printf(" %s %lld", span_name(span), (long long)s->tokens[span]);
    printf("; longest row %lld with %d; special-token text in %lld rows\n", (long long)s->longest_row, s->longest,
           (long long)s->special_text);
    if (part->problems)
        printf("first problems:\n%s\n", part->problems);
    for (int64_t i = 0; i < request->rows && i < dataset->rows; i++)
        TRY(print_row(dataset, i, tokenizer, err));
    return STATUS_OK;
}

static enum status print_template(const struct chat_template *template, struct error *err)
{
    struct text text = {0};
    char hash[TEMPLATE_HASH_SIZE];
    TRY(template_hash(template, hash, err));
    template_declare(template, &text);
    if (!text.failed)
        printf("template %s:\n%s\n", hash, text.data);
    bool failed = text.failed;
    text_free(&text);
    if (failed)
        FAIL(err, STATUS_NOMEM, "no memory to print the template");
    return STATUS_OK;
}

static enum status run_show(int argc, char **argv, struct error *err)
{
    struct show_request request;
    TRY(parse_show(argc, argv, &request, err));
    struct dataset_spec spec = {.path = request.path, .format = request.format, .columns = request.columns, .table = request.table,
                                .loss_weight = 1, .weight = 1, .max_samples = -1};
    struct chat_template *template = NULL;
    struct dataset_rules rules = {.max_length = (int)request.max_length,
                                  .truncation = request.truncation, .max_bad_rows = -1, .span_weights = {0, 1, 1, 1}};
    struct dataset dataset = {0};
    struct tokenizer *tokenizer = NULL;
    struct threads *pool = NULL;
    enum status st;
    TRY(template_open(request.template, &template, err));
    rules.template = template;
    TRY_OR(done, st, tokenizer_load(request.model, &tokenizer, err));
    TRY_OR(done, st, template_check(rules.template, tokenizer, err));
    TRY_OR(done, st, threads_create(threads_cores(), &pool, err));
    TRY_OR(done, st, dataset_load(&dataset, &spec, &rules, tokenizer, pool, err));
    if (template_is_declared(template))
        TRY_OR(done, st, print_template(template, err));
    st = print_dataset(&dataset, &request, tokenizer, err);
done:
    template_free(template);
    dataset_free(&dataset);
    tokenizer_free(tokenizer);
    threads_free(pool);
    return st;
}

int cmd_data(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum status (*run)(int argc, char **argv, struct error *err);
    } actions[] = {{"make", run_make}, {"show", run_show}, {"tokenizer", data_tokenizer}, {"join", data_join}};
    struct error err;
    if (argc > 1 && (!strcmp(argv[argc - 1], "--help") || !strcmp(argv[argc - 1], "-h"))) {
        fputs(usage, stdout);
        return 0;
    }
    enum status st = STATUS_OK;
    size_t i = 0;
    while (i < sizeof actions / sizeof *actions && (argc < 2 || strcmp(actions[i].name, argv[1])))
        i++;
    if (i < sizeof actions / sizeof *actions)
        st = actions[i].run(argc - 1, argv + 1, &err);
    else
        st = error_set(&err, STATUS_USAGE, "loar data make, show, tokenizer or join? see loar data --help");
    if (st != STATUS_OK)
        fprintf(stderr, "loar data: %s\n", err.text);
    return status_exit_code(st);
}
