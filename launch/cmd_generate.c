/* `loar generate`: continues a prompt, or answers the questions of a rows file, thought first. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/memory.h"
#include "launch/answers_file.h"
#include "launch/classify.h"
#include "launch/commands.h"
#include "launch/generation.h"
#include "launch/questions.h"
#include "launch/request.h"
#include "launch/run.h"
#include "launch/source.h"
#include "launch/speech.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"
#include "worker/infer/generate.h"
#include "worker/infer/score.h"
#include "worker/infer/vote.h"

static const char usage[] =
    "usage: loar generate (--model DIR | --snapshot FILE|RUN_DIR) (--prompt TEXT | --file ROWS | --lines FILE) [options]\n"
    "\n"
    "  --model DIR       a Hugging Face folder; one that loar export wrote routes attention as it was trained\n"
    "  --snapshot FILE   a snapshot, or the newest one of a run; its template and settings are used\n"
    "  --adapter DIR     adapters to put beside the model, as loar export --adapter and PEFT write them\n"
    "  --base DIR        the model that a snapshot without frozen tensors belongs to (default: where it was in training)\n"
    "  --prompt TEXT     one question; the answer is written as it comes\n"
    "  --file ROWS       a file of rows as in training; every question is answered\n"
    "  --lines FILE      questions of plain text, one a line; -: standard input\n"
    "  --out FILE        write the answers as JSON, one a line, instead of printing them (-: to standard output), with prompt,\n"
    "                    thought, answer, status, tokens, and, where there are any, sequence, votes, expected and right; rows are\n"
    "                    answered on all threads, or on --threads N, with the same answers for any number\n"
    "  --format NAME     format of the rows (default auto); --question_column NAME, --answer_column NAME and so on name\n"
    "                    columns that are not called as the format calls them; --quoting, --header: how to read .csv and .tsv\n"
    "  --rows N          print or write only the first N answers (default all)\n"
    "  --score N         compare the answers of the first N rows with those of the file\n"
    "  --task NAME       task of the questions, where attention is routed by task (default: the default task of training);\n"
    "                    for a task that was trained with task_type seq_cls the label of the text is printed, with the\n"
    "                    probabilities of the best ones, and --score gives accuracy and macro F1\n"
    "  --num_return_sequences N  so many answers to each question, drawn apart; needs do_sample\n"
    "  --raw             continue the text itself, without a chat template\n"
    "  --seed N          seed of the random numbers\n"
    "  --force-template  let a model answer with another chat template than it was trained with\n"
    "\n"
    "and these keys of a run file, as --key value: chat_template, default_system, thought_open, thought_close,\n"
    "prompt_opens_thought, enable_thinking, cot_prompt, answer_prefix, two_stage,\n"
    "max_thinking_tokens, min_thinking_tokens, thinking_extend_text, max_new_tokens, do_sample, temperature, top_p, top_k,\n"
    "repetition_penalty, self_consistency, stop, loar.allow_leaky_routing.\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage, 3 missing or damaged file, 4 not-a-number.\n";

struct session {
    const struct request *request;
    struct source *source;
    struct generation generation;
    struct generator *generator;
    struct arena arena;
    struct speech speech;
    struct votes votes;
    int64_t answers;
    struct score score;
};

/* As it comes; raw text has no parts. */
static void tell(void *context, enum span span, const char *bytes, size_t size)
{
    struct session *s = context;
    if (!s->request->raw) {
        speech_tell(&s->speech, span, bytes, size);
        return;
    }
    fwrite(bytes, 1, size, stdout);
    fflush(stdout);
}

/* The winner of a vote, which nobody could listen to. */
static enum status print_winner(struct session *s, const struct generated *out, struct error *err)
{
    struct text line = {0};
    if (out->thought.size)
        tell(s, SPAN_THOUGHT, out->thought.data, out->thought.size);
    if (out->answer.size)
        tell(s, SPAN_ANSWER, out->answer.data, out->answer.size);
    votes_put(&s->votes, &line);
    bool failed = line.failed;
    if (!failed)
        printf("\n(%s)", line.data);
    text_free(&line);
    if (failed)
        FAIL(err, STATUS_NOMEM, "no memory to print the votes");
    return STATUS_OK;
}

static enum status answer(struct session *s, const struct token_list *ids, uint64_t stream, bool print, struct generated *out,
                          struct error *err)
{
    const struct generate_settings *settings = &s->generation.settings;
    speech_begin(&s->speech);
    TRY(vote_run(s->generator, settings, ids->ids, (int)ids->count, stream, print ? tell : NULL, s, out, &s->votes, err));
    if (!print)
        return STATUS_OK;
    if (s->votes.samples > 1)
        TRY(print_winner(s, out, err));
    putchar('\n');
    if (out->status != GENERATE_COMPLETE && !s->request->raw)
        printf("(%s)\n", generate_status_name(out->status));
    return STATUS_OK;
}

static enum status ask(struct session *s, const struct conversation *conversation, uint64_t stream, bool print, struct generated *out,
                       struct error *err)
{
    struct token_list ids = {0};
    const char *text = s->request->prompt;
    enum status st = conversation ? template_prompt(s->generation.template, s->source->tokenizer, conversation,
                                                    s->generation.settings.two_stage, &ids, err)
                                  : tokenizer_encode(s->source->tokenizer, text, strlen(text), TOKENIZE_ADDED | TOKENIZE_SPECIALS, &ids, err);
    if (st == STATUS_OK)
        st = answer(s, &ids, stream, print, out, err);
    token_list_free(&ids);
    return st;
}

/* Where there are several answers to a question. */
static void print_number(const struct session *s, int64_t sequence)
{
    if (request_sequences(s->request) > 1)
        printf("%sanswer %lld of %lld:\n", sequence ? "\n" : "", (long long)sequence + 1, (long long)request_sequences(s->request));
}

static enum status answer_row(struct session *s, const struct question *q, int64_t sequence, bool print, bool score, struct error *err)
{
    struct generated out = {0};
    struct score one = {0};
    if (print && !sequence)
        printf("\nquestion: %.*s\n", (int)q->asked->content_size, q->asked->content);
    if (print)
        print_number(s, sequence);
    enum status st = ask(s, &q->conversation, (uint64_t)s->answers, print, &out, err);
    if (st == STATUS_OK && q->expected)
        score_answer(q->expected->content, q->expected->content_size, out.answer.data, out.answer.size, out.status,
                     s->generation.settings.answer_prefix, &one);
    if (one.rows && print)
        printf("expected: %.*s  %s\n", (int)q->expected->content_size, q->expected->content,
               one.strict ? "(right)" : one.flexible ? "(right number)" : "(wrong)");
    if (score)
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

/* Each answer is printed as it comes. */
static enum status answer_file(struct session *s, struct questions *questions, struct error *err)
{
    const struct request *r = s->request;
    for (int64_t row = 0; r->rows < 0 || row < r->rows || row < r->score; row = ++s->answers / questions->times) {
        struct question question;
        bool found;
        TRY(questions_next(questions, s->source->options.cot_prompt, &question, &found, err));
        if (!found)
            break;
        TRY(answer_row(s, &question, questions->time, r->rows < 0 || row < r->rows, row < r->score, err));
    }
    return s->score.rows ? print_score(&s->score, err) : STATUS_OK;
}

static enum status answer_prompt(struct session *s, struct error *err)
{
    const struct request *r = s->request;
    struct generated out = {0};
    struct message question = {.role = ROLE_USER, .content = r->prompt, .content_size = strlen(r->prompt)};
    struct conversation conversation = {.messages = &question, .count = 1, .weight = 1};
    enum status st = r->raw ? STATUS_OK : conversation_dress(&conversation, s->source->options.cot_prompt, NULL, &s->arena, err);
    for (int64_t i = 0; i < request_sequences(r) && st == STATUS_OK; i++) {
        print_number(s, i);
        if (r->raw)
            printf("%s", r->prompt);
        st = ask(s, r->raw ? NULL : &conversation, (uint64_t)i, true, &out, err);
    }
    generated_free(&out);
    return st;
}

static enum status make_generator(struct session *s, struct error *err)
{
    const struct source *source = s->source;
    TRY(generation_of_source(source, s->request->task, s->request->raw, &s->generation, err));
    return generator_create(source->model, &source->config, source->values, source->tokenizer, &s->generation.settings, &s->generator, err);
}

static enum status classify_request(struct session *s, struct error *err)
{
    const struct request *r = s->request;
    if (r->out || r->lines || request_sequences(r) > 1)
        FAIL(err, STATUS_USAGE, "--out, --lines and --num_return_sequences are not for a task that was trained with task_type seq_cls; give --prompt or --file");
    return classify(&(struct classify_request){.prompt = r->prompt, .file = r->file, .format = r->format, .task = r->task,
                                               .columns = r->columns, .table = r->table, .rows = r->rows, .score = r->score},
                    s->source, err);
}

static enum status generate(struct session *s, struct error *err)
{
    const struct request *r = s->request;
    struct questions questions;
    if (!r->raw && classify_is_meant(s->source, r->task))
        return classify_request(s, err);
    request_warn(r, s->source);
    if (request_sequences(r) > 1 && !s->source->options.do_sample)
        FAIL(err, STATUS_USAGE, "--num_return_sequences %lld: all the same while do_sample is false; give --do_sample (and a --temperature)",
             (long long)request_sequences(r));
    TRY(make_generator(s, err));
    if (r->prompt)
        return answer_prompt(s, err);
    TRY(questions_open(r, s->generation.template, &questions, err));
    enum status st = r->out ? answers_file_write(r, s->source, &s->generation, &questions, &s->score, err)
                            : answer_file(s, &questions, err);
    questions_close(&questions);
    if (st == STATUS_OK && r->out && s->score.rows && strcmp(r->out, "-") != 0)
        st = print_score(&s->score, err);
    return st;
}

static enum status check(const struct request *r, struct error *err)
{
    if (!!r->prompt + !!r->file + !!r->lines != 1)
        FAIL(err, STATUS_USAGE, "one of --prompt, --file and --lines is needed; see loar generate --help");
    if (r->raw && !r->prompt)
        FAIL(err, STATUS_USAGE, "--raw goes with --prompt alone");
    if (r->json)
        FAIL(err, STATUS_USAGE, "--json belongs to loar eval; --out writes the answers as JSON, one a line");
    if (r->out && r->score >= 0)
        FAIL(err, STATUS_USAGE, "--score is not for --out, which compares all rows; --rows limits them");
    if ((r->out || r->threads >= 0) && r->prompt)
        FAIL(err, STATUS_USAGE, "--out and --threads go with --file or --lines, not with --prompt");
    if (!request_sequences(r))
        FAIL(err, STATUS_USAGE, "--num_return_sequences is 0; at least one answer is needed");
    if (r->threads >= 0 && !r->out)
        FAIL(err, STATUS_USAGE, "--threads goes with --out: without it answers are printed one by one, as they come");
    return STATUS_OK;
}

int cmd_generate(int argc, char **argv)
{
    struct error err = {0};
    struct request request;
    struct source source = {0};
    struct session session = {.request = &request, .source = &source, .speech = {.out = stdout}};
    struct threads *pool = NULL;
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? status_exit_code(STATUS_USAGE) : 0;
    }
    enum status st = request_parse("generate", argc, argv, &request, &err);
    if (st == STATUS_OK)
        st = check(&request, &err);
    if (st == STATUS_OK)
        st = threads_create(run_threads(0, 1), &pool, &err);
    if (st == STATUS_OK)
        st = request_open(&request, pool, &source, &err);
    if (st == STATUS_OK)
        st = generate(&session, &err);
    if (st != STATUS_OK)
        log_error("%s", err.text);
    generator_free(session.generator);
    generation_free(&session.generation);
    arena_free(&session.arena);
    speech_free(&session.speech);
    votes_free(&session.votes);
    source_close(&source);
    threads_free(pool);
    return status_exit_code(st);
}
