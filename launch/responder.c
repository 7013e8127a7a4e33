#include "launch/responder.h"

#include <ctype.h>
#include <string.h>

#include "common/memory.h"
#include "launch/generation.h"
#include "launch/stage.h"
#include "worker/infer/answer.h"

enum { SHOWN_BYTES = 4000 }; /* of each text of a sample */

_Static_assert(sizeof(struct score) <= ANSWER_COUNTS * sizeof(int64_t), "a score travels as counts");

/* One stage's settings, and who answers by them. */
struct voice {
    struct generation generation;
    struct answerer *answerer; /* NULL: the stage answers nothing */
};

struct responder {
    struct run *run;
    struct voice *voices; /* [run->n_stages] */
    struct answer answer;
};

static bool any_answers(const struct run *run)
{
    for (int set = 0; set < run->eval.n_parts; set++)
        if (stage_answers(run, set))
            return true;
    return false;
}

static enum status make_voice(const struct run *stage, struct model *model, const float *values, struct voice *out, struct error *err)
{
    if (!any_answers(stage))
        return STATUS_OK;
    TRY(generation_prepare(stage->options, &stage->config, stage->tokenizer, false, &out->generation, err));
    return answer_create(model, &stage->config, values, stage->tokenizer, &out->generation.settings, &out->answerer, err);
}

enum status responder_create(struct run *run, struct model *model, const float *values, struct responder **out, struct error *err)
{
    struct responder *r = mem_alloc(1, sizeof *r);
    *out = NULL;
    if (r && !(r->voices = mem_alloc((size_t)run->n_stages, sizeof *r->voices))) {
        mem_free(r);
        r = NULL;
    }
    if (!r)
        FAIL(err, STATUS_NOMEM, "no memory to answer evaluation rows");
    r->run = run;
    enum status st = STATUS_OK;
    for (int i = 0; i < run->n_stages && st == STATUS_OK; i++)
        st = make_voice(run_stage(run, i), model, values, &r->voices[i], err);
    if (st != STATUS_OK)
        responder_free(r);
    else
        *out = r;
    return st;
}

void responder_free(struct responder *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->run->n_stages; i++) {
        answer_free(r->voices[i].answerer);
        generation_free(&r->voices[i].generation);
    }
    answer_clear(&r->answer);
    mem_free(r->voices);
    mem_free(r);
}

/* Without white space round it; a long text is cut between two characters. */
static void put_text(const char *key, const struct text *text, struct text *json)
{
    size_t begin = 0, end = text->size;
    while (begin < end && isspace((unsigned char)text->data[begin]))
        begin++;
    while (end > begin && isspace((unsigned char)text->data[end - 1]))
        end--;
    if (end - begin > SHOWN_BYTES)
        for (end = begin + SHOWN_BYTES; end > begin && ((unsigned char)text->data[end] & 0xC0) == 0x80;)
            end--;
    text_printf(json, ", \"%s\": ", key);
    text_json_string(json, end > begin ? text->data + begin : "", end - begin);
}

/* The opening tag of a thought at the end of a prompt says nothing to a reader. */
static void cut_tag(const struct generate_settings *settings, struct text *prompt)
{
    size_t size = settings->thought_open ? strlen(settings->thought_open) : 0, end = prompt->size;
    while (end && isspace((unsigned char)prompt->data[end - 1]))
        end--;
    if (size && end >= size && !memcmp(prompt->data + end - size, settings->thought_open, size))
        prompt->size = end - size;
}

static enum status show(const struct responder *r, const struct run *stage, int set, const struct row *row, struct text *json, struct error *err)
{
    const struct answer *a = &r->answer;
    struct text prompt = {0};
    int n = 0;
    while (n < row->n_tokens && row->spans[n] == SPAN_PROMPT)
        n++;
    TRY(tokenizer_decode(stage->tokenizer, row->tokens, (size_t)n, true, &prompt, err));
    cut_tag(&r->voices[stage->stage].generation.settings, &prompt);
    text_puts(json, "{\"set\": ");
    text_json_string(json, stage->eval.parts[set].name, strlen(stage->eval.parts[set].name));
    put_text("prompt", &prompt, json);
    put_text("thought", &a->generated.thought, json);
    put_text("answer", &a->generated.answer, json);
    put_text("expected", &a->expected, json);
    text_printf(json, ", \"right\": %s, \"status\": \"%s\"}", a->score.strict ? "true" : "false", generate_status_name(a->generated.status));
    text_free(&prompt);
    if (json->failed)
        FAIL(err, STATUS_NOMEM, "no memory to show an answer");
    return STATUS_OK;
}

enum status responder_answer(struct responder *r, int stage, int set, int64_t index, struct answer_report *out, struct error *err)
{
    const struct run *run = run_stage(r->run, stage);
    const struct dataset_part *part = &run->eval.parts[set];
    if (!r->voices[stage].answerer || index < 0 || index >= part->stats.kept)
        FAIL(err, STATUS_PEER, "an answer to row %lld of '%s' was asked for, which is not expected", (long long)index, part->name);
    struct row row = dataset_row(&run->eval, part->first_row + index);
    row.task = run->routed_as[row.task];
    TRY(answer_row(r->voices[stage].answerer, &row, (uint64_t)index, &r->answer, err));
    memset(out->counts, 0, sizeof out->counts);
    memcpy(out->counts, &r->answer.score, sizeof r->answer.score);
    return index < run->options->num_generation_samples ? show(r, run, set, &row, &out->shown, err) : STATUS_OK;
}
