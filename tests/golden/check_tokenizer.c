/* Ids and texts against the public tokenizers' own: every string of every vector file there is. Prints the counts. */
#include "tests/support/cmocka_all.h"

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/text.h"
#include "worker/data/tokenizer.h"

#define DATA "../shared/data/"

struct count {
    int checked, wrong, round_trips, changed;
};

static struct tokenizer *open_tokenizer(const char *folder)
{
    struct tokenizer *t = NULL;
    struct error err;
    char path[512];
    snprintf(path, sizeof path, DATA "%s", folder);
    assert_ok(tokenizer_load(path, &t, &err), &err);
    return t;
}

static void print_ids(const char *title, const int32_t *ids, size_t count)
{
    print_message("  %s:", title);
    for (size_t i = 0; i < count && i < 40; i++)
        print_message(" %d", ids[i]);
    print_message("\n");
}

static void check_ids(const struct tokenizer *t, const char *text, size_t size, unsigned flags, const int32_t *wanted,
                      size_t n_wanted, struct count *count)
{
    struct token_list ids = {0};
    struct error err;
    assert_ok(tokenizer_encode(t, text, size, flags, &ids, &err), &err);
    count->checked++;
    if (ids.count != n_wanted || (n_wanted && memcmp(ids.ids, wanted, n_wanted * sizeof *wanted))) {
        if (count->wrong++ < 3) {
            print_message("  text: %.*s\n", size < 300 ? (int)size : 300, text);
            print_ids("wanted", wanted, n_wanted);
            print_ids("found", ids.ids, ids.count);
        }
    }
    token_list_free(&ids);
}

/* Decoding at once and as a stream must agree; whether the text comes back is counted. */
static void check_round_trip(const struct tokenizer *t, const char *text, size_t size, const int32_t *ids, size_t n,
                             struct count *count)
{
    struct text whole = {0}, streamed = {0};
    struct tokenizer_stream stream;
    struct error err;
    assert_ok(tokenizer_decode(t, ids, n, false, &whole, &err), &err);
    assert_ok(tokenizer_stream_init(&stream, t, false, &err), &err);
    for (size_t i = 0; i < n; i++)
        assert_ok(tokenizer_stream_push(&stream, ids[i], &streamed, &err), &err);
    assert_ok(tokenizer_stream_finish(&stream, &streamed, &err), &err);
    tokenizer_stream_free(&stream);
    assert_int_equal(whole.size, streamed.size);
    if (whole.size)
        assert_memory_equal(whole.data, streamed.data, whole.size);
    bool same = whole.size == size && (!size || !memcmp(whole.data, text, size));
    count->round_trips += same;
    count->changed += !same;
    text_free(&whole);
    text_free(&streamed);
}

static int32_t *read_ids(const struct json *list, size_t *n)
{
    *n = json_count(list);
    int32_t *ids = mem_alloc(*n, sizeof *ids);
    for (size_t i = 0; i < *n; i++)
        ids[i] = (int32_t)json_to_int(json_at(list, i));
    return ids;
}

static struct json *next_line(FILE *file, char **line, size_t *capacity)
{
    struct json *json = NULL;
    struct error err;
    ssize_t size = getline(line, capacity, file);
    if (size > 0)
        assert_ok(json_parse(*line, (size_t)size, "line", &json, &err), &err);
    return json;
}

static void report(const char *name, const struct count *count)
{
    print_message("%-44s %4d strings, %d wrong; %d come back as they were, %d do not\n", name, count->checked, count->wrong,
                  count->round_trips, count->changed);
    assert_int_equal(count->wrong, 0);
    assert_true(count->checked > 0);
}

/* Texts that the reference does not give back either: DeepSeek-Coder's 13 letters come back as U+FFFD. */
static const struct {
    const char *folder, *ids;
    int changed_most;
} rust[] = {{"tokenizers/deepseek-coder-6.7b-instruct", "deepseek-coder", 2}, {"tokenizers/qwen2.5", "qwen2.5", 0},
            {"tokenizers/gpt2", "gpt2", 0}, {"tokenizers/phi-2", "phi-2", 0}};

static void rust_vectors(void **state)
{
    (void)state;
    if (!shared_data("tokenizers/vectors-hf/texts.jsonl"))
        skip();
    for (size_t i = 0; i < sizeof rust / sizeof *rust; i++) {
        struct tokenizer *t = open_tokenizer(rust[i].folder);
        char path[512], *line[2] = {NULL, NULL};
        size_t capacity[2] = {0, 0}, n, size;
        snprintf(path, sizeof path, DATA "tokenizers/vectors-hf/%s.ids.jsonl", rust[i].ids);
        FILE *texts = fopen(DATA "tokenizers/vectors-hf/texts.jsonl", "r"), *ids = fopen(path, "r");
        assert_non_null(texts);
        assert_non_null(ids);
        struct count count = {0};
        for (struct json *text, *wanted; (text = next_line(texts, &line[0], &capacity[0])); json_free(text), json_free(wanted)) {
            wanted = next_line(ids, &line[1], &capacity[1]);
            const char *string = json_to_string(json_member(text, "text"), &size);
            int32_t *list = read_ids(json_member(wanted, "ids"), &n);
            assert_int_equal(n, json_to_int(json_member(wanted, "n")));
            check_ids(t, string, size, TOKENIZE_ADDED, list, n, &count);
            check_round_trip(t, string, size, list, n, &count);
            mem_free(list);
        }
        free(line[0]);
        free(line[1]);
        fclose(texts);
        fclose(ids);
        report(path + strlen(DATA), &count);
        assert_true(count.changed <= rust[i].changed_most);
        tokenizer_free(t);
    }
}

static const struct {
    const char *folder, *key;
    int changed;
} javascript[] = {{"tokenizers/deepseek-coder-6.7b-instruct", "Xenova/deepseek-coder-1.3b-instruct", 0},
                  {"tokenizers/gpt2", "Xenova/gpt2", 1}}; /* one table entry has the blank before "!!" tidied away */

/* These tables hold the ids with what the tokenizer adds, and the decoded text. */
static void javascript_vectors(void **state)
{
    (void)state;
    const char *path = shared_data("tokenizers/vectors-hf/transformersjs.json");
    struct json *root;
    struct error err;
    if (!path)
        skip();
    assert_ok(json_read_file(path, &root, &err), &err);
    for (size_t i = 0; i < sizeof javascript / sizeof *javascript; i++) {
        struct tokenizer *t = open_tokenizer(javascript[i].folder);
        const struct json *cases = json_member(root, javascript[i].key);
        struct count count = {0};
        for (size_t c = 0; c < json_count(cases); c++) {
            size_t n, size, decoded_size;
            const char *text = json_to_string(json_member(json_at(cases, c), "text"), &size);
            const char *decoded = json_to_string(json_member(json_at(cases, c), "decoded"), &decoded_size);
            int32_t *list = read_ids(json_member(json_at(cases, c), "ids"), &n);
            check_ids(t, text, size, TOKENIZE_ADDED | TOKENIZE_SPECIALS, list, n, &count);
            check_round_trip(t, decoded, decoded_size, list, n, &count);
            mem_free(list);
        }
        report(javascript[i].key, &count);
        assert_int_equal(count.changed, javascript[i].changed);
        tokenizer_free(t);
    }
    json_free(root);
}

static const struct {
    const char *folder, *name;
} llama_cpp[] = {{"tokenizers/deepseek-coder-6.7b-instruct", "deepseek-coder"}, {"tokenizers/gpt2", "gpt-2"}};

/* Strings parted by a line of their own, ids one line a string, without BOS. */
static void llama_cpp_vectors(void **state)
{
    (void)state;
    static const char mark[] = "\n__ggml_vocab_test__\n";
    if (!shared_data("tokenizers/vectors-llamacpp/ggml-vocab-gpt-2.gguf.inp"))
        skip();
    for (size_t i = 0; i < sizeof llama_cpp / sizeof *llama_cpp; i++) {
        struct tokenizer *t = open_tokenizer(llama_cpp[i].folder);
        char path[512], *texts, *lines, *line;
        size_t size;
        struct error err;
        struct count count = {0};
        snprintf(path, sizeof path, DATA "tokenizers/vectors-llamacpp/ggml-vocab-%s.gguf.inp", llama_cpp[i].name);
        assert_ok(file_read(path, &texts, &size, &err), &err);
        strcpy(strrchr(path, '.'), ".out");
        assert_ok(file_read(path, &lines, &size, &err), &err);
        line = lines;
        for (char *text = texts, *end; text; text = end ? end + strlen(mark) : NULL) {
            int32_t wanted[4096];
            size_t n = 0;
            char *next;
            end = strstr(text, mark);
            for (long id = strtol(line, &next, 10); next != line && !memchr(line, '\n', (size_t)(next - line)); id = strtol(line, &next, 10)) {
                wanted[n++] = (int32_t)id;
                line = next;
            }
            line = strchr(line, '\n') ? strchr(line, '\n') + 1 : line;
            size_t length = end ? (size_t)(end - text) : strlen(text);
            check_ids(t, text, length, TOKENIZE_ADDED, wanted, n, &count);
            check_round_trip(t, text, length, wanted, n, &count);
        }
        report(path + strlen(DATA), &count);
        mem_free(texts);
        mem_free(lines);
        tokenizer_free(t);
    }
}

static void stories_prompts(void **state)
{
    (void)state;
    const char *path = shared_data("models/stories260K-hf/prompts.json");
    struct json *root;
    struct error err;
    struct count count = {0};
    if (!path)
        skip();
    assert_ok(json_read_file(path, &root, &err), &err);
    struct tokenizer *t = open_tokenizer("models/stories260K-hf");
    for (size_t i = 0; i < json_count(root); i++) {
        size_t n, size;
        const char *text = json_to_string(json_member(json_at(root, i), "text"), &size);
        int32_t *list = read_ids(json_member(json_at(root, i), "ids"), &n);
        check_ids(t, text, size, TOKENIZE_ADDED | TOKENIZE_SPECIALS, list, n, &count);
        check_round_trip(t, text, size, list + 1, n - 1, &count);
        mem_free(list);
    }
    report("models/stories260K-hf/prompts.json", &count);
    assert_int_equal(count.changed, 0);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    tokenizer_free(t);
    json_free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rust_vectors), cmocka_unit_test(javascript_vectors),
                                       cmocka_unit_test(llama_cpp_vectors), cmocka_unit_test(stories_prompts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
