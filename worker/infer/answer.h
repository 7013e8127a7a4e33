/* Lets a model answer the rows of a data set and scores what it writes. An answer depends on the model, the settings and the
 * row's number alone, never on who answers or on what was answered before.
 * Must not know: messages, options, files, templates. */
#ifndef WORKER_INFER_ANSWER_H
#define WORKER_INFER_ANSWER_H

#include <stdint.h>

#include "common/status.h"
#include "common/text.h"
#include "worker/data/batch.h"
#include "worker/data/tokenizer.h"
#include "worker/infer/generate.h"
#include "worker/infer/score.h"
#include "worker/infer/vote.h"
#include "worker/model/model.h"

/* What came of one row; start with {0}. */
struct answer {
    struct generated generated; /* thought, answer, status */
    struct votes votes;         /* where settings.self_consistency asks for several samples */
    struct text expected;       /* of the row, without the answer prefix and white space round it */
    struct score score;         /* of this row; rows is 0 where it asks nothing, and then nothing was generated */
};
void answer_clear(struct answer *answer); /* releases it */

struct answerer;
/* Scratch memory for one answer at a time; several answerers need a model each. All but the settings' numbers is borrowed. */
enum status answer_create(struct model *model, const struct model_config *config, const float *values,
                          const struct tokenizer *tokenizer, const struct generate_settings *settings, struct answerer **out,
                          struct error *err);
void answer_free(struct answerer *answerer);

/* Answers the first supervised turn of a row as rows are trained: what precedes it is the prompt. With settings.two_stage rows
 * with a thought are answered in two stages, those without in one. `number` tells rows apart where tokens are drawn: the row's
 * number in its data set. The task is the row's. A prompt that fills all positions of the model counts as no answer.
 * Rows of plain text and of classes ask nothing. The texts of `out` are replaced. */
enum status answer_row(struct answerer *answerer, const struct row *row, uint64_t number, struct answer *out, struct error *err);

#endif
