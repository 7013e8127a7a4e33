/* What a person should know about the rows of a run and how they are weighed, before it begins.
 * Must not know: ranks, where the notes are shown. */
#ifndef LAUNCH_ROW_NOTES_H
#define LAUNCH_ROW_NOTES_H

#include "common/text.h"
#include "worker/data/dataset.h"

struct chat_template;

/* Appends one line each. */
void row_notes(const struct dataset *train, const struct chat_template *chat_template, struct text *notes);

#endif
