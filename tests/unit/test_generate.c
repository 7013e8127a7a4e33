/* Generation in two stages, with a scripted model: prompt, thought, closing tag, answer prefix, answer. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "tests/support/scripted_model.h"
#include "worker/infer/generate.h"

/* ---- What was told while it was written ------------------------------------------------------------------------- */

struct told {
    struct text parts[SPAN_COUNT];
    enum span last;
    int calls;
};

static void listen(void *context, enum span span, const char *bytes, size_t size)
{
    struct told *told = context;
    assert_true(size > 0 && span >= told->last); /* never back from the answer to the thought */
    assert_true(((unsigned char)bytes[0] & 0xC0) != 0x80);
    told->last = span;
    told->calls++;
    text_append(&told->parts[span], bytes, size);
}

static void forget(struct told *told)
{
    for (int i = 0; i < SPAN_COUNT; i++)
        text_free(&told->parts[i]);
    *told = (struct told){0};
}

/* ---- Fixture ---------------------------------------------------------------------------------------------------- */

static struct error err;
static const int32_t prompt[] = {70, 71, 72}, closing[] = {11, 12};
static struct told told;
static struct generated out;

static int close_tokenizer(void **state)
{
    (void)state;
    script_close();
    generated_free(&out);
    forget(&told);
    assert_int_equal(script.caches, 0);
    assert_int_equal(mem_live(), 0);
    return 0;
}

static struct generate_settings two_stages(void)
{
    return (struct generate_settings){.sampling = {.temperature = 1, .top_p = 1}, .max_new_tokens = 50, .two_stage = true, .task = 2,
                                      .max_thinking_tokens = 40, .thought_close = "</think>", .close = closing, .n_close = 2,
                                      .ends = &end_token, .n_ends = 1};
}

static enum status try_run(const struct generate_settings *settings, int64_t max_positions)
{
    struct model_config config = {.vocab = script.vocab, .max_positions = max_positions};
    struct generator *generator;
    forget(&told);
    TRY(generator_create(NULL, &config, NULL, tokenizer, settings, &generator, &err));
    enum status st = generator_run(generator, prompt, 3, 0, listen, &told, &out, &err);
    generator_free(generator);
    return st;
}

static void check_text(const struct text *text, const char *wanted)
{
    assert_string_equal(text->data ? text->data : "", wanted);
    assert_int_equal(text->size, strlen(wanted));
}

/* One generation; what was told on the way must be what came out. */
static void run(const struct generate_settings *settings, const char *thought, const char *answer, enum generate_status status)
{
    assert_ok(try_run(settings, 1000), &err);
    assert_int_equal(script.prompt, 3);
    assert_int_equal(script.task, settings->task);
    check_text(&out.thought, thought);
    check_text(&out.answer, answer);
    check_text(&told.parts[SPAN_THOUGHT], thought);
    check_text(&told.parts[SPAN_ANSWER], answer);
    assert_string_equal(generate_status_name(out.status), generate_status_name(status));
}

/* The whole sequence as the model saw it, behind the prompt; the tokens of `closing` are written <n>. */
static void check_fed(const char *wanted)
{
    struct text seen = {0};
    for (int i = 3; i < script.n_fed; i++)
        if (script.fed[i] == closing[0] || script.fed[i] == closing[1])
            text_printf(&seen, "<%d>", (int)script.fed[i]);
        else
            assert_ok(tokenizer_decode(tokenizer, &script.fed[i], 1, false, &seen, &err), &err);
    assert_memory_equal(script.fed, prompt, sizeof prompt);
    check_text(&seen, wanted);
    text_free(&seen);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------ */

static void the_tag_parts_thought_and_answer(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    model_writes("1, 2.</think>Three.\1");
    run(&s, "1, 2.", "Three.", GENERATE_COMPLETE);
    check_fed("1, 2.</think>Three."); /* the model wrote the tag: nothing was put there */
    assert_int_equal(out.thought_tokens, 5 + 8);
    assert_int_equal(out.answer_tokens, 6);
    model_writes("1, 2.\2Three.\1");
    run(&s, "1, 2.", "Three.", GENERATE_COMPLETE);
    assert_int_equal(out.thought_tokens, 5 + 1);
    model_writes("</think>x\1");
    run(&s, "", "x", GENERATE_COMPLETE);
}

static void an_ended_thought_gets_its_tag(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    model_writes("Hm\1Yes\1");
    run(&s, "Hm", "Yes", GENERATE_COMPLETE);
    check_fed("Hm<11><12>Yes");
    assert_int_equal(out.thought_tokens, 2);
    model_writes("Hm\1\1");
    run(&s, "Hm", "", GENERATE_NO_ANSWER);
}

static void a_long_thought_is_cut_and_answered(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    s.max_thinking_tokens = 6;
    model_writes("abcdefgh\1");
    run(&s, "abcdef", "gh", GENERATE_THOUGHT_CUT);
    check_fed("abcdef<11><12>gh");
    assert_int_equal(out.thought_tokens, 6);
    assert_int_equal(out.answer_tokens, 2);
    /* The tag that would have come with the next token does not count. */
    model_writes("a</think>\1");
    s.max_thinking_tokens = 8;
    run(&s, "a</think", ">", GENERATE_THOUGHT_CUT);
    s.max_thinking_tokens = 9;
    model_writes("a</think>b\1");
    run(&s, "a", "b", GENERATE_COMPLETE);
    s.max_thinking_tokens = 0;
    model_writes("b\1");
    run(&s, "", "b", GENERATE_THOUGHT_CUT);
    check_fed("<11><12>b");
}

static void the_answer_begins_with_its_prefix(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    s.answer_prefix = "The answer is ";
    model_writes("t\2 7\1");
    run(&s, "t", " 7", GENERATE_COMPLETE); /* the prefix is fed but is no part of the answer */
    check_fed("t</think>The answer is  7");
    s.max_thinking_tokens = 1;
    model_writes("t7\1");
    run(&s, "t", "7", GENERATE_THOUGHT_CUT);
    check_fed("t<11><12>The answer is 7");
    s.two_stage = false;
    model_writes("7\1");
    run(&s, "", "7", GENERATE_COMPLETE);
    check_fed("The answer is 7");
    s.answer_prefix = "";
    model_writes("7\1");
    run(&s, "", "7", GENERATE_COMPLETE);
    check_fed("7");
}

static void stop_texts_end_the_answer(void **state)
{
    (void)state;
    const char *stops[] = {"STOP", "\n\n", "EF"};
    struct generate_settings s = two_stages();
    s.stops = stops;
    s.n_stops = 3;
    s.two_stage = false;
    model_writes("one\ntwo\n\nthree\1");
    run(&s, "", "one\ntwo", GENERATE_COMPLETE);
    assert_int_equal(out.answer_tokens, 9);
    check_fed("one\ntwo\n\n");
    model_writes("a STO b ST\1"); /* what only began like a stop text is told after all */
    run(&s, "", "a STO b ST", GENERATE_COMPLETE);
    model_writes("SSTSTOP\1");
    run(&s, "", "SST", GENERATE_COMPLETE);
    model_writes("ABCDEFG\1");
    run(&s, "", "ABCD", GENERATE_COMPLETE);
    model_writes("STOP\1");
    run(&s, "", "", GENERATE_NO_ANSWER);
    /* Two of them come with one token: the one that begins first counts. */
    const char *nested[] = {"y", "xy"};
    s.stops = nested;
    s.n_stops = 2;
    model_writes("axyb\1");
    run(&s, "", "a", GENERATE_COMPLETE);
    /* Stop texts are for the answer; the thought may hold them, and the answer may hold the tag. */
    s.two_stage = true;
    model_writes("xy\2a</think>b\1");
    run(&s, "xy", "a</think>b", GENERATE_COMPLETE);
    /* Behind a NUL byte, too. */
    model_writes_bytes("a\0bxy\1", 6);
    s.two_stage = false;
    assert_ok(try_run(&s, 1000), &err);
    assert_int_equal(out.answer.size, 3);
    assert_memory_equal(out.answer.data, "a\0b", 3);
}

static void text_is_told_as_soon_as_it_is_certain(void **state)
{
    (void)state;
    const char *stop = "....";
    struct generate_settings s = two_stages();
    s.two_stage = false;
    model_writes("abcdefgh\1");
    run(&s, "", "abcdefgh", GENERATE_COMPLETE);
    assert_int_equal(told.calls, 8);
    s.stops = &stop;
    s.n_stops = 1;
    model_writes("abcdefgh\1");
    run(&s, "", "abcdefgh", GENERATE_COMPLETE);
    assert_int_equal(told.calls, 5 + 1); /* three bytes are held back until the end */
}

static void characters_stay_whole(void **state)
{
    (void)state;
    const char *stop = "\xC3\xA9\xC3\xA9";
    struct generate_settings s = two_stages();
    s.stops = &stop;
    s.n_stops = 1;
    model_writes("\xE4\xBD\xA0\xF0\x9F\x98\x80\2\xC3\xA9 \xE4\xBD\xA0\1");
    run(&s, "\xE4\xBD\xA0\xF0\x9F\x98\x80", "\xC3\xA9 \xE4\xBD\xA0", GENERATE_COMPLETE);
    model_writes("\2\xE4\xBD\xA0\xC3\xA9\xC3\xA9\1");
    run(&s, "", "\xE4\xBD\xA0", GENERATE_COMPLETE);
    /* Cut in the middle of a character. */
    s.max_new_tokens = 2;
    model_writes("\2\xE4\xBD\xA0\1");
    run(&s, "", "\xEF\xBF\xBD", GENERATE_ANSWER_CUT);
}

static void the_answer_has_a_limit(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    s.two_stage = false;
    s.max_new_tokens = 4;
    model_writes("abcd\1");
    run(&s, "", "abcd", GENERATE_ANSWER_CUT);
    assert_int_equal(out.answer_tokens, 4);
    s.max_new_tokens = 5;
    model_writes("abcd\1");
    run(&s, "", "abcd", GENERATE_COMPLETE);
    s.max_new_tokens = 3;
    model_writes(" \n\t9\1");
    run(&s, "", " \n\t", GENERATE_NO_ANSWER);
    s.max_new_tokens = 0;
    model_writes("a\1");
    run(&s, "", "", GENERATE_NO_ANSWER);
}

static void positions_are_not_exceeded(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    model_writes("abcdefghijklmnop\1");
    assert_refused(try_run(&s, 3), STATUS_DATA, &err, "the prompt has 3 tokens; the model has 3 positions");
    s.max_thinking_tokens = 5;
    s.answer_prefix = "It is ";
    for (int limit = 4; limit < 19; limit++) {
        /* No room for the thought, for the tag behind it (2), or for the prefix (6): less comes out. */
        int behind = limit - 3 - 5 - 2, answer = behind <= 0 ? 0 : behind <= 6 ? behind : behind - 6;
        model_writes("abcdefghijklmnop\1");
        assert_ok(try_run(&s, limit), &err);
        assert_true(script.n_fed <= limit && script.capacity <= limit);
        assert_int_equal(out.thought_tokens, limit < 8 ? limit - 3 : 5);
        assert_int_equal(out.answer_tokens, answer);
        assert_int_equal(out.answer.size, answer);
        assert_int_equal(out.status, answer ? GENERATE_ANSWER_CUT : GENERATE_NO_ANSWER);
    }
    s = two_stages();
    s.two_stage = false;
    model_writes("abcdefghijklmnop\1");
    assert_ok(try_run(&s, 10), &err);
    check_text(&out.answer, "abcdefg");
    assert_int_equal(out.status, GENERATE_ANSWER_CUT);
}

static void not_a_number_ends_it(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    model_writes("abc\2def\1");
    script.nan_at = 5;
    assert_refused(try_run(&s, 1000), STATUS_NUMERIC, &err, "is not a number at position 5");
    check_text(&told.parts[SPAN_THOUGHT], "abc");
    check_text(&told.parts[SPAN_ANSWER], "d");
}

static void one_generator_serves_many_prompts(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    struct model_config config = {.vocab = script.vocab, .max_positions = 1000};
    struct generator *generator;
    s.answer_prefix = "=";
    assert_ok(generator_create(NULL, &config, NULL, tokenizer, &s, &generator, &err), &err);
    for (int round = 0; round < 3; round++) {
        model_writes(round == 1 ? "x\2longer answer\1" : "thought\2y\1");
        assert_ok(generator_run(generator, prompt, 3, 0, NULL, NULL, &out, &err), &err);
        check_text(&out.thought, round == 1 ? "x" : "thought");
        check_text(&out.answer, round == 1 ? "longer answer" : "y");
        assert_int_equal(out.answer_tokens, round == 1 ? 13 : 1);
    }
    generator_free(generator);
}

static void short_thoughts_go_on(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    s.min_thinking_tokens = 14; /* the tag counts as well */
    s.thinking_extend_text = " Wait,";
    model_writes("Five.</think> six.</think>6\1");
    run(&s, "Five. Wait, six.", "6", GENERATE_COMPLETE);
    check_fed("Five. Wait, six.</think>6"); /* the first tag was taken back */
    assert_int_equal(out.thought_tokens, 11 + 5 + 8);
    s.min_thinking_tokens = 12;
    model_writes("Five.\1 six, or\1" "6\1"); /* one that ended the turn, too */
    run(&s, "Five. Wait, six, or", "6", GENERATE_COMPLETE);
    check_fed("Five. Wait, six, or<11><12>6");
    model_writes("a\2b\2c\2" "6\1"); /* as often as needed */
    s.min_thinking_tokens = 13;
    run(&s, "a Wait,b Wait,c", "6", GENERATE_COMPLETE);
    s.max_thinking_tokens = 14; /* the second time there would be no room for more of it */
    s.min_thinking_tokens = 14;
    model_writes("a\2b\2" "6\1");
    run(&s, "a Wait,b", "6", GENERATE_COMPLETE);
    s.max_thinking_tokens = 10;
    s.min_thinking_tokens = 9;
    model_writes("a\2bcdefgh6\1");
    run(&s, "a Wait,bcd", "efgh6", GENERATE_THOUGHT_CUT);
    model_writes("long enough\2" "6\1");
    s = two_stages();
    s.min_thinking_tokens = 12;
    s.thinking_extend_text = "Wait";
    run(&s, "long enough", "6", GENERATE_COMPLETE);
    /* Near the end of the positions a thought ends as it ended. */
    model_writes("a\2" "6\1");
    s.min_thinking_tokens = 40;
    assert_ok(try_run(&s, 3 + 7), &err);
    check_text(&out.thought, "a");
}

static void an_opening_tag_is_no_text(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    s.thought_open = "<think>";
    model_writes("<think>1, 2.\2Three.\1"); /* a tag that the prompt held already */
    run(&s, "1, 2.", "Three.", GENERATE_COMPLETE);
    model_writes(" \n<think>1\2" "2\1");
    run(&s, "1", "2", GENERATE_COMPLETE);
    model_writes("<thin\2" "2\1");
    run(&s, "<thin", "2", GENERATE_COMPLETE);
    model_writes("a<think>b\2<think>c\1");
    run(&s, "a<think>b", "<think>c", GENERATE_COMPLETE);
    model_writes(" \1" "2\1");
    run(&s, " ", "2", GENERATE_COMPLETE);
}

/* Where the prompt does not open the thought the model does, or else it answers at once. */
static void the_model_may_open_its_thought(void **state)
{
    (void)state;
    struct generate_settings s = two_stages();
    s.thought_open = "<think>";
    s.model_opens = true;
    model_writes(" \n<think>1, 2.</think>Three.\1");
    run(&s, "1, 2.", "Three.", GENERATE_COMPLETE);
    model_writes("<think>Hm\1Yes\1");
    run(&s, "Hm", "Yes", GENERATE_COMPLETE);
    model_writes("1 < 2</think>Three.\1"); /* the tag is missing, but the thought ends: told as it came, taken as what it is */
    assert_ok(try_run(&s, 1000), &err);
    check_text(&out.thought, "1 < 2");
    check_text(&out.answer, "Three.");
    model_writes("<thin ice\1");
    run(&s, "", "<thin ice", GENERATE_COMPLETE);
    assert_int_equal(out.answer_tokens, 9);
    assert_int_equal(out.thought_tokens, 0);
    model_writes(" \1");
    assert_ok(try_run(&s, 1000), &err);
    assert_int_equal(out.status, GENERATE_NO_ANSWER);
    s.max_thinking_tokens = 9;
    model_writes("<think>a long thoughtYes\1");
    assert_ok(try_run(&s, 1000), &err);
    check_text(&out.thought, "a ");
    assert_int_equal(out.status, GENERATE_THOUGHT_CUT);
}

static void one_stage_tells_thoughts_apart(void **state)
{
    (void)state;
    const char *stop = "STOP";
    struct generate_settings s = two_stages();
    s.thought_open = "<think>";
    s.two_stage = false;
    s.stops = &stop;
    s.n_stops = 1;
    model_writes("<think>7 or STOP 8</think>9 STOP\1"); /* stop texts are for the answer */
    run(&s, "7 or STOP 8", "9 ", GENERATE_COMPLETE);
    assert_int_equal(out.thought_tokens, 7 + 11 + 8);
    assert_int_equal(out.answer_tokens, 6);
    model_writes("9\1");
    run(&s, "", "9", GENERATE_COMPLETE);
    model_writes("<thought>\1");
    run(&s, "", "<thought>", GENERATE_COMPLETE);
    model_writes("<think>7\2 \1");
    run(&s, "7", " ", GENERATE_NO_ANSWER);
    /* Never closed: no number of it can pass for the answer. */
    model_writes("<think>7, 8\1");
    run(&s, "7, 8", "", GENERATE_NO_ANSWER);
    s.max_new_tokens = 12;
    model_writes("<think>7, 8, 9, 10\1");
    run(&s, "7, 8,", "", GENERATE_THOUGHT_CUT);
    s.max_new_tokens = 18;
    model_writes("<think>7</think>89, 10\1");
    run(&s, "7", "89", GENERATE_ANSWER_CUT);
    /* Closed but never opened: told as an answer, but not kept as one. */
    s.max_new_tokens = 50;
    model_writes("7 or 8</think>9\1");
    assert_ok(try_run(&s, 1000), &err);
    check_text(&out.thought, "7 or 8");
    check_text(&out.answer, "9");
    model_writes("7 or 8</think>\1");
    assert_ok(try_run(&s, 1000), &err);
    check_text(&out.thought, "7 or 8");
    assert_int_equal(out.status, GENERATE_NO_ANSWER);
    s.thought_open = s.thought_close = NULL; /* raw text has no thoughts */
    model_writes("<think>7</think>9\1");
    run(&s, "", "<think>7</think>9", GENERATE_COMPLETE);
}

static void short_memory_is_reported(void **state)
{
    (void)state;
    const char *stops[] = {"END"};
    struct generate_settings s = two_stages();
    s.stops = stops;
    s.n_stops = 1;
    s.answer_prefix = "It is ";
    s.thought_open = "<think>";
    s.min_thinking_tokens = 45;
    s.thinking_extend_text = "Wait";
    generated_free(&out);
    forget(&told);
    long before = mem_live(), n = 0;
    for (;; n++) {
        model_writes("a thought that is longer than sixty-four\2, or not\2an answer that is just as long as that, or more\1");
        s.max_thinking_tokens = 100;
        mem_fail_after(n, false);
        enum status st = try_run(&s, 1000);
        mem_fail_after(-1, false);
        struct text *told_answer = &told.parts[SPAN_ANSWER];
        if (st == STATUS_OK && !told_answer->failed && !told.parts[SPAN_THOUGHT].failed)
            break;
        assert_true(st == STATUS_NOMEM || told_answer->failed || told.parts[SPAN_THOUGHT].failed);
        generated_free(&out);
        forget(&told);
        assert_int_equal(mem_live(), before);
    }
    assert_true(n > 10);
    print_message("%ld allocations walked\n", n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tag_parts_thought_and_answer),
        cmocka_unit_test(an_ended_thought_gets_its_tag),
        cmocka_unit_test(a_long_thought_is_cut_and_answered),
        cmocka_unit_test(the_answer_begins_with_its_prefix),
        cmocka_unit_test(stop_texts_end_the_answer),
        cmocka_unit_test(text_is_told_as_soon_as_it_is_certain),
        cmocka_unit_test(characters_stay_whole),
        cmocka_unit_test(the_answer_has_a_limit),
        cmocka_unit_test(positions_are_not_exceeded),
        cmocka_unit_test(not_a_number_ends_it),
        cmocka_unit_test(one_generator_serves_many_prompts),
        cmocka_unit_test(short_thoughts_go_on),
        cmocka_unit_test(an_opening_tag_is_no_text),
        cmocka_unit_test(the_model_may_open_its_thought),
        cmocka_unit_test(one_stage_tells_thoughts_apart),
        cmocka_unit_test(short_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, script_open, close_tokenizer);
}
