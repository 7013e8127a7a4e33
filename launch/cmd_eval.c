/* `loar eval`: lets a model answer the rows of a file and tells how many answers are right, and its losses on them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/log.h"
#include "common/scalar.h"
#include "launch/answers.h"
#include "launch/classify.h"
#include "launch/commands.h"
#include "launch/request.h"
#include "launch/row_losses.h"
#include "launch/speech.h"
#include "launch/run.h"
#include "worker/data/dataset.h"

static const char usage[] =
    "usage: loar eval (--model DIR | --snapshot FILE|RUN_DIR) --file ROWS [options]\n"
    "\n"
    "  --model DIR       a Hugging Face folder\n"
    "  --snapshot FILE   a snapshot, or the newest one of a run; its template and settings are used\n"
    "  --adapter DIR     adapters to put beside the model\n"
    "  --base DIR        the model that a snapshot without frozen tensors belongs to (default: where it was in training)\n"
    "  --file ROWS       a file of rows as in training, with answers to compare with\n"
    "  --format NAME     format of the rows (default auto); --question_column NAME and so on, --quoting, --header as in generate\n"
    "  --rows N          only the first N rows (default all)\n"
    "  --task NAME       task of the rows, where attention is routed by task (default: the default task of training)\n"
    "  --threads N       rows are answered on so many threads (default: one per core); the numbers are the same for any\n"
    "  --json FILE       write all numbers as one JSON object (-: to standard output, and nothing else)\n"
    "  --force-template  let a model answer with another chat template than it was trained with\n"
    "\n"
    "and these keys of a run file, as --key value: chat_template, default_system, thought_open, thought_close,\n"
    "prompt_opens_thought, enable_thinking, cot_prompt, answer_prefix, two_stage,\n"
    "max_thinking_tokens, min_thinking_tokens, thinking_extend_text, max_new_tokens, do_sample, temperature, top_p, top_k,\n"
    "repetition_penalty, self_consistency, stop, seed, num_generation_samples (answers that are shown),\n"
    "per_device_eval_batch_size, loar.allow_leaky_routing.\n"
    "\n"
    "An answer is right if it is the expected one but for white space and a final '.' at its ends, ',' and '$', and letter case;\n"
    "flexibly, if its last number is. Answers that are cut or missing are wrong.\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage, 3 missing or damaged file, 4 not-a-number.\n";

struct session {
    const struct request *request;
    struct source source;
    struct generation generation;
    struct dataset dataset;
    int threads;
    bool quiet; /* nothing but JSON is printed */
    struct score score;
    int64_t tokens;  /* generated */
    double agreed;   /* sum of the shares of votes */
    struct row_means means;
};

/* ---- Counting --------------------------------------------------------------------------------------------------- */

static void show(const struct session *s, const struct answered *a)
{
    const struct generated *g = &a->generated;
    printf("\nquestion: %s\n", a->question.size ? a->question.data : "");
    struct speech speech = {.out = stdout};
    speech_begin(&speech);
    if (g->thought.size)
        speech_tell(&speech, SPAN_THOUGHT, g->thought.data, g->thought.size);
    if (g->answer.size)
        speech_tell(&speech, SPAN_ANSWER, g->answer.data, g->answer.size);
    speech_end(&speech, g->status == GENERATE_COMPLETE ? NULL : generate_status_name(g->status));
    speech_free(&speech);
    if (s->generation.settings.self_consistency > 1)
        printf("votes: %.0f %%\n", 100 * votes_share(&a->votes));
    printf("expected: %s  %s\n", a->expected.size ? a->expected.data : "",
           a->score.strict ? "(right)" : a->score.flexible ? "(right number)" : "(wrong)");
}

static enum status count(void *context, const struct answered *a, struct error *err)
{
    struct session *s = context;
    if (!a->has_expected)
        FAIL(err, STATUS_DATA, "row %lld of '%s' has no answer to compare with", (long long)a->number + 1, s->request->file);
    score_add(&s->score, &a->score);
    s->tokens += a->generated.thought_tokens + a->generated.answer_tokens;
    s->agreed += votes_share(&a->votes);
    if (!s->quiet && a->number < s->source.options.num_generation_samples)
        show(s, a);
    return STATUS_OK;
}

static enum status answer_rows(struct session *s, struct error *err)
{
    struct questions questions;
    TRY(questions_open(s->request, s->generation.template, &questions, err));
    enum status st = answers_run(&s->source, &s->generation, &questions, s->request->rows, s->threads, count, s, err);
    questions_close(&questions);
    if (st == STATUS_OK && !s->score.rows)
        st = error_set(err, STATUS_DATA, "'%s' has no rows", s->request->file);
    return st;
}

/* Rows that are too long for the model take no part in the losses; they count as questions nevertheless. */
static enum status measure_losses(struct session *s, struct threads *pool, struct error *err)
{
    const struct request *r = s->request;
    const struct options *o = &s->source.options;
    const struct loar_setup *loar = s->source.loar;
    const struct dataset_spec spec = {.path = r->file, .table = r->table, .format = r->format, .columns = r->columns, .loss_weight = 1,
                                      .weight = 1, .max_samples = r->rows,
                                      .task = loar ? loar->tasks[s->generation.settings.task] : r->task};
    const struct dataset_rules rules = {.template = s->generation.template, .max_length = (int)s->source.config.max_positions,
                                        .truncation = TRUNCATION_DROP, .strict = true, .max_bad_rows = -1,
                                        .keep_calculator_marks = o->keep_calculator_marks, .cot_prompt = o->cot_prompt,
                                        .answer_prefix = o->answer_prefix, .vocab = s->source.config.vocab,
                                        .span_weights = {[SPAN_THOUGHT] = 1, [SPAN_ANSWER] = 1, [SPAN_END] = 1}};
    if (loar)
        TRY(dataset_name_tasks(&s->dataset, loar->tasks, loar->plan.config.n_tasks, err));
    TRY(dataset_load(&s->dataset, &spec, &rules, s->source.tokenizer, pool, err));
    return row_losses(&s->source, &s->dataset, (int)o->per_device_eval_batch_size, s->threads, &s->means, err);
}

/* ---- Telling ---------------------------------------------------------------------------------------------------- */

static void put_summary(const struct session *s, struct text *out)
{
    const struct row_means m = s->means;
    const int64_t measured = s->dataset.rows, left_out = s->score.rows - measured;
    score_put(&s->score, out);
    if (s->generation.settings.self_consistency > 1)
        text_printf(out, "\n%d answers a row, of which %.1f %% agreed with the one that was kept", s->generation.settings.self_consistency,
                    100 * s->agreed / (double)s->score.rows);
    if (measured)
        text_printf(out, "\nloss %.4f (thought %.4f, answer %.4f), token accuracy %.4f", m.loss, m.thought, m.answer, m.accuracy);
    if (left_out > 0)
        text_printf(out, "\nlosses without %lld rows that are longer than the %lld positions of the model", (long long)left_out,
                    (long long)s->source.config.max_positions);
    text_puts(out, "\n");
}

static void put_real(struct text *out, const char *key, double value)
{
    text_printf(out, "%s\"%s\": ", out->size ? ", " : "{", key);
    scalar_put_json(out, value);
}

static void put_json(const struct session *s, struct text *out)
{
    const struct row_means m = s->means;
    const struct score *c = &s->score;
    double low, high;
    score_interval(c->strict, c->rows, &low, &high);
    const struct {
        const char *key;
        double value;
    } reals[] = {
        {"exact_match", score_share(c->strict, c->rows)},
        {"exact_match_low", low},
        {"exact_match_high", high},
        {"exact_match_flexible", score_share(c->flexible, c->rows)},
        {"exact_match_complete", score_share(c->strict_complete, c->complete)},
        {"votes_share", s->generation.settings.self_consistency > 1 ? s->agreed / (double)c->rows : NAN},
        {"loss", m.loss},
        {"thought_loss", m.thought},
        {"answer_loss", m.answer},
        {"accuracy", m.accuracy},
    };
    const struct {
        const char *key;
        int64_t value;
    } counts[] = {
        {"rows", c->rows},
        {"right", c->strict},
        {"right_flexible", c->flexible},
        {"complete", c->complete},
        {"right_complete", c->strict_complete},
        {"no_answer", c->no_answer},
        {"thought_cut", c->thought_cut},
        {"answer_cut", c->answer_cut},
        {"generated_tokens", s->tokens},
        {"loss_rows", s->dataset.rows},
    };
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
        put_real(out, reals[i].key, reals[i].value);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        text_printf(out, ", \"%s\": %lld", counts[i].key, (long long)counts[i].value);
    text_puts(out, "}\n");
}

static enum status tell(const struct session *s, struct error *err)
{
    struct text summary = {0}, json = {0};
    enum status st = STATUS_OK;
    put_summary(s, &summary);
    put_json(s, &json);
    if (summary.failed || json.failed)
        st = error_set(err, STATUS_NOMEM, "no memory to print the results");
    else if (s->quiet)
        fputs(json.data, stdout);
    else {
        printf("\n%s", summary.data);
        if (s->request->json)
            st = file_replace(s->request->json, json.data, json.size, err);
    }
    text_free(&summary);
    text_free(&json);
    return st;
}

/* ---- Command ---------------------------------------------------------------------------------------------------- */

static enum status check(const struct request *r, struct error *err)
{
    const struct {
        const char *name;
        bool given;
    } others[] = {{"prompt", r->prompt}, {"lines", r->lines}, {"out", r->out}, {"score", r->score >= 0}, {"raw", r->raw},
                  {"num_return_sequences", r->num_return_sequences >= 0}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (others[i].given)
            FAIL(err, STATUS_USAGE, "--%s belongs to loar generate; loar eval compares the answers to the rows of --file", others[i].name);
    if (!r->file)
        FAIL(err, STATUS_USAGE, "--file is needed: rows with answers to compare with; see loar eval --help");
    return STATUS_OK;
}

/* Rows with a class: how many labels are right, and macro F1. */
static enum status classify_rows(struct session *s, struct error *err)
{
    const struct request *r = s->request;
    if (r->json || r->lines)
        FAIL(err, STATUS_USAGE, "--json and --lines are not for a task that was trained with task_type seq_cls; give --file alone");
    return classify(&(struct classify_request){.file = r->file, .format = r->format, .task = r->task, .columns = r->columns, .table = r->table,
                                               .rows = 0, .score = r->rows >= 0 ? r->rows : INT64_MAX},
                    &s->source, err);
}

static enum status evaluate(struct session *s, struct threads *pool, struct error *err)
{
    TRY(request_open(s->request, pool, &s->source, err));
    if (classify_is_meant(&s->source, s->request->task))
        return classify_rows(s, err);
    request_warn(s->request, &s->source);
    TRY(generation_of_source(&s->source, s->request->task, false, &s->generation, err));
    TRY(measure_losses(s, pool, err)); /* first, because it is quick and finds all bad rows */
    TRY(answer_rows(s, err));
    return tell(s, err);
}

int cmd_eval(int argc, char **argv)
{
    struct error err = {0};
    struct request request;
    struct session session = {.request = &request};
    struct threads *pool = NULL;
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? status_exit_code(STATUS_USAGE) : 0;
    }
    enum status st = request_parse("eval", argc, argv, &request, &err);
    if (st == STATUS_OK)
        st = check(&request, &err);
    if (st == STATUS_OK) {
        session.threads = run_threads(request.threads > 0 ? request.threads : 0, 1);
        session.quiet = request.json && !strcmp(request.json, "-");
        st = threads_create(session.threads, &pool, &err);
    }
    if (st == STATUS_OK)
        st = evaluate(&session, pool, &err);
    if (st != STATUS_OK)
        log_error("%s", err.text);
    dataset_free(&session.dataset);
    generation_free(&session.generation);
    source_close(&session.source);
    threads_free(pool);
    return status_exit_code(st);
}
