/* Files of rows: where records begin and end, broken files and every bad row with the message a user gets, public files read
 * whole. */
#include "tests/support/cmocka_all.h"

#include "tests/support/read_rows.h"
#include "worker/data/jsonl.h"

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

/* Reads a whole shared file; format NULL: that of its first row. Every row must be good and is shown to `look`. Returns how many. */
static int64_t read_file(const char *path, const char *format_name, void (*look)(const struct conversation *c, int64_t *count), int64_t *count)
{
    struct jsonl reader;
    struct jsonl_record record;
    struct fixture f = {0};
    const struct row_format *format = NULL;
    struct row_options options = {0};
    bool found;
    int64_t rows = 0;
    if (format_name)
        assert_ok(row_format_find(format_name, &format, &f.err), &f.err);
    assert_ok(jsonl_open(path, &reader, &f.err), &f.err);
    for (;; rows++) {
        assert_ok(jsonl_next(&reader, &record, &found, &f.err), &f.err);
        if (!found)
            break;
        assert_ok(jsonl_parse(&reader, &record, &f.json, &f.err), &f.err);
        if (!format)
            assert_ok(row_format_detect(f.json, path, record.line, &options, &format, &f.err), &f.err);
        assert_ok(row_read(format, f.json, path, record.line, &options, &f.arena, &f.conversation, &f.err), &f.err);
        look(&f.conversation, count);
        json_free(f.json);
        f.json = NULL;
        arena_reset(&f.arena);
    }
    jsonl_close(&reader);
    fixture_free(&f);
    return rows;
}

static void count_thoughts(const struct conversation *c, int64_t *thoughts)
{
    const struct message *last = &c->messages[c->count - 1];
    *thoughts += last->thought != NULL;
    assert_null(last->thought ? memmem(last->thought, last->thought_size, "<<", 2) : NULL);
}

static void gsm8k_is_read_whole(void **state)
{
    (void)state;
    const char *path = shared_data("cot/gsm8k/train.jsonl");
    if (!path)
        skip();
    int64_t thoughts = 0;
    assert_int_equal(read_file(path, NULL, count_thoughts, &thoughts), 7473);
    assert_int_equal(thoughts, 7473);
}

static void esft_messages_are_read_whole(void **state)
{
    (void)state;
    const char *path = shared_data("esft/train/intent.jsonl");
    if (!path)
        skip();
    int64_t thoughts = 0;
    assert_int_equal(read_file(path, NULL, count_thoughts, &thoughts), 7280);
    assert_int_equal(thoughts, 0);
}

static void alpaca_rows_are_read_whole(void **state)
{
    (void)state;
    const char *path = shared_data("chat/llamafactory/identity.json");
    if (!path)
        skip();
    int64_t thoughts = 0;
    assert_int_equal(read_file(path, NULL, count_thoughts, &thoughts), 91);
    assert_int_equal(thoughts, 0);
}

static void count_talks_with_tools(const struct conversation *c, int64_t *talks)
{
    bool tools = false;
    for (int i = 0; i < c->count; i++) {
        const struct message *m = &c->messages[i];
        assert_true(m->supervised == (m->role == ROLE_ASSISTANT));
        tools |= m->role == ROLE_TOOL;
    }
    *talks += tools;
}

/* Real talks with calls of tools: what tools say is a turn of its own, never learnt. */
static void sharegpt_talks_with_tools(void **state)
{
    (void)state;
    const char *path = shared_data("chat/llamafactory/glaive_toolcall_en_demo.json");
    if (!path)
        skip();
    int64_t with_tools = 0;
    assert_int_equal(read_file(path, "sharegpt", count_talks_with_tools, &with_tools), 300);
    assert_int_equal(with_tools, 153);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_found),
        cmocka_unit_test(broken_files_are_explained),
        cmocka_unit_test(bad_rows_are_explained),
        cmocka_unit_test(gsm8k_is_read_whole),
        cmocka_unit_test(esft_messages_are_read_whole),
        cmocka_unit_test(alpaca_rows_are_read_whole),
        cmocka_unit_test(sharegpt_talks_with_tools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
