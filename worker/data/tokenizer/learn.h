/* Learns which neighbouring tokens to join from words and how often they come: byte-pair encoding (Sennrich et al. 2016).
 * Must not know: where words come from, files. */
#ifndef WORKER_DATA_TOKENIZER_LEARN_H
#define WORKER_DATA_TOKENIZER_LEARN_H

#include <stdint.h>

#include "common/status.h"
#include "worker/data/tokenizer/words.h"

enum { BYTE_TOKENS = 256 };

struct token_pair {
    int32_t left, right;
};

/* Tokens are numbered from 0: the 256 bytes, then what was joined. */
struct vocabulary {
    struct word_table tokens;
    struct token_pair *merges; /* in the order they were learnt */
    size_t n_merges, merge_capacity;
    int64_t last_count; /* how often the last joined pair came; 0: nothing was joined */
    int64_t symbols;    /* tokens that all words come to, each word as often as it was counted */
};

/* Joins the pair of neighbours that comes most often, again and again, until there are `size` tokens (at least 256) or no
 * pair comes `min_count` times (at least 1). Of equally frequent pairs the one with the smaller left number is taken, then
 * the one with the smaller right number; the order of the words does not matter. `alphabet` lists the bytes by token
 * number. The work grows with the places where a join happens, not with tokens times words. On failure *out is empty. */
enum status vocabulary_learn(const struct word_table *words, const unsigned char alphabet[BYTE_TOKENS], int32_t size,
                             int64_t min_count, struct vocabulary *out, struct error *err);
void vocabulary_free(struct vocabulary *vocabulary);

#endif
