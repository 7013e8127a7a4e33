/* A small tokenizer for demo rows: byte-level, its joined tokens learnt from a sample.
 * Must not know: how merges are learnt, how the files look. */
#include "worker/data/demo/demo.h"
#include "worker/data/tokenizer/learn.h"
#include "worker/data/tokenizer/write.h"

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

enum status demo_tokenizer(const char *sample, size_t size, int merges, struct text *tokenizer, struct text *config,
                           struct error *err)
{
    struct word_table words = {0};
    struct vocabulary vocabulary = {0};
    unsigned char alphabet[BYTE_TOKENS];
    enum status st = STATUS_OK;
    for (int byte = 0; byte < BYTE_TOKENS; byte++)
        alphabet[byte] = (unsigned char)byte;
    for (size_t at = 0, n; at < size && merges && st == STATUS_OK; at += n) {
        n = piece_size(sample + at, size - at);
        st = word_table_add(&words, sample + at, n, 1, NULL, err);
    }
    if (st == STATUS_OK)
        st = vocabulary_learn(&words, alphabet, BYTE_TOKENS + merges, 2, &vocabulary, err);
    if (st == STATUS_OK)
        st = tokenizer_write(&vocabulary,
                             vocabulary.n_merges ? "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                                                   "\"trim_offsets\": true, \"use_regex\": true}"
                                                 : "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                                                   "\"trim_offsets\": true, \"use_regex\": false}",
                             tokenizer, config, err);
    word_table_free(&words);
    vocabulary_free(&vocabulary);
    return st;
}
