/* Packing of rows into batches and the order in which slots get their rows. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "common/slots.h"
#include "worker/data/batch.h"
#include "worker/data/order.h"

static const float weights[SPAN_COUNT] = {0, 0.5f, 2, 2};

static void labels_are_the_next_token(void **state)
{
    (void)state;
    struct error err;
    struct batch batch = {0};
    int32_t tokens[] = {10, 11, 12, 13, 14, 15};
    uint8_t spans[] = {SPAN_PROMPT, SPAN_PROMPT, SPAN_THOUGHT, SPAN_ANSWER, SPAN_ANSWER, SPAN_END};
    struct row row = {.tokens = tokens, .spans = spans, .n_tokens = 6, .task = 3, .weight = 2.0f};
    struct row single = {.tokens = tokens, .spans = spans, .n_tokens = 1, .task = 1, .weight = 1.0f};
    assert_ok(batch_append(&batch, &row, weights, &err), &err);
    assert_ok(batch_append(&batch, &single, weights, &err), &err);
    row.task = 5;
    assert_ok(batch_append(&batch, &row, weights, &err), &err);
    assert_int_equal(batch.n_sequences, 3);
    assert_int_equal(batch.n_tokens, 13);
    const int starts[] = {0, 6, 7, 13}, tasks[] = {3, 1, 5};
    for (int b = 0; b < 3; b++) {
        assert_int_equal(batch.starts[b], starts[b]);
        assert_int_equal(batch.tasks[b], tasks[b]);
    }
    assert_int_equal(batch.starts[3], 13);
    const int32_t targets[] = {-1, 12, 13, 14, 15, -1, -1};
    const float expected[] = {0, 1, 4, 4, 4, 0, 0};
    for (int i = 0; i < 7; i++) {
        assert_int_equal(batch.targets[i], targets[i]);
        assert_true(batch.weights[i] == expected[i]);
        assert_int_equal(batch.positions[i], i == 6 ? 0 : i);
        if (targets[i] >= 0)
            assert_int_equal(batch.target_spans[i], spans[i + 1]);
    }
    /* The last token of a row never predicts the first one of the next. */
    assert_int_equal(batch.targets[12], -1);
    assert_int_equal(batch.positions[7], 0);
    batch_clear(&batch);
    assert_int_equal(batch.n_tokens, 0);
    assert_int_equal(batch.starts[0], 0);
    batch_free(&batch);
    assert_int_equal(mem_live(), 0);
}

/* A row with a class predicts no token; its last one carries the weight. Rows of text beside it stay as they are. */
static void classes_stand_at_the_last_token(void **state)
{
    (void)state;
    struct error err;
    struct batch batch = {0};
    int32_t tokens[] = {10, 11, 12};
    uint8_t prompt[] = {SPAN_PROMPT, SPAN_PROMPT, SPAN_PROMPT}, spans[] = {SPAN_PROMPT, SPAN_ANSWER, SPAN_END};
    struct row classed = {.tokens = tokens, .spans = prompt, .n_tokens = 3, .weight = 1.5f, .class = {4, 3, 2}};
    struct row text = {.tokens = tokens, .spans = spans, .n_tokens = 3, .task = 1, .weight = 1};
    const float all[SPAN_COUNT] = {1, 1, 1, 1};
    assert_ok(batch_append(&batch, &classed, all, &err), &err);
    assert_ok(batch_append(&batch, &text, all, &err), &err);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(batch.targets[i], -1);
        assert_true(batch.weights[i] == (i == 2 ? 1.5f : 0));
    }
    assert_int_equal(batch.target_spans[2], SPAN_ANSWER);
    assert_true(batch_class(&batch, 0).first == 4 && batch_class(&batch, 0).count == 3 && batch_class(&batch, 0).label == 2);
    assert_int_equal(batch_class(&batch, 1).count, 0);
    assert_int_equal(batch_count_targets(&batch), 2);
    assert_int_equal(batch_count_classes(&batch), 1);
    batch_free(&batch);
    assert_int_equal(mem_live(), 0);
}

static void weight_zero_takes_no_loss(void **state)
{
    (void)state;
    struct error err;
    struct batch batch = {0};
    int32_t tokens[] = {1, 2, 3};
    uint8_t spans[] = {SPAN_PROMPT, SPAN_THOUGHT, SPAN_END};
    const float no_thought[SPAN_COUNT] = {0, 0, 1, 1};
    struct row row = {.tokens = tokens, .spans = spans, .n_tokens = 3, .weight = 1};
    assert_ok(batch_append(&batch, &row, no_thought, &err), &err);
    assert_int_equal(batch.targets[0], -1);
    assert_true(batch.weights[0] == 0);
    assert_int_equal(batch.targets[1], 3);
    spans[1] = SPAN_PROMPT;
    const float prompt_too[SPAN_COUNT] = {0.5f, 0, 1, 1};
    assert_ok(batch_append(&batch, &row, prompt_too, &err), &err);
    assert_int_equal(batch.targets[3], 2);
    assert_true(batch.weights[3] == 0.5f);
    assert_int_equal(batch.target_spans[3], SPAN_PROMPT);
    assert_int_equal(batch.targets[5], -1);
    row.n_tokens = 0;
    assert_refused(batch_append(&batch, &row, no_thought, &err), STATUS_INTERNAL, &err, "without tokens");
    batch_free(&batch);
}

static void stretches_weigh_turns(void **state)
{
    (void)state;
    struct error err;
    struct batch batch = {0};
    int32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t spans[] = {SPAN_PROMPT, SPAN_ANSWER, SPAN_END, SPAN_PROMPT, SPAN_THOUGHT, SPAN_ANSWER, SPAN_END, SPAN_PROMPT};
    struct stretch stretches[] = {{1, 0.5f}, {3, 1}, {4, 3}, {6, 0}};
    struct row row = {.tokens = tokens, .spans = spans, .n_tokens = 8, .weight = 2, .stretches = stretches, .n_stretches = 4};
    assert_ok(batch_append(&batch, &row, weights, &err), &err);
    row.n_stretches = 0;
    assert_ok(batch_append(&batch, &row, weights, &err), &err);
    const float uneven[] = {2, 2, 0, 3, 12, 0, 0, 0}, even[] = {4, 4, 0, 1, 4, 4, 0, 0}; /* spans weigh 0, 0.5, 2, 2 */
    for (int i = 0; i < 8; i++) {
        assert_true(batch.weights[i] == uneven[i]);
        assert_int_equal(batch.targets[i], uneven[i] > 0 ? tokens[i + 1] : -1);
        assert_true(batch.weights[8 + i] == even[i]);
    }
    batch_free(&batch);
}

/* Sums of the row's weights over thoughts, and over answers with their end tokens. */
static void sums_of(const struct row *row, const float span_weights[SPAN_COUNT], double sums[2])
{
    struct error err;
    struct batch batch = {0};
    assert_ok(batch_append(&batch, row, span_weights, &err), &err);
    sums[0] = sums[1] = 0;
    for (int i = 0; i < batch.n_tokens; i++)
        if (batch.targets[i] >= 0 && batch.target_spans[i] != SPAN_PROMPT)
            sums[batch.target_spans[i] != SPAN_THOUGHT] += (double)batch.weights[i];
    batch_free(&batch);
}

static void assert_near(double found, double wanted)
{
    if (!(found > wanted - 1e-5 && found < wanted + 1e-5))
        fail_msg("%.9g is not %.9g", found, wanted);
}

static void balanced_rows_share_as_told(void **state)
{
    (void)state;
    enum { N = 100 };
    int32_t tokens[N] = {0};
    uint8_t spans[N] = {0};
    const float given[SPAN_COUNT] = {0, 1, 3, 3};
    double sums[2];
    struct row row = {.tokens = tokens, .spans = spans, .n_tokens = N, .weight = 1, .balanced = true};
    for (int thought = 0; thought <= 80; thought += 8) {
        for (int i = 0; i < N; i++)
            spans[i] = i < 10 ? SPAN_PROMPT : i < 10 + thought ? SPAN_THOUGHT : i < N - 1 ? SPAN_ANSWER : SPAN_END;
        sums_of(&row, given, sums);
        assert_near(sums[0], thought ? 90 * 0.25 : 0);
        assert_near(sums[1], thought ? 90 * 0.75 : 90);
    }
    /* The row's weight multiplies all; a part of weight 0 leaves the other as many tokens as it has. */
    row.weight = 2;
    sums_of(&row, (const float[SPAN_COUNT]){0, 1, 3, 3}, sums);
    assert_near(sums[0] + sums[1], 180);
    sums_of(&row, (const float[SPAN_COUNT]){0, 0, 3, 3}, sums);
    assert_near(sums[0], 0);
    assert_near(sums[1], 20);
    /* Turns of uneven factors keep their ratio; those of factor 0 are no part of the count. */
    struct stretch stretches[] = {{10, 4}, {50, 1}, {80, 0}, {91, 1}};
    row.weight = 1;
    row.stretches = stretches;
    row.n_stretches = 4;
    sums_of(&row, given, sums);
    assert_near(sums[0], 79 * 0.25);
    assert_near(sums[1], 79 * 0.75);
    struct row_weights w = row_weights_begin(&row, given);
    float four = row_weights_next(&w, 10), one = row_weights_next(&w, 60);
    assert_true(four == 4 * one && one > 0);
    /* Prompts that are learnt stay as they are. */
    w = row_weights_begin(&row, (const float[SPAN_COUNT]){1, 1, 3, 3});
    assert_true(row_weights_next(&w, 5) == 1);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    struct error err;
    int32_t tokens[40] = {0};
    uint8_t spans[40] = {0};
    struct row row = {.tokens = tokens, .spans = spans, .n_tokens = 40, .weight = 1};
    bool done = false;
    for (long n = 0; !done; n++) {
        struct batch batch = {0};
        mem_fail_after(n, false);
        done = true;
        for (int i = 0; i < 20 && done; i++)
            done = batch_append(&batch, &row, weights, &err) == STATUS_OK;
        mem_fail_after(-1, false);
        if (!done) {
            assert_int_equal(err.code, STATUS_NOMEM);
            assert_ok(batch_append(&batch, &row, weights, &err), &err); /* still usable */
        }
        batch_free(&batch);
        assert_int_equal(mem_live(), 0);
        assert_true(n < 1000);
    }
    struct order order;
    mem_fail_after(0, false);
    assert_refused(order_create(1, 10, 2, 2, true, &order, &err), STATUS_NOMEM, &err, "no memory");
    mem_fail_after(-1, false);
}

/* Every row exactly once per epoch, in every step the slots' rows follow each other, and only the last slots of an epoch
 * are short. */
static void check_epochs(uint32_t rows, int slots, int slot_rows, bool shuffle)
{
    struct error err;
    struct order order;
    assert_ok(order_create(11, rows, slots, slot_rows, shuffle, &order, &err), &err);
    int64_t steps = order_steps_per_epoch(&order);
    int64_t per_step = (int64_t)slots * slot_rows;
    assert_int_equal(steps, (rows + per_step - 1) / per_step);
    uint32_t taken[64], first_epoch[200];
    for (int epoch = 0; epoch < 3; epoch++) {
        int seen[200] = {0};
        uint32_t at = 0, moved = 0;
        for (int64_t step = epoch * steps; step < (epoch + 1) * steps; step++)
            for (int slot = 0; slot < slots; slot++) {
                int n = order_slot(&order, step, slot, taken);
                int64_t left = (int64_t)rows - at;
                assert_int_equal(n, left < slot_rows ? left : slot_rows);
                for (int i = 0; i < n; i++, at++) {
                    assert_true(taken[i] < rows);
                    seen[taken[i]]++;
                    if (!shuffle)
                        assert_int_equal(taken[i], at);
                    if (!epoch)
                        first_epoch[at] = taken[i];
                    moved += first_epoch[at] != taken[i];
                }
            }
        for (uint32_t row = 0; row < rows; row++)
            assert_int_equal(seen[row], 1);
        if (shuffle && epoch && rows > 20)
            assert_true(moved > rows / 2); /* a new order in every epoch */
    }
    order_free(&order);
}

static void every_row_once_per_epoch(void **state)
{
    (void)state;
    for (int slots = 1; slots <= 16; slots = slots * 2 + (slots == 2))
        for (int slot_rows = 1; slot_rows <= 7; slot_rows += 3)
            for (uint32_t rows = (uint32_t)slots; rows < 200; rows = rows * 2 + 1) {
                check_epochs(rows, slots, slot_rows, true);
                check_epochs(rows, slots, slot_rows, false);
            }
    assert_int_equal(mem_live(), 0);
}

/* Workers ask for their own slots only, in their own sequence; what they get must not depend on that. */
static void order_does_not_depend_on_workers(void **state)
{
    (void)state;
    enum { ROWS = 53, SLOTS = 8, SLOT_ROWS = 2, STEPS = 9 };
    struct error err;
    struct order order;
    uint32_t whole[STEPS][SLOTS][SLOT_ROWS] = {0}, taken[SLOT_ROWS];
    assert_ok(order_create(5, ROWS, SLOTS, SLOT_ROWS, true, &order, &err), &err);
    for (int step = 0; step < STEPS; step++)
        for (int slot = 0; slot < SLOTS; slot++)
            order_slot(&order, step, slot, whole[step][slot]);
    order_free(&order);
    for (int workers = 1; workers <= SLOTS; workers++)
        for (int worker = 0; worker < workers; worker++) {
            assert_ok(order_create(5, ROWS, SLOTS, SLOT_ROWS, true, &order, &err), &err);
            struct slot_range range = slots_of_worker(SLOTS, workers, worker);
            for (int step = STEPS - 1; step >= 0; step--)
                for (int slot = range.first; slot < range.first + range.count; slot++) {
                    int n = order_slot(&order, step, slot, taken);
                    for (int i = 0; i < n; i++)
                        assert_int_equal(taken[i], whole[step][slot][i]);
                }
            order_free(&order);
        }
    assert_ok(order_create(6, ROWS, SLOTS, SLOT_ROWS, true, &order, &err), &err);
    order_slot(&order, 0, 0, taken);
    assert_true(taken[0] != whole[0][0][0] || taken[1] != whole[0][0][1]); /* another seed, another order */
    order_free(&order);
}

static void fewer_rows_than_slots_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct order order;
    assert_refused(order_create(1, 7, 8, 1, true, &order, &err), STATUS_DATA, &err, "7 rows, fewer than the 8 slots");
    assert_ok(order_create(1, 8, 8, 4, true, &order, &err), &err);
    uint32_t taken[4];
    assert_int_equal(order_slot(&order, 0, 0, taken), 4);
    assert_int_equal(order_slot(&order, 0, 2, taken), 0);
    order_free(&order);
}

static void spans_have_names(void **state)
{
    (void)state;
    assert_string_equal(span_name(SPAN_PROMPT), "prompt");
    assert_string_equal(span_name(SPAN_THOUGHT), "thought");
    assert_string_equal(span_name(SPAN_ANSWER), "answer");
    assert_string_equal(span_name(SPAN_END), "end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_the_next_token), cmocka_unit_test(classes_stand_at_the_last_token), cmocka_unit_test(weight_zero_takes_no_loss),
        cmocka_unit_test(memory_may_run_out), cmocka_unit_test(every_row_once_per_epoch),
        cmocka_unit_test(order_does_not_depend_on_workers), cmocka_unit_test(fewer_rows_than_slots_are_refused),
        cmocka_unit_test(spans_have_names), cmocka_unit_test(stretches_weigh_turns),
        cmocka_unit_test(balanced_rows_share_as_told)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
