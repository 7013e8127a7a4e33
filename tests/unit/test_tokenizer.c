/* Every component of a tokenizer.json by small examples whose outcome was worked out by hand from the reference's rules. */
#include "tests/support/cmocka_all.h"

#include <pthread.h>

#include "common/files.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/text.h"
#include "worker/data/tokenizer.h"

/* A tokenizer with one id per listed word, without merges unless given. Its words are pre-tokens where `ignore_merges` is on,
 * so ids show how text was cut. Each `'` stands for a double quote. */
static struct tokenizer *make(const char *vocab, const char *rest)
{
    struct text json = {0};
    struct tokenizer *t = NULL;
    struct error err;
    text_puts(&json, "{'model': {'type': 'BPE', 'ignore_merges': true, 'unk_token': '?', 'vocab': {'?': 0");
    int id = 1;
    for (const char *word = vocab; *word; id++) {
        size_t size = strcspn(word, "|");
        text_printf(&json, ", '%.*s': %d", (int)size, word, id);
        word += size + (word[size] == '|');
    }
    text_printf(&json, "}, 'merges': []}, %s}", rest);
    for (size_t i = 0; i < json.size; i++)
        if (json.data[i] == '\'')
            json.data[i] = '"';
    assert_ok(tokenizer_load_text(json.data, json.size, NULL, 0, "test.json", &t, &err), &err);
    text_free(&json);
    return t;
}

/* The spellings of the ids with `|` between. */
static void expect_cut(const struct tokenizer *t, const char *text, unsigned flags, const char *wanted)
{
    struct token_list ids = {0};
    struct text found = {0};
    struct error err;
    size_t size;
    assert_ok(tokenizer_encode(t, text, strlen(text), flags, &ids, &err), &err);
    for (size_t i = 0; i < ids.count; i++) {
        const char *name = tokenizer_token(t, ids.ids[i], &size);
        text_puts(&found, i ? "|" : "");
        text_append(&found, name, size);
    }
    assert_string_equal(found.data ? found.data : "", wanted);
    text_free(&found);
    token_list_free(&ids);
}

static void cut(const char *vocab, const char *rest, const char *text, const char *wanted)
{
    struct tokenizer *t = make(vocab, rest);
    expect_cut(t, text, TOKENIZE_ADDED, wanted);
    tokenizer_free(t);
}

#define SPLIT(pattern, behavior, invert) \
    "'pre_tokenizer': {'type': 'Split', 'pattern': " pattern ", 'behavior': '" behavior "', 'invert': " invert "}"

static void splits_behave(void **state)
{
    (void)state;
    const char *v = "the|-|final|--|countdown|the-|final-|-final|-countdown|-the";
    cut(v, SPLIT("{'String': '-'}", "Isolated", "false"), "the-final--countdown", "the|-|final|-|-|countdown");
    cut(v, SPLIT("{'String': '-'}", "Removed", "false"), "the-final--countdown", "the|final|countdown");
    cut(v, SPLIT("{'String': '-'}", "MergedWithPrevious", "false"), "the-final--countdown", "the-|final-|-|countdown");
    cut(v, SPLIT("{'String': '-'}", "MergedWithNext", "false"), "the-final--countdown", "the|-final|-|-countdown");
    cut(v, SPLIT("{'String': '-'}", "Contiguous", "false"), "the-final--countdown", "the|-|final|--|countdown");
    cut(v, SPLIT("{'Regex': '[a-z]+'}", "Removed", "true"), "the-final--countdown", "the|final|countdown");
    cut(v, SPLIT("{'Regex': '[a-z]+'}", "Isolated", "true"), "the-final--countdown", "the|-|final|--|countdown");
    cut("a|b|1|12|ab", "'pre_tokenizer': {'type': 'Digits', 'individual_digits': true}", "ab12b", "ab|1|?|b");
    cut("a|b|1|12|ab", "'pre_tokenizer': {'type': 'Digits', 'individual_digits': false}", "ab12b", "ab|12|b");
    cut("a|\xC2\xBD|\xD9\xA3|\xE2\x85\xA3|\xE2\x91\xA0", "'pre_tokenizer': {'type': 'Digits', 'individual_digits': true}",
        "a\xC2\xBD\xD9\xA3\xE2\x85\xA3\xE2\x91\xA0" "a", "a|\xC2\xBD|\xD9\xA3|\xE2\x85\xA3|\xE2\x91\xA0|a");
    cut("a|$|!|,|\xE3\x80\x82", "'pre_tokenizer': {'type': 'Punctuation'}", "a$!,a\xE3\x80\x82", "a|$|!|,|a|\xE3\x80\x82");
    cut("a|$!,|\xE3\x80\x82", "'pre_tokenizer': {'type': 'Punctuation', 'behavior': 'Contiguous'}", "a$!,a\xE3\x80\x82",
        "a|$!,|a|\xE3\x80\x82");
}

/* Oniguruma's meaning where PCRE2's own would differ. */
static void expressions_mean_what_oniguruma_means(void **state)
{
    (void)state;
    const char *s = SPLIT("{'Regex': '\\\\s+'}", "Removed", "false");
    cut("a|b|c", s, "a\xC2\x85" "b\xE3\x80\x80\xC2\xA0" "c", "a|b|c");       /* U+0085, U+3000, U+00A0 are blanks */
    cut("a\xE1\xA0\x8E" "b|a\xE2\x80\x8B" "b", s, "a\xE1\xA0\x8E" "b a\xE2\x80\x8B" "b", "a\xE1\xA0\x8E" "b|a\xE2\x80\x8B" "b"); /* U+180E, U+200B are not */
    cut("a|b", SPLIT("{'Regex': '[^\\\\S]'}", "Removed", "false"), "a b", "a|b");
    cut("a |b|a", SPLIT("{'Regex': '\\\\s+$'}", "Isolated", "false"), "a b", "a|?|b"); /* no blank at the end of a line */
    cut("a| |b", SPLIT("{'Regex': '[ab]'}", "Isolated", "false"), "a b", "a| |b");
    cut("a| |b|a \\nb", SPLIT("{'Regex': ' +$'}", "Isolated", "false"), "a \nb", "a| |?|b"); /* $ holds before a line's end */
    cut("\xE6\xBC\xA2|\xE3\x83\xBC", SPLIT("{'Regex': '\\\\p{Han}'}", "Isolated", "false"), "\xE6\xBC\xA2\xE3\x83\xBC", "\xE6\xBC\xA2|\xE3\x83\xBC");
    cut("b\xC2\xB2|!|\xC2\xB7", SPLIT("{'Regex': '\\\\w+'}", "Isolated", "false"), "!b\xC2\xB2\xC2\xB7", "!|b\xC2\xB2|\xC2\xB7"); /* squared is a word's, a middle dot is not */
    cut("S|b", SPLIT("{'Regex': '(?i:s)'}", "Isolated", "false"), "bSb", "b|S|b");
}

static void byte_level_and_metaspace(void **state)
{
    (void)state;
    struct tokenizer *t = make("I|\xC4\xA0love|love|\xC4\xA0|\xC4\x8A|\xC4\xA0I|\xC4\xA0\xC4\xA0", "'pre_tokenizer': {'type': 'ByteLevel', 'add_prefix_space': false}, 'decoder': {'type': 'ByteLevel'}");
    expect_cut(t, "I love  love\n", 0, "I|\xC4\xA0love|\xC4\xA0|\xC4\xA0love|\xC4\x8A");
    tokenizer_free(t);
    cut("\xC4\xA0I|I", "'pre_tokenizer': {'type': 'ByteLevel'}", "I", "\xC4\xA0I");
    cut("\xC4\xA0I|I", "'pre_tokenizer': {'type': 'ByteLevel'}", " I", "\xC4\xA0I");
    /* A split behind ByteLevel sees the mapped characters. */
    cut("a|\xC4\xA0|b", "'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [{'type': 'ByteLevel', 'add_prefix_space': false,"
        " 'use_regex': false}, {'type': 'Split', 'pattern': {'String': '\xC4\xA0'}, 'behavior': 'Isolated', 'invert': false}]}",
        "a b", "a|\xC4\xA0|b");
    const char *words = "\xE2\x96\x81Hey|\xE2\x96\x81you|Hey|you|\xE2\x96\x81|\xE2\x96\x81Hey\xE2\x96\x81you";
    cut(words, "'pre_tokenizer': {'type': 'Metaspace', 'replacement': '\xE2\x96\x81', 'prepend_scheme': 'always', 'split': true}",
        "Hey  you", "\xE2\x96\x81Hey|\xE2\x96\x81|\xE2\x96\x81you");
    cut(words, "'pre_tokenizer': {'type': 'Metaspace', 'replacement': '\xE2\x96\x81', 'prepend_scheme': 'never', 'split': true}",
        "Hey you", "Hey|\xE2\x96\x81you");
    cut(words, "'pre_tokenizer': {'type': 'Metaspace', 'replacement': '\xE2\x96\x81', 'prepend_scheme': 'first', 'split': false}",
        "Hey you", "\xE2\x96\x81Hey\xE2\x96\x81you");
    cut("\xE2\x96\x81Hey|Hey|<x>", "'added_tokens': [{'id': 3, 'content': '<x>', 'normalized': false}], 'pre_tokenizer': {'type':"
        " 'Metaspace', 'replacement': '\xE2\x96\x81', 'prepend_scheme': 'first', 'split': true}", "Hey<x>Hey", "\xE2\x96\x81Hey|<x>|Hey");
}

static void normalizers(void **state)
{
    (void)state;
    cut("\xC3\xA9", "'normalizer': {'type': 'NFC'}", "e\xCC\x81", "\xC3\xA9");
    cut("e\xCC\x81|\xC3\xA9", "'normalizer': {'type': 'NFD'}", "\xC3\xA9", "e\xCC\x81");
    cut("fi", "'normalizer': {'type': 'NFKC'}", "\xEF\xAC\x81", "fi");
    cut("\xE1\x84\x80\xE1\x85\xA1", "'normalizer': {'type': 'NFKD'}", "\xEA\xB0\x80", "\xE1\x84\x80\xE1\x85\xA1");
    cut("\xEA\xB0\x80", "'normalizer': {'type': 'NFC'}", "\xE1\x84\x80\xE1\x85\xA1", "\xEA\xB0\x80");
    cut("stra\xC3\x9F" "e \xC3\xA4i\xCC\x87", "'normalizer': {'type': 'Lowercase'}", "STRA\xC3\x9F" "E \xC3\x84\xC4\xB0", "stra\xC3\x9F" "e \xC3\xA4i\xCC\x87");
    cut("x", "'normalizer': {'type': 'Strip', 'strip_left': true, 'strip_right': true}", " \n\xE3\x80\x80x\t ", "x");
    cut("\xE2\x96\x81" "a\xE2\x96\x81" "b", "'normalizer': {'type': 'Sequence', 'normalizers': [{'type': 'Prepend', 'prepend': '\xE2\x96\x81'},"
        " {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '\xE2\x96\x81'}]}", "a b", "\xE2\x96\x81" "a\xE2\x96\x81" "b");
    cut("a.b", "'normalizer': {'type': 'Replace', 'pattern': {'Regex': ' {2,}'}, 'content': '.'}", "a   b", "a.b");
}

#define ADDED(id, content, more) "{'id': " id ", 'content': '" content "', " more "}"

static void added_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = make("a|b| |x|in", "'added_tokens': [" ADDED("10", "<x>", "'special': true, 'normalized': false") ","
        ADDED("11", "<xy>", "'normalized': false") "," ADDED("12", "in", "'single_word': true") ","
        ADDED("13", "<l>", "'lstrip': true, 'normalized': false") "," ADDED("14", "<r>", "'rstrip': true, 'normalized': false") ","
        ADDED("15", "\xC3\x80", "'normalized': true, 'special': false") "]");
    expect_cut(t, "a<x>b<xy>", TOKENIZE_ADDED, "a|<x>|b|<xy>");
    expect_cut(t, "<x<xy>", TOKENIZE_ADDED, "?|x|<xy>");
    expect_cut(t, "in bin in", TOKENIZE_ADDED, "in| |b|?|?| |in");
    expect_cut(t, "a <l>a", TOKENIZE_ADDED, "a|<l>|a");
    expect_cut(t, "a<r>  a", TOKENIZE_ADDED, "a|<r>|a");
    expect_cut(t, "a\xC3\x80", TOKENIZE_ADDED, "a|\xC3\x80");
    expect_cut(t, "a\xC3\x80", 0, "a|\xC3\x80"); /* plain: matched in text of users too */
    expect_cut(t, "<x>", 0, "?|x|?");           /* control: never */
    expect_cut(t, "<l>", 0, "?|?|?");
    assert_true(tokenizer_has_special(t, "b<xy>", 5));
    assert_false(tokenizer_has_special(t, "a\xC3\x80", 3));
    assert_int_equal(tokenizer_size(t), 16);
    assert_int_equal(tokenizer_id(t, "<xy>"), 11);
    assert_int_equal(tokenizer_id(t, "nothing"), -1);
    tokenizer_free(t);
    /* What is matched after normalization is normalized itself. */
    cut("a", "'normalizer': {'type': 'Lowercase'}, 'added_tokens': [" ADDED("5", "YES", "'normalized': true") "]", "aYesa", "a|YES|a");
    cut("a|yes", "'normalizer': {'type': 'Lowercase'}, 'added_tokens': [" ADDED("5", "YES", "'normalized': false") "]", "aYESa", "a|YES|a");
}

static struct tokenizer *load(const char *json, const char *config, struct error *err)
{
    struct tokenizer *t = NULL;
    tokenizer_load_text(json, strlen(json), config, config ? strlen(config) : 0, "t.json", &t, err);
    return t;
}

/* Vocabulary of the letters and merges with ranks: ties go left, a pair that appears again keeps its rank. */
/* A listed token that is in the vocabulary, too, has the vocabulary's id. */
static void added_tokens_take_the_vocabulary_s_id(void **state)
{
    (void)state;
    struct tokenizer *t = make("a|<x>", "'added_tokens': [{'id': 7, 'content': '<x>', 'normalized': false}]");
    expect_cut(t, "a<x>", TOKENIZE_ADDED, "a|<x>");
    assert_int_equal(tokenizer_id(t, "<x>"), 2);
    assert_int_equal(tokenizer_size(t), 3);
    tokenizer_free(t);
}

static void merges_by_rank(void **state)
{
    (void)state;
    struct error err = {0};
    struct tokenizer *t = load("{\"model\": {\"vocab\": {\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4,\"aa\":5,\"abc\":6,\"aab\":7},"
                               "\"merges\": [\"b c\", [\"a\", \"a\"], \"a b\", \"a bc\", \"aa b\"]}}", NULL, &err);
    assert_non_null(t);
    expect_cut(t, "abc", 0, "abc");
    expect_cut(t, "aaa", 0, "aa|a");
    expect_cut(t, "aaab", 0, "aa|ab");
    expect_cut(t, "aab", 0, "aab");
    expect_cut(t, "aabcabab", 0, "aa|bc|ab|ab");
    expect_cut(t, "axb", 0, "ab"); /* unknown without unk_token: vanishes before anything merges */
    tokenizer_free(t);
}

static void unknown_characters(void **state)
{
    (void)state;
    struct error err = {0};
    struct tokenizer *t = load("{\"model\": {\"vocab\": {\"?\":0,\"a\":1,\"<0xC3>\":2,\"<0xA9>\":3}, \"merges\": [], \"unk_token\": \"?\","
                               "\"fuse_unk\": true, \"byte_fallback\": true}, \"decoder\": {\"type\": \"Sequence\", \"decoders\":"
                               "[{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}}", NULL, &err);
    assert_non_null(t);
    expect_cut(t, "a\xC3\xA9" "a", 0, "a|<0xC3>|<0xA9>|a");
    expect_cut(t, "xyaz", 0, "?|a|?");
    struct text out = {0};
    const int32_t ids[] = {1, 2, 3, 1, 3, 2, 1, 2};
    assert_ok(tokenizer_decode(t, ids, 8, false, &out, &err), &err);
    assert_string_equal(out.data, "a\xC3\xA9" "a\xEF\xBF\xBD\xEF\xBF\xBD" "a\xEF\xBF\xBD");
    text_free(&out);
    tokenizer_free(t);
}

static void decode_text(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip, const char *wanted)
{
    struct text out = {0};
    struct error err;
    assert_ok(tokenizer_decode(t, ids, n, skip, &out, &err), &err);
    assert_string_equal(out.data ? out.data : "", wanted);
    text_free(&out);
}

static void decoders(void **state)
{
    (void)state;
    struct tokenizer *t = make("\xC3\xA2\xC4\xA4|\xC2\xAC|\xC4\xA0x|\xE2\x82\xAC", /* bytes E2 82, AC, " x", a character outside */
                               "'decoder': {'type': 'ByteLevel'}, 'added_tokens': [{'id': 9, 'content': '<s>', 'special': true}]");
    decode_text(t, (const int32_t[]){1, 2, 3, 4}, 4, false, "\xE2\x82\xAC x\xE2\x82\xAC");
    decode_text(t, (const int32_t[]){9, 3, 9}, 3, false, "<s> x<s>");
    decode_text(t, (const int32_t[]){9, 3, 9, -5, 700}, 5, true, " x");
    decode_text(t, (const int32_t[]){1, 3}, 2, false, "\xEF\xBF\xBD x");
    struct tokenizer_stream s;
    struct text out = {0};
    struct error err;
    assert_ok(tokenizer_stream_init(&s, t, false, &err), &err);
    assert_ok(tokenizer_stream_push(&s, 1, &out, &err), &err);
    assert_int_equal(out.size, 0); /* held back: the character is not complete */
    assert_ok(tokenizer_stream_push(&s, 2, &out, &err), &err);
    assert_string_equal(out.data, "\xE2\x82\xAC");
    assert_ok(tokenizer_stream_push(&s, 1, &out, &err), &err);
    assert_ok(tokenizer_stream_finish(&s, &out, &err), &err);
    assert_string_equal(out.data, "\xE2\x82\xAC\xEF\xBF\xBD");
    tokenizer_stream_free(&s);
    text_free(&out);
    tokenizer_free(t);
    t = make("\xE2\x96\x81" "a|\xE2\x96\x81" "b", "'decoder': {'type': 'Metaspace', 'replacement': '\xE2\x96\x81', 'prepend_scheme': 'always'}");
    decode_text(t, (const int32_t[]){1, 2}, 2, false, "a b");
    tokenizer_free(t);
    t = make("a|b", "'decoder': null");
    decode_text(t, (const int32_t[]){1, 2}, 2, false, "a b");
    tokenizer_free(t);
    t = make("__a_|_b__", "'decoder': {'type': 'Sequence', 'decoders': [{'type': 'Fuse'}, {'type': 'Strip', 'content': '_', 'start': 1, 'stop': 1}]}");
    decode_text(t, (const int32_t[]){1, 2}, 2, false, "_a__b_");
    tokenizer_free(t);
}

static void specials_and_class(void **state)
{
    (void)state;
    static const char json[] = "{\"added_tokens\": [{\"id\": 1, \"content\": \"<s>\", \"special\": true}, {\"id\": 2, \"content\": \"</s>\","
        "\"special\": true}], \"model\": {\"vocab\": {\"a\": 0}, \"merges\": []}, \"post_processor\": {\"type\": \"TemplateProcessing\","
        "\"single\": [{\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"</s>\"}}], \"special_tokens\":"
        "{\"</s>\": {\"id\": \"</s>\", \"ids\": [2], \"tokens\": [\"</s>\"]}}}}";
    struct error err = {0};
    struct tokenizer *t = load(json, NULL, &err);
    assert_non_null(t);
    expect_cut(t, "a", TOKENIZE_SPECIALS, "a|</s>");
    expect_cut(t, "a", 0, "a");
    assert_true(tokenizer_bos(t) == 1 && tokenizer_eos(t) == 2); /* by their customary names */
    tokenizer_free(t);
    t = load(json, "{\"tokenizer_class\": \"LlamaTokenizerFast\", \"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}}", &err);
    assert_non_null(t);
    expect_cut(t, "a", TOKENIZE_SPECIALS, "<s>|a"); /* the class replaces the file's post-processor */
    tokenizer_free(t);
    t = load(json, "{\"tokenizer_class\": \"LlamaTokenizerFast\", \"add_bos_token\": false, \"add_eos_token\": true, \"eos_token\": \"</s>\","
                   "\"added_tokens_decoder\": {\"7\": {\"content\": \"<new>\", \"special\": false}}}", &err);
    assert_non_null(t);
    expect_cut(t, "a<new>", TOKENIZE_SPECIALS | TOKENIZE_ADDED, "a|<new>|</s>");
    assert_int_equal(tokenizer_size(t), 8);
    assert_int_equal(tokenizer_bos(t), -1); /* the config names none */
    tokenizer_free(t);
    t = load(json, "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"add_bos_token\": true, \"bos_token\": \"<s>\"}", &err);
    assert_non_null(t);
    expect_cut(t, "a", TOKENIZE_SPECIALS, "a|</s>");
    tokenizer_free(t);
}

static void what_is_not_supported_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *json, *part;
    } cases[] = {
        {"[]", "must be an object"},
        {"{\"model\": 1}", "no object 'model'"},
        {"{\"model\": {\"type\": \"Unigram\"}}", "model 'Unigram' is not supported"},
        {"{\"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}", "'a' must have an id from 0"},
        {"{\"model\": {\"vocab\": {\"a\": 99999999}, \"merges\": []}}", "id from 0 to"},
        {"{\"model\": {\"vocab\": {\"a\": 1}, \"merges\": [\"a a\"]}}", "merge 0 makes 'aa'"},
        {"{\"model\": {\"vocab\": {\"a\": 1}, \"merges\": [\"aa\"]}}", "merge 0 must be two tokens"},
        {"{\"model\": {\"vocab\": {\"a\": 1}, \"merges\": [], \"dropout\": 0.1}}", "'dropout' is not supported"},
        {"{\"model\": {\"vocab\": {\"a\": 1}, \"merges\": [], \"end_of_word_suffix\": \"</w>\"}}", "'end_of_word_suffix'"},
        {"{\"model\": {\"vocab\": {\"a\": 1}, \"merges\": [], \"unk_token\": \"u\"}}", "unknown token 'u'"},
#define REST "{\"model\": {\"vocab\": {\"a\": 1}, \"merges\": []}, "
        {REST "\"normalizer\": {\"type\": \"BertNormalizer\"}}", "normalizer 'BertNormalizer' is not supported"},
        {REST "\"pre_tokenizer\": {\"type\": \"Whitespace\"}}", "pre-tokenizer 'Whitespace' is not supported"},
        {REST "\"post_processor\": {\"type\": \"BertProcessing\"}}", "post-processor 'BertProcessing' is not supported"},
        {REST "\"decoder\": {\"type\": \"WordPiece\"}}", "decoder 'WordPiece' is not supported"},
        {REST "\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}, \"behavior\": \"Isolated\"}}", "expression '('"},
        {REST "\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a&&b]\"}, \"behavior\": \"Isolated\"}}", "sets inside sets"},
        {REST "\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Sideways\"}}", "'Sideways'"},
        {REST "\"pre_tokenizer\": {\"pattern\": 1}}", "has no 'type'"},
        {REST "\"added_tokens\": [{\"id\": -3, \"content\": \"x\"}]}", "'x' has id -3"},
        {REST "\"added_tokens\": {}}", "'added_tokens' must be an array"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *t = NULL;
        struct error err;
        assert_refused(tokenizer_load_text(cases[i].json, strlen(cases[i].json), NULL, 0, "t.json", &t, &err), STATUS_DATA, &err, cases[i].part);
        assert_non_null(strstr(err.text, "t.json"));
    }
    struct tokenizer *t = NULL;
    struct error err;
    assert_refused(tokenizer_load("/nowhere/at/all", &t, &err), STATUS_DATA, &err, "/nowhere/at/all");
    t = make("a", "'decoder': null");
    struct token_list ids = {0};
    assert_refused(tokenizer_encode(t, "ab\xFF", 3, 0, &ids, &err), STATUS_DATA, &err, "byte 0xff at position 2");
    assert_int_equal(ids.count, 0);
    token_list_free(&ids);
    tokenizer_free(t);
}

static const char whole[] =
    "{\"added_tokens\": [{\"id\": 4, \"content\": \"<s>\", \"special\": true}, {\"id\": 5, \"content\": \"\xC3\x80\"}],"
    "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"x+\"}, \"content\": \"x\"}]},"
    "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\s?\\\\p{L}+\"},"
    "\"behavior\": \"Isolated\"}, {\"type\": \"Digits\"}, {\"type\": \"ByteLevel\"}]},"
    "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, {\"Sequence\": {\"id\": \"A\"}}],"
    "\"special_tokens\": {\"<s>\": {\"ids\": [4]}}}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\":"
    "{\"String\": \"_\"}, \"content\": \" \"}, {\"type\": \"ByteLevel\"}]},"
    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"\xC4\xA0\": 2, \"ab\": 3}, \"merges\": [\"a b\"]}}";

static enum status use(struct error *err)
{
    struct tokenizer *t = NULL;
    struct token_list ids = {0};
    struct text out = {0};
    enum status st = tokenizer_load_text(whole, sizeof whole - 1, "{\"bos_token\": \"<s>\"}", 20, "t.json", &t, err);
    if (st == STATUS_OK)
        st = tokenizer_encode(t, "ab <s>e\xCC\x81xx ab", 14, TOKENIZE_ADDED | TOKENIZE_SPECIALS, &ids, err);
    if (st == STATUS_OK)
        st = tokenizer_decode(t, ids.ids, ids.count, true, &out, err);
    if (st == STATUS_OK)
        assert_string_equal(out.data, " ab   ab");
    text_free(&out);
    token_list_free(&ids);
    tokenizer_free(t);
    return st;
}

static void memory_may_run_out(void **state)
{
    (void)state;
    struct error err;
    assert_ok(use(&err), &err);
    long live = mem_live(), n = 0;
    for (enum status st = STATUS_NOMEM; st != STATUS_OK || n < 60; n++) {
        mem_fail_after(n, n % 2);
        st = use(&err);
        mem_fail_after(-1, false);
        assert_int_equal(mem_live(), live);
        if (st != STATUS_OK)
            assert_int_equal(st, STATUS_NOMEM);
        assert_true(n < 5000);
    }
    print_message("%ld allocations were made to fail\n", n);
}

struct shared {
    const struct tokenizer *tokenizer;
    const struct token_list *wanted;
    const char *text;
    int wrong;
};

static void *encode_often(void *context)
{
    struct shared *s = context;
    for (int i = 0; i < 200; i++) {
        struct token_list ids = {0};
        struct error err;
        if (tokenizer_encode(s->tokenizer, s->text, strlen(s->text), TOKENIZE_ADDED, &ids, &err) != STATUS_OK ||
            ids.count != s->wanted->count || memcmp(ids.ids, s->wanted->ids, ids.count * sizeof *ids.ids))
            s->wrong++;
        token_list_free(&ids);
    }
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    const char *text = "ab a b ab<s>aab b ab 12 abab";
    struct error err = {0};
    struct tokenizer *t = load(whole, NULL, &err);
    struct token_list wanted = {0};
    assert_ok(tokenizer_encode(t, text, strlen(text), TOKENIZE_ADDED, &wanted, &err), &err);
    struct shared shared[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        shared[i] = (struct shared){t, &wanted, text, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &shared[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(shared[i].wrong, 0);
    }
    token_list_free(&wanted);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_behave), cmocka_unit_test(expressions_mean_what_oniguruma_means),
        cmocka_unit_test(byte_level_and_metaspace), cmocka_unit_test(normalizers), cmocka_unit_test(added_tokens),
        cmocka_unit_test(added_tokens_take_the_vocabulary_s_id),
        cmocka_unit_test(merges_by_rank), cmocka_unit_test(unknown_characters), cmocka_unit_test(decoders),
        cmocka_unit_test(specials_and_class), cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(memory_may_run_out), cmocka_unit_test(threads_share_a_tokenizer)};
    long live = mem_live();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed || mem_live() != live;
}
