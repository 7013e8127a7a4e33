/* Rows from text to conversations: every format, thoughts, weights of messages, and text that is added. */
#include "tests/support/cmocka_all.h"

#include "tests/support/read_rows.h"

static void formats_are_recognised(void **state)
{
    (void)state;
    struct fixture f = {0};
    assert_ok(read_text(&f, NULL, "{\"question\": \"Q?\", \"thought\": \"T.\", \"answer\": \"A\", \"id\": 3}", false), &f.err);
    assert_int_equal(f.conversation.count, 2);
    assert_message(&f, 0, ROLE_USER, "Q?", NULL);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", "T.");
    assert_true(f.conversation.messages[1].supervised && !f.conversation.messages[0].supervised);
    assert_true(f.conversation.weight == 1);

    assert_ok(read_text(&f, NULL, "{\"question\": \"Q?\", \"answer\": \"8/2=<<8/2=4>>4\\nso 4 < 5 << 6\\n#### 1,004\", \"weight\": 0.5}", false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "1,004", "8/2=4\nso 4 < 5 << 6");
    assert_true(f.conversation.weight == 0.5f);
    assert_ok(read_text(&f, "gsm8k", "{\"question\": \"Q?\", \"answer\": \"8/2=<<8/2=4>>4\\n#### 3 is not it\\n#### 4\"}", true), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "4", "8/2=<<8/2=4>>4\n#### 3 is not it");
    assert_ok(read_text(&f, "gsm8k", "{\"question\": \"Q?\", \"answer\": \"#### 4\"}", false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "4", NULL);

    assert_ok(read_text(&f, NULL, "{\"prompt\": \"P\", \"completion\": \"<think>\\nT\\n</think>\\n\\nA\"}", false), &f.err);
    assert_message(&f, 0, ROLE_USER, "P", NULL);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", "T");
    assert_ok(read_text(&f, NULL, "{\"prompt\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"P\"}],"
                                  " \"completion\": [{\"role\": \"assistant\", \"content\": \"A\"}]}", false), &f.err);
    assert_int_equal(f.conversation.count, 3);
    assert_message(&f, 0, ROLE_SYSTEM, "S", NULL);
    assert_message(&f, 2, ROLE_ASSISTANT, "A", NULL);
    fixture_free(&f);
}

static void thoughts_are_split_off(void **state)
{
    (void)state;
    struct fixture f = {0};
    assert_ok(read_text(&f, NULL, TURNS("\"content\": \"A\", \"reasoning_content\": \" T \""), false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", "T");
    assert_ok(read_text(&f, NULL, TURNS("\"content\": \"A\", \"reasoning_content\": null"), false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", NULL);
    assert_ok(read_text(&f, NULL, TURNS("\"content\": \"A\", \"reasoning_content\": \"\""), false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", NULL);
    assert_ok(read_text(&f, NULL, TURNS("\"content\": \" T\\n</think>\\n\\nA, not </think>\""), false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A, not </think>", "T"); /* the opening tag was in the prompt */
    assert_ok(read_text(&f, NULL, TURNS("\"content\": \"<think>\\n\\n</think>\\n\\nA\""), false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", NULL);
    assert_ok(read_text(&f, NULL, TURNS("\"content\": \" plain answer \""), false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, " plain answer ", NULL);
    fixture_free(&f);
}

static void message_weights_count(void **state)
{
    (void)state;
    struct fixture f = {0};
    static const char two[] = "{\"weight\": 0.5, \"messages\": [{\"role\": \"user\", \"content\": \"Q\"},"
                              "{\"role\": \"assistant\", \"content\": \"A\", %s}, {\"role\": \"user\", \"content\": \"R\"},"
                              "{\"role\": \"assistant\", \"content\": \"B\", %s}]}";
    char text[512];
    snprintf(text, sizeof text, two, "\"loss\": false", "\"weight\": 3");
    assert_ok(read_text(&f, NULL, text, false), &f.err);
    assert_false(f.conversation.messages[1].supervised);
    assert_true(f.conversation.messages[3].supervised);
    assert_true(f.conversation.weight == 1.5f);
    snprintf(text, sizeof text, two, "\"loss_scale\": 2", "\"weight\": 3");
    assert_ok(read_text(&f, NULL, text, false), &f.err); /* turns of their own weights */
    assert_true(f.conversation.weight == 0.5f);
    assert_true(f.conversation.messages[1].factor == 2 && f.conversation.messages[3].factor == 3);
    snprintf(text, sizeof text, two, "\"loss_scale\": 2", "\"weight\": 2, \"train\": true");
    assert_ok(read_text(&f, NULL, text, false), &f.err); /* one weight for all turns is the row's */
    assert_true(f.conversation.weight == 1 && f.conversation.messages[1].factor == 0 && f.conversation.messages[3].factor == 0);
    snprintf(text, sizeof text, two, "\"mask\": true, \"weight\": 5", "\"mask\": false, \"loss\": true");
    assert_ok(read_text(&f, NULL, text, false), &f.err);
    assert_true(!f.conversation.messages[1].supervised && f.conversation.messages[3].supervised && f.conversation.weight == 0.5f);
    snprintf(text, sizeof text, two, "\"train\": false", "\"weight\": null");
    assert_ok(read_text(&f, NULL, text, false), &f.err);
    assert_true(!f.conversation.messages[1].supervised && f.conversation.messages[3].supervised);
    snprintf(text, sizeof text, two, "\"mask\": 1", "\"weight\": 0");
    assert_refused(read_text(&f, NULL, text, false), STATUS_DATA, &f.err, "messages[1].mask must be true or false, found an integer");
    snprintf(text, sizeof text, two, "\"loss\": false", "\"weight\": 0");
    assert_ok(read_text(&f, NULL, text, false), &f.err); /* the data set counts such rows */
    assert_false(f.conversation.messages[1].supervised || f.conversation.messages[3].supervised);
    snprintf(text, sizeof text, two, "\"loss\": 1", "\"weight\": 0");
    assert_refused(read_text(&f, NULL, text, false), STATUS_DATA, &f.err, "messages[1].loss must be true or false, found an integer");
    snprintf(text, sizeof text, two, "\"weight\": -1", "\"weight\": 0");
    assert_refused(read_text(&f, NULL, text, false), STATUS_DATA, &f.err, "messages[1].weight must be a number from 0");
    /* Turns of a prompt are never trained. */
    assert_ok(read_text(&f, NULL,
                        "{\"prompt\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\"},"
                        "{\"role\": \"user\", \"content\": \"R\"}], \"completion\": \"B\"}", false), &f.err);
    assert_false(f.conversation.messages[1].supervised);
    assert_true(f.conversation.messages[3].supervised);
    fixture_free(&f);
}

/* Rows of one question and one answer: what they mean as system, question, thought, answer; NULL: none. */
static void formats_of_other_trainers(void **state)
{
    (void)state;
    static const struct {
        const char *format, *row, *system, *question, *thought, *answer;
    } cases[] = {
        {"alpaca", "{\"instruction\": \"I\", \"output\": \"O\"}", NULL, "I", NULL, "O"},
        {"alpaca", "{\"instruction\": \"I\", \"input\": \"\", \"output\": \"O\", \"text\": \"all\"}", NULL, "I", NULL, "O"},
        {"alpaca", "{\"instruction\": \"I\", \"input\": null, \"output\": \"O\", \"system\": \"\", \"history\": null}", NULL, "I", NULL, "O"},
        {"alpaca", "{\"instruction\": \"I\", \"input\": \"x\", \"output\": \"<think>T</think>O\", \"system\": \"S\", \"history\": []}",
         "S", "I\nx", "T", "O"},
        {"medical-o1", "{\"Question\": \"Q\", \"Complex_CoT\": \"T\", \"Response\": \"R\"}", NULL, "Q", "T", "R"},
        {"sharegpt", "{\"conversations\": [{\"from\": \"human\", \"value\": \"Q\"}, {\"from\": \"gpt\", \"value\": \"<think>T</think>A\"}]}",
         NULL, "Q", "T", "A"},
        {"sharegpt", "{\"system\": \"S\", \"conversation\": [{\"human\": \"Q\", \"assistant\": \"A\"}]}", "S", "Q", NULL, "A"},
        {"sharegpt", "{\"conversations\": [{\"from\": \"system\", \"value\": \"S\"}, {\"from\": \"user\", \"value\": \"Q\"},"
                     "{\"role\": \"model\", \"content\": \"A\"}]}", "S", "Q", NULL, "A"},
        {"messages", "{\"system\": \"S\", \"messages\": [{\"from\": \"human\", \"value\": \"Q\"},"
                     "{\"role\": \"assistant\", \"content\": \"A\", \"reasoning_content\": \"T\"}]}", "S", "Q", "T", "A"},
        {"prompt-completion", "{\"query\": \"Q\", \"response\": \"A\", \"system\": \"S\"}", "S", "Q", NULL, "A"},
        {"prompt-completion", "{\"input\": \"Q\", \"output\": \"A\", \"id\": 1}", NULL, "Q", NULL, "A"},
        {"prompt-completion", "{\"problem\": \"Q\", \"solution\": \"</think>A\"}", NULL, "Q", NULL, "A"},
        {"prompt-completion", "{\"prompt\": \"Q\", \"completion\": \"A\", \"answer\": \"5\", \"query\": \"R\"}", NULL, "Q", NULL, "A"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f = {0};
        const struct row_format *format;
        struct row_options options = {0};
        assert_ok(read_text(&f, NULL, cases[i].row, false), &f.err);
        assert_ok(row_format_detect(f.json, "f", 1, &options, &format, &f.err), &f.err);
        assert_string_equal(row_format_name(format), cases[i].format);
        int at = cases[i].system != NULL;
        assert_int_equal(f.conversation.count, at + 2);
        if (at)
            assert_message(&f, 0, ROLE_SYSTEM, cases[i].system, NULL);
        assert_message(&f, at, ROLE_USER, cases[i].question, NULL);
        assert_message(&f, at + 1, ROLE_ASSISTANT, cases[i].answer, cases[i].thought);
        assert_true(f.conversation.messages[at + 1].supervised && !f.conversation.plain && f.conversation.weight == 1);
        fixture_free(&f);
    }
}

static void earlier_turns_come_first(void **state)
{
    (void)state;
    struct fixture f = {0};
    static const char *const rows[] = {
        "{\"instruction\": \"R\", \"output\": \"B\", \"history\": [[\"P\", \"<think>T</think>O\"], [\"Q\", \"A\"]]}",
        "{\"query\": \"R\", \"response\": \"B\", \"history\": [[\"P\", \"<think>T</think>O\"], [\"Q\", \"A\"]]}",
        "{\"conversation\": [{\"human\": \"P\", \"assistant\": \"<think>T</think>O\"}, {\"user\": \"Q\", \"gpt\": \"A\"},"
        "{\"assistant\": \"B\", \"human\": \"R\"}]}",
    };
    for (int i = 0; i < 3; i++) {
        assert_ok(read_text(&f, NULL, rows[i], false), &f.err);
        assert_int_equal(f.conversation.count, 6);
        assert_message(&f, 0, ROLE_USER, "P", NULL);
        assert_message(&f, 1, ROLE_ASSISTANT, "O", "T");
        assert_message(&f, 3, ROLE_ASSISTANT, "A", NULL);
        assert_message(&f, 4, ROLE_USER, "R", NULL);
        assert_message(&f, 5, ROLE_ASSISTANT, "B", NULL);
        for (int turn = 0; turn < 6; turn++)
            assert_int_equal(f.conversation.messages[turn].supervised, turn % 2);
    }
    fixture_free(&f);
}

static void plain_text_stays_as_it_is(void **state)
{
    (void)state;
    struct fixture f = {0};
    assert_ok(read_text(&f, NULL, "{\"text\": \" <think>once\\n\", \"weight\": \"2.5\"}", false), &f.err);
    assert_true(f.conversation.plain && f.conversation.weight == 2.5f);
    assert_int_equal(f.conversation.count, 1);
    assert_ok(conversation_dress(&f.conversation, "Think.", "#### ", &f.arena, &f.err), &f.err);
    assert_message(&f, 0, ROLE_ASSISTANT, " <think>once\n", NULL);
    assert_true(f.conversation.messages[0].supervised);
    fixture_free(&f);
}

static void contents_may_come_in_parts(void **state)
{
    (void)state;
    struct fixture f = {0};
    assert_ok(read_text(&f, NULL,
                        "{\"messages\": [{\"role\": \"developer\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": [{\"type\": "
                        "\"text\", \"text\": \"Q \"}, \"more\"]}, {\"role\": \"assistant\", \"content\": \"call\"}, {\"role\": \"ipython\", "
                        "\"content\": \"42\"}, {\"role\": \"function\", \"content\": \"43\"}, {\"role\": \"assistant\", \"content\": [{\"type\": "
                        "\"reasoning\", \"value\": \" T \"}, {\"type\": \"text\", \"value\": \"A\"}], \"tool_calls\": []}]}", false), &f.err);
    assert_int_equal(f.conversation.count, 6);
    assert_message(&f, 0, ROLE_SYSTEM, "S", NULL);
    assert_message(&f, 1, ROLE_USER, "Q more", NULL);
    assert_message(&f, 3, ROLE_TOOL, "42", NULL);
    assert_message(&f, 4, ROLE_TOOL, "43", NULL);
    assert_message(&f, 5, ROLE_ASSISTANT, "A", "T");
    assert_true(f.conversation.messages[2].supervised && !f.conversation.messages[3].supervised);
    fixture_free(&f);
}

static void empty_thoughts_are_kept_where_allowed(void **state)
{
    (void)state;
    struct fixture f = {0};
    const struct row_options strict = {0}, empty = {.empty_thoughts = true};
    static const struct {
        const char *format, *row;
    } rows[] = {
        {"qa-cot", "{\"question\": \"Q\", \"thought\": \" \\n\", \"answer\": \"A\"}"},
        {"qa-cot", "{\"question\": \"Q\", \"thought\": null, \"answer\": \"A\"}"},
        {"gsm8k", "{\"question\": \"Q\", \"answer\": \"#### A\"}"},
        {"messages", TURNS("\"content\": \"<think>\\n\\n</think>\\n\\nA\"")},
        {"messages", TURNS("\"content\": \"A\", \"reasoning_content\": \"\"")},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum status st = read_with(&f, rows[i].format, rows[i].row, &strict);
        assert_int_equal(st, i < 2 ? STATUS_DATA : STATUS_OK);
        if (st == STATUS_OK)
            assert_message(&f, 1, ROLE_ASSISTANT, "A", NULL);
        assert_ok(read_with(&f, rows[i].format, rows[i].row, &empty), &f.err);
        assert_message(&f, 1, ROLE_ASSISTANT, "A", "");
    }
    assert_refused(read_with(&f, rows[0].format, rows[0].row, &strict), STATUS_DATA, &f.err,
                   "'thought' is empty; fill it, remove the row, or set ignore_empty_thought: true");
    assert_ok(read_with(&f, "messages", TURNS("\"content\": \"A\""), &empty), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", NULL); /* no thought at all is none */
    fixture_free(&f);
}

static void thoughts_may_have_other_tags(void **state)
{
    (void)state;
    struct fixture f = {0};
    const struct row_options named = {.thought_open = "<reason>", .thought_close = "</reason>"};
    assert_ok(read_with(&f, "messages", TURNS("\"content\": \"<reason>T <think> on</reason>A\""), &named), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", "T <think> on");
    assert_ok(read_with(&f, "messages", TURNS("\"content\": \"<think>T</think>A\""), &named), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", "T");
    assert_refused(read_with(&f, "messages", TURNS("\"content\": \"<reason>T\""), &named), STATUS_DATA, &f.err,
                   "messages[1] opens <reason> and never closes it");
    fixture_free(&f);
}

static void text_is_added_where_it_belongs(void **state)
{
    (void)state;
    struct fixture f = {0};
    static const char row[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\", "
                              "\"weight\": 0}, {\"role\": \"user\", \"content\": \"R\"}, {\"role\": \"assistant\", \"content\": \"B\"}]}";
    assert_ok(read_text(&f, NULL, row, false), &f.err);
    assert_ok(conversation_dress(&f.conversation, "Think.", "#### ", &f.arena, &f.err), &f.err);
    assert_message(&f, 0, ROLE_USER, "Q", NULL);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", NULL);
    assert_message(&f, 2, ROLE_USER, "R\nThink.", NULL);
    assert_message(&f, 3, ROLE_ASSISTANT, "#### B", NULL);
    assert_ok(read_text(&f, NULL, row, false), &f.err);
    assert_ok(conversation_dress(&f.conversation, "", NULL, &f.arena, &f.err), &f.err);
    assert_message(&f, 2, ROLE_USER, "R", NULL);
    fixture_free(&f);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "{\"instruction\": \"I\", \"input\": \"x\", \"output\": \"O\", \"history\": [[\"Q\", \"A\"]]}",
        "{\"conversation\": [{\"human\": \"Q\", \"assistant\": \"A\"}]}",
        "{\"text\": \"once\"}",
        "{\"problem\": \"a\", \"solution\": \"b\", \"answer\": \"5\"}",
        "{\"frage\": 1}",
    };
    for (int i = 0; i < 5; i++) {
        struct error err = {0};
        struct json *row;
        enum status st = STATUS_NOMEM;
        assert_ok(json_parse(rows[i], strlen(rows[i]), "row", &row, &err), &err);
        long live = mem_live(), n = 0;
        for (; st == STATUS_NOMEM; n++) {
            const struct row_options options = {0};
            const struct row_format *format;
            struct arena arena = {.block_bytes = 16};
            struct conversation c;
            mem_fail_after(n, false);
            st = row_format_detect(row, "f", 1, &options, &format, &err);
            if (st == STATUS_OK)
                st = row_read(format, row, "f", 1, &options, &arena, &c, &err);
            mem_fail_after(-1, false);
            arena_free(&arena);
            assert_int_equal(mem_live(), live);
        }
        assert_int_equal(st, i < 3 ? STATUS_OK : STATUS_DATA);
        assert_true(i == 3 || n > 1);
        json_free(row);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_are_recognised),
        cmocka_unit_test(thoughts_are_split_off),
        cmocka_unit_test(message_weights_count),
        cmocka_unit_test(formats_of_other_trainers),
        cmocka_unit_test(earlier_turns_come_first),
        cmocka_unit_test(plain_text_stays_as_it_is),
        cmocka_unit_test(contents_may_come_in_parts),
        cmocka_unit_test(empty_thoughts_are_kept_where_allowed),
        cmocka_unit_test(thoughts_may_have_other_tags),
        cmocka_unit_test(text_is_added_where_it_belongs),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
