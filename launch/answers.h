/* Answers to many questions on all threads, handed on in the order of the questions; the same for any number of threads.
 * Must not know: what is done with them. */
#ifndef LAUNCH_ANSWERS_H
#define LAUNCH_ANSWERS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"
#include "launch/generation.h"
#include "launch/questions.h"
#include "launch/source.h"
#include "worker/infer/score.h"
#include "worker/infer/vote.h"

struct answered {
    int64_t number; /* of the answer, from 0 */
    int64_t sequence, sequences; /* which of so many answers to its question, from 0 */
    struct text question, expected; /* as the file has them */
    bool has_expected;
    struct generated generated;
    struct votes votes;
    struct score score; /* rows is 0 without an expected answer */
};

typedef enum status answers_fn(void *context, const struct answered *answered, struct error *err);

/* Answers questions until there are no more or `limit` (negative: none) of them are answered; each thread has scratch memory of its own.
 * A prompt that fills all positions of the model has no answer. When one fails, those before it have been handed on. */
enum status answers_run(const struct source *source, const struct generation *generation, struct questions *questions, int64_t limit,
                        int threads, answers_fn *fn, void *context, struct error *err);

#endif
