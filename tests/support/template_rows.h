/* Conversations, and the rows that chat templates make of them, spelt out. Include behind cmocka_all.h. */
#ifndef TESTS_SUPPORT_TEMPLATE_ROWS_H
#define TESTS_SUPPORT_TEMPLATE_ROWS_H

#include "common/memory.h"
#include "worker/data/demo/demo.h"
#include "worker/data/template.h"

#define BOS "<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define EOS "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define USER "<\xEF\xBD\x9CUser\xEF\xBD\x9C>"
#define ASSISTANT "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>"

static const char *const names[] = {"deepseek-llm", "deepseek-v2",   "deepseek-coder", "deepseek-v3", "deepseek-v3.1",
                                    "deepseek-r1",  "alpaca",        "plain"};
enum { NAMES = sizeof names / sizeof *names };

/* Byte-level; special tokens are those of tokenizer_config.json `config`. */
static inline struct tokenizer *demo_open_with(const char *config)
{
    struct text json = {0}, unused = {0};
    struct tokenizer *t;
    struct error err;
    assert_ok(demo_tokenizer("", 0, 0, &json, &unused, &err), &err);
    assert_ok(tokenizer_load_text(json.data, json.size, config, strlen(config), "demo", &t, &err), &err);
    text_free(&json);
    text_free(&unused);
    return t;
}

/* With the tokens of R1 and, in addition, Coder's end token. */
static inline struct tokenizer *demo_open(void)
{
    return demo_open_with("{\"bos_token\": \"" BOS "\", \"eos_token\": {\"content\": \"" EOS "\"},"
                          " \"added_tokens_decoder\": {\"900\": {\"content\": \"<|EOT|>\", \"special\": true}}}");
}

static inline struct message message(enum role role, const char *content, const char *thought, bool supervised)
{
    return (struct message){.role = role, .content = content, .content_size = strlen(content), .thought = thought,
                            .thought_size = thought ? strlen(thought) : 0, .supervised = supervised};
}

/* The row as text, each span in its own brackets: prompt {}, thought (), answer [], end <>. */
static inline void spell(const struct tokenizer *t, const struct row *row, struct text *out)
{
    static const char *const open[] = {"{", "(", "[", "<"}, *const close[] = {"}", ")", "]", ">"};
    struct error err;
    for (int i = 0, next; i < row->n_tokens; i = next) {
        for (next = i; next < row->n_tokens && row->spans[next] == row->spans[i]; next++)
            ;
        text_puts(out, open[row->spans[i]]);
        assert_ok(tokenizer_decode(t, row->tokens + i, (size_t)(next - i), false, out, &err), &err);
        text_puts(out, close[row->spans[i]]);
    }
}

static inline void expect_row(const struct tokenizer *t, const char *name, struct message *messages, int count, const char *wanted)
{
    struct conversation c = {.messages = messages, .count = count, .weight = 0.5f};
    struct row row = {0};
    struct text text = {0};
    struct error err;
    assert_ok(template_encode(template_find(name), t, &c, &row, &err), &err);
    spell(t, &row, &text);
    assert_string_equal(text.data, wanted);
    assert_true(row.weight == 0.5f && row.task == 0);
    text_free(&text);
    row_free(&row);
}

/* The prompt for the last message begins the row. */
static inline void check_prefix(const struct tokenizer *t, const struct chat_template *ct, struct conversation *c)
{
    struct row row;
    struct token_list prompt = {0};
    struct error err;
    const struct message *last = &c->messages[c->count - 1];
    assert_ok(template_encode(ct, t, c, &row, &err), &err);
    assert_ok(template_prompt(ct, t, c, last->thought != NULL, &prompt, &err), &err);
    assert_true(prompt.count < (size_t)row.n_tokens);
    assert_memory_equal(prompt.ids, row.tokens, prompt.count * sizeof *prompt.ids);
    token_list_free(&prompt);
    row_free(&row);
}

#endif
