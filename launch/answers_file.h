/* Answers as JSON, one object a line, written while further rows are answered.
 * Must not know: how answers come about. */
#ifndef LAUNCH_ANSWERS_FILE_H
#define LAUNCH_ANSWERS_FILE_H

#include "launch/answers.h"
#include "launch/request.h"

/* Appends {"prompt": ..., "thought": ..., "answer": ..., "status": ..., "tokens": ...} and an end of line; with several
 * answers to a question, "sequence", from 0; with votes, "votes" and "samples"; with an expected answer, "expected", "right" and "right_number". */
void answers_file_line(const struct answered *answered, struct text *out);

/* Answers all questions into request->out ("-": standard output) on request->threads threads; adds up their scores. */
enum status answers_file_write(const struct request *request, const struct source *source, const struct generation *generation,
                               struct questions *questions, struct score *sum, struct error *err);

#endif
