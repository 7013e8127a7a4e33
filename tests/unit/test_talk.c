/* A conversation as the next prompt sees it, and what a model says as people see it. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "launch/speech.h"
#include "launch/talk.h"
#include "worker/data/demo/demo.h"
#include "worker/data/template.h"

static struct error err;

static void expect_prompt(struct talk *talk, const char *template_name_, const char *cot_prompt, bool thinking, const char *wanted)
{
    struct text json = {0}, settings = {0}, text = {0};
    struct tokenizer *tokenizer;
    struct conversation conversation;
    struct token_list ids = {0};
    assert_ok(demo_tokenizer("", 0, 0, &json, &settings, &err), &err);
    assert_ok(tokenizer_load_text(json.data, json.size, settings.data, settings.size, "demo", &tokenizer, &err), &err);
    assert_ok(talk_conversation(talk, cot_prompt, &conversation, &err), &err);
    assert_ok(template_prompt(template_find(template_name_), tokenizer, &conversation, thinking, &ids, &err), &err);
    assert_ok(tokenizer_decode(tokenizer, ids.ids, ids.count, true, &text, &err), &err);
    assert_string_equal(text.data, wanted);
    text_free(&text);
    text_free(&json);
    text_free(&settings);
    token_list_free(&ids);
    tokenizer_free(tokenizer);
}

static void prompts_hold_all_turns_without_thoughts(void **state)
{
    (void)state;
    struct talk talk = {0};
    assert_null(talk_system(&talk));
    assert_ok(talk_ask(&talk, "one?tail", 4, &err), &err);
    expect_prompt(&talk, "plain", NULL, false, "one?\n");
    assert_ok(talk_reply(&talk, "So: ", " \n1\n", 4, &err), &err);
    assert_int_equal(talk_turns(&talk), 1);
    assert_ok(talk_ask(&talk, "two?", 4, &err), &err);
    expect_prompt(&talk, "plain", "Think.", true, "one?\nSo: 1two?\nThink.\n<think>");
    expect_prompt(&talk, "plain", NULL, false, "one?\nSo: 1two?\n"); /* the text that asks for steps was not kept */
    talk_drop_question(&talk);
    talk_drop_question(&talk); /* the answered one stays */
    assert_int_equal(talk_turns(&talk), 1);
    assert_ok(talk_set_system(&talk, "Be brief.", &err), &err);
    assert_ok(talk_set_system(&talk, "Be long.", &err), &err);
    assert_string_equal(talk_system(&talk), "Be long.");
    assert_ok(talk_ask(&talk, "three?", 6, &err), &err);
    expect_prompt(&talk, "plain", NULL, false, "Be long.\none?\nSo: 1three?\n");
    talk_reset(&talk);
    assert_int_equal(talk_turns(&talk), 0);
    assert_ok(talk_ask(&talk, "four?", 5, &err), &err);
    expect_prompt(&talk, "plain", NULL, false, "Be long.\nfour?\n");
    assert_ok(talk_set_system(&talk, "", &err), &err);
    assert_null(talk_system(&talk));
    expect_prompt(&talk, "plain", NULL, false, "four?\n");
    talk_free(&talk);
    assert_int_equal(mem_live(), 0);
}

static enum status long_talk(struct talk *talk)
{
    struct conversation conversation;
    for (int i = 0; i < 6; i++) {
        TRY(talk_ask(talk, "question", 8, &err));
        TRY(talk_reply(talk, NULL, "answer", 6, &err));
    }
    TRY(talk_set_system(talk, "system", &err));
    return talk_conversation(talk, "Think.", &conversation, &err);
}

static void short_memory_leaves_the_talk_whole(void **state)
{
    (void)state;
    enum status st = STATUS_NOMEM;
    long n = 0;
    for (; st != STATUS_OK; n++) {
        struct talk talk = {0};
        mem_fail_after(n, false);
        st = long_talk(&talk);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        for (int i = 0; i < talk.count; i++)
            assert_non_null(talk.messages[i].content);
        talk_free(&talk);
        assert_int_equal(mem_live(), 0);
    }
    assert_true(n > 14);
}

static void expect_speech(bool terminal, const char *note, const char *wanted)
{
    static const struct {
        enum span span;
        const char *text;
    } said[] = {{SPAN_THOUGHT, "\n 1"}, {SPAN_THOUGHT, " \n"}, {SPAN_THOUGHT, "+ 1"}, {SPAN_THOUGHT, "\n\n"}, {SPAN_ANSWER, " \n2"},
                {SPAN_ANSWER, " \033[0m\n"}, {SPAN_ANSWER, "\n"}};
    char found[256] = {0};
    struct speech speech = {.out = tmpfile(), .terminal = terminal};
    assert_non_null(speech.out);
    speech_begin(&speech);
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        speech_tell(&speech, said[i].span, said[i].text, strlen(said[i].text));
    speech_end(&speech, note);
    rewind(speech.out);
    assert_true(fread(found, 1, sizeof found - 1, speech.out) > 0);
    assert_string_equal(found, wanted);
    fclose(speech.out);
    speech_free(&speech);
}

static void thoughts_are_told_apart(void **state)
{
    (void)state;
    expect_speech(false, NULL, "thought: 1 \n+ 1\nanswer: 2 \033[0m\n");
    /* On a terminal the model has no say in colours. */
    expect_speech(true, "answer_cut", "\033[2m1 \n+ 1\033[0m\n2 \xEF\xBF\xBD[0m\n(answer_cut)\n");
}

static void a_thought_alone_ends_dimming(void **state)
{
    (void)state;
    char found[64] = {0};
    struct speech speech = {.out = tmpfile(), .terminal = true};
    assert_non_null(speech.out);
    speech_begin(&speech);
    speech_tell(&speech, SPAN_THOUGHT, "hm", 2);
    speech_end(&speech, "stopped");
    speech_begin(&speech);
    speech_end(&speech, "no_answer");
    rewind(speech.out);
    assert_true(fread(found, 1, sizeof found - 1, speech.out) > 0);
    assert_string_equal(found, "\033[2mhm\033[0m\n(stopped)\n(no_answer)\n");
    fclose(speech.out);
    speech_free(&speech);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_hold_all_turns_without_thoughts), cmocka_unit_test(short_memory_leaves_the_talk_whole),
        cmocka_unit_test(thoughts_are_told_apart), cmocka_unit_test(a_thought_alone_ends_dimming),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
