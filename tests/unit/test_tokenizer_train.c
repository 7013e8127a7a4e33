/* Training a tokenizer: rows in, files out that the loader reads, the same for any number of threads. Merges of GSM8K are those
 * of Hugging Face's BpeTrainer. */
#include "tests/support/cmocka_all.h"

#include <unistd.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/rng.h"
#include "tests/support/scratch.h"
#include "worker/data/template.h"
#include "worker/data/tokenizer.h"
#include "worker/data/tokenizer/train.h"

static struct error err;
static char folder[SCRATCH_SIZE], first[128], second[128];

static int open_folder(void **state)
{
    (void)state;
    if (!scratch_folder(folder, "train"))
        return 1;
    snprintf(first, sizeof first, "%s/first", folder);
    snprintf(second, sizeof second, "%s/second", folder);
    return 0;
}

static int close_folder(void **state)
{
    (void)state;
    unlink(first);
    unlink(second);
    return rmdir(folder);
}

static void write_file(const char *path, const char *text)
{
    assert_ok(file_replace(path, text, strlen(text), &err), &err);
}

struct outcome {
    struct text json, config;
    struct train_report report;
};

static void outcome_free(struct outcome *o)
{
    text_free(&o->json);
    text_free(&o->config);
}

static enum status train_on(const struct train_request *request, int threads, struct outcome *out)
{
    struct threads *pool = NULL;
    *out = (struct outcome){0};
    enum status st = threads_create(threads, &pool, &err);
    if (st == STATUS_OK)
        st = tokenizer_train(request, pool, &out->json, &out->config, &out->report, &err);
    threads_free(pool);
    return st;
}

/* Trains on `first`, and on `second` if there are two. */
static enum status train(int files, const char *format, int32_t size, int threads, struct outcome *out)
{
    const char *const paths[] = {first, second};
    struct train_request request = {.paths = paths, .n_paths = files, .format = format, .size = size, .min_count = 2};
    return train_on(&request, threads, out);
}

static struct tokenizer *load(const struct outcome *o)
{
    struct tokenizer *t = NULL;
    assert_ok(tokenizer_load_text(o->json.data, o->json.size, o->config.data, o->config.size, "trained", &t, &err), &err);
    return t;
}

static size_t encoded(const struct tokenizer *t, const char *text, size_t size)
{
    struct token_list ids = {0};
    struct text back = {0};
    assert_ok(tokenizer_encode(t, text, size, 0, &ids, &err), &err);
    assert_ok(tokenizer_decode(t, ids.ids, ids.count, false, &back, &err), &err);
    assert_int_equal(back.size, size);
    if (size)
        assert_memory_equal(back.data, text, size);
    size_t count = ids.count;
    token_list_free(&ids);
    text_free(&back);
    return count;
}

/* The word, which came several times, has become one token. */
static void expect_word(const struct tokenizer *t, const char *spelling, bool wanted)
{
    if ((tokenizer_id(t, spelling) >= 0) != wanted)
        print_error("'%s' is %s\n", spelling, wanted ? "no token" : "a token");
    assert_int_equal(tokenizer_id(t, spelling) >= 0, wanted);
}

static void expect_rows(const char *format, const char *rows, const char *const words[])
{
    struct outcome o;
    write_file(first, rows);
    assert_ok(train(1, format, 2000, 1, &o), &err);
    struct tokenizer *t = load(&o);
    for (; *words; words++)
        expect_word(t, *words, true);
    expect_word(t, "ignored", false);
    tokenizer_free(t);
    outcome_free(&o);
}

static void all_texts_of_rows_are_read(void **state)
{
    (void)state;
    const char *const three[] = {"query", "musing", "reply", NULL};
    const char *qa = "{\"question\": \"query query\", \"thought\": \"musing,musing\", \"answer\": \"reply!reply\", \"x\": \"ignored "
                     "ignored\"}\n";
    expect_rows("auto", qa, three);
    expect_rows(NULL, qa, three);
    expect_rows("qa-cot", qa, three);
    expect_rows("gsm8k", "{\"question\": \"query-query\", \"answer\": \"musing<<ignored>> musing<<ignored>>\\n#### reply-reply\"}\n",
                (const char *const[]){"query", "musing", "reply", NULL});
    expect_rows("messages", "{\"messages\": [{\"role\": \"system\", \"content\": \"rule;rule\"}, {\"role\": \"user\", \"content\": "
                            "\"query-query\"}, {\"role\": \"assistant\", \"content\": \"<think>musing-musing</think>reply-reply\"}]}\n",
                (const char *const[]){"rule", "query", "musing", "reply", NULL});
    expect_rows("prompt-completion", "[{\"prompt\": \"query-query\", \"completion\": \"reply,reply\"}]",
                (const char *const[]){"query", "reply", NULL});
    expect_rows("text", "one line\nover line\n\nover\n", (const char *const[]){"\xC4\xA0line", "over", NULL});
    static const char column[] = "{\"text\": \"query,query\", \"id\": \"ignored ignored\"}\n";
    expect_rows("text", column, (const char *const[]){"query", NULL});
    expect_rows("auto", column, (const char *const[]){"query", NULL});
}

static void marks_are_kept_on_request(void **state)
{
    (void)state;
    const char *const paths[] = {first};
    struct train_request request = {.paths = paths, .n_paths = 1, .size = 2000, .min_count = 2, .keep_calculator_marks = true};
    struct outcome o;
    write_file(first, "{\"question\": \"q\", \"answer\": \"a<<mark>> b<<mark>>\\n#### c\"}\n");
    assert_ok(train_on(&request, 1, &o), &err);
    struct tokenizer *t = load(&o);
    expect_word(t, "mark", true);
    expect_word(t, "<<", true);
    tokenizer_free(t);
    outcome_free(&o);
}

static void several_files_are_one_text(void **state)
{
    (void)state;
    struct outcome o;
    write_file(first, "{\"question\": \"alpha\", \"thought\": \"beta\", \"answer\": \"gamma\"}\n");
    write_file(second, "{\"prompt\": \"beta\", \"completion\": \"alpha\"}\n{\"prompt\": \"1\", \"completion\": \"2\"}\n");
    assert_ok(train(2, "auto", 2000, 2, &o), &err);
    struct tokenizer *t = load(&o);
    expect_word(t, "alpha", true);
    expect_word(t, "beta", true);
    expect_word(t, "gamma", false); /* in one row only */
    assert_int_equal(o.report.rows, 3);
    assert_int_equal(o.report.text_bytes, 5 + 4 + 5 + 4 + 5 + 1 + 1);
    assert_int_equal(o.report.words, 7);
    assert_int_equal(o.report.different, 5);
    assert_int_equal(o.report.tokens, 1 + 1 + 5 + 1 + 1 + 1 + 1);
    assert_int_equal(o.report.learnt, 4 + 3);
    assert_int_equal(o.report.size, 262 + 7);
    assert_int_equal(tokenizer_size(t), o.report.size);
    tokenizer_free(t);
    outcome_free(&o);
}

static const char *const samples[] = {
    "", " ", "plain words", "  two  blanks  ", "line\r\nends\n\n\tand tabs\t\n", "12345 + 678 = 13023", "na\xC3\xAFve caf\xC3\xA9 e\xCC\x81",
    "\xE6\xBC\xA2\xE5\xAD\x97 \xE3\x81\x8B\xE3\x81\xAA", "\xF0\x9F\x98\x80\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7", "<think>not a tag</think>",
    "\xC2\xA0\xE3\x80\x80\xE2\x80\xA8", "\x01\x02\x7F\xC2\xAD", "we'll they'RE I'm", "\xC2\xBD \xE2\x85\xA7 \xD9\xA3\xD9\xA4",
};

static void texts_come_back(void **state)
{
    (void)state;
    struct outcome o;
    struct text rows = {0};
    for (int copy = 0; copy < 3; copy++)
        for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
            text_puts(&rows, samples[i]);
            text_puts(&rows, "\n");
        }
    write_file(first, rows.data);
    assert_ok(train(1, "text", 262, 1, &o), &err);
    assert_int_equal(o.report.learnt, 0);
    assert_int_equal(o.report.tokens, rows.size);
    struct tokenizer *t = load(&o);
    assert_int_equal(encoded(t, samples[6], strlen(samples[6])), strlen(samples[6])); /* all 256 bytes have a token */
    tokenizer_free(t);
    outcome_free(&o);
    assert_ok(train(1, "text", 600, 1, &o), &err);
    t = load(&o);
    size_t tokens = 0;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++)
        encoded(t, samples[i], strlen(samples[i]));
    for (const char *line = rows.data, *end; (end = strchr(line, '\n')); line = end + 1)
        tokens += encoded(t, line, (size_t)(end - line) + 1);
    assert_int_equal(tokens, o.report.tokens); /* an encoder makes what was counted */
    tokenizer_free(t);
    outcome_free(&o);
    text_free(&rows);
}

static void digits_stay_single(void **state)
{
    (void)state;
    struct outcome o;
    write_file(first, "2024 2024 2024 x1 x1 x1 .5 .5 .5\n");
    assert_ok(train(1, "text", 600, 1, &o), &err);
    struct tokenizer *t = load(&o);
    for (int32_t id = 262; id < tokenizer_size(t); id++) {
        size_t size;
        const char *token = tokenizer_token(t, id, &size);
        for (size_t i = 0; i < size; i++)
            assert_null(strchr("0123456789", token[i]));
    }
    tokenizer_free(t);
    outcome_free(&o);
}

/* Numbers of bytes go by the characters that stand for them, so the blank (U+0120) comes behind all letters. */
static void bytes_have_the_order_of_their_characters(void **state)
{
    (void)state;
    struct outcome o;
    write_file(first, " q\nbc\n q\nbc\n");
    assert_ok(train(1, "text", 263, 1, &o), &err);
    struct tokenizer *t = load(&o);
    expect_word(t, "bc", true);
    assert_int_equal(tokenizer_id(t, "!"), 6);
    assert_int_equal(tokenizer_id(t, "\xC4\xA0"), 6 + 188 + 32);
    tokenizer_free(t);
    outcome_free(&o);
}

static void templates_find_their_tokens(void **state)
{
    (void)state;
    struct outcome o;
    write_file(first, "<think> <think> </think> </think>\n");
    assert_ok(train(1, "text", 400, 1, &o), &err);
    struct tokenizer *t = load(&o);
    assert_ok(template_check(template_find("deepseek-r1"), t, &err), &err);
    assert_ok(template_check(template_find("plain"), t, &err), &err);
    assert_int_equal(tokenizer_bos(t), 0);
    assert_int_equal(tokenizer_eos(t), 1);
    assert_int_equal(tokenizer_id(t, "<think>"), 4); /* no join has made it a second time */
    assert_int_equal(tokenizer_id(t, "</think>"), 5);
    tokenizer_free(t);
    outcome_free(&o);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    struct text rows = {0};
    for (int i = 0; i < 1000; i++) {
        for (int w = 0; w < 12; w++)
            text_printf(&rows, " w%x", (unsigned)rng_below(7, RNG_DATA, (uint64_t)(i * 12 + w), 700));
        text_puts(&rows, "\n");
    }
    write_file(first, rows.data);
    struct outcome one, many;
    assert_ok(train(1, "text", 500, 1, &one), &err);
    for (int threads = 2; threads < 8; threads += 2) {
        assert_ok(train(1, "text", 500, threads, &many), &err);
        assert_string_equal(one.json.data, many.json.data);
        assert_string_equal(one.config.data, many.config.data);
        assert_memory_equal(&one.report, &many.report, sizeof one.report);
        outcome_free(&many);
    }
    outcome_free(&one);
    text_free(&rows);
}

static void refused(const char *format, const char *rows, int threads, const char *part)
{
    struct outcome o;
    write_file(first, rows);
    assert_refused(train(1, format, 600, threads, &o), STATUS_DATA, &err, part);
    assert_true(!o.json.size && !o.config.size);
    outcome_free(&o);
}

static void bad_rows_are_named(void **state)
{
    (void)state;
    struct outcome o;
    unlink(first);
    assert_refused(train(1, "auto", 600, 1, &o), STATUS_DATA, &err, "first'");
    refused("auto", "plain words\n", 1, "first:1");
    refused("auto", "plain words\n", 1, "the format text");
    refused("auto", "", 1, "holds no rows");
    refused("text", "", 1, "it is empty");
    refused("text", "good\nb\xFF\n", 1, "first:2:2: invalid UTF-8 (0xff)");
    refused("qa-cot", "{\"question\": \"q\", \"answer\": \"a\"}\n", 1, "first:1: format qa-cot needs");
    struct text rows = {0};
    for (int i = 1; i <= 2000; i++)
        text_printf(&rows, "{\"prompt\": \"p\", \"completion\": \"%s\"}\n", i % 300 ? "c" : "");
    refused("auto", rows.data, 1, "first:300: 'completion' is empty");
    for (int i = 0; i < 20; i++)
        refused("auto", rows.data, 4, "first:300: 'completion' is empty");
    text_free(&rows);
}

/* An arena may do without memory it only keeps in reserve, so one success does not mean that all places were tried. */
static void every_allocation_may_fail(void **state)
{
    (void)state;
    enum { QUIET = 20 };
    long failures = 0, live = mem_live();
    write_file(first, "{\"question\": \"query query\", \"answer\": \"musing<<1>> musing\\n#### reply\"}\n");
    write_file(second, "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\"}]}\n");
    for (int persistent = 0; persistent < 2; persistent++) {
        int successes = 0;
        for (long n = 0; successes < QUIET; n++) {
            struct outcome o;
            mem_fail_after(n, persistent);
            enum status st = train(2, "auto", 300, 1, &o);
            mem_fail_after(-1, false);
            assert_true(st == STATUS_OK || st == STATUS_NOMEM);
            successes = st == STATUS_OK ? successes + 1 : 0;
            failures += st == STATUS_NOMEM;
            outcome_free(&o);
            assert_true(mem_live() == live);
            assert_true(n < 5000);
        }
    }
    assert_true(failures > 60);
}

/* Merges and counts are those of Hugging Face's BpeTrainer (tokenizers 0.23.3) on the same texts. */
static void gsm8k_gives_known_merges(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        const char *merge;
    } known[] = {{0, "\xC4\xA0 t"}, {1, "h e"}, {4, "\xC4\xA0t he"}, {970, "c akes"}, {1000, "uc ks"}, {2000, "\xC4\xA0turt les"}, {3833, "\xC4\xA0" "D el"}};
    const char *path = shared_data("cot/gsm8k/train.jsonl");
    if (!path)
        skip();
    struct train_request request = {.paths = &path, .n_paths = 1, .size = 4096, .min_count = 2};
    struct outcome o;
    assert_ok(train_on(&request, 2, &o), &err);
    assert_int_equal(o.report.rows, 7473);
    assert_int_equal(o.report.text_bytes, 3559819);
    assert_int_equal(o.report.size, 4096);
    assert_int_equal(o.report.tokens, 1177072);
    struct json *root;
    assert_ok(json_parse(o.json.data, o.json.size, "trained", &root, &err), &err);
    const struct json *merges = json_member(json_member(root, "model"), "merges");
    assert_int_equal(json_count(merges), 3834);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_string_equal(json_to_string(json_at(merges, known[i].at), NULL), known[i].merge);
    json_free(root);
    outcome_free(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_texts_of_rows_are_read),
        cmocka_unit_test(marks_are_kept_on_request),
        cmocka_unit_test(several_files_are_one_text),
        cmocka_unit_test(texts_come_back),
        cmocka_unit_test(digits_stay_single),
        cmocka_unit_test(bytes_have_the_order_of_their_characters),
        cmocka_unit_test(templates_find_their_tokens),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(bad_rows_are_named),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(gsm8k_gives_known_merges),
    };
    long live = mem_live();
    int failed = cmocka_run_group_tests(tests, open_folder, close_folder);
    return failed || mem_live() != live;
}
