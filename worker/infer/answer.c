#include "worker/infer/answer.h"

#include <ctype.h>
#include <string.h>

#include "common/memory.h"

struct answerer {
    struct generator *generator[2]; /* in one stage, in two (NULL: not wanted) */
    const struct tokenizer *tokenizer;
    int64_t max_positions;
    struct generate_settings settings;
};

/* Where the parts of a row's first supervised turn are. */
struct turn {
    int prompt;          /* tokens before it, with an opening tag that is the model's own */
    bool thinks;
    int answer, n_answer;
};

void answer_clear(struct answer *answer)
{
    generated_free(&answer->generated);
    votes_free(&answer->votes);
    text_free(&answer->expected);
    *answer = (struct answer){0};
}

enum status answer_create(struct model *model, const struct model_config *config, const float *values,
                          const struct tokenizer *tokenizer, const struct generate_settings *settings, struct answerer **out,
                          struct error *err)
{
    struct answerer *a = mem_alloc(1, sizeof *a);
    if (!a)
        FAIL(err, STATUS_NOMEM, "no memory to answer rows");
    *a = (struct answerer){.tokenizer = tokenizer, .max_positions = config->max_positions, .settings = *settings};
    enum status st = STATUS_OK;
    for (int stages = 0; stages < 2 && st == STATUS_OK; stages++) {
        struct generate_settings own = *settings;
        own.two_stage = stages == 1;
        if (stages == 0 || settings->two_stage)
            st = generator_create(model, config, values, tokenizer, &own, &a->generator[stages], err);
    }
    if (st != STATUS_OK) {
        answer_free(a);
        return st;
    }
    *out = a;
    return STATUS_OK;
}

void answer_free(struct answerer *a)
{
    if (!a)
        return;
    generator_free(a->generator[0]);
    generator_free(a->generator[1]);
    mem_free(a);
}

static int span_end(const struct row *row, int from, enum span span)
{
    while (from < row->n_tokens && row->spans[from] == span)
        from++;
    return from;
}

static struct turn first_turn(const struct answerer *a, const struct row *row)
{
    struct turn turn = {.prompt = span_end(row, 0, SPAN_PROMPT)};
    turn.answer = span_end(row, turn.prompt, SPAN_THOUGHT);
    turn.n_answer = span_end(row, turn.answer, SPAN_ANSWER) - turn.answer;
    turn.thinks = turn.answer > turn.prompt;
    if (turn.thinks && a->settings.n_open > 0 && a->settings.n_open <= turn.answer - turn.prompt &&
        !memcmp(row->tokens + turn.prompt, a->settings.open, (size_t)a->settings.n_open * sizeof *a->settings.open))
        turn.prompt += a->settings.n_open;
    return turn;
}

static bool asks(const struct answerer *a, const struct row *row, const struct turn *turn)
{
    bool empty = turn->prompt == 0 || (turn->prompt == 1 && row->tokens[0] == tokenizer_bos(a->tokenizer));
    return !empty && turn->n_answer > 0 && !row->class.count;
}

static void drop_front(struct text *text, size_t n)
{
    if (!n)
        return;
    memmove(text->data, text->data + n, text->size - n + 1);
    text->size -= n;
}

static void trim(struct text *text)
{
    size_t blank = 0;
    while (text->size && isspace((unsigned char)text->data[text->size - 1]))
        text->data[--text->size] = '\0';
    while (blank < text->size && isspace((unsigned char)text->data[blank]))
        blank++;
    drop_front(text, blank);
}

static enum status expected_of(const struct answerer *a, const struct row *row, const struct turn *turn, struct text *out,
                               struct error *err)
{
    size_t prefix = a->settings.answer_prefix ? strlen(a->settings.answer_prefix) : 0;
    TRY(tokenizer_decode(a->tokenizer, row->tokens + turn->answer, (size_t)turn->n_answer, true, out, err));
    trim(out);
    if (prefix && out->size >= prefix && !memcmp(out->data, a->settings.answer_prefix, prefix))
        drop_front(out, prefix);
    trim(out);
    return STATUS_OK;
}

enum status answer_row(struct answerer *a, const struct row *row, uint64_t number, struct answer *out, struct error *err)
{
    struct generated *g = &out->generated;
    struct turn turn = first_turn(a, row);
    out->score = (struct score){0};
    text_clear(&out->expected);
    generated_reset(g);
    votes_reset(&out->votes);
    if (!asks(a, row, &turn))
        return STATUS_OK;
    TRY(expected_of(a, row, &turn, &out->expected, err));
    if (turn.prompt >= a->max_positions) {
        g->status = GENERATE_NO_ANSWER;
    } else {
        struct generator *generator = a->generator[turn.thinks && a->generator[1]];
        generator_set_task(generator, row->task);
        TRY(vote_run(generator, &a->settings, row->tokens, turn.prompt, number, NULL, NULL, g, &out->votes, err));
    }
    score_answer(out->expected.data, out->expected.size, g->answer.data, g->answer.size, g->status, a->settings.answer_prefix, &out->score);
    return STATUS_OK;
}
