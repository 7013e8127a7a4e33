/* What TensorBoard shows of a run: an event file in output_dir/runs/<name>/ made of the lines of metrics.jsonl. Numbers
 * become scalars under the tags of the Hugging Face Trainer, routing lines become pictures.
 * Must not know: how numbers come about. Nothing here fails a run: what cannot be written is a warning. */
#ifndef LAUNCH_BOARD_H
#define LAUNCH_BOARD_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

struct board;

/* Appends the usual folder of a run's event files, output_dir/runs/<name>; `name` "": as output_dir. */
void board_put_folder(const char *output_dir, const char *name, struct text *out);
/* Begins a new file in the folder, which sorts behind those of earlier parts of the run.
 * first_step: steps done; readers drop what earlier files say of later ones. STATUS_IO, STATUS_NOMEM. */
enum status board_create(const char *folder, int64_t first_step, struct board **out, struct error *err);
void board_free(struct board *board);
const char *board_path(const struct board *board);

/* A line of metrics.jsonl: of a step, an evaluation, a sample or routing; others are passed over. Each record is on its way to the
 * disk when this returns, whole or not at all. */
void board_line(struct board *board, const char *line, size_t size);
/* A text to be shown as it is. */
void board_text(struct board *board, const char *tag, int64_t step, const char *text, size_t size);

#endif
