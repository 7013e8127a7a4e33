/* `loar detokenize --model DIR [FILE]`: token ids to text, a line at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/threads.h"
#include "launch/commands.h"
#include "launch/lines.h"
#include "worker/data/tokenizer.h"

static const char usage[] =
    "usage: loar detokenize --model DIR [FILE] [--skip-special] [--json] [--threads N]\n"
    "\n"
    "Writes the text of every line of FILE (or of standard input), each a JSON array of token ids.\n"
    "\n"
    "  --model DIR     folder with tokenizer.json (and tokenizer_config.json), or such a file\n"
    "  --skip-special  leave out special tokens such as BOS; default: they are spelt out\n"
    "  --json          write every text as a JSON string, so that line ends inside it stay on one line\n"
    "  --threads N     default: all cores this process may use\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage, 3 a missing or broken file, or a line that is no array of known ids.\n";

struct request {
    const char *model, *path;
    bool skip_special, json;
    int threads;
    struct tokenizer *tokenizer;
};

static enum status parse_arguments(int argc, char **argv, struct request *out, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (!strcmp(argv[i], "--skip-special"))
            out->skip_special = true;
        else if (!strcmp(argv[i], "--json"))
            out->json = true;
        else if (!strcmp(argv[i], "--model") && has_value)
            out->model = argv[++i];
        else if (!strcmp(argv[i], "--threads") && has_value)
            out->threads = atoi(argv[++i]);
        else if (argv[i][0] == '-' && argv[i][1])
            FAIL(err, STATUS_USAGE, "unknown option '%s', or one without its value; see loar detokenize --help", argv[i]);
        else if (!out->path)
            out->path = argv[i];
        else
            FAIL(err, STATUS_USAGE, "too many arguments: '%s'; see loar detokenize --help", argv[i]);
    }
    if (!out->model)
        FAIL(err, STATUS_USAGE, "--model is needed: the folder of a tokenizer; see loar detokenize --help");
    if (out->threads < 1 || out->threads > 1024)
        FAIL(err, STATUS_USAGE, "--threads must be a number from 1 to 1024");
    return STATUS_OK;
}

static enum status read_ids(const struct request *request, const struct json *list, const char *where, struct token_list *ids,
                            struct error *err)
{
    if (json_kind(list) != JSON_KIND_ARRAY)
        FAIL(err, STATUS_DATA, "%s: a JSON array of token ids is needed, found %s", where, json_kind_name(json_kind(list)));
    for (size_t i = 0; i < json_count(list); i++) {
        const struct json *value = json_at(list, i);
        size_t size;
        int64_t id = json_kind(value) == JSON_KIND_INT ? json_to_int(value) : -1;
        if (id < 0 || id >= tokenizer_size(request->tokenizer) || !tokenizer_token(request->tokenizer, (int32_t)id, &size))
            FAIL(err, STATUS_DATA, "%s: element %zu must be the id of a token, from 0 to %d, found %s %lld", where, i,
                 tokenizer_size(request->tokenizer) - 1, json_kind_name(json_kind(value)),
                 json_kind(value) == JSON_KIND_INT ? (long long)json_to_int(value) : 0LL);
        TRY(token_list_add(ids, &(int32_t){(int32_t)id}, 1, err));
    }
    return STATUS_OK;
}

static enum status decode_line(void *context, const char *line, size_t size, const char *where, struct text *out,
                               struct error *err)
{
    const struct request *request = context;
    struct json *list;
    struct token_list ids = {0};
    struct text text = {0};
    TRY(json_parse(line, size, where, &list, err));
    enum status st = read_ids(request, list, where, &ids, err);
    if (st == STATUS_OK)
        st = tokenizer_decode(request->tokenizer, ids.ids, ids.count, request->skip_special, request->json ? &text : out, err);
    if (request->json)
        text_json_string(out, text.data ? text.data : "", text.size);
    text_puts(out, "\n");
    text_free(&text);
    token_list_free(&ids);
    json_free(list);
    return st;
}

int cmd_detokenize(int argc, char **argv)
{
    struct request request = {.threads = threads_cores()};
    struct error err;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            return 0;
        }
    enum status st = parse_arguments(argc, argv, &request, &err);
    if (st == STATUS_OK)
        st = tokenizer_load(request.model, &request.tokenizer, &err);
    if (st == STATUS_OK)
        st = lines_run(request.path, request.threads, decode_line, &request, &err);
    tokenizer_free(request.tokenizer);
    if (st != STATUS_OK)
        fprintf(stderr, "loar detokenize: %s\n", err.text);
    return status_exit_code(st);
}
