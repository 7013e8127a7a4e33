/* Writes a small tokenizer in the two files Hugging Face reads: byte-level BPE over all 256 bytes, merges learnt by the
 * usual rule (join the most frequent neighbours, Sennrich et al. 2016; ties go to the smaller ids).
 * Must not know: how tokenizers are read. */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "worker/data/demo/demo.h"

/* U+FF5C stands between the bars and U+2581 between words, as in the DeepSeek models. */
static const char *const special_tokens[] = {"<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
                                             "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
                                             "<\xEF\xBD\x9CUser\xEF\xBD\x9C>", "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>",
                                             "<think>", "</think>"};
enum {
    SPECIALS = sizeof special_tokens / sizeof *special_tokens,
    HIDDEN_SPECIALS = 4, /* the first ones vanish from decoded text, the thought tags stay */
    BYTES = 256,
    MAX_WORDS = 4096,
};

struct word {
    int32_t *symbols;
    int size;
    int64_t count;
};

struct merge {
    int32_t left, right;
};

struct trainer {
    struct word *words;
    int n_words;
    struct merge *merges;
    int n_merges;
    struct neighbours *pairs; /* scratch: one for each place where two symbols meet */
    struct text spellings;    /* of all symbols from SPECIALS on, each with a NUL behind it */
    size_t *places;           /* [n_symbols - SPECIALS] where each begins */
    int32_t n_symbols;
};

struct neighbours {
    struct merge pair;
    int64_t count;
};

static int class_of(char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return 'a';
    if (c >= '0' && c <= '9')
        return '0';
    return c == ' ' || c == '\n' || c == '\t' || c == '\r' ? ' ' : '.';
}

/* Length of the next piece: letters, digits or signs with the space in front of them, or white space. It cuts like the
 * ByteLevel pre-tokenizer does on plain ASCII text, so learnt merges can apply. */
static size_t piece_size(const char *text, size_t left)
{
    size_t n = text[0] == ' ' && left > 1 && class_of(text[1]) != ' ';
    int class = class_of(text[n]);
    while (n < left && class_of(text[n]) == class)
        n++;
    return n;
}

static bool is_word(const struct word *word, const char *text, size_t size)
{
    if ((size_t)word->size != size)
        return false;
    for (size_t i = 0; i < size; i++)
        if (word->symbols[i] != SPECIALS + (unsigned char)text[i])
            return false;
    return true;
}

static enum status count_word(struct trainer *t, const char *text, size_t size, struct error *err)
{
    for (int i = 0; i < t->n_words; i++)
        if (is_word(&t->words[i], text, size)) {
            t->words[i].count++;
            return STATUS_OK;
        }
    if (t->n_words == MAX_WORDS)
        return STATUS_OK;
    int32_t *symbols = mem_alloc(size, sizeof *symbols);
    if (!symbols)
        FAIL(err, STATUS_NOMEM, "no memory to learn a tokenizer");
    for (size_t i = 0; i < size; i++)
        symbols[i] = SPECIALS + (unsigned char)text[i];
    t->words[t->n_words++] = (struct word){symbols, (int)size, 1};
    return STATUS_OK;
}

static int by_pair(const void *a, const void *b)
{
    const struct merge *x = &((const struct neighbours *)a)->pair, *y = &((const struct neighbours *)b)->pair;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

/* The most frequent neighbours, or count 0. */
static struct neighbours best_pair(struct trainer *t)
{
    size_t n = 0;
    for (int w = 0; w < t->n_words; w++)
        for (int i = 0; i + 1 < t->words[w].size; i++)
            t->pairs[n++] = (struct neighbours){{t->words[w].symbols[i], t->words[w].symbols[i + 1]}, t->words[w].count};
    qsort(t->pairs, n, sizeof *t->pairs, by_pair);
    struct neighbours best = {0};
    for (size_t i = 0; i < n;) {
        struct neighbours sum = t->pairs[i];
        size_t next = i + 1;
        for (; next < n && !by_pair(&t->pairs[i], &t->pairs[next]); next++)
            sum.count += t->pairs[next].count;
        if (sum.count > best.count)
            best = sum;
        i = next;
    }
    return best;
}

static void join_pair(struct word *word, struct merge pair, int32_t joined)
{
    int n = 0;
    for (int i = 0; i < word->size; i++) {
        bool meets = i + 1 < word->size && word->symbols[i] == pair.left && word->symbols[i + 1] == pair.right;
        word->symbols[n++] = meets ? joined : word->symbols[i];
        i += meets;
    }
    word->size = n;
}

/* The printable character that stands for a byte in byte-level vocabularies (GPT-2): itself where it is printable,
 * otherwise the next one from U+0100 on. */
static void print_byte(int byte, struct text *out)
{
    int code = 256;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte)
            code = printable ? b : code;
        else
            code += !printable;
    }
    char utf8[2] = {(char)(0xC0 | code >> 6), (char)(0x80 | (code & 0x3F))};
    if (code < 0x80)
        utf8[0] = (char)code;
    text_append(out, utf8, code < 0x80 ? 1 : 2);
}

static const char *spelling(const struct trainer *t, int32_t symbol)
{
    return t->spellings.data + t->places[symbol - SPECIALS];
}

static void end_symbol(struct trainer *t, size_t place)
{
    text_append(&t->spellings, "", 1);
    t->places[t->n_symbols++ - SPECIALS] = place;
}

static enum status spell_bytes(struct trainer *t, int merges, struct error *err)
{
    t->n_symbols = SPECIALS;
    t->places = mem_alloc(BYTES + (size_t)merges, sizeof *t->places);
    if (!t->places)
        FAIL(err, STATUS_NOMEM, "no memory for a tokenizer");
    for (int byte = 0; byte < BYTES; byte++) {
        size_t place = t->spellings.size;
        print_byte(byte, &t->spellings);
        end_symbol(t, place);
    }
    if (t->spellings.failed)
        FAIL(err, STATUS_NOMEM, "no memory for a tokenizer");
    return STATUS_OK;
}

/* The symbol that two neighbours become: a new one, unless other neighbours already spell the same ("ab" + "c",
 * "a" + "bc"). */
static enum status joined_symbol(struct trainer *t, struct merge pair, int32_t *out, struct error *err)
{
    size_t place = t->spellings.size;
    text_printf(&t->spellings, "%s%s", spelling(t, pair.left), spelling(t, pair.right));
    if (t->spellings.failed)
        FAIL(err, STATUS_NOMEM, "no memory to learn a tokenizer");
    for (*out = SPECIALS; *out < t->n_symbols; (*out)++)
        if (!strcmp(spelling(t, *out), t->spellings.data + place)) {
            t->spellings.size = place;
            return STATUS_OK;
        }
    end_symbol(t, place);
    return STATUS_OK;
}

static enum status learn(struct trainer *t, const char *sample, size_t size, int merges, struct error *err)
{
    t->words = mem_alloc(MAX_WORDS, sizeof *t->words);
    t->merges = mem_alloc((size_t)merges, sizeof *t->merges);
    if (!t->words || !t->merges)
        FAIL(err, STATUS_NOMEM, "no memory to learn a tokenizer");
    for (size_t at = 0; at < size;) {
        size_t n = piece_size(sample + at, size - at);
        TRY(count_word(t, sample + at, n, err));
        at += n;
    }
    size_t places = 0;
    for (int w = 0; w < t->n_words; w++)
        places += (size_t)t->words[w].size;
    t->pairs = mem_alloc(places, sizeof *t->pairs);
    if (!t->pairs)
        FAIL(err, STATUS_NOMEM, "no memory to learn a tokenizer");
    for (; t->n_merges < merges; t->n_merges++) {
        struct neighbours best = best_pair(t);
        if (best.count < 2)
            break;
        int32_t joined = 0;
        TRY(joined_symbol(t, best.pair, &joined, err));
        t->merges[t->n_merges] = best.pair;
        for (int w = 0; w < t->n_words; w++)
            join_pair(&t->words[w], best.pair, joined);
    }
    return STATUS_OK;
}

static void print_vocabulary(const struct trainer *t, struct text *scratch, struct text *out)
{
    text_puts(out, "    \"vocab\": {");
    for (int i = 0; i < SPECIALS; i++) {
        text_puts(out, i ? ", " : "");
        text_json_string(out, special_tokens[i], strlen(special_tokens[i]));
        text_printf(out, ": %d", i);
    }
    for (int32_t symbol = SPECIALS; symbol < t->n_symbols; symbol++) {
        text_puts(out, ", ");
        text_json_string(out, spelling(t, symbol), strlen(spelling(t, symbol)));
        text_printf(out, ": %d", symbol);
    }
    text_puts(out, "},\n    \"merges\": [");
    for (int i = 0; i < t->n_merges; i++) {
        text_clear(scratch);
        text_printf(scratch, "%s %s", spelling(t, t->merges[i].left), spelling(t, t->merges[i].right));
        text_puts(out, i ? ", " : "");
        text_json_string(out, scratch->data ? scratch->data : "", scratch->size);
    }
    text_puts(out, "]\n  }\n}\n");
    out->failed = out->failed || scratch->failed;
}

static void print_tokenizer(const struct trainer *t, struct text *scratch, struct text *out)
{
    text_puts(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    for (int i = 0; i < SPECIALS; i++) {
        text_printf(out, "%s\n    {\"id\": %d, \"content\": ", i ? "," : "", i);
        text_json_string(out, special_tokens[i], strlen(special_tokens[i]));
        text_printf(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": %s}",
                    i < HIDDEN_SPECIALS ? "true" : "false");
    }
    text_printf(out,
                "\n  ],\n  \"normalizer\": null,\n"
                "  \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
                "\"use_regex\": %s},\n"
                "  \"post_processor\": null,\n"
                "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, "
                "\"use_regex\": true},\n"
                "  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null,\n"
                "    \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": false,\n"
                "    \"byte_fallback\": false, \"ignore_merges\": false,\n", t->n_merges ? "true" : "false");
    print_vocabulary(t, scratch, out);
}

static void print_config(struct text *out)
{
    text_printf(out, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"bos_token\": \"%s\",\n"
                     "  \"eos_token\": \"%s\",\n  \"pad_token\": \"%s\",\n  \"add_bos_token\": false,\n"
                     "  \"add_eos_token\": false,\n  \"clean_up_tokenization_spaces\": false,\n"
                     "  \"model_max_length\": 1000000\n}\n", special_tokens[0], special_tokens[1], special_tokens[1]);
}

enum status demo_tokenizer(const char *sample, size_t size, int merges, struct text *tokenizer, struct text *config,
                           struct error *err)
{
    struct trainer trainer = {0};
    struct text scratch = {0};
    enum status st = spell_bytes(&trainer, merges, err);
    if (st == STATUS_OK && merges)
        st = learn(&trainer, sample, size, merges, err);
    if (st == STATUS_OK) {
        print_tokenizer(&trainer, &scratch, tokenizer);
        print_config(config);
        if (tokenizer->failed || config->failed)
            st = error_set(err, STATUS_NOMEM, "no memory to write a tokenizer");
    }
    for (int w = 0; w < trainer.n_words; w++)
        mem_free(trainer.words[w].symbols);
    mem_free(trainer.words);
    mem_free(trainer.merges);
    mem_free(trainer.pairs);
    text_free(&trainer.spellings);
    text_free(&scratch);
    mem_free(trainer.places);
    return st;
}
