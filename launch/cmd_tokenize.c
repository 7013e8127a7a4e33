/* `loar tokenize --model DIR [FILE]`: text to token ids, a line at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/threads.h"
#include "launch/commands.h"
#include "launch/lines.h"
#include "worker/data/tokenizer.h"

static const char usage[] =
    "usage: loar tokenize --model DIR [FILE] [--no-special] [--plain] [--json] [--threads N]\n"
    "\n"
    "Writes the token ids of every line of FILE (or of standard input) as one JSON array a line.\n"
    "\n"
    "  --model DIR   folder with tokenizer.json (and tokenizer_config.json), or such a file\n"
    "  --no-special  without what the tokenizer puts round a text, such as BOS; default: as transformers does with\n"
    "                add_special_tokens=True\n"
    "  --plain       encode as text of users is encoded in training: <think> and the like are text, not tokens\n"
    "  --json        every line holds a JSON string, which may hold line ends\n"
    "  --threads N   default: all cores this process may use\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage, 3 a missing or broken file, or a line that is not UTF-8.\n";

struct request {
    const char *model, *path;
    unsigned flags;
    bool json;
    int threads;
    struct tokenizer *tokenizer;
};

static enum status parse_arguments(int argc, char **argv, struct request *out, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (!strcmp(argv[i], "--no-special"))
            out->flags &= ~(unsigned)TOKENIZE_SPECIALS;
        else if (!strcmp(argv[i], "--plain"))
            out->flags &= ~(unsigned)TOKENIZE_ADDED;
        else if (!strcmp(argv[i], "--json"))
            out->json = true;
        else if (!strcmp(argv[i], "--model") && has_value)
            out->model = argv[++i];
        else if (!strcmp(argv[i], "--threads") && has_value)
            out->threads = atoi(argv[++i]);
        else if (argv[i][0] == '-' && argv[i][1])
            FAIL(err, STATUS_USAGE, "unknown option '%s', or one without its value; see loar tokenize --help", argv[i]);
        else if (!out->path)
            out->path = argv[i];
        else
            FAIL(err, STATUS_USAGE, "too many arguments: '%s'; see loar tokenize --help", argv[i]);
    }
    if (!out->model)
        FAIL(err, STATUS_USAGE, "--model is needed: the folder of a tokenizer; see loar tokenize --help");
    if (out->threads < 1 || out->threads > 1024)
        FAIL(err, STATUS_USAGE, "--threads must be a number from 1 to 1024");
    return STATUS_OK;
}

static enum status encode(const struct request *request, const char *text, size_t size, const char *where, struct text *out,
                          struct error *err)
{
    struct token_list ids = {0};
    enum status st = tokenizer_encode(request->tokenizer, text, size, request->flags, &ids, err);
    if (st != STATUS_OK)
        error_prefix(err, "%s", where);
    text_puts(out, "[");
    for (size_t i = 0; i < ids.count; i++)
        text_printf(out, i ? ", %d" : "%d", ids.ids[i]);
    text_puts(out, "]\n");
    token_list_free(&ids);
    return st;
}

static enum status encode_line(void *context, const char *line, size_t size, const char *where, struct text *out,
                               struct error *err)
{
    const struct request *request = context;
    if (!request->json)
        return encode(request, line, size, where, out, err);
    struct json *value;
    TRY(json_parse(line, size, where, &value, err));
    size_t length;
    const char *text = json_to_string(value, &length);
    enum status st = text ? encode(request, text, length, where, out, err)
                          : error_set(err, STATUS_DATA, "%s: a JSON string is needed, found %s", where, json_kind_name(json_kind(value)));
    json_free(value);
    return st;
}

int cmd_tokenize(int argc, char **argv)
{
    struct request request = {.flags = TOKENIZE_ADDED | TOKENIZE_SPECIALS, .threads = threads_cores()};
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
        st = lines_run(request.path, request.threads, encode_line, &request, &err);
    tokenizer_free(request.tokenizer);
    if (st != STATUS_OK)
        fprintf(stderr, "loar tokenize: %s\n", err.text);
    return status_exit_code(st);
}
