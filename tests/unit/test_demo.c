/* Demo rows: right answers (solved again here from the question alone), determinism, splits, no repeats, memory. */
#include "tests/support/cmocka_all.h"

#include <unistd.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "tests/support/scratch.h"
#include "worker/data/demo/demo.h"
#include "worker/data/jsonl.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"

static struct demo_request request_for(const char *task, int64_t rows)
{
    struct demo_request request = {.rows = rows, .seed = 3};
    struct error err;
    assert_ok(demo_find(task, &request.task, &err), &err);
    return request;
}

static void make(const struct demo_request *request, struct text *lines)
{
    struct error err;
    int64_t repeated;
    text_clear(lines);
    assert_ok(demo_write(request, lines, NULL, &repeated, &err), &err);
    assert_int_equal(repeated, 0);
}

typedef void solver(const char *question, const char *thought, char *answer);

/* Calls the solver on every row and compares its answer; returns how many rows there were. */
static int solve_all(const struct text *lines, solver *solve)
{
    struct jsonl reader;
    struct jsonl_record record;
    struct error err;
    bool found;
    int rows = 0;
    jsonl_over("demo", lines->data, lines->size, &reader);
    for (;; rows++) {
        assert_ok(jsonl_next(&reader, &record, &found, &err), &err);
        if (!found)
            return rows;
        struct json *row;
        assert_ok(jsonl_parse(&reader, &record, &row, &err), &err);
        assert_int_equal(json_count(row), json_member(row, "distance") ? 4 : 3);
        char answer[64];
        solve(json_to_string(json_member(row, "question"), NULL), json_to_string(json_member(row, "thought"), NULL), answer);
        assert_string_equal(json_to_string(json_member(row, "answer"), NULL), answer);
        json_free(row);
    }
}

static void solve_parity(const char *question, const char *thought, char *answer)
{
    int ones = 0;
    assert_int_equal(strlen(question), 16);
    assert_int_equal(strlen(thought), 16);
    for (int i = 0; i < 16; i++) {
        ones += question[i] == '1';
        assert_int_equal(thought[i], '0' + ones % 2);
    }
    sprintf(answer, "%d", ones % 2);
}

static void solve_modchain(const char *question, const char *thought, char *answer)
{
    const char *modulus_text = strstr(question, " mod ");
    assert_non_null(modulus_text);
    int modulus = atoi(modulus_text + 5), steps = 0;
    char *at;
    long value = strtol(question, &at, 10);
    while (at < modulus_text) {
        char sign = at[1];
        long operand = strtol(at + 2, &at, 10);
        value = sign == '+' ? value + operand : sign == '-' ? value - operand : value * operand;
        value = ((value % modulus) + modulus) % modulus;
        char *next;
        assert_int_equal(strtol(thought, &next, 10), value);
        thought = next;
        steps++;
    }
    assert_int_equal(*thought, '\0');
    assert_int_equal(steps, 8);
    sprintf(answer, "%ld", value);
}

static void solve_worded(const char *question, const char *thought, char *answer)
{
    char text[512], *save;
    int value = -1, modulus = atoi(strstr(question, "modulo ") + 7), operand;
    snprintf(text, sizeof text, "%s", question);
    snprintf(answer, 64, "%s", strrchr(thought, ' ') + 1); /* the last value of the thought */
    int claimed = atoi(answer);
    for (char *part = strtok_r(text, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        part += *part == ' ';
        if (sscanf(part, "Start with %d dose", &operand) == 1)
            value = operand;
        else if (sscanf(part, "plus %d", &operand) == 1)
            value += operand;
        else if (sscanf(part, "minus %d", &operand) == 1)
            value -= operand;
        else if (sscanf(part, "times %d", &operand) == 1)
            value *= operand;
        else if (!strcmp(part, "double") || !strcmp(part, "triple"))
            value *= *part == 'd' ? 2 : 3;
        else
            assert_true(!strncmp(part, "modulo", 6));
    }
    value = ((value % modulus) + modulus) % modulus;
    assert_int_equal(value, claimed);
    sprintf(answer, value == 1 ? "%d dose" : "%d doses", value);
}

static void solve_cups(const char *question, const char *thought, char *answer)
{
    char cups[16] = {0};
    memcpy(cups, question, 5);
    const char *swap = question + 5;
    for (; *swap; swap += 3, thought += 5) {
        int first = swap[1] - '1', second = swap[2] - '1';
        assert_true(first < second && second < 5);
        char held = cups[first];
        cups[first] = cups[second];
        cups[second] = held;
        thought += *thought == ' ';
        assert_memory_equal(thought, cups, 5);
    }
    assert_int_equal(*thought, '\0');
    strcpy(answer, cups);
}

static long long low_first(const char **at)
{
    long long value = 0, place = 1;
    for (; **at >= '0' && **at <= '9'; (*at)++, place *= 10)
        value += (**at - '0') * place;
    return value;
}

static void solve_mult(const char *question, const char *thought, char *answer)
{
    long long a = low_first(&question);
    question++;
    long long b = low_first(&question), product = a * b, claimed = 0, sum = 0;
    /* "p0+p1=s1+p2=s2": parts add up, every stated sum is what was added so far. */
    for (char sign = '+'; *thought || sign == '+';) {
        claimed = low_first(&thought);
        if (sign == '=')
            assert_int_equal(claimed, sum);
        else
            sum += claimed;
        sign = *thought;
        if (!sign)
            break;
        thought++;
    }
    assert_int_equal(sum, product);
    for (int i = 0; i < 6; i++, product /= 10)
        answer[i] = (char)('0' + product % 10);
    answer[6] = '\0';
}

/* Every letter that is asked for stands once, with a digit behind it. */
static void solve_recall(const char *question, const char *thought, char *answer)
{
    assert_int_equal(strlen(question), 256);
    const char *asked = strchr(question, '?') + 1;
    assert_int_equal(strspn(question, "a0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"), asked - question - 1);
    assert_int_equal(strlen(asked), 4);
    for (; *asked; asked++, thought += 2) {
        const char *pair = strchr(question, *asked);
        assert_true(*asked >= 'A' && *asked <= 'Z' && strchr(pair + 1, *asked) == asked);
        thought += *thought == ' ';
        assert_memory_equal(thought, pair, 2);
        *answer++ = pair[1];
    }
    assert_int_equal(*thought, '\0');
    *answer = '\0';
}

static void answers_are_right(void **state)
{
    (void)state;
    static const struct {
        const char *task;
        solver *solve;
        bool worded;
    } cases[] = {{"parity", solve_parity, false}, {"modchain", solve_modchain, false}, {"modchain", solve_worded, true},
                 {"cups", solve_cups, false}, {"mult", solve_mult, false}, {"recall", solve_recall, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text lines = {0};
        struct demo_request request = request_for(cases[i].task, 500);
        request.settings.worded = cases[i].worded;
        make(&request, &lines);
        assert_int_equal(solve_all(&lines, cases[i].solve), 500);
        text_free(&lines);
    }
    assert_int_equal(mem_live(), 0);
}

/* `distance` is where the pair lies, counted back from the sign; all distances are as frequent. */
static void recall_reaches_back_evenly(void **state)
{
    (void)state;
    enum { ROWS = 1000, BINS = 8, QUERIES = 2 };
    int bins[BINS] = {0};
    struct text lines = {0};
    struct jsonl reader;
    struct jsonl_record record;
    struct error err;
    bool found;
    struct demo_request request = request_for("recall", ROWS);
    request.settings.length = 400;
    request.settings.letters = 26;
    request.settings.pairs = 5;
    request.settings.queries = QUERIES;
    make(&request, &lines);
    jsonl_over("demo", lines.data, lines.size, &reader);
    for (;;) {
        struct json *row;
        assert_ok(jsonl_next(&reader, &record, &found, &err), &err);
        if (!found)
            break;
        assert_ok(jsonl_parse(&reader, &record, &row, &err), &err);
        const char *question = json_to_string(json_member(row, "question"), NULL), *sign = strchr(question, '?');
        const struct json *distance = json_member(row, "distance");
        assert_int_equal(strlen(question), 400);
        assert_int_equal(json_count(distance), QUERIES);
        for (int i = 0; i < QUERIES; i++) {
            int64_t far = json_to_int(json_at(distance, (size_t)i));
            assert_true(sign[-far] == sign[1 + i]);
            bins[far * BINS / 400]++;
        }
        json_free(row);
    }
    for (int i = 0; i < BINS; i++) {
        int mean = ROWS * QUERIES / BINS;
        if (bins[i] < mean * 7 / 10 || bins[i] > mean * 13 / 10)
            fail_msg("%d pairs in part %d of %d, %d expected", bins[i], i, BINS, mean);
    }
    text_free(&lines);
}

/* With the tokenizer that lies beside them, rows are as long as the help says. */
static void recall_fits_its_length(void **state)
{
    (void)state;
    static const struct demo_settings settings[] = {{.length = 256}, {.length = 4000, .pairs = 26, .queries = 26},
                                                    {.length = 22, .pairs = 4, .queries = 1}, {.length = 6, .pairs = 1, .queries = 1}};
    static const char *const templates[] = {"plain", "deepseek-r1", "deepseek-v3"};
    struct text file = {0}, config = {0};
    struct tokenizer *tokenizer;
    struct error err;
    assert_ok(demo_tokenizer("", 0, 0, &file, &config, &err), &err);
    assert_ok(tokenizer_load_text(file.data, file.size, config.data, config.size, "demo", &tokenizer, &err), &err);
    for (int i = 0; i < 4 * 3; i++) {
        struct demo_request request = request_for("recall", 1);
        struct demo_settings s = settings[i / 3];
        struct demo_row made = {0};
        assert_ok(demo_check(request.task, &s, &err), &err);
        assert_ok(demo_make(request.task, &s, 1, 0, &made, &err), &err);
        struct message messages[] = {
            {.role = ROLE_USER, .content = made.question.data, .content_size = made.question.size},
            {.role = ROLE_ASSISTANT, .content = made.answer.data, .content_size = made.answer.size, .thought = made.thought.data,
             .thought_size = made.thought.size, .supervised = true}};
        struct conversation c = {.messages = messages, .count = 2, .weight = 1};
        struct row row;
        assert_ok(template_encode(template_find(templates[i % 3]), tokenizer, &c, &row, &err), &err);
        assert_int_equal(made.question.size, s.length);
        assert_true(row.n_tokens > s.length && row.n_tokens <= s.length + 4 * s.queries + 16);
        row_free(&row);
        demo_row_free(&made);
    }
    tokenizer_free(tokenizer);
    text_free(&file);
    text_free(&config);
}

static void same_seed_same_rows(void **state)
{
    (void)state;
    struct text first = {0}, second = {0};
    struct demo_request request = request_for("modchain", 50);
    make(&request, &first);
    make(&request, &second);
    assert_string_equal(first.data, second.data);
    request.seed = 4;
    make(&request, &second);
    assert_string_not_equal(first.data, second.data);
    /* The first rows of a longer file are the same. */
    request.seed = 3;
    request.rows = 60;
    make(&request, &second);
    assert_memory_equal(first.data, second.data, first.size);
    text_free(&first);
    text_free(&second);
}

/* Counts lines of `a` that also stand in `b`; every line ends with a line break. */
static int shared_lines(const struct text *a, const struct text *b)
{
    int shared = 0;
    for (const char *at = a->data; at < a->data + a->size;) {
        size_t n = (size_t)(strchr(at, '\n') + 1 - at);
        for (const char *hit = memmem(b->data, b->size, at, n); hit; hit = NULL)
            shared += hit == b->data || hit[-1] == '\n';
        at += n;
    }
    return shared;
}

static void training_and_evaluation_are_apart(void **state)
{
    (void)state;
    struct text train = {0}, eval = {0}, all = {0};
    struct demo_request request = request_for("parity", 800);
    request.settings.length = 10; /* 1024 questions: chance alone would mix them */
    make(&request, &train);
    request.split = DEMO_EVAL;
    request.seed = 77;
    request.rows = 60;
    make(&request, &eval);
    assert_int_equal(shared_lines(&eval, &train), 0);
    assert_int_equal(shared_lines(&eval, &eval), 60);
    request.split = DEMO_ALL;
    request.rows = 1024;
    make(&request, &all); /* every question there is, each once */
    assert_int_equal(shared_lines(&train, &all), 800);
    assert_int_equal(shared_lines(&eval, &all), 60);
    text_free(&train);
    text_free(&eval);
    text_free(&all);
}

static void no_question_twice_while_there_are_new_ones(void **state)
{
    (void)state;
    struct error err;
    struct text lines = {0};
    int64_t repeated;
    struct demo_request request = request_for("parity", 40);
    request.settings.length = 5;
    request.split = DEMO_ALL;
    assert_ok(demo_write(&request, &lines, NULL, &repeated, &err), &err);
    assert_int_equal(repeated, 8); /* 32 questions in all */
    text_free(&lines);
}

static void excluded_questions_never_come(void **state)
{
    (void)state;
    struct error err;
    struct text first = {0}, second = {0};
    struct demo_request request = request_for("cups", 100);
    request.settings.swaps = 2;
    request.settings.cups = 6;
    request.split = DEMO_ALL;
    make(&request, &first);
    char path[SCRATCH_SIZE];
    assert_non_null(scratch_file(path, "demo"));
    assert_ok(file_replace(path, first.data, first.size, &err), &err);
    request.exclude = path;
    request.seed = 9;
    request.rows = 125; /* 15 * 15 questions in all */
    make(&request, &second);
    assert_int_equal(shared_lines(&second, &first), 0);
    request.exclude = "/nonexistent/rows.jsonl";
    int64_t repeated;
    assert_refused(demo_write(&request, &second, NULL, &repeated, &err), STATUS_DATA, &err, "/nonexistent/rows.jsonl");
    remove(path);
    text_free(&first);
    text_free(&second);
    assert_int_equal(mem_live(), 0);
}

static void wrong_settings_are_named(void **state)
{
    (void)state;
    struct error err;
    struct demo_request request = request_for("modchain", 1);
    const struct demo_task *none;
    assert_refused(demo_find("sorting", &none, &err), STATUS_USAGE, &err, "'sorting'; the tasks are parity");
    request.settings.mod = 1;
    assert_refused(demo_check(request.task, &request.settings, &err), STATUS_USAGE, &err, "--mod is 1; modchain takes 2 to 1000");
    request = request_for("parity", 1);
    request.settings.worded = true;
    assert_refused(demo_check(request.task, &request.settings, &err), STATUS_USAGE, &err, "only modchain");
    request.settings = (struct demo_settings){0};
    request.settings.ops = 2;
    assert_refused(demo_check(request.task, &request.settings, &err), STATUS_USAGE, &err, "--ops: only modchain has it, parity does not");
    request = request_for("cups", 1);
    request.settings.length = 20;
    assert_refused(demo_check(request.task, &request.settings, &err), STATUS_USAGE, &err, "--length: only parity and recall have it");
    request = request_for("recall", 1);
    request.settings.queries = 5;
    assert_refused(demo_check(request.task, &request.settings, &err), STATUS_USAGE, &err, "there are only 4 pairs to ask for");
    request.settings = (struct demo_settings){.length = 20};
    assert_refused(demo_check(request.task, &request.settings, &err), STATUS_USAGE, &err, "--pairs 4 and --queries 4 needs at least 21");
    request.settings = (struct demo_settings){.pairs = 27};
    assert_refused(demo_check(request.task, &request.settings, &err), STATUS_USAGE, &err, "--pairs is 27; recall takes 1 to 26");
    request = request_for("parity", 1);
    request.settings.length = 1;
    request.split = DEMO_EVAL;
    struct text lines = {0};
    int64_t repeated;
    bool some_held_out = demo_in_split(DEMO_EVAL, "0", 1) || demo_in_split(DEMO_EVAL, "1", 1);
    enum status st = demo_write(&request, &lines, NULL, &repeated, &err);
    assert_int_equal(st, some_held_out ? STATUS_OK : STATUS_USAGE);
    text_free(&lines);
}

/* Every id once, from 0 on, all bytes there; merges join tokens that exist into one that exists. */
static void check_tokenizer_file(int merges, bool words)
{
    struct error err;
    struct text lines = {0}, plain = {0}, file = {0}, config = {0};
    struct demo_request request = request_for("modchain", 300);
    request.settings.worded = words;
    int64_t repeated;
    assert_ok(demo_write(&request, &lines, &plain, &repeated, &err), &err);
    assert_ok(demo_tokenizer(plain.data, plain.size, merges, &file, &config, &err), &err);
    struct json *root, *settings;
    assert_ok(json_parse(file.data, file.size, "tokenizer.json", &root, &err), &err);
    assert_ok(json_parse(config.data, config.size, "tokenizer_config.json", &settings, &err), &err);
    const struct json *model = json_member(root, "model"), *vocab = json_member(model, "vocab");
    size_t count = json_count(vocab);
    bool *seen = mem_alloc(count, 1);
    for (const void *it = json_first(vocab); it; it = json_next(vocab, it)) {
        int64_t id = json_to_int(json_it_value(it));
        assert_true(id >= 0 && id < (int64_t)count && !seen[id]);
        seen[id] = true;
    }
    mem_free(seen);
    assert_true(count >= 262 && count <= 262 + (size_t)merges);
    if (merges)
        assert_non_null(json_member(vocab, "\xC4\xA0minus")); /* the marked space and a whole word */
    const struct json *list = json_member(model, "merges");
    for (size_t i = 0; i < json_count(list); i++) {
        char pair[128], joined[128];
        snprintf(pair, sizeof pair, "%s", json_to_string(json_at(list, i), NULL));
        char *space = strchr(pair, ' ');
        assert_non_null(space);
        *space = '\0';
        snprintf(joined, sizeof joined, "%s%s", pair, space + 1);
        assert_non_null(json_member(vocab, pair));
        assert_non_null(json_member(vocab, space + 1));
        assert_non_null(json_member(vocab, joined));
    }
    assert_non_null(json_member(settings, "bos_token"));
    json_free(root);
    json_free(settings);
    text_free(&lines);
    text_free(&plain);
    text_free(&file);
    text_free(&config);
}

static void tokenizer_files_hold_together(void **state)
{
    (void)state;
    check_tokenizer_file(0, false);
    check_tokenizer_file(300, true);
    assert_int_equal(mem_live(), 0);
}

static void run_out_of_memory(const char *task, int64_t rows, bool worded)
{
    struct error err;
    struct demo_request request = request_for(task, rows);
    request.settings.worded = worded;
    bool done = false;
    for (long n = 0; !done; n++) {
        struct text lines = {0}, plain = {0}, file = {0}, config = {0};
        int64_t repeated;
        mem_fail_after(n, false);
        enum status st = demo_write(&request, &lines, &plain, &repeated, &err);
        if (st == STATUS_OK)
            st = demo_tokenizer(plain.data, plain.size, 20, &file, &config, &err);
        mem_fail_after(-1, false);
        done = st == STATUS_OK;
        assert_true(done || st == STATUS_NOMEM);
        text_free(&lines);
        text_free(&plain);
        text_free(&file);
        text_free(&config);
        assert_int_equal(mem_live(), 0);
        assert_true(n < 5000);
    }
}

static void memory_may_run_out(void **state)
{
    (void)state;
    run_out_of_memory("modchain", 60, true);
    run_out_of_memory("recall", 3, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_right), cmocka_unit_test(recall_reaches_back_evenly),
        cmocka_unit_test(recall_fits_its_length), cmocka_unit_test(same_seed_same_rows),
        cmocka_unit_test(training_and_evaluation_are_apart),
        cmocka_unit_test(no_question_twice_while_there_are_new_ones),
        cmocka_unit_test(excluded_questions_never_come), cmocka_unit_test(wrong_settings_are_named),
        cmocka_unit_test(tokenizer_files_hold_together), cmocka_unit_test(memory_may_run_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
