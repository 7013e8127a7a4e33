/* `loar generate`: continues a prompt, or answers the questions of a rows file, thought first. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/memory.h"
#include "launch/classify.h"
#include "launch/commands.h"
#include "launch/generation.h"
#include "launch/run.h"
#include "launch/source.h"
#include "launch/template_choice.h"
#include "worker/data/records.h"
#include "worker/data/rows.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"
#include "worker/infer/generate.h"
#include "worker/infer/score.h"

static const char usage[] =
    "usage: loar generate (--model DIR | --snapshot FILE|RUN_DIR) (--prompt TEXT | --file ROWS) [options]\n"
    "\n"
    "  --model DIR       a Hugging Face folder; one that loar export wrote routes attention as it was trained\n"
    "  --snapshot FILE   a snapshot, or the newest one of a run; its template and settings are used\n"
    "  --adapter DIR     adapters to put beside the model, as loar export --adapter and PEFT write them\n"
    "  --base DIR        the model that a snapshot without frozen tensors belongs to (default: where it was in training)\n"
    "  --prompt TEXT     one question; the answer is written as it comes\n"
    "  --file ROWS       a file of rows as in training; every question is answered\n"
    "  --format NAME     format of the rows (default auto); --question_column NAME, --answer_column NAME and so on name\n"
    "                    columns that are not called as the format calls them; --quoting, --header: how to read .csv and .tsv\n"
    "  --rows N          print only the first N answers (default all)\n"
    "  --score N         compare the answers of the first N rows with those of the file\n"
    "  --task NAME       task of the questions, where attention is routed by task (default: the default task of training);\n"
    "                    for a task that was trained with task_type seq_cls the label of the text is printed, with the\n"
    "                    probabilities of the best ones, and --score gives accuracy and macro F1\n"
    "  --raw             continue the text itself, without a chat template\n"
    "  --seed N          seed of the random numbers\n"
    "  --force-template  let a model answer with another chat template than it was trained with\n"
    "\n"
    "and these keys of a run file, as --key value: chat_template, default_system, thought_open, thought_close,\n"
    "prompt_opens_thought, enable_thinking, cot_prompt, answer_prefix, two_stage,\n"
    "max_thinking_tokens, max_new_tokens, do_sample, temperature, top_p, top_k, stop, loar.allow_leaky_routing.\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage, 3 missing or damaged file, 4 not-a-number.\n";

struct request {
    const char *path, *prompt, *file, *format, *task, *base, *adapter;
    struct row_columns columns;
    struct table_rules table;
    bool snapshot, raw, force_template;
    int64_t rows, score; /* negative: all / none */
    const char *keys[64], *key_values[64]; /* settings of the run file's kind */
    int n_keys;
};

struct session {
    const struct request *request;
    struct source *source;
    struct generation generation;
    struct generator *generator;
    struct arena arena;
    enum span telling;  /* part that is being printed */
    struct text blanks; /* white space that is printed only if more follows */
    int64_t rows;
    struct score score;
};

/* Which of the run file's keys make sense here. */
static bool is_setting(const char *name)
{
    static const char *const names[] = {"default_system", "thought_open", "thought_close", "prompt_opens_thought", "enable_thinking",
                                        "chat_template", "cot_prompt",          "answer_prefix",  "two_stage", "seed",
                                        "do_sample",     "max_thinking_tokens", "max_new_tokens", "temperature", "top_p", "top_k", "stop",
                                        "loar.allow_leaky_routing", "min_thinking_tokens", "thinking_extend_text", "repetition_penalty", "self_consistency"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

/* These may stand without a value. */
static bool is_switch(const char *name)
{
    return !strcmp(name, "do_sample") || !strcmp(name, "two_stage");
}

static enum status parse_count(const char *name, const char *text, int64_t *out, struct error *err)
{
    long long value;
    char rest;
    if (sscanf(text, "%lld%c", &value, &rest) != 1 || value < 0)
        FAIL(err, STATUS_USAGE, "--%s must be a number of rows, found '%s'", name, text);
    *out = value;
    return STATUS_OK;
}

static enum status set(struct request *r, const char *name, const char *value, struct error *err)
{
    const struct {
        const char *name;
        const char **place;
    } texts[] = {{"model", &r->path}, {"snapshot", &r->path}, {"prompt", &r->prompt}, {"file", &r->file}, {"format", &r->format},
                 {"task", &r->task}, {"base", &r->base}, {"adapter", &r->adapter}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (!strcmp(name, texts[i].name)) {
            if (*texts[i].place)
                FAIL(err, STATUS_USAGE, "--%s is one too many; see loar generate --help", name);
            *texts[i].place = value;
            r->snapshot = r->snapshot || !strcmp(name, "snapshot");
            return STATUS_OK;
        }
    if (!strcmp(name, "rows"))
        return parse_count(name, value, &r->rows, err);
    if (!strcmp(name, "score"))
        return parse_count(name, value, &r->score, err);
    bool of_table;
    TRY(table_rules_set(&r->table, name, value, &of_table, err));
    if (of_table || row_columns_set(&r->columns, name, value))
        return STATUS_OK;
    if (!is_setting(name) || r->n_keys == 64)
        FAIL(err, STATUS_USAGE, "unknown option '--%s'; see loar generate --help", name);
    r->keys[r->n_keys] = name;
    r->key_values[r->n_keys++] = value;
    return STATUS_OK;
}

static enum status parse_arguments(int argc, char **argv, struct request *out, struct error *err)
{
    *out = (struct request){.rows = -1, .score = -1};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--raw") || !strcmp(argv[i], "--force-template")) {
            out->raw |= !strcmp(argv[i], "--raw");
            out->force_template |= strcmp(argv[i], "--raw") != 0;
            continue;
        }
        char *name = argv[i], *value = strchr(argv[i], '=');
        if (strncmp(name, "--", 2) && !value)
            FAIL(err, STATUS_USAGE, "unexpected '%s'; see loar generate --help", name);
        name += strncmp(name, "--", 2) ? 0 : 2;
        if (value && (!strchr(name, ' ') || value < strchr(name, ' ')))
            *value++ = '\0';
        else if (is_switch(name) && (i + 1 == argc || !strncmp(argv[i + 1], "--", 2)))
            value = "true";
        else if (i + 1 < argc)
            value = argv[++i];
        else
            FAIL(err, STATUS_USAGE, "--%s needs a value; see loar generate --help", name);
        TRY(set(out, name, value, err));
    }
    if (!out->path)
        FAIL(err, STATUS_USAGE, "--model or --snapshot is needed; see loar generate --help");
    if (out->adapter && (out->snapshot || out->base))
        FAIL(err, STATUS_USAGE, "--adapter goes with --model alone: a snapshot holds its own adapters");
    if (!out->prompt == !out->file)
        FAIL(err, STATUS_USAGE, "either --prompt or --file is needed; see loar generate --help");
    return STATUS_OK;
}

/* Prints text as it comes; the parts are told apart by a heading, and white space round them is left out. */
static void tell(void *context, enum span span, const char *bytes, size_t size)
{
    struct session *s = context;
    if (s->request->raw) {
        fwrite(bytes, 1, size, stdout);
        fflush(stdout);
        return;
    }
    if (s->telling != span)
        text_clear(&s->blanks);
    for (size_t i = 0; i < size; i++) {
        bool blank = isspace((unsigned char)bytes[i]);
        if (blank && s->telling == span)
            text_append(&s->blanks, &bytes[i], 1);
        if (blank)
            continue;
        if (s->telling != span)
            printf("%s%s: ", s->telling == SPAN_PROMPT ? "" : "\n", span == SPAN_THOUGHT ? "thought" : "answer");
        else if (s->blanks.size)
            fwrite(s->blanks.data, 1, s->blanks.size, stdout);
        s->telling = span;
        text_clear(&s->blanks);
        putchar(bytes[i]);
    }
    fflush(stdout);
}

static enum status raw_prompt(struct session *s, struct token_list *ids, struct error *err)
{
    const char *text = s->request->prompt;
    return tokenizer_encode(s->source->tokenizer, text, strlen(text), TOKENIZE_ADDED | TOKENIZE_SPECIALS, ids, err);
}

static enum status answer(struct session *s, struct conversation *conversation, uint64_t stream, bool print, struct generated *out,
                          struct error *err)
{
    struct token_list ids = {0};
    const struct options *o = &s->source->options;
    enum status st = conversation ? conversation_dress(conversation, o->cot_prompt, NULL, &s->arena, err) : STATUS_OK;
    if (st == STATUS_OK)
        st = conversation ? template_prompt(s->generation.template, s->source->tokenizer, conversation, o->two_stage, &ids, err)
                          : raw_prompt(s, &ids, err);
    s->telling = SPAN_PROMPT;
    if (st == STATUS_OK)
        st = generator_run(s->generator, ids.ids, (int)ids.count, stream, print ? tell : NULL, s, out, err);
    if (st == STATUS_OK && print)
        putchar('\n');
    if (st == STATUS_OK && print && out->status != GENERATE_COMPLETE && !s->request->raw)
        printf("(%s)\n", generate_status_name(out->status));
    token_list_free(&ids);
    return st;
}

static enum status answer_row(struct session *s, struct conversation *c, bool print, bool score, struct error *err)
{
    struct generated out = {0};
    const struct message *last = &c->messages[c->count - 1];
    bool has_answer = last->role == ROLE_ASSISTANT;
    const struct message *question = &c->messages[has_answer && c->count > 1 ? c->count - 2 : c->count - 1];
    if (print)
        printf("\nquestion: %.*s\n", (int)question->content_size, question->content);
    enum status st = answer(s, c, (uint64_t)s->rows, print, &out, err);
    struct score one = {0};
    if (st == STATUS_OK && has_answer)
        score_answer(last->content, last->content_size, out.answer.data, out.answer.size, out.status,
                     s->source->options.answer_prefix, &one);
    if (one.rows && print)
        printf("expected: %.*s  %s\n", (int)last->content_size, last->content,
               one.strict ? "(right)" : one.flexible ? "(right number)" : "(wrong)");
    if (one.rows && score)
        score_add(&s->score, &one);
    generated_free(&out);
    return st;
}

static enum status print_score(const struct score *score, struct error *err)
{
    struct text line = {0};
    score_put(score, &line);
    bool failed = line.failed;
    if (!failed)
        printf("\n%s\n", line.data);
    text_free(&line);
    if (failed)
        FAIL(err, STATUS_NOMEM, "no memory to print the score");
    return STATUS_OK;
}

static enum status answer_file(struct session *s, struct records *reader, struct error *err)
{
    const struct request *r = s->request;
    const struct row_options options = {.columns = r->columns,
                                        .thought_open = s->generation.template ? template_thought_open(s->generation.template) : NULL,
                                        .thought_close = s->generation.template ? template_thought_tag(s->generation.template) : NULL};
    const struct row_format *format = NULL;
    if (r->format && strcmp(r->format, "auto")) {
        TRY(row_format_find(r->format, &format, err));
        TRY(row_format_check(format, &r->columns, err));
    }
    for (s->rows = 0; r->rows < 0 || s->rows < r->rows || s->rows < r->score; s->rows++) {
        struct jsonl_record record;
        struct json *row;
        struct conversation conversation;
        bool found;
        TRY(records_next(reader, &record, &found, err));
        if (!found)
            break;
        TRY(records_parse(reader, &record, &row, err));
        arena_reset(&s->arena);
        enum status st = format ? STATUS_OK : row_format_detect(row, r->file, record.line, &options, &format, err);
        if (st == STATUS_OK)
            st = row_read(format, row, r->file, record.line, &options, &s->arena, &conversation, err);
        if (st == STATUS_OK && conversation.plain)
            st = error_set(err, STATUS_DATA, "%s:%lld: a row of plain text asks nothing; give the text with --prompt --raw",
                           r->file, (long long)record.line);
        if (st == STATUS_OK)
            st = answer_row(s, &conversation, r->rows < 0 || s->rows < r->rows, s->rows < r->score, err);
        json_free(row);
        TRY(st);
    }
    return s->score.rows ? print_score(&s->score, err) : STATUS_OK;
}

static enum status make_generator(struct session *s, struct error *err)
{
    const struct source *source = s->source;
    TRY(generation_of_source(source, s->request->task, s->request->raw, &s->generation, err));
    return generator_create(source->model, &source->config, source->values, source->tokenizer, &s->generation.settings, &s->generator, err);
}

/* What is allowed, but hardly what was meant. */
static void warn_of_settings(const struct session *s)
{
    const struct request *r = s->request;
    const struct options *o = &s->source->options;
    bool template = s->source->knows_template || r->raw;
    for (int i = 0; i < r->n_keys; i++) {
        const char *key = r->keys[i];
        template = template || !strcmp(key, "chat_template");
        if (!o->do_sample && (!strcmp(key, "temperature") || !strcmp(key, "top_p") || !strcmp(key, "top_k")))
            log_warn("%s is not used: do_sample is false; give --do_sample true to draw tokens", key);
    }
    if (!template)
        log_warn("the chat template is %s; give --chat_template if the model was trained with another one", o->chat_template);
}

/* The request's settings over those of training, where they are known. */
static enum status set_options(struct session *s, struct error *err)
{
    const struct request *r = s->request;
    struct options *o = &s->source->options;
    bool compare = s->source->knows_template && !r->raw && !r->force_template;
    char trained[TEMPLATE_HASH_SIZE];
    if (compare)
        TRY(template_choice_hash(o, trained, err));
    for (int i = 0; i < r->n_keys; i++)
        TRY(!strcmp(r->keys[i], "chat_template") ? template_choice_set(o, r->key_values[i], err)
                                                 : options_set(o, r->keys[i], r->key_values[i], err));
    return compare ? template_choice_check(trained, o, r->path, err) : STATUS_OK;
}

static enum status generate(struct session *s, struct error *err)
{
    const struct request *r = s->request;
    TRY(set_options(s, err));
    if (!r->raw && classify_is_meant(s->source, r->task))
        return classify(&(struct classify_request){.prompt = r->prompt, .file = r->file, .format = r->format, .task = r->task,
                                                   .columns = r->columns, .table = r->table, .rows = r->rows, .score = r->score},
                        s->source, err);
    warn_of_settings(s);
    TRY(make_generator(s, err));
    if (r->file) {
        struct records reader;
        TRY(records_open(r->file, &r->table, &reader, err));
        enum status st = answer_file(s, &reader, err);
        records_close(&reader);
        return st;
    }
    struct generated out = {0};
    struct message question = {.role = ROLE_USER, .content = r->prompt, .content_size = strlen(r->prompt)};
    struct conversation conversation = {.messages = &question, .count = 1, .weight = 1};
    if (r->raw)
        printf("%s", r->prompt);
    enum status st = answer(s, r->raw ? NULL : &conversation, 0, true, &out, err);
    generated_free(&out);
    return st;
}

int cmd_generate(int argc, char **argv)
{
    struct error err = {0};
    struct request request;
    struct source source = {0};
    struct session session = {.request = &request, .source = &source};
    struct threads *pool = NULL;
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? status_exit_code(STATUS_USAGE) : 0;
    }
    enum status st = parse_arguments(argc, argv, &request, &err);
    if (st == STATUS_OK)
        st = threads_create(run_threads(0, 1), &pool, &err);
    if (st == STATUS_OK)
        st = request.adapter ? source_open(request.adapter, false, request.path, pool, &source, &err)
                             : source_open(request.path, request.snapshot, request.base, pool, &source, &err);
    if (st == STATUS_OK)
        st = generate(&session, &err);
    if (st != STATUS_OK)
        log_error("%s", err.text);
    generator_free(session.generator);
    generation_free(&session.generation);
    arena_free(&session.arena);
    text_free(&session.blanks);
    source_close(&source);
    threads_free(pool);
    return status_exit_code(st);
}
