/* Learning merges from counted words: worked out by hand, and against the plainest trainer there is. */
#include "tests/support/cmocka_all.h"

#include "common/memory.h"
#include "worker/data/tokenizer/learn.h"

static struct error err;

struct count {
    const char *word;
    int64_t count;
};

static void put_words(struct word_table *words, const struct count *list)
{
    for (; list->word; list++)
        assert_ok(word_table_add(words, list->word, strlen(list->word), list->count, NULL, &err), &err);
}

static void plain_alphabet(unsigned char alphabet[BYTE_TOKENS])
{
    for (int i = 0; i < BYTE_TOKENS; i++)
        alphabet[i] = (unsigned char)i;
}

/* Merges as "a b|ab c". */
static void print_merges(const struct vocabulary *v, struct text *out)
{
    for (size_t i = 0; i < v->n_merges; i++) {
        const int32_t parts[] = {v->merges[i].left, v->merges[i].right};
        for (int p = 0; p < 2; p++) {
            text_puts(out, p ? " " : i ? "|" : "");
            text_append(out, word_table_bytes(&v->tokens, (size_t)parts[p]), v->tokens.words[parts[p]].size);
        }
    }
    text_puts(out, "");
}

struct learnt {
    int64_t symbols, last_count;
};

/* first: a byte that comes in front of all others in the alphabet, or 0. */
static struct learnt learn(const struct count *list, char first, int32_t joins, int64_t min_count, const char *wanted)
{
    struct word_table words = {0};
    struct vocabulary v;
    struct text found = {0};
    unsigned char alphabet[BYTE_TOKENS];
    plain_alphabet(alphabet);
    alphabet[0] = (unsigned char)first;
    alphabet[(unsigned char)first] = 0;
    put_words(&words, list);
    assert_ok(vocabulary_learn(&words, alphabet, BYTE_TOKENS + joins, min_count, &v, &err), &err);
    print_merges(&v, &found);
    assert_string_equal(found.data, wanted);
    assert_int_equal(v.tokens.count, BYTE_TOKENS + v.n_merges);
    struct learnt learnt = {v.symbols, v.last_count};
    text_free(&found);
    word_table_free(&words);
    vocabulary_free(&v);
    return learnt;
}

static void words_are_counted(void **state)
{
    (void)state;
    struct word_table words = {0}, more = {0};
    int32_t index;
    char name[16];
    for (int i = 0; i < 3000; i++) {
        int size = snprintf(name, sizeof name, "w%d", i % 1500);
        assert_ok(word_table_add(&words, name, (size_t)size, i, &index, &err), &err);
        assert_int_equal(index, i % 1500);
    }
    assert_ok(word_table_add(&more, "w7\0x", 4, 5, NULL, &err), &err);
    assert_ok(word_table_add(&more, "w7", 2, 10, NULL, &err), &err);
    assert_ok(word_table_join(&words, &more, &err), &err);
    assert_int_equal(words.count, 1501);
    assert_int_equal(words.words[7].count, 7 + 1507 + 10);
    assert_int_equal(words.words[1500].count, 5);
    assert_memory_equal(word_table_bytes(&words, 1500), "w7\0x", 4);
    word_table_free(&words);
    word_table_free(&more);
}

/* u g 20, u n 16, h ug 15 (the ug of pug stays), p un 12; then p ug and hug s both come 5 times. */
static const struct count hugs[] = {{"hug", 10}, {"pug", 5}, {"pun", 12}, {"bun", 4}, {"hugs", 5}, {NULL, 0}};

static void the_most_frequent_pair_is_joined(void **state)
{
    (void)state;
    struct learnt learnt = learn(hugs, 0, 3, 2, "u g|u n|h ug");
    assert_int_equal(learnt.last_count, 15);
    assert_int_equal(learnt.symbols, 10 + 2 * 5 + 2 * 12 + 2 * 4 + 2 * 5);
    learn(hugs, 0, 0, 2, "");
    assert_int_equal(learn(hugs, 0, 6, 2, "u g|u n|h ug|p un|p ug|hug s").last_count, 5);
    assert_int_equal(learn(hugs, 0, 1000, 2, "u g|u n|h ug|p un|p ug|hug s|b un").symbols, 36);
}

static void rare_pairs_are_left_alone(void **state)
{
    (void)state;
    assert_int_equal(learn(hugs, 0, 1000, 5, "u g|u n|h ug|p un|p ug|hug s").last_count, 5);
    assert_int_equal(learn(hugs, 0, 1000, 6, "u g|u n|h ug|p un").last_count, 12);
    learn(hugs, 0, 1000, 21, "");
    const struct count once[] = {{"xyz", 1}, {NULL, 0}};
    learn(once, 0, 1000, 2, "");
    learn(once, 0, 1000, 1, "x y|xy z");
}

static void ties_go_to_smaller_numbers(void **state)
{
    (void)state;
    const struct count even[] = {{"ba", 3}, {"ab", 3}, {"aa", 3}, {"bb", 3}, {NULL, 0}};
    learn(even, 0, 4, 2, "a a|a b|b a|b b");
    learn(even, 'b', 4, 2, "b b|b a|a b|a a");
    /* A byte comes before what was joined, and the older join before the newer one. */
    const struct count mixed[] = {{"cdx", 9}, {"efx", 8}, {"zx", 7}, {"zef", 7}, {NULL, 0}};
    learn(mixed, 0, 6, 2, "e f|c d|cd x|ef x|z x|z ef");
}

/* aaaaa: a a stands at four places, of which two can be joined: aa aa a. */
static void runs_are_joined_from_their_start(void **state)
{
    (void)state;
    const struct count five[] = {{"aaaaa", 2}, {NULL, 0}};
    assert_int_equal(learn(five, 0, 1, 2, "a a").last_count, 8);
    assert_int_equal(learn(five, 0, 1, 2, "a a").symbols, 6);
    assert_int_equal(learn(five, 0, 9, 2, "a a|aa a|aa aaa").symbols, 2);
    const struct count long_run[] = {{"xaaaaaaaax", 1}, {NULL, 0}};
    learn(long_run, 0, 4, 1, "a a|aa aa|x aaaa|aaaa x");
}

static void bytes_of_characters_are_joined(void **state)
{
    (void)state;
    const struct count accents[] = {{"\xC3\xA9", 2}, {"\xC3\xA8", 3}, {"\xE2\x82\xAC", 2}, {NULL, 0}};
    learn(accents, 0, 9, 2, "\xC3 \xA8|\x82 \xAC|\xC3 \xA9|\xE2 \x82\xAC");
}

static void nothing_gives_bytes(void **state)
{
    (void)state;
    const struct count none[] = {{NULL, 0}}, single[] = {{"a", 100}, {"b", 50}, {NULL, 0}};
    struct learnt learnt = learn(none, 0, 1000, 1, "");
    assert_true(learnt.symbols == 0 && learnt.last_count == 0);
    assert_int_equal(learn(single, 0, 1000, 1, "").symbols, 150);
}

/* The plainest trainer: counts all pairs anew for every join. */
enum { WORDS = 40, LENGTH = 12 };
struct plain_word {
    int32_t symbols[LENGTH];
    int size;
    int64_t count;
};

static int64_t plain_count(const struct plain_word *words, struct token_pair pair)
{
    int64_t sum = 0;
    for (int w = 0; w < WORDS; w++)
        for (int i = 0; i + 1 < words[w].size; i++)
            sum += words[w].symbols[i] == pair.left && words[w].symbols[i + 1] == pair.right ? words[w].count : 0;
    return sum;
}

static int64_t plain_best(const struct plain_word *words, struct token_pair *best)
{
    int64_t most = 0;
    for (int w = 0; w < WORDS; w++)
        for (int i = 0; i + 1 < words[w].size; i++) {
            struct token_pair pair = {words[w].symbols[i], words[w].symbols[i + 1]};
            int64_t count = plain_count(words, pair);
            bool smaller = pair.left < best->left || (pair.left == best->left && pair.right < best->right);
            if (count > most || (count == most && smaller)) {
                most = count;
                *best = pair;
            }
        }
    return most;
}

static void plain_join(struct plain_word *word, struct token_pair pair, int32_t joined)
{
    int n = 0;
    for (int i = 0; i < word->size; i++) {
        bool meets = i + 1 < word->size && word->symbols[i] == pair.left && word->symbols[i + 1] == pair.right;
        word->symbols[n++] = meets ? joined : word->symbols[i];
        i += meets;
    }
    word->size = n;
}

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void compare_with_plain(uint32_t seed, int letters, int64_t min_count)
{
    struct plain_word plain[WORDS] = {0};
    struct word_table words = {0};
    struct vocabulary v;
    unsigned char alphabet[BYTE_TOKENS];
    plain_alphabet(alphabet);
    for (int w = 0; w < WORDS; w++) {
        char text[LENGTH];
        int32_t index;
        int size = 1 + (int)(next_random(&seed) % LENGTH);
        for (int i = 0; i < size; i++)
            text[i] = (char)('a' + next_random(&seed) % (uint32_t)letters);
        int64_t count = 1 + next_random(&seed) % 4;
        assert_ok(word_table_add(&words, text, (size_t)size, count, &index, &err), &err);
        plain[index].count += count;
        plain[index].size = size;
        for (int i = 0; i < size; i++)
            plain[index].symbols[i] = text[i];
    }
    assert_ok(vocabulary_learn(&words, alphabet, BYTE_TOKENS + 60, min_count, &v, &err), &err);
    size_t merges = 0;
    for (struct token_pair best = {0}; merges < 60; merges++) {
        int64_t count = plain_best(plain, &best);
        if (!count || count < min_count)
            break;
        assert_true(merges < v.n_merges);
        assert_int_equal(v.merges[merges].left, best.left);
        assert_int_equal(v.merges[merges].right, best.right);
        for (int w = 0; w < WORDS; w++)
            plain_join(&plain[w], best, BYTE_TOKENS + (int32_t)merges);
    }
    int64_t symbols = 0;
    for (int w = 0; w < WORDS; w++)
        symbols += plain[w].size * plain[w].count;
    assert_int_equal(v.n_merges, merges);
    assert_int_equal(v.symbols, symbols);
    word_table_free(&words);
    vocabulary_free(&v);
}

static void same_merges_as_the_plain_trainer(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 200; seed++)
        compare_with_plain(seed, 1 + (int)(seed % 5), 1 + (int64_t)(seed % 3));
}

static void learning_may_run_out_of_memory(void **state)
{
    (void)state;
    struct word_table words = {0};
    struct vocabulary v, empty = {0};
    unsigned char alphabet[BYTE_TOKENS];
    plain_alphabet(alphabet);
    put_words(&words, hugs);
    long live = mem_live(), n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK; n++) {
        mem_fail_after(n, false);
        st = vocabulary_learn(&words, alphabet, 300, 1, &v, &err);
        mem_fail_after(-1, false);
        assert_true(st == STATUS_OK || st == STATUS_NOMEM);
        if (st == STATUS_NOMEM)
            assert_memory_equal(&v, &empty, sizeof v);
        else
            vocabulary_free(&v);
        assert_true(mem_live() == live);
    }
    assert_true(n > 10);
    word_table_free(&words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_counted),
        cmocka_unit_test(the_most_frequent_pair_is_joined),
        cmocka_unit_test(rare_pairs_are_left_alone),
        cmocka_unit_test(ties_go_to_smaller_numbers),
        cmocka_unit_test(runs_are_joined_from_their_start),
        cmocka_unit_test(bytes_of_characters_are_joined),
        cmocka_unit_test(nothing_gives_bytes),
        cmocka_unit_test(same_merges_as_the_plain_trainer),
        cmocka_unit_test(learning_may_run_out_of_memory),
    };
    long live = mem_live();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed || mem_live() != live;
}
