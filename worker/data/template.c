#include "worker/data/template.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "common/text.h"
#include "worker/data/template_internal.h"

const char *template_name(const struct chat_template *chat_template)
{
    return chat_template->name;
}

enum status template_check(const struct chat_template *t, const struct tokenizer *tokenizer, struct error *err)
{
    const char *const *needed = t->tokens;
    const char *const tags[] = {t->open.tag, t->close.tag, NULL};
    for (int list = 0; list < (t->tags_needed ? 2 : 1); list++, needed = tags)
        for (; *needed; needed++)
            if (tokenizer_id(tokenizer, *needed) < 0)
                FAIL(err, STATUS_DATA, "chat_template '%s' needs the token '%s', which the tokenizer does not have; use the "
                     "template of the model's family, or 'plain'", t->name, *needed);
    if (!t->end && tokenizer_eos(tokenizer) < 0)
        FAIL(err, STATUS_DATA, "chat_template '%s' ends turns with the tokenizer's EOS, but the tokenizer has none; name an "
             "eos_token in tokenizer_config.json", t->name);
    return STATUS_OK;
}

/* A row under construction. Text gathers until a token or a border comes, so that neighbouring texts are encoded as one;
 * borders lie where a prompt may end and where spans meet, so what stands on one side never changes the ids of the other. */
struct writer {
    const struct chat_template *t;
    const struct tokenizer *tokenizer;
    struct text text;
    struct token_list ids;
    uint8_t *spans; /* [ids.count], grown in step */
    size_t spans_capacity;
    struct stretch *stretches;
    int n_stretches, stretches_capacity;
    enum span span;
    float factor;    /* of the tokens to come */
    bool owes_after; /* what follows an end token, if anything comes */
    struct error *err;
};

static enum status mark_factor(struct writer *w, size_t from)
{
    float before = w->n_stretches ? w->stretches[w->n_stretches - 1].factor : 1.0f;
    if (w->factor == before || from == w->ids.count)
        return STATUS_OK;
    if (w->n_stretches == w->stretches_capacity) {
        int capacity = w->stretches_capacity ? w->stretches_capacity * 2 : 8;
        struct stretch *grown = mem_realloc(w->stretches, (size_t)capacity, sizeof *grown);
        if (!grown)
            FAIL(w->err, STATUS_NOMEM, "no memory for the loss weights of a row");
        w->stretches = grown;
        w->stretches_capacity = capacity;
    }
    w->stretches[w->n_stretches++] = (struct stretch){(int32_t)from, w->factor};
    return STATUS_OK;
}

static enum status paint(struct writer *w, size_t from)
{
    if (w->ids.count > w->spans_capacity) {
        uint8_t *grown = mem_realloc(w->spans, w->ids.capacity, sizeof *grown);
        if (!grown)
            FAIL(w->err, STATUS_NOMEM, "no memory for a row of %zu tokens", w->ids.count);
        w->spans = grown;
        w->spans_capacity = w->ids.capacity;
    }
    for (size_t i = from; i < w->ids.count; i++)
        w->spans[i] = (uint8_t)w->span;
    return mark_factor(w, from);
}

static enum status border(struct writer *w)
{
    size_t from = w->ids.count;
    if (w->text.failed)
        FAIL(w->err, STATUS_NOMEM, "no memory for a row's text");
    if (!w->text.size)
        return STATUS_OK;
    TRY(tokenizer_encode(w->tokenizer, w->text.data, w->text.size, 0, &w->ids, w->err));
    text_clear(&w->text);
    return paint(w, from);
}

static void put_text(struct writer *w, const char *text)
{
    if (text)
        text_puts(&w->text, text);
}

static enum status put_id(struct writer *w, int32_t id)
{
    TRY(border(w));
    TRY(token_list_add(&w->ids, &id, 1, w->err));
    return paint(w, w->ids.count - 1);
}

/* A tag that is no token of its own is text; template_check has seen to all others. */
static enum status put_tag(struct writer *w, const char *tag)
{
    int32_t id = tag ? tokenizer_id(w->tokenizer, tag) : -1;
    if (id >= 0)
        return put_id(w, id);
    put_text(w, tag);
    return STATUS_OK;
}

static enum status put_piece(struct writer *w, const struct piece *piece)
{
    put_text(w, piece->before);
    TRY(put_tag(w, piece->tag));
    put_text(w, piece->after);
    return STATUS_OK;
}

/* The longest of the template's tokens and tags that `text` begins with, or NULL. */
static const char *token_at(const struct chat_template *t, const char *text)
{
    const char *const tags[] = {t->open.tag, t->close.tag, NULL}, *const *lists[] = {t->tokens, tags}, *longest = NULL;
    for (int i = 0; i < 2; i++)
        for (const char *const *token = lists[i]; *token; token++)
            if (!strncmp(text, *token, strlen(*token)) && (!longest || strlen(*token) > strlen(longest)))
                longest = *token;
    return longest;
}

/* A text of the template, whose own tokens it may spell. */
static enum status put_markup(struct writer *w, const char *text)
{
    while (text && *text) {
        const char *token = token_at(w->t, text);
        if (token)
            TRY(put_tag(w, token));
        else
            text_append(&w->text, text, 1);
        text += token ? strlen(token) : 1;
    }
    return STATUS_OK;
}

/* Ends the span that was written so far. */
static enum status change_span(struct writer *w, enum span span, float factor)
{
    TRY(border(w));
    w->span = span;
    w->factor = factor;
    return STATUS_OK;
}

static int32_t bos_of(const struct chat_template *t, const struct tokenizer *tokenizer)
{
    if (t->bos)
        return *t->bos ? tokenizer_id(tokenizer, t->bos) : -1;
    return tokenizer_bos(tokenizer) != tokenizer_eos(tokenizer) ? tokenizer_bos(tokenizer) : -1;
}

static int32_t end_of(const struct chat_template *t, const struct tokenizer *tokenizer)
{
    return t->end ? tokenizer_id(tokenizer, t->end) : tokenizer_eos(tokenizer);
}

static enum status put_owed(struct writer *w)
{
    bool owes = w->owes_after;
    w->owes_after = false;
    return owes ? put_markup(w, w->t->end_after) : STATUS_OK;
}

/* The closing tag ends with a border too, because a model may write the tag itself and be given what follows. */
static enum status put_close(struct writer *w)
{
    put_text(w, w->t->close.before);
    TRY(put_tag(w, w->t->close.tag));
    TRY(border(w));
    put_text(w, w->t->close.after);
    return border(w);
}

/* What the prompt says where the run has no thoughts at all. */
static enum status put_absence(struct writer *w)
{
    if (w->t->no_thought)
        return put_markup(w, w->t->no_thought);
    TRY(put_piece(w, &w->t->open));
    TRY(border(w));
    return put_close(w);
}

static float factor_of(const struct message *m)
{
    return m->factor > 0 ? m->factor : 1.0f;
}

/* The thought with its tags. An empty one that is ignored takes no loss, not even where prompts do. */
static enum status put_thought(struct writer *w, const struct message *m)
{
    const struct chat_template *t = w->t;
    bool ignored = t->ignore_empty && !m->thought_size;
    float factor = ignored ? 0.0f : factor_of(m);
    if (ignored || !t->open_is_prompt)
        TRY(change_span(w, ignored ? SPAN_PROMPT : SPAN_THOUGHT, factor));
    TRY(put_piece(w, &t->open));
    TRY(change_span(w, ignored ? SPAN_PROMPT : SPAN_THOUGHT, factor));
    if (m->thought_size)
        text_append(&w->text, m->thought, m->thought_size);
    return put_close(w);
}

static enum status put_supervised(struct writer *w, const struct message *m)
{
    bool thinks = w->t->thinking != TEMPLATE_NO && (m->thought || w->t->thinking == TEMPLATE_YES);
    TRY(border(w)); /* a prompt may end here */
    if (thinks)
        TRY(put_thought(w, m));
    else if (w->t->thinking == TEMPLATE_NO)
        TRY(put_absence(w));
    else
        TRY(put_markup(w, w->t->no_thought));
    TRY(change_span(w, SPAN_ANSWER, factor_of(m)));
    put_text(w, thinks || w->t->thinking == TEMPLATE_NO ? NULL : w->t->lead);
    return STATUS_OK;
}

/* The end token of a turn that is learnt; `last`: nothing comes behind it. */
static enum status put_learnt_end(struct writer *w, int32_t id, float factor, bool last)
{
    bool trained = w->t->train_on_eos == TRAIN_ON_EOS_TURN || (w->t->train_on_eos == TRAIN_ON_EOS_LAST && last);
    TRY(change_span(w, trained ? SPAN_END : SPAN_PROMPT, trained ? factor : 0.0f));
    return put_id(w, id);
}

static enum status put_assistant(struct writer *w, const struct message *m, bool last)
{
    TRY(put_markup(w, w->t->roles[ROLE_ASSISTANT].prefix));
    if (m->supervised) {
        TRY(put_supervised(w, m));
    } else {
        TRY(put_markup(w, w->t->no_thought));
        put_text(w, w->t->lead);
    }
    text_append(&w->text, m->content, m->content_size);
    TRY(put_markup(w, w->t->roles[ROLE_ASSISTANT].suffix));
    if (m->supervised)
        TRY(put_learnt_end(w, end_of(w->t, w->tokenizer), factor_of(m), last));
    else
        TRY(put_id(w, end_of(w->t, w->tokenizer)));
    w->owes_after = true;
    return change_span(w, SPAN_PROMPT, 1.0f);
}

static enum status refuse_role(struct writer *w, int index, enum role role)
{
    struct text known = {0};
    for (int i = 0; i < ROLE_COUNT; i++)
        if (w->t->roles[i].prefix)
            text_printf(&known, "%s%s", known.size ? ", " : "", role_name((enum role)i));
    error_set(w->err, STATUS_DATA, "message %d has the role '%s', which chat_template '%s' cannot write; it knows %s; use a template "
              "file that says how (chat_template: FILE.yaml with a key '%s')", index, role_name(role), w->t->name,
              known.failed ? "others" : known.data, role_name(role));
    text_free(&known);
    return STATUS_DATA;
}

/* A message of any role but the assistant's. What tools say is never learnt. */
static enum status put_framed(struct writer *w, const struct message *m, bool after_system)
{
    const struct frame *frame = &w->t->roles[m->role];
    bool tool = m->role == ROLE_TOOL, system = m->role == ROLE_SYSTEM;
    if (tool)
        TRY(change_span(w, SPAN_PROMPT, 0.0f));
    if (after_system && system)
        put_text(w, w->t->system_join);
    else
        TRY(put_markup(w, frame->prefix));
    text_append(&w->text, m->content, m->content_size);
    if (!system)
        TRY(put_markup(w, frame->suffix));
    return tool ? change_span(w, SPAN_PROMPT, 1.0f) : STATUS_OK;
}

static enum status put_default_system(struct writer *w)
{
    const char *text = w->t->default_system;
    if (!text || !*text)
        return STATUS_OK;
    if (!w->t->roles[ROLE_SYSTEM].prefix)
        FAIL(w->err, STATUS_USAGE, "default_system is given, but chat_template '%s' cannot write a system message", w->t->name);
    TRY(put_markup(w, w->t->roles[ROLE_SYSTEM].prefix));
    put_text(w, text);
    return put_markup(w, w->t->roles[ROLE_SYSTEM].suffix);
}

/* A text that is no talk ends as documents do, with the tokenizer's EOS. */
static enum status put_plain(struct writer *w, const struct message *m)
{
    int32_t eos = tokenizer_eos(w->tokenizer);
    TRY(change_span(w, SPAN_ANSWER, 1.0f));
    text_append(&w->text, m->content, m->content_size);
    return put_learnt_end(w, eos >= 0 ? eos : end_of(w->t, w->tokenizer), 1.0f, true);
}

static enum status put_conversation(struct writer *w, const struct conversation *c, int count)
{
    int32_t bos = bos_of(w->t, w->tokenizer);
    bool has_system = false;
    TRY(template_check(w->t, w->tokenizer, w->err));
    if (bos >= 0)
        TRY(put_id(w, bos));
    if (c->plain)
        return put_plain(w, &c->messages[0]);
    for (int i = 0; i < count; i++)
        has_system |= c->messages[i].role == ROLE_SYSTEM;
    if (!has_system)
        TRY(put_default_system(w));
    for (int i = 0; i < count; i++) {
        const struct message *m = &c->messages[i];
        bool system = m->role == ROLE_SYSTEM, next_too = i + 1 < count && c->messages[i + 1].role == ROLE_SYSTEM;
        if (!w->t->roles[m->role].prefix)
            return refuse_role(w, i, m->role);
        TRY(put_owed(w));
        TRY(m->role == ROLE_ASSISTANT ? put_assistant(w, m, i + 1 == c->count)
                                      : put_framed(w, m, i && c->messages[i - 1].role == ROLE_SYSTEM));
        if (system && !next_too)
            TRY(put_markup(w, w->t->roles[ROLE_SYSTEM].suffix));
    }
    return STATUS_OK;
}

static void writer_free(struct writer *w)
{
    text_free(&w->text);
    token_list_free(&w->ids);
    mem_free(w->spans);
    mem_free(w->stretches);
}

/* Takes the row out of the writer. */
static enum status finish(struct writer *w, enum status st, float weight, struct row *out)
{
    if (st == STATUS_OK)
        st = border(w);
    if (st == STATUS_OK && (!w->ids.count || w->ids.count > INT_MAX))
        st = error_set(w->err, STATUS_DATA, "a row must have 1 to %d tokens, found %zu", INT_MAX, w->ids.count);
    int32_t bos = bos_of(w->t, w->tokenizer);
    if (st == STATUS_OK && w->ids.count > 1 && bos >= 0 && w->ids.ids[0] == bos && w->ids.ids[1] == bos)
        st = error_set(w->err, STATUS_DATA, "chat_template '%s' begins a row with the start token twice; give it as bos or in a prefix, "
                       "not in both", w->t->name);
    if (st == STATUS_OK) {
        *out = (struct row){.tokens = w->ids.ids, .spans = w->spans, .n_tokens = (int)w->ids.count, .weight = weight,
                            .stretches = w->stretches, .n_stretches = w->n_stretches};
        w->ids.ids = NULL;
        w->spans = NULL;
        w->stretches = NULL;
    }
    writer_free(w);
    return st;
}

enum status template_encode(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                            const struct conversation *conversation, struct row *out, struct error *err)
{
    struct writer w = {.t = chat_template, .tokenizer = tokenizer, .factor = 1, .err = err};
    return finish(&w, put_conversation(&w, conversation, conversation->count), conversation->weight, out);
}

enum status template_encode_text(const struct chat_template *chat_template, const struct tokenizer *tokenizer, const char *text,
                                 size_t size, struct row *out, struct error *err)
{
    struct writer w = {.t = chat_template, .tokenizer = tokenizer, .factor = 1, .err = err};
    int32_t bos = bos_of(w.t, tokenizer);
    enum status st = bos >= 0 ? put_id(&w, bos) : STATUS_OK;
    text_append(&w.text, text, size);
    return finish(&w, st, 1, out);
}

static enum status put_prompt(struct writer *w, const struct conversation *c, bool thinking)
{
    int count = c->count;
    if (c->plain)
        FAIL(w->err, STATUS_DATA, "plain text has no question to answer; name rows with a question, or another format");
    if (count && c->messages[count - 1].role == ROLE_ASSISTANT && c->messages[count - 1].supervised)
        count--;
    TRY(put_conversation(w, c, count));
    TRY(put_owed(w));
    TRY(put_markup(w, w->t->roles[ROLE_ASSISTANT].prefix));
    TRY(border(w));
    if (!template_thinks(w->t))
        TRY(put_absence(w));
    else if (!thinking)
        TRY(put_markup(w, w->t->no_thought));
    else if (!w->t->model_opens)
        TRY(put_piece(w, &w->t->open));
    return border(w);
}

enum status template_prompt(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                            const struct conversation *conversation, bool thinking, struct token_list *out,
                            struct error *err)
{
    struct writer w = {.t = chat_template, .tokenizer = tokenizer, .factor = 1, .err = err};
    enum status st = put_prompt(&w, conversation, thinking);
    if (st == STATUS_OK)
        st = token_list_add(out, w.ids.ids, w.ids.count, err);
    writer_free(&w);
    return st;
}

const char *template_thought_tag(const struct chat_template *chat_template)
{
    return chat_template->close.tag;
}

const char *template_thought_open(const struct chat_template *chat_template)
{
    return chat_template->open.tag;
}

bool template_thinks(const struct chat_template *chat_template)
{
    return chat_template->thinking != TEMPLATE_NO;
}

bool template_expects_thoughts(const struct chat_template *t)
{
    return t->tags_needed && !t->no_thought && template_thinks(t);
}

bool template_is_declared(const struct chat_template *chat_template)
{
    return chat_template->declared;
}

const char *template_written_tag(const struct chat_template *chat_template)
{
    return chat_template->model_opens ? chat_template->open.tag : NULL;
}

enum status template_open_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                              struct token_list *out, struct error *err)
{
    struct writer w = {.t = chat_template, .tokenizer = tokenizer, .err = err};
    enum status st = chat_template->open_is_prompt || chat_template->model_opens ? STATUS_OK : put_piece(&w, &chat_template->open);
    if (st == STATUS_OK)
        st = border(&w);
    if (st == STATUS_OK)
        st = token_list_add(out, w.ids.ids, w.ids.count, err);
    writer_free(&w);
    return st;
}

enum status template_close_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                               struct token_list *out, struct error *err)
{
    struct writer w = {.t = chat_template, .tokenizer = tokenizer, .span = SPAN_THOUGHT, .factor = 1, .err = err};
    enum status st = put_close(&w);
    if (st == STATUS_OK)
        st = token_list_add(out, w.ids.ids, w.ids.count, err);
    writer_free(&w);
    return st;
}

enum status template_lead_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                              struct token_list *out, struct error *err)
{
    const char *lead = chat_template->close.after;
    return lead ? tokenizer_encode(tokenizer, lead, strlen(lead), 0, out, err) : STATUS_OK;
}

enum status template_end_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                             struct token_list *out, struct error *err)
{
    int32_t end = end_of(chat_template, tokenizer), eos = tokenizer_eos(tokenizer);
    TRY(template_check(chat_template, tokenizer, err));
    TRY(token_list_add(out, &end, 1, err));
    return token_list_add(out, &eos, eos >= 0 && eos != end, err);
}
