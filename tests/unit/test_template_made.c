/* Chat templates that are made: declared in a file or changed by the settings of a run, read back, and refused where they make
 * no sense. */
#include "tests/support/cmocka_all.h"

#include "tests/support/template_rows.h"

static const char chatml[] = "# a comment\n"
                             "name: chatml\n"
                             "tokens: ['<s>', \"<|EOT|>\"]\n"
                             "bos: ''\n"
                             "system: {prefix: \"<s>system\\n\", suffix: \"<|EOT|>\\n\"}\n"
                             "user: {prefix: \"<s>user\\n\", suffix: \"<|EOT|>\\n\"}\n"
                             "tool: {prefix: \"<s>tool\\n\", suffix: \"<|EOT|>\\n\"}\n"
                             "assistant: {prefix: \"<s>assistant\\n\"}\n"
                             "end: <|EOT|>\n"
                             "after_end: \"\\n\"\n"
                             "prompt_opens_thought: false\n";

/* The demo tokenizer with the tokens of that template. */
static struct tokenizer *chatml_open(void)
{
    return demo_open_with("{\"eos_token\": \"<|EOT|>\", \"added_tokens_decoder\": {\"900\": {\"content\": \"<|EOT|>\", \"special\": true},"
                          " \"901\": {\"content\": \"<s>\", \"special\": true}}}");
}

static struct chat_template *make(const struct template_settings *settings)
{
    struct chat_template *t = NULL;
    struct error err;
    assert_ok(template_create(settings, &t, &err), &err);
    return t;
}

static void expect_made_row(const struct tokenizer *t, const struct template_settings *settings, struct message *messages, int count,
                            const char *wanted)
{
    struct chat_template *made = make(settings);
    struct conversation c = {.messages = messages, .count = count, .weight = 1};
    struct row row = {0};
    struct text text = {0};
    struct error err;
    assert_ok(template_encode(made, t, &c, &row, &err), &err);
    spell(t, &row, &text);
    assert_string_equal(text.data, wanted);
    text_free(&text);
    row_free(&row);
    template_free(made);
}

static void files_declare_templates(void **state)
{
    (void)state;
    struct tokenizer *t = chatml_open();
    struct template_settings settings = {.name = "dir/mine.yaml", .text = chatml};
    struct message m[] = {message(ROLE_SYSTEM, "S", NULL, false), message(ROLE_USER, "Q<s>", NULL, false),
                          message(ROLE_ASSISTANT, "call", NULL, true), message(ROLE_TOOL, "42", NULL, false),
                          message(ROLE_ASSISTANT, "A", "T", true)};
    expect_made_row(t, &settings, m, 5,
                    "{<s>system\nS<|EOT|>\n<s>user\nQ<s><|EOT|>\n<s>assistant\n}[call]<<|EOT|>>{\n<s>tool\n42<|EOT|>\n<s>assistant\n}"
                    "(<think>\nT\n</think>\n\n)[A]<<|EOT|>>");
    /* The user's <s> is text. */
    struct chat_template *made = make(&settings);
    struct conversation c = {.messages = m, .count = 5, .weight = 1};
    struct row row;
    struct token_list prompt = {0};
    struct error err;
    int marks = 0;
    assert_ok(template_encode(made, t, &c, &row, &err), &err);
    for (int i = 0; i < row.n_tokens; i++)
        marks += row.tokens[i] == tokenizer_id(t, "<s>");
    assert_int_equal(marks, 5);
    assert_int_equal(row.n_stretches, 2); /* what the tool says takes no loss, whatever prompts do */
    assert_true(row.stretches[0].factor == 0 && row.stretches[1].factor == 1);
    assert_string_equal(template_name(made), "chatml");
    /* The model opens the thought: the prompt ends with the head. */
    assert_string_equal(template_written_tag(made), "<think>");
    assert_ok(template_prompt(made, t, &c, true, &prompt, &err), &err);
    assert_memory_equal(prompt.ids, row.tokens, prompt.count * sizeof *prompt.ids);
    assert_int_equal(row.tokens[prompt.count], tokenizer_id(t, "<think>"));
    token_list_free(&prompt);
    row_free(&row);
    template_free(made);
    tokenizer_free(t);
}

/* What is written reads back as the same template, for built-in ones, too. */
static void declarations_read_back(void **state)
{
    (void)state;
    struct error err;
    for (int i = 0; i <= NAMES; i++) {
        struct template_settings settings = {.name = i < NAMES ? names[i] : "mine.yaml", .text = i < NAMES ? NULL : chatml};
        struct chat_template *first = make(&settings);
        struct text text = {0}, again = {0};
        template_declare(first, &text);
        struct chat_template *second = make(&(struct template_settings){.name = "other.yaml", .text = text.data});
        template_declare(second, &again);
        assert_string_equal(text.data, again.data);
        char hashes[3][TEMPLATE_HASH_SIZE];
        struct chat_template *third = make(&(struct template_settings){.name = settings.name, .text = settings.text, .thought_open = "<t>"});
        assert_ok(template_hash(first, hashes[0], &err), &err);
        assert_ok(template_hash(second, hashes[1], &err), &err);
        assert_ok(template_hash(third, hashes[2], &err), &err);
        assert_string_equal(hashes[0], hashes[1]);
        assert_string_not_equal(hashes[0], hashes[2]);
        struct tokenizer *t = i < NAMES ? demo_open() : chatml_open();
        struct message m[] = {message(ROLE_USER, "Q1", NULL, false), message(ROLE_ASSISTANT, "A1", "T1", false), message(ROLE_USER, "Q", NULL, false),
                              message(ROLE_ASSISTANT, "A", "T", true), message(ROLE_USER, "R", NULL, false), message(ROLE_ASSISTANT, "B", NULL, true)};
        struct conversation c = {.messages = m, .count = 6, .weight = 1};
        struct row rows[2];
        assert_ok(template_encode(first, t, &c, &rows[0], &err), &err);
        assert_ok(template_encode(second, t, &c, &rows[1], &err), &err);
        assert_int_equal(rows[0].n_tokens, rows[1].n_tokens);
        assert_memory_equal(rows[0].tokens, rows[1].tokens, (size_t)rows[0].n_tokens * sizeof *rows[0].tokens);
        assert_memory_equal(rows[0].spans, rows[1].spans, (size_t)rows[0].n_tokens);
        for (int k = 0; k < 2; k++)
            row_free(&rows[k]);
        tokenizer_free(t);
        text_free(&text);
        text_free(&again);
        template_free(first);
        template_free(second);
        template_free(third);
    }
}

static void bad_declarations_are_explained(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"user: {prefix: a}\nusr: b\n", "mine.yaml:2: 'usr': unknown key; known are name, tokens"},
        {"user: {prefix: a, postfix: b}\n", "mine.yaml:1: 'user.postfix': unknown key"},
        {"user.prefix: a\n", "mine.yaml:1: 'user.prefix': unknown key"},
        {"user: a\n", "mine.yaml:1: 'user': wanted a mapping such as"},
        {"user: {prefix: [a]}\n", "'user.prefix': wanted a text"},
        {"user: {prefix: a}\n", "'assistant': a template must say how this role is written"},
        {"assistant: {prefix: a}\n", "'user': a template must say"},
        {"- a\n", "a chat template is a mapping of keys"},
        {"# nothing\n", "a chat template is a mapping of keys"},
        {"user: {}\nassistant: {}\ntokens: a\n", "mine.yaml:3: 'tokens': wanted a list of tokens"},
        {"user: {}\nassistant: {}\ntokens: ['']\n", "'tokens': wanted a list of tokens, each a text"},
        {"user: {}\nassistant: {}\nthought_open: <t>\n", "thought_open and thought_close belong together"},
        {"user: {}\nassistant: {}\nthought_open: \" \"\n", "'thought_open': a tag of thoughts must be more than white space"},
        {"user: {}\nassistant: {}\nprompt_opens_thought: maybe\n", "'prompt_opens_thought': wanted true or false"},
        {"user: {}\nassistant: {}\nend: ''\n", "'end': an empty end would never end a turn"},
        {"user: {}\nassistant: {}\ndefault_system: S\n", "'default_system': needs a key `system`"},
        {"user: {}\nuser: {}\n", "user"},
        {"user: {prefix: \"unclosed}\n", "mine.yaml:"},
    };
    struct error err;
    struct chat_template *t = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(template_create(&(struct template_settings){.name = "mine.yaml", .text = cases[i].text}, &t, &err), STATUS_DATA, &err,
                       cases[i].message);
    assert_refused(template_create(&(struct template_settings){.name = "chatml"}, &t, &err), STATUS_USAGE, &err,
                   "chat_template 'chatml' is not known; known are deepseek-llm");
    assert_refused(template_create(&(struct template_settings){.name = "plain", .thought_open = "\n"}, &t, &err), STATUS_DATA, &err,
                   "thought_open: a tag of thoughts");
    assert_refused(template_create(&(struct template_settings){.name = "x.yaml", .text = "user: {}\nassistant: {}\n", .default_system = "S"},
                                   &t, &err), STATUS_USAGE, &err, "default_system is given, but chat_template 'x' cannot write a system message");
    assert_refused(template_open("/nonexistent/x.yaml", &t, &err), STATUS_DATA, &err, "/nonexistent/x.yaml");
    struct tokenizer *tokenizer = demo_open();
    t = make(&(struct template_settings){.name = "mine.yaml", .text = chatml});
    assert_refused(template_check(t, tokenizer, &err), STATUS_DATA, &err, "chat_template 'chatml' needs the token '<s>'");
    template_free(t);
    tokenizer_free(tokenizer);
    assert_int_equal(mem_live(), 0);
}

static void roles_that_cannot_be_written_are_refused(void **state)
{
    (void)state;
    struct tokenizer *t = demo_open();
    struct message m[] = {message(ROLE_USER, "Q", NULL, false), message(ROLE_ASSISTANT, "call", NULL, true), message(ROLE_TOOL, "42", NULL, false),
                          message(ROLE_ASSISTANT, "A", NULL, true)};
    struct conversation c = {.messages = m, .count = 4, .weight = 1};
    struct row row;
    struct error err;
    assert_refused(template_encode(template_find("deepseek-r1"), t, &c, &row, &err), STATUS_DATA, &err,
                   "message 2 has the role 'tool', which chat_template 'deepseek-r1' cannot write; it knows system, user, assistant; use a "
                   "template file");
    expect_row(t, "plain", (struct message[]){m[0], m[1], m[2], m[3]}, 4, "{" BOS "Q\n}[call]<" EOS ">{42\n}[A]<" EOS ">");
    m[0].role = ROLE_SYSTEM;
    struct chat_template *made = make(&(struct template_settings){.name = "x.yaml", .text = "user: {}\nassistant: {}\n"});
    assert_refused(template_encode(made, t, &c, &row, &err), STATUS_DATA, &err, "message 0 has the role 'system', which chat_template 'x'");
    template_free(made);
    tokenizer_free(t);
}

static void a_doubled_start_is_refused(void **state)
{
    (void)state;
    struct tokenizer *t = demo_open();
    struct message m[] = {message(ROLE_USER, "Q", NULL, false), message(ROLE_ASSISTANT, "A", NULL, true)};
    struct conversation c = {.messages = m, .count = 2, .weight = 1};
    struct row row;
    struct error err;
    struct chat_template *made = make(&(struct template_settings){
        .name = "x.yaml", .text = "tokens: [\"" BOS "\"]\nuser: {prefix: \"" BOS "\"}\nassistant: {}\n"});
    assert_refused(template_encode(made, t, &c, &row, &err), STATUS_DATA, &err, "chat_template 'x' begins a row with the start token twice");
    template_free(made);
    expect_made_row(t, &(struct template_settings){
        .name = "x.yaml", .text = "bos: \"\"\ntokens: [\"" BOS "\"]\nuser: {prefix: \"" BOS "\"}\nassistant: {}\n"}, m, 2,
        "{" BOS "Q}[A]<" EOS ">");
    tokenizer_free(t);
}

static void settings_of_a_run(void **state)
{
    (void)state;
    struct tokenizer *t = demo_open();
    struct message two[] = {message(ROLE_USER, "Q", NULL, false), message(ROLE_ASSISTANT, "A", "T", true), message(ROLE_USER, "R", NULL, false),
                            message(ROLE_ASSISTANT, "B", NULL, true)};
    struct message empty[] = {message(ROLE_USER, "Q", NULL, false), message(ROLE_ASSISTANT, "A", "", true)};
    struct template_settings s = {.name = "deepseek-r1"};
    /* End tokens. */
    s.train_on_eos = TRAIN_ON_EOS_LAST;
    expect_made_row(t, &s, two, 4, "{" BOS USER "Q" ASSISTANT "<think>\n}(T\n</think>\n\n)[A]{" EOS USER "R" ASSISTANT "}[B]<" EOS ">");
    s.train_on_eos = TRAIN_ON_EOS_NONE;
    expect_made_row(t, &s, two, 4, "{" BOS USER "Q" ASSISTANT "<think>\n}(T\n</think>\n\n)[A]{" EOS USER "R" ASSISTANT "}[B]{" EOS "}");
    s.train_on_eos = TRAIN_ON_EOS_TURN;
    /* Thoughts: none anywhere, with an empty one in the prompt; or one everywhere, empty ones learnt or not. */
    s.enable_thinking = TEMPLATE_NO;
    expect_made_row(t, &s, two, 4, "{" BOS USER "Q" ASSISTANT "<think>\n\n</think>\n\n}[A]<" EOS ">{" USER "R" ASSISTANT
                                   "<think>\n\n</think>\n\n}[B]<" EOS ">");
    s.enable_thinking = TEMPLATE_YES;
    expect_made_row(t, &s, two + 2, 2, "{" BOS USER "R" ASSISTANT "<think>\n}(\n</think>\n\n)[B]<" EOS ">");
    s.ignore_empty_thought = true;
    expect_made_row(t, &s, two + 2, 2, "{" BOS USER "R" ASSISTANT "<think>\n\n</think>\n\n}[B]<" EOS ">");
    s.enable_thinking = TEMPLATE_AUTO;
    expect_made_row(t, &s, empty, 2, "{" BOS USER "Q" ASSISTANT "<think>\n\n</think>\n\n}[A]<" EOS ">");
    expect_made_row(t, &s, two + 2, 2, "{" BOS USER "R" ASSISTANT "}[B]<" EOS ">");
    /* Who opens the thought. */
    s.prompt_opens_thought = TEMPLATE_NO;
    expect_made_row(t, &s, two, 2, "{" BOS USER "Q" ASSISTANT "}(<think>\nT\n</think>\n\n)[A]<" EOS ">");
    s.name = "deepseek-llm";
    s.prompt_opens_thought = TEMPLATE_YES;
    expect_made_row(t, &s, two, 2, "{" BOS "User: Q\n\nAssistant: <think>\n}(T\n</think>\n\n)[A]<" EOS ">");
    /* Words. */
    s = (struct template_settings){.name = "plain", .thought_open = "<r>\n", .thought_close = "\n</r> ", .default_system = "Be brief."};
    expect_made_row(t, &s, two, 2, "{" BOS "Be brief.\nQ\n<r>\n}(T\n</r> )[A]<" EOS ">");
    s = (struct template_settings){.name = "deepseek-v3.1"};
    expect_made_row(t, &s, two, 4, "{" BOS USER "Q" ASSISTANT "<think>}(T</think>)[A]<" EOS ">{" USER "R" ASSISTANT "</think>}[B]<" EOS ">");
    two[1].supervised = false;
    expect_made_row(t, &s, two, 4, "{" BOS USER "Q" ASSISTANT "</think>A" EOS USER "R" ASSISTANT "</think>}[B]<" EOS ">");
    s = (struct template_settings){.name = "alpaca"};
    expect_made_row(t, &s, two, 4,
                    "{" BOS "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
                    "### Instruction:\nQ\n\n### Response:\nA" EOS "\n\n### Instruction:\nR\n\n### Response:\n}[B]<" EOS ">");
    tokenizer_free(t);
}

/* An ignored thought takes no loss even where prompts are learnt, and the turn's factor reaches all its other tokens. */
static void stretches_of_settings(void **state)
{
    (void)state;
    struct tokenizer *t = demo_open();
    struct message m[] = {message(ROLE_USER, "Q", NULL, false), message(ROLE_ASSISTANT, "A", "", true)};
    m[1].factor = 0.5f;
    struct chat_template *made = make(&(struct template_settings){.name = "deepseek-v3", .ignore_empty_thought = true});
    struct conversation c = {.messages = m, .count = 2, .weight = 1};
    const float prompts_too[SPAN_COUNT] = {1, 1, 1, 1};
    struct row row;
    struct error err;
    assert_ok(template_encode(made, t, &c, &row, &err), &err);
    struct row_weights weights = row_weights_begin(&row, prompts_too);
    bool inside = false;
    for (int i = 1; i < row.n_tokens; i++) {
        float weight = row_weights_next(&weights, i);
        inside |= row.tokens[i] == tokenizer_id(t, "<think>");
        bool answer = row.spans[i] == SPAN_ANSWER || row.spans[i] == SPAN_END;
        assert_true(weight == (answer ? 0.5f : inside ? 0.0f : 1.0f));
    }
    assert_true(inside);
    row_free(&row);
    template_free(made);
    tokenizer_free(t);
}

static void prompts_follow_the_settings(void **state)
{
    (void)state;
    struct tokenizer *t = demo_open();
    for (int i = 0; i < NAMES; i++)
        for (int opens = 0; opens < 3; opens++)
            for (int thinking = 0; thinking < 3; thinking++) {
                struct chat_template *made = make(&(struct template_settings){.name = names[i], .prompt_opens_thought = (enum template_choice)opens,
                                                                              .enable_thinking = (enum template_choice)thinking});
                struct message m[] = {message(ROLE_USER, "Q", NULL, false), message(ROLE_ASSISTANT, "A", "T", false),
                                      message(ROLE_USER, "R", NULL, false), message(ROLE_ASSISTANT, "B", "U", true)};
                struct conversation c = {.messages = m, .count = 4, .weight = 1};
                check_prefix(t, made, &c);
                assert_int_equal(template_thinks(made), thinking != TEMPLATE_NO);
                assert_int_equal(template_written_tag(made) != NULL, opens == TEMPLATE_NO);
                if (thinking != TEMPLATE_YES) {
                    m[3].thought = NULL;
                    m[3].thought_size = 0;
                    check_prefix(t, made, &c);
                }
                template_free(made);
            }
    tokenizer_free(t);
}

static void making_may_run_out_of_memory(void **state)
{
    (void)state;
    struct error err;
    enum status st = STATUS_NOMEM;
    for (long n = 0; st == STATUS_NOMEM; n++) {
        struct chat_template *t = NULL;
        struct text text = {0};
        mem_fail_after(n, false);
        st = template_create(&(struct template_settings){.name = "a.yaml", .text = chatml, .default_system = "S", .thought_open = "<a>",
                                                         .thought_close = "<b>"}, &t, &err);
        if (st == STATUS_OK) {
            template_declare(t, &text);
            st = text.failed ? STATUS_NOMEM : STATUS_OK;
        }
        mem_fail_after(-1, false);
        text_free(&text);
        template_free(t);
        assert_int_equal(mem_live(), 0);
        assert_true(n < 500);
    }
    assert_int_equal(st, STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_declare_templates),
        cmocka_unit_test(declarations_read_back),
        cmocka_unit_test(bad_declarations_are_explained),
        cmocka_unit_test(roles_that_cannot_be_written_are_refused),
        cmocka_unit_test(a_doubled_start_is_refused),
        cmocka_unit_test(settings_of_a_run),
        cmocka_unit_test(stretches_of_settings),
        cmocka_unit_test(prompts_follow_the_settings),
        cmocka_unit_test(making_may_run_out_of_memory),
    };
    long live = mem_live();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed || mem_live() != live;
}
