/* Any text at all as a declared chat template: refused with its place, or a template whose own declaration declares the same
 * one, and whose rows and prompts can be made. */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "worker/data/demo/demo.h"
#include "worker/data/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

static struct tokenizer *tokenizer_of_bytes(void)
{
    static struct tokenizer *tokenizer;
    struct text json = {0}, config = {0};
    struct error err;
    if (tokenizer)
        return tokenizer;
    demand(demo_tokenizer("", 0, 0, &json, &config, &err) == STATUS_OK);
    demand(tokenizer_load_text(json.data, json.size, config.data, config.size, "bytes", &tokenizer, &err) == STATUS_OK);
    text_free(&json);
    text_free(&config);
    return tokenizer;
}

/* A prompt begins its row, or both are refused: for a token or a role that the template lacks. */
static void check_rows(const struct chat_template *t)
{
    struct message m[] = {{.role = ROLE_SYSTEM, .content = "S", .content_size = 1}, {.role = ROLE_USER, .content = "Q", .content_size = 1},
                          {.role = ROLE_ASSISTANT, .content = "A", .content_size = 1, .thought = "T", .thought_size = 1, .supervised = true}};
    struct conversation c = {.messages = m, .count = 3, .weight = 1};
    struct row row = {0};
    struct token_list prompt = {0};
    struct error err;
    enum status made = template_encode(t, tokenizer_of_bytes(), &c, &row, &err);
    enum status asked = template_prompt(t, tokenizer_of_bytes(), &c, true, &prompt, &err);
    demand(made == asked && (made == STATUS_OK || made == STATUS_DATA));
    if (made == STATUS_OK)
        demand(prompt.count < (size_t)row.n_tokens && (!prompt.count || !memcmp(prompt.ids, row.tokens, prompt.count * sizeof *prompt.ids)));
    row_free(&row);
    token_list_free(&prompt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct chat_template *first = NULL, *second = NULL;
    struct text one = {0}, two = {0};
    (void)tokenizer_of_bytes();
    char *text = mem_strndup((const char *)data, size);
    demand(text != NULL);
    enum status st = template_create(&(struct template_settings){.name = "fuzz.yaml", .text = text}, &first, &err);
    if (st == STATUS_OK && *text) {
        check_rows(first);
        template_declare(first, &one);
        demand(template_create(&(struct template_settings){.name = "lines.yaml", .text = one.data}, &second, &err) == STATUS_OK);
        template_declare(second, &two);
        demand(one.size == two.size && !memcmp(one.data, two.data, one.size));
    } else if (*text) {
        demand(st == STATUS_DATA && !strncmp(err.text, "fuzz.yaml", 9));
    }
    mem_free(text);
    template_free(first);
    template_free(second);
    text_free(&one);
    text_free(&two);
    return 0;
}
