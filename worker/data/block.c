#include "worker/data/block.h"

#include <stdio.h>
#include <string.h>

#include "worker/data/template.h"
#include "worker/data/tokenizer.h"

enum status problems_add(struct problems *problems, const char *line, struct error *err)
{
    if (problems->shown == PROBLEMS_SHOWN)
        return STATUS_OK;
    char *copy = mem_strdup(line);
    if (!copy)
        FAIL(err, STATUS_NOMEM, "no memory to list the bad rows");
    problems->lines[problems->shown++] = copy;
    return STATUS_OK;
}

void problems_clear(struct problems *problems)
{
    for (int i = 0; i < problems->shown; i++)
        mem_free(problems->lines[i]);
    problems->shown = 0;
}

/* Cuts every thought to at most `limit` bytes at a character's start, without white space behind it. False if one
 * would be empty. */
static bool cut_thoughts(const struct conversation *whole, size_t limit, struct conversation *out)
{
    for (int i = 0; i < whole->count; i++) {
        struct message *m = &out->messages[i];
        *m = whole->messages[i];
        if (!m->thought || m->thought_size <= limit)
            continue;
        m->thought_size = limit;
        while (m->thought_size && ((unsigned char)m->thought[m->thought_size] & 0xC0) == 0x80)
            m->thought_size--;
        while (m->thought_size && strchr(" \t\r\n", m->thought[m->thought_size - 1]))
            m->thought_size--;
        if (!m->thought_size)
            return false;
    }
    return true;
}

/* Finds the longest thoughts that let the row fit, by bisection over their length in bytes: tokens are made anew for
 * each trial, so the row is exactly what the template makes of the shorter text. `row` keeps the old tokens and *fits is
 * false where even the shortest thoughts are too long. */
static enum status shorten(struct block *block, const struct conversation *whole, struct row *row, bool *fits,
                           struct error *err)
{
    const struct block_source *l = block->source;
    struct conversation trial = *whole;
    trial.messages = arena_alloc(&block->arena, (size_t)whole->count, sizeof *trial.messages);
    if (!trial.messages)
        FAIL(err, STATUS_NOMEM, "no memory to shorten a row");
    size_t low = 0, high = 0;
    for (int i = 0; i < whole->count; i++)
        if (whole->messages[i].thought && whole->messages[i].thought_size > high)
            high = whole->messages[i].thought_size;
    *fits = false;
    while (high - low > 1) {
        size_t limit = low + (high - low) / 2;
        if (!cut_thoughts(whole, limit, &trial)) {
            low = limit;
            continue;
        }
        struct row shorter = {0};
        TRY(template_encode(l->rules->template, l->tokenizer, &trial, &shorter, err));
        if (shorter.n_tokens > l->rules->max_length) {
            row_free(&shorter);
            high = limit;
            continue;
        }
        row_free(row);
        *row = shorter;
        *fits = true;
        low = limit;
    }
    return STATUS_OK;
}

static bool spells_special(const struct tokenizer *tokenizer, const struct conversation *conversation)
{
    for (int i = 0; i < conversation->count; i++) {
        const struct message *m = &conversation->messages[i];
        if (tokenizer_has_special(tokenizer, m->content, m->content_size) ||
            (m->thought && tokenizer_has_special(tokenizer, m->thought, m->thought_size)))
            return true;
    }
    return false;
}

static enum status check_vocab(const struct block_source *l, const struct row *row, int64_t line, struct error *err)
{
    for (int i = 0; l->rules->vocab && i < row->n_tokens; i++)
        if (row->tokens[i] >= l->rules->vocab)
            FAIL(err, STATUS_DATA,
                 "%s:%lld: token id %d is outside the model's vocabulary of %lld; use the tokenizer that belongs to the "
                 "model", l->spec->path, (long long)line, row->tokens[i], (long long)l->rules->vocab);
    return STATUS_OK;
}

static bool is_supervised(const struct row *row, const float span_weights[SPAN_COUNT])
{
    struct row_weights weights = row_weights_begin(row, span_weights);
    for (int i = 1; i < row->n_tokens; i++)
        if (row_weights_next(&weights, i) > 0)
            return true;
    return false;
}

static bool has_span(const struct row *row, enum span span)
{
    return memchr(row->spans, span, (size_t)row->n_tokens) != NULL;
}

/* label: NULL where the row has no class. */
static enum status keep(struct block *block, const struct row *row, const struct message *label, int64_t line, struct error *err)
{
    size_t needed = block->n_tokens + (size_t)row->n_tokens;
    if (needed > block->capacity) {
        size_t capacity = needed * 2;
        int32_t *tokens = mem_realloc(block->tokens, capacity, sizeof *tokens);
        if (tokens)
            block->tokens = tokens;
        uint8_t *spans = tokens ? mem_realloc(block->spans, capacity, sizeof *spans) : NULL;
        if (!spans)
            FAIL(err, STATUS_NOMEM, "no memory for the tokens of a row");
        block->spans = spans;
        block->capacity = capacity;
    }
    memcpy(block->tokens + block->n_tokens, row->tokens, (size_t)row->n_tokens * sizeof *row->tokens);
    memcpy(block->spans + block->n_tokens, row->spans, (size_t)row->n_tokens);
    if (label && !(block->labels[block->rows] = mem_strndup(label->content, label->content_size)))
        FAIL(err, STATUS_NOMEM, "no memory for the label of a row");
    TRY(stretch_table_add(&block->stretches, block->rows, row->stretches, row->n_stretches, err));
    block->n_tokens = needed;
    block->lengths[block->rows] = row->n_tokens;
    block->lines[block->rows] = line;
    block->weights[block->rows++] = row->weight;
    block->stats.kept++;
    block->stats.thoughts += has_span(row, SPAN_THOUGHT);
    for (int i = 0; i < row->n_tokens; i++)
        block->stats.tokens[row->spans[i]]++;
    return STATUS_OK;
}

/* Fits the row into max_length or counts it out; *fits says which. */
static enum status fit(struct block *block, const struct conversation *conversation, int64_t line, struct row *row,
                       bool *fits, struct error *err)
{
    const struct dataset_rules *rules = block->source->rules;
    int length = row->n_tokens;
    *fits = length <= rules->max_length;
    if (!*fits && rules->truncation == TRUNCATION_THOUGHT) {
        TRY(shorten(block, conversation, row, fits, err));
        block->stats.shortened += *fits;
    }
    if (*fits)
        return STATUS_OK;
    bool refused = rules->truncation == TRUNCATION_ERROR;
    block->stats.too_long += !refused;
    block->refused_long += refused;
    char message[512];
    snprintf(message, sizeof message, "%.300s:%lld: %d tokens, more than max_length %d; %s", block->source->spec->path,
             (long long)line, length, rules->max_length,
             refused ? "raise max_length, or set truncation: thought or drop" : "left out");
    return problems_add(&block->problems, message, err);
}

static enum status leave_out_masked(struct block *block, int64_t line, struct error *err)
{
    char message[512];
    block->stats.masked++;
    snprintf(message, sizeof message, "%.300s:%lld: no token of the row takes loss, so it teaches nothing; left out; check the weights of "
             "its turns and the loss weights of thought and answer", block->source->spec->path, (long long)line);
    return problems_add(&block->problems, message, err);
}

/* STATUS_OK: the row was dealt with. Else: *bad tells a bad row, to be counted, from what stops the load. */
static enum status one_row(struct block *block, const struct jsonl_record *record, struct json **json, struct row *row,
                           bool *bad, struct error *err)
{
    const struct block_source *l = block->source;
    const struct dataset_rules *rules = l->rules;
    const char *path = l->spec->path;
    struct row_options options = {.keep_calculator_marks = rules->keep_calculator_marks, .columns = l->spec->columns,
                                  .labels = l->spec->labels, .last_turn_only = rules->last_turn_only,
                                  .empty_thoughts = rules->empty_thoughts, .thought_open = template_thought_open(rules->template),
                                  .thought_close = template_thought_tag(rules->template)};
    bool classify = l->spec->classify;
    struct conversation conversation;
    *bad = true;
    TRY(records_parse(&l->reader, record, json, err));
    TRY(row_read(l->format, *json, path, record->line, &options, &block->arena, &conversation, err));
    if (!classify)
        TRY(conversation_dress(&conversation, rules->cot_prompt, rules->answer_prefix, &block->arena, err));
    const struct message *text = conversation.messages;
    enum status st = classify ? template_encode_text(rules->template, l->tokenizer, text->content, text->content_size, row, err)
                              : template_encode(rules->template, l->tokenizer, &conversation, row, err);
    if (st != STATUS_OK)
        return error_prefix(err, "%s:%lld", path, (long long)record->line);
    *bad = false;
    TRY(check_vocab(l, row, record->line, err));
    bool fits;
    TRY(fit(block, &conversation, record->line, row, &fits, err));
    if (!fits)
        return STATUS_OK;
    row->weight = (float)(conversation.weight * l->spec->loss_weight);
    row->balanced = rules->balanced;
    if (!classify && !is_supervised(row, rules->span_weights))
        return leave_out_masked(block, record->line, err);
    block->stats.special_text += spells_special(l->tokenizer, &conversation);
    return keep(block, row, classify ? &conversation.messages[1] : NULL, record->line, err);
}

void block_read(struct block *block)
{
    for (int64_t i = 0; i < block->count && block->status == STATUS_OK; i++) {
        const struct jsonl_record *record = &block->source->records[block->first + i];
        struct json *json = NULL;
        struct row row = {0};
        bool bad;
        enum status st = one_row(block, record, &json, &row, &bad, &block->err);
        row_free(&row);
        json_free(json);
        arena_reset(&block->arena);
        if (st == STATUS_DATA && bad) {
            block->stats.skipped++;
            st = problems_add(&block->problems, block->err.text, &block->err);
        }
        block->status = st;
    }
}

void block_reset(struct block *block)
{
    problems_clear(&block->problems);
    for (int i = 0; i < BLOCK_ROWS; i++) {
        mem_free(block->labels[i]);
        block->labels[i] = NULL;
    }
    block->n_tokens = 0;
    block->rows = 0;
    stretch_table_cut(&block->stretches, 0);
    block->refused_long = 0;
    block->stats = (struct dataset_stats){0};
}

void block_free(struct block *block)
{
    block_reset(block);
    mem_free(block->tokens);
    mem_free(block->spans);
    stretch_table_free(&block->stretches);
    arena_free(&block->arena);
}
