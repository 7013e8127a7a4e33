/* How many answers are right: strictly, as whole texts after a few liberties of spelling, and flexibly, by their last number.
 * The same rules for every command and for evaluation during training, so that their numbers can be compared.
 * Must not know: models, tokens, files. */
#ifndef WORKER_INFER_SCORE_H
#define WORKER_INFER_SCORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/text.h"
#include "worker/infer/generate.h"

/* Counts of rows; nothing but int64_t, so that sums travel and add up as an array does. Only finished answers can be right:
 * those that were cut or are missing count as wrong. */
struct score {
    int64_t rows;            /* all that have an expected answer */
    int64_t strict;          /* right as a text */
    int64_t flexible;        /* right by the last number, or as a text */
    int64_t no_answer;
    int64_t thought_cut;     /* an answer followed nevertheless, and may be right */
    int64_t answer_cut;
    int64_t complete;        /* rows that are none of these three */
    int64_t strict_complete; /* of them, right as a text */
};

void score_add(struct score *sum, const struct score *more);

/* The score of one row. `answer` is the answer part alone, never the thought: numbers of a rambling thought do not count.
 *   strict: what stands behind the last `prefix` (or "#### ", which wins) of each text, or the whole text where it has neither,
 *     is the same without white space and a final '.' at its ends, any ',' and '$', and letter case (of ASCII);
 *   flexible: strict, or the last number of the answer has the value of the last one of the expected answer.
 * prefix: NULL or "" for none. */
void score_answer(const char *expected, size_t expected_size, const char *answer, size_t answer_size, enum generate_status status,
                  const char *prefix, struct score *out);

/* Share of hits in n rows with 95 % certainty, 0..1: Wilson, "Probable inference, the law of succession, and statistical
 * inference" (1927). It holds for few rows, and at the ends. n = 0 tells nothing: 0 to 1. */
void score_interval(int64_t hits, int64_t n, double *low, double *high);

/* hits / n, and 0 of none. */
double score_share(int64_t hits, int64_t n);

/* Appends "exact match 93.8 % (120 of 128, 95 % interval 88.2-96.8), flexible 94.5 %, cut 3, no answer 1, of complete ones
 * 96.0 %", without an end of line. */
void score_put(const struct score *score, struct text *out);

/* What score_answer compares: the part of the text that is normalised, borrowed from it. */
struct score_part {
    const char *text;
    size_t size;
};
struct score_part score_part_of(const char *text, size_t size, const char *prefix);
/* Equal but for what strict comparison forgives. */
bool score_same(struct score_part a, struct score_part b);

#endif
