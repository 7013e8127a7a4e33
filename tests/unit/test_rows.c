/* Rows from text to conversations: every format, and every bad row with the message a user gets. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "worker/data/jsonl.h"
#include "worker/data/rows.h"

struct fixture {
    struct json *json;
    struct arena arena;
    struct conversation conversation;
    struct row_columns columns; /* that a user names */
    const struct label_set *labels;
    struct error err;
};

/* Reads `text` as line 7 of rows.jsonl. format NULL: detected. */
static enum status read_text(struct fixture *f, const char *format_name, const char *text, bool keep_marks)
{
    const struct row_format *format = NULL;
    struct row_options options = {.keep_calculator_marks = keep_marks, .columns = f->columns, .labels = f->labels};
    json_free(f->json);
    f->json = NULL;
    f->arena.block_bytes = 4096;
    arena_reset(&f->arena);
    TRY(json_parse_piece(text, strlen(text), "rows.jsonl", 7, &f->json, &f->err));
    if (format_name)
        TRY(row_format_find(format_name, &format, &f->err));
    else
        TRY(row_format_detect(f->json, "rows.jsonl", 7, &options, &format, &f->err));
    return row_read(format, f->json, "rows.jsonl", 7, &options, &f->arena, &f->conversation, &f->err);
}

static void fixture_free(struct fixture *f)
{
    json_free(f->json);
    arena_free(&f->arena);
    assert_int_equal(mem_live(), 0);
}

static void assert_text(const char *bytes, size_t size, const char *wanted)
{
    if (size != strlen(wanted) || memcmp(bytes, wanted, size))
        fail_msg("'%.*s' is not '%s'", (int)size, bytes, wanted);
}

static void assert_message(const struct fixture *f, int index, enum role role, const char *content, const char *thought)
{
    const struct message *m = &f->conversation.messages[index];
    assert_true(index < f->conversation.count);
    assert_int_equal(m->role, role);
    assert_text(m->content, m->content_size, content);
    assert_int_equal(m->thought != NULL, thought != NULL);
    if (thought)
        assert_text(m->thought, m->thought_size, thought);
}

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

#define TURNS(content) "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", " content "}]}"

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

static void bad_rows_are_explained(void **state)
{
    (void)state;
    static const struct {
        const char *format, *row, *message;
    } cases[] = {
        {NULL, "{\"question\": \"Q\"", "rows.jsonl:7:16: broken JSON"},
        {NULL, "{\"question\": \"Q\", \"question\": \"R\"}", "broken JSON: duplicate object key"},
        {NULL, "[1]", "rows.jsonl:7: a row must be a JSON object with named columns, found an array"},
        {NULL, "{\"frage\": \"I\", \"output\": \"O\"}",
         "rows.jsonl:7: no known format has these columns; found frage, output; rename them, or name them in the run file "
         "(question_column ...), to suit messages (messages), sharegpt (conversations), qa-cot (question, thought, answer)"},
        {NULL, "{}", "found none"},
        {"qa-cot", "{\"question\": \"Q\", \"answer\": \"A\"}",
         "rows.jsonl:7: format qa-cot needs the columns question, thought, answer; found question, answer; set format: gsm8k, "
         "prompt-completion"},
        {"messages", "{\"prompt\": \"Q\", \"completion\": \"A\"}", "set format: prompt-completion"},
        {NULL, "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \" \\n\"}", "rows.jsonl:7: 'answer' is empty"},
        {NULL, "{\"question\": \"\", \"thought\": \"T\", \"answer\": \"A\"}", "'question' is empty"},
        {NULL, "{\"question\": \"Q\", \"thought\": \"\", \"answer\": \"A\"}", "'thought' is empty"},
        {NULL, "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": 5}", "'answer' must be a string, found an integer"},
        {NULL, "{\"question\": \"Q\", \"thought\": null, \"answer\": \"A\"}", "'thought' must be a string, found null"},
        {NULL, "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"a\\u0000b\"}", "'answer' holds a NUL character"},
        {NULL, "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"A\", \"weight\": 0}", "'weight' must be a number above 0"},
        {NULL, "{\"question\": \"Q\", \"thought\": \"T\", \"answer\": \"A\", \"weight\": \"heavy\"}", "'weight' must be a number above 0 and at most 1e6, found a string"},
        {NULL, "{\"question\": \"Q\", \"answer\": \"thought only\"}", "'answer' has no line that begins with '#### '"},
        {NULL, "{\"question\": \"Q\", \"answer\": \"T\\n####  \"}", "'answer' has nothing behind '#### '"},
        {NULL, "{\"messages\": \"hello\"}", "'messages' must be an array, found a string"},
        {NULL, "{\"messages\": []}", "the last message must be an assistant's"},
        {NULL, "{\"messages\": [\"a\"]}", "messages[0] must be an object with role and content, found a string"},
        {NULL, "{\"messages\": [{\"content\": \"a\"}]}", "messages[0] has the role '(none)'; allowed are"},
        {NULL, "{\"messages\": [{\"role\": \"tool\", \"content\": \"a\"}]}", "messages[0] has the role 'tool' at the beginning; the order must be"},
        {NULL, "{\"messages\": [{\"role\": \"critic\", \"content\": \"a\"}]}", "messages[0] has the role 'critic'; allowed are system, user, assistant and tool"},
        {NULL, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"tool\", \"content\": \"b\"}]}", "messages[1] has the role 'tool' right after 'user'"},
        {NULL, "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {}}]}]}", "messages[0].content[0] is of type 'image_url'; only text and reasoning"},
        {NULL, "{\"messages\": [{\"role\": \"user\", \"content\": []}]}", "messages[0].content is empty"},
        {NULL, TURNS("\"content\": \"A\", \"tool_calls\": [{\"id\": 1}]"), "messages[1] has tool_calls"},
        {NULL, "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]}", "messages[0].content[0] must be a text, or an object with type text and the text in it, found null"},
        {NULL, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", "messages[0] has the role 'assistant' at the beginning; the order must be"},
        {NULL, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "the last message must be an assistant's"},
        {NULL, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": \"b\"}]}", "messages[1] has the role 'user' right after 'user'"},
        {NULL, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"system\", \"content\": \"b\"}]}", "messages[1] has the role 'system' right after 'user'"},
        {NULL, TURNS("\"content\": \"\""), "messages[1].content is empty"},
        {NULL, TURNS("\"content\": \"<think>cut\""), "messages[1] opens <think> and never closes it"},
        {NULL, TURNS("\"content\": \"<think>T</think> \""), "messages[1] has no answer behind </think>"},
        {NULL, TURNS("\"content\": \"Well <think>T</think>A\""), "messages[1] has text in front of <think>"},
        {NULL, TURNS("\"content\": \"<think>T</think>A\", \"reasoning_content\": \"U\""), "keep one"},
        {NULL, TURNS("\"content\": \"A\", \"reasoning_content\": 5"), "messages[1].reasoning_content must be a string, found an integer"},
        {NULL, "{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"completion\": [{\"role\": \"user\", \"content\": \"b\"}]}", "completion[0] has the role 'user' right after 'user'"},
        {NULL, "{\"prompt\": \"P\", \"completion\": []}", "the last message must be an assistant's"},
        {NULL, "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": 3}]}", "conversations[1].value must be a string, found an integer"},
        {NULL, "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"observation\", \"value\": \"b\"}]}", "conversations[1] has the role 'tool' right after 'user'"},
        {NULL, "{\"conversations\": [{\"from\": \"gpt\", \"value\": \"a\"}]}", "conversations[0] has the role 'assistant' at the beginning"},
        {NULL, "{\"conversation\": [{\"human\": \"a\", \"assistant\": \" \"}]}", "conversation[0].assistant is empty"},
        {NULL, "{\"conversation\": [{\"human\": \"a\", \"assistant\": \"b\", \"gpt\": \"c\"}]}", "conversation[0] has the role '(none)'"},
        {NULL, "{\"instruction\": \"a\", \"output\": \"\"}", "'output' is empty"},
        {NULL, "{\"instruction\": \"a\", \"input\": 5, \"output\": \"b\"}", "'input' must be a string, found an integer"},
        {NULL, "{\"instruction\": \"a\", \"output\": \"<think>b\"}", "'output' opens <think> and never closes it"},
        {NULL, "{\"instruction\": \"a\", \"output\": \"b\", \"system\": [1]}", "'system' must be a string, found an array"},
        {NULL, "{\"instruction\": \"a\", \"output\": \"b\", \"history\": \"c\"}", "'history' must be a list of pairs [question, answer], found a string"},
        {NULL, "{\"instruction\": \"a\", \"output\": \"b\", \"history\": [[\"c\"]]}", "history[0] must be a pair [question, answer], found an array of 1"},
        {NULL, "{\"instruction\": \"a\", \"output\": \"b\", \"history\": [[\"c\", \"\"]]}", "history[0][1] is empty"},
        {NULL, "{\"system\": \"a\", \"messages\": [{\"role\": \"system\", \"content\": \"b\"}]}", "messages[0] has the role 'system' right after 'system'"},
        {NULL, "{\"Question\": \"a\", \"Complex_CoT\": \"\", \"Response\": \"b\"}", "'Complex_CoT' is empty"},
        {NULL, "{\"problem\": \"a\", \"solution\": \"b\", \"answer\": \"5\"}", "the columns 'answer' and 'solution' could both hold the answer; say which with answer_column"},
        {NULL, "{\"text\": \" \"}", "'text' is empty"},
        {NULL, "{\"text\": \" \", \"label\": \"neg\"}", "'text' is empty"},
        {NULL, "{\"text\": \"T\", \"label\": \" \"}", "'label' is empty"},
        {NULL, "{\"text\": \"T\", \"label\": 0.5}", "'label' must be a label's name or a whole number, found a number"},
        {NULL, "{\"text\": \"T\", \"label\": null}", "'label' must be a label's name or a whole number, found null"},
        {"classification", "{\"text\": \"T\"}", "format classification needs the columns text, label; found text; set format: text"},
        {NULL, "{\"prompt\": {}, \"completion\": \"A\"}", "'prompt' must be a string, found an object"},
    };
    struct fixture f = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(read_text(&f, cases[i].format, cases[i].row, false), STATUS_DATA, &f.err, cases[i].message);
    const struct row_format *format;
    assert_refused(row_format_find("vicuna", &format, &f.err), STATUS_USAGE, &f.err,
                   "unknown row format 'vicuna'; known are auto, messages, sharegpt, qa-cot, medical-o1, gsm8k, prompt-completion, "
                   "alpaca, classification, text");
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

/* Reads all records; each one must parse, and the texts are joined by '|' with their lines in front. */
static enum status records_of(const char *bytes, size_t size, char out[256], struct error *err)
{
    struct jsonl reader;
    struct jsonl_record record;
    bool found;
    jsonl_over("f", bytes, size, &reader);
    out[0] = '\0';
    for (;;) {
        TRY(jsonl_next(&reader, &record, &found, err));
        if (!found)
            return STATUS_OK;
        struct json *json;
        TRY(jsonl_parse(&reader, &record, &json, err));
        json_free(json);
        size_t n = strlen(out);
        snprintf(out + n, 256 - n, "%s%d:%.*s", n ? "|" : "", (int)record.line, (int)record.size, record.text);
    }
}

static void records_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *text, *records;
    } cases[] = {
        {"{\"a\":1}\n{\"b\":2}\n", "1:{\"a\":1}|2:{\"b\":2}"},
        {"\xEF\xBB\xBF{\"a\":1}\r\n\r\n{\"b\":2}", "1:{\"a\":1}|3:{\"b\":2}"},
        {"", ""},
        {"\n \n", ""},
        {"[]", ""},
        {"[ ]\n", ""},
        {"[{\"a\":\"],[\\\"\"},\n {\"b\":[1,2]}]", "1:{\"a\":\"],[\\\"\"}|2: {\"b\":[1,2]}"},
        {"\xEF\xBB\xBF\n[\n{\"a\":1}\n,\n{\"b\":\n2}\n]\n", "3:{\"a\":1}|5:{\"b\":\n2}"},
    };
    struct error err;
    char found[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(records_of(cases[i].text, strlen(cases[i].text), found, &err), &err);
        assert_string_equal(found, cases[i].records);
    }
    assert_int_equal(mem_live(), 0);
}

static void broken_files_are_explained(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t size;
        const char *message;
    } cases[] = {
        {"{\"a\":1}\n{\"b\":}\n", 0, "f:2:6: broken JSON"},
        {"{\"a\":1}{\"b\":2}\n", 0, "f:1:8: broken JSON"},
        {"{\"a\":\"\xff\"}", 0, "f:1:7: invalid UTF-8 (0xff) at byte 6 of the file"},
        {"\xEF\xBB\xBF{}\n{\"a\":\"\xc3\x28\"}", 0, "f:2:7: invalid UTF-8 (0xc3) at byte 12 of the file"},
        {"{\"a\":\"\xed\xa0\x80\"}", 0, "invalid UTF-8 (0xed)"},
        {"{\"a\":\"\xe2\x82", 0, "invalid UTF-8 (0xe2)"},
        {"{\"a\":\"\xf5\x80\x80\x80\"}", 0, "invalid UTF-8 (0xf5)"},
        {"{\"a\":\"\xc0\x80\"}", 0, "invalid UTF-8 (0xc0)"},
        {"{\"a\":\"x\0y\"}", 12, "f:1:8: a NUL byte (0x00) at byte 7 of the file"},
        {"{\"a\":\"\\ud800\"}", 0, "f:1:"},
        {"[{\"a\":1}, {\"b\":2}", 0, "f:1: the array of rows has no ']'"},
        {"[{\"a\":1}]\n{\"b\":2}", 0, "f:2: text after the ']'"},
        {"[{\"a\":1},]", 0, "f:1:"},
        {"[,{\"a\":1}]", 0, "f:1:"},
        {"[\n{\"a\":1},\n  {\"b\" 2}\n]", 0, "f:3:8: broken JSON"},
        {"{\n  \"a\": 1\n}\n", 0, "f:1:1: broken JSON"},
    };
    struct error err;
    char found[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size = cases[i].size ? cases[i].size : strlen(cases[i].text);
        assert_refused(records_of(cases[i].text, size, found, &err), STATUS_DATA, &err, cases[i].message);
    }
    struct jsonl reader;
    assert_refused(jsonl_open("/nonexistent/rows.jsonl", &reader, &err), STATUS_DATA, &err, "/nonexistent/rows.jsonl");
    assert_int_equal(mem_live(), 0);
}

/* Reads a whole shared file; every row must be good. */
static int64_t read_file(const char *path, int64_t *thoughts)
{
    struct jsonl reader;
    struct jsonl_record record;
    struct fixture f = {0};
    const struct row_format *format = NULL;
    struct row_options options = {0};
    bool found;
    int64_t rows = 0;
    assert_ok(jsonl_open(path, &reader, &f.err), &f.err);
    for (;; rows++) {
        assert_ok(jsonl_next(&reader, &record, &found, &f.err), &f.err);
        if (!found)
            break;
        assert_ok(jsonl_parse(&reader, &record, &f.json, &f.err), &f.err);
        if (!format)
            assert_ok(row_format_detect(f.json, path, record.line, &options, &format, &f.err), &f.err);
        assert_ok(row_read(format, f.json, path, record.line, &options, &f.arena, &f.conversation, &f.err), &f.err);
        const struct message *last = &f.conversation.messages[f.conversation.count - 1];
        *thoughts += last->thought != NULL;
        assert_null(last->thought ? memmem(last->thought, last->thought_size, "<<", 2) : NULL);
        json_free(f.json);
        f.json = NULL;
        arena_reset(&f.arena);
    }
    jsonl_close(&reader);
    fixture_free(&f);
    return rows;
}

static void gsm8k_is_read_whole(void **state)
{
    (void)state;
    const char *path = shared_data("cot/gsm8k/train.jsonl");
    if (!path)
        skip();
    int64_t thoughts = 0;
    assert_int_equal(read_file(path, &thoughts), 7473);
    assert_int_equal(thoughts, 7473);
}

static void esft_messages_are_read_whole(void **state)
{
    (void)state;
    const char *path = shared_data("esft/train/intent.jsonl");
    if (!path)
        skip();
    int64_t thoughts = 0;
    assert_int_equal(read_file(path, &thoughts), 7280);
    assert_int_equal(thoughts, 0);
}

static void alpaca_rows_are_read_whole(void **state)
{
    (void)state;
    const char *path = shared_data("chat/llamafactory/identity.json");
    if (!path)
        skip();
    int64_t thoughts = 0;
    assert_int_equal(read_file(path, &thoughts), 91);
    assert_int_equal(thoughts, 0);
}

/* Real talks with calls of tools: what tools say is a turn of its own, never learnt. */
static void sharegpt_talks_with_tools(void **state)
{
    (void)state;
    const char *path = shared_data("chat/llamafactory/glaive_toolcall_en_demo.json");
    if (!path)
        skip();
    struct jsonl reader;
    struct jsonl_record record;
    struct fixture f = {.arena.block_bytes = 4096};
    const struct row_format *format;
    const struct row_options options = {0};
    bool found;
    int64_t read = 0, with_tools = 0;
    assert_ok(row_format_find("sharegpt", &format, &f.err), &f.err);
    assert_ok(jsonl_open(path, &reader, &f.err), &f.err);
    for (;; read++) {
        assert_ok(jsonl_next(&reader, &record, &found, &f.err), &f.err);
        if (!found)
            break;
        assert_ok(jsonl_parse(&reader, &record, &f.json, &f.err), &f.err);
        assert_ok(row_read(format, f.json, path, record.line, &options, &f.arena, &f.conversation, &f.err), &f.err);
        bool tools = false;
        for (int i = 0; i < f.conversation.count; i++) {
            const struct message *m = &f.conversation.messages[i];
            assert_true(m->supervised == (m->role == ROLE_ASSISTANT));
            tools |= m->role == ROLE_TOOL;
        }
        with_tools += tools;
        json_free(f.json);
        f.json = NULL;
        arena_reset(&f.arena);
    }
    assert_int_equal(read, 300);
    assert_int_equal(with_tools, 153);
    jsonl_close(&reader);
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

/* Reads with the options of a run. */
static enum status read_with(struct fixture *f, const char *format_name, const char *text, const struct row_options *options)
{
    const struct row_format *format;
    json_free(f->json);
    f->json = NULL;
    f->arena.block_bytes = 4096;
    arena_reset(&f->arena);
    TRY(json_parse_piece(text, strlen(text), "rows.jsonl", 7, &f->json, &f->err));
    TRY(row_format_find(format_name, &format, &f->err));
    return row_read(format, f->json, "rows.jsonl", 7, options, &f->arena, &f->conversation, &f->err);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_are_recognised), cmocka_unit_test(thoughts_are_split_off),
        cmocka_unit_test(message_weights_count), cmocka_unit_test(formats_of_other_trainers),
        cmocka_unit_test(earlier_turns_come_first), cmocka_unit_test(memory_may_run_out), cmocka_unit_test(plain_text_stays_as_it_is),
        cmocka_unit_test(columns_may_have_other_names), cmocka_unit_test(thoughts_in_columns_are_found), cmocka_unit_test(bad_rows_are_explained),
        cmocka_unit_test(text_is_added_where_it_belongs), cmocka_unit_test(labels_are_answers), cmocka_unit_test(records_are_found),
        cmocka_unit_test(broken_files_are_explained), cmocka_unit_test(gsm8k_is_read_whole),
        cmocka_unit_test(esft_messages_are_read_whole), cmocka_unit_test(alpaca_rows_are_read_whole),
        cmocka_unit_test(sharegpt_talks_with_tools), cmocka_unit_test(contents_may_come_in_parts),
        cmocka_unit_test(empty_thoughts_are_kept_where_allowed), cmocka_unit_test(thoughts_may_have_other_tags)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
