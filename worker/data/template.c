#include "worker/data/template.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "common/text.h"

#define BOS "<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define EOS "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define USER "<\xEF\xBD\x9CUser\xEF\xBD\x9C>"
#define ASSISTANT "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>"

/* Text, a special token, text; each may be "" or NULL. */
struct piece {
    const char *before, *token, *after;
};

struct chat_template {
    const char *name;
    const char *bos;            /* NULL: the tokenizer's own, unless it is its EOS too */
    const char *default_system; /* where a conversation has none */
    const char *system_join, *system_after;
    struct piece user; /* before the text */
    const char *user_after;
    struct piece head; /* begins an assistant's turn */
    const char *lead;  /* before an answer without a thought */
    struct piece open, close; /* round a thought; open.token and close.token are the tags */
    bool tags_needed;         /* the tags must be tokens; else they may be plain text */
    bool open_is_prompt;      /* the opening tag is given to the model, not learnt */
    struct piece end;         /* token NULL: the tokenizer's EOS; `after` is written only if something follows */
};

/* DeepSeek-LLM, -Coder and V3 as their own templates write them; R1 with the thought kept on supervised turns, which
 * the published template cuts away. */
static const struct chat_template templates[] = {
    {.name = "deepseek-llm", .bos = BOS, .system_join = "\n\n", .system_after = "\n\n", .user = {"User: ", NULL, NULL},
     .user_after = "\n\n", .head = {"Assistant:", NULL, NULL}, .lead = " ", .open = {" ", "<think>", "\n"},
     .close = {"\n", "</think>", "\n\n"}, .end = {NULL, EOS, NULL}},
    {.name = "deepseek-coder", .bos = BOS,
     .default_system =
         "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, and you "
         "only answer questions related to computer science. For politically sensitive questions, security and privacy "
         "issues, and other non-computer science questions, you will refuse to answer\n",
     .user = {"### Instruction:\n", NULL, NULL}, .user_after = "\n", .head = {"### Response:\n", NULL, NULL},
     .open = {NULL, "<think>", "\n"}, .close = {"\n", "</think>", "\n\n"}, .end = {"\n", "<|EOT|>", "\n"}},
    {.name = "deepseek-v3", .bos = BOS, .system_join = "\n\n", .user = {NULL, USER, NULL}, .head = {NULL, ASSISTANT, NULL},
     .open = {NULL, "<think>", "\n"}, .close = {"\n", "</think>", "\n\n"}, .end = {NULL, EOS, NULL}},
    {.name = "deepseek-r1", .bos = BOS, .system_join = "\n\n", .user = {NULL, USER, NULL}, .head = {NULL, ASSISTANT, NULL},
     .open = {NULL, "<think>", "\n"}, .close = {"\n", "</think>", "\n\n"}, .tags_needed = true, .open_is_prompt = true,
     .end = {NULL, EOS, NULL}},
    {.name = "plain", .system_join = "\n", .system_after = "\n", .user_after = "\n", .open = {NULL, "<think>", NULL},
     .close = {NULL, "</think>", NULL}, .open_is_prompt = true},
};
enum { TEMPLATES = sizeof templates / sizeof *templates };

const struct chat_template *template_find(const char *name)
{
    for (int i = 0; i < TEMPLATES; i++)
        if (!strcmp(templates[i].name, name))
            return &templates[i];
    return NULL;
}

const char *template_names(void)
{
    static _Thread_local char names[256];
    size_t size = 0;
    for (int i = 0; i < TEMPLATES; i++)
        size += (size_t)snprintf(names + size, sizeof names - size, "%s%s", i ? ", " : "", templates[i].name);
    return names;
}

const char *template_name(const struct chat_template *chat_template)
{
    return chat_template->name;
}

enum status template_check(const struct chat_template *t, const struct tokenizer *tokenizer, struct error *err)
{
    const char *const needed[] = {t->bos, t->user.token, t->head.token, t->end.token,
                                  t->tags_needed ? t->open.token : NULL, t->tags_needed ? t->close.token : NULL};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (needed[i] && tokenizer_id(tokenizer, needed[i]) < 0)
            FAIL(err, STATUS_DATA, "chat_template '%s' needs the token '%s', which the tokenizer does not have; use the "
                 "template of the model's family, or 'plain'", t->name, needed[i]);
    if (!t->end.token && tokenizer_eos(tokenizer) < 0)
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
    enum span span;
    bool owes_after; /* what follows an end token, if anything comes */
    struct error *err;
};

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
    return STATUS_OK;
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
static enum status put_token(struct writer *w, const char *token)
{
    int32_t id = token ? tokenizer_id(w->tokenizer, token) : -1;
    if (id >= 0)
        return put_id(w, id);
    put_text(w, token);
    return STATUS_OK;
}

static enum status put_piece(struct writer *w, const struct piece *piece)
{
    put_text(w, piece->before);
    TRY(put_token(w, piece->token));
    put_text(w, piece->after);
    return STATUS_OK;
}

/* Ends the span that was written so far. */
static enum status change_span(struct writer *w, enum span span)
{
    TRY(border(w));
    w->span = span;
    return STATUS_OK;
}

static int32_t bos_of(const struct chat_template *t, const struct tokenizer *tokenizer)
{
    if (t->bos)
        return tokenizer_id(tokenizer, t->bos);
    return tokenizer_bos(tokenizer) != tokenizer_eos(tokenizer) ? tokenizer_bos(tokenizer) : -1;
}

static int32_t end_of(const struct chat_template *t, const struct tokenizer *tokenizer)
{
    return t->end.token ? tokenizer_id(tokenizer, t->end.token) : tokenizer_eos(tokenizer);
}

static void put_owed(struct writer *w)
{
    if (w->owes_after)
        put_text(w, w->t->end.after);
    w->owes_after = false;
}

static enum status put_open(struct writer *w)
{
    TRY(change_span(w, w->t->open_is_prompt ? SPAN_PROMPT : SPAN_THOUGHT));
    return put_piece(w, &w->t->open);
}

/* The closing tag ends with a border too, because a model may write the tag itself and be given what follows. */
static enum status put_close(struct writer *w)
{
    put_text(w, w->t->close.before);
    TRY(put_token(w, w->t->close.token));
    TRY(border(w));
    put_text(w, w->t->close.after);
    return border(w);
}

static enum status put_supervised(struct writer *w, const struct message *m)
{
    bool thinks = m->thought && m->thought_size;
    if (thinks) {
        TRY(put_open(w));
        TRY(change_span(w, SPAN_THOUGHT));
        text_append(&w->text, m->thought, m->thought_size);
        TRY(put_close(w));
    }
    TRY(change_span(w, SPAN_ANSWER));
    put_text(w, thinks ? NULL : w->t->lead);
    return STATUS_OK;
}

static enum status put_assistant(struct writer *w, const struct message *m)
{
    TRY(put_piece(w, &w->t->head));
    if (m->supervised)
        TRY(put_supervised(w, m));
    else
        put_text(w, w->t->lead);
    text_append(&w->text, m->content, m->content_size);
    put_text(w, w->t->end.before);
    if (m->supervised)
        TRY(change_span(w, SPAN_END));
    TRY(put_id(w, end_of(w->t, w->tokenizer)));
    w->owes_after = true;
    return change_span(w, SPAN_PROMPT);
}

static enum status put_message(struct writer *w, const struct message *m, bool after_system)
{
    put_owed(w);
    if (m->role == ROLE_ASSISTANT)
        return put_assistant(w, m);
    if (m->role == ROLE_USER)
        TRY(put_piece(w, &w->t->user));
    else if (after_system)
        put_text(w, w->t->system_join);
    text_append(&w->text, m->content, m->content_size);
    if (m->role == ROLE_USER)
        put_text(w, w->t->user_after);
    return STATUS_OK;
}

/* A text that is no talk ends as documents do, with the tokenizer's EOS. */
static enum status put_plain(struct writer *w, const struct message *m)
{
    int32_t eos = tokenizer_eos(w->tokenizer);
    TRY(change_span(w, SPAN_ANSWER));
    text_append(&w->text, m->content, m->content_size);
    TRY(change_span(w, SPAN_END));
    return put_id(w, eos >= 0 ? eos : end_of(w->t, w->tokenizer));
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
        put_text(w, w->t->default_system);
    for (int i = 0; i < count; i++) {
        bool was_system = i && c->messages[i - 1].role == ROLE_SYSTEM;
        if (was_system && c->messages[i].role != ROLE_SYSTEM)
            put_text(w, w->t->system_after);
        TRY(put_message(w, &c->messages[i], was_system));
    }
    if (count && c->messages[count - 1].role == ROLE_SYSTEM)
        put_text(w, w->t->system_after);
    return STATUS_OK;
}

static void writer_free(struct writer *w)
{
    text_free(&w->text);
    token_list_free(&w->ids);
    mem_free(w->spans);
}

/* Takes the row out of the writer. */
static enum status finish(struct writer *w, enum status st, float weight, struct row *out)
{
    if (st == STATUS_OK)
        st = border(w);
    if (st == STATUS_OK && (!w->ids.count || w->ids.count > INT_MAX))
        st = error_set(w->err, STATUS_DATA, "a row must have 1 to %d tokens, found %zu", INT_MAX, w->ids.count);
    if (st == STATUS_OK) {
        *out = (struct row){.tokens = w->ids.ids, .spans = w->spans, .n_tokens = (int)w->ids.count, .weight = weight};
        w->ids.ids = NULL;
        w->spans = NULL;
    }
    writer_free(w);
    return st;
}

enum status template_encode(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                            const struct conversation *conversation, struct row *out, struct error *err)
{
    struct writer w = {.t = chat_template, .tokenizer = tokenizer, .err = err};
    return finish(&w, put_conversation(&w, conversation, conversation->count), conversation->weight, out);
}

enum status template_encode_text(const struct chat_template *chat_template, const struct tokenizer *tokenizer, const char *text,
                                 size_t size, struct row *out, struct error *err)
{
    struct writer w = {.t = chat_template, .tokenizer = tokenizer, .err = err};
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
    put_owed(w);
    TRY(put_piece(w, &w->t->head));
    if (thinking)
        TRY(put_open(w));
    return border(w);
}

enum status template_prompt(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                            const struct conversation *conversation, bool thinking, struct token_list *out,
                            struct error *err)
{
    struct writer w = {.t = chat_template, .tokenizer = tokenizer, .err = err};
    enum status st = put_prompt(&w, conversation, thinking);
    if (st == STATUS_OK)
        st = token_list_add(out, w.ids.ids, w.ids.count, err);
    writer_free(&w);
    return st;
}

const char *template_thought_tag(const struct chat_template *chat_template)
{
    return chat_template->close.token;
}

enum status template_close_ids(const struct chat_template *chat_template, const struct tokenizer *tokenizer,
                               struct token_list *out, struct error *err)
{
    struct writer w = {.t = chat_template, .tokenizer = tokenizer, .span = SPAN_THOUGHT, .err = err};
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
