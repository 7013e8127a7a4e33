#include "worker/infer/vote.h"

#include "common/memory.h"
#include "worker/infer/score.h"

void votes_reset(struct votes *votes)
{
    for (int i = 0; i < votes->count; i++) {
        text_free(&votes->items[i].answer);
        generated_free(&votes->items[i].first);
    }
    votes->count = votes->samples = 0;
    votes->winner = -1;
}

void votes_free(struct votes *votes)
{
    votes_reset(votes);
    mem_free(votes->items);
    *votes = (struct votes){0};
}

int votes_of_winner(const struct votes *votes)
{
    return votes->count && votes->winner >= 0 ? votes->items[votes->winner].votes : 0;
}

double votes_share(const struct votes *votes)
{
    return score_share(votes_of_winner(votes), votes->samples);
}

static bool agree(const struct text *a, const struct text *b, const char *prefix)
{
    return score_same(score_part_of(a->data, a->size, prefix), score_part_of(b->data, b->size, prefix));
}

static enum status add_candidate(struct votes *votes, const struct text *answer, struct error *err)
{
    if (votes->count == votes->capacity) {
        int capacity = 2 * votes->capacity + 4;
        struct candidate_answer *grown = mem_realloc(votes->items, (size_t)capacity, sizeof *grown);
        if (!grown)
            FAIL(err, STATUS_NOMEM, "no memory for the votes of %d samples", votes->samples);
        votes->items = grown;
        votes->capacity = capacity;
    }
    struct candidate_answer *added = &votes->items[votes->count++];
    *added = (struct candidate_answer){.votes = 1};
    text_append(&added->answer, answer->data, answer->size);
    if (added->answer.failed)
        FAIL(err, STATUS_NOMEM, "no memory for the votes of %d samples", votes->samples);
    return STATUS_OK;
}

/* The first sample of an answer is kept: `sample` is empty then. */
static enum status cast(struct votes *votes, struct generated *sample, const char *prefix, struct error *err)
{
    if (sample->status != GENERATE_COMPLETE && sample->status != GENERATE_THOUGHT_CUT)
        return STATUS_OK;
    for (int i = 0; i < votes->count; i++)
        if (agree(&votes->items[i].answer, &sample->answer, prefix)) {
            votes->items[i].votes++;
            return STATUS_OK;
        }
    TRY(add_candidate(votes, &sample->answer, err));
    votes->items[votes->count - 1].first = *sample;
    *sample = (struct generated){0};
    return STATUS_OK;
}

static void elect(struct votes *votes)
{
    votes->winner = votes->count ? 0 : -1;
    for (int i = 1; i < votes->count; i++)
        if (votes->items[i].votes > votes->items[votes->winner].votes)
            votes->winner = i;
}

static void hand_out(struct generated *from, struct generated *to)
{
    generated_free(to);
    *to = *from;
    *from = (struct generated){0};
}

/* Sample k of a stream. */
static uint64_t stream_of(uint64_t stream, int k)
{
    return stream | (uint64_t)k << 40;
}

enum status vote_run(struct generator *generator, const struct generate_settings *settings, const int32_t *prompt, int n_prompt,
                     uint64_t stream, generate_text_fn *on_text, void *context, struct generated *out, struct votes *votes,
                     struct error *err)
{
    struct generated sample = {0};
    enum status st = STATUS_OK;
    votes_reset(votes);
    votes->samples = settings->self_consistency > 1 ? settings->self_consistency : 1;
    if (votes->samples == 1)
        return generator_run(generator, prompt, n_prompt, stream, on_text, context, out, err);
    generated_reset(out);
    for (int k = 0; k < votes->samples && st == STATUS_OK; k++) {
        st = generator_run(generator, prompt, n_prompt, stream_of(stream, k), NULL, NULL, &sample, err);
        if (st == STATUS_OK)
            st = cast(votes, &sample, settings->answer_prefix, err);
        if (k == 0 && st == STATUS_OK && !votes->count)
            hand_out(&sample, out);
    }
    elect(votes);
    if (st == STATUS_OK && votes->winner >= 0)
        hand_out(&votes->items[votes->winner].first, out);
    generated_free(&sample);
    return st;
}

void votes_put(const struct votes *votes, struct text *out)
{
    int cast = 0;
    text_printf(out, "votes %d of %d;", votes_of_winner(votes), votes->samples);
    for (int i = 0; i < votes->count; i++) {
        struct score_part part = score_part_of(votes->items[i].answer.data, votes->items[i].answer.size, NULL);
        text_puts(out, i ? ", '" : " '");
        text_append(out, part.text, part.size);
        text_printf(out, "' %d", votes->items[i].votes);
        cast += votes->items[i].votes;
    }
    if (cast < votes->samples)
        text_printf(out, "%s no answer %d", votes->count ? "," : "", votes->samples - cast);
}
