/* Which rows a slot or a batch was made of, as "file:line, file:line": for messages about numbers that went wrong.
 * Must not know: what went wrong. */
#ifndef WORKER_DATA_ROW_NAMES_H
#define WORKER_DATA_ROW_NAMES_H

#include "common/text.h"
#include "worker/data/dataset.h"

/* Of slot `slot` of step `step`; as dataset_slot_batch takes them. Both append the first rows and how many more there are; nothing
 * where memory is short. */
void row_names_of_slot(const struct dataset *dataset, struct order *order, int64_t step, int slot, struct text *out);
/* Of batch `index` of an evaluation set; as dataset_eval_batch. */
void row_names_of_batch(const struct dataset *dataset, const struct dataset_part *part, int batch_rows, int64_t index, struct text *out);

#endif
