/* What a run is told before it begins: doubtful settings, the longest batch, several failures as one. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "launch/estimate.h"
#include "launch/failures.h"
#include "launch/sift.h"
#include "launch/warnings.h"

static struct options o;
static struct error err;
static struct dataset_part parts[2];
static struct shard shard;
static int64_t starts[9];
static struct stage only;

/* A run of two sets of four rows that deserves no warning. */
static void make(struct start *s)
{
    static const char file[] = "model_name_or_path: m\ndatasets: [{path: p}]\nchat_template: deepseek-r1\n";
    assert_ok(options_parse_text(file, sizeof file - 1, "file", 0, NULL, &o, NULL, &err), &err);
    *s = (struct start){.slots = 2, .total_steps = 100, .shard = &shard, .stages = &only};
    s->run.options = s->run.all = &o;
    s->run.n_stages = 1;
    s->run.config = (struct model_config){.layers = 2, .width = 8, .heads = 2, .kv_heads = 2, .head_dim = 4, .hidden = 16};
    only = (struct stage){.run = &s->run, .steps = 100, .schedule = {.type = SCHEDULE_CONSTANT, .base = 1, .warmup = 10, .total = 100, .cycles = 0.5}};
    for (int i = 0; i < 2; i++) {
        parts[i] = (struct dataset_part){.name = i ? "b" : "a", .first_row = 4 * i, .share = 1};
        parts[i].stats = (struct dataset_stats){.read = 4, .kept = 4, .thoughts = 4, .tokens = {40, 4, 4, 4}, .longest = 20};
    }
    for (int i = 0; i < 9; i++)
        starts[i] = 10 * i + (i > 5 ? 7 : 0); /* row 5 is the longest */
    s->run.train = (struct dataset){.rows = 8, .starts = starts, .parts = parts, .n_parts = 2};
    s->run.order = (struct order){.rows = 8, .slots = 2, .slot_rows = 2, .cached = -1};
}

/* warnings_put finds one line with the pattern, or with NULL nothing. */
static void assert_warns(const struct start *s, const char *pattern)
{
    struct text out = {0};
    warnings_put(s, &out);
    const char *found = out.data ? out.data : "";
    if (pattern ? !strstr(found, pattern) || strchr(found, '\n') != found + strlen(found) - 1 : *found)
        fail_msg("wanted '%s', found '%s'", pattern ? pattern : "nothing", found);
    text_free(&out);
    options_free(&o);
}

static void doubtful_settings_are_told(void **state)
{
    (void)state;
    struct start s;
    make(&s);
    assert_warns(&s, NULL);
    make(&s);
    only.schedule.warmup = 100;
    assert_warns(&s, "warm-up takes 100 steps and the run has 100");
    make(&s);
    only.schedule.type = SCHEDULE_MULTISTEP;
    only.schedule.milestones = 1;
    assert_warns(&s, "it is 0 right behind the warm-up");
    make(&s);
    s.run.order.slot_rows = 5;
    assert_warns(&s, "an epoch has 8 rows, fewer than the 10 of a global batch");
    make(&s);
    parts[1].stats = (struct dataset_stats){.held_out = 4};
    assert_warns(&s, "no row of 'b' is left");
    make(&s);
    parts[0].stats.tokens[SPAN_END] = 0;
    assert_warns(&s, "no row of 'a' ends with an end token");
    make(&s);
    parts[0].stats.thoughts = 0;
    assert_warns(&s, NULL); /* half of them is enough */
    make(&s);
    o.answer_loss_weight = 0;
    assert_warns(&s, "answer_loss_weight: 0");
    make(&s);
    o.thought_loss_weight = 0;
    assert_warns(&s, "thought_loss_weight: 0");
    make(&s);
    s.run.config.width = INT64_C(1) << 40;
    assert_warns(&s, "lower per_device_train_batch_size");
    make(&s);
    s.run.table.values = INT64_C(1) << 50;
    assert_warns(&s, "put the server on a node of its own");
}

static void the_longest_batch_is_found(void **state)
{
    (void)state;
    struct start s;
    int64_t step, tokens;
    make(&s);
    assert_ok(estimate_longest_batch(&s.run, &step, &tokens, &err), &err);
    assert_int_equal(step, 1);
    assert_int_equal(tokens, 27);
    options_free(&o);
}

static void failures_are_told_together(void **state)
{
    (void)state;
    struct failures failures = {0};
    error_set(&err, STATUS_DATA, "no first");
    assert_int_equal(failures_take(&failures, STATUS_OK, &err), STATUS_OK);
    assert_ok(failures_verdict(&failures, "set", &err), &err);
    assert_int_equal(failures_take(&failures, STATUS_DATA, &err), STATUS_OK);
    assert_refused(failures_verdict(&failures, "set", &err), STATUS_DATA, &err, "no first");
    error_set(&err, STATUS_NOMEM, "no memory");
    assert_int_equal(failures_take(&failures, STATUS_NOMEM, &err), STATUS_NOMEM);
    error_set(&err, STATUS_DATA, "no last");
    assert_int_equal(failures_take(&failures, STATUS_DATA, &err), STATUS_OK);
    assert_refused(failures_verdict(&failures, "set", &err), STATUS_DATA, &err, "2 of 4 sets cannot be used\nno first\nno last");
    failures_free(&failures);
}

static void many_failures_share_the_room(void **state)
{
    (void)state;
    struct failures failures = {0};
    char line[200], name[32];
    memset(line, 'x', sizeof line - 1);
    line[sizeof line - 1] = 0;
    for (int i = 0; i < 12; i++) {
        error_set(&err, STATUS_DATA, "set %d\n%s\n%s\n%s\n%s", i, line, line, line, line);
        assert_int_equal(failures_take(&failures, STATUS_DATA, &err), STATUS_OK);
    }
    assert_int_equal(failures_verdict(&failures, "set", &err), STATUS_DATA);
    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "\nset %d\nx", i);
        assert_non_null(strstr(err.text, name));
    }
    assert_string_equal(err.text + strlen(err.text) - 6, "\n  ...");
    failures_free(&failures);
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doubtful_settings_are_told), cmocka_unit_test(the_longest_batch_is_found),
        cmocka_unit_test(failures_are_told_together), cmocka_unit_test(many_failures_share_the_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
