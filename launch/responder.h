/* Lets a worker's model answer rows of evaluation sets during training, as the generation keys of the stage say.
 * Must not know: messages, what becomes of the counts. */
#ifndef LAUNCH_RESPONDER_H
#define LAUNCH_RESPONDER_H

#include "launch/run.h"
#include "worker/train/loop.h"

struct responder;

/* `run` is the first stage; it, the model and `values`, which may change from call to call, are borrowed. NULL where no stage
 * answers rows. */
enum status responder_create(struct run *run, struct model *model, const float *values, struct responder **out, struct error *err);
void responder_free(struct responder *responder);

/* Answers row `index` of a set of the stage. out->counts begin with the numbers of struct score (worker/infer/score.h); out->shown is a
 * JSON object for the first num_generation_samples rows: set, prompt, thought, answer, expected, right, status. */
enum status responder_answer(struct responder *responder, int stage, int set, int64_t index, struct answer_report *out, struct error *err);

#endif
