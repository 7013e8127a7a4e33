/* Rows answered by a scripted model: what it is fed, what comes of it, and how it is scored. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "tests/support/scripted_model.h"
#include "worker/data/template.h"
#include "worker/infer/answer.h"

static struct error err;
static struct token_list opening, closing;
static const struct chat_template *the_template;
static struct answer out;

static int open_all(void **state)
{
    script_open(state);
    the_template = template_find("deepseek-v3"); /* leaves the opening tag to the model */
    assert_ok(template_open_ids(the_template, tokenizer, &opening, &err), &err);
    assert_ok(template_close_ids(the_template, tokenizer, &closing, &err), &err);
    assert_true(opening.count > 0);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    script_close();
    token_list_free(&opening);
    token_list_free(&closing);
    assert_int_equal(script.caches, 0);
    assert_int_equal(mem_live(), 0);
    return 0;
}

static struct generate_settings two_stages(void)
{
    return (struct generate_settings){
        .sampling = {.temperature = 1, .top_p = 1}, .max_new_tokens = 20, .two_stage = true, .max_thinking_tokens = 20,
        .thought_close = "</think>", .open = opening.ids, .n_open = (int)opening.count, .close = closing.ids,
        .n_close = (int)closing.count, .ends = &end_token, .n_ends = 1, .answer_prefix = "#### "};
}

static struct row row_of(const char *thought, const char *answer)
{
    struct message messages[] = {
        {.role = ROLE_USER, .content = "Why?", .content_size = 4},
        {.role = ROLE_ASSISTANT, .content = answer, .content_size = strlen(answer), .thought = thought,
         .thought_size = thought ? strlen(thought) : 0, .supervised = true},
    };
    struct row row;
    struct conversation c = {.messages = messages, .count = 2, .weight = 1};
    assert_ok(template_encode(the_template, tokenizer, &c, &row, &err), &err);
    row.task = 3;
    return row;
}

static enum status try_answer(struct row *row, const struct generate_settings *settings, int64_t max_positions)
{
    struct model_config config = {.vocab = script.vocab, .max_positions = max_positions};
    struct answerer *answerer;
    TRY(answer_create(NULL, &config, NULL, tokenizer, settings, &answerer, &err));
    enum status st = answer_row(answerer, row, 0, &out, &err);
    answer_free(answerer);
    return st;
}

/* The text that the model saw, the prompt included. */
static void check_seen(const char *wanted)
{
    struct text seen = {0};
    assert_ok(tokenizer_decode(tokenizer, script.fed, (size_t)script.n_fed, false, &seen, &err), &err);
    if (!strstr(seen.data, wanted))
        print_error("'%s' lacks '%s'\n", seen.data, wanted);
    assert_non_null(strstr(seen.data, wanted));
    text_free(&seen);
}

static void check(struct row row, const struct generate_settings *settings, const char *thought, const char *expected,
                  const char *answer, struct score score)
{
    assert_ok(try_answer(&row, settings, 1000), &err);
    assert_string_equal(out.generated.thought.size ? out.generated.thought.data : "", thought);
    assert_string_equal(out.generated.answer.size ? out.generated.answer.data : "", answer);
    assert_string_equal(out.expected.size ? out.expected.data : "", expected);
    assert_memory_equal(&out.score, &score, sizeof score);
    if (score.rows)
        assert_int_equal(script.task, 3);
    row_free(&row);
}

static void rows_are_answered_and_scored(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    model_writes("Hm.</think>42\1");
    check(row_of("Well, 6 * 7.", "#### 42"), &s, "Hm.", "42", "42", (struct score){1, 1, 1, 0, 0, 0, 1, 1});
    check_seen("<think>\nHm.</think>#### 42"); /* the tag is given, the thought of the row is not */
    model_writes("Hm.</think>it is 42\1");
    check(row_of("Well.", "#### 42"), &s, "Hm.", "42", "it is 42", (struct score){1, 0, 1, 0, 0, 0, 1, 0});
    model_writes("42, 42, 42, 42, 42, 42, 42</think>7\1"); /* never a number of the thought */
    s.max_thinking_tokens = 40;
    check(row_of("Well.", "#### 42"), &s, "42, 42, 42, 42, 42, 42, 42", "42", "7", (struct score){1, 0, 0, 0, 0, 0, 1, 0});
    model_writes("Hm\1\1\1"); /* once for the thought, once past the prefix */
    check(row_of("Well.", "42"), &s, "Hm", "42", "", (struct score){1, 0, 0, 1, 0, 0, 0, 0});
    answer_clear(&out);
}

static void rows_without_thought_are_answered_at_once(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    model_writes("42\1");
    check(row_of(NULL, "#### 42"), &s, "", "42", "42", (struct score){1, 1, 1, 0, 0, 0, 1, 1});
    s.two_stage = false;
    s.answer_prefix = NULL;
    model_writes("Yes.\1");
    check(row_of("Well.", "yes"), &s, "", "yes", "Yes.", (struct score){1, 1, 1, 0, 0, 0, 1, 1});
    answer_clear(&out);
}

static void rows_that_ask_nothing_are_left_alone(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    struct row row;
    struct message text = {.role = ROLE_ASSISTANT, .content = "Once upon a time", .content_size = 16, .supervised = true};
    struct conversation plain = {.messages = &text, .count = 1, .weight = 1, .plain = true};
    model_writes("42\1");
    script.n_fed = 0;
    assert_ok(template_encode(the_template, tokenizer, &plain, &row, &err), &err);
    check(row, &s, "", "", "", (struct score){0});
    row = row_of(NULL, "42");
    row.class = (struct row_class){0, 2, 1};
    check(row, &s, "", "", "", (struct score){0});
    check((struct row){0}, &s, "", "", "", (struct score){0});
    assert_int_equal(script.n_fed, 0);
    answer_clear(&out);
}

static void a_prompt_without_room_is_no_answer(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    struct row row = row_of(NULL, "42");
    model_writes("42\1");
    assert_ok(try_answer(&row, &s, 4), &err);
    assert_int_equal(out.score.rows, 1);
    assert_int_equal(out.score.no_answer, 1);
    assert_string_equal(out.expected.data, "42");
    row_free(&row);
    answer_clear(&out);
}

static void not_a_number_and_short_memory_are_reported(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    struct row row = row_of("Well.", "42");
    model_writes("abc\1");
    script.nan_at = 1;
    assert_refused(try_answer(&row, &s, 1000), STATUS_NUMERIC, &err, "not a number");
    answer_clear(&out);
    long before = mem_live(), n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        model_writes("Hm.</think>42\1");
        mem_fail_after(n, false);
        st = try_answer(&row, &s, 1000);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || (st == STATUS_NOMEM && strstr(err.text, "memory")));
        answer_clear(&out);
        assert_int_equal(mem_live(), before);
    }
    assert_true(n > 10);
    row_free(&row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_answered_and_scored),         cmocka_unit_test(rows_without_thought_are_answered_at_once),
        cmocka_unit_test(rows_that_ask_nothing_are_left_alone), cmocka_unit_test(a_prompt_without_room_is_no_answer),
        cmocka_unit_test(not_a_number_and_short_memory_are_reported),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
