/* Votes over several samples of a scripted model. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "tests/support/scripted_model.h"
#include "worker/infer/vote.h"

static struct error err;
static struct generated out;
static struct votes votes;

static int close_all(void **state)
{
    (void)state;
    script_close();
    assert_int_equal(script.caches, 0);
    assert_int_equal(mem_live(), 0);
    return 0;
}

static enum status try_vote(int samples)
{
    struct model_config config = {.vocab = script.vocab, .max_positions = 1000};
    struct generate_settings settings = {.sampling = {.temperature = 1, .top_p = 1}, .max_new_tokens = 30, .ends = &end_token, .n_ends = 1,
                                         .thought_open = "<think>", .thought_close = "</think>", .self_consistency = samples};
    struct generator *generator;
    TRY(generator_create(NULL, &config, NULL, tokenizer, &settings, &generator, &err));
    enum status st = vote_run(generator, &settings, (const int32_t[]){70, 71}, 2, 5, NULL, NULL, &out, &votes, &err);
    generator_free(generator);
    return st;
}

static void check(const char *written, int samples, const char *thought, const char *answer, double share, const char *told)
{
    struct text line = {0};
    model_writes(written);
    assert_ok(try_vote(samples), &err);
    votes_put(&votes, &line);
    assert_string_equal(line.data, told);
    assert_string_equal(out.thought.size ? out.thought.data : "", thought);
    assert_string_equal(out.answer.size ? out.answer.data : "", answer);
    assert_true(votes_share(&votes) == share);
    text_free(&line);
    generated_free(&out);
    votes_free(&votes);
}

static void the_most_frequent_answer_wins(void **state)
{
    (void)state;
    check("<think>a\2" "41\1<think>b\2" "42.\1<think>c\2 $42\1<think>d\2#### 42\1", 4, "b", "42.", 0.75, "votes 3 of 4; '41' 1, '42' 3");
    check("7\1" "7\1", 2, "", "7", 1, "votes 2 of 2; '7' 2");
}

static void the_earliest_wins_ties(void **state)
{
    (void)state;
    check("<think>a\2one\1<think>b\2two\1<think>c\2TWO\1<think>d\2One\1", 4, "a", "one", 0.5, "votes 2 of 4; 'one' 2, 'two' 2");
}

static void unfinished_answers_do_not_vote(void **state)
{
    (void)state;
    /* One reaches the limit of 30 tokens, one is empty, and the one that is left wins against them. */
    check("<think>a\2" "777777777777777777777\1<think>b\2\1<think>c\2" "8\1", 3, "c", "8", 1 / 3., "votes 1 of 3; '8' 1, no answer 2");
    check("<think>a\2\1<think>b\2\1", 2, "a", "", 0, "votes 0 of 2; no answer 2");
}

static void one_sample_has_no_vote(void **state)
{
    (void)state;
    model_writes("7\1");
    assert_ok(try_vote(1), &err);
    assert_string_equal(out.answer.data, "7");
    assert_int_equal(votes.count, 0);
    assert_int_equal(votes.samples, 1);
    generated_free(&out);
    votes_free(&votes);
}

static void failures_are_reported(void **state)
{
    (void)state;
    long before = mem_live(), n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        model_writes("<think>a\2" "41\1<think>b\2" "42\1<think>c\2" "42\1");
        mem_fail_after(n, false);
        st = try_vote(3);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        generated_free(&out);
        votes_free(&votes);
        assert_int_equal(mem_live(), before);
    }
    assert_true(n > 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_frequent_answer_wins), cmocka_unit_test(the_earliest_wins_ties),
        cmocka_unit_test(unfinished_answers_do_not_vote), cmocka_unit_test(one_sample_has_no_vote),
        cmocka_unit_test(failures_are_reported),
    };
    return cmocka_run_group_tests(tests, script_open, close_all);
}
