/* `loar chat`: a conversation with a model, a line at a time, thoughts apart from answers. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/memory.h"
#include "common/signals.h"
#include "launch/commands.h"
#include "launch/generation.h"
#include "launch/request.h"
#include "launch/run.h"
#include "launch/source.h"
#include "launch/speech.h"
#include "launch/talk.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"
#include "worker/infer/vote.h"

static const char usage[] =
    "usage: loar chat (--model DIR | --snapshot FILE|RUN_DIR) [options]\n"
    "\n"
    "Every line is a question; the answer is written as it comes, the thought dimmed on a terminal. Earlier turns are part of\n"
    "the prompt, their thoughts are not. Ctrl-C stops the answer, Ctrl-D leaves.\n"
    "\n"
    "  --model DIR       a Hugging Face folder\n"
    "  --snapshot FILE   a snapshot, or the newest one of a run; its template and settings are used\n"
    "  --adapter DIR     adapters to put beside the model\n"
    "  --base DIR        the model that a snapshot without frozen tensors belongs to (default: where it was in training)\n"
    "  --task NAME       task of the questions, where attention is routed by task\n"
    "  --system TEXT     text of the system, before the first question\n"
    "  --threads N       default: all cores\n"
    "  --force-template  let a model answer with another chat template than it was trained with\n"
    "  --recommended     draw tokens as DeepSeek advises for R1: do_sample, temperature 0.6, top_p 0.95\n"
    "\n"
    "and these keys of a run file, as --key value: chat_template, default_system, thought_open, thought_close,\n"
    "prompt_opens_thought, enable_thinking, cot_prompt, answer_prefix, two_stage, max_thinking_tokens, min_thinking_tokens,\n"
    "thinking_extend_text, max_new_tokens, do_sample, temperature, top_p, top_k, repetition_penalty, self_consistency, stop, seed,\n"
    "loar.allow_leaky_routing.\n"
    "\n"
    "Lines that begin with a stroke: /reset forgets the conversation, /system TEXT sets the system's text (/system alone takes\n"
    "it away), /show prints settings, /help lists these, /exit leaves.\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage, 3 missing or damaged file, 4 not-a-number.\n";

struct chat {
    struct request request;
    const char *system; /* NULL: none given */
    bool recommended;
    struct source source;
    struct generation generation;
    struct generator *generator;
    struct talk talk;
    struct speech speech;
    struct text line;
    uint64_t asked;  /* questions so far, which keeps their random numbers apart */
    int last_tokens; /* of the last prompt */
    bool stopped;    /* the present answer was */
    bool leaves;
};

/* Takes this command's own words out; the others are those of every command that lets a model answer. */
static enum status take_own_words(struct chat *c, int *argc, char **argv, struct error *err)
{
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        if (!strcmp(argv[i], "--recommended")) {
            c->recommended = true;
        } else if (!strncmp(argv[i], "--system=", 9)) {
            c->system = argv[i] + 9;
        } else if (!strcmp(argv[i], "--system")) {
            if (i + 1 == *argc)
                FAIL(err, STATUS_USAGE, "--system needs a value; see loar chat --help");
            c->system = argv[++i];
        } else {
            argv[kept++] = argv[i];
        }
    }
    *argc = kept;
    return STATUS_OK;
}

static enum status parse_arguments(struct chat *c, int argc, char **argv, struct error *err)
{
    TRY(take_own_words(c, &argc, argv, err));
    TRY(request_parse("chat", argc, argv, &c->request, err));
    const struct request *r = &c->request;
    const struct {
        const char *name;
        bool given;
    } idle[] = {{"prompt", r->prompt}, {"file", r->file}, {"lines", r->lines}, {"format", r->format}, {"out", r->out}, {"json", r->json},
                {"raw", r->raw}, {"rows", r->rows >= 0}, {"score", r->score >= 0},
                {"num_return_sequences", r->num_return_sequences >= 0}};
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++)
        if (idle[i].given)
            FAIL(err, STATUS_USAGE, "loar chat has no use for --%s: it reads questions from standard input; see loar chat --help", idle[i].name);
    return STATUS_OK;
}

static bool is_given(const struct request *r, const char *key)
{
    for (int i = 0; i < r->n_keys; i++)
        if (!strcmp(r->keys[i], key))
            return true;
    return false;
}

/* As the makers of R1 advise (the model's README, "Usage Recommendations"); keys that were given stay. */
static enum status recommend(const struct request *r, struct options *options, struct error *err)
{
    static const char *const advice[][2] = {{"do_sample", "true"}, {"temperature", "0.6"}, {"top_p", "0.95"}};
    for (size_t i = 0; i < sizeof advice / sizeof *advice; i++)
        if (!is_given(r, advice[i][0]))
            TRY(options_set(options, advice[i][0], advice[i][1], err));
    return STATUS_OK;
}

/* A generate_stop_fn. */
static bool is_stopped(void *context)
{
    struct chat *c = context;
    c->stopped |= signals_take_stop();
    return c->stopped;
}

static enum status open_chat(struct chat *c, struct threads *pool, struct error *err)
{
    struct source *s = &c->source;
    TRY(request_open(&c->request, pool, s, err));
    if (c->recommended)
        TRY(recommend(&c->request, &s->options, err));
    request_warn(&c->request, s);
    TRY(generation_of_source(s, c->request.task, false, &c->generation, err));
    if (!is_given(&c->request, "do_sample") && !s->options.do_sample && template_expects_thoughts(c->generation.template))
        log_info("models that think are meant to draw tokens, and may repeat themselves without; --recommended does as R1's makers advise");
    TRY(generator_create(s->model, &s->config, s->values, s->tokenizer, &c->generation.settings, &c->generator, err));
    generator_set_stop(c->generator, is_stopped, c);
    return c->system ? talk_set_system(&c->talk, c->system, err) : STATUS_OK;
}

/* Generates, and prints as it comes, or after the vote where several samples are drawn. */
static enum status speak(struct chat *c, const struct token_list *prompt, struct generated *out, struct error *err)
{
    struct votes votes = {0};
    struct text line = {0};
    speech_begin(&c->speech);
    enum status st = vote_run(c->generator, &c->generation.settings, prompt->ids, (int)prompt->count, c->asked++, speech_tell,
                              &c->speech, out, &votes, err);
    if (st == STATUS_OK && c->generation.settings.self_consistency > 1) {
        speech_tell(&c->speech, SPAN_THOUGHT, out->thought.data ? out->thought.data : "", out->thought.size);
        speech_tell(&c->speech, SPAN_ANSWER, out->answer.data ? out->answer.data : "", out->answer.size);
        votes_put(&votes, &line);
    }
    const char *note = c->stopped ? "stopped" : out->status == GENERATE_COMPLETE ? NULL : generate_status_name(out->status);
    speech_end(&c->speech, st == STATUS_OK ? note : NULL);
    if (line.data && !line.failed)
        printf("(%s)\n", line.data);
    text_free(&line);
    votes_free(&votes);
    return st;
}

static enum status answer(struct chat *c, struct generated *out, struct error *err)
{
    const struct options *o = &c->source.options;
    struct conversation conversation;
    struct token_list prompt = {0};
    c->stopped = false;
    (void)signals_take_stop(); /* one that came before the question */
    enum status st = talk_conversation(&c->talk, o->cot_prompt, &conversation, err);
    if (st == STATUS_OK)
        st = template_prompt(c->generation.template, c->source.tokenizer, &conversation, c->generation.settings.two_stage, &prompt, err);
    if (st == STATUS_OK)
        st = speak(c, &prompt, out, err);
    if (st == STATUS_OK)
        c->last_tokens = (int)prompt.count;
    token_list_free(&prompt);
    return st;
}

/* A question that cannot be asked, such as one that is too long, is taken back; the conversation goes on. */
static enum status ask(struct chat *c, const char *question, size_t size, struct error *err)
{
    struct generated out = {0};
    if (memchr(question, '\0', size)) {
        log_warn("the question holds a NUL character, and is not asked");
        return STATUS_OK;
    }
    TRY(talk_ask(&c->talk, question, size, err));
    enum status st = answer(c, &out, err);
    if (st == STATUS_DATA) {
        log_warn("%s; the question is not asked%s", err->text, talk_turns(&c->talk) ? " (/reset forgets what was said before)" : "");
        st = STATUS_OK;
    } else if (st == STATUS_OK && out.status != GENERATE_NO_ANSWER && out.answer.size) {
        st = talk_reply(&c->talk, c->source.options.answer_prefix, out.answer.data, out.answer.size, err);
    }
    talk_drop_question(&c->talk);
    generated_free(&out);
    return st;
}

static enum status do_reset(struct chat *c, const char *rest, struct error *err)
{
    (void)rest, (void)err;
    talk_reset(&c->talk);
    puts("(the conversation begins anew)");
    return STATUS_OK;
}

static enum status do_system(struct chat *c, const char *rest, struct error *err)
{
    TRY(talk_set_system(&c->talk, rest, err));
    puts(*rest ? "(the system's text is set)" : "(there is no text of the system)");
    return STATUS_OK;
}

static enum status do_show(struct chat *c, const char *rest, struct error *err)
{
    static const char *const keys[] = {"chat_template", "default_system", "enable_thinking", "cot_prompt", "answer_prefix", "two_stage",
                                       "max_thinking_tokens", "min_thinking_tokens", "thinking_extend_text", "max_new_tokens",
                                       "do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "self_consistency",
                                       "stop", "seed"};
    (void)rest, (void)err;
    printf("model: %s\n", c->request.path);
    printf("system: %s\n", talk_system(&c->talk) ? talk_system(&c->talk) : "(none)");
    printf("turns: %d; the last prompt had %d tokens of %lld positions\n", talk_turns(&c->talk), c->last_tokens,
           (long long)c->source.config.max_positions);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct text value = {0};
        if (options_get(&c->source.options, keys[i], &value) && !value.failed)
            printf("%s: %s\n", keys[i], value.data ? value.data : "");
        text_free(&value);
    }
    return STATUS_OK;
}

static enum status do_exit(struct chat *c, const char *rest, struct error *err)
{
    (void)rest, (void)err;
    c->leaves = true;
    return STATUS_OK;
}

static enum status do_help(struct chat *c, const char *rest, struct error *err);

static const struct {
    const char *name, *help;
    enum status (*run)(struct chat *c, const char *rest, struct error *err);
} commands[] = {{"/reset", "forget the conversation", do_reset},
                {"/system", "TEXT: set the system's text; without one: take it away", do_system},
                {"/show", "settings, and how long the conversation is", do_show},
                {"/help", "this list", do_help},
                {"/exit", "leave", do_exit}};
enum { COMMANDS = sizeof commands / sizeof *commands };

static enum status do_help(struct chat *c, const char *rest, struct error *err)
{
    (void)c, (void)rest, (void)err;
    for (int i = 0; i < COMMANDS; i++)
        printf("%-8s %s\n", commands[i].name, commands[i].help);
    return STATUS_OK;
}

static enum status take_line(struct chat *c, struct error *err)
{
    struct text *text = &c->line;
    if (text->size && text->data[text->size - 1] == '\r')
        text->data[--text->size] = '\0';
    if (text->failed)
        FAIL(err, STATUS_NOMEM, "no memory for a question");
    const char *line = text->size ? text->data : "";
    size_t size = text->size;
    if (strspn(line, " \t") == size)
        return STATUS_OK;
    if (*line != '/')
        return ask(c, line, size, err);
    size_t word = strcspn(line, " ");
    const char *rest = line + word + strspn(line + word, " ");
    for (int i = 0; i < COMMANDS; i++)
        if (strlen(commands[i].name) == word && !strncmp(line, commands[i].name, word))
            return commands[i].run(c, rest, err);
    log_warn("there is no '%.*s'; /help lists what there is", (int)word, line);
    return STATUS_OK;
}

/* Puts the next line into c->line, without its end. False at the end of the input; EINTR in errno where a signal came. */
static bool read_line(struct chat *c, FILE *in)
{
    int byte;
    text_clear(&c->line);
    errno = 0;
    while ((byte = getc(in)) != EOF && byte != '\n')
        text_append(&c->line, &(char){(char)byte}, 1);
    return byte != EOF || (c->line.size && errno != EINTR);
}

/* Reads and answers until the end of the input. */
static enum status converse(struct chat *c, FILE *in, struct error *err)
{
    bool person = isatty(fileno(in)) && isatty(STDOUT_FILENO);
    while (!c->leaves) {
        if (person)
            fputs("> ", stdout);
        fflush(stdout);
        if (read_line(c, in)) {
            TRY(take_line(c, err));
            continue;
        }
        if (errno != EINTR)
            break;
        clearerr(in);
        if (person)
            puts("\n(Ctrl-D or /exit leaves)");
    }
    if (ferror(in))
        FAIL(err, STATUS_IO, "reading the questions failed: %s", strerror(errno));
    if (person && !c->leaves)
        putchar('\n');
    return STATUS_OK;
}

int cmd_chat(int argc, char **argv)
{
    struct error err = {0};
    struct chat chat = {.speech = {.out = stdout, .terminal = isatty(STDOUT_FILENO)}};
    struct threads *pool = NULL;
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? status_exit_code(STATUS_USAGE) : 0;
    }
    enum status st = parse_arguments(&chat, argc, argv, &err);
    if (st == STATUS_OK)
        st = threads_create(run_threads(chat.request.threads > 0 ? chat.request.threads : 0, 1), &pool, &err);
    if (st == STATUS_OK)
        st = open_chat(&chat, pool, &err);
    if (st == STATUS_OK) {
        signals_install_interrupt();
        st = converse(&chat, stdin, &err);
    }
    if (st != STATUS_OK)
        log_error("%s", err.text);
    generator_free(chat.generator);
    generation_free(&chat.generation);
    talk_free(&chat.talk);
    speech_free(&chat.speech);
    text_free(&chat.line);
    source_close(&chat.source);
    threads_free(pool);
    return status_exit_code(st);
}
