/* Which column of a row is what: names that a user gives, thoughts under any common name, labels as answers. */
#include "tests/support/cmocka_all.h"

#include "tests/support/read_rows.h"

static void columns_may_have_other_names(void **state)
{
    (void)state;
    struct fixture f = {0};
    static const char row[] = "{\"text\": \"Q\", \"label\": \"A\", \"why\": \"T\", \"w\": 3, \"note\": \"N\", \"answer\": \"not this\"}";
    f.columns = (struct row_columns){{[ROW_QUESTION] = "text", [ROW_ANSWER] = "label", [ROW_WEIGHT] = "w"}};
    assert_ok(read_text(&f, NULL, row, false), &f.err);
    assert_message(&f, 0, ROLE_USER, "Q", NULL);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", NULL);
    assert_true(f.conversation.weight == 3);
    f.columns.names[ROW_THOUGHT] = "why";
    assert_ok(read_text(&f, NULL, row, false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", "T");
    f.columns.names[ROW_THOUGHT] = "";
    f.columns.names[ROW_INPUT] = "note";
    assert_ok(read_text(&f, NULL, row, false), &f.err);
    assert_message(&f, 0, ROLE_USER, "Q\nN", NULL);
    f.columns = (struct row_columns){{[ROW_TEXT] = "note"}};
    assert_ok(read_text(&f, NULL, row, false), &f.err);
    assert_message(&f, 0, ROLE_ASSISTANT, "N", NULL);
    f.columns = (struct row_columns){{[ROW_QUESTION] = "q", [ROW_ANSWER] = "a"}};
    assert_ok(read_text(&f, "gsm8k", "{\"q\": \"Q\", \"a\": \"T\\n#### 5\"}", false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "5", "T");
    f.columns = (struct row_columns){{[ROW_MESSAGES] = "talk"}};
    assert_ok(read_text(&f, NULL, "{\"talk\": [{\"from\": \"human\", \"value\": \"Q\"}, {\"from\": \"gpt\", \"value\": \"A\"}]}", false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", NULL);

    f.columns = (struct row_columns){{[ROW_QUESTION] = "text", [ROW_SYSTEM] = "sytem", [ROW_ANSWER] = "label"}};
    assert_refused(read_text(&f, NULL, row, false), STATUS_DATA, &f.err,
                   "rows.jsonl:7: the row has no column 'sytem', which system_column names; found text, label, why");
    f.columns = (struct row_columns){0};
    assert_true(row_columns_set(&f.columns, "history_column", "h") && row_columns_set(&f.columns, "question_column", "q"));
    assert_string_equal(f.columns.names[ROW_HISTORY], "h");
    assert_string_equal(f.columns.names[ROW_QUESTION], "q");
    assert_false(row_columns_set(&f.columns, "question", "q") || row_columns_set(&f.columns, "questions_column", "q"));
    const struct row_format *format;
    f.columns = (struct row_columns){{[ROW_THOUGHT] = "why"}};
    assert_ok(row_format_find("gsm8k", &format, &f.err), &f.err);
    assert_refused(row_format_check(format, &f.columns, &f.err), STATUS_USAGE, &f.err,
                   "format gsm8k has no use for the column 'why', which thought_column names");
    f.columns = (struct row_columns){{[ROW_THOUGHT] = "why", [ROW_TEXT] = "note"}};
    assert_refused(read_text(&f, NULL, row, false), STATUS_DATA, &f.err, "no known format has these columns");
    fixture_free(&f);
}

/* A thought in a column of any common name is not lost, unless it is open what the question or the answer is. */
static void thoughts_in_columns_are_found(void **state)
{
    (void)state;
    struct fixture f = {0};
    static const char *const rows[] = {
        "{\"prompt\": \"Q\", \"reasoning\": \"T\", \"completion\": \"A\"}",       "{\"problem\": \"Q\", \"cot\": \"T\", \"solution\": \"A\"}",
        "{\"question\": \"Q\", \"rationale\": \"T\", \"answer\": \"A\"}",         "{\"instruction\": \"Q\", \"rationale\": \"T\", \"output\": \"A\"}",
        "{\"query\": \"Q\", \"reasoning_content\": \"T\", \"response\": \"A\"}", "{\"input\": \"Q\", \"chain_of_thought\": \"T\", \"answer\": \"A\"}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_ok(read_text(&f, NULL, rows[i], false), &f.err);
        assert_message(&f, 0, ROLE_USER, "Q", NULL);
        assert_message(&f, 1, ROLE_ASSISTANT, "A", "T");
    }
    assert_ok(read_text(&f, NULL, "{\"instruction\": \"Q\", \"input\": \"more\", \"output\": \"A\", \"cot\": \"T\"}", false), &f.err);
    assert_message(&f, 0, ROLE_USER, "Q\nmore", NULL);
    f.columns = (struct row_columns){{[ROW_QUESTION] = "instruction"}};
    assert_ok(read_text(&f, NULL, "{\"instruction\": \"Q\", \"input\": \"more\", \"output\": \"A\", \"cot\": \"T\"}", false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "A", "T");
    fixture_free(&f);
}

/* The label is the answer; where labels are listed it must be one of them, by name or by place. */
static void labels_are_answers(void **state)
{
    (void)state;
    struct fixture f = {0};
    struct labels labels = {0};
    assert_ok(read_text(&f, NULL, "{\"text\": \"T\", \"label\": \" neg \"}", false), &f.err);
    assert_message(&f, 0, ROLE_USER, "T", NULL);
    assert_message(&f, 1, ROLE_ASSISTANT, "neg", NULL);
    assert_true(f.conversation.messages[1].supervised && !f.conversation.plain);
    assert_ok(read_text(&f, NULL, "{\"sentence\": \"T\", \"label\": 12}", false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "12", NULL);
    f.columns = (struct row_columns){{[ROW_TEXT] = "review", [ROW_LABEL] = "stars"}};
    assert_ok(read_text(&f, NULL, "{\"review\": \"T\", \"stars\": \"5\"}", false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "5", NULL);
    f.columns = (struct row_columns){0};

    assert_ok(labels_add(&labels, "mood", (char *[]){"neg", "pos"}, 2, true, &f.err), &f.err);
    assert_ok(labels_add_numbers(&labels, "stars", 3, &f.err), &f.err);
    f.labels = &labels.sets[0];
    assert_ok(read_text(&f, NULL, "{\"text\": \"T\", \"label\": 1}", false), &f.err);
    assert_message(&f, 1, ROLE_ASSISTANT, "pos", NULL);
    assert_refused(read_text(&f, NULL, "{\"text\": \"T\", \"label\": \"happy\"}", false), STATUS_DATA, &f.err,
                   "rows.jsonl:7: 'label' is 'happy', which is none of the 2 labels of task 'mood': neg, pos");
    assert_refused(read_text(&f, NULL, "{\"text\": \"T\", \"label\": 2}", false), STATUS_DATA, &f.err, "'label' is '2', which is none");
    f.labels = &labels.sets[1];
    assert_refused(read_text(&f, NULL, "{\"text\": \"T\", \"label\": 3}", false), STATUS_DATA, &f.err, "none of the 3 labels of task 'stars': 0, 1, 2");
    assert_refused(read_text(&f, NULL, "{\"text\": \"T\", \"label\": -1}", false), STATUS_DATA, &f.err, "'label' is '-1'");
    labels_free(&labels);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_may_have_other_names),
        cmocka_unit_test(thoughts_in_columns_are_found),
        cmocka_unit_test(labels_are_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
