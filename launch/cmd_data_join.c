/* `loar data join`: rows as long documents of many turns, for training at a length that single rows do not have. */
#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/cmd_data.h"
#include "worker/data/join.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"

struct request {
    struct join_request join;
    const char **paths; /* [argc] */
    const char *model, *template, *out;
    struct chat_template *opened;
};

static enum status set_option(struct request *r, const char *name, const char *value, struct error *err)
{
    const struct {
        const char *name, **place;
    } texts[] = {{"model", &r->model}, {"chat_template", &r->template}, {"out", &r->out}, {"format", &r->join.format},
                 {"cot_prompt", &r->join.cot_prompt}, {"answer_prefix", &r->join.answer_prefix}};
    int64_t number;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!strcmp(texts[i].name, name)) {
            *texts[i].place = value;
            return STATUS_OK;
        }
    if (!strcmp(name, "rows")) {
        r->paths[r->join.n_paths++] = value;
    } else if (!strcmp(name, "tokens")) {
        TRY(data_parse_int(name, value, 2, 1 << 30, &number, err));
        r->join.tokens = (int)number;
    } else if (!strcmp(name, "seed")) {
        TRY(data_parse_int(name, value, 0, INT64_MAX, &number, err));
        r->join.seed = (uint64_t)number;
    } else {
        return data_rows_option(name, value, &r->join.columns, &r->join.table, err);
    }
    return STATUS_OK;
}

static enum status parse(int argc, char **argv, struct request *out, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        char name[64];
        const char *value;
        if (!strcmp(argv[i], "--keep_calculator_marks")) {
            out->join.keep_calculator_marks = true;
            continue;
        }
        if (strncmp(argv[i], "--", 2))
            FAIL(err, STATUS_USAGE, "'%s' is too much; files of rows are named by --rows; see loar data --help", argv[i]);
        TRY(data_next_option(argc, argv, &i, name, &value, err));
        TRY(set_option(out, name, value, err));
    }
    const char *missing = !out->join.n_paths ? "--rows FILE" : !out->model ? "--model DIR" : !out->join.tokens ? "--tokens N"
                          : !out->out        ? "--out FILE"  : NULL;
    if (missing)
        FAIL(err, STATUS_USAGE, "%s is missing; see loar data --help", missing);
    TRY(template_open(out->template, &out->opened, err));
    out->join.template = out->opened;
    return STATUS_OK;
}

static void print_report(const struct request *request, const struct join_report *r)
{
    const struct join_request *join = &request->join;
    printf("%lld rows read, %lld joined into %lld document%s, %lld left out\n", (long long)r->rows, (long long)r->joined,
           (long long)r->documents, r->documents == 1 ? "" : "s", (long long)r->too_long);
    for (int i = 0; i < r->problems.shown; i++)
        printf("  left out: %s\n", r->problems.lines[i]);
    if (r->too_long > r->problems.shown)
        printf("  left out: %lld more\n", (long long)(r->too_long - r->problems.shown));
    double documents = (double)r->documents;
    printf("a document holds %.1f rows and %.1f tokens in the mean (%.1f%% of %d), %d at most\n", (double)r->joined / documents,
           (double)r->tokens / documents, 100 * (double)r->tokens / documents / join->tokens, join->tokens, r->longest);
    printf("%s: train with format: messages, chat_template: %s, max_length: %d or more", request->out, request->template,
           r->longest);
    bool added = (join->cot_prompt && *join->cot_prompt) || (join->answer_prefix && *join->answer_prefix);
    printf(added ? ", and the cot_prompt and answer_prefix given here\n" : "\n");
}

static enum status run(const struct request *request, struct error *err)
{
    struct tokenizer *tokenizer = NULL;
    struct text lines = {0};
    struct join_report report = {0};
    enum status st;
    TRY_OR(done, st, tokenizer_load(request->model, &tokenizer, err));
    TRY_OR(done, st, join_documents(&request->join, tokenizer, &lines, &report, err));
    TRY_OR(done, st, data_make_parent(request->out, err));
    TRY_OR(done, st, file_replace(request->out, lines.data, lines.size, err));
    print_report(request, &report);
done:
    problems_clear(&report.problems);
    text_free(&lines);
    tokenizer_free(tokenizer);
    return st;
}

enum status data_join(int argc, char **argv, struct error *err)
{
    struct request request = {.join = {.format = "auto"}, .template = "deepseek-r1"};
    request.paths = mem_alloc((size_t)argc, sizeof *request.paths);
    if (!request.paths)
        FAIL(err, STATUS_NOMEM, "no memory for a list of files");
    request.join.paths = request.paths;
    enum status st = parse(argc, argv, &request, err);
    if (st == STATUS_OK)
        st = run(&request, err);
    template_free(request.opened);
    mem_free(request.paths);
    return st;
}
